"""From sums back to int8: bias, scale, rounding, activation, saturation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from covta.compiler import te
from covta.compiler.ops.operator import check_types, require
from covta.compiler.te import Expr, Tensor

__all__ = ["Requantize"]

WIDEST_HALF = 15
"""Shift whose half still fits the 16 bits of an immediate."""


@dataclass(frozen=True, kw_only=True)
class Requantize:
    """``clip((((sum + bias) >> pre_shift) * multiplier) >> shift, low, high)``.

    With `rounding` half of the last place is added before the last shift. The scale of a quantised
    network, a real number, becomes ``multiplier * 2**-(pre_shift + shift)``; with `per_channel`
    each output channel has a multiplier of its own. Everything is int32, so `pre_shift` must leave
    room for the product; only a half that fits neither bias nor immediate (`shift` above 15) is
    added where it cannot overflow.

    Parameters
    ----------
    bias : bool
        Add an int32 per output channel, an input ``bias``.
    shift : int
        0 to 31.
    multiplier : int or None
        Of the whole tensor, -32768 to 32767; None: no multiplication.
    per_channel : bool
        Multiply by an int32 per output channel, an input ``multiplier``.
    pre_shift : int
    rounding : bool
    low, high : int
        Within int8; ReLU is ``low = 0``.
    """

    bias: bool = True
    shift: int = 8
    multiplier: int | None = None
    per_channel: bool = False
    pre_shift: int = 0
    rounding: bool = False
    low: int = -128
    high: int = 127

    def __post_init__(self) -> None:
        check_types("requantize", self)
        for name in ("shift", "pre_shift"):
            value = getattr(self, name)
            require(0 <= value <= 31, f"requantize.{name} must be from 0 to 31, got {value}")
        require(
            -128 <= self.low <= self.high <= 127,
            f"requantize: low <= high must lie in int8, got {self.low} ... {self.high}",
        )
        require(
            not (self.per_channel and self.multiplier is not None),
            "requantize: multiplier and per_channel exclude each other",
        )
        require(
            self.multiplier is None or -(1 << 15) <= self.multiplier < 1 << 15,
            f"requantize.multiplier must fit 16 bits, got {self.multiplier}",
        )
        require(self.multiplier != 0, "requantize.multiplier is 0: nothing is left of the sums")

    @property
    def multiplies(self) -> bool:
        """True if there is a multiplication."""
        return self.per_channel or self.multiplier is not None

    @property
    def folds_rounding(self) -> bool:
        """True if the rounding constant can be part of the bias."""
        return self.bias and self.rounding and not self.multiplies and not self.pre_shift

    def inputs(self, channels: int) -> dict[str, tuple[tuple[int, ...], str]]:
        """Natural inputs that it needs: vectors of one int32 per output channel."""
        names = [n for n, used in (("bias", self.bias), ("multiplier", self.per_channel)) if used]
        return {n: ((channels,), "int32") for n in names}

    def expression(
        self,
        value: Expr,
        bias: Expr | None,
        multiplier: Expr | None,
        within: tuple[int, int] | None = None,
    ) -> Expr:
        """Of one element; `bias` has rounding folded in where `folds_rounding`.

        `within` is the least and greatest `value`, if known: what need not be clipped is not.
        """
        if bias is not None:
            value = value + bias
        if self.pre_shift:
            value = value >> self.pre_shift
        if multiplier is not None:
            value = value * multiplier
        elif self.multiplier is not None:
            value = value * self.multiplier
        if self.shift:
            value = self._rounded(value) if self.adds_rounding else value >> self.shift
        least, greatest = self.range(within) if within is not None else (-(1 << 31), 1 << 31)
        if least < self.low:
            value = te.maximum(value, self.low)
        if greatest > self.high:
            value = te.minimum(value, self.high)
        return value

    @property
    def adds_rounding(self) -> bool:
        """True if there is a rounding constant of its own to add."""
        return self.rounding and self.shift > 0 and not self.folds_rounding

    @property
    def rounding_cycles(self) -> int:
        """ALU operations of an element, beside the last shift, that rounding takes."""
        if not self.adds_rounding:
            return 0
        return 1 if self.shift <= WIDEST_HALF else 2

    def _rounded(self, value: Expr) -> Expr:
        """Last shift, with half of the last place added before it.

        What does not fit an immediate is added behind all of the shift but one place:
        ``(x + 2**(n - 1)) >> n`` is ``((x >> (n - 1)) + 1) >> 1``.
        """
        if self.shift <= WIDEST_HALF:
            return (value + (1 << (self.shift - 1))) >> self.shift
        return ((value >> (self.shift - 1)) + 1) >> 1

    def range(self, within: tuple[int, int]) -> tuple[int, int]:
        """Least and greatest before clipping, of sums `within`; no bound where vectors come in."""
        if self.bias or self.per_channel:
            return -(1 << 31), 1 << 31
        ends = [v >> self.pre_shift for v in within]
        if self.multiplier is not None:
            ends = [v * self.multiplier for v in ends]
        if self.rounding and self.shift:
            ends = [v + (1 << (self.shift - 1)) for v in ends]
        if max(map(abs, ends)) >= 1 << 31:
            return -(1 << 31), 1 << 31
        return min(ends) >> self.shift, max(ends) >> self.shift

    def clips(self, within: tuple[int, int] | None) -> int:
        """ALU operations of an element that clipping takes."""
        if within is None:
            return 2
        least, greatest = self.range(within)
        return (least < self.low) + (greatest > self.high)

    def packed_bias(self, bias: np.ndarray) -> np.ndarray:
        """Bias as the expression wants it."""
        if self.folds_rounding and self.shift:
            return bias + np.int32(1 << (self.shift - 1))
        return bias

    def reference(
        self, sums: np.ndarray, arrays: Mapping[str, np.ndarray], axis: int = 1
    ) -> np.ndarray:
        """int8 from int32 sums; `axis` is that of channels."""
        shape = [1] * sums.ndim
        shape[axis] = -1
        value = sums.astype(np.int64)

        def wrap(v: np.ndarray) -> np.ndarray:
            return ((v + (1 << 31)) % (1 << 32)) - (1 << 31)

        if self.bias:
            value = wrap(value + arrays["bias"].astype(np.int64).reshape(shape))
        value >>= self.pre_shift
        if self.per_channel:
            value = wrap(value * arrays["multiplier"].astype(np.int64).reshape(shape))
        elif self.multiplier is not None:
            value = wrap(value * self.multiplier)
        if self.adds_rounding and self.shift > WIDEST_HALF:
            value = ((value >> (self.shift - 1)) + 1) >> 1
        else:
            if self.rounding and self.shift:
                value = wrap(value + (1 << (self.shift - 1)))
            value >>= self.shift
        return np.clip(value, self.low, self.high).astype(np.int8)


Element = Callable[..., Expr]


def epilogue(
    sums: Tensor,
    how: Requantize,
    channel_axis: int,
    vectors: Mapping[str, Tensor],
    name: str = "requantized",
) -> Tensor:
    """A tensor of `how` applied to `sums`; `vectors` are ``(channels / block, batch, block)``."""

    def body(*i: Expr) -> Expr:
        at = (i[channel_axis], i[-2], i[-1])
        bias = vectors["bias"][at] if "bias" in vectors else None
        multiplier = vectors["multiplier"][at] if "multiplier" in vectors else None
        return how.expression(sums[i], bias, multiplier)

    return te.compute(sums.shape, body, name=name)
