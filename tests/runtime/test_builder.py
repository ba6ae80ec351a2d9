"""Kernels by hand: right programs, few micro-op loads, tokens where needed, clear refusals."""

import numpy as np
import pytest

from covta.hw.isa import AluOp, MemoryType, Opcode
from covta.hw.params import load_config
from covta.runtime.builder import Builder, BuildError, Loop
from covta.runtime.device import open_device
from covta.sim.decode import column, decode

CFG = load_config("edge")
RNG = np.random.default_rng(0)


def acc_values(n: int) -> np.ndarray:
    return RNG.integers(-50, 50, (n, 1, 16))


def column_of(program, name: str) -> np.ndarray:
    return decode(program.config, program.insn)[:, column(name)]


def run(program):
    result = open_device("functional").run(program)
    assert result.fault is None
    for expected, got in zip(program.expected, result.memory, strict=False):
        if expected is not None:
            np.testing.assert_array_equal(got, expected)
    return result


def add_three(b: Builder, values: np.ndarray | None = None):
    values = acc_values(8) if values is None else values
    x, y = b.buffer("x", MemoryType.ACC, values), b.buffer("y", MemoryType.OUT, shape=(8,))
    tile = b.acc.alloc(8)
    b.load(tile, x)
    b.alu(AluOp.ADD, tile, imm=3)
    b.store(tile, y)
    return values + 3, y


# ---- programs ------------------------------------------------------------------------------
def test_load_add_store_gives_the_sum():
    b = Builder(CFG)
    expected, y = add_three(b)
    result = run(b.build({"y": expected}))
    np.testing.assert_array_equal(b.output(result, y), expected)


def test_gemm_multiplies_elements():
    b = Builder(CFG)
    a, w = RNG.integers(-8, 8, (4, 1, 16)), RNG.integers(-8, 8, (2, 16, 16))
    xa, xw = b.buffer("a", MemoryType.INP, a), b.buffer("w", MemoryType.WGT, w)
    y = b.buffer("y", MemoryType.OUT, shape=(4, 2))
    inp, wgt, acc = b.inp.alloc(4), b.wgt.alloc(2), b.acc.alloc(8)
    b.gemm([(acc[0], 0, 0)], inner=Loop(count=8, dst=1), reset=True)
    b.load(inp, xa)
    b.load(wgt, xw)
    b.gemm([(acc[n], inp[0], wgt[n]) for n in range(2)], outer=Loop(count=4, dst=2, src=1))
    b.alu(AluOp.SHR, acc, imm=4)
    b.store(acc, y)
    expected = np.einsum("mbi,noi->mnbo", a, w) >> 4
    run(b.build({"y": ((expected + 128) % 256) - 128}))


def test_padding_frames_a_loaded_block_with_zeros():
    b = Builder(CFG)
    values = acc_values(6)
    x, y = b.buffer("x", MemoryType.ACC, values), b.buffer("y", MemoryType.OUT, shape=(20,))
    tile = b.acc.alloc(20)
    b.load(tile, x, y_size=2, x_size=3, y_pad=(1, 1), x_pad=(1, 1))
    b.store(tile, y)
    framed = np.pad(values.reshape(2, 3, 1, 16), ((1, 1), (1, 1), (0, 0), (0, 0)))
    run(b.build({"y": framed.reshape(20, 1, 16)}))


def test_equal_kernels_give_equal_programs(tmp_path):
    paths = []
    values = acc_values(8)
    for k in range(2):
        b = Builder(CFG)
        expected, _ = add_three(b, values)
        paths.append(tmp_path / f"{k}.npz")
        b.build({"y": expected}).save(paths[-1])
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_buffers_are_aligned_to_64_bytes_and_to_their_elements():
    b = Builder(CFG)
    b.buffer("one", MemoryType.OUT, shape=(1,))
    assert b.buffer("acc", MemoryType.ACC, shape=(1,)).addr % 64 == 0
    wgt = b.buffer("wgt", MemoryType.WGT, shape=(1,))
    assert wgt.addr % 256 == 0
    assert wgt.elem_base * 256 == wgt.addr


# ---- micro-ops -----------------------------------------------------------------------------
def test_equal_micro_op_sequences_are_loaded_once():
    b = Builder(CFG)
    tile = b.acc.alloc(8)
    for _ in range(5):
        b.alu(AluOp.ADD, tile, imm=1)
    program = b.build()
    uop_loads = (column_of(program, "opcode") == Opcode.LOAD).sum()
    assert uop_loads == 1
    alus = column_of(program, "opcode") == Opcode.ALU
    assert set(column_of(program, "uop_bgn")[alus]) == {0}


def test_more_micro_ops_than_the_scratchpad_holds_are_loaded_again():
    cfg = load_config("tiny")
    b = Builder(cfg)
    x = b.buffer("x", MemoryType.ACC, shape=(cfg.acc_depth,))
    y = b.buffer("y", MemoryType.OUT, shape=(cfg.acc_depth,))
    b.load(b.acc.at(0, cfg.acc_depth), x)
    expected = np.zeros(cfg.acc_depth, np.int64)
    rng = np.random.default_rng(1)
    for _ in range(40):
        which = rng.choice(cfg.acc_depth, size=min(4, cfg.acc_depth), replace=False)
        b.alu(AluOp.ADD, [int(k) for k in which], imm=1)
        expected[which] += 1
    b.store(b.acc.at(0, cfg.acc_depth), y)
    tensor = np.broadcast_to(expected[:, None, None], (cfg.acc_depth, cfg.batch, cfg.block_out))
    program = b.build({"y": tensor})
    placed = column_of(program, "uop_end").max()
    assert placed <= cfg.uop_depth
    assert (column_of(program, "memory_type")[:-1] == MemoryType.UOP).sum() > 1
    run(program)


# ---- tokens --------------------------------------------------------------------------------
def test_automatic_tokens_order_load_gemm_and_the_next_load():
    b = Builder(CFG)
    a = b.buffer("a", MemoryType.INP, shape=(4,))
    w = b.buffer("w", MemoryType.WGT, shape=(1,))
    inp, wgt = b.inp.alloc(4), b.wgt.alloc(1)
    b.load(wgt, w)
    first = b.load(inp, a)
    multiply = b.gemm([(0, inp[0], wgt[0])])
    second = b.load(inp, a)
    other = b.load(8, a, x_size=4)
    assert first.flags() == {"push_next": 1}
    assert multiply.flags() == {"pop_prev": 1, "push_prev": 1}
    assert second.flags() == {"pop_next": 1}
    assert other.flags() == {}


def test_automatic_tokens_let_a_half_be_rewritten_only_when_it_is_stored():
    b = Builder(CFG)
    y = b.buffer("y", MemoryType.OUT, shape=(4,))
    low, high = (half[:4] for half in b.acc.halves())
    b.alu(AluOp.MIN, low, imm=0)
    b.store(low, y)
    untouched = b.alu(AluOp.MIN, high, imm=0)
    rewritten = b.alu(AluOp.MAX, low, imm=0)
    assert untouched.flags() == {}
    assert rewritten.flags() == {"pop_next": 1}


def test_a_race_is_refused_with_both_instructions_named():
    b = Builder(CFG, sync="manual")
    a = b.buffer("a", MemoryType.INP, shape=(4,))
    b.load(0, a, x_size=4)
    message = (
        r"gemm \(instruction 1\): reads inp\[3:4\], which load a \(instruction 0\) writes;"
        r" a token of load must order them"
    )
    with pytest.raises(BuildError, match=message):
        b.gemm([(0, 3, 0)])


def test_a_token_makes_it_right():
    b = Builder(CFG, sync="manual")
    a = b.buffer("a", MemoryType.INP, shape=(4,))
    ready = b.load(0, a, x_size=4).push("compute")
    b.gemm([(0, 3, 0)], pop=ready)
    b.build()


def test_a_token_nobody_takes_is_refused():
    b = Builder(CFG, sync="manual")
    a = b.buffer("a", MemoryType.INP, shape=(4,))
    b.load(0, a, x_size=4).push("compute")
    with pytest.raises(
        BuildError, match=r"load a \(instruction 0\): its token for compute must be"
    ):
        b.build()


def test_tokens_are_taken_in_the_order_they_are_given():
    b = Builder(CFG, sync="manual")
    a = b.buffer("a", MemoryType.INP, shape=(4,))
    early = b.load(0, a, x_size=4).push("compute")
    late = b.load(8, a, x_size=4).push("compute")
    b.gemm([(0, 8, 0)], pop=late)
    with pytest.raises(BuildError, match="tokens are taken in the order they are given"):
        b.gemm([(0, 0, 0)], pop=early)


def test_load_cannot_push_to_store():
    b = Builder(CFG, sync="manual")
    a = b.buffer("a", MemoryType.INP, shape=(4,))
    with pytest.raises(BuildError, match="push must name a neighbour of load, got store"):
        b.load(0, a, x_size=4).push("store")


def test_tokens_pass_through_a_carrier():
    b = Builder(CFG, sync="manual")
    a = b.buffer("a", MemoryType.INP, shape=(4,))
    ready = b.load(0, a, x_size=4).push("compute")
    passed = b.wait("compute", ready).push("store")
    b.wait("store", passed)
    run(b.build())


# ---- refusals ------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda b, x, y: b.load(2047, x, x_size=2), r"must stay within acc's 2048"),
        (lambda b, x, y: b.load(0, x, 7, x_size=2), r"must end within x's 8 elements, got 9"),
        (lambda b, x, y: b.load(0, y, x_size=1), r"src must be INP, WGT, ACC or ACC_8BIT, got OUT"),
        (lambda b, x, y: b.store(0, x, x_size=1), r"dst must be OUT, got ACC"),
        (lambda b, x, y: b.load(b.inp.alloc(8), x), r"must be of acc for ACC, got one of inp"),
        (lambda b, x, y: b.alu(AluOp.RQT, [0], imm=1), r"op must be known to edge"),
        (lambda b, x, y: b.alu(AluOp.ADD, [0]), r"exactly one of src and imm must be given"),
        (
            lambda b, x, y: b.gemm([(0, 0, 0)], inner=Loop(count=4, src=700)),
            r"gemm: src must stay within inp's 2048 elements, got 0 \.\.\. 2100",
        ),
        (lambda b, x, y: b.gemm([]), r"uops must hold at least one micro-op, got none"),
        (lambda b, x, y: b.gemm([(0, 0, 0)], outer=Loop(count=0)), r"outer\.count must be from 1"),
        (lambda b, x, y: b.buffer("x", MemoryType.OUT, shape=(1,)), r"name must be new, got 'x'"),
        (lambda b, x, y: b.acc.alloc(4096), r"acc: 4096 elements must fit what is left of 2048"),
        (lambda b, x, y: (b.finish(), b.wait("load", None)), r"nothing may follow finish"),
        (lambda b, x, y: b.load(0, x, x_size=1, pad_min=True), r"must be an extension of edge"),
        (
            lambda b, x, y: b.buffer("z", MemoryType.INP, np.full((1, 1, 16), 200)),
            r"z: values must lie in -128 \.\.\. 127",
        ),
        (
            lambda b, x, y: b.buffer("z", MemoryType.WGT, np.zeros((3, 16), int)),
            r"z: the last axes must be one WGT element \(16, 16\)",
        ),
    ],
)  # fmt: skip
def test_refusals_name_field_rule_and_value(call, message):
    b = Builder(CFG)
    x, y = b.buffer("x", MemoryType.ACC, shape=(8,)), b.buffer("y", MemoryType.OUT, shape=(8,))
    with pytest.raises(BuildError, match=message):
        call(b, x, y)


def test_an_immediate_beyond_16_bits_is_refused_by_its_field():
    b = Builder(CFG)
    b.alu(AluOp.ADD, [0], imm=1 << 15)
    with pytest.raises(BuildError, match=r"alu\.1\.imm=32768 does not fit in 16 signed bits"):
        b.build()


def test_expectations_name_buffers():
    b = Builder(CFG)
    with pytest.raises(BuildError, match="expect must name buffers"):
        b.build({"nothing": np.zeros(1)})
