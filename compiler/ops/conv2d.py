"""2-D convolution: any kernel, stride, padding, dilation, number of channels."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import numpy as np

from covta.compiler.ops.grouped import GroupedOperator
from covta.compiler.ops.model import Machine
from covta.compiler.ops.requantize import Requantize
from covta.compiler.ops.tiles import Box, even, grid, taper
from covta.compiler.ops.window import Window, WindowKnobs, in_order, waits
from covta.hw.params import Config
from covta.runtime.layout import tile_activation

__all__ = ["Conv2d", "Conv2dKnobs"]

Conv2dKnobs = WindowKnobs


@dataclass(frozen=True, kw_only=True)
class Conv2d(GroupedOperator):
    """``y[n, o, y, x] = requantize(sum x[n, c, y*s + ky*d - p, ...] * w[o, c, ky, kx])``.

    Parameters
    ----------
    batch, in_channels, out_channels, height, width : int
    kernel, stride, padding, dilation : int or (int, int)
        Rows, columns.
    requantize : Requantize
    gather : bool or None
        Let the host put the inputs of each output side by side: for a first layer, whose few
        channels would leave lanes empty. Packed data grow by ``taps / stride**2``. None: where
        the machine's bounds say that it saves a tenth of the time.
    """

    in_channels: int
    out_channels: int
    height: int
    width: int
    kernel: Any = 3
    stride: Any = 1
    padding: Any = 0
    dilation: Any = 1
    batch: int = 1
    requantize: Requantize = field(default_factory=Requantize)
    gather: bool | None = None

    groups = 1

    def __post_init__(self) -> None:
        self._check()

    @property
    def name(self) -> str:
        """``conv2d``."""
        return "conv2d"

    def gathers(self, cfg: Config) -> bool:
        """Whether the host gathers inputs for a machine."""
        return _gather_pays(self, cfg) if self.gather is None else self.gather

    def window(self, cfg: Config) -> Window:
        """Sizes on a machine."""
        z = super().window(cfg)
        if not self.gathers(cfg):
            return z
        inputs = math.ceil(self.in_channels * z.taps / cfg.block_in)
        rows, columns = z.out_shape
        return Window(
            images=z.images, groups=1, inputs=inputs, outputs=z.outputs,
            height=rows, width=columns,
        )  # fmt: skip

    # ---- data ------------------------------------------------------------------------------
    def kernels(self, cfg: Config, w: np.ndarray) -> np.ndarray:
        """Weights as the window has them."""
        return w.reshape(w.shape[0], -1, 1, 1) if self.gathers(cfg) else w

    def pack_data(self, cfg: Config, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        """``(images, 1, inputs, H, W, batch, block_in)``; gathered: of the output's size."""
        if not self.gathers(cfg):
            return super().pack_data(cfg, arrays)
        (py, px), (sy, sx), (dy, dx) = self.padding, self.stride, self.dilation
        x = np.pad(arrays["x"], ((0, 0), (0, 0), (py, py), (px, px)))
        extent = tuple(d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilation, strict=True))
        views = np.lib.stride_tricks.sliding_window_view(x, extent, axis=(2, 3))
        views = views[:, :, ::sy, ::sx, ::dy, ::dx]  # (N, C, OH, OW, KH, KW)
        n, c, oh, ow, kh, kw = views.shape
        side = views.transpose(0, 1, 4, 5, 2, 3).reshape(n, c * kh * kw, oh, ow)
        return tile_activation(side, cfg.batch, cfg.block_in)[:, None]

    # ---- knobs -----------------------------------------------------------------------------
    def default(self, cfg: Config) -> WindowKnobs:
        """The largest tile that a bank of acc holds, stages that fit twice.

        Where little is used again, or that does not fit, what the model picks.
        """
        oh, ow = self.out_shape
        z = self.window(cfg)
        vectors = len(self.requantize.inputs(self.out_channels))
        bank = cfg.acc_depth // 2

        def knobs(rows: int, columns: int, channels: int, reduce: int, stages: int) -> WindowKnobs:
            return WindowKnobs(
                rows=rows,
                columns=columns,
                channels=channels,
                reduce=reduce,
                stages=stages,
                weight_stages=stages,
            )

        columns = even(ow, bank - vectors)
        while columns > 1 and not self.legal(cfg, knobs(1, columns, 1, 1, 2)):
            columns = even(ow, columns - 1)
        if z.taps == 1 or not self.legal(cfg, knobs(1, columns, 1, 1, 2)):
            return super().default(cfg)
        rows = min(oh, max(1, (bank - vectors) // columns))
        while rows > 1 and not self.legal(cfg, knobs(rows, columns, 1, 1, 3)):
            rows -= 1
        rows = even(oh, rows)
        most = min(8, z.outputs // 2 or 1)
        channels = 1
        while channels < most and self.legal(cfg, knobs(rows, columns, channels + 1, 1, 2)):
            channels += 1
        channels = even(z.outputs, channels)
        reduce = 1
        while (
            2 * reduce <= min(z.inputs, 4)
            and z.inputs % (2 * reduce) == 0
            and reduce * channels <= 32
            and self.legal(cfg, knobs(rows, columns, channels, 2 * reduce, 3))
        ):
            reduce *= 2
        mine, other = knobs(rows, columns, channels, reduce, 0), super().default(cfg)
        machine = Machine(cfg)  # what it picks is taken where it gains much: bandwidth is scarce
        costs = [self.estimate(machine, z, k) for k in (mine, other)]
        return other if costs[1] < 0.93 * costs[0] else mine

    # ---- computation -----------------------------------------------------------------------
    def boxes(self, cfg: Config, knobs: WindowKnobs) -> list[Box]:
        """Output tiles as (images, 1, channel blocks, rows, columns), in the order of work."""
        z = self.window(cfg)
        if z.taps == 1:
            return super().boxes(cfg, knobs)
        shape = (z.images, 1, *z.out_shape, z.outputs)
        tile = (1, 1, knobs.rows, knobs.columns, knobs.channels)
        boxes = in_order([(b[0], b[1], b[4], b[2], b[3]) for b in grid(shape, tile)], knobs)
        if knobs.taper and not waits(self.bounds(cfg)):
            last = boxes.pop()
            boxes += taper(last, (2, 3), lambda b: b[2][1] * b[3][1] * b[4][1] <= max(64, b[4][1]))
            first = boxes.pop(0)
            few = self._first_channels(cfg, z, knobs)
            (c, cs) = first[2]
            head = [first]
            if few < cs:
                head = [
                    (*first[:2], (c, few), *first[3:]),
                    (*first[:2], (c + few, cs - few), *first[3:]),
                ]
            boxes = head + boxes
        return boxes

    def _first_channels(self, cfg: Config, z: Window, knobs: WindowKnobs) -> int:
        """Channel blocks of the first tile: as few as its loads can keep up with."""
        rows, columns = z.extent(knobs)
        pixels = knobs.rows * knobs.columns
        for few in range(1, knobs.channels):
            size = rows * columns * cfg.inp_elem_bytes + few * z.taps * cfg.wgt_elem_bytes
            if size / cfg.bus_bytes < 0.95 * pixels * z.taps * few:
                return few
        return knobs.channels


@lru_cache(maxsize=1024)
def _gather_pays(operator: Conv2d, cfg: Config) -> bool:
    """Whether the tightest bound is lower by a tenth where the host gathers inputs."""
    if operator.in_channels >= cfg.block_in or math.prod(operator.kernel) == 1:
        return False
    plain, gathered = (
        max(replace(operator, gather=gather).bounds(cfg).values()) for gather in (False, True)
    )
    return gathered <= 0.9 * plain
