"""Full tiles apart from the last, smaller ones.

A split that does not divide leaves ``for o: for i in range(min(f, n - f * o))``. Only in the last
turn of ``o`` is the tile smaller. Done apart, every tile has a constant size, and can be unrolled,
vectorised and kept in registers.
"""

from __future__ import annotations

from collections.abc import Collection

from covta.compiler.ir.affine import linear
from covta.compiler.ir.fold import tidy
from covta.compiler.ir.stmt import (
    Allocate,
    For,
    Function,
    If,
    Seq,
    Stmt,
    map_exprs,
    map_stmts,
    seq,
    walk_stmts,
)
from covta.compiler.te.expr import (
    Binary,
    Cast,
    Const,
    Expr,
    Read,
    Var,
    equal,
    substitute,
    transform,
    walk,
)

__all__ = ["peel"]

MAX_COPIES = 8
"""Statements of a function in a loop that is taken apart, by how many there are in all."""


def peel(function: Function) -> Function:
    """Take apart the last turns of loops in which tiles are smaller.

    Rewrite:   ``for o in n: S(min(f, m - f * o))`` -> ``for o in n - 1: S(f); S(m - f * (n - 1))``
    Where ``o`` is parallel both stay in it, behind conditions.
    Requires:  constant bounds of the loop
    Preserves: the order of all that is done
    """
    limit = MAX_COPIES * sum(1 for _ in walk_stmts(function.body))

    def visit(s: Stmt) -> Stmt:
        # From outside in: what an outer loop's turn is known to be may settle an inner bound.
        match s:
            case Seq(body):
                return seq(*(visit(x) for x in body))
            case If(condition, body):
                return If(condition, visit(body))
            case Allocate(buffer, body):
                return Allocate(buffer, visit(body))
            case For(var, begin, extent, body, kind):
                parts = None
                if (
                    kind not in ("unroll", "vectorize")
                    and isinstance(begin, Const)
                    and isinstance(extent, Const)
                    and extent.value >= 1
                    and sum(1 for _ in walk_stmts(body)) <= limit
                ):
                    parts = _split(s, function.scalars)
                return (
                    visit(parts)
                    if parts is not None
                    else For(var, begin, extent, visit(body), kind)
                )
        return s

    return function.with_body(visit(function.body))


def _split(loop: For, scalars: Collection[Var]) -> Stmt | None:
    """`loop` with full tiles, and the smaller one apart; None if no tile in it is smaller."""
    first, turns = int(loop.begin.value), int(loop.extent.value)  # type: ignore[attr-defined]
    last = first + turns - 1
    full = _known(loop.body, loop.var, first, last - 1)
    if not full:
        return None
    body = _fold(map_exprs(loop.body, lambda e: transform(e, full.get)), scalars)
    if full == _known(loop.body, loop.var, first, last):
        return For(loop.var, loop.begin, loop.extent, body, loop.kind)
    at_last: dict[Var, Expr] = {loop.var: Const(last)}
    tail = _fold(map_exprs(loop.body, lambda e: substitute(e, at_last)), scalars)
    if turns == 1:
        return tail
    if loop.kind == "parallel":
        # The last turn stays a turn, for some thread to do.
        both = seq(If(loop.var < last, body), If(equal(loop.var, last), tail))
        return For(loop.var, loop.begin, loop.extent, both, loop.kind)
    return seq(For(loop.var, loop.begin, Const(turns - 1), body, loop.kind), tail)


def _known(body: Stmt, var: Var, first: int, last: int) -> dict[Expr, Expr]:
    """Extremes that depend on `var` alone, and which side they take while it runs."""
    found: dict[Expr, Expr] = {}

    def look(e: Expr) -> Expr:
        for x in walk(e):
            if isinstance(x, Binary) and x.op in ("min", "max") and x not in found:
                side = _side(x, var, first, last)
                if side is not None:
                    found[x] = side
        return e

    for s in walk_stmts(body):
        if isinstance(s, For | If):
            look(s.extent if isinstance(s, For) else s.condition)
    return found


def _side(x: Binary, var: Var, first: int, last: int) -> Expr | None:
    difference = linear(x.a).plus(linear(x.b), -1)
    if set(difference.terms) != {var}:
        return None
    c = difference.coefficient(var)
    ends = [difference.const + c * v for v in (first, last)] if last >= first else [0]
    if max(ends) <= 0:
        return x.a if x.op == "min" else x.b
    if min(ends) >= 0:
        return x.b if x.op == "min" else x.a
    return None


def _fold(body: Stmt, scalars: Collection[Var]) -> Stmt:
    """Constants folded, conditions that hold left out."""

    def drop(s: Stmt) -> Stmt | None:
        match s:
            case If(Const(held), inner):
                return inner if held else seq()
            case For(_, _, Const(turns), _, _) if turns <= 0:
                return seq()
        return None

    return map_stmts(map_exprs(body, lambda e: tidy(e, scalars) if _plain(e) else e), drop)


def _plain(e: Expr) -> bool:
    """True for indices and conditions on them."""
    return e.dtype in ("int32", "bool") and not any(isinstance(x, Read | Cast) for x in walk(e))
