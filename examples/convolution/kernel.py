"""The instructions of a convolution, in order."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

from convolution.epilogue import Epilogue
from convolution.geometry import Geometry, Tile
from convolution.layer import Layer
from convolution.requantise import Requantise
from convolution.ring import Ring, ring_elems, runs
from convolution.shadow import Shadow
from convolution.tiling import Tiling, cut
from covta.runtime.builder import Buffer, Builder, Loop

__all__ = ["Conv2d"]

FIRST_PIXELS = 32
"""Positions that are summed first: one weight element is 32 beats, and serves each of them."""

EARLY_BLOCKS = 4
"""Input channel blocks of the first tile that are loaded tap by tap."""


class Conv2d:
    """Emits one convolution into a `Builder`.

    Parameters
    ----------
    b : Builder
        With ``sync="auto"``.
    x : Buffer
        INP, ``(N/batch, C/block_in, H, W)`` elements.
    w : Buffer
        WGT, ``(O/block_out, C/block_in, KH * KW)`` elements.
    y : Buffer
        OUT, ``(N/batch, O/block_out, OH, OW)`` elements.
    bias : Buffer or None
        ACC, ``(O/block_out,)`` elements.
    layer : Layer
    epilogue : Epilogue
    tiling : Tiling
    skip_padding : bool
    """

    def __init__(
        self,
        b: Builder,
        x: Buffer,
        w: Buffer,
        y: Buffer,
        bias: Buffer | None,
        *,
        layer: Layer,
        epilogue: Epilogue,
        tiling: Tiling,
        skip_padding: bool,
    ) -> None:
        self.b, self.x, self.w = b, x, w
        self.layer, self.tiling = layer, tiling
        self.geometry = Geometry(layer=layer, skip_padding=skip_padding)
        self.taps = layer.kernel**2
        self.images, self.ci_blocks = x.shape[0], x.shape[1]
        self.co_blocks, self.out = y.shape[1], layer.out_size
        inputs = self.geometry.plane_elems(tiling.rows) * tiling.ci
        weights = self.taps * tiling.ci * tiling.co
        self.inp = Ring(ring_elems(b.cfg.inp_depth, inputs))
        self.wgt = Ring(ring_elems(b.cfg.wgt_depth, weights, whole=w.elems))
        self.shadow = Shadow()
        self.requantise = Requantise(b, y, bias, epilogue=epilogue, shadow=self.shadow)
        self.sums_at = self.requantise.sums_at

    # ---- the whole -------------------------------------------------------------------------
    def emit(self) -> None:
        """Emit everything but FINISH."""
        tiles = cut(
            self.b.cfg, self.geometry, self.tiling, images=self.images, co_blocks=self.co_blocks
        )
        for k, tile in enumerate(tiles):
            half = k % 2
            if k == 0:
                self._reset(tile)
                if len(tiles) > 1:
                    self.requantise.zero(1, tiles[1])
            else:
                self.shadow.drain(half)
            for chunk in self._chunks(tile, first=k == 0):
                if k == 0 and chunk[0] < EARLY_BLOCKS:
                    self._first_stage(tile, chunk)
                else:
                    self._stage(tile, chunk, half)
            following = tiles[k + 2] if k + 2 < len(tiles) else None
            self.requantise.finish(tile, half, following, load_bias=k < 2)
        self.shadow.drain()

    def _chunks(self, tile: Tile, *, first: bool) -> Iterator[range]:
        """Input channel blocks of each stage: more in a small tile; 1, 1, 2, ... at the start."""
        t = self.tiling
        plane, most = self.geometry.plane_elems(tile.rows), self.geometry.plane_elems(t.rows) * t.ci
        largest = t.ci
        while 2 * largest * plane <= most and 2 * largest * tile.cos <= t.ci * t.co:
            largest *= 2
        begin = 0
        while begin < self.ci_blocks:
            size = min(largest, max(1, begin) if first else largest)
            yield range(begin, min(begin + size, self.ci_blocks))
            begin += size

    def _reset(self, tile: Tile) -> None:
        """Zero the first tile's sums with the array, which has nothing else to do yet."""
        elems = tile.rows * tile.cos * self.out
        self.b.gemm([(self.sums_at[0], 0, 0)], inner=Loop(count=elems, dst=1), reset=True)

    # ---- loads -----------------------------------------------------------------------------
    def _stage(self, tile: Tile, chunk: range, half: int) -> None:
        """Load what is missing of some input channels, and multiply: one GEMM a kernel tap."""
        begin, end = self.geometry.input_rows(tile)
        self._load_inputs(tile, self._claim_inputs(tile, chunk), begin, end)
        self._load_weights(self._claim_weights(tile, chunk))
        for ky in range(self.layer.kernel):
            for kx in range(self.layer.kernel):
                self._gemm(tile, chunk, half, ky, kx, tile)

    def _first_stage(self, tile: Tile, chunk: range) -> None:
        """The same, at the start, where the array waits for loads: some rows first, tap by tap."""
        inputs, weights = self._claim_inputs(tile, chunk), self._claim_weights(tile, chunk)
        done, rows = 0, math.ceil(FIRST_PIXELS / self.out)
        loaded = self.geometry.input_rows(tile)[0]
        while done < tile.rows:
            rows = min(rows, tile.rows - done)
            part = dataclasses.replace(tile, row=tile.row + done, rows=rows)
            end = self.geometry.input_rows(part)[1]
            if end > loaded:
                self._load_inputs(tile, inputs, loaded, end)
            loaded = max(loaded, end)
            for tap in range(self.taps):
                if not done:
                    for co, ci in weights:
                        at = self.wgt.where[co, ci] + tap
                        self.b.load(at, self.w, self.w.index(co, ci, tap), x_size=1)
                self._gemm(tile, chunk, 0, *divmod(tap, self.layer.kernel), part)
            done += rows
            rows *= 2

    def _claim_inputs(self, tile: Tile, chunk: range) -> list[tuple]:
        begin, end = self.geometry.input_rows(tile)
        return self.inp.claim(
            [(tile.image, begin, end, ci) for ci in chunk], (end - begin) * self.geometry.width
        )

    def _claim_weights(self, tile: Tile, chunk: range) -> list[tuple]:
        keys = [(co, ci) for co in range(tile.co, tile.co + tile.cos) for ci in chunk]
        return self.wgt.claim(keys, self.taps)

    def _load_inputs(self, tile: Tile, missing: list[tuple], begin: int, end: int) -> None:
        """Rows ``begin ... end - 1`` of the image for those channel blocks that are missing."""
        layer, size = self.layer, self.layer.size
        ahead = (begin - self.geometry.input_rows(tile)[0]) * self.geometry.width
        top, bottom = max(begin, 0), min(end, layer.rows)
        if not self.geometry.skip_padding or layer.row_step > 1:
            pad = 0 if self.geometry.skip_padding else layer.pad
            for key in missing:
                self.b.load(
                    self.inp.where[key] + ahead,
                    self.x,
                    self.x.index(tile.image, key[3], top * layer.row_step, 0),
                    y_size=bottom - top,
                    x_size=size,
                    x_stride=size * layer.row_step,
                    y_pad=(top - begin, end - bottom),
                    x_pad=(pad, pad),
                )
            return
        whole = ahead == 0 and (begin, end) == self.geometry.input_rows(tile)
        blocks = [key[3] for key in missing]
        for run in runs(blocks) if whole else [[block] for block in blocks]:
            self.b.load(
                self.inp.where[*missing[0][:3], run[0]] + ahead,
                self.x,
                self.x.index(tile.image, run[0], begin, 0),
                y_size=len(run),
                x_size=(end - begin) * size,
                x_stride=size * size,
            )

    def _load_weights(self, missing: list[tuple]) -> None:
        """One LOAD if the missing blocks are a rectangle, else one a row of it."""
        rows: dict[int, list[int]] = {}
        for co, ci in missing:
            rows.setdefault(co, []).append(ci)
        stride = self.ci_blocks * self.taps
        columns = list(rows.values())
        co_runs = runs(list(rows))
        if (
            len(co_runs) == 1
            and all(c == columns[0] for c in columns)
            and len(runs(columns[0])) == 1
        ):
            self._load_block(co_runs[0][0], columns[0], len(rows), stride)
            return
        for co, cis in rows.items():
            for run in runs(cis):
                self._load_block(co, run, 1, stride)

    def _load_block(self, co: int, cis: list[int], cos: int, stride: int) -> None:
        self.b.load(
            self.wgt.where[co, cis[0]],
            self.w,
            self.w.index(co, cis[0], 0),
            y_size=cos,
            x_size=len(cis) * self.taps,
            x_stride=stride,
        )

    # ---- multiplications -------------------------------------------------------------------
    def _gemm(self, tile: Tile, chunk: range, half: int, ky: int, kx: int, part: Tile) -> None:
        """One kernel tap for those positions of a tile's rows in `part` that it reaches."""
        layer, out = self.layer, self.out
        begin, end = self.geometry.input_rows(tile)
        first_row, rows = self.geometry.reach_rows(ky, part.row, part.rows)
        first_column, columns = self.geometry.reach_columns(kx)
        if not rows or not columns:
            return
        row = first_row * layer.row_stride + ky - layer.pad - begin
        column = first_column * layer.stride + kx - (layer.pad if self.geometry.skip_padding else 0)
        dst = (first_row - tile.row) * out + first_column + self.sums_at[half]
        tap = ky * layer.kernel + kx
        uops = [
            (
                dst + (co - tile.co) * tile.rows * out,
                self.inp.where[tile.image, begin, end, ci] + row * self.geometry.width + column,
                self.wgt.where[co, ci] + tap,
            )
            for ci in chunk
            for co in range(tile.co, tile.co + tile.cos)
        ]
        self.b.gemm(
            uops,
            outer=Loop(count=rows, dst=out, src=layer.row_stride * self.geometry.width),
            inner=Loop(count=columns, dst=1, src=layer.stride),
        )
        self.shadow.after_gemm(len(uops) * rows * columns)
