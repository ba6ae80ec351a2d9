"""Statements as LLVM code."""

from __future__ import annotations

from contextlib import contextmanager

from llvmlite import ir

from covta.compiler.ir.affine import interval, variables
from covta.compiler.ir.stmt import Allocate, Buffer, Call, Copy, For, If, Seq, Stmt, Store
from covta.compiler.llvm import memory, parallel, vectorize
from covta.compiler.llvm.arith import binary
from covta.compiler.llvm.emitter import CodegenError, Emitter
from covta.compiler.llvm.expr import condition, index, value
from covta.compiler.llvm.types import BYTE, ELEMENT, I64, POINTER, int64, itemsize
from covta.compiler.te.expr import Const, Expr

__all__ = ["emit"]

ALIGN_BYTES = 64
"""Of buffers that a function makes for itself."""

MAX_STACK_BYTES = 64 << 10
"""Larger local buffers lie on the heap."""

MAX_UNROLL = 1024
"""Turns of a loop that are written out at most; a longer one stays a loop."""


def emit(e: Emitter, stmt: Stmt) -> None:
    """Write code for a statement."""
    match stmt:
        case Seq(body):
            for s in body:
                emit(e, s)
        case Store(buffer, indices, what):
            memory.store(e, buffer, indices, value(e, what))
        case If(test, body):
            with e.branch(condition(e, test)):
                emit(e, body)
        case For():
            _loop(e, stmt)
        case Allocate(buffer, body):
            _allocate(e, buffer, body)
        case Call(intrin):
            raise CodegenError(f"{intrin.name} is an intrinsic of the machine, not of host code")
        case Copy():
            raise CodegenError(f"a DMA transfer cannot stand in host code: {stmt}")
        case _:
            raise AssertionError(type(stmt))


def _loop(e: Emitter, loop: For) -> None:
    match loop.kind:
        case "vthread":
            raise CodegenError(f"virtual threads cannot stand in host code: {loop.var}")
        case "vectorize":
            vectorize.emit_loop(e, loop)
        case "parallel" if e.pool is not None:
            parallel.emit_loop(e, loop)
        case "unroll" if isinstance(loop.extent, Const) and loop.extent.value <= MAX_UNROLL:
            begin = index(e, loop.begin)
            for k in range(int(loop.extent.value)):
                e.variables[loop.var] = binary_constant(e, begin, k)
                with within(e, loop):
                    emit(e, loop.body)
            e.variables.pop(loop.var, None)
        case _:
            serial(e, loop)


def binary_constant(e: Emitter, begin: ir.Value, k: int) -> ir.Value:
    """``begin + k``, folded where that is possible."""
    if isinstance(begin, ir.Constant):
        return int64(begin.constant + k)
    return begin if k == 0 else binary(e, "add", begin, int64(k), index=True)


@contextmanager
def within(e: Emitter, loop: For):
    """Know what values the loop's variable takes."""
    e.domain[loop.var] = (loop.begin, loop.begin + loop.extent - 1)
    yield
    del e.domain[loop.var]


def serial(e: Emitter, loop: For) -> None:
    """One turn after the other."""
    begin, extent = index(e, loop.begin), index(e, loop.extent)
    if isinstance(extent, ir.Constant) and extent.constant == 1:
        e.variables[loop.var] = begin
        with within(e, loop):
            emit(e, loop.body)
        del e.variables[loop.var]
        return
    end = extent
    if not (isinstance(begin, ir.Constant) and begin.constant == 0):
        end = (
            int64(begin.constant + extent.constant)
            if isinstance(begin, ir.Constant) and isinstance(extent, ir.Constant)
            else binary(e, "add", begin, extent, index=True)
        )
    with e.loop(begin, end) as i, within(e, loop):
        e.variables[loop.var] = i
        emit(e, loop.body)
    del e.variables[loop.var]


# ---- buffers --------------------------------------------------------------------------------
def _bound(e: Emitter, extent: Expr) -> int | None:
    """The greatest value of an extent, where that is known when code is made."""
    if isinstance(extent, Const):
        return int(extent.value)
    high = extent
    for _ in range(8):
        if isinstance(high, Const):
            return int(high.value)
        if not variables(high):
            return None
        high = interval(high, e.domain)[1]
    return None


def _allocate(e: Emitter, buffer: Buffer, body: Stmt) -> None:
    if buffer.scope not in ("global", "local"):
        raise CodegenError(f"host code has no scratchpad for {buffer}")
    sizes = [_bound(e, extent) for extent in buffer.shape]
    count = 1
    for n in sizes:
        count = -1 if n is None or count < 0 else count * max(n, 0)
    size_bytes = count * itemsize(buffer.dtype)
    if count >= 0 and buffer.scope == "local" and size_bytes <= MAX_STACK_BYTES:
        kind = ir.ArrayType(ELEMENT[buffer.dtype], max(count, 1))
        e.buffers[buffer] = e.slot(kind, ALIGN_BYTES)
        emit(e, body)
        del e.buffers[buffer]
        return
    total: ir.Value = int64(itemsize(buffer.dtype))
    for extent in buffer.shape:
        # Of a part that is empty an extent may be negative.
        turns = binary(e, "max", index(e, extent), int64(0), index=True)
        total = binary(e, "mul", total, turns, index=True)
    block = _heap(e, total)
    raw = e.builder.ptrtoint(block, I64)
    up = e.builder.add(raw, int64(ALIGN_BYTES - 1))
    skip = e.builder.sub(e.builder.and_(up, int64(-ALIGN_BYTES)), raw)
    e.buffers[buffer] = e.builder.gep(block, [skip], inbounds=True, source_etype=BYTE)
    emit(e, body)
    del e.buffers[buffer]
    e.intrinsic("free", ir.VoidType(), [block])


def _heap(e: Emitter, size_bytes: ir.Value) -> ir.Value:
    """A block from the C library; where there is none the function stops and says so."""
    size = e.builder.add(size_bytes, int64(ALIGN_BYTES))
    if e.word_bits == 32:
        size = e.builder.trunc(size, ir.IntType(32))
    block = e.intrinsic("malloc", POINTER, [size])
    missing = e.builder.icmp_unsigned("==", block, ir.Constant(POINTER, None))
    fine = e.function.append_basic_block("fine")
    e.builder.cbranch(missing, e.failed, fine)
    e.builder.position_at_end(fine)
    return block
