"""Builds the machine and its units for cocotb and runs the regressions of `tests/rtl/cocotb`."""

import contextlib
import os
import shutil
from importlib import import_module
from pathlib import Path
from xml.etree import ElementTree

import pytest

from covta.hw.generate.tools import find_verilator
from covta.hw.generate.verilog import to_verilog
from covta.hw.params import load_config
from covta.hw.rtl.shell import Shell
from covta.sim.bench.build import compiler_command

pytestmark = pytest.mark.cocotb

HERE = Path(__file__).parent / "cocotb"


MACHINES = ["tiny", pytest.param("edge", marks=pytest.mark.slow)]
UNIT_MACHINES = [
    "tiny",
    *(pytest.param(n, marks=pytest.mark.slow) for n in ("edge", "bus256", "short_bursts")),
]


@pytest.mark.parametrize("name", MACHINES)
def test_machine(name, tmp_path, monkeypatch):
    run_regressions(Shell(load_config(name)), "regressions", name, tmp_path, monkeypatch)


@pytest.mark.parametrize("name", UNIT_MACHINES)
@pytest.mark.parametrize("unit", ["fetch", "load", "store"])
def test_unit(unit, name, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(HERE)
    units = import_module("units").UNITS
    dut = units[unit](load_config(name))
    run_regressions(dut, f"{unit}_regressions", name, tmp_path, monkeypatch)


def run_regressions(dut, module, name, tmp_path, monkeypatch) -> None:
    """Build a component with Verilator and run the tests of a module on it."""
    runners = pytest.importorskip("cocotb_tools.runner")
    verilator = find_verilator()
    assert verilator is not None, "Verilator is missing"
    monkeypatch.setenv("PATH", f"{verilator.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("COVTA_TEST_CONFIG", name)
    monkeypatch.syspath_prepend(HERE)
    verilog = tmp_path / "vta.v"
    verilog.write_text(to_verilog(dut, "vta").text, encoding="utf-8")
    if shutil.which("g++") is None:  # which compiles twice as fast
        compiler = compiler_command().replace(" ", r"\ ")
        monkeypatch.setenv("MAKEFLAGS", f"-- CXX={compiler} LINK={compiler}")
    runner = runners.get_runner("verilator")
    runner.build(
        sources=[verilog],
        hdl_toplevel="vta",
        always=True,
        timescale=("1ns", "1ps"),
        build_dir=tmp_path,
        build_args=["-Wno-fatal", "-Wno-lint", "-Wno-style", "-O3", "--x-initial", "fast"],
        log_file=tmp_path / "build.log",
    )
    results = tmp_path / "results.xml"
    with contextlib.suppress(SystemExit):  # How the runner says that a test failed.
        runner.test(
            hdl_toplevel="vta",
            test_module=module,
            build_dir=tmp_path,
            test_dir=tmp_path,
            results_xml=str(results),
            log_file=tmp_path / "test.log",
        )
    cases = list(ElementTree.parse(results).iter("testcase"))
    failed = [
        case.get("name") for case in cases if {"failure", "error"} & {child.tag for child in case}
    ]
    log = (tmp_path / "test.log").read_text(encoding="utf-8")
    assert cases
    assert not failed, f"{len(failed)} of {len(cases)} failed: {failed}\n{log[-6000:]}"
