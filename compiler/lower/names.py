"""Give nested loops different names, for whoever reads them."""

from __future__ import annotations

from covta.compiler.ir.stmt import Allocate, For, If, Seq, Stmt, substitute_stmt
from covta.compiler.te.expr import Var

__all__ = ["unique_names"]


def unique_names(stmt: Stmt, taken: frozenset[str] = frozenset()) -> Stmt:
    """Rename a loop's variable where one around it has its name: ``x``, ``x_1``, ``x_2``."""
    match stmt:
        case Seq(body):
            return Seq(tuple(unique_names(s, taken) for s in body))
        case If(condition, body):
            return If(condition, unique_names(body, taken))
        case Allocate(buffer, body):
            return Allocate(buffer, unique_names(body, taken))
        case For(var, begin, extent, body, kind):
            name, k = var.name, 0
            while name in taken:
                k += 1
                name = f"{var.name}_{k}"
            if name != var.name:
                new = Var(name)
                body = substitute_stmt(body, {var: new})
                var = new
            return For(var, begin, extent, unique_names(body, taken | {name}), kind)
    return stmt
