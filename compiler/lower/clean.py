"""Drop loops of a single turn and simplify every expression."""

from __future__ import annotations

from covta.compiler.ir.fold import is_index, tidy
from covta.compiler.ir.stmt import For, Function, Stmt, map_exprs, map_stmts, substitute_stmt
from covta.compiler.te.expr import Const, Expr, Read, transform

__all__ = ["clean"]


def clean(function: Function) -> Function:
    """Tidy up what other passes leave.

    Rewrite:   for v in range(b, b + 1): S  ->  S with v = b; indices and bounds simplified
    Requires:  nothing
    Preserves: everything; only serial and unrolled loops go
    """

    scalars = function.scalars

    def index(e: Expr) -> Expr:
        if e.dtype in ("int32", "bool") and is_index(e, scalars):
            return tidy(e)
        return transform(e, positions)

    def positions(e: Expr) -> Expr | None:
        if isinstance(e, Read) and all(map(is_index, e.indices)):
            return Read(e.tensor, tuple(map(tidy, e.indices)))
        return None

    def rule(stmt: Stmt) -> Stmt | None:
        if (
            isinstance(stmt, For)
            and stmt.extent == Const(1)
            and stmt.kind in ("serial", "unroll", "vectorize")
        ):
            return substitute_stmt(stmt.body, {stmt.var: stmt.begin})
        return None

    body = map_exprs(function.body, index)
    return function.with_body(map_exprs(map_stmts(body, rule), index))
