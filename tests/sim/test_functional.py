"""The functional simulator against the golden interpreter, and the faults that it reports."""

from dataclasses import replace

import numpy as np
import pytest

from covta.hw.faults import FaultCause
from covta.hw.isa import AluOp, MemoryType, Opcode, isa
from covta.hw.params import builtin_configs, load_config
from covta.runtime.functional import FunctionalDevice
from covta.runtime.program import Program
from covta.sim.dram import DramModel, stall
from covta.sim.functional.machine import execute
from covta.sim.fuzz.generator import random_program
from covta.sim.state import make_dram, make_state, read_dram

from ..golden import Golden

MACHINES = sorted(name for name, path in builtin_configs().items() if path.parent.name == "test")

TINY, EXTENDED, EDGE = (load_config(n) for n in ("tiny", "extended", "edge"))
INSN_ADDR, DATA_ADDR = 0x8000, 0x1000


def golden_memory(program):
    """Bytes of the regions after the golden interpreter ran a program."""
    memory = {addr + k: int(byte) for addr, data in program.memory() for k, byte in enumerate(data)}
    bus = program.config.bus_bytes
    for at in list(memory):  # regions count as whole beats
        first = at // bus * bus
        for k in range(first, first + bus):
            memory.setdefault(k, 0)
    golden = Golden(program.config, memory, program.base_ptrs)
    golden.run(program.insn, program.initial_tokens)
    return [
        np.array([memory[addr + k] for k in range(len(data))], np.uint8)
        for addr, data in zip(program.region_addrs, program.regions, strict=True)
    ]


def stream(cfg, *insns):
    """Instructions from (opcode, fields)."""
    data = b"".join(isa(cfg).encode(op, **fields) for op, fields in insns)
    return np.frombuffer(data, np.uint8).reshape(-1, 16)


def program_of(cfg, *insns, data=None, **fields):
    """A program with one region of data, a multiple of tensors long."""
    region = np.zeros(1024, np.uint8) if data is None else data
    return Program(
        config=cfg,
        insn=stream(cfg, *insns),
        insn_addr=INSN_ADDR,
        region_addrs=(DATA_ADDR,),
        regions=(region,),
        **fields,
    )


def elem(cfg, memory_type, addr=DATA_ADDR):
    """An address in elements of a memory type."""
    return addr // isa(cfg).elem_bytes(memory_type)


FINISH = (Opcode.FINISH, {})


def load(cfg, memory_type, **fields):
    base = {"memory_type": memory_type, "dram_base": elem(cfg, memory_type)}
    return Opcode.LOAD, base | {"x_size": 1, "y_size": 1, "x_stride": 1} | fields


def store(cfg, **fields):
    base = {"memory_type": MemoryType.OUT, "dram_base": elem(cfg, MemoryType.OUT)}
    return Opcode.STORE, base | {"x_size": 1, "y_size": 1, "x_stride": 1} | fields


def fault_of(program):
    fault = FunctionalDevice().run(program).fault
    return None if fault is None else (fault.cause, fault.insn)


# ---- what programs do --------------------------------------------------------------------------
@pytest.mark.parametrize("name", MACHINES)
def test_random_programs_give_the_golden_bytes(name):
    cfg = load_config(name)
    for seed in range(5):
        program = random_program(cfg, seed, 12)
        container = Program(
            config=cfg,
            insn=program.insn,
            insn_addr=program.insn_addr,
            region_addrs=tuple(program.region_addrs),
            regions=tuple(program.regions),
            base_ptrs=tuple(program.base_ptrs),
            initial_tokens=tuple(program.initial_tokens),
        )
        result = FunctionalDevice().run(container)
        assert result.fault is None
        for got, want in zip(result.memory, golden_memory(container), strict=True):
            np.testing.assert_array_equal(got, want, err_msg=f"{name} seed {seed}")


@pytest.mark.parametrize("factors", [(0, 0), (1, 0), (0, 1), (2, 1)])
@pytest.mark.parametrize("name", ["edge", "tiny", "batch2", "cloud"])
def test_gemm_equals_matrix_products_in_every_loop_order(name, factors):
    """The vector path and the plain path, with and without a weight shared along a loop."""
    cfg = load_config(name)
    rng = np.random.default_rng(5)
    state = make_state(cfg)
    inp = rng.integers(-128, 128, (cfg.inp_depth, cfg.batch, cfg.block_in))
    wgt = rng.integers(-128, 128, (8, cfg.block_out, cfg.block_in))
    acc = rng.integers(-(1 << 31), 1 << 31, (cfg.acc_depth, cfg.batch, cfg.block_out))
    state.inp[:] = inp.reshape(state.inp.shape)
    pairs = wgt.reshape(8, -1, state.chunk, cfg.block_in // 2, 2).transpose(0, 1, 3, 2, 4)
    state.wgt[:8] = pairs.reshape(8, -1)
    state.acc[:] = acc.reshape(state.acc.shape)
    state.uop[:2] = [[0, 0, 0], [1, 2, 1]]
    fields = {
        "uop_end": 2, "iter_out": 2, "iter_in": 3, "dst_factor_out": 3, "dst_factor_in": 1,
        "src_factor_out": 1, "src_factor_in": 2,
        "wgt_factor_out": factors[0], "wgt_factor_in": factors[1],
    }  # fmt: skip
    outcome = execute(
        cfg,
        stream(cfg, (Opcode.GEMM, fields), FINISH),
        state,
        make_dram([], (0,) * 6, bus_bytes=cfg.bus_bytes),
    )
    assert outcome.cause is FaultCause.NONE
    assert outcome.counters["compute.gemm.uops"] == 12
    for y in range(2):
        for x in range(3):
            for dst, src, w in ((0, 0, 0), (1, 2, 1)):
                k = w + y * fields["wgt_factor_out"] + x * fields["wgt_factor_in"]
                acc[dst + 3 * y + x] += inp[src + y + 2 * x] @ wgt[k].T
    np.testing.assert_array_equal(state.acc, acc.astype(np.int32).reshape(state.acc.shape))


SHIFTS = [-(1 << 31), -33, -32, -31, -1, 0, 1, 31, 32, 33, (1 << 31) - 1]


@pytest.mark.parametrize("op", list(AluOp))
def test_alu_equals_the_golden_operation_at_the_edges(op):
    cfg = EXTENDED
    values = [-(1 << 31), -(1 << 31) + 1, -129, -1, 0, 1, 127, 128, (1 << 31) - 1]
    operands = range(128) if op == AluOp.RQT else SHIFTS
    golden = Golden(cfg, {}, (0,) * 6)
    state = make_state(cfg)
    memory = make_dram([], (0,) * 6, bus_bytes=cfg.bus_bytes)
    state.uop[0] = [0, 1, 0]
    for a in values:
        for b in operands:
            for use_imm in (0, 1) if -(1 << 15) <= b < 1 << 15 else (0,):
                state.acc[0], state.acc[1] = a, b
                fields = {"alu_opcode": op, "use_imm": use_imm, "imm": b if use_imm else 0}
                loop = {"uop_end": 1, "iter_out": 1, "iter_in": 1}
                insn = stream(cfg, (Opcode.ALU, fields | loop), FINISH)
                assert execute(cfg, insn, state, memory).cause is FaultCause.NONE
                assert (state.acc[0] == golden.operate(op, a, b)).all(), (a, b, use_imm)


def test_store_truncates_and_alu_sees_the_write_before():
    """acc[1] = acc[0] + acc[0], then acc[2] = acc[1] + acc[1], in one instruction."""
    cfg = TINY
    data = np.zeros(1024, np.uint8)
    data[:4] = 100, 3, 255, 128  # int8 lanes
    uop = isa(cfg).uop
    words = [uop.encode(dst=1, src=0), uop.encode(dst=2, src=1)]
    data[64:72] = np.array(words, "<u4").view(np.uint8)
    insns = (
        load(cfg, MemoryType.ACC_8BIT),
        load(cfg, MemoryType.UOP, dram_base=elem(cfg, MemoryType.UOP, DATA_ADDR + 64), x_size=2),
        (
            Opcode.ALU,
            {"alu_opcode": AluOp.ADD, "uop_end": 2, "iter_out": 1, "iter_in": 1, "push_next": 1},
        ),
        store(cfg, sram_base=2, dram_base=elem(cfg, MemoryType.OUT) + 32, pop_prev=1),
        FINISH,
    )
    result = FunctionalDevice().run(program_of(cfg, *insns, data=data))
    assert result.fault is None
    assert result.memory[0][128:132].tolist() == [100, 3, 255, 128]


def loaded(cfg, memory_type, **fields):
    """All lanes of a scratchpad's first eight elements after one load over ones."""
    data = np.arange(1, 1025, dtype=np.uint8)
    state, memory = make_state(cfg), make_dram([(DATA_ADDR, data)], (0,) * 6, bus_bytes=4)
    pad = {MemoryType.INP: state.inp, MemoryType.ACC_8BIT: state.acc, MemoryType.ACC: state.acc}
    pad[memory_type][:] = 1
    insn = stream(cfg, load(cfg, memory_type, **fields), FINISH)
    assert execute(cfg, insn, state, memory).cause is FaultCause.NONE
    return pad[memory_type]


@pytest.mark.parametrize(("pad_min", "least"), [(0, 0), (1, -128)])
@pytest.mark.parametrize("kind", [MemoryType.INP, MemoryType.ACC_8BIT])
def test_padding_surrounds_the_rows_in_two_dimensions(kind, pad_min, least):
    """Row y of 2 comes from elements 5 y and on; pads of 1 above, 2 below, 1 left, 1 right."""
    cfg = load_config("extended")
    pads = {"y_pad_0": 1, "y_pad_1": 2, "x_pad_0": 1, "x_pad_1": 1, "pad_min": pad_min}
    got = loaded(cfg, kind, sram_base=3, y_size=2, x_size=2, x_stride=5, **pads)
    want = np.full((5, 4, 8), least)
    data = np.arange(1, 1025, dtype=np.uint8).view(np.int8).reshape(-1, 8)
    for y in range(2):
        want[1 + y, 1:3] = data[5 * y : 5 * y + 2]
    np.testing.assert_array_equal(got.reshape(len(got), -1)[3:23], want.reshape(20, 8))
    assert (got[:3] == 1).all()
    assert (got[23:] == 1).all()


def test_the_least_accumulator_value_pads_an_accumulator():
    cfg = load_config("extended")
    got = loaded(cfg, MemoryType.ACC, x_pad_1=1, pad_min=1)
    assert (got[1] == -(1 << 31)).all()
    assert loaded(cfg, MemoryType.ACC, x_pad_1=1)[1].tolist() == [0] * 8


@pytest.mark.parametrize("name", ["int4", "int16", "wgt2", "tiny"])
def test_a_store_keeps_the_low_bits_of_every_lane(name):
    cfg = load_config(name)
    rng = np.random.default_rng(1)
    state, region = make_state(cfg), np.zeros(1024, np.uint8)
    values = rng.integers(-(1 << (cfg.acc_bits - 1)), 1 << (cfg.acc_bits - 1), cfg.lanes)
    state.acc[2] = values
    state.acc[3] = -1
    memory = make_dram([(DATA_ADDR, region)], (0,) * 6, bus_bytes=cfg.bus_bytes)
    insn = stream(cfg, store(cfg, sram_base=2, x_size=2), FINISH)
    assert execute(cfg, insn, state, memory).cause is FaultCause.NONE
    got = read_dram(memory, DATA_ADDR, 2 * cfg.out_elem_bytes)
    word = int.from_bytes(got.tobytes(), "little")
    mask = (1 << cfg.out_bits) - 1
    lanes = [word >> (cfg.out_bits * k) & mask for k in range(2 * cfg.lanes)]
    assert lanes == [int(v) & mask for v in values] + [mask] * cfg.lanes


def test_multiplication_and_addition_wrap_at_the_accumulators_width():
    for name in ("extended", "acc16"):
        cfg = load_config(name)
        top = (1 << (cfg.acc_bits - 1)) - 1
        golden = Golden(cfg, {}, (0,) * 6)
        state, memory = make_state(cfg), make_dram([], (0,) * 6, bus_bytes=cfg.bus_bytes)
        state.uop[0] = [0, 1, 0]
        for op in (AluOp.ADD, AluOp.MUL, AluOp.SHR, AluOp.MIN, AluOp.MAX):
            for a, b in ((top, top), (top, 2), (-top - 1, -1), (-top - 1, -top - 1), (12345, 321)):
                state.acc[0], state.acc[1] = a, b
                loop = {"uop_end": 1, "iter_out": 1, "iter_in": 1, "alu_opcode": op}
                insn = stream(cfg, (Opcode.ALU, loop), FINISH)
                assert execute(cfg, insn, state, memory).cause is FaultCause.NONE
                assert (state.acc[0] == golden.operate(op, a, b)).all(), (name, op, a, b)


# ---- faults ------------------------------------------------------------------------------------
ILLEGAL = {
    "load out": load(TINY, MemoryType.OUT),
    "store inp": store(TINY, memory_type=MemoryType.INP),
    "store pads": store(TINY, x_pad_0=1),
    "load pops prev": load(TINY, MemoryType.INP, pop_prev=1),
    "load pushes prev": load(TINY, MemoryType.INP, push_prev=1),
    "store pops next": store(TINY, pop_next=1),
    "store pushes next": store(TINY, push_next=1),
    "rqt": (Opcode.ALU, {"alu_opcode": AluOp.RQT}),
}


@pytest.mark.parametrize("insn", ILLEGAL.values(), ids=ILLEGAL)
def test_illegal_instructions_are_faults(insn):
    assert fault_of(program_of(TINY, FINISH, insn)) == (FaultCause.ILLEGAL_INSTRUCTION, 1)


@pytest.mark.parametrize("opcode", [5, 6, 7])
def test_unknown_opcodes_and_stray_bits_are_faults(opcode):
    program = program_of(TINY, FINISH, FINISH)
    insn = program.insn.copy()
    insn[1, 0] = opcode
    assert fault_of(replace(program, insn=insn)) == (FaultCause.ILLEGAL_INSTRUCTION, 1)
    insn[1] = program.insn[1]
    insn[1, 8 + opcode] = 0x80
    assert fault_of(replace(program, insn=insn)) == (FaultCause.ILLEGAL_INSTRUCTION, 1)


LOOP = {"uop_end": 1, "iter_out": 1, "iter_in": 1}
BEYOND = {
    "load": load(TINY, MemoryType.INP, sram_base=TINY.inp_depth),
    "load with pads": load(TINY, MemoryType.INP, sram_base=TINY.inp_depth - 1, x_pad_1=1),
    "store": store(TINY, sram_base=TINY.acc_depth),
    "uop_end": (Opcode.GEMM, LOOP | {"uop_end": TINY.uop_depth + 1}),
    "dst": (Opcode.GEMM, LOOP | {"reset": 1, "iter_in": TINY.acc_depth + 1, "dst_factor_in": 1}),
    "src": (Opcode.GEMM, LOOP | {"iter_in": TINY.inp_depth + 1, "src_factor_in": 1}),
    "wgt": (Opcode.GEMM, LOOP | {"iter_out": TINY.wgt_depth + 1, "wgt_factor_out": 1}),
    "alu src": (Opcode.ALU, LOOP | {"iter_in": TINY.acc_depth + 1, "src_factor_in": 1}),
}


@pytest.mark.parametrize("insn", BEYOND.values(), ids=BEYOND)
def test_an_index_beyond_a_scratchpad_is_a_fault(insn):
    assert fault_of(program_of(TINY, FINISH, insn)) == (FaultCause.SCRATCHPAD, 1)


@pytest.mark.parametrize(
    "insn",
    [
        (Opcode.GEMM, LOOP | {"iter_in": 0, "uop_end": TINY.uop_depth + 1}),
        (Opcode.GEMM, LOOP | {"reset": 1, "iter_in": 200, "src_factor_in": 3}),
        (Opcode.ALU, LOOP | {"use_imm": 1, "iter_in": 200, "src_factor_in": 3}),
        load(TINY, MemoryType.INP, x_size=0, sram_base=60000, dram_base=0),
        store(TINY, y_size=0, sram_base=60000, dram_base=0),
    ],
)
def test_what_is_not_touched_is_not_checked(insn):
    assert fault_of(program_of(TINY, insn, FINISH)) is None


def test_outside_the_window_and_between_regions_are_different_faults():
    low, high = DATA_ADDR - 16, DATA_ADDR + 0x2000
    below = load(TINY, MemoryType.INP, dram_base=elem(TINY, MemoryType.INP, low))
    between = load(TINY, MemoryType.INP, dram_base=elem(TINY, MemoryType.INP, high))
    assert fault_of(program_of(TINY, FINISH, below)) == (FaultCause.DRAM_WINDOW, 1)
    assert fault_of(program_of(TINY, FINISH, between)) == (FaultCause.BUS_ERROR, 1)


def test_too_many_tokens_are_a_fault_of_the_push():
    push = load(TINY, MemoryType.INP, x_size=0, push_next=1)
    assert fault_of(program_of(TINY, *[push] * 255, FINISH)) is None
    assert fault_of(program_of(TINY, *[push] * 256, FINISH)) == (FaultCause.TOKEN_OVERFLOW, 255)


def test_deadlock_names_the_oldest_waiting_instruction_of_the_first_unit():
    waiting_load = load(TINY, MemoryType.INP, x_size=0, pop_next=1)
    waiting_store = store(TINY, x_size=0, pop_prev=1)
    assert fault_of(program_of(TINY, waiting_store, waiting_load, FINISH)) == (
        FaultCause.WATCHDOG,
        1,
    )
    started = program_of(TINY, waiting_store, waiting_load, FINISH, initial_tokens=(0, 1, 1, 0))
    assert fault_of(started) is None


def test_a_stream_that_needs_more_lookahead_than_the_queues_deadlocks():
    """Stores fill their queue before the instruction that would release them is fetched."""
    release = (Opcode.GEMM, {"push_next": 1})
    waiting = store(TINY, x_size=0, pop_prev=1)
    state, memory = make_state(TINY), make_dram([], (0,) * 6, bus_bytes=4)
    insn = stream(TINY, *[waiting] * 4, *[release] * 4, FINISH)
    assert execute(TINY, insn, state, memory, capacity=(4, 4, 4)).cause is FaultCause.NONE
    outcome = execute(TINY, insn, state, memory, capacity=(4, 4, 3))
    assert (outcome.cause, outcome.index) == (FaultCause.WATCHDOG, 0)


def test_a_program_without_finish_is_a_fault():
    cause, _ = fault_of(program_of(TINY, (Opcode.GEMM, {})))
    assert cause is FaultCause.NO_FINISH


# ---- the DRAM model's parameters ---------------------------------------------------------------
def splitmix64(z):
    mask = (1 << 64) - 1
    z = (z + 0x9E3779B97F4A7C15) & mask
    z = ((z ^ z >> 30) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ z >> 27) * 0x94D049BB133111EB) & mask
    return z ^ z >> 31


def test_stalls_follow_the_documented_formula():
    threshold = DramModel(stall_seed=7).stall_threshold
    assert threshold == 16384
    for seed in (0, 7, (1 << 64) - 1):
        for channel in range(5):
            for t in range(64):
                z = seed * 0x9E3779B97F4A7C15 + channel * 0xD1B54A32D192ED03 + t
                want = splitmix64(z & ((1 << 64) - 1)) >> 48 < threshold
                got = stall(np.uint64(seed), np.uint64(threshold), np.uint64(channel), np.uint64(t))
                assert got == want


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"latency_cycles": 0}, "latency_cycles must be from 1 to"),
        ({"beats_per_cycle": 1.5}, "beats_per_cycle must be from 1/8192 to 1"),
        ({"beats_per_cycle": float("nan")}, "beats_per_cycle must be from 1/8192 to 1"),
        ({"max_outstanding": 0}, "max_outstanding must be from 1 to"),
        ({"stall_seed": -1}, "stall_seed must be from 0 to"),
        ({"stall_probability": 1.0}, "stall_probability must be from 0 to below 1"),
    ],
)
def test_dram_parameters_out_of_range_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        DramModel(**fields)
