"""Elements of buffers: addresses, loads and stores, of scalars and of vectors."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from llvmlite import ir

from covta.compiler.ir.affine import Linear, linear
from covta.compiler.ir.stmt import Buffer
from covta.compiler.llvm.arith import binary
from covta.compiler.llvm.emitter import CodegenError, Emitter, type_name
from covta.compiler.llvm.types import BOOL, ELEMENT, I32, int64, itemsize
from covta.compiler.te.expr import Binary, Const, Expr, Var
from covta.compiler.te.expr import binary as te_binary

__all__ = ["Access", "address", "clamp", "flat", "load", "store"]

LONGEST_STRIDE = 4
"""Elements apart up to which lanes are picked out of contiguous vectors."""


@lru_cache(1 << 14)
def flat(shape: tuple[Expr, ...], indices: tuple[Expr, ...]) -> Linear:
    """The element's place in a row-major buffer, as a linear form."""
    where: Expr = Const(0)
    for extent, i in zip(shape, indices, strict=True):
        where = te_binary("add", te_binary("mul", where, extent), i)
    form = linear(where)
    # c * d * (x // d) + c * (x % d) is c * x: an axis that was fused, and taken apart again.
    for term, c in list(form.terms.items()):
        if isinstance(term, Binary) and term.op == "floormod" and isinstance(term.b, Const):
            whole, d = te_binary("floordiv", term.a, term.b), int(term.b.value)
            if term in form.terms and form.coefficient(whole) == c * d:
                form = form.without(term, whole).plus(linear(term.a), c)
    return form


@dataclass(frozen=True)
class Access:
    """Where the lanes of a vectorised loop find an element.

    Parameters
    ----------
    stride : int or None
        Elements from lane to lane; 0: all the same; None: no such number.
    form : Linear
        The place, of the first lane where there is a stride.
    """

    stride: int | None
    form: Linear


def access(e: Emitter, buffer: Buffer, indices: tuple[Expr, ...]) -> Access:
    """How the element's place varies with the lanes."""
    from covta.compiler.llvm.expr import varies

    form = flat(tuple(buffer.shape), tuple(indices))
    if e.lanes is None:
        return Access(0, form)
    stride: int | None = 0
    for term, c in form.terms.items():
        if term is e.lanes.var:
            stride = c
        elif varies(e, term):
            return Access(None, form)
    return Access(stride, form)


def offset(e: Emitter, form: Linear) -> tuple[ir.Value | None, int]:
    """A place in elements: what is known only when the code runs, and the constant beside it.

    The vectorised loop's variable stands for its first lane, unless the result is a vector.
    """
    from covta.compiler.llvm.expr import index, varies

    known, total = form.const, None
    vector = any(t is not _lane_var(e) and varies(e, t) for t in form.terms)
    for term, c in form.terms.items():
        if isinstance(term, Var) and (term is not _lane_var(e) or not vector):
            part = e.lanes.base if term is _lane_var(e) else e.variables.get(term)  # type: ignore[union-attr]
            if part is None:
                raise CodegenError(f"variable {term} is not bound")
        else:
            part = index(e, term)
        if isinstance(part, ir.Constant) and not isinstance(part.type, ir.VectorType):
            known += c * part.constant
            continue
        if c != 1:
            part = binary(e, "mul", part, int64(c), index=True)
        total = part if total is None else binary(e, "add", total, part, index=True)
    return total, known


def _lane_var(e: Emitter) -> Var | None:
    return None if e.lanes is None else e.lanes.var


def clamp(e: Emitter, at: ir.Value, size: int | ir.Value) -> ir.Value:
    """An index that lanes which are not alive may use as well: 0 where it is not within."""
    limit = e.constant(size, at.type) if isinstance(size, int) else e.together(at, size)[1]
    inside = e.builder.icmp_unsigned("<", at, limit)
    return e.builder.select(inside, at, e.constant(0, at.type))


def _size(e: Emitter, buffer: Buffer) -> ir.Value:
    """Elements of a buffer; a shape may depend on the loops around its allocation."""
    from covta.compiler.llvm.expr import index

    known, total = 1, None
    for extent in buffer.shape:
        if isinstance(extent, Const):
            known *= int(extent.value)
        else:
            n = index(e, extent)
            total = n if total is None else binary(e, "mul", total, n, index=True)
    return int64(known) if total is None else binary(e, "mul", total, int64(known), index=True)


def address(e: Emitter, buffer: Buffer, form: Linear, *, safe: bool = False) -> ir.Value:
    """A pointer, or a vector of pointers; `safe`: within the buffer whatever the index."""
    if buffer not in e.buffers:
        raise CodegenError(f"{buffer.name} is neither a parameter nor allocated here")
    at, known = offset(e, form)
    pointer, element = e.buffers[buffer], ELEMENT[buffer.dtype]
    if safe:
        whole = int64(known) if at is None else binary(e, "add", at, int64(known), index=True)
        at, known = clamp(e, whole, _size(e, buffer)), 0
    if at is not None:
        pointer = e.builder.gep(pointer, [at], inbounds=True, source_etype=element)
        if isinstance(at.type, ir.VectorType):
            pointer.type = ir.VectorType(ir.PointerType(), at.type.count)
    if known:
        pointer = e.builder.gep(pointer, [int64(known)], inbounds=True, source_etype=element)
        if at is not None and isinstance(at.type, ir.VectorType):
            pointer.type = ir.VectorType(ir.PointerType(), at.type.count)
    return pointer


def load(e: Emitter, buffer: Buffer, indices: tuple[Expr, ...]) -> ir.Value:
    """An element, or a vector of those that the lanes want."""
    found = access(e, buffer, indices)
    element, align = ELEMENT[buffer.dtype], itemsize(buffer.dtype)
    lanes = e.lanes
    if lanes is None or found.stride == 0:
        masked = lanes is not None and lanes.mask is not None
        pointer = address(e, buffer, found.form, safe=masked)
        return e.builder.load(pointer, align=align, typ=element)
    kind = ir.VectorType(element, lanes.count)
    if found.stride == 1:
        pointer = address(e, buffer, found.form)
        if lanes.mask is None:
            return e.builder.load(pointer, align=align, typ=kind)
        name = f"llvm.masked.load.{type_name(kind)}.p0"
        arguments = [pointer, I32(align), lanes.mask, ir.Constant(kind, None)]
        return e.intrinsic(name, kind, arguments)
    if found.stride is not None and 1 < found.stride <= LONGEST_STRIDE and lanes.mask is None:
        pointer = address(e, buffer, found.form)
        long = ir.VectorType(element, (lanes.count - 1) * found.stride + 1)
        whole = e.builder.load(pointer, align=align, typ=long)
        return e.shuffle(whole, [k * found.stride for k in range(lanes.count)])
    pointers = _pointers(e, buffer, found)
    alive = lanes.mask or e.true(lanes.count)
    name = f"llvm.masked.gather.{type_name(kind)}.v{lanes.count}p0"
    return e.intrinsic(name, kind, [pointers, I32(align), alive, ir.Constant(kind, None)])


def _pointers(e: Emitter, buffer: Buffer, found: Access) -> ir.Value:
    """Every lane's pointer."""
    assert e.lanes is not None
    pointer = address(e, buffer, found.form)
    if found.stride is None:
        return pointer
    steps = [k * found.stride for k in range(e.lanes.count)]
    at = ir.Constant(ir.VectorType(ir.IntType(64), e.lanes.count), steps)
    result = e.builder.gep(pointer, [at], inbounds=True, source_etype=ELEMENT[buffer.dtype])
    result.type = ir.VectorType(ir.PointerType(), e.lanes.count)
    return result


def store(e: Emitter, buffer: Buffer, indices: tuple[Expr, ...], value: ir.Value) -> None:
    """Set an element, or those of the lanes that are alive."""
    found = access(e, buffer, indices)
    align, lanes = itemsize(buffer.dtype), e.lanes
    if lanes is None:
        e.builder.store(value, address(e, buffer, found.form), align=align)
        return
    assert found.stride != 0
    value = e.widen(value, lanes.count)
    if found.stride == 1:
        pointer = address(e, buffer, found.form)
        if lanes.mask is None:
            e.builder.store(value, pointer, align=align)
        else:
            name = f"llvm.masked.store.{type_name(value.type)}.p0"
            e.intrinsic(name, ir.VoidType(), [value, pointer, I32(align), lanes.mask])
        return
    pointers = _pointers(e, buffer, found)
    alive = lanes.mask or ir.Constant(ir.VectorType(BOOL, lanes.count), [1] * lanes.count)
    name = f"llvm.masked.scatter.{type_name(value.type)}.v{lanes.count}p0"
    e.intrinsic(name, ir.VoidType(), [value, pointers, I32(align), alive])
