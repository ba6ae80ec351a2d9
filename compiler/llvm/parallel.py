"""Loops marked ``parallel``: the body becomes a function that does a range of turns.

A pool is a structure whose first member is a function ``run(pool, body, context, n)`` that has
``body(context, begin, end)`` called on parts of ``0...n-1``, on any threads, and returns when all
are done. Where the pool is null the caller does everything itself. Turns write different elements,
so results do not depend on who does what.
"""

from __future__ import annotations

from llvmlite import ir

from covta.compiler.ir.stmt import For
from covta.compiler.llvm import stmt
from covta.compiler.llvm.arith import binary
from covta.compiler.llvm.emitter import Emitter
from covta.compiler.llvm.expr import index
from covta.compiler.llvm.types import I32, I64, POINTER, VOID, int64

__all__ = ["BODY", "RUN", "emit_loop"]

BODY = ir.FunctionType(VOID, [POINTER, I64, I64])
"""``body(context, begin, end)``."""

RUN = ir.FunctionType(VOID, [POINTER, POINTER, POINTER, I64])
"""``run(pool, body, context, n)``."""


def emit_loop(e: Emitter, loop: For) -> None:
    """Write the body as a function, and have the pool call it."""
    begin, extent = index(e, loop.begin), index(e, loop.extent)
    buffers, variables = list(e.buffers), [v for v in e.variables if v is not loop.var]
    work = _outline(e, loop, buffers, variables)
    values = [*(e.buffers[b] for b in buffers), *(e.variables[v] for v in variables), begin]
    # A pointer to a stack slot is typed by what lies there; here it is just an address.
    kinds = [POINTER] * len(buffers) + [e.variables[v].type for v in variables] + [I64]
    context_kind = ir.LiteralStructType([I32, *kinds])
    body = _entry(e, work, kinds, context_kind)
    context = e.slot(context_kind)
    for k, v in enumerate([I32(0), *values]):
        e.builder.store(v, _member(e.builder, context, context_kind, k))
    build = e.builder
    blocks = [e.function.append_basic_block(n) for n in ("shared", "alone", "joined")]
    build.cbranch(
        build.icmp_unsigned("==", e.pool, ir.Constant(POINTER, None)), blocks[1], blocks[0]
    )
    build.position_at_end(blocks[0])
    run = build.load(e.pool, typ=POINTER)
    run.type = RUN.as_pointer()
    build.call(run, [e.pool, build.bitcast(body, POINTER), context, extent])
    build.branch(blocks[2])
    build.position_at_end(blocks[1])
    build.call(body, [context, int64(0), extent])
    build.branch(blocks[2])
    build.position_at_end(blocks[2])
    state = build.load(_member(build, context, context_kind, 0), typ=I32)
    fine = e.function.append_basic_block("fine")
    build.cbranch(build.icmp_unsigned("==", state, I32(0)), fine, e.failed)
    build.position_at_end(fine)


def _member(build: ir.IRBuilder, pointer: ir.Value, kind: ir.Type, k: int) -> ir.Value:
    return build.gep(pointer, [I32(0), I32(k)], inbounds=True, source_etype=kind)


def _outline(e: Emitter, loop: For, buffers: list, variables: list) -> ir.Function:
    """A function of buffers, variables, the loop's begin, and a range of turns."""
    kinds = [POINTER] * len(buffers) + [e.variables[v].type for v in variables] + [I64] * 3
    name = e.module.get_unique_name(f"{e.function.name}.{loop.var.name}")
    function = ir.Function(e.module, ir.FunctionType(I32, kinds), name)
    function.linkage = "internal"
    inner = e.nested(function)
    for b, argument in zip(buffers, function.args, strict=False):
        argument.add_attribute("noalias")
        argument.add_attribute("nonnull")
        inner.buffers[b] = argument
    rest = function.args[len(buffers) :]
    for v, argument in zip(variables, rest, strict=False):
        known = e.variables[v]
        inner.variables[v] = known if isinstance(known, ir.Constant) else argument
    begin, first, last = rest[len(variables) :]
    known = index(e, loop.begin)
    with inner.loop(first, last) as turn, stmt.within(inner, loop):
        at = binary(inner, "add", begin, turn, index=True)
        zero = isinstance(known, ir.Constant) and known.constant == 0
        inner.variables[loop.var] = turn if zero else at
        stmt.emit(inner, loop.body)
    inner.builder.ret(I32(0))
    return function


def _entry(e: Emitter, work: ir.Function, kinds: list, context_kind: ir.Type) -> ir.Function:
    """What the pool calls: takes the context apart. Inlined, `work` keeps what it knows of its
    parameters."""
    name = e.module.get_unique_name(f"{work.name}.range")
    function = ir.Function(e.module, BODY, name)
    function.linkage = "internal"
    build = ir.IRBuilder(function.append_basic_block("entry"))
    context, first, last = function.args
    values = [
        build.load(_member(build, context, context_kind, k + 1), typ=kind)
        for k, kind in enumerate(kinds)
    ]
    state = build.call(work, [*values, first, last])
    bad = build.icmp_unsigned("!=", state, I32(0))
    with build.if_then(bad):
        build.store(state, _member(build, context, context_kind, 0))
    build.ret_void()
    return function
