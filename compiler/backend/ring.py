"""A part of inp or wgt in which the tiles of one pool follow each other round and round."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from covta.compiler.backend.errors import AllocationError
from covta.compiler.backend.ops import Tile
from covta.compiler.backend.placement import Placement
from covta.compiler.backend.uses import Lifetime

__all__ = ["Ring"]


@dataclass(kw_only=True)
class Resident:
    """Something that lies in the ring: where, until which operation it is used, and read.

    What is left of a tile that is overwritten in part stays, for its reads.
    """

    tile: Tile
    begin: int
    end: int
    busy_until: int
    read_until: int

    @property
    def whole(self) -> bool:
        """Whether nothing of it is overwritten."""
        return self.end - self.begin == self.tile.elems


class Ring:
    """Places the instances of one pool in the order of the trace.

    Tiles of an instance that have to be loaded come to lie side by side. What is overwritten is
    what was placed longest ago; a tile that is still used is stepped over.

    Parameters
    ----------
    pool : str
    base, depth : int
        The part of the scratchpad that is the ring.
    slot : int
        Size of the largest instance. None lies across a multiple of it, so that instances which
        follow each other do not overwrite each other.
    lives : dict of Tile to Lifetime
    """

    def __init__(
        self, pool: str, base: int, depth: int, slot: int, lives: dict[Tile, Lifetime]
    ) -> None:
        self.pool = pool
        self.base = base
        self.depth = depth
        self.slot = slot
        self.lives = lives
        self._residents: list[Resident] = []
        self._next = 0

    def claim(self, tiles: Sequence[Tile], now: int, placement: Placement) -> None:
        """Place an instance whose first operation is number `now`.

        Raises
        ------
        AllocationError
            If there is no room beside what is still used.
        """
        shared = self._shared(tiles, now)
        firsts, twins = self._distinct([t for t in tiles if t not in shared])
        keep = {id(r) for r in shared.values()}
        begin = self._room(sum(t.elems for t in firsts), now, keep)
        if begin is None and shared:  # start afresh, all of it
            return self._claim_afresh(tiles, now, placement)
        if begin is None:
            self._refuse(firsts, now)
        assert begin is not None
        self._share(shared, placement)
        self._put(firsts, begin, placement)
        self._join(twins, placement)

    def _shared(self, tiles: Sequence[Tile], now: int) -> dict[Tile, Resident]:
        """Tiles whose contents are there, and where."""
        here = {r.tile.key: r for r in self._residents if r.tile.key is not None and r.whole}
        shared = {}
        for tile in tiles:
            resident = here.get(tile.key) if tile.key is not None else None
            if (
                resident is not None
                and resident.tile.elems == tile.elems
                and self.lives[resident.tile].last_load < now
            ):
                shared[tile] = resident
        return shared

    def _share(self, shared: dict[Tile, Resident], placement: Placement) -> None:
        for tile, resident in shared.items():
            placement.put(tile, self.base + resident.begin, home=resident.tile)
            self._prolong(resident, tile)

    def _distinct(self, tiles: Sequence[Tile]) -> tuple[list[Tile], dict[Tile, Tile]]:
        """Tiles that need a place of their own, and for the others the one they share."""
        known: dict[tuple, Tile] = {}
        firsts, twins = [], {}
        for tile in tiles:
            twin = None
            if tile.key is not None:
                twin = known.setdefault((tile.key, tile.elems), tile)
            if twin in (None, tile) or self.lives[twin].last_load > self.lives[tile].first:
                firsts.append(tile)
            else:
                assert twin is not None
                twins[tile] = twin
        return firsts, twins

    def _claim_afresh(self, tiles: Sequence[Tile], now: int, placement: Placement) -> None:
        firsts, twins = self._distinct(tiles)
        begin = self._room(sum(t.elems for t in firsts), now, set())
        if begin is None:
            self._refuse(firsts, now)
        assert begin is not None
        self._put(firsts, begin, placement)
        self._join(twins, placement)

    def _put(self, tiles: Sequence[Tile], begin: int, placement: Placement) -> None:
        end = begin + sum(t.elems for t in tiles)
        gone, stay = [], []
        for r in self._residents:
            (gone if r.begin < end and begin < r.end else stay).append(r)
        self._residents = stay
        for r in gone:
            for low, high in ((r.begin, min(r.end, begin)), (max(r.begin, end), r.end)):
                if low < high:
                    self._residents.append(dataclasses.replace(r, begin=low, end=high))
        at = begin
        for tile in tiles:
            to = at + tile.elems
            after = max((r.read_until for r in gone if r.begin < to and at < r.end), default=-1)
            placement.put(tile, self.base + at, after=after)
            life = self.lives[tile]
            self._residents.append(
                Resident(
                    tile=tile,
                    begin=at,
                    end=to,
                    busy_until=life.last,
                    read_until=life.last_read,
                )
            )
            at = to
        self._next = end

    def _join(self, twins: dict[Tile, Tile], placement: Placement) -> None:
        for tile, twin in twins.items():
            placement.put(tile, placement.base[twin], home=twin)
            for r in self._residents:
                if r.tile is twin:
                    self._prolong(r, tile)

    def _prolong(self, resident: Resident, tile: Tile) -> None:
        life = self.lives[tile]
        resident.busy_until = max(resident.busy_until, life.last)
        resident.read_until = max(resident.read_until, life.last_read)

    def _room(self, size: int, now: int, keep: set[int]) -> int | None:
        """Where `size` elements may begin without touching what is used: next, or further on."""
        if size > self.depth:
            return None
        busy = [r for r in self._residents if r.busy_until >= now or id(r) in keep]
        ahead = sorted(r.end for r in busy if r.end > self._next)
        behind = sorted(r.end for r in busy if r.end <= self._next)
        for begin in (self._next, *ahead, 0, *behind):
            if size <= self.slot and begin // self.slot != (begin + size - 1) // self.slot:
                begin += -begin % self.slot
            end = begin + size
            if end <= self.depth and not any(r.begin < end and begin < r.end for r in busy):
                return begin
        return None

    def _refuse(self, tiles: Sequence[Tile], now: int) -> None:
        need = sum(t.elems for t in tiles)
        used = sum(r.tile.elems for r in self._residents if r.busy_until >= now)
        raise AllocationError(
            f"pool {self.pool}: an instance of {need} elements must fit the pool's {self.depth} of"
            f" {tiles[0].scope} beside {used} that are still used"
        )
