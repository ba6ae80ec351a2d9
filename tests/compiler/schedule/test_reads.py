"""Reads outside of a tensor are refused, before any back end sees them; what is guarded is not."""

import re

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from covta.compiler import te
from covta.compiler.ir import interpret
from covta.compiler.llvm import build
from covta.compiler.lower import lower
from covta.compiler.schedule import create_schedule

J = te.placeholder((8,), "int32", name="J")
K = te.placeholder((8,), "int32", name="K")
B = te.placeholder((8,), "int8", name="B")
VALUES = {
    J: np.arange(10, 18, dtype=np.int32),
    K: np.array([0, -1, 3, 33, -33, -(2**31), 2**31 - 1, 7], np.int32),
    B: np.array([0, -1, 3, 33, -33, -128, 127, 7], np.int8),
}


def everywhere(c, schedule=None):
    """What the reference gives, after the back ends have given the same."""
    inputs = {t: v for t, v in VALUES.items() if t.name in re.findall("[A-Z]", te.describe(c))}
    expected = te.evaluate(c, dict(inputs))
    function = lower(schedule or create_schedule(c), [*inputs, c])
    for run in (lambda *a: interpret(function, *a), build(function)):
        result = np.zeros(c.shape, c.dtype)
        run(*inputs.values(), result)
        np.testing.assert_array_equal(result, expected)
    return expected


OUTSIDE = {
    "behind": (
        (20,),
        lambda i: J[i],
        "of J[i] must lie in 0 ... 7, it may lie in 0 ... 19",
    ),
    "before": (
        (8,),
        lambda i: J[i - 3],
        "c: index 0 of J[i - 3] must lie in 0 ... 7, it may lie in -3 ... 4",
    ),
    "far": ((8,), lambda i: J[i * 10000000], "it may lie in 0 ... 70000000"),
    "data": ((8,), lambda i: J[K[i]], "it may lie in -2147483648 ... 2147483647"),
    "bytes": ((8,), lambda i: J[B[i].astype("int32")], "it may lie in -128 ... 127"),
    "half a guard": ((8,), lambda i: te.select(i >= 1, J[i - 3], 0), "may lie in -2 ... 4"),
    "the other side": ((8,), lambda i: te.select(i >= 3, 0, J[i - 3]), "may lie in -3 ... -1"),
    "either": ((8,), lambda i: te.select((i >= 3) | (K[i] > 0), J[i - 3], 0), "in -3 ... 4"),
    "in the condition": ((8,), lambda i: te.select((i > 2) & (J[i - 3] > 0), 1, 0), "-3 ... 4"),
    "within an index": ((8,), lambda i: J[J[i - 1] % 8], "of J[i - 1] must lie"),
    "overflow": ((8,), lambda i: J[(K[i] * 2) % 8], "must not overflow int32 at any point"),
    "variable": ((8,), lambda i: J[te.var("n")], "may lie in"),
}


@pytest.mark.parametrize("case", OUTSIDE)
def test_what_may_lie_outside_is_refused(case):
    shape, rule, message = OUTSIDE[case]
    c = te.compute(shape, rule, name="c")
    with pytest.raises(te.ExprError, match=re.escape(message)):
        create_schedule(c)


INSIDE = {
    "remainder": lambda i: J[K[i] % 8],
    "clipped": lambda i: J[te.clip(K[i], 0, 7)],
    "shifted down": lambda i: J[(B[i].astype("int32") >> 5) + 4],
    "guarded data": lambda i: te.select((K[i] >= 0) & (K[i] < 8), J[K[i]], -1),
    "not outside": lambda i: te.select((K[i] < 0) | (K[i] >= 8), -1, J[K[i]]),
    "halves": lambda i: te.select((i >= 1) & (i < 5), J[i * 2 - 2], 0) + J[(i * 3 + 1) // 4],
    "stretched": lambda i: te.select(te.equal(i % 2, 0) & (i >= 4), J[(i - 4) // 2], 0),
    "backwards": lambda i: J[7 - i],
    "one point": lambda i: te.select(te.equal(i, 3), J[i * 2], J[i]),
    "selected": lambda i: J[te.select(i < 6, i + 2, te.const(0))],
    "never": lambda i: te.select((i > 5) & (i < 3), J[i >> (i - 4)] + J[i // (i - 4)], 0),
    "nested": lambda i: te.select(i >= 2, te.select(i < 5, J[i * 2 - 2], J[i - 5]), 0),
}


@pytest.mark.parametrize("vector", [False, True])
@pytest.mark.parametrize("case", INSIDE)
def test_what_lies_inside_is_the_same_everywhere(case, vector):
    c = te.compute((8,), INSIDE[case], name="c")
    s = create_schedule(c)
    if vector:
        s[c].vectorize(s[c].axis[0])
    everywhere(c, s)


def test_the_reference_names_what_lies_outside():
    c = te.compute((8,), lambda i: J[K[i]], name="c")
    with pytest.raises(te.ExprError, match=r"J\[K\[i\]\]: index 0 must lie in 0 \.\.\. 7, got -1"):
        te.evaluate(c, dict(VALUES))
    c = te.compute((8,), lambda i: te.select(i < 7, J[i + 3], 0), name="c")
    with pytest.raises(te.ExprError, match=r"index 0 must lie in 0 \.\.\. 7, got 8"):
        te.evaluate(c, dict(VALUES))


def test_a_side_that_is_not_taken_may_point_anywhere():
    c = te.compute((8,), lambda i: te.select(i < 5, J[i + 3], te.select(i < 1, J[i - 9], 0)))
    np.testing.assert_array_equal(everywhere(c), [13, 14, 15, 16, 17, 0, 0, 0])


@pytest.mark.parametrize("mode", [1, 2, 3])
def test_values_wrap_in_conditions_and_indices_do_not(mode):
    k = te.reduce_axis((0, 8), name="k")
    rule = {
        1: lambda i: K[k] * 2 < i + 4,
        2: lambda i: K[k] + 1 <= i - 9,
        3: lambda i: i * 5 < te.minimum(K[k] - 3, 20),
    }[mode]
    c = te.compute((8,), lambda i: te.sum(te.select(rule(i), J[k], 0), axis=k), name="c")
    everywhere(c)


def test_a_guarded_read_of_what_is_computed_in_a_loop_of_the_reader():
    p = te.compute((8,), lambda i: J[i] * 3, name="p")
    c = te.compute((2, 7), lambda o, i: te.select(i + o * 5 >= 6, p[i + o * 5 - 6], 0), name="c")
    s = create_schedule(c)
    outer, inner = s[c].split(s[c].axis[1], 4)
    s[c].vectorize(inner)
    s[p].compute_at(s[c], outer)
    everywhere(c, s)


def test_a_division_by_a_value_of_zero_gives_zero_in_an_index_too():
    everywhere(
        te.compute((8,), lambda i: J[te.clip(te.const(7) // te.maximum(K[i], 0), 0, 7)], name="c")
    )


TINY = te.placeholder((5,), "int32", name="T")
VALUES[TINY] = np.array([3, -2, 5, 0, 2**31 - 1], np.int32)


@st.composite
def indices(draw, axes, depth=3):
    """Index arithmetic over axes and elements."""
    kind = draw(st.sampled_from(["axis", "axis", "const", "read"] + ["binary"] * 3 + ["select"]))
    if depth == 0 and kind in ("binary", "select"):
        kind = "axis"
    if kind == "axis":
        return draw(st.sampled_from(axes)) + 0
    if kind == "const":
        return te.const(draw(st.integers(-3, 7)))
    if kind == "read":
        return TINY[draw(st.sampled_from(axes)) % 5]
    deeper = lambda: draw(indices(axes, depth - 1))  # noqa: E731
    if kind == "select":
        return te.select(draw(conditions(axes, depth - 1)), deeper(), deeper())
    op = draw(st.sampled_from(["add", "sub", "mul", "floordiv", "floormod", "min", "max", "shr"]))
    return te.Binary(op, deeper(), deeper())


@st.composite
def conditions(draw, axes, depth=2):
    """Comparisons of indices, together, either, or not."""
    kind = draw(st.sampled_from(["lt", "le", "eq", "ne", "and", "or", "not"]))
    if kind in ("and", "or", "not") and depth > 0:
        a = draw(conditions(axes, depth - 1))
        return ~a if kind == "not" else te.Binary(kind, a, draw(conditions(axes, depth - 1)))
    op = kind if kind in ("lt", "le", "eq", "ne") else "lt"
    return te.Binary(op, draw(indices(axes, 1)), draw(indices(axes, 1)))


@settings(derandomize=True, deadline=None, max_examples=50,
          suppress_health_check=[HealthCheck.too_slow])  # fmt: skip
@given(data=st.data())
def test_what_is_accepted_reads_nothing_outside_and_is_the_same_everywhere(data):
    def rule(i, j):
        index = data.draw(indices((i, j)))
        limit = data.draw(st.sampled_from(["none", "clip", "mod", "guard", "guard"]))
        if limit == "clip":
            index = te.clip(index, 0, 7)
        if limit == "mod":
            index = index % 8
        value = J[index]
        if limit == "guard":
            value = te.select((index >= 0) & (index < 8), value, -1)
        if data.draw(st.booleans()):
            return te.select(data.draw(conditions((i, j))), value, te.const(7))
        return value

    c = te.compute((3, 6), rule, name="c")
    try:
        s = create_schedule(c)
    except te.ExprError:
        return
    if data.draw(st.booleans()):
        s[c].vectorize(s[c].axis[1])
    everywhere(c, s)
