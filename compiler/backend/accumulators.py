"""Place the tiles of acc: in two banks that engines may use side by side.

Tiles that meet in an operation form a *group* and lie in one bank; groups go to the banks in turn.
In a bank, tiles that are only loaded and read (a bias) stay once they are there, if that leaves
room; the others take turns in a ring of slots, one ring a pool. What room is left behind the slots
takes small ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from covta.compiler.backend.errors import AllocationError
from covta.compiler.backend.ops import Lifetime, Tile, Trace
from covta.compiler.backend.placement import Placement
from covta.hw.params import Config

__all__ = ["place_accumulators"]

GENERATIONS = 4
"""Instances of a pool that are alive together where the trace does not say."""


def place_accumulators(cfg: Config, trace: Trace, placement: Placement) -> None:
    """Give every tile of acc its address.

    Raises
    ------
    AllocationError
        If what is alive together fits neither a bank each nor all of acc.
    """
    groups = _groups(trace)
    if not groups:
        return
    half = cfg.acc_depth // 2
    for regions in ([(0, half), (half, half)], [(0, cfg.acc_depth)]):
        for resident in (True, False):
            plan = _plan(trace, groups, regions, resident=resident)
            if plan is not None:
                for region in plan:
                    region.place(placement)
                return
    region = _Region(base=0, depth=cfg.acc_depth)
    region.fill(groups, trace, resident=False)
    name, slots, size = max(region.needs(), key=lambda need: need[1] * need[2])
    raise AllocationError(
        f"pool {name}: {slots} instances of {size} elements that are alive together must fit acc"
        f" beside {region.least_elems() - slots * size} of other pools, got"
        f" {cfg.acc_depth} elements"
    )


def _groups(trace: Trace) -> list[list[Tile]]:
    """Tiles of acc that must lie in one bank: of one instance, or that meet in an operation."""
    parent: dict[Tile, Tile] = {t: t for t in trace.lifetimes if t.scope == "acc"}

    def find(tile: Tile) -> Tile:
        while parent[tile] is not tile:
            parent[tile] = parent[parent[tile]]
            tile = parent[tile]
        return tile

    firsts: dict[tuple[str, int], Tile] = {}
    for tile in parent:
        first = firsts.setdefault((tile.pool, tile.instance), tile)
        parent[find(tile)] = find(first)
    for source, users in trace.users.items():
        for user in users:
            parent[find(source)] = find(user.dst)
    groups: dict[Tile, list[Tile]] = {}
    for tile in parent:
        groups.setdefault(find(tile), []).append(tile)
    return list(groups.values())


def _plan(
    trace: Trace,
    groups: Sequence[Sequence[Tile]],
    where: Sequence[tuple[int, int]],
    *,
    resident: bool,
) -> list[_Region] | None:
    regions = [_Region(base=base, depth=depth) for base, depth in where]
    single = {pool for pool, count in trace.generations.items() if count == 1}
    shares: list[list[Sequence[Tile]]] = [[] for _ in regions]
    turn = 0
    for group in groups:
        if any(tile.pool in single and trace.lifetimes[tile].computed for tile in group):
            shares[0].append(group)
        else:
            shares[turn].append(group)
            turn = (turn + 1) % len(regions)
    for region, share in zip(regions, shares, strict=True):
        region.fill(share, trace, resident=resident)
        if not region.fit(len(regions)):
            return None
    return regions


@dataclass(kw_only=True)
class _Slots:
    """The ring of one pool in one region: its instances in order, how many slots of what size."""

    generations: int
    instances: list[tuple[Tile, ...]] = field(default_factory=list)
    size: int = 0
    least: int = 1
    count: int = 1

    def begins(self, rest: int) -> Iterator[int]:
        """Where each instance begins: in the slot behind the one before.

        Small instances may also lie in the `rest` elements behind the slots.
        """
        at = 0
        for tiles in self.instances:
            if at + sum(t.elems for t in tiles) > self.count * self.size + rest:
                at = 0
            yield at
            at += self.size


@dataclass(kw_only=True)
class _Region:
    """A bank of acc, or all of it."""

    base: int
    depth: int
    resident: dict[tuple, list[Tile]] = field(default_factory=dict)
    pools: dict[str, _Slots] = field(default_factory=dict)

    def fill(self, groups: Iterable[Sequence[Tile]], trace: Trace, *, resident: bool) -> None:
        """Take groups in, and find out how many slots each pool needs at least."""
        lives = trace.lifetimes
        instances: dict[tuple[str, int], list[Tile]] = {}
        for group in groups:
            for tile in group:
                if resident and tile.key is not None and not lives[tile].computed:
                    self.resident.setdefault((tile.key, tile.elems), []).append(tile)
                else:
                    instances.setdefault((tile.pool, tile.instance), []).append(tile)
        ordered = sorted(instances.values(), key=lambda ts: min(lives[t].first for t in ts))
        for tiles in ordered:
            pool = tiles[0].pool
            slots = self.pools.setdefault(
                pool, _Slots(generations=trace.generations.get(pool, GENERATIONS))
            )
            slots.instances.append(tuple(tiles))
            slots.size = max(slots.size, sum(t.elems for t in tiles))
        for slots in self.pools.values():
            slots.least = _overlapping(slots.instances, lives)

    def fit(self, regions: int) -> bool:
        """Choose how many slots each pool gets; False if there is no room."""
        for slots in self.pools.values():
            slots.count = max(slots.least, slots.generations // regions)
        while self._elems() > self.depth:
            reducible = [s for s in self.pools.values() if s.count > s.least]
            if not reducible:
                return False
            max(reducible, key=lambda s: s.size).count -= 1
        return True

    def place(self, placement: Placement) -> None:
        """Write addresses: first what stays, then each pool's ring."""
        at = self.base
        for tiles in self.resident.values():
            for tile in tiles:
                placement.put(tile, at, home=tiles[0])
            placement.resident.add(tiles[0])
            at += tiles[0].elems
        rest = self.depth - self._elems()
        for slots in self.pools.values():
            more = min(rest, slots.size - 1)
            rest -= more
            for tiles, begin in zip(slots.instances, slots.begins(more), strict=True):
                base = at + begin
                for tile in tiles:
                    placement.put(tile, base)
                    base += tile.elems
            at += slots.count * slots.size + more

    def needs(self) -> list[tuple[str, int, int]]:
        """Name, least slots and size of each pool."""
        return [(name, s.least, s.size) for name, s in self.pools.items()]

    def least_elems(self) -> int:
        """Elements with the least slots."""
        return sum(s.least * s.size for s in self.pools.values())

    def _elems(self) -> int:
        stay = sum(tiles[0].elems for tiles in self.resident.values())
        return stay + sum(s.count * s.size for s in self.pools.values())


def _overlapping(instances: Sequence[Sequence[Tile]], lives: dict[Tile, Lifetime]) -> int:
    """Least slots such that an instance is done with before its slot's next one begins."""
    spans = [(min(lives[t].first for t in ts), max(lives[t].last for t in ts)) for ts in instances]
    count = 1
    for k, (first, _) in enumerate(spans):
        while count <= k and any(last > first for _, last in spans[: k - count + 1]):
            count += 1
    return count
