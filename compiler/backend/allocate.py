"""Place every tile: inp and wgt as rings, acc in two banks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from covta.compiler.backend.accumulators import place_accumulators
from covta.compiler.backend.errors import AllocationError
from covta.compiler.backend.ops import Load, Tile, Trace
from covta.compiler.backend.placement import Placement
from covta.compiler.backend.ring import Ring
from covta.compiler.backend.uses import Lifetime, lifetimes
from covta.hw.params import Config

__all__ = ["allocate"]

INSTANCES = 4
"""Instances of a pool that lie side by side, if there is room and the trace gives no number: enough
for loads to run ahead, and so few that they come to lie in few ways and need few different
micro-ops."""


def allocate(cfg: Config, trace: Trace) -> Placement:
    """Addresses for all tiles.

    Requires: tiles are read after they are loaded.
    Preserves: the order of loads and of their uses; later passes must keep it.

    Raises
    ------
    AllocationError
        If a pool's tiles that are alive together do not fit.
    """
    placement = Placement(bank_elems=cfg.acc_depth // 2)
    lives = lifetimes(trace.ops)
    for scope, depth in (("inp", cfg.inp_depth), ("wgt", cfg.wgt_depth)):
        _place_loaded(trace, scope, depth, lives, placement)
    place_accumulators(cfg, trace, lives, placement)
    for op in trace.ops:
        if isinstance(op, Load) and placement.home[op.dst] is not op.dst:
            placement.dropped.add(op)
    return placement


@dataclass(kw_only=True)
class _Pool:
    """What is known of a pool: its instances, and how large it would like to be."""

    name: str
    instances: dict[int, list[Tile]]
    generations: int | None

    @property
    def largest(self) -> int:
        """Elements of the largest instance, each thread with a buffer of its own."""
        return max(sum(t.elems for t in tiles) for tiles in self.instances.values())

    @property
    def least(self) -> int:
        """Elements that it must have: of one instance, or of as many as the trace says."""
        return min(self.whole, self.largest * (self.generations or 1))

    @property
    def whole(self) -> int:
        """Elements of everything that is ever in it."""
        return _distinct_elems(t for tiles in self.instances.values() for t in tiles)


def _distinct_elems(tiles: Iterable[Tile]) -> int:
    sizes: dict[object, int] = {}
    for tile in tiles:
        sizes[tile if tile.key is None else (tile.key, tile.elems)] = tile.elems
    return sum(sizes.values())


def _place_loaded(
    trace: Trace, scope: str, depth: int, lives: dict[Tile, Lifetime], placement: Placement
) -> None:
    pools: dict[str, _Pool] = {}
    for tile in lives:
        if tile.scope == scope:
            pool = pools.setdefault(
                tile.pool,
                _Pool(name=tile.pool, instances={}, generations=trace.generations.get(tile.pool)),
            )
            pool.instances.setdefault(tile.instance, []).append(tile)
    if not pools:
        return
    base = 0
    first: list[tuple[int, Ring, list[Tile]]] = []
    for pool, size in _divide(list(pools.values()), scope, depth):
        slot = size if size >= pool.whole else pool.largest
        ring = Ring(pool.name, base, size, slot, lives)
        base += size
        for tiles in pool.instances.values():
            first.append((min(lives[t].first for t in tiles), ring, tiles))
    for now, ring, tiles in sorted(first, key=lambda item: item[0]):
        ring.claim(tiles, now, placement)


def _divide(pools: Sequence[_Pool], scope: str, depth: int) -> list[tuple[_Pool, int]]:
    """Elements for each pool: all it ever holds if that is little, else some instances' worth."""
    wants = {p.name: p.whole if p.generations is None else p.least for p in pools}
    if sum(wants.values()) <= depth:
        return [(p, wants[p.name]) for p in pools]
    turns = {p.name: 1 for p in pools}
    size = {p.name: p.least for p in pools}

    def used() -> int:
        return sum(size.values())

    if used() > depth:
        need = ", ".join(f"{p.name} {size[p.name]}" for p in pools)
        raise AllocationError(
            f"pool {pools[0].name}: the instances of every pool of {scope} must fit {depth}"
            f" elements, got {need}"
        )
    free = [p for p in pools if p.generations is None]
    growing = True
    while growing:  # double the smallest as long as there is room
        growing = False
        for p in sorted(free, key=lambda p: turns[p.name]):
            more = min(2 * turns[p.name], INSTANCES)
            bigger = min(more * p.largest, p.whole)
            if bigger > size[p.name] and used() - size[p.name] + bigger <= depth:
                turns[p.name], size[p.name] = more, bigger
                growing = True
    for p in sorted(free, key=lambda p: p.whole):  # what fits whole need never be loaded again
        if used() - size[p.name] + p.whole <= depth:
            size[p.name] = p.whole
    if pools == free and len(pools) == 1 and turns[pools[0].name] == 1:
        size[pools[0].name] = depth
    return [(p, size[p.name]) for p in pools]
