"""Check that a function of the loop IR is well formed; runs after every pass."""

from __future__ import annotations

from collections.abc import Callable

from covta.compiler.ir.stmt import (
    LOOP_KINDS,
    SCOPES,
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
from covta.compiler.te.expr import Expr, Read, Reduce, Var, walk

__all__ = ["IRError", "verify"]


class IRError(AssertionError):
    """A pass left IR that means nothing: our mistake, not the user's."""


def _require(condition: bool, message: Callable[[], str]) -> None:
    if not condition:
        raise IRError(message())  # the text of a statement takes long, and is seldom wanted


def verify(function: Function) -> Function:
    """Every variable is bound, every buffer allocated and indexed by its rank, types agree.

    Returns
    -------
    Function
        The same one.

    Raises
    ------
    IRError
        With the statement at fault.
    """
    _Verifier(set(function.buffers)).stmt(function.body, set(function.scalars))
    return function


class _Verifier:
    def __init__(self, buffers: set[Buffer]) -> None:
        self.buffers = buffers
        for b in buffers:
            if b.scope != "global":
                raise IRError(f"parameter {b} must be in global")

    def expr(self, e: Expr, bound: set[Var], where: object) -> None:
        for node in walk(e):
            if isinstance(node, Var):
                if node not in bound:
                    raise IRError(f"variable {node} is not bound in: {where}")
            elif isinstance(node, Read):
                b = node.tensor
                if b not in self.buffers:
                    raise IRError(f"{b.name} is not allocated in: {where}")
                if len(node.indices) != len(b.shape):
                    raise IRError(f"{b.name} has {len(b.shape)} dims: {where}")
            elif isinstance(node, Reduce):
                raise IRError(f"a reduction is left in: {where}")

    def region(self, r: Region, bound: set[Var], where: object) -> None:
        _require(r.buffer in self.buffers, lambda: f"{r.buffer.name} is not allocated in: {where}")
        rank = len(r.buffer.shape)
        _require(
            len(r.begins) == len(r.extents) == rank, lambda: f"{r} must have {rank} dims: {where}"
        )
        for e in (*r.begins, *r.extents):
            self.expr(e, bound, where)

    def stmt(self, s: Stmt, bound: set[Var]) -> None:
        match s:
            case Seq(body):
                for x in body:
                    self.stmt(x, bound)
            case For(var, begin, extent, body, kind):
                _require(kind in LOOP_KINDS, lambda: f"loop kind {kind!r} is unknown")
                _require(var not in bound, lambda: f"variable {var} is bound twice")
                self.expr(begin, bound, f"for {var}")
                self.expr(extent, bound, f"for {var}")
                self.stmt(body, bound | {var})
            case If(condition, body):
                _require(condition.dtype == "bool", lambda: f"if needs a condition: {condition}")
                self.expr(condition, bound, s)
                self.stmt(body, bound)
            case Store(buffer, indices, value):
                _require(buffer in self.buffers, lambda: f"{buffer.name} is not allocated in: {s}")
                _require(
                    len(indices) == len(buffer.shape), lambda: f"{buffer.name}: wrong rank in: {s}"
                )
                _require(value.dtype == buffer.dtype, lambda: f"{buffer} gets {value.dtype}: {s}")
                for e in (*indices, value):
                    self.expr(e, bound, s)
            case Allocate(buffer, body):
                _require(
                    buffer.scope in SCOPES, lambda: f"scope {buffer.scope!r} is unknown: {buffer}"
                )
                _require(buffer not in self.buffers, lambda: f"{buffer.name} is allocated twice")
                for e in buffer.shape:
                    self.expr(e, bound, buffer)
                self.buffers.add(buffer)
                self.stmt(body, bound)
                self.buffers.remove(buffer)
            case Copy(dst, src, strides, bounds):
                self.region(dst, bound, s)
                self.region(src, bound, s)
                _require(
                    len(strides) == len(bounds) == len(src.begins), lambda: f"ranks differ in: {s}"
                )
                for b in bounds:
                    for e in b or ():
                        self.expr(e, bound, s)
            case Call(_, phase, output, inputs):
                _require(
                    phase in ("compute", "reset", "update"), lambda: f"phase {phase!r} is unknown"
                )
                for r in (output, *inputs):
                    self.region(r, bound, s)
            case _:
                raise IRError(f"unknown statement {type(s).__name__}")
