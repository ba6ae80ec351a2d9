"""A part of inp or wgt in which the tiles of one pool follow each other round and round."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from covta.compiler.backend.errors import AllocationError
from covta.compiler.backend.ops import Lifetime, Tile
from covta.compiler.backend.placement import Placement
from covta.compiler.backend.residents import NEVER, Resident, Residents

__all__ = ["Ring"]


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
        self._residents = Residents()
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
        begin = self._room(sum(t.elems for t in firsts), now, shared.values())
        if begin is None and shared:  # start afresh, all of it
            shared = {}
            firsts, twins = self._distinct(tiles)
            begin = self._room(sum(t.elems for t in firsts), now, ())
        if begin is None:
            self._refuse(firsts, now)
        assert begin is not None
        self._share(shared, placement)
        if firsts:
            self._put(firsts, begin, placement)
        self._join(twins, placement)

    def _shared(self, tiles: Sequence[Tile], now: int) -> dict[Tile, int]:
        """Tiles whose contents are there, and where."""
        shared = {}
        for tile in tiles:
            begin = self._residents.find(tile)
            if begin is not None and self.lives[self._residents.at(begin)].last_load < now:
                shared[tile] = begin
        return shared

    def _share(self, shared: Mapping[Tile, int], placement: Placement) -> None:
        for tile, begin in shared.items():
            placement.put(tile, self.base + begin, home=self._residents.at(begin))
            self._prolong(begin, tile)

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

    def _put(self, tiles: Sequence[Tile], begin: int, placement: Placement) -> None:
        residents = []
        for tile in tiles:
            life, end = self.lives[tile], begin + tile.elems
            residents.append(Resident(begin, end, life.last, life.last_read, self._urgency(tile)))
            begin = end
        overwritten = self._residents.put(tiles, residents)
        for tile, resident, after in zip(tiles, residents, overwritten, strict=True):
            placement.put(tile, self.base + resident.begin, after=after)
        self._next = begin

    def _join(self, twins: Mapping[Tile, Tile], placement: Placement) -> None:
        for tile, twin in twins.items():
            placement.put(tile, placement.base[twin], home=twin)
            self._prolong(placement.base[twin] - self.base, tile)

    def _prolong(self, begin: int, tile: Tile) -> None:
        life = self.lives[tile]
        self._residents.prolong(begin, life.last, life.last_read, self._urgency(tile))

    def _urgency(self, tile: Tile) -> int:
        """How soon a tile's contents are needed after it; a ring does not care."""
        return NEVER

    def _room(self, size: int, now: int, keep: Collection[int]) -> int | None:
        """Where `size` elements may begin without touching what is used: next, or further on."""
        if size > self.depth:
            return None
        begins, ends, busy_until, _, _ = self._residents.table
        busy = busy_until >= now
        busy[[self._residents.number(begin) for begin in keep]] = True
        begins, ends = begins[busy], ends[busy]
        ahead, behind = ends[ends > self._next], ends[ends <= self._next]
        for begin in (self._next, *ahead.tolist(), 0, *behind.tolist()):
            if size <= self.slot and begin // self.slot != (begin + size - 1) // self.slot:
                begin += -begin % self.slot
            end = begin + size
            if end <= self.depth and not ((begins < end) & (begin < ends)).any():
                return begin
        return None

    def _refuse(self, tiles: Sequence[Tile], now: int) -> None:
        need = sum(t.elems for t in tiles)
        begins, ends, busy_until, _, _ = self._residents.table
        used = (ends - begins)[busy_until >= now].sum()
        raise AllocationError(
            f"pool {self.pool}: an instance of {need} elements must fit the pool's {self.depth} of"
            f" {tiles[0].scope} beside {used} that are still used"
        )
