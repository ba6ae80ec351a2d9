"""Place every tile: inp and wgt as rings or caches, acc in two banks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from covta.compiler.backend.accumulators import place_accumulators
from covta.compiler.backend.cache import Cache
from covta.compiler.backend.errors import AllocationError
from covta.compiler.backend.ops import Lifetime, Load, Tile, Trace
from covta.compiler.backend.placement import Placement
from covta.compiler.backend.ring import Ring
from covta.hw.params import Config

__all__ = ["allocate"]

INSTANCES = 4
"""Instances of a pool that lie side by side, if there is room and the trace gives no number: enough
for loads to run ahead, and so few that they come to lie in few ways and need few different
micro-ops."""


def allocate(
    cfg: Config, trace: Trace, *, lead: int | None = None, full: bool = False
) -> Placement:
    """Addresses for all tiles.

    Parameters
    ----------
    lead : int, optional
        Let inp and wgt be a `Cache` with this lead where less is loaded then; else rings.
    full : bool
        Let rings take what room is left: loads run further ahead, but instances come to lie in
        more ways.

    Requires: tiles are read after they are loaded.
    Preserves: the order of loads and of their uses; later passes must keep it.

    Raises
    ------
    AllocationError
        If a pool's tiles that are alive together do not fit.
    """
    placement = Placement(bank_elems=cfg.acc_depth // 2)
    for scope, depth in (("inp", cfg.inp_depth), ("wgt", cfg.wgt_depth)):
        _place_loaded(trace, scope, depth, placement, lead, full)
    place_accumulators(cfg, trace, placement)
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

    @cached_property
    def largest(self) -> int:
        """Elements of the largest instance, each thread with a buffer of its own."""
        return max(sum(t.elems for t in tiles) for tiles in self.instances.values())

    def in_order(self, lives: Mapping[Tile, Lifetime]) -> list[tuple[int, list[Tile]]]:
        """First operation of each instance, and its tiles, in the order of the trace."""
        firsts = [(min(lives[t].first for t in ts), ts) for ts in self.instances.values()]
        return sorted(firsts, key=lambda item: item[0])

    @property
    def least(self) -> int:
        """Elements that it must have: of one instance, or of as many as the trace says."""
        return min(self.whole, self.largest * (self.generations or 1))

    @cached_property
    def whole(self) -> int:
        """Elements of everything that is ever in it."""
        return _distinct_elems(t for tiles in self.instances.values() for t in tiles)


def _distinct_elems(tiles: Iterable[Tile]) -> int:
    sizes: dict[object, int] = {}
    for tile in tiles:
        sizes[tile if tile.key is None else (tile.key, tile.elems)] = tile.elems
    return sum(sizes.values())


def _place_loaded(
    trace: Trace, scope: str, depth: int, placement: Placement, lead: int | None, full: bool
) -> None:
    pools: dict[str, _Pool] = {}
    lives = trace.lifetimes
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
    shares = _divide(list(pools.values()), scope, depth, full)
    free = depth - sum(size for _, size in shares)
    for pool, size in shares:
        slot = size if size >= pool.whole else pool.largest
        best = _claimed(pool, Ring(pool.name, base, size, slot, lives), placement)
        if lead is not None and best.loaded_elems > pool.whole:
            more = size if pool.generations is not None else min(pool.whole, size + free)
            cache = Cache(pool.name, base, more, slot, lives, lead=lead)
            try:
                kept = _claimed(pool, cache, placement)
            except AllocationError:
                kept = best
            if kept.loaded_elems < best.loaded_elems:
                free -= more - size
                best, size = kept, more
        placement.update(best)
        base += size


def _claimed(pool: _Pool, ring: Ring, placement: Placement) -> Placement:
    """Where a ring puts the instances of a pool."""
    result = Placement(bank_elems=placement.bank_elems)
    for now, tiles in pool.in_order(ring.lives):
        ring.claim(tiles, now, result)
    return result


def _divide(pools: Sequence[_Pool], scope: str, depth: int, full: bool) -> list[tuple[_Pool, int]]:
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
    for p in sorted(free, key=lambda p: turns[p.name]) if full else ():
        more = (depth - used()) // p.largest
        size[p.name] = min(size[p.name] + more * p.largest, p.whole)
    for p in sorted(free, key=lambda p: p.whole):  # what fits whole need never be loaded again
        if used() - size[p.name] + p.whole <= depth:
            size[p.name] = p.whole
    if pools == free and len(pools) == 1 and turns[pools[0].name] == 1:
        size[pools[0].name] = depth
    return [(p, size[p.name]) for p in pools]
