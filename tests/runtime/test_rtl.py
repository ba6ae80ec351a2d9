"""The RTL device against the program container and the cycle simulator."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from covta.hw.params import load_config
from covta.runtime.device import DeviceError, open_device
from covta.runtime.program import Program
from covta.runtime.rtl import RtlDevice
from covta.sim.dram import DramModel

pytestmark = pytest.mark.rtl

CFG = load_config("tiny")


def _matmul_module():
    path = Path(__file__).parents[1] / "rtl" / "cocotb" / "matmul.py"
    spec = importlib.util.spec_from_file_location("covta_test_matmul", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


M = _matmul_module()


def program(seed, **changes):
    drawn = M.matmul(CFG, seed)
    stream = drawn.regions[M.INSN_ADDR]
    fields = {
        "config": CFG,
        "insn": stream.reshape(-1, 16),
        "insn_addr": M.INSN_ADDR,
        "region_addrs": tuple(drawn.regions),
        "regions": tuple(drawn.regions.values()),
        "expected": tuple(drawn.expected if addr == M.OUT_ADDR else None for addr in drawn.regions),
    }
    return Program(**(fields | changes))


@pytest.mark.parametrize(
    "dram",
    [DramModel(), DramModel(latency_cycles=9, stall_seed=1), DramModel(beats_per_cycle=0.25)],
    ids=str,
)
def test_bytes_cycles_and_counters_equal_the_cycle_simulator(dram):
    p = program(1)
    rtl, cycle = RtlDevice().run(p, dram), open_device("cycle").run(p, dram)
    for expected, got, other in zip(p.expected, rtl.memory, cycle.memory, strict=True):
        assert expected is None or np.array_equal(expected, got)
        assert np.array_equal(got, other)
    assert (rtl.cycles, rtl.fault) == (cycle.cycles, cycle.fault)
    assert rtl.counters == {name: cycle.counters[name] for name in rtl.counters}


def test_initial_tokens_are_there_at_the_start_and_cost_no_cycles():
    plain, primed = program(2), program(2, initial_tokens=(1, 2, 0, 0))
    assert RtlDevice().run(plain).cycles >= RtlDevice().run(primed).cycles
    assert RtlDevice().run(primed).cycles == open_device("cycle").run(primed).cycles


def test_a_program_is_left_as_it_was():
    p = program(3)
    before = [data.copy() for data in p.regions]
    RtlDevice().run(p)
    assert all(np.array_equal(a, b) for a, b in zip(before, p.regions, strict=True))


def test_too_many_cycles_are_an_error():
    with pytest.raises(DeviceError, match="rtl: still running after 10 cycles"):
        RtlDevice().run(program(4), max_cycles=10)
