"""Virtual threads: the turns of a loop interleaved, each with buffers of its own."""

from __future__ import annotations

from dataclasses import replace

from covta.compiler.ir.affine import variables
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
    seq,
    substitute_stmt,
)
from covta.compiler.te.expr import Const, Expr, Read, Var, transform

__all__ = ["inject_virtual_threads"]


def inject_virtual_threads(function: Function) -> Function:
    """Replace ``vthread`` loops by one thread that does a bit of each in turn.

    Rewrite:   vthread for t: A(t); for k: B(t, k); C(t)
               -> A(0) A(1); for k: B(0, k) B(1, k); C(0) C(1)
    Requires:  loops inside, up to the statements that are repeated, do not depend on t
    Preserves: what each thread does, in its order; buffers allocated inside get a dimension for t,
               whose every index is placed by itself
    """
    return function.with_body(_inject(function.body))


def _inject(stmt: Stmt) -> Stmt:
    match stmt:
        case Seq(body):
            return seq(*map(_inject, body))
        case If(condition, body):
            return If(condition, _inject(body))
        case Allocate(buffer, body):
            return Allocate(buffer, _inject(body))
        case For(var, begin, extent, body, "vthread"):
            return _sink(_inject(body), var, begin, extent)
        case For(var, begin, extent, body, kind):
            return For(var, begin, extent, _inject(body), kind)
    return stmt


def _sink(stmt: Stmt, thread: Var, begin: Expr, extent: Expr) -> Stmt:
    match stmt:
        case Seq(body):
            return seq(*(_sink(s, thread, begin, extent) for s in body))
        case Allocate(buffer, body):
            own = replace(
                buffer,
                shape=(extent, *(_bound(s, thread, begin, extent) for s in buffer.shape)),
                units=buffer.units + 1,
            )
            inside = _move(body, buffer, own, thread, begin)
            return Allocate(own, _sink(inside, thread, begin, extent))
        case For(var, b, e, body, kind) if (
            not variables(b) & {thread} and not variables(e) & {thread} and not _single(body)
        ):
            return For(var, b, e, _sink(body, thread, begin, extent), kind)
    # the turns are written out, each whole
    if isinstance(begin, Const) and isinstance(extent, Const):
        turns = range(int(begin.value), int(begin.value) + int(extent.value))
        return seq(*(substitute_stmt(stmt, {thread: Const(t)}) for t in turns))
    return For(thread, begin, extent, stmt)


def _single(stmt: Stmt) -> bool:
    """True for loops around a single intrinsic, transfer or store: not to be torn apart."""
    while isinstance(stmt, For | If):
        stmt = stmt.body
    return isinstance(stmt, Call | Copy | Store)


def _bound(size: Expr, thread: Var, begin: Expr, extent: Expr) -> Expr:
    """A size that every thread's buffer has room for."""
    from covta.compiler.ir.affine import interval, simplify

    if thread not in variables(size):
        return size
    last = simplify(begin + extent - 1)
    return interval(size, {thread: (begin, last)})[1]


def _move(stmt: Stmt, old: Buffer, new: Buffer, thread: Var, begin: Expr) -> Stmt:
    """Let a statement use thread `thread`'s part of `new` in place of `old`."""
    from covta.compiler.ir.affine import simplify

    at = simplify(thread - begin)

    def expr(e: Expr) -> Expr:
        def rule(x: Expr) -> Expr | None:
            if isinstance(x, Read) and x.tensor is old:
                return Read(new, (at, *x.indices))  # type: ignore[arg-type]
            return None

        return transform(e, rule)

    def region(r: Region) -> Region:
        if r.buffer is not old:
            return r
        return Region(buffer=new, begins=(at, *r.begins), extents=(Const(1), *r.extents))

    match stmt:
        case Seq(body):
            return Seq(tuple(_move(s, old, new, thread, begin) for s in body))
        case For(var, b, e, body, kind):
            return For(var, b, e, _move(body, old, new, thread, begin), kind)
        case If(condition, body):
            return If(condition, _move(body, old, new, thread, begin))
        case Allocate(buffer, body):
            return Allocate(buffer, _move(body, old, new, thread, begin))
        case Store(buffer, indices, value):
            if buffer is old:
                buffer, indices = new, (at, *indices)
            return Store(buffer, indices, expr(value))
        case Copy(dst, src, strides, bounds, fill):
            if src.buffer is old:
                strides, bounds = (1, *strides), (None, *bounds)
            return Copy(region(dst), region(src), strides, bounds, fill)
        case Call(intrin, phase, output, inputs, attrs):
            return Call(intrin, phase, region(output), tuple(map(region, inputs)), attrs)
    raise AssertionError(type(stmt))
