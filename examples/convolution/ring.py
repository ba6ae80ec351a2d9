"""Scratchpads that are filled in turns, and what they still hold."""

from __future__ import annotations

__all__ = ["Ring", "ring_elems", "runs"]


class Ring:
    """A scratchpad as a ring of units, each known by a key while it lasts.

    Parameters
    ----------
    depth : int
        Elements that the ring uses.
    """

    def __init__(self, depth: int) -> None:
        self.depth = depth
        self.where: dict[tuple, int] = {}
        self._size: dict[tuple, int] = {}
        self._next = 0

    def claim(self, keys: list[tuple], unit: int) -> list[tuple]:
        """Make room for those of `keys` that are not there; returns them, side by side from the
        first on. All of `keys` are there afterwards."""
        missing = [k for k in keys if k not in self.where]
        if missing:
            self._put(missing, unit)
            if any(k not in self.where for k in keys):  # a unit still needed was overwritten
                missing = list(keys)
                self._put(missing, unit)
        return missing

    def _put(self, keys: list[tuple], unit: int) -> None:
        size = unit * len(keys)
        assert size <= self.depth
        if self._next + size > self.depth:
            self._next = 0
        begin, end = self._next, self._next + size
        for key, at in list(self.where.items()):
            if at < end and begin < at + self._size[key]:
                del self.where[key]
        for k, key in enumerate(keys):
            self.where[key], self._size[key] = begin + k * unit, unit
        self._next = end


def ring_elems(depth: int, stage: int, *, whole: int | None = None) -> int:
    """Elements of a ring for stages of one size: a power of two of them, at most 4.

    So stages come to lie in few ways, and there are few different micro-ops. But all of it if
    `whole`, everything that will ever be in it, fits.
    """
    if depth < 2 * stage or (whole is not None and whole <= depth):
        return depth
    return stage * (4 if depth >= 4 * stage else 2)


def runs(numbers: list[int]) -> list[list[int]]:
    """Cut an ascending list where it skips."""
    found: list[list[int]] = []
    for n in numbers:
        if found and found[-1][-1] + 1 == n:
            found[-1].append(n)
        else:
            found.append([n])
    return found
