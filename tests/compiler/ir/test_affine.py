"""Linear forms, simplification and intervals against brute force."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from covta.compiler.ir.affine import evaluator, interval, simplify, variables
from covta.compiler.te.expr import Const, Lookup, Var, binary, cast, select

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


def test_what_folds_to_a_sum_is_added_up():
    expr = select(Const(1) < X - X + 2, X + Y, X) - X
    assert simplify(expr) == Y
    inner = select(X < X + 1, X + Y, X)  # known only once its condition is simplified
    assert simplify(inner - X) == Y


@st.composite
def divisions(draw):
    """Of any two expressions, with the remainder, a shift, a product or a choice on top."""
    a, b = draw(expressions()), draw(expressions())
    op = draw(st.sampled_from(["floordiv", "floormod", "mul", "shr", "select"]))
    if op == "select":
        return select(a < b, binary("floordiv", a, b), b)
    return binary(op, a, binary("min", binary("max", b, -6), 6) if op == "shr" else b)


@settings(max_examples=600, derandomize=True)
@given(divisions(), st.booleans())
def test_an_interval_is_known_whatever_the_operator(expr, known):
    """Divisors of either sign, ranges that depend on a symbol of known or unknown range."""
    domain = {X: (Const(0), Const(2)), Y: (Const(0), Const(3))}
    outer = {Z: (Const(0), Const(1))} if known else None
    low, high = interval(expr, domain, outer)
    assert variables(low) | variables(high) <= {Z}
    value, ends = evaluator([expr], [X, Y, Z]), evaluator([low, high], [X, Y, Z])
    for point in points():
        try:
            (here,) = value(*point)
        except ZeroDivisionError:
            continue
        least, greatest = ends(*point)
        assert least <= here <= greatest


def test_a_divisor_that_is_known_to_be_positive_gives_close_bounds():
    part = (binary("min", Const(4), 6 - X * 4) + 1) // 2  # 2 for x = 0, 1 for x = 1
    domain, outer = {Y: (Const(0), Const(9))}, {X: (Const(0), Const(1))}
    assert [str(e) for e in interval(Y // part, domain, outer)] == [
        "0",
        "9 // ((min(4, 6 - x * 4) + 1) // 2)",
    ]
    assert [str(e) for e in interval(Y % part, domain, outer)] == [
        "0",
        "(min(4, 6 - x * 4) + 1) // 2 - 1",
    ]
    assert interval(Y // part, domain)[1] == Const(9)  # x may be anything
    least = evaluator([interval(Y // (0 - X - 1), domain, outer)[0]], [X])
    assert [least(x) for x in (0, 1)] == [(-9,), (-5,)]


def test_what_is_cast_may_be_anything_of_its_type():
    domain = {X: (Const(0), Const(2))}
    assert interval(cast(cast(X, "int8"), "int32") + 1, domain) == (Const(-127), Const(128))
    low, high = interval(cast(cast(X, "float32"), "int32") + Y, domain)
    assert evaluator([low, high], [Y])(1) == (1 - (1 << 31), 1 << 31)


def test_nested_divisions_take_no_time():
    """Each part of an expression is looked at once, however often it occurs."""
    expr = X + 9
    for _ in range(4):
        expr = (expr + (expr + 1) // 2 - 1) // ((expr + 1) // 2) + X
    low, high = interval(expr, {X: (Const(0), Const(2))})
    assert isinstance(low, Const)
    assert isinstance(high, Const)
