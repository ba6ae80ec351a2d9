"""A machine with one clock does what one does whose units' clocks stand still when they may."""

from __future__ import annotations

import re
from random import Random

import pytest

from covta.hw.generate.verilog import to_verilog
from covta.hw.params import load_config
from covta.hw.rtl.clocks import UNIT_CLOCKS
from covta.hw.rtl.shell import Shell
from covta.sim.bench.build import build_verilog, compile_library
from covta.sim.fuzz.campaign import random_dram
from covta.sim.fuzz.compare import same_bytes
from covta.sim.fuzz.devices import run_on
from covta.sim.fuzz.generator import random_program
from covta.sim.fuzz.illegal import KINDS, mutate

pytestmark = pytest.mark.rtl

CFG = load_config("tiny")


def clocks(verilog: str) -> set[str]:
    return set(re.findall(r"posedge (\w+)", verilog))


@pytest.fixture(scope="module")
def one_clock(tmp_path_factory):
    text = to_verilog(Shell(CFG), "vta").text
    assert clocks(text) == {"clk"}
    path = tmp_path_factory.mktemp("one_clock") / "vta.v"
    path.write_text(text, encoding="utf-8")
    return compile_library(CFG, path)


def test_the_model_has_a_clock_for_every_unit():
    found = clocks(build_verilog(CFG).read_text(encoding="utf-8"))
    assert found == {"clk", *(f"clk_{name}" for name in UNIT_CLOCKS)}


@pytest.mark.parametrize("kind", [None, *KINDS])
@pytest.mark.parametrize("seed", range(40, 43))
def test_nothing_shows_which_clocks_stood_still(kind, seed, one_clock, monkeypatch):
    program = random_program(CFG, seed, 25)
    if kind is not None:
        found = mutate(program, seed, kind)
        if found is None:
            pytest.skip(f"no room for {kind}")
        program = found.program
    dram = random_dram(Random(seed))
    unit_clocks = run_on("rtl", program, dram)
    monkeypatch.setattr("covta.sim.bench.model.build_library", lambda cfg, trace: one_clock)
    single = run_on("rtl", program, dram)
    for name in ("cause", "insn", "cycles", "counters"):
        assert getattr(unit_clocks, name) == getattr(single, name)
    assert same_bytes(unit_clocks.memory, single.memory) is None
