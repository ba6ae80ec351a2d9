"""Transposed convolution as convolutions of its own, one per row and column modulo the stride.

Output ``y = s * j + f`` of phase `f` sees inputs ``j + t + offset``, for all phases the same
window of `T` taps `t`; that is tap ``f + p % s - s + s * (T - 1 - t)`` of the kernel, where there
is one. The accumulator holds phases side by side, so that a store writes whole rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from covta.compiler import te
from covta.compiler.ops.operator import require, require_sizes
from covta.compiler.ops.requantize import Requantize
from covta.compiler.ops.window import Window, WindowOperator, pair, reduction
from covta.compiler.te import Tensor
from covta.hw.params import Config
from covta.runtime.layout import untile_activation

__all__ = ["TransposedConv2d"]


@dataclass(frozen=True, kw_only=True)
class _Phases(Window):
    """Taps of all phases: `kernel` is their common window, `out_shape` counts places.

    Parameters
    ----------
    places : (int, int)
    share : float
        Of the windows' products, those that neither padding nor a phase without the tap spares.
    """

    places: tuple[int, int]
    share: float

    @property
    def out_shape(self) -> tuple[int, int]:
        """Places, each with all its phases."""
        return self.places

    @property
    def inside(self) -> float:
        """Share of the window's products that are done."""
        return self.share


@dataclass(frozen=True, kw_only=True)
class TransposedConv2d(WindowOperator):
    """``y[n, o, i*s + k - p] += x[n, c, i] * w[c, o, k]``, requantised.

    Parameters
    ----------
    batch, in_channels, out_channels, height, width : int
    kernel, stride, padding, output_padding : int or (int, int)
        Rows, columns; the output has ``(H - 1) * s - 2 * p + k + output_padding`` rows.
    requantize : Requantize
    """

    in_channels: int
    out_channels: int
    height: int
    width: int
    kernel: Any = 4
    stride: Any = 2
    padding: Any = 1
    output_padding: Any = 0
    batch: int = 1
    requantize: Requantize = field(default_factory=Requantize)

    def __post_init__(self) -> None:
        require_sizes(self, "batch", "in_channels", "out_channels", "height", "width")
        for name, low in (("kernel", 1), ("stride", 1), ("padding", 0), ("output_padding", 0)):
            object.__setattr__(self, name, pair(self.name, name, getattr(self, name), low))
        require(
            all(o < s for o, s in zip(self.output_padding, self.stride, strict=True)),
            f"{self.name}.output_padding must be less than stride {self.stride}, got"
            f" {self.output_padding}",
        )
        require(
            min(self.out_shape) >= 1,
            f"{self.name}: padding {self.padding} leaves nothing of the output: {self.out_shape}",
        )

    whole_windows = False

    @property
    def name(self) -> str:
        """``transposed_conv2d``."""
        return "transposed_conv2d"

    @property
    def out_shape(self) -> tuple[int, int]:
        """Rows and columns of the output."""
        rows, columns = (
            (n - 1) * s - 2 * p + k + e
            for n, k, s, p, e in zip(
                (self.height, self.width),
                self.kernel, self.stride, self.padding, self.output_padding,
                strict=True,
            )
        )  # fmt: skip
        return rows, columns

    @property
    def images_total(self) -> int:
        """Natural images."""
        return self.batch

    @property
    def out_channels_total(self) -> int:
        """Natural output channels."""
        return self.out_channels

    def window(self, cfg: Config) -> Window:
        """Sizes on a machine."""
        kernel = tuple(
            -(-(k + s - p % s) // s)
            for k, s, p in zip(self.kernel, self.stride, self.padding, strict=True)
        )
        places = tuple(-(-o // s) for o, s in zip(self.out_shape, self.stride, strict=True))
        share = 1.0
        for d in range(2):
            n, k, s, p = (
                (self.height, self.width)[d],
                self.kernel[d],
                self.stride[d],
                self.padding[d],
            )
            to = np.arange(n)[:, None] * s + np.arange(k) - p
            done = ((to >= 0) & (to < self.out_shape[d])).sum()
            share *= float(done) / (places[d] * s * kernel[d])
        return _Phases(
            images=math.ceil(self.batch / cfg.batch), groups=1,
            inputs=math.ceil(self.in_channels / cfg.block_in),
            outputs=math.ceil(self.out_channels / cfg.block_out),
            height=self.height, width=self.width,
            kernel=kernel, phases=self.stride, places=places, share=share,
        )  # fmt: skip

    def macs(self) -> int:
        """Multiply-accumulates, those whose result is cut off among them."""
        each = self.in_channels * self.out_channels * self.kernel[0] * self.kernel[1]
        return self.batch * self.height * self.width * each

    def inputs(self) -> dict[str, tuple[tuple[int, ...], str]]:
        """``x`` (N, C, H, W), ``w`` (C, O, KH, KW), and what requantisation needs."""
        return {
            "x": ((self.batch, self.in_channels, self.height, self.width), "int8"),
            "w": ((self.in_channels, self.out_channels, *self.kernel), "int8"),
            **self.requantize.inputs(self.out_channels),
        }

    def _origin(self, window: int, d: int) -> tuple[int, int]:
        """Input row of place 0, tap 0; kernel row of phase 0, tap 0."""
        s, p = self.stride[d], self.padding[d]
        return p // s + 2 - window, p % s - s + s * (window - 1)

    def sums(
        self, cfg: Config, z: Window, x: Tensor, w: Tensor, *, gaps: bool = True
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One windowed sum per phase, where it has a tap."""
        (iy, ky), (ix, kx) = (self._origin(z.kernel[d], d) for d in range(2))
        (sy, sx), (kh, kw) = self.stride, self.kernel
        before, after = [0] * 7, [0] * 7
        for d, first in enumerate((iy, ix)):
            size = (self.height, self.width)[d]
            before[3 + d] = max(0, -first)
            after[3 + d] = max(0, z.out_shape[d] - 1 + z.kernel[d] - 1 + first - (size - 1))
        padded = te.pad(x, before, after, name="x.pad") if any(before + after) else x
        iy, ix = iy + before[3], ix + before[4]
        rc, ry, rx, ri = reduction(z, cfg)
        phased = z.phases != (1, 1)

        def product(*i: te.Expr) -> te.Expr:
            n, g, c, y, *rest = i
            fy, x_, fx = rest[:3] if phased else (te.const(0), rest[0], te.const(0))
            r, o = i[-2:]
            row, column = fy + ky - sy * ry.var, fx + kx - sx * rx.var
            at = (g, c, rc, fy, fx, ry, rx) if phased else (g, c, rc, ry, rx)
            inside = te.all_of(row >= 0, row < kh, column >= 0, column < kw)
            weight = te.select(inside, w[(*at, o, ri)], te.const(0, "int8"))
            image = padded[n, g, rc, y + ry + iy, x_ + rx + ix, r, ri]
            return te.sum(image.astype("int32") * weight.astype("int32"), axis=[rc, ry, rx, ri])

        rows, columns = z.out_shape
        spatial = (rows, sy, columns, sx) if phased else (rows, columns)
        shape = (z.images, z.groups, z.outputs, *spatial, cfg.batch, cfg.block_out)
        return te.compute(shape, product, "sums"), x, padded

    def legal(self, cfg: Config, knobs: Any) -> bool:
        """True if everything fits its scratchpad; padding is always skipped."""
        return knobs.skip_padding and super().legal(cfg, knobs)

    def pack_weights(self, cfg: Config, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        """``(1, outputs, inputs, phases..., taps..., block_out, block_in)``."""
        z = self.window(cfg)
        bo, bi = cfg.block_out, cfg.block_in
        (sy, sx), (kh, kw) = self.stride, self.kernel
        w = np.zeros((z.outputs * bo, z.inputs * bi, kh, kw), np.int8)
        w[: self.out_channels, : self.in_channels] = arrays["w"].transpose(1, 0, 2, 3)
        (_, ky), (_, kx) = (self._origin(z.kernel[d], d) for d in range(2))
        out = np.zeros((*w.shape[:2], sy, sx, *z.kernel), np.int8)
        for fy, fx, ty, tx in np.ndindex(out.shape[2:]):
            row, column = fy + ky - sy * ty, fx + kx - sx * tx
            if 0 <= row < kh and 0 <= column < kw:
                out[:, :, fy, fx, ty, tx] = w[:, :, row, column]
        out = out.reshape(z.outputs, bo, z.inputs, bi, *out.shape[2:])
        out = out.transpose(0, 2, 4, 5, 6, 7, 1, 3)
        if z.phases == (1, 1):
            out = out[:, :, 0, 0]
        return out[None].copy()

    def pack_output(self, cfg: Config, result: np.ndarray) -> np.ndarray:
        """As for every window; rows and columns beyond the output are left zero."""
        sizes = (n * s for n, s in zip(self.window(cfg).out_shape, self.stride, strict=True))
        more = [m - n for m, n in zip(sizes, result.shape[2:], strict=True)]
        full = np.pad(result, [(0, 0), (0, 0), *((0, m) for m in more)])
        z = self.window(cfg)
        tiled = super().pack_output(cfg, full)
        if z.phases == (1, 1):
            return tiled
        (rows, columns), (sy, sx) = z.out_shape, z.phases
        return tiled.reshape(*tiled.shape[:3], rows, sy, columns, sx, *tiled.shape[-2:])

    def expected(self, cfg: Config, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        """What a right run leaves, also beyond the output."""
        more = -self.batch % cfg.batch
        whole = replace(self, batch=self.batch + more)
        full = {**arrays, "x": np.pad(arrays["x"], ((0, more), (0, 0), (0, 0), (0, 0)))}
        rows, columns = (
            n * s for n, s in zip(self.window(cfg).out_shape, self.stride, strict=True)
        )
        return whole.pack_output(cfg, whole.spread(full, rows, columns))

    def unpack(self, cfg: Config, result: np.ndarray) -> np.ndarray:
        """``(N, O, OH, OW)`` int8."""
        z = self.window(cfg)
        rows, columns = (n * s for n, s in zip(z.out_shape, z.phases, strict=True))
        tiled = result.reshape(z.images, z.outputs, rows, columns, *result.shape[-2:])
        oh, ow = self.out_shape
        return untile_activation(tiled[:, :, :oh, :ow], self.batch, self.out_channels)

    def reference(self, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        """By NumPy: every input is spread over the output, one tap at a time."""
        return self.spread(arrays, *self.out_shape)

    def spread(self, arrays: Mapping[str, np.ndarray], oh: int, ow: int) -> np.ndarray:
        """The first `oh` rows and `ow` columns of an output without end."""
        x, w = arrays["x"].astype(np.int64), arrays["w"].astype(np.int64)
        (kh, kw), (sy, sx), (py, px) = self.kernel, self.stride, self.padding
        rows, columns = (self.height - 1) * sy + kh, (self.width - 1) * sx + kw
        full = np.zeros(
            (self.batch, self.out_channels, max(rows, py + oh), max(columns, px + ow)), np.int64
        )
        for ky in range(kh):
            for kx in range(kw):
                full[
                    :, :, ky : ky + (self.height - 1) * sy + 1 : sy,
                    kx : kx + (self.width - 1) * sx + 1 : sx,
                ] += np.einsum("nchw,co->nohw", x, w[:, :, ky, kx])  # fmt: skip
        return self.requantize.reference(full[:, :, py : py + oh, px : px + ow], arrays)
