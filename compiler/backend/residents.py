"""What lies in a part of a scratchpad, in the order of addresses."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from covta.compiler.backend.ops import Tile

__all__ = ["NEVER", "Resident", "Residents"]

NEVER = -np.iinfo(np.int64).max
"""The urgency of what is not needed again."""


class Resident(NamedTuple):
    """Where something lies, until which operation it is used and read, and how urgent it is.

    `urgency` is minus the number of the operation that needs it next: larger is sooner.
    """

    begin: int
    end: int
    busy_until: int
    read_until: int
    urgency: int = NEVER


class Residents:
    """Residents, none of which overlap, as columns of an array.

    What is left of a tile that is overwritten in part stays, for its reads.
    """

    def __init__(self) -> None:
        self._table = np.empty((len(Resident._fields), 0), np.int64)
        self._begins: list[int] = []
        self._ends: list[int] = []
        self._tiles: list[Tile] = []
        self._whole: dict[tuple, int] = {}

    def __len__(self) -> int:
        return len(self._tiles)

    @property
    def table(self) -> np.ndarray:
        """The fields of `Resident` x residents, int64, in the order of addresses."""
        return self._table

    def find(self, tile: Tile) -> int | None:
        """Address of a tile with the same contents that nothing is overwritten of."""
        begin = None if tile.key is None else self._whole.get(tile.key)
        same = begin is not None and self.at(begin).elems == tile.elems
        return begin if same else None

    def at(self, begin: int) -> Tile:
        """The tile that begins there."""
        return self._tiles[self.number(begin)]

    def number(self, begin: int) -> int:
        """The column of what begins there."""
        k = bisect_left(self._begins, begin)
        assert self._begins[k] == begin, begin
        return k

    def prolong(self, begin: int, busy_until: int, read_until: int, urgency: int) -> None:
        """What begins there is used longer."""
        column = self._table[:, self.number(begin)]
        column[2:] = max(column[2], busy_until), max(column[3], read_until), urgency

    def put(self, tiles: Sequence[Tile], residents: Sequence[Resident]) -> list[int]:
        """Tiles side by side overwrite what is there.

        Returns for each the last operation that reads what it overwrites, or -1.
        """
        begin, end = residents[0].begin, residents[-1].end
        low, high = bisect_right(self._ends, begin), bisect_left(self._begins, end)
        gone = [Resident(*column) for column in self._table[:, low:high].T.tolist()]
        pieces = list(zip(tiles, residents, strict=True))
        for tile, there in zip(self._tiles[low:high], gone, strict=True):
            if tile.key is not None and self._whole.get(tile.key) == there.begin:
                del self._whole[tile.key]
            if there.begin < begin:
                pieces.insert(0, (tile, there._replace(end=begin, urgency=NEVER)))
            if there.end > end:
                pieces.append((tile, there._replace(begin=end, urgency=NEVER)))
        self._whole |= {t.key: r.begin for t, r in zip(tiles, residents, strict=True) if t.key}
        new = np.array([piece for _, piece in pieces], np.int64).T
        self._table = np.concatenate([self._table[:, :low], new, self._table[:, high:]], axis=1)
        self._begins[low:high] = [piece.begin for _, piece in pieces]
        self._ends[low:high] = [piece.end for _, piece in pieces]
        self._tiles[low:high] = [tile for tile, _ in pieces]
        return [
            max((g.read_until for g in gone if g.begin < r.end and r.begin < g.end), default=-1)
            for r in residents
        ]
