"""Which expressions are index arithmetic, and their simplification."""

from __future__ import annotations

from collections.abc import Collection

from covta.compiler.ir.affine import simplify
from covta.compiler.te.expr import Const, Expr, ExprError, Read, Var, walk

__all__ = ["is_index", "tidy"]


def is_index(expr: Expr, scalars: Collection[Var] = ()) -> bool:
    """True for arithmetic on loops' variables, whose numbers do not overflow.

    Values of tensors and scalar parameters may be anything, and what is done to them wraps.
    """
    return not any(isinstance(e, Read) or (isinstance(e, Var) and e in scalars) for e in walk(expr))


def tidy(expr: Expr, scalars: Collection[Var] = ()) -> Expr:
    """Index arithmetic and conditions on it simplified; everything else as it is."""
    if expr.dtype not in ("int32", "bool") or not is_index(expr, scalars):
        return expr
    try:
        simple = simplify(expr)
    except ExprError:  # a number beyond int32: a value that wraps
        return expr
    return simple if all(map(_fits, walk(simple))) else expr


def _fits(expr: Expr) -> bool:
    number = isinstance(expr, Const) and expr.dtype == "int32"
    return not number or -(1 << 31) <= expr.value < 1 << 31  # type: ignore[attr-defined]
