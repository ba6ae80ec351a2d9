"""A part of inp or wgt that keeps what is needed again soonest."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import deque
from collections.abc import Sequence

import numpy as np

from covta.compiler.backend.ops import Tile
from covta.compiler.backend.placement import Placement
from covta.compiler.backend.ring import Resident, Ring
from covta.compiler.backend.uses import Lifetime

__all__ = ["Cache"]


NEVER = math.inf


class Cache(Ring):
    """Places tiles one by one: what is overwritten is what is needed again last.

    The trace tells when that is (Belady, "A study of replacement algorithms for a virtual-storage
    computer", IBM Systems Journal 5(2), 1966). Of equals, what was read longest ago goes first.

    Parameters
    ----------
    pool, base, depth, slot, lives
        As of a `Ring`.
    lead : int
        What the last so many instances before one use is left alone if there is other room: then
        loads wait less, but there are more of them.
    """

    def __init__(
        self,
        pool: str,
        base: int,
        depth: int,
        slot: int,
        lives: dict[Tile, Lifetime],
        *,
        lead: int,
    ) -> None:
        super().__init__(pool, base, depth, slot, lives)
        self._uses: dict[tuple, list[int]] = {}
        for tile, life in lives.items():
            if tile.pool == pool and tile.key is not None:
                self._uses.setdefault(tile.key, []).append(life.first)
        self._needed: dict[Tile, float] = {}
        self._begins: deque[int] = deque([-1] * (lead + 1), maxlen=lead + 1)

    def claim(self, tiles: Sequence[Tile], now: int, placement: Placement) -> None:
        """See `Ring.claim`."""
        self._begins.append(now)
        shared = self._shared(tiles, now)
        self._share(shared, placement)
        firsts, twins = self._distinct([t for t in tiles if t not in shared])
        for tile in firsts:
            begin = self._room(tile.elems, now, set())
            if begin is None:
                self._refuse([tile], now)
            assert begin is not None
            self._put([tile], begin, placement)
            self._needed[tile] = self._next_use(tile)
        self._join(twins, placement)

    def _prolong(self, resident: Resident, tile: Tile) -> None:
        super()._prolong(resident, tile)
        self._needed[resident.tile] = self._next_use(tile)

    def _room(self, size: int, now: int, keep: set[int]) -> int | None:
        if not self._residents:
            return 0 if size <= self.depth else None
        need = self._needed.get
        there = np.array(
            [
                (
                    r.begin,
                    r.end,
                    r.busy_until,
                    r.read_until,
                    need(r.tile, NEVER) if r.whole else NEVER,
                )
                for r in self._residents
            ]
        )
        there = there[np.argsort(there[:, 0])]
        at = np.unique(np.concatenate([[0], there[:, 0], there[:, 1]]))
        at = at[at + size <= self.depth]
        first = np.searchsorted(there[:, 1], at, side="right")
        last = np.searchsorted(there[:, 0], at + size, side="left")
        busy, read, needed = (np.full(len(at), v) for v in (-1.0, -1.0, NEVER))
        for k in range(int((last - first).max(initial=0))):
            row = there[np.minimum(first + k, len(there) - 1)]
            gone = first + k < last
            busy = np.where(gone, np.maximum(busy, row[:, 2]), busy)
            read = np.where(gone, np.maximum(read, row[:, 3]), read)
            needed = np.where(gone, np.minimum(needed, row[:, 4]), needed)
        free = np.flatnonzero(busy < now)
        if not len(free):
            return None
        at, read, needed = at[free], read[free], needed[free]
        best = np.lexsort((at != self._next, read, -needed, read >= self._begins[0]))
        return int(at[best[0]])

    def _next_use(self, tile: Tile) -> float:
        uses = self._uses.get(tile.key, ()) if tile.key is not None else ()
        k = bisect_right(uses, self.lives[tile].first)
        return uses[k] if k < len(uses) else NEVER
