"""The difference allowed between the cycle simulator and the RTL is none."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest

from covta.hw.params import load_config
from covta.runtime.cycle import CycleDevice
from covta.runtime.rtl import RtlDevice
from covta.sim.dram import LEAST_RATE, MOST_LATENCY_CYCLES, DramModel
from covta.sim.fuzz.campaign import random_dram
from covta.sim.fuzz.compare import differences
from covta.sim.fuzz.devices import run_on
from covta.sim.fuzz.generator import random_program
from covta.sim.fuzz.illegal import KINDS, mutate

from ..handmade import CASES

pytestmark = pytest.mark.rtl

MACHINES = ("tiny", "shallow", "batch2_in8_out4")
SEED = 9000


@pytest.mark.parametrize("seed", range(SEED, SEED + 20))
@pytest.mark.parametrize("name", MACHINES)
def test_random_programs_take_equal_cycles_counters_and_bytes(name, seed):
    """On memories of any latency and rate, half of them with random stalls."""
    program = random_program(load_config(name), seed, 30)
    dram = random_dram(Random(seed))
    results = {device: run_on(device, program, dram) for device in ("functional", "cycle", "rtl")}
    assert differences(results) == []


@pytest.mark.parametrize(
    "dram",
    [DramModel(latency_cycles=MOST_LATENCY_CYCLES), DramModel(beats_per_cycle=LEAST_RATE)],
    ids=["latency", "rate"],
)
def test_the_slowest_memory_is_no_deadlock_to_either(dram):
    case = CASES["load to store"]
    cycle, rtl = (device.run(case.program, dram) for device in (CycleDevice(), RtlDevice()))
    assert cycle.fault is rtl.fault is None
    assert (cycle.cycles, cycle.counters) == (rtl.cycles, rtl.counters)


@pytest.mark.parametrize("name", MACHINES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_fault_is_the_same_everywhere(kind, name):
    """Cause and instruction on all devices; cycles, counters and bytes on those that know time."""
    found = None
    for seed in range(SEED, SEED + 40):
        found = mutate(random_program(load_config(name), seed, 20), seed, kind)
        if found is not None:
            break
    if found is None:
        pytest.skip(f"no program has room for {kind} on {name}")
    dram = random_dram(Random(seed))
    devices = ("functional", "cycle", "rtl")
    results = {device: run_on(device, found.program, dram) for device in devices}
    assert differences(results, found) == []
    if found.insn is not None:
        assert {r.insn for r in results.values()} == {found.insn}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_small_programs_take_known_cycles(case):
    rtl = RtlDevice().run(case.program, case.dram)
    fault = None if rtl.fault is None else (rtl.fault.cause, rtl.fault.insn)
    assert (rtl.cycles, fault) == (case.cycles, case.fault)
    cycle = CycleDevice().run(case.program, case.dram)
    assert rtl.counters == cycle.counters
    for one, other in zip(rtl.memory, cycle.memory, strict=True):
        np.testing.assert_array_equal(one, other)
