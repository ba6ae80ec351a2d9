"""What the machine's part of lowering makes of transfers, ALU stages and loops around them."""

import numpy as np
import pytest

from covta.compiler import te
from covta.compiler.backend.ops import Alu, Gemm, Load, Store
from covta.compiler.build import build
from covta.compiler.ir import Copy
from covta.compiler.ir.stmt import walk_stmts
from covta.compiler.lower import lower
from covta.compiler.lower.unroll import unroll
from covta.compiler.schedule import ScheduleError, create_schedule
from covta.hw.isa import AluOp, MemoryType
from covta.hw.params import load_config
from covta.runtime.device import open_device

CFG = load_config("edge")
LANES = (CFG.batch, CFG.block_out)


def elementwise(shape, rule, dtype="int8", tile=None):
    """int8 in, `rule` on the ALU, int8 out."""
    x = te.placeholder((*shape, *LANES), dtype, name="x")
    near = te.compute(x.shape, lambda *i: x[i].astype("int32"), name="near")
    done = te.compute(x.shape, lambda *i: rule(near[i]), name="done")
    y = te.compute(x.shape, lambda *i: done[i].astype("int8"), name="y")
    s = create_schedule(y)
    outer, inner = s[y].split(s[y].axis[0], tile or shape[0])
    s[y].pragma(inner, "dma_copy")
    for t in (near, done):
        s[t].set_scope("acc")
        s[t].compute_at(s[y], outer)
    s[near].pragma(s[near].axis[0], "dma_copy")
    s[done].pragma(s[done].axis[0], "alu")
    return s, x, y


@pytest.mark.parametrize(
    ("rule", "ops"),
    [
        (lambda v: v * 3 + 1, [(AluOp.MUL, 3), (AluOp.ADD, 1)]),
        (lambda v: te.clip(v >> 2, -5, 20), [(AluOp.SHR, 2), (AluOp.MAX, -5), (AluOp.MIN, 20)]),
        (lambda v: te.maximum(0, v << 1), [(AluOp.SHR, -1), (AluOp.MAX, 0)]),
        (lambda v: v - 7, [(AluOp.ADD, -7)]),
    ],
)
def test_an_expression_becomes_alu_operations_in_place(rule, ops):
    s, x, y = elementwise((6, 3), rule, tile=4)
    trace = unroll(CFG, lower(s, [x, y]))
    per_tile = [(op.op, op.imm) for op in trace.ops if isinstance(op, Alu)]
    assert per_tile == ops * 2
    values = np.random.default_rng(0).integers(-128, 128, x.shape).astype(np.int8)
    built = build(CFG, s, [x, y], {"x": values})
    result = built.result(open_device("functional").run(built.program))
    np.testing.assert_array_equal(result, te.evaluate(y, {x: values}))
    assert built.program.meta["buffers"][0]["memory"] == "ACC_8BIT"


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (lambda v: v + 40000, "an immediate must lie in -32768 ... 32767, got 40000"),
        (lambda v: 3 - v, "cannot subtract a tensor"),
        (lambda v: v // 3, "the ALU cannot compute"),
    ],
)
def test_what_the_alu_cannot_do_is_refused(rule, message):
    s, x, y = elementwise((4,), rule)
    with pytest.raises(ScheduleError) as error:
        lower(s, [x, y])
    assert message in str(error.value)


def looks_at(*offsets):
    """int8 in, the greatest of an element and others of the same tensor, int8 out."""
    n, least = 12, te.const(-(1 << 31), "int32")
    x = te.placeholder((n, *LANES), "int8", name="x")
    near = te.compute(x.shape, lambda *i: x[i].astype("int32"), name="near")

    def rule(i, r, o):
        value = near[i, r, o]
        for by in offsets:
            inside = i + by >= 0 if by < 0 else i + by < n
            value = te.maximum(value, te.select(inside, near[i + by, r, o], least))
        return value

    done = te.compute(x.shape, rule, name="done")
    y = te.compute(x.shape, lambda *i: done[i].astype("int8"), name="y")
    s = create_schedule(y)
    outer, inner = s[y].partition(s[y].axes[:1], [((0, n),)])
    s[y].pragma(inner, "dma_copy")
    for tensor, pragma in ((near, "dma_copy"), (done, "alu")):
        s[tensor].set_scope("acc")
        s[tensor].compute_at(s[y], outer)
        s[tensor].pragma(s[tensor].axis[0], pragma)
    return s, x, y


@pytest.mark.parametrize("offset", [0, 1, 5])
def test_what_is_worked_on_in_place_may_be_read_further_on(offset):
    s, x, y = looks_at(offset)
    values = np.random.default_rng(0).integers(-128, 128, x.shape).astype(np.int8)
    built = build(CFG, s, [x, y], {"x": values})
    result = built.result(open_device("functional").run(built.program))
    np.testing.assert_array_equal(result, te.evaluate(y, {x: values}))


@pytest.mark.parametrize("offsets", [(-1,), (1, 2), (1, 0)])
def test_what_was_overwritten_is_not_read(offsets):
    s, x, y = looks_at(*offsets)
    with pytest.raises(ScheduleError, match="overwritten before it is read; give it a buffer"):
        lower(s, [x, y])


def padded(before, after, *, stride=1, value=0, at=2):
    x = te.placeholder((2, 5, 7, *LANES), "int8", name="x")
    p = te.pad(x, (0, before, before, 0, 0), (0, after, after, 0, 0), value=value, name="p")
    shape = (2, (5 + before + after) // stride, 7 + before + after, *LANES)
    near = te.compute(
        shape, lambda c, i, j, *q: p[(c, i * stride, j, *q)].astype("int32"), name="near"
    )
    y = te.compute(shape, lambda *i: near[i].astype("int8"), name="y")
    s = create_schedule(y)
    s[p].compute_inline()
    s[near].set_scope("acc")
    s[near].pragma(s[near].axis[0], "dma_copy")
    s[y].pragma(s[y].axis[0], "dma_copy")
    return s, x, y


@pytest.mark.parametrize(
    ("before", "after", "stride"), [(1, 1, 1), (2, 0, 1), (0, 3, 1), (1, 2, 2)]
)
def test_padding_is_made_by_the_transfer(before, after, stride):
    s, x, y = padded(before, after, stride=stride)
    trace = unroll(CFG, lower(s, [x, y]))
    loads = [op for op in trace.ops if isinstance(op, Load)]
    assert len(loads) == 2
    assert loads[0].x_pad == (before, after)
    values = np.random.default_rng(1).integers(-128, 128, x.shape).astype(np.int8)
    built = build(CFG, s, [x, y], {"x": values})
    result = built.result(open_device("functional").run(built.program))
    np.testing.assert_array_equal(result, te.evaluate(y, {x: values}))


def test_padding_with_another_value_is_refused():
    s, x, y = padded(1, 1, value=5)
    with pytest.raises(ScheduleError, match="padding is 0 or the least value, got 5"):
        unroll(CFG, lower(s, [x, y]))


def test_contiguous_rows_are_one_transfer():
    s, x, y = elementwise((6, 3), lambda v: v + 1)
    ops = unroll(CFG, lower(s, [x, y])).ops
    (load,) = [op for op in ops if isinstance(op, Load)]
    (store,) = [op for op in ops if isinstance(op, Store)]
    assert (load.y_size, load.x_size) == (1, 18)
    assert (store.y_size, store.x_size) == (1, 18)


def test_a_transfer_must_only_copy():
    x = te.placeholder((4, *LANES), "int8", name="x")
    y = te.compute(x.shape, lambda *i: x[i] + 1, name="y")
    s = create_schedule(y)
    s[y].pragma(s[y].axis[0], "dma_copy")
    with pytest.raises(ScheduleError, match="dma_copy: y: the body must read one tensor"):
        lower(s)


def test_what_is_left_to_the_machine_must_be_its_own():
    x = te.placeholder((4, *LANES), "int8", name="x")
    y = te.compute(x.shape, lambda *i: x[i] + 1, name="y")
    s = create_schedule(y)
    with pytest.raises(ScheduleError, match="no transfer moves it"):
        unroll(CFG, lower(s))


def test_a_tap_runs_only_over_the_pixels_that_it_reaches():
    from covta.compiler.ops import Conv2d, Conv2dKnobs

    layer = Conv2d(in_channels=16, out_channels=16, height=6, width=6, kernel=3, padding=1)
    counts = {}
    for skip in (True, False):
        knobs = Conv2dKnobs(rows=6, columns=6, channels=1, reduce=1, skip_padding=skip, taper=False)
        scheduled = layer.schedule(CFG, knobs)
        function = lower(scheduled.schedule, scheduled.args)
        trace = unroll(CFG, function)
        counts[skip] = sum(op.cycles for op in trace.ops if isinstance(op, Gemm) and not op.reset)
        pads = [c for c in walk_stmts(function.body) if isinstance(c, Copy) and any(c.bounds)]
        assert bool(pads) != skip
    assert counts == {True: 16 * 16, False: 36 * 9}


def test_elements_of_the_machine_are_whole():
    x = te.placeholder((4, 1, 8), "int8", name="x")
    near = te.compute(x.shape, lambda *i: x[i].astype("int32"), name="near")
    y = te.compute(x.shape, lambda *i: near[i].astype("int8"), name="y")
    s = create_schedule(y)
    s[near].set_scope("acc")
    s[near].pragma(s[near].axis[0], "dma_copy")
    s[y].pragma(s[y].axis[0], "dma_copy")
    with pytest.raises(ScheduleError, match=r"its last two dimensions must be one ACC_8BIT"):
        unroll(CFG, lower(s))


def test_memory_types_follow_from_the_transfers():
    from covta.compiler.ops import Conv2d, compile_operator

    program = compile_operator(
        CFG, Conv2d(in_channels=16, out_channels=16, height=4, width=4, kernel=1)
    ).program
    kinds = [MemoryType[b["memory"]] for b in program.meta["buffers"]]
    assert kinds == [MemoryType.INP, MemoryType.WGT, MemoryType.ACC, MemoryType.OUT]
