"""Loops marked ``vectorize``: turns become lanes.

The body is written once, for all lanes of a piece of the loop; loops inside it run as they are,
over vectors. A loop whose turns depend on one another, or whose inner bounds differ from lane to
lane, is done turn by turn instead: marking a loop never changes what is computed.
"""

from __future__ import annotations

from llvmlite import ir

from covta.compiler.ir.stmt import For, If, Seq, Stmt, Store, walk_stmts
from covta.compiler.llvm import dot, memory, stmt
from covta.compiler.llvm.arith import binary, both
from covta.compiler.llvm.emitter import Emitter, Lanes
from covta.compiler.llvm.expr import condition, index, value
from covta.compiler.llvm.independent import independent, reduction_of, same_for_all
from covta.compiler.llvm.types import I32, int64, itemsize
from covta.compiler.te.expr import Binary, Cast, Const, Expr, Read, Reduce, walk

__all__ = ["emit_loop"]

ACCUMULATORS = 4
"""Vectors that a long reduction adds to in turn, so that additions need not wait."""

MAX_VECTORS = 4
"""Registers' widths up to which a loop of constant extent is one piece."""


def emit_loop(e: Emitter, loop: For) -> None:
    """Write a vectorised loop, or a plain one where turns cannot be lanes."""
    if e.lanes is not None or not independent(loop):
        _turn_by_turn(e, loop)
        return
    width = _width(e, loop.body)
    begin, extent = index(e, loop.begin), index(e, loop.extent)
    known = extent.constant if isinstance(extent, ir.Constant) else None
    if known is not None and known <= MAX_VECTORS * width:
        _pieces(e, loop, begin, known)
        return
    reduction = _sole_reduction(loop)
    if reduction is not None and (known is None or known >= width):
        _long_reduction(e, loop, reduction, begin, extent, width)
        return
    if known is not None:
        rest = known % width
        whole = stmt.binary_constant(e, begin, known - rest)
        with e.loop(begin, whole, width) as base:
            _piece(e, loop, base, width)
        _pieces(e, loop, whole, rest)
        return
    rest = e.builder.and_(extent, int64(width - 1))
    whole = binary(e, "add", begin, e.builder.sub(extent, rest), index=True)
    with e.loop(begin, whole, width) as base:
        _piece(e, loop, base, width)
    end = binary(e, "add", begin, extent, index=True)
    _tail(e, loop, begin, whole, end)


def _tail(e: Emitter, loop: For, begin: ir.Value, whole: ir.Value, end: ir.Value) -> None:
    """The turns that do not fill a vector, one by one."""
    start = e.builder.select(e.builder.icmp_signed("<", whole, begin), begin, whole)
    with e.loop(start, end) as i, stmt.within(e, loop):
        e.variables[loop.var] = i
        stmt.emit(e, loop.body)
    e.variables.pop(loop.var, None)


def _turn_by_turn(e: Emitter, loop: For) -> None:
    if e.lanes is None:
        stmt.serial(e, loop)
    else:
        _inner_loop(e, loop)


def _width(e: Emitter, body: Stmt) -> int:
    """Lanes that fill a register with the widest elements in the body."""
    widest = 1
    for s in walk_stmts(body):
        if isinstance(s, Store):
            for x in walk(s.value):
                # Constants and indices do not count.
                if isinstance(x, Read | Cast | Binary) and x.dtype != "bool":
                    widest = max(widest, itemsize(x.dtype))
            widest = max(widest, itemsize(s.buffer.dtype))
    return max(2, e.target.vector_bits // 8 // widest)


def _pieces(e: Emitter, loop: For, begin: ir.Value, turns: int) -> None:
    """A known number of turns, in powers of two: other vectors do not stay in registers."""
    done = 0
    while done < turns:
        count = 1 << ((turns - done).bit_length() - 1)
        _piece(e, loop, stmt.binary_constant(e, begin, done), count)
        done += count


def _piece(e: Emitter, loop: For, base: ir.Value, count: int) -> None:
    """Some turns, all at once."""
    if count == 1:
        e.variables[loop.var] = base
        with stmt.within(e, loop):
            stmt.emit(e, loop.body)
        del e.variables[loop.var]
        return
    with e.in_lanes(Lanes(loop.var, base, count)), stmt.within(e, loop):
        _emit(e, loop.body)


# ---- statements over lanes -------------------------------------------------------------------
def _emit(e: Emitter, s: Stmt) -> None:
    """Write a statement for all lanes."""
    assert e.lanes is not None
    match s:
        case Seq(body):
            for x in body:
                _emit(e, x)
        case If(test, body):
            _if(e, test, body)
        case For():
            if not dot.emit_loop(e, s):
                _inner_loop(e, s)
        case Store(buffer, indices, what):
            if memory.access(e, buffer, indices).stride == 0:
                _reduce_store(e, s)
            else:
                memory.store(e, buffer, indices, value(e, what))
        case _:
            raise AssertionError(type(s))


def _if(e: Emitter, test: Expr, body: Stmt) -> None:
    alive = condition(e, test)
    lanes = e.lanes
    assert lanes is not None
    if isinstance(alive.type, ir.VectorType):
        with e.in_lanes(Lanes(lanes.var, lanes.base, lanes.count, both(e, lanes.mask, alive))):
            _emit(e, body)
        return
    with e.branch(alive):
        _emit(e, body)


def _inner_loop(e: Emitter, loop: For) -> None:
    """A loop within lanes: its bounds are the same for all of them."""
    begin, extent = index(e, loop.begin), index(e, loop.extent)
    if isinstance(extent, ir.Constant) and (loop.kind == "unroll" or extent.constant == 1):
        for k in range(extent.constant):
            e.variables[loop.var] = stmt.binary_constant(e, begin, k)
            with stmt.within(e, loop):
                _emit(e, loop.body)
        e.variables.pop(loop.var, None)
        return
    end = (
        stmt.binary_constant(e, begin, extent.constant)
        if isinstance(extent, ir.Constant)
        else binary(e, "add", begin, extent, index=True)
    )
    with e.loop(begin, end) as i, stmt.within(e, loop):
        e.variables[loop.var] = i
        _emit(e, loop.body)
    del e.variables[loop.var]


# ---- reductions across lanes ------------------------------------------------------------------
def _identity(op: str, dtype: str) -> float | int:
    if op == "add":
        return -0.0 if dtype == "float32" else 0
    return (
        int(Reduce(op, Const(0, dtype), ()).identity.value)
        if dtype != "float32"
        else (float(Reduce(op, Const(0.0, dtype), ()).identity.value))
    )


def _alive(e: Emitter, op: str, dtype: str, what: ir.Value) -> ir.Value:
    """Every lane's part; of those that are not alive, what changes nothing."""
    assert e.lanes is not None
    what = e.widen(what, e.lanes.count)
    if e.lanes.mask is None:
        return what
    nothing = e.constant(_identity(op, dtype), what.type)
    return e.builder.select(e.lanes.mask, what, nothing)


def across(e: Emitter, op: str, vector: ir.Value) -> ir.Value:
    """All lanes combined, halves first."""
    while isinstance(vector.type, ir.VectorType) and vector.type.count > 1:
        n = vector.type.count
        half = n // 2
        low, high = (
            e.shuffle(vector, list(range(half))),
            e.shuffle(vector, list(range(half, 2 * half))),
        )
        folded = binary(e, op, low, high)
        if n % 2:
            last = e.builder.extract_element(vector, I32(n - 1))
            first = binary(e, op, e.builder.extract_element(folded, I32(0)), last)
            folded = e.builder.insert_element(folded, first, I32(0))
        vector = folded
    return e.builder.extract_element(vector, I32(0))


def _reduce_store(e: Emitter, s: Store) -> None:
    found = reduction_of(s)
    assert found is not None
    op, what = found
    part = across(e, op, _alive(e, op, s.buffer.dtype, value(e, what)))
    with e.in_lanes(None):
        form = memory.flat(tuple(s.buffer.shape), tuple(s.indices))
        where = memory.address(e, s.buffer, form)
        before = e.builder.load(where, align=itemsize(s.buffer.dtype), typ=part.type)
        e.builder.store(binary(e, op, before, part), where, align=itemsize(s.buffer.dtype))


def _sole_reduction(loop: For) -> Store | None:
    if isinstance(loop.body, Store) and reduction_of(loop.body) is not None:
        s = loop.body
        if same_for_all(s.buffer, s.indices, loop.var):
            return s
    return None


def _long_reduction(
    e: Emitter, loop: For, s: Store, begin: ir.Value, extent: ir.Value, width: int
) -> None:
    """One store's reduction over many turns: vectors add up, and meet at the end."""
    found = reduction_of(s)
    assert found is not None
    op, what = found
    dtype = s.buffer.dtype
    kind = ir.VectorType(memory.ELEMENT[dtype], width)
    slots = [e.slot(kind) for _ in range(ACCUMULATORS)]
    for slot in slots:
        e.builder.store(e.constant(_identity(op, dtype), kind), slot)

    def step(base: ir.Value, slot: ir.Value) -> None:
        with e.in_lanes(Lanes(loop.var, base, width)), stmt.within(e, loop):
            part = e.widen(value(e, what), width)
        e.builder.store(binary(e, op, e.builder.load(slot, typ=kind), part), slot)

    extent = binary(e, "max", extent, int64(0), index=True)
    many = width * ACCUMULATORS
    end = binary(e, "add", begin, extent, index=True)
    rest = e.builder.and_(extent, int64(many - 1))
    most = binary(e, "add", begin, e.builder.sub(extent, rest), index=True)
    with e.loop(begin, most, many) as base:
        for k, slot in enumerate(slots):
            step(stmt.binary_constant(e, base, k * width), slot)
    left = e.builder.and_(extent, int64(width - 1))
    whole = binary(e, "add", begin, e.builder.sub(extent, left), index=True)
    with e.loop(most, whole, width) as base:
        step(base, slots[0])
    vectors = [e.builder.load(slot, typ=kind) for slot in slots]
    while len(vectors) > 1:
        vectors = [binary(e, op, a, b) for a, b in zip(vectors[::2], vectors[1::2], strict=True)]
    form = memory.flat(tuple(s.buffer.shape), tuple(s.indices))
    where = memory.address(e, s.buffer, form)
    before = e.builder.load(where, align=itemsize(dtype), typ=kind.element)
    total = binary(e, op, before, across(e, op, vectors[0]))
    e.builder.store(total, where, align=itemsize(dtype))
    with e.loop(whole, end) as i, stmt.within(e, loop):
        e.variables[loop.var] = i
        stmt.emit(e, loop.body)
    e.variables.pop(loop.var, None)
