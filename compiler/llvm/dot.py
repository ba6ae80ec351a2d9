"""Sums of four products of bytes, which processors have an instruction for.

Within a vectorised loop, ::

    for q in range(4):
        acc[n] = acc[n] + int32(a[q]) * int32(w[n, q])

adds to every lane the products of four adjacent bytes. One factor may be unsigned: written
``int32(a) % 256`` for bytes that hold 0...255, or ``int32(a) + 128`` for signed ones moved there.
"""

from __future__ import annotations

from dataclasses import dataclass

from llvmlite import ir

from covta.compiler.ir.stmt import For, Store
from covta.compiler.llvm import memory
from covta.compiler.llvm.emitter import Emitter
from covta.compiler.llvm.expr import index
from covta.compiler.llvm.independent import mentions, reduction_of
from covta.compiler.llvm.types import BYTE, I32
from covta.compiler.te.expr import Binary, Cast, Const, Expr, Read, Var

__all__ = ["emit_loop"]

GROUP = 4
"""Products that meet in one lane."""

PIECE_LANES = {"vnni512": 16, "vnni256": 8, "sdot": 4}
"""Lanes of the instruction."""


@dataclass(frozen=True)
class Factor:
    """One side of the products.

    Parameters
    ----------
    read : Read
        Of int8.
    signed : bool
        Else its bits are a number in 0...255.
    flip : bool
        Unsigned after 128 has been added.
    """

    read: Read
    signed: bool
    flip: bool = False


def _factor(expr: Expr) -> Factor | None:
    match expr:
        case Cast(Read() as read, "int32") if read.dtype == "int8":
            return Factor(read, signed=True)
        case Binary("floormod", Cast(Read() as read, _), Const(256)) if read.dtype == "int8":
            return Factor(read, signed=False)
        case Binary("add", Cast(Read() as read, _), Const(128)) if read.dtype == "int8":
            return Factor(read, signed=False, flip=True)
    return None


def emit_loop(e: Emitter, loop: For) -> bool:
    """Write `loop` as such sums, if that is what it is; False, and nothing, if not."""
    lanes = e.lanes
    assert lanes is not None
    if lanes.mask is not None or loop.extent != Const(GROUP) or not isinstance(loop.body, Store):
        return False
    s = loop.body
    found = reduction_of(s)
    if found is None or found[0] != "add" or s.buffer.dtype != "int32":
        return False
    if not (isinstance(found[1], Binary) and found[1].op == "mul"):
        return False
    a, b = _factor(found[1].a), _factor(found[1].b)
    if a is None or b is None or not (a.signed or b.signed):
        return False
    if any(mentions(i, loop.var) for i in s.indices):
        return False
    if memory.access(e, s.buffer, s.indices).stride != 1:
        return False
    strides = [_lane_stride(e, f, loop.var) for f in (a, b)]
    if None in strides:
        return False
    if b.signed and (not a.signed or strides[0] == 0):
        pass
    else:
        a, b = b, a
    # Now b is signed; a is unsigned, or the one that needs fewer registers if both are signed.
    pieces = PIECE_LANES.get(e.target.dot, 0)
    fast = pieces > 0 and lanes.count % pieces == 0 and (a.signed or e.target.dot != "sdot")
    both = fast and a.signed and e.target.dot != "sdot"
    if both:
        # x86 takes one side unsigned: (a + 128) b - 128 b.
        a = Factor(a.read, signed=False, flip=True)
    e.variables[loop.var] = index(e, loop.begin)
    left, right = _bytes(e, a), _bytes(e, b)
    del e.variables[loop.var]
    total = memory.load(e, s.buffer, s.indices)
    if fast:
        total = _by_instruction(e, total, left, right)
        if both:
            moved = e.constant(-128, right.type)
            zero = e.constant(0, total.type)
            total = e.builder.sub(total, _by_instruction(e, zero, moved, right))
    else:
        total = e.builder.add(total, _by_pairs(e, left, right, a))
    memory.store(e, s.buffer, s.indices, total)
    return True


def _lane_stride(e: Emitter, f: Factor, q: Var) -> int | None:
    """Bytes from lane to lane, None if the four are not adjacent."""
    found = memory.access(e, f.read.tensor, f.read.indices)  # type: ignore[arg-type]
    others = [t for t in found.form.terms if t is not q]
    if found.form.coefficient(q) != 1 or any(mentions(t, q) for t in others):
        return None
    return found.stride


def _bytes(e: Emitter, f: Factor) -> ir.Value:
    """Four bytes a lane, lane after lane."""
    lanes = e.lanes
    assert lanes is not None
    found = memory.access(e, f.read.tensor, f.read.indices)  # type: ignore[arg-type]
    pointer = memory.address(e, f.read.tensor, found.form)  # type: ignore[arg-type]
    kind = ir.VectorType(BYTE, GROUP * lanes.count)
    if found.stride == GROUP:
        result = e.builder.load(pointer, align=1, typ=kind)
    elif found.stride == 0:
        word = e.builder.load(pointer, align=1, typ=I32)
        if f.flip:
            # Once it is spread over lanes, LLVM 22 never gets done with this `xor` on x86.
            word = e.builder.xor(word, I32(-0x7F7F7F80))
        return e.builder.bitcast(e.splat(word, lanes.count), kind)
    else:
        assert found.stride is not None
        words: ir.Value = ir.Constant(ir.VectorType(I32, lanes.count), ir.Undefined)
        for k in range(lanes.count):
            step = [ir.Constant(ir.IntType(64), k * found.stride)]
            where = e.builder.gep(pointer, step, inbounds=True, source_etype=BYTE)
            words = e.builder.insert_element(words, e.builder.load(where, align=1, typ=I32), I32(k))
        result = e.builder.bitcast(words, kind)
    return e.builder.xor(result, e.constant(-128, kind)) if f.flip else result


def _by_instruction(e: Emitter, acc: ir.Value, a: ir.Value, b: ir.Value) -> ir.Value:
    """`acc` and four products a lane, a register at a time."""
    piece, parts = PIECE_LANES[e.target.dot], []
    for k in range(acc.type.count // piece):
        x, y, z = (
            _part(e, v, k * piece * n, piece * n) for v, n in ((acc, 1), (a, GROUP), (b, GROUP))
        )
        parts.append(e.intrinsic(_name(e), x.type, [x, y, z]))
    return _join(e, parts)


def _part(e: Emitter, vector: ir.Value, begin: int, count: int) -> ir.Value:
    if vector.type.count == count:
        return vector
    return e.shuffle(vector, list(range(begin, begin + count)))


def _join(e: Emitter, parts: list[ir.Value]) -> ir.Value:
    """Equal parts, one behind the other."""
    result = parts[0]
    for part in parts[1:]:
        have, more = result.type.count, part.type.count
        wide = e.shuffle(part, [min(k, more - 1) for k in range(have)])
        order = ir.Constant(ir.VectorType(I32, have + more), list(range(have + more)))
        result = e.builder.shuffle_vector(result, wide, order)
    return result


def _name(e: Emitter) -> str:
    if e.target.dot == "sdot":
        return "llvm.aarch64.neon.sdot.v4i32.v16i8"
    return f"llvm.x86.avx512.vpdpbusd.{e.target.dot.removeprefix('vnni')}"


def _by_pairs(e: Emitter, a: ir.Value, b: ir.Value, left: Factor) -> ir.Value:
    """Products added to their neighbours, twice; almost any processor has instructions for that.

    x86 multiplies 16-bit numbers and adds pairs at once; Arm multiplies bytes into 16 bits, where
    every product fits, and then adds pairs into 32.
    """
    build = e.builder
    word = I32 if e.target.triple.startswith("x86") else ir.IntType(16)
    wide, full = (ir.VectorType(t, a.type.count) for t in (word, I32))
    x = build.sext(a, wide) if left.signed else build.zext(a, wide)
    total = build.mul(x, build.sext(b, wide))
    if word is not I32:
        total = build.sext(total, full)
    while total.type.count > a.type.count // GROUP:
        n = total.type.count
        even, odd = e.shuffle(total, list(range(0, n, 2))), e.shuffle(total, list(range(1, n, 2)))
        total = build.add(even, odd)
    return total
