"""Grouped and depthwise convolution."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from covta.compiler.ops.operator import require, require_sizes
from covta.compiler.ops.requantize import Requantize
from covta.compiler.ops.window import Window, WindowOperator, pair
from covta.hw.params import Config

__all__ = ["BatchNorm", "DepthwiseConv2d", "GroupedConv2d", "GroupedOperator"]


class GroupedOperator(WindowOperator):
    """A convolution each of whose outputs sees the inputs of its group only."""

    batch: int
    in_channels: int
    out_channels: int
    groups: int
    height: int
    width: int
    kernel: Any
    stride: Any
    padding: Any
    dilation: Any

    def _check(self) -> None:
        require_sizes(self, "batch", "in_channels", "out_channels", "groups", "height", "width")
        for name, low in (("kernel", 1), ("stride", 1), ("padding", 0), ("dilation", 1)):
            object.__setattr__(self, name, pair(self.name, name, getattr(self, name), low))
        require(
            self.in_channels % self.groups == 0 and self.out_channels % self.groups == 0,
            f"{self.name}: groups must divide in_channels {self.in_channels} and out_channels"
            f" {self.out_channels}, got {self.groups}",
        )
        require(
            min(self.out_shape) >= 1,
            f"{self.name}: the kernel {self.kernel} must fit the padded image"
            f" {self.height}x{self.width}, got an output of {self.out_shape}",
        )

    @property
    def out_shape(self) -> tuple[int, int]:
        """Rows and columns of the output."""
        return Window(
            images=1, groups=1, inputs=1, outputs=1, height=self.height, width=self.width,
            kernel=self.kernel, stride=self.stride, padding=self.padding, dilation=self.dilation,
        ).out_shape  # fmt: skip

    @property
    def images_total(self) -> int:
        """Natural images."""
        return self.batch

    @property
    def out_channels_total(self) -> int:
        """Natural output channels."""
        return self.out_channels

    def together(self, cfg: Config) -> int:
        """Groups of a super-block: as few as fill whole elements on both sides."""
        per_in, per_out = self.in_channels // self.groups, self.out_channels // self.groups
        inputs = cfg.block_in // math.gcd(cfg.block_in, per_in)
        outputs = cfg.block_out // math.gcd(cfg.block_out, per_out)
        return min(self.groups, math.lcm(inputs, outputs))

    def window(self, cfg: Config) -> Window:
        """Sizes on a machine."""
        s = self.together(cfg)
        return Window(
            images=math.ceil(self.batch / cfg.batch),
            groups=math.ceil(self.groups / s),
            inputs=math.ceil(s * (self.in_channels // self.groups) / cfg.block_in),
            outputs=math.ceil(s * (self.out_channels // self.groups) / cfg.block_out),
            height=self.height, width=self.width,
            kernel=self.kernel, stride=self.stride, padding=self.padding, dilation=self.dilation,
        )  # fmt: skip

    def macs(self) -> int:
        """Multiply-accumulates, those with padding among them."""
        oh, ow = self.out_shape
        each = self.in_channels // self.groups * self.kernel[0] * self.kernel[1]
        return self.batch * oh * ow * self.out_channels * each

    def inputs(self) -> dict[str, tuple[tuple[int, ...], str]]:
        """``x`` (N, C, H, W), ``w`` (O, C / groups, KH, KW), and what requantisation needs."""
        return {
            "x": ((self.batch, self.in_channels, self.height, self.width), "int8"),
            "w": (
                (self.out_channels, self.in_channels // self.groups, *self.kernel),
                "int8",
            ),
            **self.requantize.inputs(self.out_channels),
        }

    def kernels(self, cfg: Config, w: np.ndarray) -> np.ndarray:
        """Weights as the window has them."""
        return w

    def pack_weights(self, cfg: Config, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        """Super-blocks' dense weights, zero where groups differ."""
        z, s, w = self.window(cfg), self.together(cfg), self.kernels(cfg, arrays["w"])
        per_out, per_in = self.out_channels // self.groups, w.shape[1]
        bo, bi = cfg.block_out, cfg.block_in
        full = np.zeros((z.groups, z.outputs * bo, z.inputs * bi, *w.shape[2:]), np.int8)
        for g in range(self.groups):
            block, k = divmod(g, s)
            rows = slice(k * per_out, (k + 1) * per_out)
            columns = slice(k * per_in, (k + 1) * per_in)
            full[block, rows, columns] = w[g * per_out : (g + 1) * per_out]
        parts = full.reshape(z.groups, z.outputs, bo, z.inputs, bi, *w.shape[2:])
        return parts.transpose(0, 1, 3, 5, 6, 2, 4).copy()

    def reference(self, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        """By NumPy, one tap at a time, in float64, which is exact here."""
        x, w = arrays["x"], arrays["w"]
        (kh, kw), (sy, sx), (py, px), (dy, dx) = (
            self.kernel, self.stride, self.padding, self.dilation,
        )  # fmt: skip
        oh, ow = self.out_shape
        g = self.groups
        xp = np.pad(x, ((0, 0), (0, 0), (py, py), (px, px))).astype(np.float64)
        xp = xp.reshape(self.batch, g, -1, *xp.shape[2:])
        wg = w.reshape(g, -1, *w.shape[1:]).astype(np.float64)
        sums = np.zeros((self.batch, g, self.out_channels // g, oh, ow))
        for ky in range(kh):
            for kx in range(kw):
                at = xp[
                    ..., ky * dy : ky * dy + (oh - 1) * sy + 1 : sy,
                    kx * dx : kx * dx + (ow - 1) * sx + 1 : sx,
                ]  # fmt: skip
                sums += np.einsum("ngchw,goc->ngohw", at, wg[..., ky, kx], optimize=True)
        natural = sums.reshape(self.batch, self.out_channels, oh, ow).astype(np.int64)
        return self.requantize.reference(natural, arrays)


@dataclass(frozen=True, kw_only=True)
class GroupedConv2d(GroupedOperator):
    """``y[n, o] = requantize(sum over the inputs of o's group)``; any number of groups.

    Parameters
    ----------
    batch, in_channels, out_channels, groups, height, width : int
        `groups` divides both numbers of channels.
    kernel, stride, padding, dilation : int or (int, int)
        Rows, columns.
    requantize : Requantize
    """

    in_channels: int
    out_channels: int
    groups: int
    height: int
    width: int
    kernel: Any = 3
    stride: Any = 1
    padding: Any = 0
    dilation: Any = 1
    batch: int = 1
    requantize: Requantize = field(default_factory=Requantize)

    def __post_init__(self) -> None:
        self._check()

    @property
    def name(self) -> str:
        """``grouped_conv2d``."""
        return "grouped_conv2d"


@dataclass(frozen=True, kw_only=True)
class DepthwiseConv2d(GroupedOperator):
    """``y[n, c, y, x] = requantize(sum x[n, c, y*s + ky*d - p, ...] * w[c, 0, ky, kx])``.

    The weights become diagonal matrices: one micro-op a tap for all lanes.

    Parameters
    ----------
    batch, channels, height, width : int
    multiplier : int
        Outputs per input channel.
    kernel, stride, padding, dilation : int or (int, int)
        Rows, columns.
    requantize : Requantize
    """

    channels: int
    height: int
    width: int
    kernel: Any = 3
    stride: Any = 1
    padding: Any = 0
    dilation: Any = 1
    multiplier: int = 1
    batch: int = 1
    requantize: Requantize = field(default_factory=Requantize)

    def __post_init__(self) -> None:
        require_sizes(self, "multiplier")
        self._check()

    @property
    def name(self) -> str:
        """``depthwise_conv2d``."""
        return "depthwise_conv2d"

    @property
    def in_channels(self) -> int:  # type: ignore[override]
        """As many as groups."""
        return self.channels

    @property
    def out_channels(self) -> int:  # type: ignore[override]
        """Of all groups."""
        return self.channels * self.multiplier

    @property
    def groups(self) -> int:  # type: ignore[override]
        """One a channel."""
        return self.channels


@dataclass(frozen=True, kw_only=True)
class BatchNorm(GroupedOperator):
    """``y[n, c] = requantize(x[n, c] * w[c])``: a multiplication and an addition per channel.

    Parameters
    ----------
    batch, channels, height, width : int
    requantize : Requantize
        Its bias is what is added.
    """

    channels: int
    height: int
    width: int
    batch: int = 1
    requantize: Requantize = field(default_factory=Requantize)

    kernel = stride = dilation = (1, 1)
    padding = (0, 0)

    def __post_init__(self) -> None:
        require_sizes(self, "batch", "channels", "height", "width")

    @property
    def name(self) -> str:
        """``batch_norm``."""
        return "batch_norm"

    in_channels = out_channels = groups = property(lambda self: self.channels)  # type: ignore[assignment]
