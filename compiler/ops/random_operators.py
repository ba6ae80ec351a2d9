"""Random operators, small enough to run in a moment: material for tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from covta.compiler.ops.average import AveragePool2d, GlobalAveragePool2d
from covta.compiler.ops.conv2d import Conv2d
from covta.compiler.ops.elementwise import Elementwise, LeakyRelu, Requantization, ResidualAdd
from covta.compiler.ops.grouped import BatchNorm, DepthwiseConv2d, GroupedConv2d
from covta.compiler.ops.matmul import BatchMatmul, Dense
from covta.compiler.ops.maxpool import MaxPool2d
from covta.compiler.ops.operator import Operator, OperatorError
from covta.compiler.ops.requantize import Requantize
from covta.compiler.ops.transposed import TransposedConv2d
from covta.hw.params import Config

__all__ = ["KINDS", "random_knobs", "random_operator"]


class _Draw:
    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng

    def upto(self, n: int, low: int = 1) -> int:
        """From `low` to `n`, small numbers more often."""
        return low + int((n - low + 1) * self.rng.random() ** 1.6)

    def pick(self, *choices: Any) -> Any:
        return choices[int(self.rng.integers(len(choices)))]

    def both(self, n: int, low: int = 1) -> tuple[int, int]:
        if self.rng.random() < 0.6:
            value = self.upto(n, low)
            return value, value
        return self.upto(n, low), self.upto(n, low)

    def requantize(self, *, vectors: bool = True) -> Requantize:
        low = self.pick(-128, -128, 0, -5)
        per_channel = vectors and self.rng.random() < 0.2
        multiplier = None
        if not per_channel and self.rng.random() < 0.2:
            multiplier = int(self.rng.integers(-300, 300)) or 1
        return Requantize(
            bias=vectors and self.rng.random() < 0.6,
            shift=self.upto(14, 0),
            multiplier=multiplier,
            per_channel=per_channel,
            pre_shift=self.pick(0, 0, 0, 3),
            rounding=self.rng.random() < 0.4,
            low=low,
            high=self.pick(127, 127, 6, 100),
        )

    def image(self, side: int = 12) -> dict[str, int]:
        return {
            "height": self.upto(side), "width": self.upto(side), "batch": self.pick(1, 1, 1, 2, 3),
        }  # fmt: skip

    def window(self, kernel: int = 4, *, dilated: bool = True) -> dict[str, Any]:
        settings = {"kernel": self.both(kernel), "stride": self.both(3), "padding": self.both(2, 0)}
        return settings | ({"dilation": self.both(2)} if dilated else {})


def _conv2d(d: _Draw) -> Operator:
    return Conv2d(
        in_channels=d.upto(40), out_channels=d.upto(40), requantize=d.requantize(),
        gather=d.pick(False, None, False, True), **d.image(), **d.window(),
    )  # fmt: skip


def _depthwise(d: _Draw) -> Operator:
    return DepthwiseConv2d(
        channels=d.upto(40), multiplier=d.pick(1, 1, 2), requantize=d.requantize(),
        **d.image(), **d.window(),
    )  # fmt: skip


def _grouped(d: _Draw) -> Operator:
    groups = d.upto(8)
    return GroupedConv2d(
        in_channels=groups * d.upto(9), out_channels=groups * d.upto(9), groups=groups,
        requantize=d.requantize(), **d.image(8), **d.window(),
    )  # fmt: skip


def _transposed(d: _Draw) -> Operator:
    settings = d.window(dilated=False)
    stride = settings["stride"]
    return TransposedConv2d(
        in_channels=d.upto(24), out_channels=d.upto(24), requantize=d.requantize(),
        output_padding=tuple(d.upto(s - 1, 0) for s in stride), **d.image(7), **settings,
    )  # fmt: skip


def _dense(d: _Draw) -> Operator:
    return Dense(
        in_features=d.upto(90), out_features=d.upto(90), batch=d.upto(20),
        requantize=d.requantize(),
    )  # fmt: skip


def _batch_matmul(d: _Draw) -> Operator:
    return BatchMatmul(
        items=d.upto(4), rows=d.upto(20), in_features=d.upto(40), out_features=d.upto(40),
        requantize=d.requantize(),
    )  # fmt: skip


def _max_pool(d: _Draw) -> Operator:
    return MaxPool2d(channels=d.upto(40), **d.image(), **d.window(dilated=False))


def _average_pool(d: _Draw) -> Operator:
    how = None if d.rng.random() < 0.5 else d.requantize()
    return AveragePool2d(
        channels=d.upto(40), requantize=how, **d.image(), **d.window(dilated=False)
    )


def _global_average(d: _Draw) -> Operator:
    return GlobalAveragePool2d(channels=d.upto(40), **d.image(8))


def _residual_add(d: _Draw) -> Operator:
    scales = {k: int(d.rng.integers(-128, 128)) for k in ("scale_a", "scale_b")}
    return ResidualAdd(
        channels=d.upto(40), requantize=d.requantize(vectors=False), **scales, **d.image()
    )


def _elementwise(d: _Draw) -> Operator:
    return Elementwise(
        channels=d.upto(40), op=d.pick("add", "multiply", "min", "max"),
        requantize=d.requantize(vectors=False), **d.image(),
    )  # fmt: skip


def _leaky_relu(d: _Draw) -> Operator:
    shift = d.upto(7, 0)
    return LeakyRelu(
        channels=d.upto(40), slope=int(d.rng.integers(min(127, 1 << shift) + 1)),
        slope_shift=shift, **d.image(),
    )  # fmt: skip


def _requantization(d: _Draw) -> Operator:
    return Requantization(channels=d.upto(40), requantize=d.requantize(), **d.image())


def _batch_norm(d: _Draw) -> Operator:
    return BatchNorm(channels=d.upto(40), requantize=d.requantize(), **d.image())


KINDS: dict[str, Callable[[_Draw], Operator]] = {
    "conv2d": _conv2d,
    "depthwise_conv2d": _depthwise,
    "grouped_conv2d": _grouped,
    "transposed_conv2d": _transposed,
    "dense": _dense,
    "batch_matmul": _batch_matmul,
    "max_pool2d": _max_pool,
    "average_pool2d": _average_pool,
    "global_average_pool2d": _global_average,
    "residual_add": _residual_add,
    "elementwise": _elementwise,
    "leaky_relu": _leaky_relu,
    "requantization": _requantization,
    "batch_norm": _batch_norm,
}
"""Makers of random operators, by the operator's name."""


def random_operator(rng: np.random.Generator, kind: str | None = None) -> Operator:
    """Any operator that can be, of a random kind unless one is given."""
    make = KINDS[kind or list(KINDS)[int(rng.integers(len(KINDS)))]]
    while True:
        try:
            return make(_Draw(rng))
        except OperatorError:
            continue


MAX_TILES = 40


def random_knobs(rng: np.random.Generator, cfg: Config, operator: Operator) -> Any:
    """A random legal setting of not too many tiles; half of the time the default.

    Raises
    ------
    OperatorError
        If the machine is too small for the operator.
    """
    default = operator.default(cfg)
    if rng.random() < 0.4:
        return default
    space = operator.space(cfg)
    for _ in range(400):
        draw = {k: v[int(rng.integers(len(v)))] for k, v in space.choices.items()}
        knobs = space.make(**draw)
        if space.legal(knobs) and pieces(cfg, operator, knobs) <= MAX_TILES:
            return knobs
    return default


def pieces(cfg: Config, operator: Any, knobs: Any) -> int:
    """Output tiles, times stages of each."""
    count = len(operator.boxes(cfg, knobs))
    if hasattr(knobs, "reduce"):
        window = operator.window(cfg)
        count *= window.inputs // knobs.reduce
        for k, n in zip(window.kernel, window.part(knobs), strict=True):
            count *= -(-k // n)
    return count
