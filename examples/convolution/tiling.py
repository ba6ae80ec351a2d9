"""Tiles: their size, and how a convolution is cut into them."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

from convolution.geometry import Geometry, Tile
from convolution.layer import Layer
from covta.hw.params import Config
from covta.runtime.builder import BuildError

__all__ = ["Tiling", "cut"]

PIXELS_PER_WEIGHT = 40
"""Positions that use a weight element of 32 beats, so that loading it takes less than using it."""

LAST_PIXELS = 64
"""Elements of the smallest last tile: what follows the last GEMM grows with them."""


@dataclass(frozen=True, kw_only=True)
class Tiling:
    """Output rows, output channel blocks of a tile; input channel blocks of a stage."""

    rows: int
    co: int
    ci: int

    @classmethod
    def choose(cls, cfg: Config, layer: Layer, *, bias: bool, skip_padding: bool) -> Tiling:
        """The largest tile that half of acc holds, and stages that fit twice into inp and wgt."""
        ci_blocks = math.ceil(layer.inputs / cfg.block_in)
        co_blocks = math.ceil(layer.outputs / cfg.block_out)
        room = cfg.acc_depth // 2 - (co_blocks if bias else 0)
        out, taps = layer.out_size, layer.kernel**2
        plane_elems = Geometry(layer=layer, skip_padding=skip_padding).plane_elems

        rows = min(out, max(1, room // out))
        if layer.kernel == 1:  # little reuse: all channels together, a weight used long enough
            rows = min(rows, math.ceil(PIXELS_PER_WEIGHT / out))
        while rows > 1 and 3 * plane_elems(rows) > cfg.inp_depth:
            rows -= 1
        rows = math.ceil(out / math.ceil(out / rows))
        plane = plane_elems(rows)
        most = co_blocks if layer.kernel == 1 else min(8, co_blocks // 2 or 1)
        co = max(1, min(most, room // (rows * out), cfg.wgt_depth // taps))
        co = math.ceil(co_blocks / math.ceil(co_blocks / co))
        ci = 1
        while (
            2 * ci <= min(ci_blocks, 4)
            and ci * co <= 32
            and 3 * 2 * ci * plane <= cfg.inp_depth
            and 4 * 2 * ci * co * taps <= cfg.wgt_depth
        ):
            ci *= 2
        if plane > cfg.inp_depth or co * ci * taps > cfg.wgt_depth or rows * out > room:
            raise BuildError(
                f"a tile of one row must fit the scratchpads of {cfg.name}, got {plane} of"
                f" {cfg.inp_depth} inp, {co * ci * taps} of {cfg.wgt_depth} wgt elements"
            )
        return cls(rows=rows, co=co, ci=ci)


def cut(
    cfg: Config, geometry: Geometry, tiling: Tiling, *, images: int, co_blocks: int
) -> list[Tile]:
    """All tiles in order: the first has few channel blocks, the last are small."""
    out = geometry.layer.out_size
    first, *rest = [
        Tile(
            image=image,
            row=row,
            rows=min(tiling.rows, out - row),
            co=co,
            cos=min(tiling.co, co_blocks - co),
        )
        for image in range(images)
        for row in range(0, out, tiling.rows)
        for co in range(0, co_blocks, tiling.co)
    ]
    few = min(first.cos, _first_cos(cfg, geometry, tiling))
    head = [first]
    if few < first.cos:
        head = [
            dataclasses.replace(first, cos=few),
            dataclasses.replace(first, co=first.co + few, cos=first.cos - few),
        ]
    *tiles, last = head + rest
    return tiles + _taper(last, out)


def _first_cos(cfg: Config, geometry: Geometry, tiling: Tiling) -> int:
    """Channel blocks of the first tile: as few as its loads can keep up with."""
    layer = geometry.layer
    taps = layer.kernel**2
    plane = geometry.plane_elems(tiling.rows)
    for cos in range(1, tiling.co):
        size_bytes = plane * cfg.inp_elem_bytes + cos * taps * cfg.wgt_elem_bytes
        if size_bytes / cfg.bus_bytes < 0.95 * tiling.rows * layer.out_size * taps * cos:
            return cos
    return tiling.co


def _taper(tile: Tile, out: int) -> list[Tile]:
    """A tile as ever smaller ones: channel blocks are cut off first, then rows."""
    if tile.rows * tile.cos * out <= max(LAST_PIXELS, out):
        return [tile]
    if tile.cos > 1:
        size = tile.cos - 1
        return [
            dataclasses.replace(tile, cos=size),
            *_taper(dataclasses.replace(tile, co=tile.co + size, cos=1), out),
        ]
    size = tile.rows - math.ceil(tile.rows / 4)
    return [
        dataclasses.replace(tile, rows=size),
        *_taper(dataclasses.replace(tile, row=tile.row + size, rows=tile.rows - size), out),
    ]
