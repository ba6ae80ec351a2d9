"""Tensors, and the ways to make them: placeholders, computes, reductions."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from covta.compiler.te.expr import (
    DTYPES,
    Expr,
    ExprLike,
    Read,
    Reduce,
    Var,
    all_of,
    as_expr,
    binary,
    const,
    format_expr,
    maximum,
    minimum,
    require,
    select,
    walk,
)

__all__ = [
    "IterVar",
    "Tensor",
    "clip",
    "compute",
    "describe",
    "inputs_of",
    "max",
    "min",
    "pad",
    "placeholder",
    "reads_of",
    "reduce_axis",
    "shift",
    "sum",
]


@dataclass(frozen=True, eq=False)
class IterVar:
    """One axis of a loop nest: a variable that runs over ``0 ... extent - 1``.

    Parameters
    ----------
    var : Var
    extent : Expr
        int32; a constant for the axes of a `compute`.
    reduce : bool
        Of a reduction.
    """

    var: Var
    extent: Expr
    reduce: bool = False

    @property
    def name(self) -> str:
        """The variable's."""
        return self.var.name

    def __str__(self) -> str:
        return f"{self.name} in 0..{format_expr(self.extent)}"

    # An axis may be used as the number it stands for.
    def __add__(self, other: ExprLike) -> Expr:
        return self.var + other

    __radd__ = __add__

    def __sub__(self, other: ExprLike) -> Expr:
        return self.var - other

    def __rsub__(self, other: ExprLike) -> Expr:
        return other - self.var

    def __mul__(self, other: ExprLike) -> Expr:
        return self.var * other

    __rmul__ = __mul__

    def __floordiv__(self, other: ExprLike) -> Expr:
        return self.var // other

    def __mod__(self, other: ExprLike) -> Expr:
        return self.var % other

    def __lt__(self, other: ExprLike) -> Expr:
        return self.var < other

    def __ge__(self, other: ExprLike) -> Expr:
        return self.var >= other


@dataclass(frozen=True, eq=False)
class Tensor:
    """A tensor: a placeholder, or what an expression gives for every index.

    Parameters
    ----------
    name : str
    shape : tuple of int
    dtype : str
        ``int8``, ``int32`` or ``float32``.
    axes : tuple of IterVar
        One per dimension; empty for a placeholder.
    body : Expr or None
        The element at `axes`; None for a placeholder.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    axes: tuple[IterVar, ...] = ()
    body: Expr | None = field(default=None, repr=False)

    @property
    def op(self) -> Tensor:
        """The tensor itself: what a schedule's stages are named by."""
        return self

    @property
    def axis(self) -> tuple[IterVar, ...]:
        """One axis per dimension."""
        return self.axes

    @property
    def reduce_axis(self) -> tuple[IterVar, ...]:
        """Axes of the reduction, if there is one."""
        return self.body.axes if isinstance(self.body, Reduce) else ()

    @property
    def is_placeholder(self) -> bool:
        """True if its values come from outside."""
        return self.body is None

    def __getitem__(self, indices: ExprLike | tuple[ExprLike, ...]) -> Expr:
        if not isinstance(indices, tuple):
            indices = (indices,)
        require(
            len(indices) == len(self.shape),
            f"{self.name} must be indexed by {len(self.shape)} numbers, got {len(indices)}",
        )
        exprs = tuple(as_expr(i) for i in indices)
        for e in exprs:
            require(e.dtype == "int32", f"{self.name}: an index must be int32, got {e.dtype}: {e}")
        return Read(self, exprs)

    def __str__(self) -> str:
        shape = ", ".join(map(str, self.shape))
        head = f"{self.name}: {self.dtype}[{shape}]"
        if self.body is None:
            return f"{head} = placeholder"
        return f"{head}[{', '.join(a.name for a in self.axes)}] = {self.body}"


def _check_shape(name: str, shape: Sequence[int], dtype: str) -> tuple[int, ...]:
    for n in shape:
        require(
            isinstance(n, int) and n > 0,
            f"{name}: shape must hold positive integers, got {tuple(shape)}",
        )
    require(
        dtype in DTYPES[:3], f"{name}: dtype must be among {', '.join(DTYPES[:3])}, got {dtype!r}"
    )
    return tuple(shape)


def placeholder(shape: Sequence[int], dtype: str = "float32", name: str = "placeholder") -> Tensor:
    """A tensor whose values come from outside."""
    return Tensor(name, _check_shape(name, shape, dtype), dtype)


def compute(shape: Sequence[int], body: Callable[..., ExprLike], name: str = "compute") -> Tensor:
    """A tensor given by a rule for each element.

    Parameters
    ----------
    shape : sequence of int
    body : callable
        Takes an axis per dimension, gives the element; a reduction only as the outermost node.
    name : str

    Raises
    ------
    ExprError
        If the rule reads with the wrong number of indices, mixes types, or hides a reduction.
    """
    names = [p.name for p in inspect.signature(body).parameters.values()]
    kinds = [p.kind for p in inspect.signature(body).parameters.values()]
    if inspect.Parameter.VAR_POSITIONAL in kinds:
        names = [f"i{k}" for k in range(len(shape))]
    require(
        len(names) == len(shape),
        f"{name}: the rule must take {len(shape)} axes, one per dimension, got {len(names)}",
    )
    axes = tuple(
        IterVar(Var(n), const(s))
        for n, s in zip(names, _check_shape(name, shape, "int32"), strict=True)
    )
    expr = as_expr(body(*(a.var for a in axes)))
    for inner in walk(expr):
        require(
            inner is expr or not isinstance(inner, Reduce),
            f"{name}: a reduction must be the outermost part of a compute, got {expr}",
        )
    require(expr.dtype != "bool", f"{name}: elements must be numbers, got a condition: {expr}")
    return Tensor(name, tuple(shape), expr.dtype, axes, expr)


def reduce_axis(domain: tuple[int, int], name: str = "r") -> IterVar:
    """An axis to reduce over, ``domain[0]`` (0) up to ``domain[1] - 1``."""
    low, high = domain
    require(
        low == 0 and high > 0, f"{name}: a reduction must run from 0 to at least 1, got {domain}"
    )
    return IterVar(Var(name), const(high), reduce=True)


def _reduce(kind: str, source: ExprLike, axis: IterVar | Sequence[IterVar]) -> Expr:
    axes = (axis,) if isinstance(axis, IterVar) else tuple(axis)
    require(len(axes) > 0, f"{kind}: at least one axis must be given")
    for a in axes:
        require(
            isinstance(a, IterVar) and a.reduce,
            f"{kind}: axis must come from te.reduce_axis, got {a}",
        )
    return Reduce(kind, as_expr(source), axes)


def sum(source: ExprLike, axis: IterVar | Sequence[IterVar]) -> Expr:
    """Sum over axes, in the source's type (int32 wraps)."""
    return _reduce("sum", source, axis)


def max(source: ExprLike, axis: IterVar | Sequence[IterVar]) -> Expr:
    """Maximum over axes."""
    return _reduce("max", source, axis)


def min(source: ExprLike, axis: IterVar | Sequence[IterVar]) -> Expr:
    """Minimum over axes."""
    return _reduce("min", source, axis)


def clip(value: ExprLike, low: ExprLike, high: ExprLike) -> Expr:
    """`value`, but at least `low` and at most `high`."""
    return minimum(maximum(value, low), high)


def shift(value: Expr, bits: ExprLike) -> Expr:
    """Arithmetic shift right by `bits`, left where it is negative."""
    return binary("shr", value, bits)


def pad(
    tensor: Tensor,
    before: Sequence[int],
    after: Sequence[int] | None = None,
    value: float = 0,
    name: str | None = None,
) -> Tensor:
    """`tensor` with a frame of `value` around it.

    Parameters
    ----------
    before, after : sequence of int
        Elements in front and behind, per dimension; `after` is `before` by default.
    """
    after = before if after is None else after
    require(
        len(before) == len(after) == len(tensor.shape),
        f"pad of {tensor.name}: before and after must have {len(tensor.shape)} numbers, got"
        f" {len(before)} and {len(after)}",
    )
    require(
        all(n >= 0 for n in (*before, *after)),
        f"pad of {tensor.name}: before and after must not be negative, got {before}, {after}",
    )
    shape = [n + b + a for n, b, a in zip(tensor.shape, before, after, strict=True)]

    def body(*index: Expr) -> Expr:
        inside = [
            c
            for i, n, b, a in zip(index, tensor.shape, before, after, strict=True)
            for c in ([i >= b] if b else []) + ([i < n + b] if a else [])
        ]
        element = tensor[tuple(i - b for i, b in zip(index, before, strict=True))]
        if not inside:
            return element
        return select(all_of(*inside), element, const(value, tensor.dtype))

    return compute(shape, body, name=name or f"{tensor.name}.pad")


def reads_of(expr: Expr) -> list[Read]:
    """Every read in an expression, in order."""
    return [e for e in walk(expr) if isinstance(e, Read)]


def inputs_of(body: Expr | None) -> list[Tensor]:
    """Tensors that an expression reads, each once, in order of appearance."""
    if body is None:
        return []
    return list(dict.fromkeys(r.tensor for r in reads_of(body)))


def describe(*outputs: Tensor) -> str:
    """The whole computation as text, one line a tensor, producers first."""
    seen: dict[Tensor, None] = {}

    def visit(tensor: Tensor) -> None:
        if tensor in seen:
            return
        for source in inputs_of(tensor.body):
            visit(source)
        seen[tensor] = None

    for output in outputs:
        visit(output)
    return "\n".join(map(str, seen))
