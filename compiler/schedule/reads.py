"""Every read lies within its tensor, whatever the values: what no back end checks when it runs.

Indices are bounded by interval arithmetic. Within a side of a `select` its condition holds (or does
not), and bounds what it speaks of: that is how padding reads only what is there. All back ends do
only the side that is taken.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product

from covta.compiler.ir.affine import Linear, linear
from covta.compiler.te.expr import (
    Binary,
    Cast,
    Const,
    Expr,
    ExprError,
    Lookup,
    Read,
    Reduce,
    Select,
    Var,
    children,
    require,
    walk,
)
from covta.compiler.te.tensor import Tensor

__all__ = ["bounds", "check_reads"]

Range = tuple[int, int]
INT32: Range = (-(1 << 31), (1 << 31) - 1)
UNKNOWN: Range = (-(1 << 63), 1 << 63)
NOTHING: Range = (1, 0)
MIRRORED = {"lt": "le", "le": "lt"}


def check_reads(tensor: Tensor) -> None:
    """Refuse a tensor some of whose reads may lie outside of what they read.

    Parameters
    ----------
    tensor : Tensor
        With a body.

    Raises
    ------
    ExprError
        Naming the read, its axis, the values it may take and the size.
    """
    body = tensor.body
    assert body is not None
    axes = [*tensor.axes, *tensor.reduce_axis]
    domain = {a.var: (0, int(a.extent.value) - 1) for a in axes}  # type: ignore[attr-defined]
    source = body.source if isinstance(body, Reduce) else body
    if any(isinstance(e, Read | Lookup) for e in walk(source)):
        _check(tensor.name, source, domain, ())


def _check(name: str, expr: Expr, domain: Mapping[Var, Range], facts: tuple[Linear, ...]) -> None:
    match expr:
        case Select(condition, a, b):
            _check(name, condition, domain, facts)
            _check(name, a, domain, (*facts, *_facts(condition, True, domain, facts)))
            _check(name, b, domain, (*facts, *_facts(condition, False, domain, facts)))
            return
        case Read(tensor, indices):
            for d, (index, size) in enumerate(zip(indices, tensor.shape, strict=True)):
                _within(name, expr, f"index {d}", index, size, domain, facts)
        case Lookup(table, index):
            _within(name, expr, "index", index, len(table), domain, facts)
    for part in children(expr):
        _check(name, part, domain, facts)


def _within(
    name: str, read: Expr, what: str, index: Expr, size: int,
    domain: Mapping[Var, Range], facts: Sequence[Linear],
) -> None:  # fmt: skip
    low, high = bounds(index, domain, facts)
    if low > high:
        return  # never evaluated: the conditions around it exclude one another
    hint = "guard it by te.select, or limit it by te.clip or %"
    require(
        _exact(index, domain, facts),
        f"{name}: {what} of {read} must not overflow int32 at any point; {hint}",
    )
    require(
        0 <= low and high < size,
        f"{name}: {what} of {read} must lie in 0 ... {size - 1}, it may lie in"
        f" {low} ... {high}; {hint}",
    )


# ---- bounds ---------------------------------------------------------------------------------
def bounds(expr: Expr, domain: Mapping[Var, Range], facts: Sequence[Linear] = ()) -> Range:
    """Least and greatest value of an integer expression, never too narrow.

    Parameters
    ----------
    expr : Expr
        int32 or int8.
    domain : mapping of Var to (int, int)
        First and last value of variables; others may have any.
    facts : sequence of Linear
        What is known not to be negative.

    Returns
    -------
    (int, int)
        As if int32 could not overflow. The first exceeds the second where the facts contradict
        one another.
    """
    if expr.dtype != "int32":
        return _plain(expr)
    try:
        form = linear(expr)
    except ExprError:  # a number beyond int32
        return UNKNOWN
    # Terms of the facts are bounded without them, so that this ends.
    ranges = {t: _term(t, domain, ()) for fact in facts for t in fact.terms}
    ranges |= {t: _term(t, domain, facts) for t in form.terms}
    ranges |= {t: _narrowed(Linear({t: 1}), ranges, facts) for t in form.terms}
    return _narrowed(form, ranges, facts)


def _narrowed(form: Linear, ranges: Mapping[Expr, Range], facts: Sequence[Linear]) -> Range:
    """The range of a form: that of its sum, narrowed by facts that share terms with it."""
    low, high = _sum(form, ranges)
    for fact in facts:
        shared = [t for t in form.terms if t in fact.terms]
        for k in {abs(form.terms[t]) // abs(fact.terms[t]) or 1 for t in shared}:
            low = max(low, _sum(form.plus(fact, -k), ranges)[0])
            high = min(high, _sum(form.plus(fact, k), ranges)[1])
    return low, high


def _sum(form: Linear, ranges: Mapping[Expr, Range]) -> Range:
    low = high = form.const
    for term, c in form.terms.items():
        least, greatest = ranges.get(term, UNKNOWN)
        low += c * (least if c > 0 else greatest)
        high += c * (greatest if c > 0 else least)
    return low, high


def _plain(expr: Expr) -> Range:
    """Of a value that is not an index: its type's, unless it is a number."""
    if isinstance(expr, Const):
        return int(expr.value), int(expr.value)
    if expr.dtype == "bool":
        return 0, 1
    return (-128, 127) if expr.dtype == "int8" else INT32


def _term(term: Expr, domain: Mapping[Var, Range], facts: Sequence[Linear]) -> Range:
    """Of a term of a linear form."""
    match term:
        case Var():
            return domain.get(term, INT32)
        case Cast(Cast(a, "int8") as small, "int32") if a.dtype == "int32":
            low, high = bounds(a, domain, facts)
            return (low, high) if -128 <= low and high <= 127 else _plain(small)
        case Cast(a, "int32"):
            return _plain(a)
        case Select(condition, a, b):
            sides = [
                bounds(side, domain, (*facts, *_facts(condition, holds, domain, facts)))
                for side, holds in ((a, True), (b, False))
            ]
            sides = [s for s in sides if s[0] <= s[1]] or sides  # the others are never taken
            return min(s[0] for s in sides), max(s[1] for s in sides)
        case Lookup(table, index):
            low, high = bounds(index, domain, facts)
            part = table[max(low, 0) : max(high + 1, 0)] or table
            return min(part), max(part)
        case Binary(op, a, b):
            return _binary(op, bounds(a, domain, facts), bounds(b, domain, facts))
    return _plain(term)


def _binary(op: str, a: Range, b: Range) -> Range:
    (al, ah), (bl, bh) = a, b
    if al > ah or bl > bh:
        return NOTHING  # never evaluated
    match op:
        case "min":
            return min(al, bl), min(ah, bh)
        case "max":
            return max(al, bl), max(ah, bh)
        case "mul":
            corners = [x * y for x, y in product(a, b)]
        case "floordiv" if bl > 0 or bh < 0:
            corners = [x // y for x, y in product(a, b)]
        case "floordiv":  # division by 0 gives 0
            corners = [n for x in a for n in (x, -x)]
        case "floormod" if bl == bh and bl > 0 and al // bl == ah // bl:
            return al % bl, ah % bl
        case "floormod":
            return min(bl + 1, 0), max(bh - 1, 0)
        case "shr" if bl >= 0:
            corners = [x >> min(y, 63) for x, y in product(a, b)]
        case "shr" if bl == bh and bl > -32:
            corners = [x << -bl for x in a]
        case _:
            return UNKNOWN
    return min(corners), max(corners)


def _exact(expr: Expr, domain: Mapping[Var, Range], facts: Sequence[Linear]) -> bool:
    """True if no part of an index overflows int32, so that all back ends agree on it."""
    match expr:
        case Read() | Cast():
            return True  # values, which wrap alike everywhere
        case Select(condition, a, b):
            return all(
                _exact(side, domain, (*facts, *_facts(condition, holds, domain, facts)))
                for side, holds in ((a, True), (b, False))
            )
    low, high = bounds(expr, domain, facts) if expr.dtype == "int32" else (0, 0)
    fits = low > high or (INT32[0] <= low and high <= INT32[1])
    return fits and all(_exact(part, domain, facts) for part in children(expr))


# ---- facts ----------------------------------------------------------------------------------
def _facts(
    condition: Expr, holds: bool, domain: Mapping[Var, Range], facts: Sequence[Linear]
) -> Iterator[Linear]:
    """What is not negative where a condition holds, or where it does not."""
    match condition:
        case Binary("and" | "or" as op, a, b) if holds == (op == "and"):
            yield from _facts(a, holds, domain, facts)
            yield from _facts(b, holds, domain, facts)
        case Binary("lt" | "le" | "eq" | "ne" as op, a, b) if a.dtype == "int32":
            if not (_exact(a, domain, facts) and _exact(b, domain, facts)):
                return
            try:
                form = linear(b).plus(linear(a), -1)
            except ExprError:
                return
            if op in ("eq", "ne"):
                if holds == (op == "eq"):
                    yield form
                    yield form.times(-1)
                return
            if not holds:
                op, form = MIRRORED[op], form.times(-1)
            yield form if op == "le" else form.plus(Linear(const=1), -1)
