"""Element types as LLVM types, and small makers of constants."""

from __future__ import annotations

from llvmlite import ir

__all__ = [
    "BOOL",
    "BYTE",
    "ELEMENT",
    "I32",
    "I64",
    "POINTER",
    "SCALAR",
    "VOID",
    "int64",
    "itemsize",
]

VOID = ir.VoidType()
BOOL = ir.IntType(1)
BYTE = ir.IntType(8)
I32 = ir.IntType(32)
I64 = ir.IntType(64)
POINTER = ir.PointerType()

ELEMENT: dict[str, ir.Type] = {
    "int8": BYTE,
    "int32": I32,
    "float32": ir.FloatType(),
    "bool": BOOL,
}
"""LLVM's type of one element, by the name of its type in tensor expressions."""


SCALAR = ELEMENT | {"bool": BYTE}
"""LLVM's type of a number as a parameter."""


def itemsize(dtype: str) -> int:
    """Bytes of an element in memory."""
    return {"int8": 1, "int32": 4, "float32": 4}[dtype]


def int64(value: int) -> ir.Constant:
    """An index."""
    return ir.Constant(I64, value)
