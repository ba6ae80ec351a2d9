"""Where things lie: buffers in DRAM, ranges of scratchpads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import overload

import numpy as np

from covta.hw.isa import MemoryType, isa
from covta.hw.params import Config
from covta.runtime.builder.errors import BuildError, require
from covta.runtime.layout import LayoutError, from_bytes, to_bytes

__all__ = [
    "ALIGN_BYTES",
    "DRAM_BASE",
    "Buffer",
    "Dram",
    "Range",
    "Scratchpad",
    "elem_shape",
    "encode",
]

DRAM_BASE = 0x10000
"""Byte address of a program's first buffer; address 0 stays free, so that a null pointer faults."""

ALIGN_BYTES = 64
"""Least alignment of a buffer; one of larger elements is aligned to its element."""


def elem_shape(cfg: Config, memory: MemoryType) -> tuple[tuple[int, ...], int]:
    """Shape of one element and bits of one lane, as DRAM holds them."""
    return {
        MemoryType.UOP: ((1,), cfg.uop_bits),
        MemoryType.WGT: ((cfg.block_out, cfg.block_in), cfg.wgt_bits),
        MemoryType.INP: ((cfg.batch, cfg.block_in), cfg.inp_bits),
        MemoryType.ACC: ((cfg.batch, cfg.block_out), cfg.acc_bits),
        MemoryType.OUT: ((cfg.batch, cfg.block_out), cfg.out_bits),
        MemoryType.ACC_8BIT: ((cfg.batch, cfg.block_out), 8),
    }[memory]


@dataclass(frozen=True, kw_only=True, eq=False)
class Buffer:
    """A tensor in DRAM.

    Parameters
    ----------
    name : str
    cfg : Config
    memory : MemoryType
        What its elements are; decides how `dram_base` counts.
    shape : tuple of int
        Of elements, without the element's own axes.
    addr : int
        Byte address, a multiple of 64 and of the element's size.
    data : np.ndarray
        uint8, before the run.
    """

    name: str
    cfg: Config
    memory: MemoryType
    shape: tuple[int, ...]
    addr: int
    data: np.ndarray

    @property
    def elem_bytes(self) -> int:
        """DRAM bytes of one element."""
        return isa(self.cfg).elem_bytes(self.memory)

    @property
    def elems(self) -> int:
        """Elements in all."""
        return int(np.prod(self.shape))

    @property
    def elem_base(self) -> int:
        """`dram_base` of the first element, with a base pointer of 0."""
        return self.addr // self.elem_bytes

    def index(self, *position: int) -> int:
        """Offset of the element at `position` (row-major), from the buffer's start.

        Raises
        ------
        BuildError
            If `position` lies outside `shape`.
        """
        try:
            return int(np.ravel_multi_index(position, self.shape))
        except ValueError:
            raise BuildError(
                f"{self.name}: position must lie in shape {self.shape}, got {position}"
            ) from None

    def encode(self, values: np.ndarray) -> np.ndarray:
        """Bytes of a tensor of this buffer's shape."""
        return encode(self.name, self.cfg, self.memory, values)

    def decode(self, data: np.ndarray) -> np.ndarray:
        """Tensor ``shape + element shape`` of this buffer's bytes, e.g. after a run."""
        shape, bits = elem_shape(self.cfg, self.memory)
        return from_bytes(data[: self.elems * self.elem_bytes], bits, self.shape + shape)


def encode(name: str, cfg: Config, memory: MemoryType, values: np.ndarray) -> np.ndarray:
    """Bytes of a tensor ``shape + element shape``; `name` stands in messages."""
    shape, bits = elem_shape(cfg, memory)
    require(
        values.ndim > len(shape) and values.shape[-len(shape) :] == shape,
        f"{name}: the last axes must be one {memory.name} element {shape}, got shape"
        f" {values.shape}",
    )
    flat = values.reshape(-1, int(np.prod(shape)))
    try:
        return to_bytes(flat, bits).reshape(-1)
    except LayoutError as error:
        raise BuildError(f"{name}: {error}") from None


class Dram:
    """Hands out addresses one after the other, so that equal kernels get equal programs."""

    def __init__(self, cfg: Config, base: int = DRAM_BASE) -> None:
        require(base % 4096 == 0, f"dram_base must be a multiple of 4096, got {base:#x}")
        self.cfg = cfg
        self.buffers: dict[str, Buffer] = {}
        self._next = base

    def reserve(self, size_bytes: int, align_bytes: int = ALIGN_BYTES) -> int:
        """Next aligned address with room for `size_bytes`."""
        addr = -(-self._next // align_bytes) * align_bytes
        end = addr + max(size_bytes, 1)
        require(
            end <= 1 << self.cfg.bus.addr_bits,
            f"buffers must end below 2**{self.cfg.bus.addr_bits} (bus.addr_bits), got {end:#x}",
        )
        self._next = end
        return addr

    def place(
        self,
        name: str,
        memory: MemoryType,
        *,
        values: np.ndarray | None = None,
        shape: tuple[int, ...] | None = None,
    ) -> Buffer:
        """Make a buffer from `values`, or of `shape` elements of zeros."""
        require(name not in self.buffers, f"buffer name must be new, got {name!r}")
        require(
            (values is None) != (shape is None),
            f"{name}: exactly one of values and shape must be given",
        )
        elem_bytes = isa(self.cfg).elem_bytes(memory)
        if values is not None:
            data = encode(name, self.cfg, memory, values)
            shape = values.shape[: values.ndim - len(elem_shape(self.cfg, memory)[0])]
        else:
            assert shape is not None
            data = np.zeros(int(np.prod(shape)) * elem_bytes, np.uint8)
        addr = self.reserve(len(data), max(ALIGN_BYTES, elem_bytes))
        buffer = Buffer(
            name=name, cfg=self.cfg, memory=memory, shape=tuple(shape), addr=addr, data=data
        )
        self.buffers[name] = buffer
        return buffer


@dataclass(frozen=True, kw_only=True)
class Range:
    """Consecutive elements of a scratchpad.

    ``r[k]`` is the address of its ``k``-th element, ``r[a:b]`` a part of it.

    Parameters
    ----------
    pad : str
        ``inp``, ``wgt`` or ``acc``.
    base, size : int
        In elements.
    """

    pad: str
    base: int
    size: int

    def __len__(self) -> int:
        return self.size

    @overload
    def __getitem__(self, key: int) -> int: ...

    @overload
    def __getitem__(self, key: slice) -> Range: ...

    def __getitem__(self, key: int | slice) -> int | Range:
        if isinstance(key, slice):
            start, stop, step = key.indices(self.size)
            require(
                step == 1 and stop >= start,
                f"a part of a {self.pad} range must go up in steps of 1, got {key}",
            )
            return Range(pad=self.pad, base=self.base + start, size=stop - start)
        require(
            -self.size <= key < self.size,
            f"{self.pad} index must lie in a range of {self.size}, got {key}",
        )
        return self.base + key % self.size


class Scratchpad:
    """Allocates ranges of one scratchpad, upwards; nothing is freed.

    Parameters
    ----------
    pad : str
        Its name.
    depth : int
        Its elements.
    """

    def __init__(self, pad: str, depth: int) -> None:
        self.pad = pad
        self.depth = depth
        self.used = 0

    def alloc(self, size: int) -> Range:
        """Take the next `size` elements.

        Raises
        ------
        BuildError
            If they are not there.
        """
        require(size > 0, f"{self.pad}: size of a range must be at least 1, got {size}")
        require(
            self.used + size <= self.depth,
            f"{self.pad}: {size} elements must fit what is left of {self.depth}, got"
            f" {self.depth - self.used}",
        )
        taken = Range(pad=self.pad, base=self.used, size=size)
        self.used += size
        return taken

    def at(self, base: int, size: int) -> Range:
        """A range of one's own choice, e.g. one half of acc."""
        require(
            base >= 0 and size > 0 and base + size <= self.depth,
            f"{self.pad}: a range must lie in {self.depth} elements, got {base} ... {base + size}",
        )
        return Range(pad=self.pad, base=base, size=size)

    def halves(self) -> tuple[Range, Range]:
        """Both halves: in acc these are the banks that engines may use side by side."""
        half = self.depth // 2
        return self.at(0, half), self.at(half, half)
