"""Scalar expressions: frozen trees over variables, constants and elements of tensors.

Python's operators build them; integers on either side become constants of the other's type. Index
arithmetic is ``int32`` and is folded where both sides are constants, so that trees stay readable;
it wraps there as it does when it is evaluated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Union

import numpy as np

if TYPE_CHECKING:
    from covta.compiler.te.tensor import IterVar, Tensor

__all__ = [
    "DTYPES",
    "Binary",
    "Cast",
    "Const",
    "Expr",
    "ExprError",
    "Lookup",
    "Read",
    "Reduce",
    "Select",
    "Var",
    "all_of",
    "as_expr",
    "cast",
    "children",
    "const",
    "equal",
    "maximum",
    "minimum",
    "negate",
    "rebuild",
    "select",
    "substitute",
    "var",
    "walk",
]

DTYPES = ("int8", "int32", "float32", "bool")
"""Types of elements; ``bool`` only within expressions."""

COMPARISONS = ("lt", "le", "eq", "ne")
LOGIC = ("and", "or")
ARITHMETIC = ("add", "sub", "mul", "div", "floordiv", "floormod", "min", "max", "shr")

ExprLike = Union["Operators", int, float]


class ExprError(ValueError):
    """A tensor expression that has no meaning, with the rule that it breaks."""


def require(condition: bool, message: str) -> None:
    """Raise `ExprError` with `message` unless `condition`."""
    if not condition:
        raise ExprError(message)


class Operators:
    """Python's operators, as trees; of expressions and of axes alike."""

    __slots__ = ()

    def astype(self, dtype: str) -> Expr:
        """This value in another type; `int8` and `int32` wrap, floats go towards zero."""
        return cast(self, dtype)

    def __add__(self, other: ExprLike) -> Expr:
        return binary("add", self, other)

    def __radd__(self, other: ExprLike) -> Expr:
        return binary("add", other, self)

    def __sub__(self, other: ExprLike) -> Expr:
        return binary("sub", self, other)

    def __rsub__(self, other: ExprLike) -> Expr:
        return binary("sub", other, self)

    def __mul__(self, other: ExprLike) -> Expr:
        return binary("mul", self, other)

    def __rmul__(self, other: ExprLike) -> Expr:
        return binary("mul", other, self)

    def __truediv__(self, other: ExprLike) -> Expr:
        return binary("div", self, other)

    def __rtruediv__(self, other: ExprLike) -> Expr:
        return binary("div", other, self)

    def __floordiv__(self, other: ExprLike) -> Expr:
        return binary("floordiv", self, other)

    def __rfloordiv__(self, other: ExprLike) -> Expr:
        return binary("floordiv", other, self)

    def __mod__(self, other: ExprLike) -> Expr:
        return binary("floormod", self, other)

    def __rmod__(self, other: ExprLike) -> Expr:
        return binary("floormod", other, self)

    def __rshift__(self, other: ExprLike) -> Expr:
        return binary("shr", self, other)

    def __rrshift__(self, other: ExprLike) -> Expr:
        return binary("shr", other, self)

    def __and__(self, other: ExprLike) -> Expr:
        return binary("and", self, other)

    def __rand__(self, other: ExprLike) -> Expr:
        return binary("and", other, self)

    def __or__(self, other: ExprLike) -> Expr:
        return binary("or", self, other)

    def __ror__(self, other: ExprLike) -> Expr:
        return binary("or", other, self)

    def __lshift__(self, other: ExprLike) -> Expr:
        value = as_expr(self)
        return binary("shr", value, binary("sub", const(0, value.dtype), other))

    def __rlshift__(self, other: ExprLike) -> Expr:
        bits = as_expr(self)
        return binary("shr", other, binary("sub", const(0, bits.dtype), bits))

    def __neg__(self) -> Expr:
        value = as_expr(self)
        return binary("sub", const(0, value.dtype), value)

    def __abs__(self) -> Expr:
        value = as_expr(self)
        return select(value <= 0, -value, value)

    def __invert__(self) -> Expr:
        return negate(as_expr(self))

    def __lt__(self, other: ExprLike) -> Expr:
        return binary("lt", self, other)

    def __le__(self, other: ExprLike) -> Expr:
        return binary("le", self, other)

    def __gt__(self, other: ExprLike) -> Expr:
        return binary("lt", other, self)

    def __ge__(self, other: ExprLike) -> Expr:
        return binary("le", other, self)


class Expr(Operators):
    """Base of all expressions; `dtype` is one of `DTYPES`."""

    __slots__ = ()
    dtype: str

    def __bool__(self) -> bool:
        raise ExprError(f"an expression has no truth value at this point: {self}")

    def __str__(self) -> str:
        return format_expr(self)


@dataclass(frozen=True, slots=True)
class Const(Expr):
    """A number."""

    value: int | float | bool
    dtype: str = "int32"

    __str__ = Expr.__str__


@dataclass(frozen=True, slots=True, eq=False)
class Var(Expr):
    """A variable, itself and no other of the same name.

    Parameters
    ----------
    name, dtype : str
    role : str
        ``axis`` of a `compute`, ``reduce`` for an axis of a reduction, ``free`` otherwise.
    """

    name: str
    dtype: str = "int32"
    role: str = "free"

    __str__ = Expr.__str__


@dataclass(frozen=True, slots=True)
class Binary(Expr):
    """``a op b``; both of one type. ``shr`` shifts left where `b` is negative, as the machine."""

    op: str
    a: Expr
    b: Expr

    __str__ = Expr.__str__

    @property
    def dtype(self) -> str:  # type: ignore[override]
        """That of the operands, ``bool`` for comparisons."""
        return "bool" if self.op in COMPARISONS or self.op in LOGIC else self.a.dtype


@dataclass(frozen=True, slots=True)
class Cast(Expr):
    """`a` in another type."""

    a: Expr
    dtype: str

    __str__ = Expr.__str__


@dataclass(frozen=True, slots=True)
class Select(Expr):
    """`a` where `condition`, else `b`; the side not taken may read outside its tensor."""

    condition: Expr
    a: Expr
    b: Expr

    __str__ = Expr.__str__

    @property
    def dtype(self) -> str:  # type: ignore[override]
        """That of both sides."""
        return self.a.dtype


@dataclass(frozen=True, slots=True)
class Lookup(Expr):
    """``table[index]``, a table of int32 constants: begins and sizes of uneven tiles."""

    table: tuple[int, ...]
    index: Expr

    __str__ = Expr.__str__

    @property
    def dtype(self) -> str:  # type: ignore[override]
        """Always ``int32``."""
        return "int32"


@dataclass(frozen=True, slots=True)
class Read(Expr):
    """An element of a tensor."""

    tensor: Tensor
    indices: tuple[Expr, ...]

    __str__ = Expr.__str__

    @property
    def dtype(self) -> str:  # type: ignore[override]
        """The tensor's."""
        return self.tensor.dtype


@dataclass(frozen=True, slots=True)
class Reduce(Expr):
    """Sum, maximum or minimum of `source` over `axes`; the outermost node of a `compute`."""

    kind: str
    source: Expr
    axes: tuple[IterVar, ...]

    __str__ = Expr.__str__

    @property
    def dtype(self) -> str:  # type: ignore[override]
        """That of the source."""
        return self.source.dtype

    @property
    def identity(self) -> Const:
        """What the reduction starts from."""
        if self.kind == "sum":
            return Const(0.0 if self.dtype == "float32" else 0, self.dtype)
        if self.dtype == "float32":
            return Const(float("-inf") if self.kind == "max" else float("inf"), self.dtype)
        info = np.iinfo(self.dtype)
        return Const(int(info.min if self.kind == "max" else info.max), self.dtype)

    @property
    def combiner(self) -> str:
        """The binary operator that takes in one more element."""
        return {"sum": "add", "max": "max", "min": "min"}[self.kind]


# ---- building -------------------------------------------------------------------------------
def const(value: float | bool, dtype: str = "int32") -> Const:
    """A constant; refused where `dtype` cannot hold it."""
    check_dtype(dtype, DTYPES)
    require(
        isinstance(value, int | float | np.number | np.bool_) and not isinstance(value, complex),
        f"a constant must be a number, got {value!r}",
    )
    number = value.item() if isinstance(value, np.generic) else value
    if dtype in ("int8", "int32"):
        info = np.iinfo(dtype)
        require(
            info.min <= number <= info.max and number == int(number),
            f"a constant of {dtype} must lie in {info.min} ... {info.max}, got {number}",
        )
        return Const(int(number), dtype)
    if dtype == "bool":
        return Const(bool(number), dtype)
    require(
        not isinstance(number, int) or abs(number) < 1 << 128,
        f"a constant of float32 must be less than 2 ** 128, got {number}",
    )
    return Const(float(number), dtype)


def var(name: str, dtype: str = "int32") -> Var:
    """A free variable, to be bound at evaluation, or a parameter of what is lowered."""
    require(isinstance(name, str), f"a variable's name must be text, got {name!r}")
    return Var(name, check_dtype(dtype, DTYPES))


def check_dtype(dtype: str, among: Sequence[str] = DTYPES[:3], where: str = "") -> str:
    """`dtype`, refused if it is not one of the names."""
    require(
        isinstance(dtype, str) and dtype in among,
        f"{where}dtype must be among {', '.join(among)}, got {dtype!r}",
    )
    return dtype


def as_expr(value: ExprLike, dtype: str | None = None) -> Expr:
    """An expression of a Python number or of an axis; expressions stay themselves."""
    if isinstance(value, Expr):
        return value
    if hasattr(value, "var"):
        return value.var  # type: ignore[union-attr]
    require(
        isinstance(value, int | float | np.integer | np.floating),
        f"an expression, a number or an axis is needed, got {type(value).__name__}",
    )
    require(
        dtype == "bool" or not isinstance(value, bool),
        f"a number is needed, got {value}; == and != compare trees, te.equal compares values",
    )
    number = value.item() if isinstance(value, np.generic) else value
    return const(number, dtype or ("float32" if isinstance(number, float) else "int32"))  # type: ignore[arg-type]


_FOLD: dict[str, Callable[[int, int], int]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "floordiv": lambda a, b: a // b,
    "floormod": lambda a, b: a % b,
    "min": min,
    "max": max,
    "shr": lambda a, b: a >> min(b, 31) if b >= 0 else a << min(-b, 32),
    "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b,
    "eq": lambda a, b: a == b,
    "ne": lambda a, b: a != b,
    "and": lambda a, b: a and b,
    "or": lambda a, b: a or b,
}


def binary(op: str, a: ExprLike, b: ExprLike) -> Expr:
    """Build ``a op b``: numbers take the other side's type, int32 constants are folded."""
    if not isinstance(a, Expr) and not hasattr(a, "var"):
        b = as_expr(b)
        a = as_expr(a, b.dtype)
    else:
        a = as_expr(a)
        b = as_expr(b, a.dtype)
    require(
        a.dtype == b.dtype,
        f"both sides of {op} must be of one type, got {a.dtype} and {b.dtype}; cast one",
    )
    require(
        (a.dtype == "bool") == (op in LOGIC),
        f"{op} takes {'conditions' if op in LOGIC else 'numbers'}, got {a.dtype}",
    )
    require(op != "div" or a.dtype == "float32", f"/ takes float32, got {a.dtype}; use //")
    require(op != "shr" or a.dtype != "float32", "a shift takes integers, got float32")
    if isinstance(a, Const) and isinstance(b, Const) and a.dtype in ("int32", "bool"):
        if not (op in ("floordiv", "floormod") and b.value == 0):
            value = _FOLD[op](a.value, b.value)  # type: ignore[arg-type]
            if op in COMPARISONS or op in LOGIC:
                return Const(bool(value), "bool")
            return Const((value + (1 << 31)) % (1 << 32) - (1 << 31), a.dtype)
    if a.dtype == "int32":
        short = _identity(op, a, b)
        if short is not None:
            return short
    if op in LOGIC:
        for x, y in ((a, b), (b, a)):
            if isinstance(x, Const):
                return y if x.value == (op == "and") else x
    return Binary(op, a, b)


def _identity(op: str, a: Expr, b: Expr) -> Expr | None:
    av = a.value if isinstance(a, Const) else None
    bv = b.value if isinstance(b, Const) else None
    if op == "add" and av == 0:
        return b
    if op in ("add", "sub", "shr") and bv == 0:
        return a
    if op in ("mul", "floordiv") and bv == 1:
        return a
    if op == "mul" and av == 1:
        return b
    if op == "mul" and 0 in (av, bv):
        return Const(0, a.dtype)
    if op == "floormod" and bv == 1:
        return Const(0, a.dtype)
    if op in ("min", "max") and a == b:
        return a
    return None


def minimum(a: ExprLike, b: ExprLike) -> Expr:
    """The lesser of two values."""
    return binary("min", a, b)


def maximum(a: ExprLike, b: ExprLike) -> Expr:
    """The greater of two values."""
    return binary("max", a, b)


def equal(a: ExprLike, b: ExprLike) -> Expr:
    """The condition ``a == b`` (Python's ``==`` compares trees)."""
    return binary("eq", a, b)


def negate(condition: Expr) -> Expr:
    """The condition that holds where `condition` does not."""
    require(condition.dtype == "bool", f"~ takes a condition, got {condition.dtype}: {condition}")
    match condition:
        case Const(value, _):
            return Const(not value, "bool")
        case Binary("and", a, b):
            return binary("or", negate(a), negate(b))
        case Binary("or", a, b):
            return binary("and", negate(a), negate(b))
        case Binary("eq" | "ne" as op, a, b):
            return binary("ne" if op == "eq" else "eq", a, b)
        case Binary("lt" | "le" as op, a, b) if a.dtype != "float32":
            return binary("le" if op == "lt" else "lt", b, a)
    # Of what is not a number neither a < b nor b <= a holds.
    return Select(condition, Const(False, "bool"), Const(True, "bool"))


def all_of(*conditions: Expr) -> Expr:
    """True where all of them are."""
    result: Expr = Const(True, "bool")
    for condition in conditions:
        result = binary("and", result, condition)
    return result


def select(condition: Expr, a: ExprLike, b: ExprLike) -> Expr:
    """`a` where `condition`, else `b`; the side not taken may read outside its tensor."""
    require(
        isinstance(condition, Expr) and condition.dtype == "bool",
        f"select needs a condition, got {condition}",
    )
    if not isinstance(a, Expr) and not hasattr(a, "var"):
        b = as_expr(b)
        a = as_expr(a, b.dtype)
    else:
        a = as_expr(a)
        b = as_expr(b, a.dtype)
    require(
        a.dtype == b.dtype, f"both sides of select must be of one type, got {a.dtype}, {b.dtype}"
    )
    if isinstance(condition, Const):
        return a if condition.value else b
    return Select(condition, a, b)


def cast(value: ExprLike, dtype: str) -> Expr:
    """`value` in another type; integers wrap, floats are cut towards zero."""
    value = as_expr(value)
    check_dtype(dtype)
    if value.dtype == dtype:
        return value
    if isinstance(value, Const) and dtype == "float32":
        return Const(float(value.value), dtype)
    return Cast(value, dtype)


# ---- taking apart ---------------------------------------------------------------------------
def children(expr: Expr) -> tuple[Expr, ...]:
    """Direct parts of an expression."""
    match expr:
        case Binary(_, a, b):
            return (a, b)
        case Cast(a, _):
            return (a,)
        case Select(c, a, b):
            return (c, a, b)
        case Lookup(_, index):
            return (index,)
        case Read(_, indices):
            return indices
        case Reduce(_, source, _):
            return (source,)
    return ()


def rebuild(expr: Expr, parts: Sequence[Expr]) -> Expr:
    """The same node over other parts, constants folded."""
    match expr:
        case Binary(op, _, _):
            return binary(op, *parts)
        case Cast(_, dtype):
            return cast(parts[0], dtype)
        case Select():
            return select(*parts)
        case Lookup(table, _):
            index = parts[0]
            if isinstance(index, Const):
                return Const(table[int(index.value)])
            return Lookup(table, index)
        case Read(tensor, _):
            return Read(tensor, tuple(parts))
        case Reduce(kind, _, axes):
            return Reduce(kind, parts[0], axes)
    return expr


def transform(expr: Expr, rule: Callable[[Expr], Expr | None]) -> Expr:
    """Rewrite bottom-up: `rule` sees each node after its parts, None leaves it."""
    parts = children(expr)
    if parts:
        new = [transform(p, rule) for p in parts]
        if any(n is not p for n, p in zip(new, parts, strict=True)):
            expr = rebuild(expr, new)
    result = rule(expr)
    return expr if result is None else result


def substitute(expr: Expr, values: dict[Var, Expr]) -> Expr:
    """Replace variables."""
    if not values:
        return expr
    return transform(expr, lambda e: values.get(e) if isinstance(e, Var) else None)


def walk(expr: Expr) -> Iterator[Expr]:
    """Every node, parents first."""
    yield expr
    for part in children(expr):
        yield from walk(part)


# ---- printing -------------------------------------------------------------------------------
_SYMBOLS = {
    "add": ("+", 5), "sub": ("-", 5), "mul": ("*", 6), "div": ("/", 6), "floordiv": ("//", 6),
    "floormod": ("%", 6), "shr": (">>", 4), "lt": ("<", 3), "le": ("<=", 3), "eq": ("==", 3),
    "ne": ("!=", 3), "and": ("and", 2), "or": ("or", 1),
}  # fmt: skip


def format_expr(expr: Expr, level: int = 0) -> str:
    """Python-like text; parentheses where precedence asks for them."""
    match expr:
        case Const(value, "float32"):
            return f"{value!r}f"
        case Const(value, dtype):
            return str(value) if dtype in ("int32", "bool") else f"{dtype}({value})"
        case Var(name, _):
            return name
        case Binary(("min" | "max") as op, a, b):
            return f"{op}({a}, {b})"
        case Binary(op, a, b):
            symbol, own = _SYMBOLS[op]
            text = f"{format_expr(a, own)} {symbol} {format_expr(b, own + 1)}"
            return f"({text})" if own < level else text
        case Cast(a, dtype):
            return f"{dtype}({a})"
        case Select(c, a, b):
            return f"select({c}, {a}, {b})"
        case Lookup(table, index):
            return f"[{', '.join(map(str, table))}][{index}]"
        case Read(tensor, indices):
            return f"{tensor.name}[{', '.join(map(str, indices))}]"
        case Reduce(kind, source, axes):
            return f"{kind}({source}, axis=[{', '.join(a.name for a in axes)}])"
    raise AssertionError(type(expr))
