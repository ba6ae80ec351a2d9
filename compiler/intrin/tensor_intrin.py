"""Declaration of a tensor intrinsic: its behaviour, and what it is lowered to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from covta.compiler.te.evaluate import evaluate
from covta.compiler.te.expr import Reduce, Var, require
from covta.compiler.te.tensor import Tensor, inputs_of

__all__ = ["IntrinCall", "TensorIntrin", "decl_tensor_intrin", "intrin_call"]


@dataclass(frozen=True)
class IntrinCall:
    """One operation of the hardware, as a lowering rule names it.

    Parameters
    ----------
    name : str
        Of the operation, e.g. ``vta.gemm``.
    attrs : mapping
        Fixed operands: an opcode, an immediate.
    """

    name: str
    attrs: tuple[tuple[str, Any], ...] = ()


def intrin_call(name: str, **attrs: Any) -> IntrinCall:
    """Name an operation of the hardware in a lowering rule."""
    return IntrinCall(name, tuple(attrs.items()))


Lowering = tuple[IntrinCall | None, IntrinCall | None, IntrinCall | None]
Rule = Callable[[Sequence[Tensor], Sequence[Tensor]], Lowering | IntrinCall]


@dataclass(frozen=True, kw_only=True, eq=False)
class TensorIntrin:
    """What a piece of hardware computes in one go, and how it is told to.

    Parameters
    ----------
    name : str
    behaviour : Tensor
        A `compute` over placeholders.
    inputs : tuple of Tensor
        The placeholders, in order of appearance.
    compute, reset, update : IntrinCall or None
        Output overwritten; output set to the reduction's identity; output combined with what it
        holds. None where the hardware has no such thing.
    scopes : dict of Tensor to str
        Where operands must lie; others may lie anywhere.
    """

    name: str
    behaviour: Tensor
    inputs: tuple[Tensor, ...]
    compute: IntrinCall | None
    reset: IntrinCall | None
    update: IntrinCall | None
    scopes: Mapping[Tensor, str] = field(default_factory=dict)

    @property
    def is_reduction(self) -> bool:
        """True if the behaviour reduces."""
        return isinstance(self.behaviour.body, Reduce)

    def apply(
        self,
        phase: str,
        output: np.ndarray,
        inputs: Sequence[np.ndarray],
        attrs: Mapping[Var | str, Any] | None = None,
    ) -> None:
        """Do to `output` what the behaviour says: the reference for everything that runs it."""
        body = self.behaviour.body
        out = output.reshape(self.behaviour.shape)
        if phase == "reset":
            assert isinstance(body, Reduce)
            out[...] = body.identity.value
            return
        values: dict[Any, Any] = {
            t: np.ascontiguousarray(a).reshape(t.shape)
            for t, a in zip(self.inputs, inputs, strict=True)
        }
        values |= {k: v for k, v in (attrs or {}).items() if isinstance(k, Var)}
        result = evaluate(self.behaviour, values)
        if phase == "update" and isinstance(body, Reduce):
            with np.errstate(over="ignore"):
                combine = {"add": np.add, "max": np.maximum, "min": np.minimum}[body.combiner]
                result = combine(out, result)
        out[...] = result


def decl_tensor_intrin(
    behaviour: Tensor,
    lower: Rule,
    *,
    name: str | None = None,
    scopes: Mapping[Tensor, str] | None = None,
) -> TensorIntrin:
    """Declare an intrinsic.

    Parameters
    ----------
    behaviour : Tensor
        What it computes, a `compute` (``y`` or ``y.op``) over placeholders.
    lower : callable
        Takes inputs and outputs; returns one `intrin_call`, or three: compute, reset, update
        (None for what the hardware lacks).
    name : str, optional
        By default the operation's.
    scopes : mapping of Tensor to str, optional
        Where operands must lie.

    Raises
    ------
    ExprError
        If the behaviour reads anything but placeholders, or the rule gives something else.

    Examples
    --------
    An 8x8 matrix product::

        w, x = te.placeholder((8, 8), name="w"), te.placeholder((8, 8), name="x")
        k = te.reduce_axis((0, 8), name="k")
        y = te.compute((8, 8), lambda i, j: te.sum(w[i, k] * x[j, k], axis=k))

        def lower(inputs, outputs):
            reset, update = intrin_call("fill_zero"), intrin_call("fuse_gemm8x8_add")
            return intrin_call("gemm8x8"), reset, update

        gemm8x8 = decl_tensor_intrin(y.op, lower)
    """
    require(behaviour.body is not None, f"{behaviour.name}: a behaviour must be a compute")
    inputs = tuple(inputs_of(behaviour.body))
    for t in inputs:
        require(
            t.is_placeholder,
            f"the behaviour {behaviour.name} must read placeholders only, got {t.name}",
        )
    calls = lower(inputs, (behaviour,))
    if isinstance(calls, IntrinCall):
        calls = (calls, None, None)
    require(
        isinstance(calls, tuple)
        and len(calls) == 3
        and all(c is None or isinstance(c, IntrinCall) for c in calls)
        and any(c is not None for c in calls),
        f"the lowering rule of {behaviour.name} must return one intrin_call or three (compute,"
        f" reset, update), got {calls!r}",
    )
    compute, reset, update = calls
    require(
        isinstance(behaviour.body, Reduce) or compute is not None,
        f"the lowering rule of {behaviour.name} must give compute: it is no reduction",
    )
    first = compute or update or reset
    assert first is not None
    return TensorIntrin(
        name=name or first.name,
        behaviour=behaviour,
        inputs=inputs,
        compute=compute,
        reset=reset,
        update=update,
        scopes=dict(scopes or {}),
    )
