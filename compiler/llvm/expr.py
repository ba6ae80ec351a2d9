"""Expressions as LLVM values: index arithmetic in int64, values in their own types.

What varies with the lanes of a vectorised loop becomes a vector; everything else stays a scalar,
however deep inside it stands.
"""

from __future__ import annotations

from llvmlite import ir

from covta.compiler.ir.fold import is_index
from covta.compiler.llvm import memory
from covta.compiler.llvm.arith import binary, both, cast, lookalike, not_
from covta.compiler.llvm.emitter import CodegenError, Emitter, Lanes
from covta.compiler.llvm.types import BOOL, ELEMENT, I32, I64, int64
from covta.compiler.te.expr import Binary, Cast, Const, Expr, Lookup, Read, Select, Var, walk

__all__ = ["condition", "index", "value", "varies"]


def varies(e: Emitter, expr: Expr) -> bool:
    """True if lanes of the vectorised loop have different values of `expr`."""
    return e.lanes is not None and any(x is e.lanes.var for x in walk(expr))


def index(e: Emitter, expr: Expr) -> ir.Value:
    """An index, in int64."""
    match expr:
        case Const(number, _):
            return int64(int(number))
        case Var():
            return _variable(e, expr)
        case Binary(op, a, b):
            return binary(e, op, index(e, a), index(e, b), index=True)
        case Select(c, a, b):
            return _select(e, c, a, b, index)
        case Lookup(table, at):
            return _widen_integer(e, _lookup(e, table, index(e, at)))
    return _widen_integer(e, value(e, expr))


def condition(e: Emitter, expr: Expr) -> ir.Value:
    """A condition of an `If`: indices in it do not overflow, values and parameters wrap."""
    if not is_index(expr, e.scalars):
        return value(e, expr)
    match expr:
        case Const(number, _):
            return ir.Constant(BOOL, int(bool(number)))
        case Binary(("and" | "or") as op, a, b):
            return binary(e, op, condition(e, a), condition(e, b))
        case Binary(op, a, b) if a.dtype == "int32":
            return binary(e, op, index(e, a), index(e, b), index=True)
        case Select(c, a, b):
            return _select(e, c, a, b, condition)
    return value(e, expr)


def value(e: Emitter, expr: Expr) -> ir.Value:
    """A value, in its type."""
    match expr:
        case Const(number, dtype):
            return ir.Constant(ELEMENT[dtype], int(number) if dtype != "float32" else number)
        case Var():
            wide = _variable(e, expr)
            return _narrow(e, wide) if expr.dtype == "int32" else wide
        case Read(buffer, indices):
            return memory.load(e, buffer, indices)  # type: ignore[arg-type]
        case Cast(a, dtype):
            return cast(e, value(e, a), a.dtype, dtype)
        case Select(c, a, b):
            return _select(e, c, a, b, value)
        case Lookup(table, at):
            return _lookup(e, table, index(e, at))
        case Binary(op, a, b):
            return binary(e, op, value(e, a), value(e, b))
    raise CodegenError(f"{type(expr).__name__} cannot stand in host code: {expr}")


def _variable(e: Emitter, var: Var) -> ir.Value:
    lanes = e.lanes
    if lanes is not None and var is lanes.var:
        first = e.splat(lanes.base, lanes.count)
        return e.builder.add(first, e.iota(lanes.count), flags=("nsw",))
    if var not in e.variables:
        raise CodegenError(f"variable {var} is not bound")
    return e.variables[var]


def _narrow(e: Emitter, wide: ir.Value) -> ir.Value:
    if isinstance(wide, ir.Constant) and not isinstance(wide.type, ir.VectorType):
        return ir.Constant(I32, wide.constant)
    return e.builder.trunc(wide, lookalike(wide.type, I32))


def _widen_integer(e: Emitter, narrow: ir.Value) -> ir.Value:
    return e.builder.sext(narrow, lookalike(narrow.type, I64))


def _select(e: Emitter, c: Expr, a: Expr, b: Expr, make) -> ir.Value:
    """One of two; a side that reads runs only where it is taken."""
    test = (condition if make is not value else value)(e, c)
    reads = any(isinstance(x, Read | Lookup) for side in (a, b) for x in walk(side))
    lanes = e.lanes
    if isinstance(test.type, ir.VectorType):
        assert lanes is not None
        with e.in_lanes(_masked(e, lanes, test) if reads else lanes):
            yes = make(e, a)
        with e.in_lanes(_masked(e, lanes, not_(e, test)) if reads else lanes):
            no = make(e, b)
        yes, no, test = e.together(yes, no, test)
        return e.builder.select(test, yes, no)
    if not reads:
        yes, no = e.together(make(e, a), make(e, b))
        return e.builder.select(test, yes, no)
    vector = lanes is not None and (varies(e, a) or varies(e, b))

    def side(expr: Expr) -> ir.Value:
        result = make(e, expr)
        return e.widen(result, lanes.count) if vector and lanes is not None else result

    return e.choose(test, lambda: side(a), lambda: side(b))


def _masked(e: Emitter, lanes: Lanes, test: ir.Value) -> Lanes:
    return Lanes(lanes.var, lanes.base, lanes.count, both(e, lanes.mask, test))


def _lookup(e: Emitter, table: tuple[int, ...], at: ir.Value) -> ir.Value:
    """An entry of a table of constants."""
    kind = ir.ArrayType(I32, len(table))
    name = f"table.{'.'.join(str(n).replace('-', 'm') for n in table)}"[:60] + f".{len(table)}"
    known = e.module.globals.get(name)
    if known is not None and known.initializer.constant != [I32(n) for n in table]:
        name, known = e.module.get_unique_name(name), None
    if known is None:
        known = ir.GlobalVariable(e.module, kind, name)
        known.linkage, known.global_constant = "internal", True
        known.initializer = ir.Constant(kind, [I32(n) for n in table])

    def one(k: ir.Value) -> ir.Value:
        where = e.builder.gep(known, [k], inbounds=True, source_etype=I32)
        return e.builder.load(where, typ=I32)

    mask = None if e.lanes is None else e.lanes.mask
    if not isinstance(at.type, ir.VectorType):
        return one(at if mask is None else memory.clamp(e, at, len(table)))
    if mask is not None:
        at = memory.clamp(e, at, len(table))
    result: ir.Value = ir.Constant(ir.VectorType(I32, at.type.count), ir.Undefined)
    for k in range(at.type.count):
        entry = one(e.builder.extract_element(at, I32(k)))
        result = e.builder.insert_element(result, entry, I32(k))
    return result
