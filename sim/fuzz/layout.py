"""DRAM of a random program: where its regions, its stream and its base pointers lie."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from covta.hw.isa import INSN_BYTES, MemoryType, isa
from covta.hw.microarchitecture import PAGE_BYTES
from covta.hw.params import Config

__all__ = ["GRANULE_BYTES", "DramLayout", "DramRegion", "random_layout"]

GRANULE_BYTES = 4
"""Every transfer is a multiple of this: conflicts in DRAM are looked for at this grain."""


ADDR_BITS = 63
"""Addresses that every device can take: simulators hold them in signed 64-bit integers."""

_EXTREME_BYTES = bytes((0x80, 0x7F, 0x00, 0xFF, 0x01, 0x81, 0xFE, 0x40))
_EXTREME_TABLE = bytes(_EXTREME_BYTES[k % 8] if k < 224 else k for k in range(256))
_SMALL_TABLE = bytes((k % 7 - 3) & 255 for k in range(256))


@dataclass(kw_only=True)
class DramRegion:
    """Consecutive bytes that a program may touch.

    Parameters
    ----------
    addr : int
        Byte address.
    data : bytearray
        Its bytes before the run.
    writable : bool
        Whether STOREs go there.
    granule : int
        Index of its first granule among those of all regions.
    """

    addr: int
    data: bytearray
    writable: bool
    granule: int

    def __len__(self) -> int:
        return len(self.data)


@dataclass(kw_only=True)
class DramLayout:
    """Memory before the run.

    Parameters
    ----------
    base_ptrs : list of int
        By memory type, multiples of the bus width.
    regions : list of DramRegion
        Data, in order of address.
    uops : DramRegion
        Micro-ops, in whose bytes the generator writes.
    insn_addr : int
    insn_room_bytes : int
        Bytes free from `insn_addr` on.
    """

    base_ptrs: list[int]
    regions: list[DramRegion]
    uops: DramRegion
    insn_addr: int
    insn_room_bytes: int

    def elems(self, region: DramRegion, memory_type: MemoryType, elem_bytes: int) -> range:
        """Values of `dram_base` whose elements lie in a region."""
        base = self.base_ptrs[memory_type]
        first = -(-(region.addr - base) // elem_bytes)
        end = (region.addr + len(region) - base) // elem_bytes
        return range(first, max(first, min(end, 1 << 32)))

    def granules(self, region: DramRegion, addr: int) -> int:
        """Index of the granule of an address inside a region."""
        return region.granule + (addr - region.addr) // GRANULE_BYTES


def _random_bytes(rng: Random, count: int) -> bytearray:
    """Uniform bytes, extremes of every width, or small values."""
    data = rng.randbytes(count)
    kind = rng.random()
    if kind < 0.25:
        data = data.translate(_EXTREME_TABLE)
    elif kind < 0.5:
        data = data.translate(_SMALL_TABLE)
    return bytearray(data)


def _gap_bytes(rng: Random, bus_bytes: int) -> int:
    kind = rng.random()
    if kind < 0.2:
        return 0
    if kind < 0.6:
        return bus_bytes * rng.randrange(1, 9)
    return rng.randrange(PAGE_BYTES // 2) // bus_bytes * bus_bytes


def _align(addr: int, step: int) -> int:
    return -(-addr // step) * step


def random_layout(
    cfg: Config, rng: Random, *, data_bytes: int, uop_words: int, insn_count: int
) -> DramLayout:
    """Place read-only regions, writable regions, micro-ops and the stream, with gaps between some.

    Parameters
    ----------
    data_bytes : int
        About the bytes of one data region.
    uop_words : int
        Micro-ops that the program may place in DRAM.
    insn_count : int
        Instructions for which there must be room.
    """
    bus = cfg.bus_bytes
    x = isa(cfg)
    largest = max(x.elem_bytes(m) for m in MemoryType)
    kinds = ["input"] * rng.randrange(1, 4) + ["output"] * rng.randrange(1, 4) + ["uop", "insn"]
    rng.shuffle(kinds)

    space = 1 << min(cfg.bus.addr_bits, ADDR_BITS)
    need = 16 * (data_bytes + 4 * largest) + 4 * uop_words + INSN_BYTES * insn_count + (1 << 16)
    origin = 0
    if need < space and rng.random() < 0.8:
        # Anywhere, but mostly where zero base pointers reach: 32-bit indices of micro-ops.
        top = min(space, 1 << 34 if rng.random() < 0.7 else space)
        origin = rng.randrange(top - need) // PAGE_BYTES * PAGE_BYTES
    base_ptrs = _random_base_ptrs(cfg, rng, origin, need)

    addr = origin
    granule = 0
    regions: list[DramRegion] = []
    uops = None
    insn_addr = insn_room_bytes = 0
    for kind in kinds:
        addr += _gap_bytes(rng, bus)
        if rng.random() < 0.15:  # transfers that must not cross the page they begin in
            addr = _align(addr, PAGE_BYTES) + PAGE_BYTES - bus * rng.randrange(1, 9)
        if kind == "insn":
            addr = insn_addr = _align(addr, INSN_BYTES)
            insn_room_bytes = INSN_BYTES * insn_count
            addr = _align(addr + insn_room_bytes, bus)
            continue
        if kind == "uop":
            addr = _align(addr, GRANULE_BYTES) + GRANULE_BYTES * rng.randrange(4)
            size = GRANULE_BYTES * uop_words
        elif kind == "input":
            addr = _align(addr, GRANULE_BYTES)
            size = max(2 * largest, rng.randrange(data_bytes // 2, data_bytes + 1))
            size = _align(size, GRANULE_BYTES)
        else:
            addr = _align(addr, bus)
            size = _align(max(2 * largest, rng.randrange(data_bytes // 2, data_bytes + 1)), bus)
        region = DramRegion(
            addr=addr,
            data=_random_bytes(rng, size),
            writable=kind == "output",
            granule=granule,
        )
        granule += size // GRANULE_BYTES
        addr = addr + size if kind == "uop" else _align(addr + size, bus)
        if kind == "uop":
            uops = region
            addr = _align(addr, bus)
        else:
            regions.append(region)
    assert uops is not None
    assert addr <= space or origin == 0
    return DramLayout(
        base_ptrs=base_ptrs,
        regions=regions,
        uops=uops,
        insn_addr=insn_addr,
        insn_room_bytes=insn_room_bytes,
    )


def _random_base_ptrs(cfg: Config, rng: Random, origin: int, need: int) -> list[int]:
    """Zeros where they reach every region, or multiples of the bus width below the regions."""
    x = isa(cfg)
    zero = rng.random() < 0.5
    pointers = []
    for memory_type in MemoryType:
        reach = (x.elem_bytes(memory_type) << 32) - need
        if origin < reach and (zero or rng.random() < 0.2):
            pointers.append(0)
        else:
            low = max(0, origin - reach + 1)
            near = max(low, origin - (1 << 16))
            pointer = rng.randrange(near if rng.random() < 0.5 else low, origin + 1)
            pointers.append(max(low, pointer) // cfg.bus_bytes * cfg.bus_bytes)
    return pointers
