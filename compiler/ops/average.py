"""Average pooling: sums through the unit matrix, divided while requantising."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from covta.compiler.ops.operator import require, require_sizes
from covta.compiler.ops.requantize import Requantize
from covta.compiler.ops.window import Window, WindowOperator, pair
from covta.hw.params import Config

__all__ = ["AveragePool2d", "GlobalAveragePool2d", "mean", "unit_weights", "unit_window"]


def mean(count: int) -> Requantize:
    """Division by `count`, to the nearest, halves upwards: a shift, or a multiplication before."""
    if count & (count - 1) == 0:
        return Requantize(bias=False, shift=count.bit_length() - 1, rounding=True)
    shift = 15 + max(0, (count - 1).bit_length() - 8)
    require(shift <= 23, f"an average must be of at most 65536 elements, got {count}")
    return Requantize(
        bias=False, multiplier=round((1 << shift) / count), shift=shift, rounding=True
    )


def unit_window(cfg: Config, batch: int, channels: int, **sizes: Any) -> Window:
    """A window that leaves channels apart, for `unit_weights`."""
    lanes = max(cfg.block_in, cfg.block_out)
    return Window(
        images=math.ceil(batch / cfg.batch),
        groups=math.ceil(channels / lanes),
        inputs=lanes // cfg.block_in,
        outputs=lanes // cfg.block_out,
        shared=True,
        **sizes,
    )


def unit_weights(cfg: Config, factor: int = 1) -> np.ndarray:
    """``(1, outputs, inputs, 1, 1, block_out, block_in)``: `factor` where lanes are the same."""
    lanes, bo, bi = max(cfg.block_in, cfg.block_out), cfg.block_out, cfg.block_in
    unit = np.eye(lanes, dtype=np.int8) * np.int8(factor)
    unit = unit.reshape(lanes // bo, bo, lanes // bi, bi)
    return unit.transpose(0, 2, 1, 3)[None, :, :, None, None].copy()


class _Average(WindowOperator):
    batch: int
    channels: int
    height: int
    width: int
    kernel: Any
    stride: Any
    padding: Any

    @property
    def images_total(self) -> int:
        """Natural images."""
        return self.batch

    @property
    def out_channels_total(self) -> int:
        """Natural channels."""
        return self.channels

    def window(self, cfg: Config) -> Window:
        """Sizes on a machine."""
        return unit_window(
            cfg, self.batch, self.channels, height=self.height, width=self.width,
            kernel=self.kernel, stride=self.stride, padding=self.padding,
        )  # fmt: skip

    @property
    def within(self) -> tuple[int, int]:
        """Least and greatest sum."""
        taps = self.kernel[0] * self.kernel[1]
        return -128 * taps, 127 * taps

    @property
    def out_shape(self) -> tuple[int, int]:
        """Rows and columns of the output."""
        return Window(
            images=1, groups=1, inputs=1, outputs=1, height=self.height, width=self.width,
            kernel=self.kernel, stride=self.stride, padding=self.padding,
        ).out_shape  # fmt: skip

    def macs(self) -> int:
        """None: additions only."""
        return 0

    def inputs(self) -> dict[str, tuple[tuple[int, ...], str]]:
        """``x`` (N, C, H, W), and what requantisation needs."""
        shape = (self.batch, self.channels, self.height, self.width)
        return {"x": (shape, "int8"), **self.requantize.inputs(self.channels)}

    def pack_weights(self, cfg: Config, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        """The unit matrix."""
        return unit_weights(cfg)

    def reference(self, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        """By NumPy, one tap at a time."""
        x = arrays["x"]
        (kh, kw), (sy, sx), (py, px) = self.kernel, self.stride, self.padding
        oh, ow = self.out_shape
        xp = np.pad(x, ((0, 0), (0, 0), (py, py), (px, px))).astype(np.int64)
        sums = np.zeros((self.batch, self.channels, oh, ow), np.int64)
        for ky in range(kh):
            for kx in range(kw):
                sums += xp[:, :, ky : ky + (oh - 1) * sy + 1 : sy, kx : kx + (ow - 1) * sx + 1 : sx]
        return self.requantize.reference(sums, arrays)


@dataclass(frozen=True, kw_only=True)
class AveragePool2d(_Average):
    """``y[n, c, y, x]``: the mean of a window of ``x[n, c]``, padding counted as zeros.

    Parameters
    ----------
    batch, channels, height, width : int
    kernel, stride, padding : int or (int, int)
        Rows, columns; `stride` is `kernel` by default.
    requantize : Requantize, optional
        Of the sums; by default the mean, rounded to the nearest.
    """

    channels: int
    height: int
    width: int
    kernel: Any = 2
    stride: Any = None
    padding: Any = 0
    batch: int = 1
    requantize: Any = None

    def __post_init__(self) -> None:
        require_sizes(self, "batch", "channels", "height", "width")
        if self.stride is None:
            object.__setattr__(self, "stride", self.kernel)
        for name, low in (("kernel", 1), ("stride", 1), ("padding", 0)):
            object.__setattr__(self, name, pair(self.name, name, getattr(self, name), low))
        require(
            min(self.out_shape) >= 1,
            f"{self.name}: the kernel {self.kernel} must fit the padded image"
            f" {self.height}x{self.width}, got an output of {self.out_shape}",
        )
        if self.requantize is None:
            object.__setattr__(self, "requantize", mean(self.kernel[0] * self.kernel[1]))

    @property
    def name(self) -> str:
        """``average_pool2d``."""
        return "average_pool2d"


@dataclass(frozen=True, kw_only=True)
class GlobalAveragePool2d(_Average):
    """``y[n, c, 0, 0]``: the mean of ``x[n, c]``.

    Parameters
    ----------
    batch, channels, height, width : int
    requantize : Requantize, optional
        Of the sums; by default the mean, rounded to the nearest.
    """

    channels: int
    height: int
    width: int
    batch: int = 1
    requantize: Any = None

    stride = (1, 1)
    padding = (0, 0)

    def __post_init__(self) -> None:
        require_sizes(self, "batch", "channels", "height", "width")
        if self.requantize is None:
            object.__setattr__(self, "requantize", mean(self.height * self.width))

    @property
    def kernel(self) -> tuple[int, int]:  # type: ignore[override]
        """The whole image."""
        return self.height, self.width

    @property
    def name(self) -> str:
        """``global_average_pool2d``."""
        return "global_average_pool2d"
