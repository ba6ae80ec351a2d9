"""Tensors, and the ways to make them: placeholders, computes, reductions."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from covta.compiler.te.expr import (
    Expr,
    ExprError,
    ExprLike,
    Operators,
    Read,
    Reduce,
    Var,
    all_of,
    as_expr,
    binary,
    check_dtype,
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
class IterVar(Operators):
    """One axis of a loop nest: a variable that runs over ``0 ... extent - 1``.

    It may be used as the number that it stands for.

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

    def __iter__(self) -> Iterator[Expr]:
        raise ExprError(f"{self.name} cannot be iterated over: give a rule for each element")

    def __str__(self) -> str:
        shape = ", ".join(map(str, self.shape))
        head = f"{self.name}: {self.dtype}[{shape}]"
        if self.body is None:
            return f"{head} = placeholder"
        return f"{head}[{', '.join(a.name for a in self.axes)}] = {self.body}"


def _check_shape(name: str, shape: Sequence[int], dtype: str) -> tuple[int, ...]:
    require(isinstance(name, str), f"a tensor's name must be text, got {name!r}")
    sizes = _integers(shape)
    require(
        sizes is not None and all(n > 0 for n in sizes),
        f"{name}: shape must hold positive integers, got {shape}",
    )
    check_dtype(dtype, where=f"{name}: ")
    return sizes  # type: ignore[return-value]


def _integers(values: object) -> tuple[int, ...] | None:
    """A sequence of integers as Python's; None for anything else."""
    if not isinstance(values, Sequence | np.ndarray):
        return None
    whole = [isinstance(n, int | np.integer) and not isinstance(n, bool) for n in values]
    return tuple(map(int, values)) if all(whole) else None


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
        If the rule reads with the wrong number of indices, mixes types, hides a reduction, or uses
        another compute's axis or one of a reduction without reducing over it.
    """
    sizes = _check_shape(name, shape, "int32")
    names = _axis_names(name, body, len(sizes))
    axes = tuple(IterVar(Var(n, role="axis"), const(s)) for n, s in zip(names, sizes, strict=True))
    expr = as_expr(body(*(a.var for a in axes)))
    own = {a.var for a in (*axes, *(expr.axes if isinstance(expr, Reduce) else ()))}
    for inner in walk(expr):
        require(
            inner is expr or not isinstance(inner, Reduce),
            f"{name}: a reduction must be the outermost part of a compute, got {expr}",
        )
        require(
            not isinstance(inner, Var) or inner.role == "free" or inner in own,
            f"{name}: axis {inner} is neither an axis of this compute nor reduced over: {expr}",
        )
    require(expr.dtype != "bool", f"{name}: elements must be numbers, got a condition: {expr}")
    return Tensor(name, sizes, expr.dtype, axes, expr)


def _axis_names(name: str, body: Callable[..., ExprLike], rank: int) -> list[str]:
    """What the rule calls its axes."""
    require(callable(body), f"{name}: the rule must be a function of the axes, got {body!r}")
    params = list(inspect.signature(body).parameters.values())
    named = [p.name for p in params if p.kind is not inspect.Parameter.VAR_POSITIONAL]
    rest = len(named) < len(params)
    require(
        len(named) <= rank if rest else len(named) == rank,
        f"{name}: the rule must take {rank} axes, one per dimension, got {len(named)}",
    )
    return [f"i{k}" for k in range(rank)] if rest else named


def reduce_axis(domain: tuple[int, int], name: str = "r") -> IterVar:
    """An axis to reduce over, ``domain[0]`` (0) up to ``domain[1] - 1``."""
    require(isinstance(name, str), f"an axis's name must be text, got {name!r}")
    ends = _integers(domain)
    require(
        ends is not None and len(ends) == 2 and ends[0] == 0 and ends[1] > 0,
        f"{name}: a reduction must run from 0 to at least 1, given as (0, n), got {domain!r}",
    )
    return IterVar(Var(name, role="reduce"), const(ends[1]), reduce=True)  # type: ignore[index]


def _reduce(kind: str, source: ExprLike, axis: IterVar | Sequence[IterVar]) -> Expr:
    axes = tuple(axis) if isinstance(axis, Sequence) else (axis,)
    require(len(axes) > 0, f"{kind}: at least one axis must be given")
    other = "" if kind == "sum" else f"; te.{kind}imum takes two values"
    for k, a in enumerate(axes):
        require(
            isinstance(a, IterVar) and a.reduce,
            f"{kind}: axis must come from te.reduce_axis, got {a}{other}",
        )
        require(a not in axes[:k], f"{kind}: axis {a.name} is given twice")
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
    require(isinstance(tensor, Tensor), f"pad: a tensor is needed, got {tensor!r}")
    given = before, before if after is None else after
    front, behind = map(_integers, given)
    require(
        front is not None and behind is not None,
        f"pad of {tensor.name}: before and after must be sequences of integers, got"
        f" {given[0]}, {given[1]}",
    )
    assert front is not None
    assert behind is not None
    require(
        len(front) == len(behind) == len(tensor.shape),
        f"pad of {tensor.name}: before and after must have {len(tensor.shape)} numbers, got"
        f" {len(front)} and {len(behind)}",
    )
    require(
        all(n >= 0 for n in (*front, *behind)),
        f"pad of {tensor.name}: before and after must not be negative, got {front}, {behind}",
    )
    shape = [n + b + a for n, b, a in zip(tensor.shape, front, behind, strict=True)]

    def body(*index: Expr) -> Expr:
        inside = [
            c
            for i, n, b, a in zip(index, tensor.shape, front, behind, strict=True)
            for c in ([i >= b] if b else []) + ([i < n + b] if a else [])
        ]
        element = tensor[tuple(i - b for i, b in zip(index, front, strict=True))]
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
