"""Boxes of output tiles: full ones, with small ones where the work begins and ends."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

__all__ = ["Box", "even", "grid", "halves", "taper"]

Box = tuple[tuple[int, int], ...]
"""``(begin, size)`` per axis."""


def even(size: int, at_most: int) -> int:
    """A tile size not above `at_most`, such that tiles of `size` are as equal as can be."""
    return math.ceil(size / math.ceil(size / max(1, min(size, at_most))))


def grid(shape: Sequence[int], tile: Sequence[int]) -> list[Box]:
    """Boxes of `tile` that cover `shape`, the last axis running fastest."""
    ranges = [
        [(b, min(t, n - b)) for b in range(0, n, t)] for n, t in zip(shape, tile, strict=True)
    ]
    return list(itertools.product(*ranges))


def taper(
    box: Box, axes: Sequence[int], small: Callable[[Box], bool], *, share: int = 4
) -> list[Box]:
    """Cut a box into smaller and smaller ones, until the last is `small`.

    Parameters
    ----------
    axes : sequence of int
        Axes to cut, the first ones first.
    share : int
        What part is cut off each time, one at least: a quarter where the work on a box takes far
        longer than its transfers, so that it hides those of the next; a half where they compare.
    """
    if small(box):
        return [box]
    for axis in axes:
        begin, size = box[axis]
        if size > 1:
            last = math.ceil(size / share)
            head = tuple((begin, size - last) if d == axis else r for d, r in enumerate(box))
            tail = tuple((begin + size - last, last) if d == axis else r for d, r in enumerate(box))
            return [head, *taper(tail, axes, small, share=share)]
    return [box]


def halves(box: Box, axes: Sequence[int]) -> list[Box]:
    """A box cut in two along the first of `axes` that can be cut; else the box."""
    for axis in axes:
        begin, size = box[axis]
        if size > 1:
            half = size - size // 2
            cuts = ((begin, half), (begin + half, size - half))
            return [tuple(cut if d == axis else r for d, r in enumerate(box)) for cut in cuts]
    return [box]
