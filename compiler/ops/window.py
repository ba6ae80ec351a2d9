"""The template behind every operator that sums products over a window of its input.

Images are cut into *super-blocks* of channels that have nothing to do with each other: the groups
of a grouped convolution, as many of them together as fill whole elements. Within one super-block
everything is a dense convolution, whose weights hold zeros where a group ends. So a depthwise
convolution multiplies by diagonal matrices, an average by the unit matrix, and a batch of matrix
products is one super-block an item.
"""

from __future__ import annotations

import itertools
import math
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from covta.compiler import te
from covta.compiler.intrin import MachineIntrinsics
from covta.compiler.ops.lines import Lines, overlap
from covta.compiler.ops.model import Machine, TileCost, estimate, in_turns
from covta.compiler.ops.operator import Operator, Scheduled, require
from covta.compiler.ops.requantize import Requantize
from covta.compiler.ops.space import Space
from covta.compiler.ops.startup import Start, array_idle_cycles, write_idle_cycles
from covta.compiler.ops.tiles import Box, even, grid, taper
from covta.compiler.ops.traffic import Traffic, least_bytes
from covta.compiler.schedule import create_schedule
from covta.compiler.te import Tensor
from covta.hw.params import Config
from covta.runtime.layout import tile_activation, tile_bias, untile_activation

__all__ = [
    "Window",
    "WindowKnobs",
    "WindowOperator",
    "divisors",
    "in_order",
    "pair",
    "reduction",
    "requantize_cycles",
    "tile_sizes",
    "waits",
]

STAGES = (0, 1, 2, 4, 6, 8, 12, 16, 24, 32, 48, 64)
"""Choices of how many stages have room."""

MANY_LOADS = 1.01
"""What loads of single elements cost where the ALU has most to do, and little is read anyway."""

MANY_LINES = 1.07
"""What rows that lie apart cost, beside what the model knows of."""

FEW_STAGES = 4
"""Of which a scratchpad holds no more where knobs give no number, unless it holds everything."""

MAX_PAD = 15
"""Rows or columns that one LOAD pads on a side."""


@dataclass(frozen=True, kw_only=True)
class WindowKnobs:
    """How a windowed sum is cut.

    Parameters
    ----------
    rows, columns : int
        Of an output tile.
    channels : int
        Output channel blocks of a tile.
    reduce : int
        Input channel blocks of a stage, whose inputs and weights are loaded together.
    groups : int
        Super-blocks of a tile.
    kernel_rows, kernel_columns : int
        Taps of a stage; 0 for all.
    skip_padding : bool
        Apply a tap only where it meets the image; else padding is stored and multiplied.
    channels_first : bool
        Go through all channel tiles before the next rows; else the other way round.
    taper : bool
        Begin and end with small tiles.
    gaps : bool
        Load also the columns that a stride steps over; else, where one column of taps meets no
        padding, an element at a time: less to read, in more bursts.
    stages, weight_stages : int
        Stages of inputs, and of weights, that have room in their scratchpads; 2 is double
        buffering. As many as a tile has, and those of the next tile that needs the same find them
        there. 0 is as many as fit, but few.
    banks : int
        Of acc, that tiles take in turns: 2, so that the ALU works on one while the array works on
        the next; with 1 a tile may take all of acc: less is read, nothing overlaps but loads.
    threads : int
        Virtual threads: 2 sum two tiles stage by stage in turns, each with a share of the
        scratchpads; what both load is there once. Only tiles that are all alike can be paired.
    preload : bool
        Load the bias into the sums at first, an element at a time, instead of resetting them and
        adding it: more is read, and the ALU has less to do.
    lines : bool
        Load rows of the input by themselves, and go down the image strip by strip: a tile finds the
        rows there that it shares with the one before.
    """

    rows: int
    columns: int
    channels: int
    reduce: int
    groups: int = 1
    kernel_rows: int = 0
    kernel_columns: int = 0
    skip_padding: bool = True
    channels_first: bool = True
    taper: bool = True
    gaps: bool = True
    stages: int = 0
    weight_stages: int = 0
    banks: int = 2
    threads: int = 1
    preload: bool = False
    lines: bool = False


@dataclass(frozen=True, kw_only=True)
class Window:
    """Sizes of a windowed sum in the machine's layout.

    Parameters
    ----------
    images, groups, inputs, outputs : int
        Image blocks; super-blocks; input and output channel blocks of each.
    height, width : int
        Of the input.
    kernel, stride, padding, dilation : (int, int)
        Rows, columns.
    shared : bool
        One matrix of weights serves all super-blocks and all taps.
    phases : (int, int)
        Rows and columns of output that stand at each place, each with taps of its own; `kernel` is
        the input window of all of them.
    """

    images: int
    groups: int
    inputs: int
    outputs: int
    height: int
    width: int
    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    shared: bool = False
    phases: tuple[int, int] = (1, 1)

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

    @property
    def subsampled(self) -> bool:
        """True if only every so many rows are ever needed: they alone are loaded."""
        return self.kernel[0] == 1 and self.padding[0] == 0 and self.stride[0] > 1

    @property
    def sparse(self) -> bool:
        """True if only every so many columns are ever needed."""
        return self.kernel[1] == 1 and self.padding[1] == 0 and self.stride[1] > 1

    @property
    def inside(self) -> float:
        """Share of products that are not with padding."""
        return math.prod(float(self.met(axis).mean()) for axis in (0, 1) if self.padding[axis])

    @property
    def products(self) -> int:
        """Micro-ops, those with padding among them."""
        oh, ow = self.out_shape
        return self.images * self.groups * self.inputs * self.outputs * oh * ow * self.taps

    def met(self, axis: int) -> np.ndarray:
        """Which taps meet the image, for every row or column of the output: ``(outputs, taps)``."""
        at = np.arange(self.out_shape[axis])[:, None] * self.stride[axis]
        at = at + np.arange(self.kernel[axis]) * self.dilation[axis] - self.padding[axis]
        return (at >= 0) & (at < (self.height, self.width)[axis])

    def pads_in_frame(self) -> bool:
        """True if a LOAD can pad: few rows and columns, and never nothing else."""
        sizes = (self.height, self.width)
        return all(
            p <= MAX_PAD and (k - 1) * d >= p and (o - 1) * s - p <= n - 1
            for p, k, d, o, s, n in zip(
                self.padding, self.kernel, self.dilation, self.out_shape, self.stride, sizes,
                strict=True,
            )
        )  # fmt: skip

    def part(self, knobs: WindowKnobs) -> tuple[int, int]:
        """Rows and columns of taps of a stage."""
        return knobs.kernel_rows or self.kernel[0], knobs.kernel_columns or self.kernel[1]

    def extent(self, knobs: WindowKnobs) -> tuple[int, int]:
        """Rows and columns in inp that one stage of an output tile needs."""
        extents = []
        sizes = (self.height, self.width)
        tile = (knobs.rows, knobs.columns)
        part = self.part(knobs)
        for d in range(2):
            dense = self.subsampled if d == 0 else self.sparse and not knobs.gaps
            stride = 1 if dense else self.stride[d]
            need = (tile[d] - 1) * stride + (part[d] - 1) * self.dilation[d] + 1
            extents.append(min(need, sizes[d]) if knobs.skip_padding else need)
        return extents[0], extents[1]


class WindowOperator(Operator):
    """An operator that is a `Window` and a requantisation.

    Subclasses give `window` and `weights`, their natural inputs and reference.
    """

    requantize: Requantize

    whole_windows: ClassVar[bool] = True
    """Whether every tile of the same size takes as many inputs, where nothing is padded."""

    @property
    def within(self) -> tuple[int, int] | None:
        """Least and greatest sum, where that is less than what int32 holds."""
        return None

    @abstractmethod
    def window(self, cfg: Config) -> Window:
        """Sizes on a machine."""

    @property
    @abstractmethod
    def out_channels_total(self) -> int:
        """Natural output channels."""

    @property
    @abstractmethod
    def images_total(self) -> int:
        """Natural images."""

    # ---- knobs -----------------------------------------------------------------------------
    def need(self, cfg: Config, knobs: WindowKnobs) -> dict[str, int]:
        """Elements of each scratchpad that one tile or stage takes."""
        w = self.window(cfg)
        rows, columns = w.extent(knobs)
        vectors = len(self.requantize.inputs(1))
        phases = math.prod(w.phases)
        taps = 1 if w.shared else math.prod(w.part(knobs)) * knobs.groups * phases
        return {
            "inp": knobs.groups * knobs.reduce * rows * columns,
            "wgt": knobs.reduce * knobs.channels * taps,
            "acc": knobs.groups * knobs.channels * (knobs.rows * knobs.columns * phases + vectors),
        }

    def legal(self, cfg: Config, knobs: WindowKnobs) -> bool:
        """True if everything fits its scratchpad."""
        need = self.need(cfg, knobs)
        whole = self.window(cfg).part(knobs) == self.window(cfg).kernel
        return (
            knobs.threads * need["inp"] * max(1, knobs.stages) <= cfg.inp_depth
            and knobs.threads * need["wgt"] * max(1, knobs.weight_stages) <= cfg.wgt_depth
            and knobs.threads * need["acc"] <= cfg.acc_depth // knobs.banks
            and (knobs.threads == 1 or self._alike(cfg, knobs))
            and (knobs.gaps or self.window(cfg).sparse)
            and (knobs.skip_padding or (whole and self.window(cfg).pads_in_frame()))
            and not (knobs.preload and not self.requantize.bias)
            and not (knobs.lines and (knobs.threads > 1 or not knobs.skip_padding))
        )

    def _alike(self, cfg: Config, knobs: WindowKnobs) -> bool:
        """True if all tiles are of one size, their inputs too, and their number is even."""
        w = self.window(cfg)
        cuts = zip(
            (w.groups, w.outputs, *w.out_shape),
            (knobs.groups, knobs.channels, knobs.rows, knobs.columns),
            strict=True,
        )
        tiles = [divmod(n, size) for n, size in cuts]
        clipped = knobs.skip_padding and max(w.padding) > 0
        return (
            not knobs.taper
            and not clipped
            and self.whole_windows
            and all(rest == 0 for _, rest in tiles)
            and w.images * math.prod(n for n, _ in tiles) % knobs.threads == 0
        )

    def space(self, cfg: Config) -> Space:
        """See `WindowKnobs`."""
        w = self.window(cfg)
        oh, ow = w.out_shape
        return Space(
            WindowKnobs,
            {
                "rows": tile_sizes(oh),
                "columns": tile_sizes(ow),
                "channels": tile_sizes(w.outputs),
                "groups": tile_sizes(w.groups),
                "reduce": divisors(w.inputs),
                "kernel_rows": tile_sizes(w.kernel[0]),
                "kernel_columns": tile_sizes(w.kernel[1]),
                "skip_padding": (True, False) if max(w.padding) else (True,),
                "channels_first": (True, False),
                "taper": (True, False),
                "gaps": (True, False) if w.sparse else (True,),
                "stages": STAGES,
                "weight_stages": STAGES,
                "banks": (2, 1),
                "threads": (1, 2),
                "preload": (False, True) if self.requantize.bias else (False,),
                "lines": (False, True),
            },
            lambda knobs: self.legal(cfg, knobs),
        )

    def candidates(self, cfg: Config) -> Iterator[WindowKnobs]:
        """Settings worth estimating; not all are legal."""
        w = self.window(cfg)
        oh, ow = w.out_shape
        kh, kw = w.kernel
        least = WindowKnobs(
            rows=1, columns=1, channels=1, groups=1, reduce=1,
            kernel_rows=1, kernel_columns=1,
        )  # fmt: skip
        kernels = [(kh, kw), (1, kw), (1, 1)]
        if w.products > 1 and not self.legal(
            cfg, replace(least, kernel_rows=kh, kernel_columns=kw, stages=2)
        ):
            kernels += [(1, k) for k in tile_sizes(kw)] + [(k, kw) for k in tile_sizes(kh)]
        columns = dict.fromkeys([ow, *(even(ow, max(1, ow // k)) for k in (2, 4, 8))])
        rows = dict.fromkeys(
            even(oh, r) for r in (1, 2, 3, 4, 6, 8, 10, 14, 20, 28, 56, 112) if r < 2 * oh
        )
        for kr, kc in dict.fromkeys(kernels):
            found = False
            for c in columns:
                for r in rows:
                    for q in dict.fromkeys(even(w.outputs, q) for q in (1, 2, 4, 8, 16, 32)):
                        for g in dict.fromkeys(even(w.groups, g) for g in (1, 2, 4, 8)):
                            for ci in [d for d in (1, 2, 4) if w.inputs % d == 0]:
                                knobs = replace(
                                    least, rows=r, columns=c, channels=q, groups=g, reduce=ci,
                                    kernel_rows=kr, kernel_columns=kc,
                                )  # fmt: skip
                                need = self.need(cfg, knobs)
                                if not self.legal(cfg, knobs):
                                    knobs = replace(knobs, banks=1)
                                    if not self.legal(cfg, knobs):
                                        continue
                                twice = 2 * need["inp"] <= cfg.inp_depth
                                if twice and 2 * need["wgt"] <= cfg.wgt_depth:
                                    found = True
                                    yield knobs
                                    if w.sparse:
                                        close = replace(knobs, gaps=False)
                                        yield close
                                        yield from self._keepers(
                                            cfg, w, close, self.need(cfg, close)
                                        )
                                    yield from self._keepers(cfg, w, knobs, need)
                if found and c * max(rows) < 32:
                    break
            if found:
                return
        for kr in tile_sizes(kh):
            for kc in tile_sizes(kw):
                for c in tile_sizes(ow):
                    knobs = replace(least, columns=c, kernel_rows=kr, kernel_columns=kc)
                    if self.legal(cfg, knobs):
                        yield knobs

    def _keepers(
        self, cfg: Config, w: Window, knobs: WindowKnobs, need: Mapping[str, int]
    ) -> Iterator[WindowKnobs]:
        """Other orders of the same tiles, which keep a tile's inputs or weights for the next."""
        oh, ow = w.out_shape
        cuts = zip(w.kernel, w.part(knobs), strict=True)
        parts = w.inputs // knobs.reduce * math.prod(math.ceil(k / n) for k, n in cuts)
        if knobs.channels < w.outputs:
            stages = _keeping(cfg.inp_depth, need["inp"], parts) if parts >= FEW_STAGES else 0
            if stages:
                yield replace(knobs, stages=stages)
            if knobs.rows * knobs.columns < oh * ow:
                last = replace(knobs, channels_first=False)
                yield last
                stages = _keeping(cfg.wgt_depth, need["wgt"], parts) if parts >= FEW_STAGES else 0
                if stages:
                    yield replace(last, weight_stages=stages)

    def default(self, cfg: Config) -> WindowKnobs:
        """The setting with the least estimate among some."""
        w = self.window(cfg)
        machine = Machine(cfg)
        best: tuple[float, WindowKnobs] | None = None
        for knobs in itertools.chain(self.candidates(cfg), self.line_candidates(cfg)):
            cycles = self.estimate(machine, w, knobs) * (MANY_LINES if knobs.lines else 1)
            if best is None or cycles < best[0]:
                best = cycles, knobs
        if best is None:
            least = WindowKnobs(
                rows=1, columns=1, channels=1, groups=1, reduce=1, kernel_rows=1, kernel_columns=1
            )
            require(
                self.legal(cfg, least),
                f"{self.name}: one output needs {self.need(cfg, least)} elements of the"
                f" scratchpads, {cfg.name} has inp {cfg.inp_depth}, wgt {cfg.wgt_depth}, half of"
                f" acc {cfg.acc_depth // 2}",
            )
            return least
        return best[1]

    def estimate(self, machine: Machine, w: Window, knobs: WindowKnobs) -> float:
        """Cycles of a setting."""
        if knobs.lines:
            return self._estimate_lines(machine, w, knobs)
        cfg = machine.cfg
        oh, ow = w.out_shape
        rows, columns = w.extent(knobs)
        pixels = knobs.rows * knobs.columns * math.prod(w.phases)
        outputs = pixels * knobs.channels * knobs.groups
        taps = zip(w.kernel, w.part(knobs), strict=True)
        parts = w.inputs // knobs.reduce * math.prod(math.ceil(k / n) for k, n in taps)
        stage_inp = knobs.groups * knobs.reduce * rows * columns
        stage_wgt = self.need(cfg, knobs)["wgt"]
        tiles = (
            w.images * math.ceil(w.groups / knobs.groups) * math.ceil(w.outputs / knobs.channels)
            * math.ceil(oh / knobs.rows) * math.ceil(ow / knobs.columns)
        )  # fmt: skip
        spatial = math.ceil(oh / knobs.rows) * math.ceil(ow / knobs.columns)
        across = math.ceil(w.outputs / knobs.channels)
        inp_tiles, wgt_tiles = 1.0, 1.0
        inp_room = _room(cfg.inp_depth, stage_inp, knobs.stages, parts * spatial)
        between = 1 if knobs.channels_first else spatial  # tiles until inputs are used again
        if parts * between <= inp_room:
            inp_tiles = 1 / across
        wgt_room = _room(cfg.wgt_depth, stage_wgt, knobs.weight_stages, parts * across)
        between = across if knobs.channels_first else 1
        if parts * between <= wgt_room:
            wgt_tiles = 1 / spatial
        if w.shared:
            wgt_tiles = 0.0
        elif spatial == 1:
            wgt_tiles = 1.0
        bursts = knobs.groups * knobs.reduce * rows * (1 if knobs.gaps else columns)
        inp = machine.read(stage_inp * cfg.inp_elem_bytes, bursts)
        wgt = machine.read(stage_wgt * cfg.wgt_elem_bytes, 1)
        products = outputs * w.inputs * w.taps * (w.inside if knobs.skip_padding else 1)
        loads = 1 if knobs.gaps else knobs.reduce * rows
        fetch = machine.fetch(12 + (3 + loads) * parts)
        array = products + 4 * parts + 12
        alu = outputs * requantize_cycles(cfg, self.requantize, self.within) + 16
        read = parts * (inp * inp_tiles + wgt * wgt_tiles) + fetch
        # what stays leaves little room to load ahead: a tile that needs new ones loads them all
        busy = max(array, alu, (array + alu + outputs) / 2)
        if knobs.channels_first and inp_tiles < 1 and inp_room < 2 * parts:
            rest = parts * wgt * wgt_tiles + fetch
            late = max(busy, rest + parts * inp) * inp_tiles + max(busy, rest) * (1 - inp_tiles)
            read = max(read, late)
        if not knobs.channels_first and wgt_tiles < 1 and wgt_room < 2 * parts:
            rest = parts * inp * inp_tiles + fetch
            late = max(busy, rest + parts * wgt) * wgt_tiles + max(busy, rest) * (1 - wgt_tiles)
            read = max(read, late)
        cost = TileCost(
            read=read,
            first=inp + wgt,
            array=array,
            reset=outputs,
            alu=alu,
            write=machine.write(outputs * cfg.out_elem_bytes),
            slots=cfg.acc_depth // 2 // self.need(cfg, knobs)["acc"],
        )
        if knobs.banks == 1:
            ahead = (min(inp_room, wgt_room) - 1) * (inp + wgt)
            return 1.05 * in_turns(machine, cost, tiles, ahead=ahead)
        cycles = estimate(machine, cost, tiles, outputs)
        return cycles if knobs.gaps or alu <= array else MANY_LOADS * cycles

    def line_candidates(self, cfg: Config) -> Iterator[WindowKnobs]:
        """Settings with `lines` that are worth estimating."""
        w = self.window(cfg)
        oh, ow = w.out_shape
        if w.kernel[0] == 1 or not self.whole_windows:
            return
        for columns in dict.fromkeys(even(ow, max(1, ow // k)) for k in (1, 2, 4, 8)):
            for rows in tile_sizes(oh):
                for channels in tile_sizes(w.outputs):
                    knobs = WindowKnobs(
                        rows=rows, columns=columns, channels=channels, reduce=1, lines=True
                    )
                    if not self.legal(cfg, knobs):
                        knobs = replace(knobs, banks=1)
                    need = self.need(cfg, knobs)
                    twice = 2 * need["inp"] <= cfg.inp_depth
                    if twice and 2 * need["wgt"] <= cfg.wgt_depth and self.legal(cfg, knobs):
                        yield knobs
                        places = math.ceil(oh / rows) * math.ceil(ow / columns)
                        if places > 1 and channels < w.outputs:
                            yield replace(knobs, channels_first=False)

    def _estimate_lines(self, machine: Machine, w: Window, knobs: WindowKnobs) -> float:
        """Cycles of a setting with `lines`."""
        cfg = machine.cfg
        oh, ow = w.out_shape
        need = self.need(cfg, knobs)
        axes = zip(
            (oh, ow), (knobs.rows, knobs.columns), (w.height, w.width),
            w.kernel, w.stride, w.padding, w.dilation, strict=True,
        )  # fmt: skip
        (rows, new_rows), (columns, _) = (overlap(*axis) for axis in axes)
        down, strips = math.ceil(oh / knobs.rows), math.ceil(ow / knobs.columns)
        places, across = down * strips, math.ceil(w.outputs / knobs.channels)
        cuts = zip(w.kernel, w.part(knobs), strict=True)
        stages = w.inputs // knobs.reduce * math.prod(math.ceil(k / n) for k, n in cuts)
        inputs = w.inputs * knobs.groups * columns / places
        lines = Lines(
            inputs=inputs * rows, new_inputs=inputs * new_rows,
            weights=0 if w.shared else stages * need["wgt"], places=places, across=across,
            inp_room=cfg.inp_depth - need["inp"], wgt_room=cfg.wgt_depth - need["wgt"],
            channels_first=knobs.channels_first,
        )  # fmt: skip
        inp, wgt = (
            n * size / cfg.bus_bytes
            for n, size in zip(
                lines.loaded(), (cfg.inp_elem_bytes, cfg.wgt_elem_bytes), strict=True
            )
        )
        repeats = w.images * math.ceil(w.groups / knobs.groups)
        tiles = places * across
        outputs = knobs.rows * knobs.columns * math.prod(w.phases) * knobs.channels * knobs.groups
        array = outputs * w.inputs * w.taps * w.inside + 4 * stages + 12
        alu = outputs * requantize_cycles(cfg, self.requantize, self.within) + 16
        fetch = machine.fetch(12 + (4 + w.taps) * stages)
        read = (inp + wgt) / tiles + fetch
        if knobs.channels_first:  # what there is no room for before comes beside the first tile
            early = max(0.0, cfg.inp_depth - lines.inputs) * cfg.inp_elem_bytes / cfg.bus_bytes
            late = inp / places - early
            busy = max(array, alu)
            rest = wgt / tiles + fetch
            read = max(read, (max(busy, rest + late) + (across - 1) * max(busy, rest)) / across)
        cost = TileCost(
            read=read,
            first=machine.read(need["inp"] * cfg.inp_elem_bytes, 1)
            + machine.read(need["wgt"] * cfg.wgt_elem_bytes, 1),
            array=array,
            reset=outputs,
            alu=alu,
            write=machine.write(outputs * cfg.out_elem_bytes),
            slots=cfg.acc_depth // 2 // need["acc"],
        )
        if knobs.banks == 1:
            return in_turns(machine, cost, repeats * tiles, ahead=cost.first)
        return estimate(machine, cost, repeats * tiles, outputs)

    def bounds(self, cfg: Config, *, skip_padding: bool = True) -> dict[str, float]:
        """Cycles that each part of the machine needs at least.

        `array`, `alu`, `read` and `write` by themselves; `both` is half of what array and ALU have
        to do together, for either can set sums to zero.
        """
        w = self.window(cfg)
        outputs = w.images * w.groups * w.outputs * math.prod(w.out_shape) * math.prod(w.phases)
        array = w.products * math.prod(w.phases) * (w.inside if skip_padding else 1)
        alu = outputs * requantize_cycles(cfg, self.requantize, self.within)
        rows = w.out_shape[0] if w.subsampled else w.height
        columns = w.width
        stride = (1, w.stride[1]) if w.subsampled else w.stride
        if w.sparse and cfg.inp_elem_bytes % cfg.bus_bytes == 0:
            columns, stride = w.out_shape[1], (stride[0], 1)
        moved = w.images * w.groups * least_bytes(
            Traffic(
                inputs=w.inputs, outputs=w.outputs, shape=(rows, columns), out_shape=w.out_shape,
                kernel=w.kernel, stride=stride, padding=w.padding, dilation=w.dilation,
                phases=math.prod(w.phases), input_bytes=cfg.inp_elem_bytes,
                weight_bytes=0 if w.shared else cfg.wgt_elem_bytes,
                inp_depth=cfg.inp_depth, wgt_depth=cfg.wgt_depth, acc_depth=cfg.acc_depth,
            )
        )  # fmt: skip
        vectors = len(self.requantize.inputs(1)) * w.groups * w.outputs * cfg.acc_elem_bytes
        return {
            "array": array,
            "alu": alu,
            "both": (array + alu + outputs) / 2,
            "read": (moved + vectors) / cfg.bus_bytes,
            "write": outputs * cfg.out_elem_bytes / cfg.bus_bytes,
        }

    def start_up(self, cfg: Config) -> dict[str, float]:
        """Of `array` and `write`, for one dense convolution with weights of its own."""
        w = self.window(cfg)
        if w.groups > 1 or w.shared or w.phases != (1, 1):
            return {}
        met = [w.met(axis) for axis in (0, 1)]
        taps = [m.sum(axis=1) for m in met]
        start = Start(
            inputs=w.inputs, outputs=w.outputs, taps=w.taps,
            places=w.images * w.height * w.width,
            out_places=w.images * math.prod(w.out_shape),
            most_taps=math.prod(int(t.max()) for t in taps),
            least_taps=math.prod(int(t.min()) for t in taps),
            common_tap=all(m.all(axis=0).any() for m in met),
            products=self.bounds(cfg)["array"],
            input_beats=cfg.inp_elem_bytes / cfg.bus_bytes,
            weight_beats=cfg.wgt_elem_bytes / cfg.bus_bytes,
            vector_beats=len(self.requantize.inputs(1)) * cfg.acc_elem_bytes / cfg.bus_bytes,
            output_beats=cfg.out_elem_bytes / cfg.bus_bytes,
            acc_depth=cfg.acc_depth,
        )  # fmt: skip
        return {"array": array_idle_cycles(start), "write": write_idle_cycles(start)}

    # ---- computation -----------------------------------------------------------------------
    def boxes(self, cfg: Config, knobs: WindowKnobs) -> list[Box]:
        """Output tiles as (images, super-blocks, channels, rows, columns), in order of work."""
        w = self.window(cfg)
        oh, ow = w.out_shape
        shape = (w.images, w.groups, oh, ow, w.outputs)
        tile = (1, knobs.groups, knobs.rows, knobs.columns, knobs.channels)
        boxes = in_order([(b[0], b[1], b[4], b[2], b[3]) for b in grid(shape, tile)], knobs)
        if knobs.taper:
            last = boxes.pop()
            whole = (knobs.rows, knobs.columns) == (oh, ow)
            axes, small = (1, 2, 3, 4) if whole else (1, 3, 4), 32
            bounds = self.bounds(cfg)
            after = bounds["alu"] + bounds["write"]
            hides = bounds["array"] / after
            if waits(bounds):
                axes, small = (1,), 1
                hides = bounds["read"] / (bounds["array"] + after)
            boxes += taper(
                last,
                axes,
                lambda b: math.prod(r[1] for r in b) <= max(small, b[4][1]),
                share=max(2, min(4, int(hides) + 1)),
            )
        return boxes

    def sums(
        self, cfg: Config, z: Window, x: Tensor, w: Tensor, *, gaps: bool = True
    ) -> tuple[Tensor, Tensor, Tensor]:
        """What is summed; the part of `x` that is needed at all; that with its padding."""
        (sy, sx), (py, px), (dy, dx) = z.stride, z.padding, z.dilation
        source = x
        by, bx = sy if z.subsampled else 1, 1 if gaps else sx
        if (by, bx) != (1, 1):
            shape = (
                z.out_shape[0] if by > 1 else x.shape[3],
                z.out_shape[1] if bx > 1 else x.shape[4],
            )
            source = te.compute(
                (*x.shape[:3], *shape, *x.shape[5:]),
                lambda n, g, c, y, x_, r, i: x[n, g, c, y * by, x_ * bx, r, i],
                name="x.rows",
            )
            sy, sx = sy // by, sx // bx
        padded = source
        if py or px:
            padded = te.pad(source, (0, 0, 0, py, px, 0, 0), name="x.pad")
        rc, ry, rx, ri = reduction(z, cfg)
        zero = te.const(0)

        def product(n, g, c, y, x_, r, o):
            at = (zero, c, rc, zero, zero) if z.shared else (g, c, rc, ry, rx)
            return te.sum(
                padded[n, g, rc, y * sy + ry * dy, x_ * sx + rx * dx, r, ri].astype("int32")
                * w[(*at, o, ri)].astype("int32"),
                axis=[rc, ry, rx, ri],
            )

        shape = (z.images, z.groups, z.outputs, *z.out_shape, cfg.batch, cfg.block_out)
        return te.compute(shape, product, "sums"), source, padded

    def schedule(self, cfg: Config, knobs: WindowKnobs) -> Scheduled:
        """Expression and schedule in the machine's layout."""
        require(
            self.legal(cfg, knobs),
            f"{self.name}: {knobs} needs {self.need(cfg, knobs)} elements,"
            f" {cfg.name} has inp {cfg.inp_depth}, wgt {cfg.wgt_depth}, of acc"
            f" {cfg.acc_depth // knobs.banks}",
        )
        z = self.window(cfg)
        machine = MachineIntrinsics(cfg)
        b, bi, bo = cfg.batch, cfg.block_in, cfg.block_out
        x = te.placeholder((z.images, z.groups, z.inputs, z.height, z.width, b, bi), "int8", "x")
        lead, *taps = (1, 1, 1) if z.shared else (z.groups, *z.kernel)
        phases = () if z.phases == (1, 1) else z.phases
        w = te.placeholder((lead, z.outputs, z.inputs, *phases, *taps, bo, bi), "int8", "w")
        vectors = {
            name: te.placeholder((z.groups, z.outputs, b, bo), "int32", name=name)
            for name in self.requantize.inputs(1)
        }
        sums, source, padded = self.sums(cfg, z, x, w, gaps=knobs.gaps)

        def epilogue(*i: te.Expr) -> te.Expr:
            at = (i[1], i[2], *i[-2:])
            bias, multiplier = (
                vectors[name][at] if name in vectors else None for name in ("bias", "multiplier")
            )
            return self.requantize.expression(sums[i], bias, multiplier, self.within)

        result = te.compute(sums.shape, epilogue, "requantized")
        y = te.compute(sums.shape, lambda *i: result[i].astype("int8"), name="y")

        s = create_schedule(y)
        boxes = self.boxes(cfg, knobs)
        phased = len(sums.shape) == 9
        if phased:
            whole = [(0, n) for n in z.phases]
            boxes = [(*b[:4], whole[0], b[4], whole[1]) for b in boxes]
        tile, *inner = s[y].partition(s[y].axes[:-2], boxes)
        s[y].pragma(inner[0], "dma_copy")
        if knobs.threads > 1:
            _, tile = s[y].split(tile, knobs.threads)
            s[y].bind(tile, "vthread")
        for tensor in (sums, result):
            s[tensor].set_scope("acc")
            s[tensor].compute_at(s[y], tile)
        s[sums].double_buffer(6 if knobs.banks == 2 else 1)
        if knobs.preload:
            s[sums].preload()
        s[result].pragma(s[result].axes[0], "alu")
        for vector in vectors.values():
            cached = s.cache_read(vector, "acc", [result])
            s[cached].compute_at(s[y], tile)
            s[cached].pragma(s[cached].axes[0], "dma_copy")

        # the stages of a tile: some input channels and taps each
        reduces = s[sums].reduce_axes
        stage_c, part_c = s[sums].split(reduces[0], knobs.reduce)
        stage_y, part_y = s[sums].split(reduces[1], z.part(knobs)[0])
        stage_x, part_x = s[sums].split(reduces[2], z.part(knobs)[1])
        axes = s[sums].axes
        outer = (axes[4], axes[6]) if phased else ()
        s[sums].reorder(
            axes[0], stage_c, stage_y, stage_x, *outer, part_y, part_x, axes[1], part_c,
            *(a for a in axes[2:] if a not in outer), reduces[3],
        )  # fmt: skip
        s[sums].tensorize(axes[-2], machine.gemm)
        if source is not x:
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
        for tensor, stages in ((near, knobs.stages), (far, knobs.weight_stages)):
            s[tensor].compute_at(s[sums], stage_x)
            s[tensor].pragma(s[tensor].axes[4 if knobs.lines and tensor is near else 3], "dma_copy")
            if stages:
                s[tensor].double_buffer(stages)
        return Scheduled(schedule=s, args=(x, w, *vectors.values(), y))

    # ---- data ------------------------------------------------------------------------------
    @abstractmethod
    def pack_weights(self, cfg: Config, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        """``(groups, outputs, inputs, KH, KW, block_out, block_in)``, or ones where shared."""

    def pack_data(self, cfg: Config, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        """``(images, groups, inputs, H, W, batch, block_in)``."""
        z = self.window(cfg)
        x = tile_activation(arrays["x"], cfg.batch, cfg.block_in)
        x = _fill(x, 1, z.groups * z.inputs)
        return x.reshape(x.shape[0], z.groups, z.inputs, *x.shape[2:])

    def pack(self, cfg: Config, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Tiled inputs."""
        z = self.window(cfg)
        packed = {"x": self.pack_data(cfg, arrays), "w": self.pack_weights(cfg, arrays)}
        for name in self.requantize.inputs(1):
            vector = arrays[name]
            if name == "bias":
                vector = self.requantize.packed_bias(vector)
            tiled = _fill(tile_bias(vector, cfg.batch, cfg.block_out), 0, z.groups * z.outputs)
            packed[name] = tiled.reshape(z.groups, z.outputs, *tiled.shape[1:])
        return packed

    def pack_output(self, cfg: Config, result: np.ndarray) -> np.ndarray:
        """Tiled output; lanes beyond the channels are what zero sums become.

        Images beyond the natural ones are what zero images become where there is no bias.
        """
        z = self.window(cfg)
        channels = z.groups * z.outputs * cfg.block_out
        full = np.zeros((z.images * cfg.batch, channels, *result.shape[2:]), np.int8)
        zeros = np.zeros((1, channels, 1, 1), np.int32)
        vectors = {name: np.zeros(channels, np.int32) for name in self.requantize.inputs(1)}
        full[...] = self.requantize.reference(zeros, vectors)
        full[: result.shape[0], : result.shape[1]] = result
        tiled = tile_activation(full, cfg.batch, cfg.block_out)
        return tiled.reshape(z.images, z.groups, z.outputs, *tiled.shape[2:])

    filled: ClassVar[tuple[str, int]] = ("batch", 0)
    """The field, and the axis of ``x``, that the machine fills up to whole elements."""

    def expected(self, cfg: Config, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        """What a right run leaves: of images that only fill up elements, too."""
        name, axis = self.filled
        more = -getattr(self, name) % cfg.batch
        whole = replace(self, **{name: getattr(self, name) + more})  # type: ignore[type-var]
        x = arrays["x"]
        widths = [(0, more if d == axis else 0) for d in range(x.ndim)]
        full = {**arrays, "x": np.pad(x, widths)}
        return whole.pack_output(cfg, whole.reference(full))

    def unpack(self, cfg: Config, result: np.ndarray) -> np.ndarray:
        """``(N, O, OH, OW)`` int8."""
        tiled = result.reshape(result.shape[0], -1, *result.shape[3:])
        return untile_activation(tiled, self.images_total, self.out_channels_total)


def _room(depth: int, stage: int, stages: int, whole: int) -> int:
    """Stages that a scratchpad holds, of `whole` different ones."""
    if stages:
        return stages
    fit = depth // stage
    if fit >= whole:
        return whole
    return next(n for n in (FEW_STAGES, 2, 1, 0) if n <= fit)


def _keeping(depth: int, stage: int, parts: int) -> int:
    """Stages to give room so that those of a tile stay, and the next's can be loaded; 0 if none."""
    enough = [n for n in STAGES if n > parts and n * stage <= depth]
    return min(enough, default=parts if parts in STAGES and parts * stage <= depth else 0)


def waits(bounds: Mapping[str, float]) -> bool:
    """Whether the array has to wait for loads: no time to load twice what tiles share."""
    return bounds["read"] > bounds["array"]


def in_order(boxes: Iterable[Box], knobs: WindowKnobs) -> list[Box]:
    """Boxes as (images, super-blocks, channels, rows, columns), in order of work.

    With `lines` back and forth, since what is needed again soonest stays.
    """

    def key(box: Box) -> tuple[int, ...]:
        n, g, c, y, x = (begin for begin, _ in box)
        place = (x, y) if knobs.lines else (y, x)
        return (n, g, *place, c) if knobs.channels_first else (n, g, c, *place)

    ordered = sorted(boxes, key=key)
    if not knobs.lines:
        return ordered
    same = slice(0, 4 if knobs.channels_first else 3)
    rows = [list(row) for _, row in itertools.groupby(ordered, key=lambda b: key(b)[same])]
    return [box for k, row in enumerate(rows) for box in (row[::-1] if k % 2 else row)]


def reduction(z: Window, cfg: Config) -> list[te.IterVar]:
    """Axes of a windowed sum: channel blocks, rows, columns, lanes."""
    return [
        te.reduce_axis((0, k), name=t)
        for k, t in ((z.inputs, "ci"), (z.kernel[0], "ky"), (z.kernel[1], "kx"),
                     (cfg.block_in, "i"))
    ]  # fmt: skip


def requantize_cycles(cfg: Config, how: Requantize, within: tuple[int, int] | None = None) -> int:
    """Of the ALU, for one element, where many elements in turn share bias and multiplier."""
    cycles = 1 if how.bias else 0
    cycles += 1 if how.pre_shift else 0
    if how.per_channel or how.multiplier is not None:
        cycles += cfg.mul_cycles
    if cfg.has("requantize") and how.shift and (how.low, how.high) in ((-128, 127), (0, 127)):
        return cycles + 1  # RQT
    if how.shift:
        cycles += 1 + how.rounding_cycles
    return cycles + how.clips(within)


def _fill(a: np.ndarray, axis: int, size: int) -> np.ndarray:
    widths = [(0, size - a.shape[axis] if d == axis else 0) for d in range(a.ndim)]
    return np.pad(a, widths)


def pair(owner: str, name: str, value: Any, low: int) -> tuple[int, int]:
    """One or two integers as (rows, columns)."""
    both = tuple(value) if isinstance(value, tuple | list) else (value, value)
    require(
        len(both) == 2 and all(isinstance(v, int) and not isinstance(v, bool) for v in both),
        f"{owner}.{name} must be one or two integers, got {value!r}",
    )
    require(min(both) >= low, f"{owner}.{name} must be at least {low}, got {both}")
    return both[0], both[1]


def tile_sizes(n: int) -> list[int]:
    """Sizes of tiles of `n`, all of them as equal as can be."""
    return sorted({even(n, k) for k in range(1, n + 1)})


def divisors(n: int) -> Sequence[int]:
    """Of `n`, in order."""
    return [k for k in range(1, n + 1) if n % k == 0]
