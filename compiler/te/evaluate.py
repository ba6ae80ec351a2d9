"""Compute a tensor with NumPy: the reference, without schedule or machine.

Spatial axes are evaluated all at once as broadcast index arrays; reduction axes one point at a
time, so memory stays at a few times the result. Integers wrap as they do on the machine.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np

from covta.compiler.te.expr import (
    Binary,
    Cast,
    Const,
    Expr,
    ExprError,
    Lookup,
    Read,
    Reduce,
    Select,
    Var,
    const,
    require,
)
from covta.compiler.te.tensor import Tensor

__all__ = ["evaluate", "evaluate_expr"]


def evaluate(
    tensor: Tensor, values: Mapping[Tensor, np.ndarray] | Mapping[Tensor | Var, np.ndarray]
) -> np.ndarray:
    """Values of `tensor`, given those of the placeholders it depends on.

    Parameters
    ----------
    tensor : Tensor
    values : mapping of Tensor or Var to np.ndarray
        Shape and dtype as declared; inner tensors may be given too. Free variables are numbers.

    Returns
    -------
    np.ndarray
        Of the tensor's shape and dtype.

    Raises
    ------
    ExprError
        Where values are missing or of another type, and where a tensor is read outside of its
        shape.
    """
    known: dict[Tensor, np.ndarray] = {}
    free: dict[Var, np.ndarray] = {}
    require(isinstance(tensor, Tensor), f"evaluate: a tensor is needed, got {tensor!r}")
    require(
        isinstance(values, Mapping),
        f"evaluate: values must be a mapping of tensors to arrays, got {type(values).__name__}",
    )
    for t, v in values.items():
        if isinstance(t, Var):
            number = v.item() if isinstance(v, np.ndarray) and v.size == 1 else v
            free[t] = np.dtype(t.dtype).type(const(number, t.dtype).value)  # type: ignore[arg-type]
            continue
        require(
            isinstance(t, Tensor),
            f"evaluate: values must be those of tensors and variables, got {t!r}",
        )
        require(
            isinstance(v, np.ndarray),
            f"{t.name} must be a NumPy array, got {type(v).__name__}",
        )
        require(
            tuple(v.shape) == t.shape and str(v.dtype) == t.dtype,
            f"{t.name} must be {t.dtype}{list(t.shape)}, got {v.dtype}{list(v.shape)}",
        )
        known[t] = v
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        return _tensor(tensor, known, free)


def _tensor(
    tensor: Tensor, known: dict[Tensor, np.ndarray], free: Mapping[Var, np.ndarray]
) -> np.ndarray:
    if tensor in known:
        return known[tensor]
    require(tensor.body is not None, f"{tensor.name}: a placeholder's values must be given")
    body, shape = tensor.body, tensor.shape
    assert body is not None
    env: dict[Var, Any] = dict(free) | {
        axis.var: np.arange(n, dtype=np.int32).reshape(
            [-1 if d == k else 1 for d in range(len(shape))]
        )
        for k, (axis, n) in enumerate(zip(tensor.axes, shape, strict=True))
    }
    if isinstance(body, Reduce):
        result = np.full(shape, body.identity.value, tensor.dtype)
        ranges = [range(int(a.extent.value)) for a in body.axes]  # type: ignore[attr-defined]
        combine = {"sum": np.add, "max": np.maximum, "min": np.minimum}[body.kind]
        for point in itertools.product(*ranges):
            env |= {a.var: np.int32(p) for a, p in zip(body.axes, point, strict=True)}
            combine(result, _value(body.source, env, known), out=result)
    else:
        result = np.broadcast_to(_value(body, env, known), shape).astype(tensor.dtype)
    known[tensor] = result
    return result


def evaluate_expr(
    expr: Expr, env: Mapping[Var, np.ndarray], known: dict[Tensor, np.ndarray]
) -> np.ndarray:
    """Value of an expression without reductions, for given values of its variables."""
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        return np.asarray(_value(expr, env, known))


_UFUNC = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide, "min": np.minimum,
    "max": np.maximum, "lt": np.less, "le": np.less_equal, "eq": np.equal, "ne": np.not_equal,
    "and": np.logical_and, "or": np.logical_or, "floordiv": np.floor_divide, "floormod": np.mod,
}  # fmt: skip


Alive = np.ndarray | None
"""Where a value is wanted; None: everywhere."""


def _value(
    expr: Expr, env: Mapping[Var, np.ndarray], known: dict[Tensor, np.ndarray], alive: Alive = None
):
    def of(part: Expr):
        return _value(part, env, known, alive)

    match expr:
        case Const(value, dtype):
            return np.dtype(dtype).type(value)
        case Var():
            require(expr in env, f"variable {expr} has no value")
            return env[expr]
        case Binary("shr", a, b):
            left, right = of(a), of(b)
            width = 8 * np.dtype(a.dtype).itemsize - 1
            down = np.right_shift(left, np.clip(right, 0, width).astype(left.dtype))
            lost = np.where(right < -width, 0, left).astype(left.dtype)
            up = np.left_shift(lost, np.clip(-right, 0, width).astype(left.dtype))
            return np.where(right >= 0, down, up).astype(a.dtype)
        case Binary(op, a, b):
            return _UFUNC[op](of(a), of(b))
        case Cast(a, dtype):
            return np.asarray(of(a)).astype(dtype)
        case Select(condition, a, b):
            taken = np.asarray(of(condition))
            yes, no = (taken, ~taken) if alive is None else (taken & alive, ~taken & alive)
            return np.where(taken, _value(a, env, known, yes), _value(b, env, known, no))
        case Lookup(table, index):
            return np.array(table, np.int32)[_index(expr, of(index), 0, len(table), alive)]
        case Read(tensor, indices):
            values = _tensor(tensor, known, env)
            at = tuple(
                _index(expr, of(i), d, n, alive)
                for d, (i, n) in enumerate(zip(indices, tensor.shape, strict=True))
            )
            return values[at]
    raise AssertionError(type(expr))


def _index(read: Expr, index: np.ndarray, axis: int, size: int, alive: Alive) -> np.ndarray:
    """An index that lies within its axis; a side of a select that is not taken may not."""
    if size > np.max(index) and np.min(index) >= 0:
        return index
    outside = (index < 0) | (index >= size)
    wanted = outside if alive is None else outside & alive
    if np.any(wanted):
        value = np.broadcast_to(index, np.shape(wanted))[wanted].flat[0]
        raise ExprError(
            f"{read}: index {axis} must lie in 0 ... {size - 1}, got {value}; a read that may lie"
            " outside must stand in the side of a te.select that is then not taken"
        )
    return np.where(outside, 0, index)
