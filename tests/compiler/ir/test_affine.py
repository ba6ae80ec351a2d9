"""Linear forms, simplification and intervals against brute force."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from covta.compiler.ir.affine import evaluator, interval, simplify, variables
from covta.compiler.te.expr import Const, Lookup, Var, binary

X, Y, Z = Var("x"), Var("y"), Var("z")
SIZES = {X: 3, Y: 4, Z: 2}


@st.composite
def expressions(draw, depth=3):
    if depth == 0 or draw(st.booleans()):
        return draw(st.sampled_from([X, Y, Z, *map(Const, range(-3, 5))]))
    op = draw(st.sampled_from(["add", "sub", "mul", "min", "max", "floordiv", "floormod", "table"]))
    a = draw(expressions(depth=depth - 1))
    if op == "table":
        entries = draw(st.lists(st.integers(-5, 5), min_size=4, max_size=4))
        return Lookup(tuple(entries), Y)
    if op in ("floordiv", "floormod"):
        return binary(op, a, Const(draw(st.integers(1, 5))))
    if op == "mul":
        return binary(op, a, Const(draw(st.integers(-3, 3))))
    return binary(op, a, draw(expressions(depth=depth - 1)))


def points():
    return itertools.product(*(range(n) for n in SIZES.values()))


@settings(max_examples=300, derandomize=True)
@given(expressions())
def test_simplifying_keeps_the_value(expr):
    before, after = (evaluator([e], [X, Y, Z]) for e in (expr, simplify(expr)))
    for point in points():
        assert before(*point) == after(*point)


@settings(max_examples=300, derandomize=True)
@given(expressions())
def test_an_interval_holds_every_value(expr):
    domain = {X: (Const(0), Const(2)), Y: (Const(0), Const(3))}
    low, high = interval(expr, domain)
    assert variables(low) <= {Z}
    assert variables(high) <= {Z}
    run = evaluator([low, expr, high], [X, Y, Z])
    for point in points():
        least, value, greatest = run(*point)
        assert least <= value <= greatest


@pytest.mark.parametrize(
    ("expr", "text"),
    [
        (X * 2 + Y - X * 2, "y"),
        ((X * 4 + Y * 8 + 3) // 4, "x + y * 2"),
        ((X * 4 + 6) % 4, "2"),
        (binary("min", X + 3, X + 1), "x + 1"),
        (Lookup((1, 5), X) + Lookup((4, 0), X), "5"),
        (Lookup((1, 5), X) + Lookup((4, 1), X) - 1, "[5, 6][x] - 1"),
        (0 - X, "0 - x"),
        (5 - X - Y, "5 - x - y"),
    ],
)
def test_what_cancels_goes(expr, text):
    assert str(simplify(expr)) == text


def test_an_interval_is_exact_where_a_variable_occurs_once():
    inner = binary("min", Const(4), 10 - X * 4)
    low, high = interval(X * 4 + Y, {Y: (Const(0), inner - 1)})
    assert str(low) == "x * 4"
    assert str(high) == "x * 4 + min(3, 9 - x * 4)"
    assert interval(high, {X: (Const(0), Const(2))})[1] == Const(9)
