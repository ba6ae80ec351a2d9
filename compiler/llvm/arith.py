"""Binary operators and casts on LLVM values, scalars and vectors alike, as NumPy does them."""

from __future__ import annotations

from llvmlite import ir

from covta.compiler.llvm.emitter import Emitter, type_name
from covta.compiler.llvm.types import I32

__all__ = ["binary", "cast", "lookalike"]

COMPARISONS = {"lt": "<", "le": "<=", "eq": "==", "ne": "!="}


def _is_float(value: ir.Value) -> bool:
    kind = value.type
    return isinstance(kind.element if isinstance(kind, ir.VectorType) else kind, ir.FloatType)


def lookalike(kind: ir.Type, element: ir.Type) -> ir.Type:
    """A type of as many lanes as `kind`, of other elements."""
    return ir.VectorType(element, kind.count) if isinstance(kind, ir.VectorType) else element


def _constant(value: ir.Value) -> int | float | None:
    """The number, if it is the same known one in every lane."""
    if not isinstance(value, ir.Constant) or value.constant is ir.Undefined:
        return None
    if isinstance(value.type, ir.VectorType):
        first = value.constant[0]
        return first if all(c == first for c in value.constant) else None
    return value.constant


def binary(e: Emitter, op: str, a: ir.Value, b: ir.Value, *, index: bool = False) -> ir.Value:
    """``a op b``; one of them may be a scalar beside a vector.

    Parameters
    ----------
    e : Emitter
    op : str
        As in `te.Binary`.
    a, b : ir.Value
    index : bool
        Of index arithmetic in int64, which does not overflow.
    """
    a, b = e.together(a, b)
    build = e.builder
    if _is_float(a):
        return _float_binary(e, op, a, b)
    if op in COMPARISONS:
        return build.icmp_signed(COMPARISONS[op], a, b)
    flags = ("nsw",) if index else ()
    match op:
        case "add":
            return build.add(a, b, flags=flags)
        case "sub":
            return build.sub(a, b, flags=flags)
        case "mul":
            return build.mul(a, b, flags=flags)
        case "and":
            return build.and_(a, b)
        case "or":
            return build.or_(a, b)
        case "min" | "max":
            return e.intrinsic(f"llvm.s{op}.{type_name(a.type)}", a.type, [a, b])
        case "floordiv" | "floormod":
            return _divide(e, op, a, b)
        case "shr":
            return _shift(e, a, b)
    raise AssertionError(op)


def _divide(e: Emitter, op: str, a: ir.Value, b: ir.Value) -> ir.Value:
    """Division towards minus infinity; by zero it gives 0, as in NumPy."""
    build = e.builder
    zero = e.constant(0, a.type)
    known = _constant(b)
    if isinstance(known, int) and known > 0:
        if known & (known - 1) == 0:
            if op == "floormod":
                return build.and_(a, e.constant(known - 1, a.type))
            return build.ashr(a, e.constant(known.bit_length() - 1, a.type))
        divisor = b
    else:
        # Division by 0 traps, and so does the least number by -1.
        unsafe = build.or_(
            build.icmp_signed("==", b, zero), build.icmp_signed("==", b, e.constant(-1, a.type))
        )
        divisor = build.select(unsafe, e.constant(1, a.type), b)
    quotient, rest = build.sdiv(a, divisor), build.srem(a, divisor)
    differ = build.icmp_signed("<", build.xor(a, divisor), zero)
    fix = build.and_(differ, build.icmp_signed("!=", rest, zero))
    if op == "floormod":
        result = build.select(fix, build.add(rest, divisor), rest)
        return result if divisor is b else build.select(unsafe, zero, result)
    result = build.sub(quotient, build.zext(fix, a.type))
    if divisor is b:
        return result
    result = build.select(build.icmp_signed("==", b, zero), zero, result)
    minus = build.icmp_signed("==", b, e.constant(-1, a.type))
    return build.select(minus, build.sub(zero, a), result)


def _shift(e: Emitter, a: ir.Value, b: ir.Value) -> ir.Value:
    """Arithmetic shift right, left where `b` is negative; far shifts leave the sign or 0."""
    build = e.builder
    width = (a.type.element if isinstance(a.type, ir.VectorType) else a.type).width
    known = _constant(b)
    if isinstance(known, int):
        if known >= 0:
            return build.ashr(a, e.constant(min(known, width - 1), a.type))
        if known > -width:
            return build.shl(a, e.constant(-known, a.type))
        return e.constant(0, a.type)
    zero, last = e.constant(0, a.type), e.constant(width - 1, a.type)
    right = build.select(build.icmp_unsigned(">", b, last), last, b)
    minus = build.sub(zero, b)
    far = build.icmp_unsigned(">", minus, last)
    left = build.select(far, zero, minus)
    up = build.select(far, zero, build.shl(a, left))
    return build.select(build.icmp_signed("<", b, zero), up, build.ashr(a, right))


def _float_binary(e: Emitter, op: str, a: ir.Value, b: ir.Value) -> ir.Value:
    build = e.builder
    flags = ("contract",) if e.options.contract else ()
    if op in COMPARISONS:
        ordered = build.fcmp_unordered if op == "ne" else build.fcmp_ordered
        return ordered(COMPARISONS[op], a, b)
    match op:
        case "add":
            return build.fadd(a, b, flags=flags)
        case "sub":
            return build.fsub(a, b, flags=flags)
        case "mul":
            return build.fmul(a, b, flags=flags)
        case "div":
            return build.fdiv(a, b)
        case "min" | "max":
            return _float_extreme(e, op, a, b)
        case "floordiv" | "floormod":
            return _float_divide(e, op, a, b)
    raise AssertionError(op)


def _float_extreme(e: Emitter, op: str, a: ir.Value, b: ir.Value) -> ir.Value:
    """The lesser or greater; what is not a number stays so. Of 0.0 and -0.0 either may come out."""
    build = e.builder
    if _constant(a) is not None and _constant(b) is None:
        a, b = b, a
    sign = ">" if op == "min" else "<"
    known = _constant(b)
    # Where `a` is not a number the comparison is false, and `a` comes out.
    result = build.select(build.fcmp_ordered(sign, a, b), b, a)
    if known is not None and known == known:
        return result
    return build.select(build.fcmp_unordered("uno", b, b), b, result)


def _float_divide(e: Emitter, op: str, a: ir.Value, b: ir.Value) -> ir.Value:
    """NumPy's: the remainder has the divisor's sign, the quotient is a whole number."""
    build, kind = e.builder, a.type
    zero = e.constant(0.0, kind)
    name = type_name(kind)

    def copysign(x: ir.Value, sign: ir.Value) -> ir.Value:
        return e.intrinsic(f"llvm.copysign.{name}", kind, [x, sign])

    rest = build.frem(a, b)
    quotient = build.fdiv(build.fsub(a, rest), b)
    some = build.fcmp_unordered("!=", rest, zero)
    differ = build.xor(build.fcmp_ordered("<", b, zero), build.fcmp_ordered("<", rest, zero))
    fix = build.and_(some, differ)
    if op == "floormod":
        signed = build.select(fix, build.fadd(rest, b), rest)
        result = build.select(some, signed, copysign(zero, b))
        return build.select(build.fcmp_ordered("==", b, zero), rest, result)
    quotient = build.select(fix, build.fsub(quotient, e.constant(1.0, kind)), quotient)
    down = e.intrinsic(f"llvm.floor.{name}", kind, [quotient])
    more = build.fcmp_ordered(">", build.fsub(quotient, down), e.constant(0.5, kind))
    down = build.select(more, build.fadd(down, e.constant(1.0, kind)), down)
    plain = build.fdiv(a, b)
    result = build.select(build.fcmp_unordered("!=", quotient, zero), down, copysign(zero, plain))
    return build.select(build.fcmp_ordered("==", b, zero), plain, result)


def cast(e: Emitter, value: ir.Value, source: str, to: str) -> ir.Value:
    """A value in another type: integers wrap, floats are cut towards zero."""
    from covta.compiler.llvm.types import ELEMENT

    build = e.builder
    kind = lookalike(value.type, ELEMENT[to])
    if source == to:
        return value
    if source == "bool":
        return build.uitofp(value, kind) if to == "float32" else build.zext(value, kind)
    if to == "float32":
        return build.sitofp(value, kind)
    if source == "float32":
        # Beyond int32, and for what is not a number, processors give the least number.
        wide = lookalike(value.type, I32)
        inside = build.and_(
            build.fcmp_ordered("<", value, e.constant(2.0**31, value.type)),
            build.fcmp_ordered(">=", value, e.constant(-(2.0**31), value.type)),
        )
        whole = build.select(inside, build.fptosi(value, wide), e.constant(-(1 << 31), wide))
        return whole if to == "int32" else build.trunc(whole, kind)
    return build.sext(value, kind) if to == "int32" else build.trunc(value, kind)


def not_(e: Emitter, condition: ir.Value) -> ir.Value:
    """The other lanes."""
    return e.builder.xor(condition, e.constant(1, condition.type))


def both(e: Emitter, a: ir.Value | None, b: ir.Value) -> ir.Value:
    """Conditions together; None is always true."""
    return b if a is None else e.builder.and_(*e.together(a, b))
