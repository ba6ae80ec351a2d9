"""Which part of the image output rows need."""

from __future__ import annotations

import math
from dataclasses import dataclass

from convolution.layer import Layer

__all__ = ["Geometry", "Tile"]


@dataclass(frozen=True, kw_only=True)
class Tile:
    """Output rows and output channel blocks whose sums are in acc together."""

    image: int
    row: int
    rows: int
    co: int
    cos: int


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """A layer's rows and columns as they lie in inp.

    Parameters
    ----------
    layer : Layer
    skip_padding : bool
        Padding is neither stored nor multiplied by.
    """

    layer: Layer
    skip_padding: bool

    @property
    def width(self) -> int:
        """Elements of a row in inp."""
        return self.layer.size + (0 if self.skip_padding else 2 * self.layer.pad)

    def plane_elems(self, rows: int) -> int:
        """Elements of inp that `rows` output rows need of one input channel block."""
        layer = self.layer
        height = (rows - 1) * layer.row_stride + layer.kernel
        return (min(height, layer.rows) if self.skip_padding else height) * self.width

    def input_rows(self, tile: Tile) -> tuple[int, int]:
        """Rows of the image that a tile needs, first and end; beyond the image where padding is."""
        layer = self.layer
        begin = tile.row * layer.row_stride - layer.pad
        end = (tile.row + tile.rows - 1) * layer.row_stride - layer.pad + layer.kernel
        return (max(begin, 0), min(end, layer.rows)) if self.skip_padding else (begin, end)

    def reach_rows(self, ky: int, first: int, count: int) -> tuple[int, int]:
        """Output rows from `first` whose kernel row meets the image: the first, how many."""
        return self._reach(ky, first, count, self.layer.row_stride, self.layer.rows)

    def reach_columns(self, kx: int) -> tuple[int, int]:
        """Output columns whose kernel column meets the image: the first, how many."""
        return self._reach(kx, 0, self.layer.out_size, self.layer.stride, self.layer.size)

    def _reach(self, tap: int, first: int, count: int, stride: int, size: int) -> tuple[int, int]:
        if not self.skip_padding:
            return first, count
        pad = self.layer.pad
        low = max(first, math.ceil((pad - tap) / stride))
        high = min(first + count, (size - 1 + pad - tap) // stride + 1)
        return low, max(0, high - low)
