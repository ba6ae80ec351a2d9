"""What kernels work on: scratchpads as typed arrays, DRAM as one buffer with a table of segments.

Both are named tuples of arrays and integers, which Numba passes into kernels as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from covta.hw.isa import MemoryType, isa
from covta.hw.params import Config
from covta.sim.vector import LANES, PAIRS

__all__ = ["Dram", "State", "make_dram", "make_state", "read_dram"]

ALIGN_BYTES = 64


class State(NamedTuple):
    """Scratchpads and the sizes that kernels need. There is no out: it is the low bits of acc.

    Arrays
    ------
    uop : (uop_depth, 3) int32: dst, src, wgt
    inp : (inp_depth, batch * block_in) int16, sign-extended
    wgt : (wgt_depth, block_out * block_in) int16, sign-extended, ordered
        ``[block_out / chunk][block_in / 2][chunk][2]``: pairs along the reduction are adjacent
    acc : (acc_depth, batch * block_out) int32, sign-extended from acc_bits
    elem_bytes, depth : (6,) int64, by memory type
    uop_lsb, uop_mask : (3,) int64, of dst, src, wgt
    """

    uop: np.ndarray
    inp: np.ndarray
    wgt: np.ndarray
    acc: np.ndarray
    elem_bytes: np.ndarray
    depth: np.ndarray
    uop_lsb: np.ndarray
    uop_mask: np.ndarray
    batch: int
    block_in: int
    block_out: int
    inp_bits: int
    wgt_bits: int
    acc_bits: int
    out_bits: int
    chunk: int
    vector: bool


class Dram(NamedTuple):
    """Memory: `data` holds the segments, each from `begin` to `end` at byte `offset`.

    Segments are regions extended outwards to whole beats, touching ones joined, in ascending order.
    """

    data: np.ndarray
    begin: np.ndarray
    end: np.ndarray
    offset: np.ndarray
    base_ptrs: np.ndarray
    window_begin: int
    window_end: int


def _zeros(shape: tuple[int, int], dtype: type[np.generic]) -> np.ndarray:
    """Zeros that begin at a multiple of 64 bytes, so that vectors do not straddle cache lines."""
    size = shape[0] * shape[1] * np.dtype(dtype).itemsize
    buffer = np.zeros(size + ALIGN_BYTES, np.uint8)
    first = -buffer.ctypes.data % ALIGN_BYTES
    return buffer[first : first + size].view(dtype).reshape(shape)


def make_state(cfg: Config) -> State:
    """Scratchpads of a machine, zeroed."""
    x = isa(cfg)
    vector = cfg.block_in % (2 * PAIRS) == 0 and cfg.block_out % LANES == 0
    fields = [x.uop.positions[name] for name in ("dst", "src", "wgt")]
    return State(
        uop=_zeros((cfg.uop_depth, 3), np.int32),
        inp=_zeros((cfg.inp_depth, cfg.batch * cfg.block_in), np.int16),
        wgt=_zeros((cfg.wgt_depth, cfg.block_out * cfg.block_in), np.int16),
        acc=_zeros((cfg.acc_depth, cfg.lanes), np.int32),
        elem_bytes=np.array([x.elem_bytes(m) for m in MemoryType], np.int64),
        depth=np.array([x.depth(m) for m in MemoryType], np.int64),
        uop_lsb=np.array([lsb for lsb, _ in fields], np.int64),
        uop_mask=np.array([field.maximum for _, field in fields], np.int64),
        batch=cfg.batch,
        block_in=cfg.block_in,
        block_out=cfg.block_out,
        inp_bits=cfg.inp_bits,
        wgt_bits=cfg.wgt_bits,
        acc_bits=cfg.acc_bits,
        out_bits=cfg.out_bits,
        chunk=LANES if vector else cfg.block_out,
        vector=vector,
    )


def make_dram(
    regions: Sequence[tuple[int, np.ndarray]], base_ptrs: Sequence[int], *, bus_bytes: int
) -> Dram:
    """Lay regions (address, bytes) out in one buffer.

    Addresses lie below 2**63 and regions do not overlap. A segment's offset has its address's
    remainder modulo 64, so that words are aligned in the buffer where they are in DRAM.
    """
    order = sorted((r for r in regions if len(r[1])), key=lambda r: r[0])
    spans: list[list[int]] = []
    for addr, data in order:
        begin = addr // bus_bytes * bus_bytes
        end = -(-(addr + len(data)) // bus_bytes) * bus_bytes
        if spans and begin <= spans[-1][1]:
            spans[-1][1] = max(end, spans[-1][1])
        else:
            spans.append([begin, end])
    offsets: list[int] = []
    size = 0
    for begin, end in spans:
        offsets.append(size + (begin - size) % 64)
        size = offsets[-1] + end - begin
    dram = Dram(
        data=np.zeros(size, np.uint8),
        begin=np.array([s[0] for s in spans], np.int64),
        end=np.array([s[1] for s in spans], np.int64),
        offset=np.array(offsets, np.int64),
        base_ptrs=np.array([int(p) for p in base_ptrs], np.int64),
        window_begin=spans[0][0] if spans else 0,
        window_end=spans[-1][1] if spans else 0,
    )
    for addr, data in order:
        at = _offset(dram, addr)
        dram.data[at : at + len(data)] = data
    return dram


def read_dram(dram: Dram, addr: int, size: int) -> np.ndarray:
    """Copy the bytes of a region out."""
    if not size:
        return np.zeros(0, np.uint8)
    at = _offset(dram, addr)
    return dram.data[at : at + size].copy()


def _offset(dram: Dram, addr: int) -> int:
    index = int(np.searchsorted(dram.begin, addr, side="right")) - 1
    return int(dram.offset[index]) + addr - int(dram.begin[index])
