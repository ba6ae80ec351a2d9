"""The template of operators that bring int8 tensors into the accumulator, work there, and store.

What comes in passes through the array, multiplied by the unit matrix or a multiple of it: a tensor
then takes one byte an element of bus and scratchpad, lanes of inputs and outputs may differ, and
the array scales and adds for nothing.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from covta.compiler.ops.average import unit_window
from covta.compiler.ops.model import Machine, TileCost, estimate
from covta.compiler.ops.operator import Operator, require
from covta.compiler.ops.space import Space
from covta.compiler.ops.tiles import Box, even, grid, halves, taper
from covta.compiler.ops.window import Window, tile_sizes
from covta.compiler.schedule import Schedule
from covta.compiler.te import IterVar, Tensor
from covta.hw.params import Config
from covta.runtime.layout import tile_activation, untile_activation

__all__ = ["PointwiseKnobs", "PointwiseOperator"]


@dataclass(frozen=True, kw_only=True)
class PointwiseKnobs:
    """How images are cut.

    Parameters
    ----------
    groups, rows, columns : int
        Of an output tile; channels in groups of as many as the wider of inp and acc elements.
    taper : bool
        End with small tiles.
    stages : int
        Tiles of inputs that share inp; 2 is double buffering, 0 as many as fit.
    """

    groups: int
    rows: int
    columns: int
    taper: bool = True
    stages: int = 0


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """Elements and cycles of one output tile.

    Parameters
    ----------
    inp, acc, wgt : int
        Elements of scratchpads.
    array, resets, alu : float
        Cycles.
    """

    inp: int
    acc: int
    wgt: int
    array: float
    resets: float
    alu: float


class PointwiseOperator(Operator):
    """An operator on images whose channels stay apart."""

    batch: int
    channels: int
    height: int
    width: int

    @property
    def out_shape(self) -> tuple[int, int]:
        """Rows and columns of the output."""
        return self.height, self.width

    @abstractmethod
    def footprint(self, cfg: Config, knobs: PointwiseKnobs) -> Footprint:
        """What one full tile takes."""

    def window(self, cfg: Config) -> Window:
        """Sizes on a machine."""
        return unit_window(cfg, self.batch, self.channels, height=self.height, width=self.width)

    def macs(self) -> int:
        """None that count."""
        return 0

    # ---- knobs -----------------------------------------------------------------------------
    def legal(self, cfg: Config, knobs: PointwiseKnobs) -> bool:
        """True if everything fits its scratchpad."""
        need = self.footprint(cfg, knobs)
        return (
            need.inp * max(1, knobs.stages) <= cfg.inp_depth
            and need.wgt <= cfg.wgt_depth
            and need.acc <= cfg.acc_depth // 2
        )

    def space(self, cfg: Config) -> Space:
        """See `PointwiseKnobs`."""
        oh, ow = self.out_shape
        return Space(
            PointwiseKnobs,
            {
                "groups": tile_sizes(self.window(cfg).groups),
                "rows": tile_sizes(oh),
                "columns": tile_sizes(ow),
                "taper": (True, False),
                "stages": (0, 1, 2, 4),
            },
            lambda knobs: self.legal(cfg, knobs),
        )

    def candidates(self, cfg: Config) -> Iterator[PointwiseKnobs]:
        """Settings worth estimating; not all are legal."""
        oh, ow = self.out_shape
        groups = self.window(cfg).groups
        for columns in dict.fromkeys(even(ow, max(1, ow // k)) for k in (1, 2, 3, 4, 8, 16, 32)):
            for rows in dict.fromkeys(
                even(oh, r) for r in (1, 2, 4, 7, 8, 14, 16, 28, 56, 112) if r < 2 * oh
            ):
                for g in dict.fromkeys(even(groups, g) for g in (1, 2, 4, 8, 16, 32)):
                    yield PointwiseKnobs(groups=g, rows=rows, columns=columns)

    def default(self, cfg: Config) -> PointwiseKnobs:
        """The setting with the least estimate among some."""
        machine = Machine(cfg)
        best: tuple[float, PointwiseKnobs] | None = None
        least = PointwiseKnobs(groups=1, rows=1, columns=1)
        for knobs in (*self.candidates(cfg), least):
            if self.legal(cfg, knobs):
                cycles = self.estimate(machine, knobs)
                if best is None or cycles < best[0]:
                    best = cycles, knobs
        require(
            best is not None,
            f"{self.name}: one output needs {self.footprint(cfg, least)}, {cfg.name} has inp"
            f" {cfg.inp_depth}, wgt {cfg.wgt_depth}, half of acc {cfg.acc_depth // 2}",
        )
        assert best is not None
        return best[1]

    def estimate(self, machine: Machine, knobs: PointwiseKnobs) -> float:
        """Cycles of a setting."""
        cfg, z = machine.cfg, self.window(machine.cfg)
        oh, ow = self.out_shape
        need = self.footprint(cfg, knobs)
        outputs = knobs.groups * z.outputs * knobs.rows * knobs.columns
        tiles = (
            z.images * math.ceil(z.groups / knobs.groups)
            * math.ceil(oh / knobs.rows) * math.ceil(ow / knobs.columns)
        )  # fmt: skip
        rows = knobs.groups * z.inputs * (1 if knobs.columns == ow else knobs.rows)
        read = machine.read(need.inp * cfg.inp_elem_bytes, rows)
        crowded = 1.0 if 2 * need.inp <= cfg.inp_depth else 2.0
        cost = TileCost(
            read=crowded * read + machine.fetch(16),
            first=read,
            array=need.array + 40,
            reset=need.resets,
            alu=need.alu + 80,
            write=machine.write(outputs * cfg.out_elem_bytes),
            slots=cfg.acc_depth // 2 // need.acc,
        )
        return estimate(machine, cost, tiles, outputs)

    def bounds(self, cfg: Config, *, skip_padding: bool = True) -> dict[str, float]:
        """Cycles that each part of the machine needs at least; see `WindowOperator.bounds`."""
        del skip_padding
        z, (oh, ow) = self.window(cfg), self.out_shape
        whole = self.footprint(cfg, PointwiseKnobs(groups=z.groups, rows=oh, columns=ow))
        outputs = z.groups * z.outputs * oh * ow
        each = {
            "array": whole.array,
            "alu": whole.alu,
            "both": (whole.array + whole.alu + whole.resets) / 2,
            "read": whole.inp * cfg.inp_elem_bytes / cfg.bus_bytes,
            "write": outputs * cfg.out_elem_bytes / cfg.bus_bytes,
        }
        bounds = {name: z.images * cycles for name, cycles in each.items()}
        bounds["read"] += whole.wgt * cfg.wgt_elem_bytes / cfg.bus_bytes
        return bounds

    def boxes(self, cfg: Config, knobs: PointwiseKnobs) -> list[Box]:
        """Output tiles as (images, groups, channels, rows, columns)."""
        z = self.window(cfg)
        shape = (z.images, z.groups, z.outputs, *self.out_shape)
        tile = (1, knobs.groups, z.outputs, knobs.rows, knobs.columns)
        boxes = grid(shape, tile)
        if knobs.taper:
            axes = (1, *self.spatial_axes(knobs))
            boxes[-3:] = [half for box in boxes[-3:] for half in halves(box, axes)]
            last = boxes.pop()
            boxes += taper(last, axes, lambda b: math.prod(r[1] for r in b) <= 32, share=2)
        return boxes

    def spatial_axes(self, knobs: PointwiseKnobs) -> tuple[int, ...]:
        """Axes along an image, along which a tile of `boxes` may be cut."""
        return (3, 4)

    def frame(
        self, cfg: Config, knobs: PointwiseKnobs, s: Schedule, y: Tensor, *, rows: bool = False
    ) -> IterVar:
        """Cut the output into tiles, which are stored whole or by `rows`; the loop over them."""
        require(
            self.legal(cfg, knobs),
            f"{self.name}: {knobs} needs {self.footprint(cfg, knobs)}, {cfg.name} has inp"
            f" {cfg.inp_depth}, wgt {cfg.wgt_depth}, half of acc {cfg.acc_depth // 2}",
        )
        tile, *inner = s[y].partition(s[y].axes[:5], self.boxes(cfg, knobs))
        s[y].pragma(inner[4 if rows else 0], "dma_copy")
        return tile

    # ---- data ------------------------------------------------------------------------------
    def pack_image(self, cfg: Config, x: np.ndarray) -> np.ndarray:
        """``(images, groups, inputs, H, W, batch, block_in)``."""
        z = self.window(cfg)
        x = tile_activation(x, cfg.batch, cfg.block_in)
        blocks = z.groups * z.inputs
        x = np.pad(x, [(0, blocks - x.shape[1] if d == 1 else 0) for d in range(x.ndim)])
        return x.reshape(x.shape[0], z.groups, z.inputs, *x.shape[2:])

    def padding_value(self) -> int:
        """What zero inputs become, in lanes beyond the channels."""
        return 0

    def pack_output(self, cfg: Config, result: np.ndarray) -> np.ndarray:
        """Tiled output; lanes beyond the channels are what zeros become."""
        z = self.window(cfg)
        shape = (z.images * cfg.batch, z.groups * z.outputs * cfg.block_out, *result.shape[2:])
        full = np.full(shape, self.padding_value(), np.int8)
        full[: result.shape[0], : result.shape[1]] = result
        tiled = tile_activation(full, cfg.batch, cfg.block_out)
        return tiled.reshape(z.images, z.groups, z.outputs, *tiled.shape[2:])

    def unpack(self, cfg: Config, result: np.ndarray) -> np.ndarray:
        """``(N, C, H, W)`` int8."""
        tiled = result.reshape(result.shape[0], -1, *result.shape[3:])
        return untile_activation(tiled, self.batch, self.channels)

    def image(self) -> tuple[tuple[int, ...], str]:
        """Shape and dtype of a natural input."""
        return (self.batch, self.channels, self.height, self.width), "int8"

    def pack(self, cfg: Config, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Tiled inputs and the matrices they are multiplied by."""
        images = {k: self.pack_image(cfg, v) for k, v in arrays.items() if v.ndim == 4}
        return images | {"w": self.matrices(cfg)}

    @abstractmethod
    def matrices(self, cfg: Config) -> np.ndarray:
        """``(K, outputs, inputs, block_out, block_in)`` int8."""
