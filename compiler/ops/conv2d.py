"""2-D convolution: any kernel, stride, padding, dilation, number of channels."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from covta.compiler import te
from covta.compiler.intrin import MachineIntrinsics
from covta.compiler.ops.operator import Operator, Scheduled, require
from covta.compiler.ops.requantize import Requantize, epilogue
from covta.compiler.ops.space import Space
from covta.compiler.ops.tiles import Box, even, grid, taper
from covta.compiler.schedule import create_schedule
from covta.hw.params import Config
from covta.runtime.layout import tile_activation, tile_bias, tile_kernel, untile_activation

__all__ = ["Conv2d", "Conv2dKnobs"]


@dataclass(frozen=True, kw_only=True)
class Conv2dKnobs:
    """How a convolution is cut.

    Parameters
    ----------
    rows, columns, channels : int
        Of an output tile; channels in blocks.
    reduce : int
        Input channel blocks of a stage, whose inputs and weights are loaded together.
    skip_padding : bool
        Apply a tap only where it meets the image; else padding is stored and multiplied.
    channels_first : bool
        Go through all channel tiles before the next rows; else the other way round.
    taper : bool
        Begin and end with small tiles.
    stages : int
        Stages of inputs, and of weights, that share their scratchpads; 2 is double buffering, 0 as
        many as fit.
    """

    rows: int
    columns: int
    channels: int
    reduce: int
    skip_padding: bool = True
    channels_first: bool = True
    taper: bool = True
    stages: int = 0


@dataclass(frozen=True, kw_only=True)
class Conv2d(Operator):
    """``y[n, o, y, x] = requantize(sum x[n, c, y*s + ky*d - p, ...] * w[o, c, ky, kx])``.

    Parameters
    ----------
    batch, in_channels, out_channels, height, width : int
    kernel, stride, padding, dilation : int or (int, int)
        Rows, columns.
    requantize : Requantize
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

    def __post_init__(self) -> None:
        for name in ("kernel", "stride", "padding", "dilation"):
            value = getattr(self, name)
            pair = (value, value) if isinstance(value, int) else tuple(value)
            require(
                len(pair) == 2 and all(isinstance(v, int) for v in pair),
                f"conv2d.{name} must be one or two integers, got {value!r}",
            )
            low = 0 if name == "padding" else 1
            require(min(pair) >= low, f"conv2d.{name} must be at least {low}, got {pair}")
            object.__setattr__(self, name, pair)
        for name in ("batch", "in_channels", "out_channels", "height", "width"):
            value = getattr(self, name)
            require(value >= 1, f"conv2d.{name} must be at least 1, got {value}")
        require(
            min(self.out_shape) >= 1,
            f"conv2d: the kernel {self.kernel} must fit the padded image"
            f" {self.height}x{self.width}, got an output of {self.out_shape}",
        )

    # ---- sizes -----------------------------------------------------------------------------
    @property
    def name(self) -> str:
        """``conv2d``."""
        return "conv2d"

    @property
    def out_shape(self) -> tuple[int, int]:
        """Rows and columns of the output."""
        rows, columns = (
            (n + 2 * p - d * (k - 1) - 1) // s + 1
            for n, k, s, p, d in zip(
                (self.height, self.width),
                self.kernel, self.stride, self.padding, self.dilation,
                strict=True,
            )
        )  # fmt: skip
        return rows, columns

    @property
    def taps(self) -> int:
        """Of the kernel."""
        return self.kernel[0] * self.kernel[1]

    def macs(self) -> int:
        """Multiply-accumulates, those with padding among them."""
        oh, ow = self.out_shape
        return self.batch * oh * ow * self.out_channels * self.in_channels * self.taps

    def inputs(self) -> dict[str, tuple[tuple[int, ...], str]]:
        """``x`` (N, C, H, W), ``w`` (O, C, KH, KW), and what requantisation needs."""
        return {
            "x": ((self.batch, self.in_channels, self.height, self.width), "int8"),
            "w": ((self.out_channels, self.in_channels, *self.kernel), "int8"),
            **self.requantize.inputs(self.out_channels),
        }

    def blocks(self, cfg: Config) -> tuple[int, int, int]:
        """Batches, input channel blocks, output channel blocks."""
        return (
            math.ceil(self.batch / cfg.batch),
            math.ceil(self.in_channels / cfg.block_in),
            math.ceil(self.out_channels / cfg.block_out),
        )

    @property
    def _subsampled(self) -> bool:
        """True if only every so many rows are ever needed: they alone are loaded."""
        return self.kernel[0] == 1 and self.padding[0] == 0 and self.stride[0] > 1

    def input_extent(self, rows: int, columns: int, *, skip_padding: bool) -> tuple[int, int]:
        """Rows and columns in inp that an output tile needs."""
        extents = []
        sizes = (self.height, self.width)
        for d, n in enumerate((rows, columns)):
            stride = 1 if d == 0 and self._subsampled else self.stride[d]
            need = (n - 1) * stride + (self.kernel[d] - 1) * self.dilation[d] + 1
            if skip_padding:
                need = min(need, sizes[d])
            extents.append(need)
        return extents[0], extents[1]

    # ---- knobs -----------------------------------------------------------------------------
    def need(self, cfg: Config, knobs: Conv2dKnobs) -> dict[str, int]:
        """Elements of each scratchpad that one tile or stage takes."""
        rows, columns = self.input_extent(
            knobs.rows, knobs.columns, skip_padding=knobs.skip_padding
        )
        vectors = len(self.requantize.inputs(self.out_channels))
        return {
            "inp": knobs.reduce * rows * columns,
            "wgt": knobs.reduce * knobs.channels * self.taps,
            "acc": knobs.channels * (knobs.rows * knobs.columns + vectors),
        }

    def legal(self, cfg: Config, knobs: Conv2dKnobs) -> bool:
        """True if everything fits its scratchpad."""
        need = self.need(cfg, knobs)
        pad_fits = knobs.skip_padding or all(  # no more than a LOAD can, and never nothing else
            p <= 15 and (k - 1) * d >= p and (o - 1) * s - p <= n - 1
            for p, k, d, o, s, n in zip(
                self.padding, self.kernel, self.dilation, self.out_shape, self.stride,
                (self.height, self.width),
                strict=True,
            )
        )  # fmt: skip
        return (
            need["inp"] * max(1, knobs.stages) <= cfg.inp_depth
            and need["wgt"] * max(1, knobs.stages) <= cfg.wgt_depth
            and need["acc"] <= cfg.acc_depth // 2
            and pad_fits
        )

    def space(self, cfg: Config) -> Space:
        """See `Conv2dKnobs`."""
        oh, ow = self.out_shape
        _, ci, co = self.blocks(cfg)

        def sizes(n: int) -> list[int]:
            return sorted({even(n, k) for k in range(1, n + 1)})

        return Space(
            Conv2dKnobs,
            {
                "rows": sizes(oh),
                "columns": sizes(ow),
                "channels": sizes(co),
                "reduce": [k for k in range(1, ci + 1) if ci % k == 0],
                "skip_padding": (True, False) if max(self.padding) else (True,),
                "channels_first": (True, False),
                "taper": (True, False),
                "stages": (0, 1, 2, 4),
            },
            lambda knobs: self.legal(cfg, knobs),
        )

    def default(self, cfg: Config) -> Conv2dKnobs:
        """The largest tile that a bank of acc holds, stages that fit twice."""
        oh, ow = self.out_shape
        _, ci_blocks, co_blocks = self.blocks(cfg)
        vectors = len(self.requantize.inputs(self.out_channels))
        bank = cfg.acc_depth // 2

        def knobs(rows: int, columns: int, channels: int, reduce: int, stages: int) -> Conv2dKnobs:
            return Conv2dKnobs(
                rows=rows, columns=columns, channels=channels, reduce=reduce, stages=stages
            )

        columns = even(ow, bank - vectors)
        while columns > 1 and not self.legal(cfg, knobs(1, columns, 1, 1, 2)):
            columns = even(ow, columns - 1)
        stages = 2 if self.legal(cfg, knobs(1, columns, 1, 1, 2)) else 1
        require(
            self.legal(cfg, knobs(1, columns, 1, 1, stages)),
            f"{self.name}: one output needs {self.need(cfg, knobs(1, 1, 1, 1, 1))} elements of the"
            f" scratchpads, {cfg.name} has inp {cfg.inp_depth}, wgt {cfg.wgt_depth}, half of acc"
            f" {bank}",
        )
        rows = min(oh, max(1, (bank - vectors) // columns))
        if self.taps == 1:  # little reuse: all channels together, a weight used long enough
            rows = min(rows, math.ceil(40 / columns))
        while rows > 1 and not self.legal(cfg, knobs(rows, columns, 1, 1, 3 if stages > 1 else 1)):
            rows -= 1
        rows = even(oh, rows)
        most = co_blocks if self.taps == 1 else min(8, co_blocks // 2 or 1)
        channels = 1
        while channels < most and self.legal(cfg, knobs(rows, columns, channels + 1, 1, stages)):
            channels += 1
        channels = even(co_blocks, channels)
        reduce = 1
        while (
            2 * reduce <= min(ci_blocks, 4)
            and ci_blocks % (2 * reduce) == 0
            and reduce * channels <= 32
            and self.legal(cfg, knobs(rows, columns, channels, 2 * reduce, 3))
        ):
            reduce *= 2
        return knobs(rows, columns, channels, reduce, 0)

    # ---- computation -----------------------------------------------------------------------
    def boxes(self, cfg: Config, knobs: Conv2dKnobs) -> list[Box]:
        """Output tiles as (images, channel blocks, rows, columns), in the order of work."""
        n, _, co = self.blocks(cfg)
        oh, ow = self.out_shape
        tile = (1, knobs.rows, knobs.columns, knobs.channels)
        boxes = grid((n, oh, ow, co), tile)
        boxes = [(b[0], b[3], b[1], b[2]) for b in boxes]
        if not knobs.channels_first:
            boxes.sort(key=lambda b: (b[0][0], b[1][0], b[2][0], b[3][0]))
        if knobs.taper:
            last = boxes.pop()
            boxes += taper(last, (1, 2), lambda b: b[1][1] * b[2][1] * b[3][1] <= max(64, b[3][1]))
            first = boxes.pop(0)
            few = self._first_channels(cfg, knobs)
            (c, cs) = first[1]
            head = [first]
            if few < cs:
                head = [
                    (first[0], (c, few), *first[2:]),
                    (first[0], (c + few, cs - few), *first[2:]),
                ]
            boxes = head + boxes
        return boxes

    def _first_channels(self, cfg: Config, knobs: Conv2dKnobs) -> int:
        """Channel blocks of the first tile: as few as its loads can keep up with."""
        rows, columns = self.input_extent(
            knobs.rows, knobs.columns, skip_padding=knobs.skip_padding
        )
        pixels = knobs.rows * knobs.columns
        for few in range(1, knobs.channels):
            size = rows * columns * cfg.inp_elem_bytes + few * self.taps * cfg.wgt_elem_bytes
            if size / cfg.bus_bytes < 0.95 * pixels * self.taps * few:
                return few
        return knobs.channels

    def schedule(self, cfg: Config, knobs: Conv2dKnobs) -> Scheduled:
        """Expression and schedule in the machine's layout."""
        require(
            self.legal(cfg, knobs),
            f"{self.name}: {knobs} needs {self.need(cfg, knobs)} elements,"
            f" {cfg.name} has inp {cfg.inp_depth}, wgt {cfg.wgt_depth}, half of acc"
            f" {cfg.acc_depth // 2}",
        )
        machine = MachineIntrinsics(cfg)
        n, ci, co = self.blocks(cfg)
        (kh, kw), (sy, sx), (py, px), (dy, dx) = (
            self.kernel, self.stride, self.padding, self.dilation,
        )  # fmt: skip
        b, bi, bo = cfg.batch, cfg.block_in, cfg.block_out
        x = te.placeholder((n, ci, self.height, self.width, b, bi), "int8", name="x")
        w = te.placeholder((co, ci, kh, kw, bo, bi), "int8", name="w")
        vectors = {
            name: te.placeholder((co, b, bo), "int32", name=name)
            for name in self.requantize.inputs(self.out_channels)
        }
        source, step = x, sy
        if self._subsampled:
            oh = self.out_shape[0]
            source = te.compute(
                (n, ci, oh, self.width, b, bi),
                lambda n, c, y, x_, r, i: x[n, c, y * sy, x_, r, i],
                name="x.rows",
            )
            step = 1
        padded = source
        if py or px:
            padded = te.pad(source, (0, 0, py, px, 0, 0), name="x.pad")
        rc, ry, rx, ri = (
            te.reduce_axis((0, k), name=t)
            for k, t in ((ci, "ci"), (kh, "ky"), (kw, "kx"), (bi, "i"))
        )
        sums = te.compute(
            (n, co, *self.out_shape, b, bo),
            lambda n, c, y, x_, r, o: te.sum(
                padded[n, rc, y * step + ry * dy, x_ * sx + rx * dx, r, ri].astype("int32")
                * w[c, rc, ry, rx, o, ri].astype("int32"),
                axis=[rc, ry, rx, ri],
            ),
            name="sums",
        )
        result = epilogue(sums, self.requantize, 1, vectors)
        y = te.compute(sums.shape, lambda *i: result[i].astype("int8"), name="y")

        s = create_schedule(y)
        tile, *inner = s[y].partition(s[y].axes[:4], self.boxes(cfg, knobs))
        s[y].pragma(inner[0], "dma_copy")
        for tensor in (sums, result):
            s[tensor].set_scope("acc")
            s[tensor].compute_at(s[y], tile)
        s[sums].double_buffer()
        s[result].pragma(s[result].axes[0], "alu")
        for vector in vectors.values():
            cached = s.cache_read(vector, "acc", [result])
            s[cached].compute_at(s[y], tile)
            s[cached].pragma(s[cached].axes[0], "dma_copy")

        # the stages of a tile: some input channels each
        stage, part = s[sums].split(s[sums].reduce_axes[0], knobs.reduce)
        axes = s[sums].axes
        s[sums].reorder(
            axes[0], stage, s[sums].reduce_axes[1], s[sums].reduce_axes[2], part, *axes[1:],
            s[sums].reduce_axes[3],
        )  # fmt: skip
        s[sums].tensorize(axes[4], machine.gemm)
        if self._subsampled:
            near = source
            s[near].set_scope("inp")
            if padded is not source:
                s[padded].compute_inline()
        elif padded is source:
            near = s.cache_read(x, "inp", [sums])
        elif knobs.skip_padding:
            s[padded].compute_inline()
            near = s.cache_read(x, "inp", [padded])
        else:
            near = padded
            s[near].set_scope("inp")
        far = s.cache_read(w, "wgt", [sums])
        for tensor in (near, far):
            s[tensor].compute_at(s[sums], stage)
            s[tensor].pragma(s[tensor].axes[2], "dma_copy")
            if knobs.stages:
                s[tensor].double_buffer(knobs.stages)
        return Scheduled(schedule=s, args=(x, w, *vectors.values(), y))

    # ---- data ------------------------------------------------------------------------------
    def pack(self, cfg: Config, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Tiled inputs."""
        packed = {
            "x": tile_activation(arrays["x"], cfg.batch, cfg.block_in),
            "w": tile_kernel(arrays["w"], cfg.block_out, cfg.block_in),
        }
        if self.requantize.bias:
            bias = self.requantize.packed_bias(arrays["bias"])
            packed["bias"] = tile_bias(bias, cfg.batch, cfg.block_out)
        if self.requantize.per_channel:
            packed["multiplier"] = tile_bias(arrays["multiplier"], cfg.batch, cfg.block_out)
        return packed

    def pack_output(self, cfg: Config, result: np.ndarray) -> np.ndarray:
        """Tiled output; lanes beyond the channels are what zero sums become."""
        oh, ow = self.out_shape
        n, _, co = self.blocks(cfg)
        full = np.zeros((n * cfg.batch, co * cfg.block_out, oh, ow), np.int8)
        zeros = np.zeros((1, co * cfg.block_out, 1, 1), np.int32)
        vectors = {
            name: np.zeros(co * cfg.block_out, np.int32)
            for name in self.requantize.inputs(self.out_channels)
        }
        full[...] = self.requantize.reference(zeros, vectors)
        full[: self.batch, : self.out_channels] = result
        return tile_activation(full, cfg.batch, cfg.block_out)

    def unpack(self, cfg: Config, result: np.ndarray) -> np.ndarray:
        """``(N, O, OH, OW)`` int8."""
        return untile_activation(result, self.batch, self.out_channels)

    def reference(self, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        """By NumPy, one tap at a time, in float64, which is exact here."""
        x, w = arrays["x"], arrays["w"]
        (kh, kw), (sy, sx), (py, px), (dy, dx) = (
            self.kernel, self.stride, self.padding, self.dilation,
        )  # fmt: skip
        oh, ow = self.out_shape
        xp = np.pad(x, ((0, 0), (0, 0), (py, py), (px, px))).astype(np.float64)
        sums = np.zeros((self.batch, self.out_channels, oh, ow))
        for ky in range(kh):
            for kx in range(kw):
                at = xp[
                    :, :,
                    ky * dy : ky * dy + (oh - 1) * sy + 1 : sy,
                    kx * dx : kx * dx + (ow - 1) * sx + 1 : sx,
                ]  # fmt: skip
                sums += np.einsum(
                    "nchw,oc->nohw", at, w[:, :, ky, kx].astype(np.float64), optimize=True
                )
        return self.requantize.reference(sums.astype(np.int64), arrays)
