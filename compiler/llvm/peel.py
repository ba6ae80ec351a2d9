"""Full tiles apart from the last, smaller ones.

A split that does not divide leaves ``for o: for i in range(min(f, n - f * o))``. Only in the last
turn of ``o`` is the tile smaller. Done apart, every tile has a constant size, and can be unrolled,
vectorised and kept in registers.
"""

from __future__ import annotations

from covta.compiler.ir.affine import linear, simplify
from covta.compiler.ir.stmt import (
    For,
    Function,
    If,
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
    substitute,
    transform,
    walk,
)

__all__ = ["peel"]

MAX_COPIES = 64
"""Statements of a function grow by this factor at most."""


def peel(function: Function) -> Function:
    """Take apart the last turns of loops in which tiles are smaller.

    Rewrite:   ``for o in n: S(min(f, m - f * o))`` -> ``for o in n - 1: S(f); S(m - f * (n - 1))``
    Requires:  constant bounds of the loop
    Preserves: the order of all that is done
    """
    size = sum(1 for _ in walk_stmts(function.body))

    def rule(s: Stmt) -> Stmt | None:
        if not isinstance(s, For) or s.kind in ("unroll", "vectorize"):
            return None
        if not (isinstance(s.begin, Const) and isinstance(s.extent, Const)):
            return None
        if s.extent.value < 1 or sum(1 for _ in walk_stmts(s.body)) > size * MAX_COPIES:
            return None
        return _split(s)

    return function.with_body(map_stmts(function.body, rule))


def _split(loop: For) -> Stmt | None:
    first, turns = int(loop.begin.value), int(loop.extent.value)  # type: ignore[attr-defined]
    last = first + turns - 1
    full = _known(loop.body, loop.var, first, last - 1)
    if not full:
        return None
    at_last: dict[Var, Expr] = {loop.var: Const(last)}
    tail = _fold(map_exprs(loop.body, lambda e: substitute(e, at_last)))
    if turns == 1:
        return tail
    body = _fold(map_exprs(loop.body, lambda e: transform(e, full.get)))
    main = For(loop.var, loop.begin, Const(turns - 1), body, loop.kind)
    return seq(main, tail)


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


def _fold(body: Stmt) -> Stmt:
    """Constants folded, conditions that hold left out."""

    def drop(s: Stmt) -> Stmt | None:
        match s:
            case If(Const(held), inner):
                return inner if held else seq()
            case For(_, _, Const(turns), _, _) if turns <= 0:
                return seq()
        return None

    return map_stmts(map_exprs(body, lambda e: simplify(e) if _plain(e) else e), drop)


def _plain(e: Expr) -> bool:
    """True for indices and conditions on them."""
    return e.dtype in ("int32", "bool") and not any(isinstance(x, Read | Cast) for x in walk(e))
