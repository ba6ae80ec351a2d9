"""Builds the machine for cocotb and runs the regressions of `tests/rtl/cocotb` on it."""

import contextlib
import os
import shutil
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


@pytest.mark.parametrize(
    "name", ["tiny", pytest.param("edge", marks=pytest.mark.slow)], ids=lambda n: n
)
def test_regressions(name, tmp_path, monkeypatch):
    runners = pytest.importorskip("cocotb_tools.runner")
    verilator = find_verilator()
    assert verilator is not None, "Verilator is missing"
    monkeypatch.setenv("PATH", f"{verilator.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("COVTA_TEST_CONFIG", name)
    monkeypatch.syspath_prepend(HERE)
    verilog = tmp_path / "vta.v"
    verilog.write_text(to_verilog(Shell(load_config(name)), "vta").text, encoding="utf-8")
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
            test_module="regressions",
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
