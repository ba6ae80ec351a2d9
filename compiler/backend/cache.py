"""A part of inp or wgt that keeps what is needed again soonest."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Collection, Sequence

import numpy as np

from covta.compiler.backend.ops import Lifetime, Tile
from covta.compiler.backend.placement import Placement
from covta.compiler.backend.residents import NEVER
from covta.compiler.backend.ring import Ring

__all__ = ["Cache"]

_NOTHING = np.array([[-1], [-1], [NEVER]])
"""The uses of no resident."""


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
        self._begins: deque[int] = deque([-1] * (lead + 1), maxlen=lead + 1)

    def claim(self, tiles: Sequence[Tile], now: int, placement: Placement) -> None:
        """See `Ring.claim`."""
        self._begins.append(now)
        shared = self._shared(tiles, now)
        self._share(shared, placement)
        firsts, twins = self._distinct([t for t in tiles if t not in shared])
        for tile in firsts:
            begin = self._room(tile.elems, now, ())
            if begin is None:
                self._refuse([tile], now)
            assert begin is not None
            self._put([tile], begin, placement)
        self._join(twins, placement)

    def _room(self, size: int, now: int, keep: Collection[int]) -> int | None:
        assert not keep, keep
        if not len(self._residents):
            return 0 if size <= self.depth else None
        begins, ends, *uses = self._residents.table
        at = np.concatenate([[0], begins, ends])
        at = np.sort(at[at <= self.depth - size])
        # what lies in the room that begins at each; reduceat takes pairs of indices
        spans = np.empty(2 * len(at), np.int64)
        spans[::2] = np.searchsorted(ends, at, side="right")
        spans[1::2] = np.searchsorted(begins, at + size, side="left")
        used = np.concatenate([uses, _NOTHING], axis=1)
        busy, read, urgency = np.maximum.reduceat(used, spans, axis=1)[:, ::2]
        nothing = spans[::2] == spans[1::2]
        busy[nothing], read[nothing], urgency[nothing] = _NOTHING
        free = busy < now
        late = free & (read < self._begins[0])
        best = np.flatnonzero(late if late.any() else free)
        if not len(best):
            return None
        for least in (urgency, read, at != self._next):
            values = least[best]
            best = best[values == values.min()]
        return int(at[best[0]])

    def _urgency(self, tile: Tile) -> int:
        uses = self._uses.get(tile.key, ()) if tile.key is not None else ()
        k = bisect_right(uses, self.lives[tile].first)
        return -uses[k] if k < len(uses) else NEVER
