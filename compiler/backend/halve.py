"""Large tiles of sums as two, a bank each: one part leaves while the other is worked on."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from covta.compiler.backend.blocks import Numbers
from covta.compiler.backend.ops import Alu, Gemm, Load, Op, Store, Tile, Trace
from covta.compiler.backend.restrict import retarget, turn_starts, window

__all__ = ["halve"]


@dataclass(frozen=True, kw_only=True)
class _Part:
    """Elements ``low ... high - 1`` of a tile, and what stands for it and what it is worked on
    with: a tile, and how many elements further to the front."""

    low: int
    high: int
    tiles: dict[Tile, tuple[Tile, int]]


def halve(trace: Trace, most: int) -> Trace:
    """Cut tiles of sums of more than `most` elements, a bank of acc.

    Such a tile leaves no bank free for the next one, which has to wait until all of it is stored.
    Rewrite: tile -> two that fit a bank, both worked on with the same inp and wgt; what follows
    each other on the tile is done for the first, then for the second.
    Preserves: results, as elements of a tile of sums do not depend on each other. A trace with a
    tile for which that does not hold, or that no two such parts make up, stays as it is.
    """
    sums = [t for t, life in trace.lifetimes.items() if t.scope == "acc" and life.computed]
    pools = {tile.pool for tile in sums if tile.elems > most}
    if not pools:
        return trace
    numbers = Numbers(trace)
    found: dict[Tile, tuple[_Part, ...]] = {}
    for tile in sums:
        if tile.pool in pools:
            parts = _parts(trace, tile, most, numbers)
            if parts is None:
                return trace
            found[tile] = parts
    whose = {source: parts for parts in found.values() for source in parts[0].tiles}
    ops: list[Op] = []
    run: list[Gemm | Alu | Store] = []
    for op in trace.ops:
        about = None if isinstance(op, Load) else op.tile
        if run and about is not run[0].tile:
            ops += _in_parts(run, found)
            run = []
        if about in found:
            assert not isinstance(op, Load)
            run.append(op)
        elif isinstance(op, Load) and op.dst in whose:
            ops += [retarget(op, part.tiles) for part in whose[op.dst]]
        else:
            ops.append(op)
    return dataclasses.replace(trace, ops=(*ops, *_in_parts(run, found)))


def _parts(trace: Trace, tile: Tile, most: int, numbers: Numbers) -> tuple[_Part, ...] | None:
    """Two parts of at most so many elements, or all of a small tile; None if there are none."""
    if tile.elems <= most:
        return None if tile in trace.users else (_part(tile, set(), 0, tile.elems, numbers),)
    ops = _ops_on(trace, tile)
    if ops is None:
        return None
    sources = {source for op in ops if isinstance(op, Alu) for source in op.operands}
    if any(trace.lifetimes[source].computed for source in sources):
        return None
    if any(user.dst is not tile for source in sources for user in trace.users[source]):
        return None
    sums = [op for op in ops if isinstance(op, Gemm) and not op.reset]
    starts = set().union(*map(turn_starts, sums))
    for cut in sorted(starts, key=lambda cut: (abs(2 * cut - tile.elems), cut)):
        bounds = (0, cut), (cut, tile.elems)
        if max(high - low for low, high in bounds) > most:
            return None
        if all(window(op, *part) is not None for part in bounds for op in ops):
            return tuple(_part(tile, sources, *part, numbers) for part in bounds)
    return None


def _ops_on(trace: Trace, tile: Tile) -> list[Gemm | Alu | Store] | None:
    """All that happens on a tile; None if it is loaded, or anything else is done with it."""
    life = trace.lifetimes[tile]
    ops: list[Gemm | Alu | Store] = []
    for op in trace.ops[life.first : life.last + 1]:
        if isinstance(op, Load):
            if op.dst is tile:
                return None
        elif op.tile is tile:
            ops.append(op)
        elif tile in op.reads:
            return None
    return ops


def _part(tile: Tile, sources: set[Tile], low: int, high: int, numbers: Numbers) -> _Part:
    instance, pool = numbers.of(tile, low), f"{tile.pool} (half)"
    part = dataclasses.replace(tile, pool=pool, instance=instance, elems=high - low, key=None)
    copies = {
        source: (dataclasses.replace(source, instance=numbers.of(source, low)), 0)
        for source in sources
    }
    return _Part(low=low, high=high, tiles={tile: (part, low), **copies})


def _in_parts(
    run: Sequence[Gemm | Alu | Store], found: Mapping[Tile, tuple[_Part, ...]]
) -> Iterator[Op]:
    """Operations on one tile, one after the other, for its first part; then for its second."""
    for part in found[run[0].tile] if run else ():
        for op in run:
            some = window(op, part.low, part.high)
            assert some is not None
            for piece in some:
                yield retarget(piece, part.tiles)
