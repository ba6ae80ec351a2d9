"""The program's DRAM: one image of its regions, and sets of address ranges."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from covta.compiler.verify.stream import ProgramLike

__all__ = ["Memory", "Ranges", "merge"]


@dataclass(frozen=True, kw_only=True)
class Ranges:
    """Disjoint, ascending ranges of addresses, ``begin <= address < end``, int64 each."""

    begin: np.ndarray
    end: np.ndarray

    def overlap(self, begin: np.ndarray, end: np.ndarray) -> np.ndarray:
        """Which of the ranges ``[begin, end)`` meet one of these."""
        if not len(self.begin):
            return np.zeros(np.shape(begin), bool)
        at = np.searchsorted(self.begin, end, side="left") - 1
        return (at >= 0) & (self.end[np.maximum(at, 0)] > begin)

    def hold(self, begin: np.ndarray, end: np.ndarray) -> np.ndarray:
        """Which of the ranges ``[begin, end)`` lie inside one of these."""
        if not len(self.begin):
            return np.zeros(np.shape(begin), bool)
        at = np.searchsorted(self.begin, begin, side="right") - 1
        return (at >= 0) & (self.end[np.maximum(at, 0)] >= end)


def merge(begin: np.ndarray, end: np.ndarray) -> Ranges:
    """The union of ranges; those that touch become one."""
    keep = end > begin
    begin, end = begin[keep], end[keep]
    order = np.argsort(begin, kind="stable")
    begin, end = begin[order].astype(np.int64), end[order].astype(np.int64)
    if not len(begin):
        return Ranges(begin=begin, end=end)
    reach = np.maximum.accumulate(end)
    first = np.concatenate(([True], begin[1:] > reach[:-1]))
    last = np.concatenate((first[1:], [True]))
    return Ranges(begin=begin[first], end=reach[last])


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes of all regions and of the stream, before the run.

    Parameters
    ----------
    ranges : Ranges
        The regions; those that touch stay apart, since a row across both is a slip.
    data : ndarray
        ``(size,) uint8``: all ranges, one after the other.
    offset : ndarray
        Of each range in `data`.
    stream : Ranges
        The instructions.
    """

    ranges: Ranges
    data: np.ndarray
    offset: np.ndarray
    stream: Ranges

    @classmethod
    def of(cls, program: ProgramLike) -> Memory:
        """Lay out a program's regions; the stream is one of them or comes beside them."""
        pieces = [
            (int(addr), data)
            for addr, data in zip(program.region_addrs, program.regions, strict=True)
            if len(data)
        ]
        at, size = int(program.insn_addr), program.insn.size
        if not any(addr <= at < addr + len(data) for addr, data in pieces):
            pieces.append((at, np.ascontiguousarray(program.insn).reshape(-1)))
        pieces.sort(key=lambda piece: piece[0])
        begin = np.array([addr for addr, _ in pieces], np.int64)
        end = np.array([addr + len(data) for addr, data in pieces], np.int64)
        sizes = end - begin
        return cls(
            ranges=Ranges(begin=begin, end=end),
            data=np.concatenate([data for _, data in pieces]),
            offset=np.cumsum(sizes) - sizes,
            stream=Ranges(begin=np.array([at]), end=np.array([at + size])),
        )

    def read(self, addr: int, size: int) -> np.ndarray:
        """Bytes of a range that `ranges` hold."""
        index = int(np.searchsorted(self.ranges.begin, addr, side="right")) - 1
        at = int(self.offset[index]) + addr - int(self.ranges.begin[index])
        return self.data[at : at + size]
