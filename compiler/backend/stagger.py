"""A short start: the first GEMM has to wait for its loads, so let them be few.

The first block is cut, so that it needs few weights; and its first stages are loaded piece by
piece: one input tile after the other, some rows at a time, each weight in front of its GEMM.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

from covta.compiler.backend.blocks import (
    Block,
    Numbers,
    cuts,
    find_block,
    keeps_up,
    part_of,
    split_block,
)
from covta.compiler.backend.ops import Gemm, Load, Op, Tile, Trace
from covta.compiler.backend.restrict import load_rows, turns
from covta.hw.params import Config

__all__ = ["narrow_start", "stagger"]

FIRST_TURNS = 32
"""Turns of the first pieces' GEMMs: about as long as it takes to load the next weight."""

EARLY_TILES = 8
"""Input tiles whose weights are loaded one by one."""

KEEPS_UP = 0.85
"""Cycles of a block's loads for each cycle of its GEMMs, at most: then they run ahead."""


def narrow_start(cfg: Config, trace: Trace, *, share: float = KEEPS_UP) -> Trace:
    """Cut the first block in two, the first with few sums.

    As few as leave both parts with loads that take at most `share` of the cycles of their GEMMs.
    Preserves: results. A trace whose first block is interwoven with others stays as it is.
    """
    block = find_block(trace, last=False)
    if block is None:
        return trace
    size = block.tile.elems
    for cut in cuts(block):
        if 8 * cut < size:
            continue
        if all(
            keeps_up(cfg, part_of(block, *span), share=share) for span in ((0, cut), (cut, size))
        ):
            parts = split_block(block, (0, cut, size), Numbers(trace))
            ops = (*trace.ops[: block.begin], *parts[0], *parts[1], *trace.ops[block.end :])
            return dataclasses.replace(trace, ops=ops)
    return trace


def stagger(trace: Trace) -> Trace:
    """Load the first stages piece by piece.

    Rewrite: within each stage (loads, then GEMMs) of the first block: GEMMs are cut by input tile
    and by rows, and done for all weights before the next rows; loads are cut and come in front of
    the GEMM that needs them.
    Preserves: results, as GEMMs on one tile may change places.
    """
    block = find_block(trace, last=False)
    if block is None:
        return trace
    ops: list[Op] = []
    early = EARLY_TILES
    for stage in _stages(block):
        ops += _staggered(stage, early) if early > 0 else stage
        early -= len({op.dst for op in stage if isinstance(op, Load) and op.dst.scope == "inp"})
    return dataclasses.replace(
        trace, ops=(*trace.ops[: block.begin], *ops, *trace.ops[block.end :])
    )


def _stages(block: Block) -> Iterator[list[Op]]:
    """Cut a block in front of loads that follow something else."""
    stage: list[Op] = []
    for op in block.ops:
        if stage and isinstance(op, Load) and not isinstance(stage[-1], Load):
            yield stage
            stage = []
        stage.append(op)
    yield stage


def _staggered(stage: Sequence[Op], early: int) -> list[Op]:
    """A stage whose loads come when they are needed; piece by piece for `early` input tiles."""
    end = 1 + max((k for k, op in enumerate(stage) if isinstance(op, Gemm)), default=-1)
    if end < len(stage):
        return [*_staggered(stage[:end], early), *stage[end:]] if end else list(stage)
    loads = [op for op in stage if isinstance(op, Load)]
    gemms = [op for op in stage if isinstance(op, Gemm) and not op.reset]
    others = [op for op in stage if op not in loads and op not in gemms]
    only_resets = all(isinstance(op, Gemm) for op in others)
    one_each = len({op.dst for op in loads}) == len(loads)
    in_scope = all(op.dst.scope != "acc" for op in loads)
    if not (gemms and loads and only_resets and one_each and in_scope):
        return list(stage)
    ops: list[Op] = list(others)
    sources = _Sources(loads)
    known: set[Tile | None] = set()
    for gemm in _pieces(gemms):
        known.add(gemm.points[0].src_tile)
        ops += sources.needed(gemm, whole=len(known) > early)
        ops.append(gemm)
    return [*ops, *sources.left()]


def _pieces(gemms: Sequence[Gemm]) -> Iterator[Gemm]:
    """All turns of all GEMMs: by input tile, then by rows (few at first), then by GEMM."""
    tiles = dict.fromkeys(p.src_tile for gemm in gemms for p in gemm.points)
    for number, tile in enumerate(tiles):
        some = [
            dataclasses.replace(gemm, points=points)
            for gemm in gemms
            if (points := tuple(p for p in gemm.points if p.src_tile is tile))
        ]
        if number:
            yield from some
            continue
        found = [_rows_loop(gemm) for gemm in some]
        rows = [k for k in found if k is not None]
        if len(rows) < len(found):
            yield from some
            continue
        most = max(gemm.loops[k].count for gemm, k in zip(some, rows, strict=True))
        inner = max(_turns(gemm) // gemm.loops[k].count for gemm, k in zip(some, rows, strict=True))
        begin, size = 0, -(-FIRST_TURNS // inner)
        while begin < most:
            end = begin + size if begin + 2 * size <= most else most
            for gemm, k in zip(some, rows, strict=True):
                count = gemm.loops[k].count
                if begin < count:
                    yield turns(gemm, k, begin, min(end, count) if end < most else count)
            begin, size = end, 2 * size


def _turns(gemm: Gemm) -> int:
    return gemm.cycles // len(gemm.points)


def _rows_loop(gemm: Gemm) -> int | None:
    """The loop that goes furthest in the input from turn to turn, and keeps the weight."""
    able = [k for k, loop in enumerate(gemm.loops) if loop.src and not loop.wgt and loop.count > 1]
    return max(able, key=lambda k: gemm.loops[k].src, default=None)


class _Sources:
    """Loads that are cut where a GEMM needs no more of them yet."""

    def __init__(self, loads: Sequence[Load]) -> None:
        self._loads = {op.dst: op for op in loads}
        self._done = dict.fromkeys(self._loads, 0)

    def needed(self, gemm: Gemm, *, whole: bool) -> Iterator[Load]:
        """What a GEMM needs and is not there, or all of the tiles that it needs."""
        src = sum((k.count - 1) * k.src for k in gemm.loops)
        wgt = sum((k.count - 1) * k.wgt for k in gemm.loops)
        ends: dict[Tile, int] = {}
        for p in gemm.points:
            for tile, end in ((p.src_tile, p.src + src), (p.wgt_tile, p.wgt + wgt)):
                if tile in self._loads:
                    assert tile is not None
                    ends[tile] = tile.elems if whole else max(ends.get(tile, 0), end + 1)
        for tile, end in ends.items():
            yield from self._up_to(tile, end)

    def left(self) -> Iterator[Load]:
        """What nobody needed yet."""
        for tile in self._loads:
            yield from self._up_to(tile, tile.elems)

    def _up_to(self, tile: Tile, end: int) -> Iterator[Load]:
        load, done = self._loads[tile], self._done[tile]
        end -= load.offset
        if end <= done:
            return
        flat = load.y_size == 1 and load.x_pad == load.y_pad == (0, 0)
        if flat:
            end = min(end, load.x_size)
            if end > done:
                size = end - done
                yield dataclasses.replace(
                    load, offset=load.offset + done, begin=load.begin + done, x_size=size
                )
                self._done[tile] = end
            return
        width = sum(load.x_pad) + load.x_size
        rows = sum(load.y_pad) + load.y_size
        first, last = done // width, min(rows, -(-end // width))
        if last >= load.y_pad[0] + load.y_size:
            last = rows  # padding comes along
        last = max(last, load.y_pad[0] + 1)
        part = load_rows(load, first, last)
        if part is not None:
            yield part
            self._done[tile] = last * width
