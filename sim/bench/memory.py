"""The memory behind the bench: regions of bytes as whole beats."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

__all__ = ["Extent", "extents_of"]


@dataclass(frozen=True, kw_only=True)
class Extent:
    """Consecutive beats that exist.

    Parameters
    ----------
    base : int
        Byte address, a multiple of a beat.
    data : np.ndarray
        ``(size,) uint8``, whole beats; what no region covers is zero.
    """

    base: int
    data: np.ndarray

    @property
    def end(self) -> int:
        """First byte address beyond."""
        return self.base + len(self.data)

    def view(self, addr: int, size_bytes: int) -> np.ndarray:
        """The bytes at an address, shared."""
        assert self.base <= addr
        assert addr + size_bytes <= self.end
        return self.data[addr - self.base : addr - self.base + size_bytes]


def extents_of(regions: Iterable[tuple[int, np.ndarray]], beat_bytes: int) -> list[Extent]:
    """Merge regions that touch or share beats; the result is sorted, disjoint and holds copies.

    Parameters
    ----------
    regions : iterable of (int, np.ndarray)
        Byte address and ``(size,) uint8`` bytes; regions do not overlap.
    beat_bytes : int
        Bytes of one beat of the bus.
    """
    ordered = sorted(((addr, data) for addr, data in regions if len(data)), key=lambda r: r[0])
    spans: list[tuple[int, int, list[tuple[int, np.ndarray]]]] = []
    for addr, data in ordered:
        base = addr // beat_bytes * beat_bytes
        end = -(-(addr + len(data)) // beat_bytes) * beat_bytes
        if spans and base <= spans[-1][1]:
            first, last, members = spans[-1]
            members.append((addr, data))
            spans[-1] = (first, max(last, end), members)
        else:
            spans.append((base, end, [(addr, data)]))
    extents = []
    for base, end, members in spans:
        extent = Extent(base=base, data=np.zeros(end - base, np.uint8))
        for addr, data in members:
            extent.view(addr, len(data))[:] = data
        extents.append(extent)
    return extents
