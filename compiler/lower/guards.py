"""Conditions on loop variables: out of expressions into statements, out of statements into bounds.

A convolution whose padding is inlined adds ``select(inside, x, 0) * w``. Adding nothing needs no
work: the condition guards the addition, and then narrows the loops it speaks of, so that a kernel
tap runs only over the pixels that it reaches.
"""

from __future__ import annotations

from collections.abc import Collection

from covta.compiler.ir.affine import linear, simplify, variables
from covta.compiler.ir.fold import is_index, tidy
from covta.compiler.ir.stmt import For, Function, If, Stmt, map_stmts, substitute_stmt
from covta.compiler.te.expr import (
    Binary,
    Cast,
    Const,
    Expr,
    Reduce,
    Select,
    Var,
    binary,
    cast,
    maximum,
    minimum,
)
from covta.compiler.te.tensor import reads_of

__all__ = ["conjuncts", "split_guard", "tighten"]


def split_guard(body: Expr, scalars: Collection[Var] = ()) -> tuple[Expr, Expr | None]:
    """What a stage stores or combines, and the condition under which that does anything.

    Parameters
    ----------
    body : Expr
        Of a stage, a reduction or not.
    scalars : collection of Var
        Those that are no loop's. Conditions on them, and on elements, stay in the expression.
    """
    if not isinstance(body, Reduce):
        return body, None
    source, guard = _extract(body.source, body.identity)
    if guard is not None and not is_index(guard, scalars):
        return body.source, None
    return source, guard


def _extract(expr: Expr, identity: Const) -> tuple[Expr, Expr | None]:
    """``expr == select(guard, source, identity)``."""
    match expr:
        case Select(condition, a, b) if b == identity and not reads_of(condition):
            inner, guard = _extract(a, identity)
            return inner, condition if guard is None else binary("and", condition, guard)
        case Cast(a, dtype) if a.dtype in ("int8", "int32"):
            inside = Const(identity.value, a.dtype)
            if isinstance(identity.value, int) and abs(identity.value) <= 128:
                inner, guard = _extract(a, inside)
                if guard is not None:
                    return cast(inner, dtype), guard
        case Binary("mul", a, b) if identity.value == 0 and identity.dtype != "float32":
            left, lg = _extract(a, Const(0, a.dtype))
            right, rg = _extract(b, Const(0, b.dtype))
            if lg is not None or rg is not None:
                guard = lg if rg is None else rg if lg is None else binary("and", lg, rg)
                return binary("mul", left, right), guard
    return expr, None


def conjuncts(condition: Expr) -> list[Expr]:
    """Parts that must all hold; ``x < min(a, b)`` is two."""
    match condition:
        case Binary("and", a, b):
            return [*conjuncts(a), *conjuncts(b)]
        case Binary(("lt" | "le") as op, a, Binary("min", x, y)):
            return [*conjuncts(binary(op, a, x)), *conjuncts(binary(op, a, y))]
        case Binary(("lt" | "le") as op, Binary("max", x, y), b):
            return [*conjuncts(binary(op, x, b)), *conjuncts(binary(op, y, b))]
    return [condition]


def tighten(function: Function) -> Function:
    """Turn conditions into loop bounds where they are linear in the innermost loop they speak of.

    Rewrite:   for v in range(n): if c*v + r < 0: S  ->  for v in range(lo, hi): S
    Requires:  the loop's body is nothing but the conditional statement
    Preserves: what is executed, and its order
    """
    return function.with_body(map_stmts(function.body, lambda s: _rule(s, function.scalars)))


def _rule(stmt: Stmt, scalars: Collection[Var]) -> Stmt | None:
    if not (isinstance(stmt, For) and isinstance(stmt.body, If)):
        return None
    var, begin, extent = stmt.var, stmt.begin, stmt.extent
    end = begin + extent
    conditions: list[Expr] = []
    body: Stmt = stmt.body
    while isinstance(body, If):
        conditions += conjuncts(body.condition)
        body = body.body
    outside: list[Expr] = []
    inside: list[Expr] = []
    for condition in conditions:
        condition = tidy(condition, scalars)
        if isinstance(condition, Const) and condition.value:
            continue
        if var not in variables(condition):
            outside.append(condition)
            continue
        limit = _limit(condition, var) if is_index(condition, scalars) else None
        if limit is None:
            inside.append(condition)
            continue
        low, high = limit
        begin = begin if low is None else maximum(begin, low)
        end = end if high is None else minimum(end, high)
    for condition in inside:
        body = If(condition, body)
    begin = simplify(begin)
    extent = simplify(end - begin)
    if isinstance(extent, Const) and extent.value == 1 and stmt.kind == "serial":
        body = substitute_stmt(body, {var: begin})
    else:
        body = For(var, begin, extent, body, stmt.kind)
    for condition in outside:
        body = If(condition, body)
    return body


def _limit(condition: Expr, var: Var) -> tuple[Expr | None, Expr | None] | None:
    """First and end value of `var` for which a comparison holds, if it is linear in it."""
    if not (isinstance(condition, Binary) and condition.op in ("lt", "le")):
        return None
    form = linear(condition.a).plus(linear(condition.b), -1)  # form < 0, or <= 0
    c = form.coefficient(var)
    rest = form.without(var)
    if c == 0 or any(var in variables(t) for t in rest.terms):
        return None
    if condition.op == "le":
        rest = rest.plus(linear(Const(-1)))  # form <= 0  is  form - 1 < 0
    if c > 0:  # v < -rest / c  ->  v < ceil(-rest / c)
        return None, simplify((rest.times(-1).expr() + (c - 1)) // c)
    return simplify(rest.expr() // -c + 1), None  # v > rest / -c
