"""A *block*: all that happens to one tile of sums, from its first operation to its store.

A block can be cut into smaller ones, each with some of the sums in a tile of its own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from covta.compiler.backend.costs import work_cycles
from covta.compiler.backend.ops import Alu, Gemm, Lifetime, Load, Op, Store, Tile, Trace
from covta.compiler.backend.restrict import load_rows, retarget, window
from covta.hw.params import Config

__all__ = ["Block", "Numbers", "cuts", "find_block", "keeps_up", "part_of", "split_block"]


@dataclass(frozen=True, kw_only=True)
class Block:
    """Operations ``begin ... end - 1`` of a trace, about `tile` alone.

    Parameters
    ----------
    own : frozenset of Tile
        Tiles that nothing outside uses.
    """

    begin: int
    end: int
    ops: tuple[Op, ...]
    tile: Tile
    own: frozenset[Tile]


class Numbers:
    """New instance numbers for a trace's pools."""

    def __init__(self, trace: Trace) -> None:
        self._next = 1 + max((t.instance for t in trace.lifetimes), default=0)
        self._known: dict[tuple, int] = {}

    def of(self, *what: object) -> int:
        """One number for each `what`."""
        if what not in self._known:
            self._known[what] = self._next
            self._next += 1
        return self._known[what]


def find_block(trace: Trace, *, last: bool) -> Block | None:
    """The block of the first (last) tile of sums; None if it is interwoven with others."""
    gemms = [op for op in trace.ops if isinstance(op, Gemm)]
    if not gemms:
        return None
    tile = gemms[-1 if last else 0].dst
    lives = trace.lifetimes
    begin, end = lives[tile].first, lives[tile].last + 1
    loads_from = begin
    while loads_from and isinstance(trace.ops[loads_from - 1], Load):
        loads_from -= 1
    ops = trace.ops[loads_from:end]
    if any(not _concerns(op, tile, lives) for op in ops):
        return None
    own = frozenset(t for t in _tiles(ops) if lives[t].first >= loads_from and lives[t].last < end)
    return Block(begin=loads_from, end=end, ops=ops, tile=tile, own=own)


def _concerns(op: Op, tile: Tile, lives: dict[Tile, Lifetime]) -> bool:
    if isinstance(op, Load):
        return not lives[op.dst].computed
    if isinstance(op, Store):
        return op.src is tile
    others = [p.src_tile for p in op.points if p.src_tile is not None and p.src_tile is not tile]
    self_reading = isinstance(op, Alu) and any(p.src_tile is tile for p in op.points)
    return op.dst is tile and not self_reading and not any(lives[t].computed for t in others)


def _tiles(ops: Sequence[Op]) -> Iterator[Tile]:
    for op in ops:
        if isinstance(op, Load):
            yield op.dst
        yield from op.reads


def cuts(block: Block) -> list[int]:
    """Elements of the tile at which the block can be cut, ascending."""
    shapes: dict[tuple, Op] = {}
    for op in block.ops:
        if isinstance(op, Gemm | Alu):
            places = frozenset(p.dst for p in op.points)
            loops = tuple((k.count, k.dst) for k in op.loops if k.count != 1)
            shapes.setdefault((type(op), places, loops), op)
        elif isinstance(op, Store):
            shapes[(Store, op.offset, op.y_size, op.x_size)] = op
    candidates: set[int] | None = None
    for op in shapes.values():
        if isinstance(op, Gemm) and not op.reset:
            loops = [k for k in op.loops if k.count != 1]
            widest = max(loops, key=lambda k: k.dst, default=None)
            mine = {p.dst for p in op.points}
            if widest is not None and len(mine) == 1:
                mine = {b + k * widest.dst for b in mine for k in range(widest.count)}
            candidates = mine if candidates is None else candidates | mine
    size = block.tile.elems
    return [
        c
        for c in sorted(candidates or ())
        if 0 < c < size
        and all(
            window(op, 0, c) is not None and window(op, c, size) is not None  # type: ignore[arg-type]
            for op in shapes.values()
        )
    ]


def keeps_up(cfg: Config, ops: Sequence[Op], *, share: float) -> bool:
    """Whether loads take at most `share` of the cycles that GEMMs do."""
    loads = sum(work_cycles(cfg, op) for op in ops if isinstance(op, Load))
    gemms = sum(op.cycles for op in ops if isinstance(op, Gemm) and not op.reset)
    return loads <= share * gemms


def split_block(block: Block, bounds: Sequence[int], numbers: Numbers) -> list[list[Op]]:
    """The block once for every two consecutive `bounds`, about these elements of the tile only.

    Requires: `bounds` begins with 0, ends with the tile's size, and is of `cuts` in between.
    """
    parts = []
    brought: set[Load] = set()  # loads for what is used elsewhere too: once
    for k, (low, high) in enumerate(pairwise(bounds)):
        last = k == len(bounds) - 2
        parts.append(_part(block, low, high, numbers, brought, last=last))
    return parts


def part_of(block: Block, low: int, high: int) -> list[Op]:
    """What of a block concerns elements ``low ... high - 1``, its loads first; on old tiles."""
    kept: list[Op] = []
    for op in block.ops:
        if not isinstance(op, Load):
            some = window(op, low, high)
            assert some is not None
            kept += some
    spans = _spans(kept)
    loads = [op for op in block.ops if isinstance(op, Load) and op.dst in spans]
    trimmed: dict[Load, Load] = {}
    for load in loads:
        if load.dst.scope == "inp" and load.dst in block.own:
            _copy(load.dst, [load], spans[load.dst], 0, trimmed)
    return [trimmed.get(op, op) for op in loads] + kept


def _part(
    block: Block, low: int, high: int, numbers: Numbers, brought: set[Load], *, last: bool
) -> list[Op]:
    kept: list[Op] = []
    for op in block.ops:
        if isinstance(op, Load):
            kept.append(op)
            continue
        some = window(op, low, high)
        assert some is not None
        kept += some
    spans = _spans(kept)
    place = numbers.of(block.tile, low, high)
    tiles: dict[Tile, tuple[Tile, int]] = {
        block.tile: (
            dataclasses.replace(block.tile, elems=high - low, instance=place, key=None),
            low,
        )
    }
    loads = [op for op in kept if isinstance(op, Load)]
    trimmed: dict[Load, Load] = {}
    for tile in dict.fromkeys(op.dst for op in loads):
        if tile in block.own and tile in spans:
            instance = numbers.of(tile.pool, tile.instance, low, high)
            mine = [op for op in loads if op.dst is tile]
            tiles[tile] = _copy(tile, mine, spans[tile], instance, trimmed)
    ops: list[Op] = []
    for op in kept:
        if isinstance(op, Load):
            if op.dst in block.own:
                if op.dst not in spans:
                    continue
            elif op in brought or (op.dst not in spans and not last):
                continue
            brought.add(op)
            op = trimmed.get(op, op)
        ops.append(retarget(op, tiles))
    return ops


def _spans(ops: Sequence[Op]) -> dict[Tile, tuple[int, int]]:
    """First and last element that is read, by tile."""
    spans: dict[Tile, tuple[int, int]] = {}
    for op in ops:
        if not isinstance(op, Gemm | Alu):
            continue
        reach = sum((k.count - 1) * k.src for k in op.loops)
        wgt_reach = sum((k.count - 1) * k.wgt for k in op.loops)
        for p in op.points:
            for tile, at, more in ((p.src_tile, p.src, reach), (p.wgt_tile, p.wgt, wgt_reach)):
                if tile is not None:
                    low, high = spans.get(tile, (at, at + more))
                    spans[tile] = min(low, at), max(high, at + more)
    return spans


def _copy(
    tile: Tile,
    loads: Sequence[Load],
    span: tuple[int, int],
    instance: int,
    trimmed: dict[Load, Load],
) -> tuple[Tile, int]:
    """Another instance of a tile, with only those rows of its one load that are used."""
    whole = dataclasses.replace(tile, instance=instance), 0
    load = loads[0]
    width = sum(load.x_pad) + load.x_size
    if len(loads) > 1 or load.offset or load.elems != tile.elems:
        return whole
    first, end = span[0] // width, span[1] // width + 1
    rows = sum(load.y_pad) + load.y_size
    some = load_rows(load, first, end)
    if (first, end) == (0, rows) or some is None:
        return whole
    trimmed[load] = some
    key = None if tile.key is None else (tile.key, "rows", first, end)
    part = dataclasses.replace(tile, instance=instance, key=key, elems=(end - first) * width)
    return part, first * width
