"""The cycle simulator: nothing is skipped that counts, and small programs take known times."""

from random import Random

import numpy as np
import pytest

from covta.hw.counters import COUNTERS
from covta.hw.faults import FaultCause
from covta.hw.isa import AluOp
from covta.hw.params import load_config
from covta.runtime.cycle import CycleDevice
from covta.runtime.device import DeviceError
from covta.runtime.functional import FunctionalDevice
from covta.runtime.program import Program
from covta.sim.dram import DEFAULT_DRAM, DramModel
from covta.sim.fuzz.campaign import random_dram
from covta.sim.fuzz.generator import random_program
from covta.sim.fuzz.illegal import KINDS, mutate

from ..handmade import (
    CASES,
    CFG,
    FINISH,
    IMM,
    INP,
    PIPELINE,
    UPPER,
    UPPER_UOP,
    ZERO_UOP,
    alu,
    finish,
    gemm,
    load,
    program_of,
    store,
)

MACHINES = ("tiny", "shallow", "batch2_in8_out4", "extended", "bus256", "single_beats", "mul_one")


def container(program):
    """What the generator makes, as devices take it."""
    return Program(
        config=program.config,
        insn=program.insn,
        insn_addr=program.insn_addr,
        region_addrs=tuple(program.region_addrs),
        regions=tuple(program.regions),
        base_ptrs=tuple(program.base_ptrs),
        initial_tokens=tuple(program.initial_tokens),
    )


def same(a, b):
    assert (a.cycles, a.fault) == (b.cycles, b.fault)
    assert a.counters == b.counters
    np.testing.assert_array_equal(a.trace, b.trace)
    for one, other in zip(a.memory, b.memory, strict=True):
        np.testing.assert_array_equal(one, other)


def cycles(*insns, dram=DEFAULT_DRAM):
    result = CycleDevice().run(program_of(insns), dram)
    assert result.fault is None
    return result.cycles


# ---- skipping ----------------------------------------------------------------------------------
@pytest.mark.parametrize("name", MACHINES)
def test_skipping_changes_nothing(name):
    for seed in range(16):
        rng = Random(seed)
        program = container(random_program(load_config(name), seed, 30))
        dram = random_dram(rng)
        skipped = CycleDevice().run(program, dram)
        assert skipped.fault is None
        same(skipped, CycleDevice().run(program, dram, every_cycle=True))


@pytest.mark.parametrize("kind", KINDS)
def test_skipping_changes_no_fault(kind):
    found = 0
    for seed in range(12):
        illegal = mutate(random_program(CFG, seed, 20), seed, kind)
        if illegal is None:
            continue
        program, dram = container(illegal.program), random_dram(Random(seed))
        skipped = CycleDevice().run(program, dram)
        assert skipped.fault is not None
        assert skipped.fault.cause == illegal.cause
        assert illegal.insn in (None, skipped.fault.insn)
        same(skipped, CycleDevice().run(program, dram, every_cycle=True))
        found += 1
    assert found


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_skipping_changes_no_small_program(case):
    device = CycleDevice()
    same(
        device.run(case.program, case.dram),
        device.run(case.program, case.dram, every_cycle=True),
    )


# ---- time --------------------------------------------------------------------------------------
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_small_programs_take_the_cycles_of_the_rtl(case):
    result = CycleDevice().run(case.program, case.dram)
    fault = None if result.fault is None else (result.fault.cause, result.fault.insn)
    assert (result.cycles, fault) == (case.cycles, case.fault)


def test_a_micro_op_of_the_array_takes_one_cycle():
    for times in (2, 17, 1000):
        extra = cycles(ZERO_UOP, gemm(times), FINISH) - cycles(ZERO_UOP, gemm(1), FINISH)
        assert extra == times - 1


@pytest.mark.parametrize(
    ("fields", "changes"),
    [
        ({}, 1),
        ({"src_factor_in": 1}, 16),
        ({"src_factor_out": 1, "iter_out": 2}, 2),
        ({"src_factor_in": 1, "iter_out": 2}, 32),
    ],
)
def test_operand_2_costs_a_cycle_each_time_it_is_another(fields, changes):
    def busy(**more):
        operation = alu(AluOp.ADD, 16, dst_factor_in=1, **UPPER, **fields, **more)
        result = CycleDevice().run(program_of((UPPER_UOP, operation, FINISH)), DEFAULT_DRAM)
        assert result.fault is None
        return result.counters["compute.alu.busy_cycles"]

    assert busy() - busy(use_imm=1) == changes - 1


def test_latency_reaches_the_total_once_where_loads_overlap():
    loads = [load(INP, 8, sram_base=8 * k) for k in range(4)]
    slow, fast = (cycles(*loads, FINISH, dram=DramModel(latency_cycles=n)) for n in (201, 101))
    # Once for the instructions, once for all the data.
    assert slow - fast == 2 * 100


def test_more_latency_or_less_rate_is_never_faster():
    for better, worse in (
        (DramModel(latency_cycles=8), DramModel(latency_cycles=9)),
        (DramModel(), DramModel(beats_per_cycle=0.5)),
        (DramModel(max_outstanding=2), DramModel(max_outstanding=1)),
    ):
        assert cycles(*PIPELINE, dram=better) <= cycles(*PIPELINE, dram=worse)


def test_equal_seeds_give_equal_times_and_others_do_not():
    times = [cycles(*PIPELINE, dram=DramModel(stall_seed=s)) for s in (1, 1, 2, 3, 4)]
    assert times[0] == times[1]
    assert len(set(times)) > 1


# ---- counters and traces -----------------------------------------------------------------------
def test_counters_are_those_of_the_machine():
    result = CycleDevice().run(program_of(PIPELINE))
    assert result.counters.keys() == COUNTERS.keys()
    insn_beats = 16 * len(PIPELINE) // CFG.bus_bytes
    inp_beats, wgt_beats = 8 * CFG.inp_elem_bytes // 4, 4 * CFG.wgt_elem_bytes // 4
    assert result.counters["fetch.insns"] == len(PIPELINE)
    assert result.counters["fetch.read_beats"] == insn_beats
    assert result.counters["load.read_beats"] == inp_beats + wgt_beats
    assert result.counters["compute.load.read_beats"] == 1
    assert result.counters["store.write_beats"] == 16 * CFG.out_elem_bytes // CFG.bus_bytes
    assert result.counters["compute.gemm.busy_cycles"] >= 16
    assert result.counters["compute.token_stall_cycles"] > 0
    assert result.counters["store.token_stall_cycles"] > 0
    assert all(0 <= n <= result.cycles for k, n in result.counters.items() if "cycles" in k)


@pytest.mark.parametrize(
    ("loop", "interval"),
    [
        ({"iter_in": 1}, 4),
        ({"iter_in": 4}, 4),
        ({"iter_in": 5}, 5),
        ({"uop_end": 4}, 4),
        ({"uop_end": 7}, 7),
    ],
)
def test_gemms_follow_each_other_as_fast_as_their_micro_ops_can_be_read(loop, interval):
    """One micro-op a cycle, and four cycles an instruction at least."""
    some = [gemm(reset=1, **loop)] * 10
    assert cycles(*some, *some, FINISH) - cycles(*some, FINISH) == 10 * interval


def test_traces_hold_start_and_end_of_every_instruction():
    result = CycleDevice().run(program_of(PIPELINE))
    start, end = result.trace.T
    assert (start >= 0).all()
    assert (end >= start).all()
    assert (end < result.cycles).all()
    assert start[3] > end[2], "gemm waits for the weights"
    assert start[5] > end[4], "the store waits for the alu"


def test_an_instruction_that_never_ran_has_no_place_in_the_trace():
    result = CycleDevice().run(program_of([FINISH, store(0, pop_prev=1), gemm(pop_prev=1)]))
    assert result.fault.cause is FaultCause.WATCHDOG
    assert result.trace[:, 1].tolist()[1:] == [-1, -1]
    assert result.trace[0].min() >= 0


# ---- faults ------------------------------------------------------------------------------------
def test_the_watchdog_waits_as_long_as_its_register_says():
    result = CycleDevice().run(program_of([finish(pop_prev=1)]))
    assert (result.fault.cause, result.fault.insn) == (FaultCause.WATCHDOG, 0)
    assert 65536 <= result.cycles < 65536 + 64


def test_a_slow_memory_is_no_deadlock():
    assert cycles(*PIPELINE, dram=DramModel(latency_cycles=50_000)) > 3 * 50_000


def test_255_tokens_are_no_overflow():
    push = load(INP, 0, push_next=1)
    assert CycleDevice().run(program_of([push] * 255 + [FINISH])).fault is None
    full = program_of([push, FINISH], initial_tokens=(255, 0, 0, 0))
    fault = CycleDevice().run(full).fault
    assert (fault.cause, fault.insn) == (FaultCause.TOKEN_OVERFLOW, 0)


def test_initial_tokens_are_taken():
    waits = [load(INP, 0, pop_next=1), finish(pop_prev=1, pop_next=1), store(0, pop_prev=1)]
    assert CycleDevice().run(program_of(waits, initial_tokens=(1, 1, 1, 1))).fault is None
    for missing in range(4):
        tokens = tuple(int(k != missing) for k in range(4))
        fault = CycleDevice().run(program_of(waits, initial_tokens=tokens)).fault
        assert fault.cause is FaultCause.WATCHDOG
        assert fault.insn == (1, 0, 2, 1)[missing]


def test_nothing_is_written_after_a_fault():
    early = load(INP, sram_base=CFG.inp_depth)
    program = program_of([early, gemm(1000, push_next=1), store(16, pop_prev=1), FINISH])
    result = CycleDevice().run(program)
    assert result.fault.cause is FaultCause.SCRATCHPAD
    np.testing.assert_array_equal(result.memory[0], program.regions[0])


# ---- the device --------------------------------------------------------------------------------
def test_bytes_equal_the_functional_simulator_and_the_program_is_left_alone():
    program = program_of([ZERO_UOP, alu(0, 4, **IMM), *PIPELINE[1:]])
    before = program.regions[0].copy()
    timed, plain = CycleDevice().run(program), FunctionalDevice().run(program)
    np.testing.assert_array_equal(timed.memory[0], plain.memory[0])
    np.testing.assert_array_equal(program.regions[0], before)
    assert (timed.memory[0] != before).any()


def test_a_waveform_is_refused(tmp_path):
    with pytest.raises(DeviceError, match="waveforms come from the rtl device"):
        CycleDevice().run(program_of([FINISH]), waveform=tmp_path / "w.vcd")
