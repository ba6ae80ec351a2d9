"""Tensor expressions: their notation, their types, their text, their values."""

import numpy as np
import pytest

from covta.compiler import te

RNG = np.random.default_rng(0)


def matmul():
    m, n, depth = 4, 5, 6
    A, B = te.placeholder((depth, m), name="A"), te.placeholder((depth, n), name="B")
    k = te.reduce_axis((0, depth), name="k")
    return A, B, te.compute((m, n), lambda y, x: te.sum(A[k, y] * B[k, x], axis=k), name="C")


def test_a_matrix_product_reads_as_in_the_notation_and_is_right():
    A, B, C = matmul()
    a, b = RNG.random(A.shape, np.float32), RNG.random(B.shape, np.float32)
    np.testing.assert_allclose(te.evaluate(C, {A: a, B: b}), a.T @ b, rtol=1e-6)
    assert str(C) == "C: float32[4, 5][y, x] = sum(A[k, y] * B[k, x], axis=[k])"


def test_a_computation_prints_producers_first():
    A = te.placeholder((4,), "int8", name="A")
    P = te.pad(A, (1,), name="P")
    Q = te.compute((4,), lambda i: P[i].astype("int32") + P[i + 2].astype("int32"), name="Q")
    assert te.describe(Q).splitlines() == [
        "A: int8[4] = placeholder",
        "P: int8[6][i0] = select(1 <= i0 and i0 < 5, A[i0 - 1], int8(0))",
        "Q: int32[4][i] = int32(P[i]) + int32(P[i + 2])",
    ]


@pytest.mark.parametrize(("kind", "numpy"), [("sum", np.sum), ("max", np.max), ("min", np.min)])
@pytest.mark.parametrize("dtype", ["int8", "int32", "float32"])
def test_reductions(kind, numpy, dtype):
    x = te.placeholder((3, 4, 5), dtype, name="x")
    i, j = te.reduce_axis((0, 3), "i"), te.reduce_axis((0, 5), "j")
    y = te.compute((4,), lambda k: getattr(te, kind)(x[i, k, j], axis=[i, j]))
    values = RNG.integers(-8, 8, x.shape).astype(dtype)
    np.testing.assert_array_equal(te.evaluate(y, {x: values}), numpy(values, axis=(0, 2)))


def test_integers_wrap_as_on_the_machine():
    x = te.placeholder((2,), "int8", name="x")
    y = te.compute((2,), lambda i: x[i] + 100)
    result = te.evaluate(y, {x: np.array([27, 28], np.int8)})
    np.testing.assert_array_equal(result, np.array([127, -128], np.int8))


@pytest.mark.parametrize(
    ("bits", "expected"), [(2, -3), (-2, -36), (0, -9), (31, -1), (-31, -(2**31))]
)
def test_a_shift_goes_left_where_it_is_negative(bits, expected):
    x = te.placeholder((1,), "int32", name="x")
    y = te.compute((1,), lambda i: te.shift(x[i], bits))
    assert te.evaluate(y, {x: np.array([-9], np.int32)})[0] == expected


def test_clip_select_cast_and_logic():
    x = te.placeholder((8,), "int32", name="x")
    y = te.compute(
        (8,),
        lambda i: te.select(
            (x[i] > 2) & (x[i] <= 5) | te.equal(x[i], 0), te.clip(x[i], 1, 4), x[i] * -1
        ).astype("int8"),
    )
    v = np.arange(8, dtype=np.int32)
    inside = ((v > 2) & (v <= 5)) | (v == 0)
    expected = np.where(inside, np.clip(v, 1, 4), -v).astype(np.int8)
    np.testing.assert_array_equal(te.evaluate(y, {x: v}), expected)


def test_padding_by_any_value():
    x = te.placeholder((2, 3), "int8", name="x")
    p = te.pad(x, (1, 0), (2, 1), value=-128)
    v = RNG.integers(-128, 128, x.shape).astype(np.int8)
    expected = np.pad(v, ((1, 2), (0, 1)), constant_values=-128)
    np.testing.assert_array_equal(te.evaluate(p, {x: v}), expected)


def test_free_variables_are_bound_at_evaluation():
    x, s = te.placeholder((3,), "int32", name="x"), te.var("s")
    y = te.compute((3,), lambda i: x[i] * s)
    v = np.arange(3, dtype=np.int32)
    np.testing.assert_array_equal(te.evaluate(y, {x: v, s: 5}), v * 5)


def test_index_arithmetic_is_folded():
    i = te.var("i")
    assert str((i + 0) * 1 + te.const(2) * 3) == "i + 6"
    assert str(te.minimum(te.const(3), te.const(5))) == "3"


def test_constants_fold_as_they_are_evaluated():
    big = te.const(2**31 - 1)
    assert str(big + 1) == "-2147483648"
    assert str(te.const(-(2**31)) // -1) == "-2147483648"
    assert str(te.const(1) << 40) == "0"
    assert str(te.const(-5) >> 40) == "-1"
    y = te.compute((3,), lambda i: big + 1 + i)
    np.testing.assert_array_equal(te.evaluate(y, {}), np.arange(3) - 2**31)


A8 = te.placeholder((4,), "int8", name="A")
F = te.placeholder((4,), "float32", name="F")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: te.placeholder((0,)), "placeholder: shape must hold positive integers, got (0,)"),
        (
            lambda: te.placeholder((1,), "int4", name="x"),
            "x: dtype must be among int8, int32, float32, got 'int4'",
        ),
        (lambda: A8[0, 1], "A must be indexed by 1 numbers, got 2"),
        (
            lambda: te.compute((4,), lambda i: A8[i] + F[i]),
            "both sides of add must be of one type, got int8 and float32; cast one",
        ),
        (lambda: te.compute((4, 4), lambda i: A8[i]), "the rule must take 2 axes"),
        (
            lambda: te.compute((4,), lambda i: te.sum(A8[i], axis=te.reduce_axis((0, 2))) + A8[i]),
            "a reduction must be the outermost part",
        ),
        (lambda: te.compute((4,), lambda i: i < 3), "elements must be numbers, got a condition"),
        (lambda: te.reduce_axis((1, 4), "k"), "k: a reduction must run from 0"),
        (lambda: te.const(300, "int8"), "a constant of int8 must lie in -128 ... 127, got 300"),
        (lambda: A8[te.var("x", "float32")], "A: an index must be int32, got float32: x"),
        (lambda: te.select(A8[0], 1, 2), "select needs a condition"),
        (lambda: te.pad(A8, (1, 1)), "pad of A: before and after must have 1 numbers"),
        (lambda: te.compute((4,), lambda i: F[i] >> 1), "a shift takes integers, got float32"),
        (lambda: te.sum(A8[0], axis=[]), "sum: at least one axis must be given"),
    ],
)
def test_what_means_nothing_is_refused(make, message):
    with pytest.raises(te.ExprError) as error:
        make()
    assert message in str(error.value)


def test_values_must_be_of_the_declared_type():
    y = te.compute((4,), lambda i: A8[i])
    with pytest.raises(te.ExprError, match=r"A must be int8\[4\], got int64\[4\]"):
        te.evaluate(y, {A8: np.arange(4)})
    with pytest.raises(te.ExprError, match="A: a placeholder's values must be given"):
        te.evaluate(y, {})
