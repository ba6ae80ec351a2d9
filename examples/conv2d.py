"""A 2-D convolution written for the machine by hand, at the speed of its multiplier array.

``y = clip((conv(x, w) + bias) >> shift)`` in int8, with int32 sums. The work is cut into *tiles*
(some rows of some output channels), whose sums lie in one half of acc each, in turn; the other half
is meanwhile requantised, stored and zeroed, in the shadow of the multiplications. A tile is summed
in *stages*, each over some input channels, whose inputs and weights are loaded ahead into two
scratchpads used as rings. What is still there is not loaded again.

Three things keep the array from waiting:

- *A short start.* The first tile needs few weights, and its first stage is loaded piece by piece.
- *ALU instructions only where they cannot block.* The compute unit starts instructions in order,
  so one that has to wait holds up the GEMM behind it. `Shadow` releases an ALU instruction only
  behind a GEMM long enough.
- *A short end.* The last tiles get smaller and smaller: only what follows the last GEMM costs time.

With `skip_padding` a kernel tap is applied only where it meets the image, so multiplications by
padding are not done at all, and no padding is stored in inp. Without, all of them are, as on other
machines.

Run it: ``python examples/conv2d.py C8 --on cycle``.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import sys
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
from common import run_example
from reference import conv2d, requantize

from covta.hw.isa import AluOp, MemoryType
from covta.hw.params import Config
from covta.runtime.builder import Buffer, Builder, BuildError, Loop
from covta.runtime.layout import tile_activation, tile_bias, tile_kernel
from covta.runtime.program import Program

__all__ = ["LAYERS", "Conv2d", "Epilogue", "Layer", "Tiling", "build_conv", "build_layer"]


STORE_LATENCY_CYCLES = 160
"""What a store may take beside its beats, as the schedule assumes."""

PIXELS_PER_WEIGHT = 40
"""Positions that use a weight element of 32 beats, so that loading it takes less than using it."""

FIRST_PIXELS = 32
"""Positions that are summed first: one weight element is 32 beats, and serves each of them."""

EARLY_BLOCKS = 4
"""Input channel blocks of the first tile that are loaded tap by tap."""

LOAD_LATENCY_CYCLES = 1200
"""What the compute unit's load may wait for bursts of the load unit that were asked for before."""


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A square convolution: image size, channels, kernel, stride, padding.

    `times` is how often ResNet-18 has it.
    """

    size: int
    inputs: int
    outputs: int
    kernel: int = 3
    stride: int = 1
    pad: int = 1
    times: int = 1

    @property
    def out_size(self) -> int:
        """Rows and columns of the output."""
        return (self.size + 2 * self.pad - self.kernel) // self.stride + 1

    @property
    def row_step(self) -> int:
        """Rows of the image from one that is needed to the next: a 1x1 kernel skips some."""
        return self.stride if self.kernel == 1 and not self.pad else 1

    @property
    def rows(self) -> int:
        """Rows of the image that are needed."""
        return math.ceil(self.size / self.row_step)

    @property
    def row_stride(self) -> int:
        """Needed rows from one output row to the next."""
        return self.stride // self.row_step

    def planes_rows(self, rows: int, *, skip_padding: bool) -> int:
        """Rows that `rows` output rows need; with padding unless it is skipped."""
        height = (rows - 1) * self.row_stride + self.kernel
        return min(height, self.rows) if skip_padding else height

    def macs(self, images: int = 1) -> int:
        """Multiply-accumulates, those with padding among them."""
        return images * self.out_size**2 * self.outputs * self.inputs * self.kernel**2


LAYERS = {
    "C2": Layer(size=56, inputs=64, outputs=64, times=4),
    "C3": Layer(size=56, inputs=64, outputs=128, stride=2),
    "C4": Layer(size=56, inputs=64, outputs=128, kernel=1, stride=2, pad=0),
    "C5": Layer(size=28, inputs=128, outputs=128, times=3),
    "C6": Layer(size=28, inputs=128, outputs=256, stride=2),
    "C7": Layer(size=28, inputs=128, outputs=256, kernel=1, stride=2, pad=0),
    "C8": Layer(size=14, inputs=256, outputs=256, times=3),
    "C9": Layer(size=14, inputs=256, outputs=512, stride=2),
    "C10": Layer(size=14, inputs=256, outputs=512, kernel=1, stride=2, pad=0),
    "C11": Layer(size=7, inputs=512, outputs=512, times=3),
}
"""ResNet-18's convolutions but the first, whose 3 input channels do not fill the lanes."""


@dataclass(frozen=True, kw_only=True)
class Epilogue:
    """What happens to the sums: ``clip((acc + bias) >> shift)``.

    Parameters
    ----------
    shift : int
    relu : bool
        Clip below at 0.
    rounding : bool
        Add half of the last place before the shift.
    use_rqt : bool
        One RQT instruction (extension *requantize*) for rounding, shift and clip.
    """

    shift: int = 8
    relu: bool = True
    rounding: bool = False
    use_rqt: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.shift <= 31:
            raise BuildError(f"shift must be from 0 to 31, got {self.shift}")

    @property
    def rqt_imm(self) -> int:
        """Operand of RQT: shift in bits 4:0, rounding in bit 5, ReLU in bit 6."""
        return self.shift | self.rounding << 5 | self.relu << 6


@dataclass(frozen=True, kw_only=True)
class Tiling:
    """Output rows, output channel blocks of a tile; input channel blocks of a stage."""

    rows: int
    co: int
    ci: int

    @classmethod
    def choose(cls, cfg: Config, layer: Layer, *, bias: bool, skip_padding: bool) -> Tiling:
        """The largest tile that half of acc holds, and stages that fit twice into inp and wgt."""
        ci_blocks, co_blocks = (
            math.ceil(layer.inputs / cfg.block_in),
            math.ceil(layer.outputs / cfg.block_out),
        )
        room = cfg.acc_depth // 2 - (co_blocks if bias else 0)
        out, taps = layer.out_size, layer.kernel**2
        width = layer.size + (0 if skip_padding else 2 * layer.pad)

        def plane_elems(rows: int) -> int:
            return layer.planes_rows(rows, skip_padding=skip_padding) * width

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


@dataclass(frozen=True, kw_only=True)
class Tile:
    """Output rows and output channel blocks whose sums are in acc together."""

    image: int
    row: int
    rows: int
    co: int
    cos: int


class Ring:
    """A scratchpad as a ring of units, each known by a key while it lasts.

    Parameters
    ----------
    depth : int
        Elements that the ring uses.
    """

    def __init__(self, depth: int) -> None:
        self.depth = depth
        self.where: dict[tuple, int] = {}
        self._size: dict[tuple, int] = {}
        self._next = 0

    def claim(self, keys: list[tuple], unit: int) -> list[tuple]:
        """Make room for those of `keys` that are not there; returns them, side by side from the
        first on. All of `keys` are there afterwards."""
        missing = [k for k in keys if k not in self.where]
        if missing:
            self._put(missing, unit)
            if any(k not in self.where for k in keys):  # a unit still needed was overwritten
                missing = list(keys)
                self._put(missing, unit)
        return missing

    def _put(self, keys: list[tuple], unit: int) -> None:
        size = unit * len(keys)
        assert size <= self.depth
        if self._next + size > self.depth:
            self._next = 0
        begin, end = self._next, self._next + size
        for key, at in list(self.where.items()):
            if at < end and begin < at + self._size[key]:
                del self.where[key]
        for k, key in enumerate(keys):
            self.where[key], self._size[key] = begin + k * unit, unit
        self._next = end


@dataclass(kw_only=True)
class Shadow:
    """ALU work, stores and bias loads that wait for their turn beside the GEMMs.

    Time is counted in GEMM cycles. An entry is emitted once it would start while the GEMM before it
    runs.
    """

    clock: int = 0
    free_at: int = 0
    queue: deque[tuple[Callable[[], int], int, int, Callable[[], object]]] = field(
        default_factory=deque
    )

    MARGIN = 24

    def add(
        self,
        emit: Callable[[], object],
        *,
        cost: int,
        half: int,
        ready_at: Callable[[], int] = lambda: 0,
    ) -> None:
        """Queue `emit`, which keeps the ALU `cost` cycles, not before `ready_at`."""
        self.queue.append((ready_at, cost, half, emit))

    def after_gemm(self, cycles: int) -> None:
        """A GEMM of `cycles` was emitted: let through what may start during it."""
        begin, self.clock = self.clock, self.clock + cycles
        while self.queue:
            ready_at, cost, _, emit = self.queue[0]
            start = max(begin, self.free_at, ready_at())
            if start > self.clock - self.MARGIN:
                return
            self.queue.popleft()
            emit()
            self.free_at = start + cost

    def drain(self, half: int | None = None) -> None:
        """Emit everything up to the last entry of `half` (of all), whether it blocks or not."""
        last = max((k for k, e in enumerate(self.queue) if half in (None, e[2])), default=-1)
        for _ in range(last + 1):
            _, cost, _, emit = self.queue.popleft()
            emit()
            self.free_at = max(self.free_at, self.clock) + cost


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
        self.b, self.x, self.w, self.y, self.bias = b, x, w, y, bias
        self.layer, self.epilogue, self.tiling = layer, epilogue, tiling
        self.skip_padding = skip_padding
        cfg = b.cfg
        self.cfg = cfg
        self.taps = layer.kernel**2
        self.images, self.ci_blocks = x.shape[0], x.shape[1]
        self.co_blocks, self.out = y.shape[1], layer.out_size
        self.width = layer.size + (0 if skip_padding else 2 * layer.pad)
        bias_elems = self.co_blocks if bias else 0
        self.halves = b.acc.halves()
        self.bias_at = [half.base for half in self.halves]
        self.sums_at = [half.base + bias_elems for half in self.halves]
        self.clean = [0, 0]  # elements of each half that hold clipped values
        inputs = self._plane_elems(tiling.rows) * tiling.ci
        weights = self.taps * tiling.ci * tiling.co
        self.inp = Ring(_turns(cfg.inp_depth, inputs))
        self.wgt = Ring(_turns(cfg.wgt_depth, weights, whole=w.elems))
        self.stored_at = [0, 0]
        self.shadow = Shadow()

    # ---- cutting ---------------------------------------------------------------------------
    def tiles(self) -> list[Tile]:
        """All tiles in order: the first has one channel block, the last are small."""
        t = self.tiling
        tiles = [
            Tile(
                image=image,
                row=row,
                rows=min(t.rows, self.out - row),
                co=co,
                cos=min(t.co, self.co_blocks - co),
            )
            for image in range(self.images)
            for row in range(0, self.out, t.rows)
            for co in range(0, self.co_blocks, t.co)
        ]
        first, *rest = tiles
        few = max(1, min(first.cos, self._first_cos()))
        head = [first]
        if few < first.cos:
            head = [
                dataclasses.replace(first, cos=few),
                dataclasses.replace(first, co=first.co + few, cos=first.cos - few),
            ]
        tiles = head + rest
        last = tiles.pop()
        return tiles + self._taper(last)

    def _first_cos(self) -> int:
        """Channel blocks of the first tile: as few as its loads can keep up with."""
        t, cfg = self.tiling, self.cfg
        plane = self._plane_elems(t.rows)
        for cos in range(1, t.co):
            beats = plane * cfg.inp_elem_bytes + cos * self.taps * cfg.wgt_elem_bytes
            if beats / cfg.bus_bytes < 0.95 * t.rows * self.out * self.taps * cos:
                return cos
        return t.co

    def _taper(self, tile: Tile) -> list[Tile]:
        if tile.rows * tile.cos * self.out <= max(64, self.out):
            return [tile]
        if tile.cos > 1:
            cut = tile.cos - 1
            return [
                dataclasses.replace(tile, cos=cut),
                *self._taper(dataclasses.replace(tile, co=tile.co + cut, cos=1)),
            ]
        cut = tile.rows - math.ceil(tile.rows / 4)
        return [
            dataclasses.replace(tile, rows=cut),
            *self._taper(dataclasses.replace(tile, row=tile.row + cut, rows=tile.rows - cut)),
        ]

    def _input_rows(self, tile: Tile) -> tuple[int, int]:
        """Rows of the image that a tile needs, first and end; beyond the image where padding is."""
        layer = self.layer
        begin = tile.row * layer.row_stride - layer.pad
        end = (tile.row + tile.rows - 1) * layer.row_stride - layer.pad + layer.kernel
        return (max(begin, 0), min(end, layer.rows)) if self.skip_padding else (begin, end)

    def _plane_elems(self, rows: int) -> int:
        return self.layer.planes_rows(rows, skip_padding=self.skip_padding) * self.width

    # ---- the whole -------------------------------------------------------------------------
    def emit(self) -> None:
        """Emit everything but FINISH."""
        tiles = self.tiles()
        for k, tile in enumerate(tiles):
            half = k % 2
            if k == 0:
                self._reset(tile)
                if len(tiles) > 1:
                    self._zero(1, tiles[1])
            else:
                self.shadow.drain(half)
            for chunk in self._chunks(tile, first=k == 0):
                if k == 0 and chunk[0] < EARLY_BLOCKS:
                    self._first_stage(tile, chunk)
                else:
                    self._stage(tile, chunk, half)
            following = tiles[k + 2] if k + 2 < len(tiles) else None
            self._finish(tile, half, following, load_bias=k < 2)
        self.shadow.drain()

    def _chunks(self, tile: Tile, *, first: bool) -> Iterator[range]:
        """Input channel blocks of each stage: more in a small tile; 1, 1, 2, ... at the start."""
        t = self.tiling
        plane, most = self._plane_elems(tile.rows), self._plane_elems(t.rows) * t.ci
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
        begin, end = self._input_rows(tile)
        self._load_inputs(tile, self._claim_inputs(tile, chunk), begin, end)
        self._load_weights(self._claim_weights(tile, chunk))
        for ky in range(self.layer.kernel):
            for kx in range(self.layer.kernel):
                self._gemm(tile, chunk, half, ky, kx, tile)

    def _first_stage(self, tile: Tile, chunk: range) -> None:
        """The same, at the start, where the array waits for loads: some rows first, tap by tap."""
        inputs, weights = self._claim_inputs(tile, chunk), self._claim_weights(tile, chunk)
        done, rows = 0, math.ceil(FIRST_PIXELS / self.out)
        loaded = self._input_rows(tile)[0]
        while done < tile.rows:
            rows = min(rows, tile.rows - done)
            part = dataclasses.replace(tile, row=tile.row + done, rows=rows)
            end = self._input_rows(part)[1]
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
        begin, end = self._input_rows(tile)
        return self.inp.claim(
            [(tile.image, begin, end, ci) for ci in chunk], (end - begin) * self.width
        )

    def _claim_weights(self, tile: Tile, chunk: range) -> list[tuple]:
        keys = [(co, ci) for co in range(tile.co, tile.co + tile.cos) for ci in chunk]
        return self.wgt.claim(keys, self.taps)

    def _load_inputs(self, tile: Tile, missing: list[tuple], begin: int, end: int) -> None:
        """Rows ``begin ... end - 1`` of the image for those channel blocks that are missing."""
        layer, size = self.layer, self.layer.size
        ahead = (begin - self._input_rows(tile)[0]) * self.width
        top, bottom = max(begin, 0), min(end, layer.rows)
        if not self.skip_padding or layer.row_step > 1:
            pad = 0 if self.skip_padding else layer.pad
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
        whole = ahead == 0 and (begin, end) == self._input_rows(tile)
        blocks = [key[3] for key in missing]
        for run in _runs(blocks) if whole else [[block] for block in blocks]:
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
        runs = _runs(list(rows))
        if len(runs) == 1 and all(c == columns[0] for c in columns) and len(_runs(columns[0])) == 1:
            self._load_block(runs[0][0], columns[0], len(rows), stride)
            return
        for co, cis in rows.items():
            for run in _runs(cis):
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
        begin, end = self._input_rows(tile)
        first_row, rows = self._reach(ky, part.row, part.rows, layer.row_stride, layer.rows)
        first_column, columns = self._reach(kx, 0, out, layer.stride, layer.size)
        if not rows or not columns:
            return
        row = first_row * layer.row_stride + ky - layer.pad - begin
        column = first_column * layer.stride + kx - (layer.pad if self.skip_padding else 0)
        dst = (first_row - tile.row) * out + first_column + self.sums_at[half]
        tap = ky * layer.kernel + kx
        uops = [
            (
                dst + (co - tile.co) * tile.rows * out,
                self.inp.where[tile.image, begin, end, ci] + row * self.width + column,
                self.wgt.where[co, ci] + tap,
            )
            for ci in chunk
            for co in range(tile.co, tile.co + tile.cos)
        ]
        self.b.gemm(
            uops,
            outer=Loop(count=rows, dst=out, src=layer.row_stride * self.width),
            inner=Loop(count=columns, dst=1, src=layer.stride),
        )
        self.shadow.after_gemm(len(uops) * rows * columns)

    def _reach(self, tap: int, first: int, count: int, stride: int, size: int) -> tuple[int, int]:
        """Output rows (columns) from `first` whose tap meets the image: the first, how many."""
        if not self.skip_padding:
            return first, count
        pad = self.layer.pad
        low = max(first, math.ceil((pad - tap) / stride))
        high = min(first + count, (size - 1 + pad - tap) // stride + 1)
        return low, max(0, high - low)

    # ---- what follows the sums -------------------------------------------------------------
    def _finish(self, tile: Tile, half: int, following: Tile | None, *, load_bias: bool) -> None:
        """Requantise, store, zero for the tile after the next: all into the shadow."""
        b, e, shadow = self.b, self.epilogue, self.shadow
        pixels = tile.rows * self.out
        elems = pixels * tile.cos
        sums = b.acc.at(self.sums_at[half], elems)
        now = shadow.clock + 8

        def alu(op: AluOp, imm: int) -> None:
            shadow.add(
                lambda: b.alu(op, sums, imm=imm), cost=elems + 8, half=half, ready_at=lambda: now
            )

        if self.bias is not None:
            self._bias(tile, half, now, load=load_bias)
        elif e.rounding and e.shift and not e.use_rqt:
            alu(AluOp.ADD, 1 << (e.shift - 1))
        high = (1 << (self.cfg.out_bits - 1)) - 1
        if e.use_rqt:
            alu(AluOp.RQT, e.rqt_imm)
        else:
            if e.shift:
                alu(AluOp.SHR, e.shift)
            alu(AluOp.MAX, 0 if e.relu else -high - 1)
            alu(AluOp.MIN, high)
        shadow.add(lambda: self._store(tile, sums.base, half), cost=0, half=half)
        self.clean[half] = max(self.clean[half], elems)
        if following is not None:
            self._zero(half, following)

    def _bias(self, tile: Tile, half: int, now: int, *, load: bool) -> None:
        """Add each channel's bias, brought into the half once."""
        b, pixels = self.b, tile.rows * self.out
        at = self.bias_at[half]
        if load:
            assert self.bias is not None
            beats = self.co_blocks * self.cfg.acc_elem_bytes // self.cfg.bus_bytes
            bias, count = self.bias, self.co_blocks
            self.shadow.add(
                lambda: b.load(at, bias, x_size=count),
                cost=beats + LOAD_LATENCY_CYCLES,
                half=half,
                ready_at=lambda: now,
            )
        self.shadow.add(
            lambda: b.alu(
                AluOp.ADD,
                [self.sums_at[half]],
                [at + tile.co],
                outer=Loop(count=tile.cos, dst=pixels, src=1),
                inner=Loop(count=pixels, dst=1),
            ),
            cost=2 * pixels * tile.cos + 8,
            half=half,
            ready_at=lambda: now,
        )

    def _store(self, tile: Tile, base: int, half: int) -> None:
        # The token for it comes once everything before it in the compute queue is complete.
        begin = max(self.shadow.free_at, self.shadow.clock)
        beats = tile.rows * self.out * tile.cos * self.cfg.out_elem_bytes // self.cfg.bus_bytes
        self.stored_at[half] = begin + beats + STORE_LATENCY_CYCLES
        self.b.store(
            base,
            self.y,
            self.y.index(tile.image, tile.co, tile.row, 0),
            y_size=tile.cos,
            x_size=tile.rows * self.out,
            x_stride=self.out * self.out,
        )

    def _zero(self, half: int, tile: Tile) -> None:
        """Two operations zero anything: the lesser of it and 0, then the greater. One will do
        where nothing is negative, as after ReLU."""
        elems = tile.rows * self.out * tile.cos
        sums = self.b.acc.at(self.sums_at[half], elems)
        ops = [AluOp.MIN, AluOp.MAX]
        if self.epilogue.relu and elems <= self.clean[half]:
            ops = [AluOp.MIN]
        for op in ops:
            self.shadow.add(
                lambda op=op: self.b.alu(op, sums, imm=0),
                cost=elems + 8,
                half=half,
                ready_at=lambda: self.stored_at[half],
            )


def _turns(depth: int, stage: int, *, whole: int | None = None) -> int:
    """Elements of a ring for stages of one size: a power of two of them, at most 4.

    So stages come to lie in few ways, and there are few different micro-ops. But all of it if
    `whole`, everything that will ever be in it, fits.
    """
    if depth < 2 * stage or (whole is not None and whole <= depth):
        return depth
    return stage * (4 if depth >= 4 * stage else 2)


def _runs(numbers: list[int]) -> list[list[int]]:
    """Cut an ascending list where it skips."""
    runs: list[list[int]] = []
    for n in numbers:
        if runs and runs[-1][-1] + 1 == n:
            runs[-1].append(n)
        else:
            runs.append([n])
    return runs


# ---- a layer with random data --------------------------------------------------------------
def build_layer(
    cfg: Config,
    layer: Layer,
    *,
    name: str = "conv2d",
    images: int | None = None,
    epilogue: Epilogue | None = None,
    bias: bool = True,
    tiling: Tiling | None = None,
    skip_padding: bool = True,
    seed: int = 0,
) -> Program:
    """A layer on random data, with NumPy's result as what to expect.

    Parameters
    ----------
    images : int, optional
        One batch if absent.
    epilogue : Epilogue, optional
        By default a shift that leaves int8 well used, and ReLU.
    """
    rng = np.random.default_rng(seed)
    images = images or cfg.batch
    if images % cfg.batch:
        raise BuildError(f"images must be a multiple of batch = {cfg.batch}, got {images}")
    top = (1 << (cfg.inp_bits - 1)) - 1, (1 << (cfg.wgt_bits - 1)) - 1
    x = rng.integers(-top[0] - 1, top[0] + 1, (images, layer.inputs, layer.size, layer.size))
    w = rng.integers(-top[1] - 1, top[1] + 1, (layer.outputs, layer.inputs, *[layer.kernel] * 2))
    offsets = rng.integers(-(1 << 12), 1 << 12, layer.outputs) if bias else None
    if epilogue is None:
        spread = top[0] * top[1] / 3 * math.sqrt(layer.inputs * layer.kernel**2)
        epilogue = Epilogue(shift=max(0, math.ceil(math.log2(2 * spread / top[0]))))
    return build_conv(
        cfg, layer, x, w, offsets,
        name=name, epilogue=epilogue, tiling=tiling, skip_padding=skip_padding,
    )  # fmt: skip


def build_conv(
    cfg: Config,
    layer: Layer,
    x: np.ndarray,
    w: np.ndarray,
    offsets: np.ndarray | None,
    *,
    name: str,
    epilogue: Epilogue,
    tiling: Tiling | None = None,
    skip_padding: bool = True,
) -> Program:
    """A layer on given data, with NumPy's result as what to expect.

    Parameters
    ----------
    x : np.ndarray
        ``(N, C, H, W)`` integers of ``inp_bits``; ``N`` a multiple of ``cfg.batch``.
    w : np.ndarray
        ``(O, C, KH, KW)`` integers of ``wgt_bits``.
    offsets : np.ndarray or None
        ``(O,)`` bias, added to the sums.
    """
    sums = conv2d(x, w, stride=layer.stride, pad=layer.pad)
    if offsets is not None:
        sums += offsets[None, :, None, None]
    result = requantize(
        sums, epilogue.shift, bits=cfg.out_bits, relu=epilogue.relu, rounding=epilogue.rounding
    )

    b = Builder(cfg, name=name)
    kernel = tile_kernel(w, cfg.block_out, cfg.block_in)
    kernel = kernel.reshape(*kernel.shape[:2], -1, *kernel.shape[4:])
    xb = b.buffer("x", MemoryType.INP, tile_activation(x, cfg.batch, cfg.block_in))
    wb = b.buffer("w", MemoryType.WGT, kernel)
    expected = tile_activation(result, cfg.batch, cfg.block_out)
    yb = b.buffer("y", MemoryType.OUT, shape=expected.shape[:4])
    bb = None
    if offsets is not None:
        if epilogue.rounding and epilogue.shift and not epilogue.use_rqt:
            offsets = offsets + (1 << (epilogue.shift - 1))
        bb = b.buffer("bias", MemoryType.ACC, tile_bias(offsets, cfg.batch, cfg.block_out))
    tiling = tiling or Tiling.choose(
        cfg, layer, bias=offsets is not None, skip_padding=skip_padding
    )
    Conv2d(
        b, xb, wb, yb, bb,
        layer=layer, epilogue=epilogue, tiling=tiling, skip_padding=skip_padding,
    ).emit()  # fmt: skip
    return b.build({"y": expected}, meta={"macs": layer.macs(len(x))})


def main() -> int:
    """Build the layer named on the command line, run it, compare."""

    def arguments(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("layer", nargs="?", default="C8", choices=list(LAYERS))
        parser.add_argument("--dense", action="store_true", help="multiply padding too")
        parser.add_argument("--no-bias", action="store_true", help="no bias")
        parser.add_argument("--rqt", action="store_true", help="use the extension requantize")

    def build(cfg: Config, options: argparse.Namespace) -> Program:
        if options.rqt and not cfg.has("requantize"):
            cfg = cfg.model_copy(update={"extensions": (*cfg.extensions, "requantize")})
        return build_layer(
            cfg,
            LAYERS[options.layer],
            name=options.layer,
            epilogue=Epilogue(shift=11, use_rqt=options.rqt),
            bias=not options.no_bias,
            skip_padding=not options.dense,
        )

    return run_example(__doc__, build, arguments)


if __name__ == "__main__":
    sys.exit(main())
