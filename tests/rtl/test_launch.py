"""The tiny machine under Verilator: launches, tokens between them, faults and what they say."""

import numpy as np
import pytest

from covta.hw.counters import COUNTERS
from covta.hw.faults import FaultCause
from covta.hw.isa import MemoryType, Opcode, isa
from covta.hw.params import load_config
from covta.sim.bench.launch import Launch, push_tokens
from covta.sim.bench.memory import Extent, extents_of
from covta.sim.bench.model import LimitError, RtlModel
from covta.sim.dram import DramModel

from .cocotb.matmul import INSN_ADDR, INSNS, OUT_ADDR, matmul

pytestmark = pytest.mark.rtl

CFG = load_config("tiny")
ENCODE = isa(CFG).encode
STREAM_ADDR = 0x2000


@pytest.fixture
def model():
    with RtlModel(CFG) as model:
        model.set_dram(DramModel())
        yield model


def run_stream(model, insns, **options):
    data = np.frombuffer(b"".join(insns), np.uint8).copy()
    model.set_memory([Extent(base=STREAM_ADDR, data=data)])
    launch = Launch(
        insn_addr=STREAM_ADDR,
        insn_count=len(insns),
        window_base=STREAM_ADDR,
        window_last=STREAM_ADDR + len(data) - 1,
        watchdog_cycles=500,
    )
    return launch.run(model, **options)


def run_matmul(model, seed, dram):
    program = matmul(CFG, seed)
    model.set_dram(dram)
    extents = extents_of(program.regions.items(), CFG.bus_bytes)
    model.set_memory(extents)
    launch = Launch(
        insn_addr=INSN_ADDR,
        insn_count=program.insn_count,
        window_base=extents[0].base,
        window_last=extents[-1].end - 1,
    )
    outcome = launch.run(model)
    out = next(e for e in extents if e.base <= OUT_ADDR < e.end)
    return outcome, np.array_equal(out.view(OUT_ADDR, len(program.expected)), program.expected)


def finish(**flags):
    return ENCODE(Opcode.FINISH, **flags)


@pytest.mark.parametrize(
    "dram",
    [
        DramModel(),
        DramModel(latency_cycles=1),
        DramModel(latency_cycles=200, max_outstanding=1),
        DramModel(beats_per_cycle=0.3),
        *(DramModel(latency_cycles=5, stall_seed=seed) for seed in range(4)),
    ],
    ids=str,
)
def test_a_product_is_right_on_any_memory(model, dram):
    outcome, right = run_matmul(model, 1, dram)
    assert (outcome.cause, right) == (FaultCause.NONE, True)
    assert outcome.counters.keys() == COUNTERS.keys()
    assert outcome.counters["fetch.insns"] == len(INSNS)


def test_equal_runs_take_equal_cycles(model):
    first, _ = run_matmul(model, 2, DramModel(stall_seed=3))
    second, _ = run_matmul(model, 2, DramModel(stall_seed=3))
    assert first == second


def test_pushed_tokens_are_there_and_no_others(model):
    push_tokens(model, [3, 2, 255, 4])
    pops = [
        *[ENCODE(Opcode.LOAD, memory_type=MemoryType.UOP, pop_prev=1)] * 3,
        *[ENCODE(Opcode.LOAD, memory_type=MemoryType.INP, pop_next=1)] * 2,
        *[ENCODE(Opcode.STORE, memory_type=MemoryType.OUT, pop_prev=1)] * 255,
        *[ENCODE(Opcode.LOAD, memory_type=MemoryType.UOP, pop_next=1)] * 4,
        finish(),
    ]
    assert run_stream(model, pops).cause is FaultCause.NONE
    outcome = run_stream(model, [finish(), finish(pop_prev=1)])
    assert (outcome.cause, outcome.insn) == (FaultCause.WATCHDOG, 1)


@pytest.mark.parametrize(
    ("insns", "cause", "insn"),
    [
        ([ENCODE(Opcode.LOAD)], FaultCause.NO_FINISH, 1),
        ([finish(), bytes([7]) + bytes(15)], FaultCause.ILLEGAL_INSTRUCTION, 1),
        (
            [ENCODE(Opcode.LOAD, memory_type=MemoryType.UOP, push_prev=1)] * 256 + [finish()],
            FaultCause.TOKEN_OVERFLOW,
            255,
        ),
        (
            [
                ENCODE(
                    Opcode.LOAD,
                    memory_type=MemoryType.INP,
                    sram_base=CFG.inp_depth,
                    dram_base=STREAM_ADDR // CFG.inp_elem_bytes,
                    y_size=1,
                    x_size=1,
                ),
                finish(),
            ],
            FaultCause.SCRATCHPAD,
            0,
        ),
        (
            [ENCODE(Opcode.LOAD, memory_type=MemoryType.INP, y_size=1, x_size=1), finish()],
            FaultCause.DRAM_WINDOW,
            0,
        ),
    ],
    ids=lambda p: p.text if isinstance(p, FaultCause) else "",
)
def test_a_fault_names_its_cause_and_instruction(model, insns, cause, insn):
    outcome = run_stream(model, insns)
    assert (outcome.cause, outcome.insn) == (cause, insn)


def test_a_refused_launch_is_a_fault_without_cycles(model):
    data = np.frombuffer(finish() * 2, np.uint8).copy()
    model.set_memory([Extent(base=STREAM_ADDR, data=data)])
    outcome = Launch(
        insn_addr=STREAM_ADDR + 8, insn_count=1, window_base=0, window_last=0xFFFF
    ).run(model)
    assert (outcome.cycles, outcome.cause, outcome.insn) == (0, FaultCause.MISALIGNED, 0)


def test_a_limit_ends_a_run(model):
    with pytest.raises(LimitError, match="still running after 100 cycles"):
        run_stream(model, [finish(pop_prev=1)], max_cycles=100)


def test_a_trace_is_a_waveform(tmp_path):
    path = tmp_path / "run.vcd"
    with RtlModel(CFG, trace=path) as model:
        run_stream(model, [finish()])
    text = path.read_text(encoding="utf-8")
    assert text.startswith("$version")
    assert " running " in text
