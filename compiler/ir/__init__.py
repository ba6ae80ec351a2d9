"""Loop nests as data: statements, printing, checking, and arithmetic on index expressions."""

from covta.compiler.ir.interpret import interpret
from covta.compiler.ir.stmt import (
    Allocate,
    Buffer,
    Call,
    Copy,
    For,
    Function,
    If,
    Region,
    Seq,
    Stmt,
    Store,
)
from covta.compiler.ir.verify import IRError, verify

__all__ = [
    "Allocate",
    "Buffer",
    "Call",
    "Copy",
    "For",
    "Function",
    "IRError",
    "If",
    "Region",
    "Seq",
    "Stmt",
    "Store",
    "interpret",
    "verify",
]
