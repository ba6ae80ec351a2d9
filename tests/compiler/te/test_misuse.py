"""What is written wrongly is refused with the rule; what Python's operators can say, works."""

import numpy as np
import pytest

from covta.compiler import te

A = te.placeholder((5, 3), name="A")
J = te.placeholder((4,), "int32", name="J")
F = te.placeholder((4,), "float32", name="F")
K = te.reduce_axis((0, 5), name="k")
FREE = te.reduce_axis((0, 3), name="r")
j = np.array([-(2**31), -7, 7, 2**31 - 1], np.int32)
f = np.array([-0.5, 0.25, np.nan, np.inf], np.float32)


def compute(rule, shape=(4,)):
    return te.compute(shape, rule, name="c")


REFUSED = {
    "max of two": (lambda: te.max(J[0], 0), "max: axis must come from te.reduce_axis, got 0;"),
    "two values": (lambda: te.max(J[0], 0), "te.maximum takes two values"),
    "no axis": (lambda: te.sum(J[0], axis=None), "te.reduce_axis, got None"),
    "axis twice": (lambda: te.sum(A[K, 0], axis=[K, K]), "sum: axis k is given twice"),
    "one number": (lambda: te.reduce_axis(5), "from 0 to at least 1, given as (0, n), got 5"),
    "three": (lambda: te.reduce_axis((0, 2, 3)), "given as (0, n), got (0, 2, 3)"),
    "half": (lambda: te.reduce_axis((0, 2.5)), "given as (0, n), got (0, 2.5)"),
    "nan": (lambda: te.const(float("nan")), "a constant of int32 must lie in"),
    "inf": (lambda: te.const(float("inf"), "int32"), "a constant of int32 must lie in"),
    "text": (lambda: te.const("x"), "a constant must be a number, got 'x'"),
    "huge": (lambda: te.const(10**400, "float32"), "must be less than 2 ** 128"),
    "shape": (lambda: te.placeholder(5), "shape must hold positive integers, got 5"),
    "shape of bools": (lambda: te.placeholder((True, 3)), "positive integers, got (True, 3)"),
    "NumPy's type": (lambda: te.placeholder((3,), np.dtype("int8")), "got dtype('int8')"),
    "name": (lambda: te.placeholder((3,), name=5), "a tensor's name must be text, got 5"),
    "shape of a compute": (lambda: te.compute(3, lambda i: i), "positive integers, got 3"),
    "rule": (lambda: te.compute((3,), 5), "must be a function of the axes, got 5"),
    "pad by": (lambda: te.pad(J, 2), "before and after must be sequences of integers, got 2"),
    "pad of": (lambda: te.pad(3, (2,)), "pad: a tensor is needed, got 3"),
    "values": (lambda: te.evaluate(compute(lambda i: J[i]), [j]), "must be a mapping of tensors"),
    "a value": (
        lambda: te.evaluate(compute(lambda i: J[i]), {J: j.tolist()}),
        "J must be a NumPy array, got list",
    ),
    "variable's": (
        lambda: te.evaluate(compute(lambda i: i), {te.var("n"): 2.5}),
        "a constant of int32 must lie in",
    ),
    "named by text": (lambda: te.evaluate(compute(lambda i: i), {"J": j}), "got 'J'"),
    "==": (lambda: compute(lambda i: i == 2), "te.equal compares values"),
    "== in an index": (lambda: J[J[0] == 2], "te.equal compares values"),
    "~": (lambda: ~J[0], "~ takes a condition, got int32: J[0]"),
    "not reduced": (
        lambda: compute(lambda y: A[y, FREE]),
        "c: axis r is neither an axis of this compute nor reduced over: A[y, r]",
    ),
    "reduced over another": (
        lambda: compute(lambda y: te.sum(A[K, FREE], axis=K)),
        "axis r is neither",
    ),
    "another's axis": (
        lambda: compute(lambda y: compute(lambda x: J[y])[y]),
        "axis y is neither",
    ),
    "iterated": (lambda: max(J), "J cannot be iterated over: give a rule for each element"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_misuse_is_refused(case):
    make, message = REFUSED[case]
    with pytest.raises(te.ExprError) as error:
        make()
    assert message in str(error.value)


VALUES = {
    "/": (lambda i: 1.0 / F[i], lambda i: np.float32(1) / f),
    "//": (lambda i: 7 // (J[i] % 5 + 1), lambda i: 7 // (j % 5 + 1)),
    "%": (lambda i: 7 % J[i], lambda i: np.int32(7) % j),
    "abs": (lambda i: abs(J[i]), lambda i: np.abs(j)),
    "abs of floats": (lambda i: abs(F[i]), lambda i: np.abs(f)),
    "~": (lambda i: te.select(~(J[i] < 7), 1, 0), lambda i: ~(j < 7)),
    "~ of floats": (lambda i: te.select(~(F[i] < 7.0), 1, 0), lambda i: ~(f < 7)),
    "~ and": (lambda i: te.select(~((J[i] < 7) & (i > 0)), 1, 0), lambda i: ~((j < 7) & (i > 0))),
    "~ or": (
        lambda i: te.select(~((J[i] <= 7) | te.equal(i, 3)), 1, 0),
        lambda i: ~((j <= 7) | (i == 3)),
    ),
    ">> of a number": (lambda i: 99 >> i, lambda i: 99 >> i),
    "<< of a number": (lambda i: 3 << i, lambda i: 3 << i),
}


@pytest.mark.parametrize("case", VALUES)
def test_operators(case):
    rule, expected = VALUES[case]
    with np.errstate(all="ignore"):
        want = expected(np.arange(4, dtype=np.int32))
    np.testing.assert_array_equal(te.evaluate(compute(rule), {J: j, F: f}), want)


AXIS = {
    ">": (lambda k: te.select(k > 2, 1, 0), "select(2 < k, 1, 0)"),
    "<=": (lambda k: te.select(k <= 2, 1, 0), "select(k <= 2, 1, 0)"),
    "-": (lambda k: -k, "0 - k"),
    ">>": (lambda k: k >> 1, "k >> 1"),
    "<<": (lambda k: k << 1, "k >> -1"),
    "//": (lambda k: 3 // k, "3 // k"),
    "%": (lambda k: 3 % k, "3 % k"),
    "astype": (lambda k: k.astype("float32"), "float32(k)"),
    "abs": (lambda k: abs(k - 2), "select(k - 2 <= 0, 0 - (k - 2), k - 2)"),
}


@pytest.mark.parametrize("case", AXIS)
def test_an_axis_is_used_as_a_number(case):
    rule, text = AXIS[case]
    assert str(rule(K)) == text


def test_sizes_may_be_numpys():
    x = te.placeholder((np.int64(3), np.int8(2)), name="x")
    assert x.shape == (3, 2)
    assert all(type(n) is int for n in x.shape)
    assert te.pad(x, np.array([1, 0])).shape == (5, 2)
    assert te.reduce_axis((0, np.int32(4))).extent == te.const(4)


def test_a_variable_takes_any_kind_of_number():
    n = te.var("n")
    y = te.compute((2,), lambda i: i + n)
    for five in (5, np.int64(5), np.array(5), np.array([5], np.int8)):
        assert te.evaluate(y, {n: five}).tolist() == [5, 6]
