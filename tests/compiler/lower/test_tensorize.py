"""The matcher replaces a nest only by what it is."""

import numpy as np
import pytest

from covta.compiler import te
from covta.compiler.intrin import MachineIntrinsics, decl_tensor_intrin, intrin_call
from covta.compiler.ir import Call, interpret
from covta.compiler.ir.stmt import walk_stmts
from covta.compiler.lower import lower
from covta.compiler.schedule import ScheduleError, create_schedule
from covta.hw.params import load_config

CFG = load_config("edge")
MACHINE = MachineIntrinsics(CFG)


def gemm(n):
    w, x = te.placeholder((n, n), "int32", name="w"), te.placeholder((n, n), "int32", name="x")
    k = te.reduce_axis((0, n), name="k")
    y = te.compute((n, n), lambda i, j: te.sum(w[i, k] * x[j, k], axis=k), name="y")
    calls = (intrin_call("gemm"), intrin_call("zero"), intrin_call("gemm_add"))
    return decl_tensor_intrin(y.op, lambda inputs, outputs: calls, name=f"gemm{n}")


def product(element, shape=(16, 8), depth=24):
    a = te.placeholder((shape[0], depth), "int32", name="A")
    b = te.placeholder((shape[1], depth), "int32", name="B")
    k = te.reduce_axis((0, depth), name="k")
    c = te.compute(shape, lambda i, j: te.sum(element(a, b, i, j, k), axis=k), name="C")
    return a, b, c, k


def tensorize(c, k, factor=8):
    s = create_schedule(c)
    io, jo, ii, ji = s[c].tile(*s[c].axis, factor, factor)
    ko, ki = s[c].split(k, factor)
    s[c].reorder(io, jo, ko, ii, ji, ki)
    s[c].tensorize(ii, gemm(8))
    return s


@pytest.mark.parametrize(
    "element",
    [lambda a, b, i, j, k: a[i, k] * b[j, k], lambda a, b, i, j, k: b[j, k] * a[i, k]],
    ids=["as declared", "operands swapped"],
)
def test_an_8x8_gemm_is_used_and_right(element):
    a, b, c, k = product(element)
    function = lower(tensorize(c, k), [a, b, c])
    phases = [s.phase for s in walk_stmts(function.body) if isinstance(s, Call)]
    assert phases == ["reset", "update"]
    rng = np.random.default_rng(0)
    av, bv = (rng.integers(-99, 99, t.shape).astype(np.int32) for t in (a, b))
    cv = np.zeros(c.shape, np.int32)
    interpret(function, av, bv, cv)
    np.testing.assert_array_equal(cv, av @ bv.T)


def test_without_outer_reduction_compute_is_used():
    a, b, c, k = product(lambda a, b, i, j, k: a[i, k] * b[j, k], depth=8)
    s = create_schedule(c)
    _, _, ii, ji = s[c].tile(*s[c].axis, 8, 8)
    s[c].reorder(ii, ji, k)
    s[c].tensorize(ii, gemm(8))
    function = lower(s, [a, b, c])
    assert [x.phase for x in walk_stmts(function.body) if isinstance(x, Call)] == ["compute"]


@pytest.mark.parametrize(
    ("element", "message"),
    [
        (lambda a, b, i, j, k: a[i, k] + b[j, k], "is not of the form w[i, k] * x[j, k]"),
        (lambda a, b, i, j, k: a[i, k] * a[i, k], "does not step like"),
        (lambda a, b, i, j, k: a[i, 23 - k] * b[j, k], "does not step like"),
        (lambda a, b, i, j, k: a[i, k] * 3, "is not of the form w[i, k] * x[j, k]"),
        (lambda a, b, i, j, k: a[i // 2, k] * b[j, k], "is not linear in the loops"),
    ],
)
def test_anything_else_is_refused(element, message):
    _a, _b, c, k = product(element)
    with pytest.raises(ScheduleError) as error:
        lower(tensorize(c, k), None)
    assert message in str(error.value)


def test_loops_of_another_size_are_refused():
    _a, _b, c, k = product(lambda a, b, i, j, k: a[i, k] * b[j, k])
    message = r"it needs loops of 8, 8, 8 \(reduced\) turns, got 4, 4, 4 \(reduced\)"
    with pytest.raises(ScheduleError, match=message):
        lower(tensorize(c, k, factor=4))


def test_a_smaller_last_tile_is_refused():
    _a, _b, c, k = product(lambda a, b, i, j, k: a[i, k] * b[j, k], shape=(12, 8))
    with pytest.raises(ScheduleError, match="must have a fixed number of turns"):
        lower(tensorize(c, k))


def test_another_reduction_is_refused_at_once():
    a = te.placeholder((8, 8), "int32", name="A")
    k = te.reduce_axis((0, 8), name="k")
    c = te.compute((8, 8), lambda i, j: te.max(a[i, k] * a[j, k], axis=k), name="C")
    s = create_schedule(c)
    with pytest.raises(ScheduleError, match="gemm8 is a sum over 1 axes"):
        s[c].tensorize(s[c].axis[0], gemm(8))
    assert s[c].intrin is None


def test_loops_within_an_intrinsic_cannot_be_split():
    _a, _b, c, k = product(lambda a, b, i, j, k: a[i, k] * b[j, k])
    s = tensorize(c, k)
    with pytest.raises(ScheduleError, match="lies within gemm8"):
        s[c].split(s[c].leaves[-1], 2)


def machine_conv(x_type="int8", scopes=("inp", "wgt", "acc")):
    x = te.placeholder((4, 6, CFG.batch, CFG.block_in), x_type, name="x")
    w = te.placeholder((2, 4, CFG.block_out, CFG.block_in), "int8", name="w")
    c, i = te.reduce_axis((0, 4), "c"), te.reduce_axis((0, CFG.block_in), "i")
    y = te.compute(
        (2, 6, CFG.batch, CFG.block_out),
        lambda o, p, r, j: te.sum(
            x[c, p, r, i].astype("int32") * w[o, c, j, i].astype("int32"), axis=[c, i]
        ),
        name="y",
    )
    z = te.compute(y.shape, lambda *q: y[q].astype("int8"), name="z")
    s = create_schedule(z)
    o, p, r, j = s[y].axis
    s[y].reorder(o, c, p, r, j, i)
    s[y].tensorize(r, MACHINE.gemm)
    s[y].set_scope(scopes[2])
    s.cache_read(x, scopes[0], [y])
    s.cache_read(w, scopes[1], [y])
    return s


def test_the_machine_multiplies_what_lies_in_its_scratchpads():
    assert "<- vta.gemm.update(x.inp[c, p, 0, 0:+16], w.wgt[o, c, 0:+16, 0:+16]" in str(
        machine_conv()
    )


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ({"x_type": "int32"}, "is not of the form int32(x[b, i]) * int32(w[o, i])"),
        ({"scopes": ("wgt", "wgt", "acc")}, "x.wgt must lie in inp, got wgt"),
        ({"scopes": ("inp", "wgt", "local")}, "y must lie in acc, got local"),
    ],
)
def test_the_machine_refuses_other_types_and_places(case, message):
    with pytest.raises(ScheduleError) as error:
        lower(machine_conv(**case))
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("lower_rule", "message"),
    [
        (lambda i, o: None, "must return one intrin_call or three"),
        (lambda i, o: (None, None, None), "must return one intrin_call or three"),
        (lambda i, o: (None, intrin_call("a"), None), "must give compute: it is no reduction"),
    ],
)
def test_a_lowering_rule_must_lower(lower_rule, message):
    x = te.placeholder((4,), "int32", name="x")
    y = te.compute((4,), lambda i: x[i] + 1, name="y")
    with pytest.raises(te.ExprError, match=message):
        decl_tensor_intrin(y.op, lower_rule)
