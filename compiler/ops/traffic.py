"""The least that a windowed sum has to read, for scratchpads of some size.

Sums never leave acc before they are complete, so the outputs are a sequence of tiles that fit it.
From one tile to the next a scratchpad keeps at most what it holds. So, for tiles of one size and
either order of them, no program reads less than what the tiles need together, without what can be
kept at each step; the least over all sizes and both orders bounds every program of such tiles.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np

__all__ = ["Traffic", "least_bytes"]


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """Sizes that a bound depends on.

    Parameters
    ----------
    inputs, outputs : int
        Channel blocks.
    shape, out_shape, kernel, stride, padding, dilation : (int, int)
        Rows, columns. A tile takes of the image what its window meets.
    phases : int
        Outputs at each place of `out_shape`.
    input_bytes, weight_bytes : int
        Of an element.
    inp_depth, wgt_depth, acc_depth : int
        Elements of the scratchpads.
    """

    inputs: int
    outputs: int
    shape: tuple[int, int]
    out_shape: tuple[int, int]
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    phases: int
    input_bytes: int
    weight_bytes: int
    inp_depth: int
    wgt_depth: int
    acc_depth: int

    def extents(self, axis: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Tile sizes; how many tiles there are; rows or columns that all of them need together."""
        n, out = self.shape[axis], self.out_shape[axis]
        stride, pad = self.stride[axis], self.padding[axis]
        taps = np.arange(self.kernel[axis]) * self.dilation[axis] - pad
        counts = sorted({math.ceil(out / size) for size in range(1, out + 1)})
        sizes, total = [], []
        for count in counts:
            edges = [k * out // count for k in range(count + 1)]
            need = 0
            for begin, end in itertools.pairwise(edges):
                met = np.unique(np.arange(begin, end)[:, None] * stride + taps)
                need += int(((met >= 0) & (met < n)).sum())
            sizes.append(out / count)
            total.append(need)
        return np.array(sizes), np.array(counts), np.array(total)


def least_bytes(t: Traffic) -> int:
    """Bytes of inputs and weights of one image and super-block."""
    rows, row_tiles, row_need = t.extents(0)
    columns, column_tiles, column_need = t.extents(1)
    across = np.array(sorted({math.ceil(t.outputs / q) for q in range(1, t.outputs + 1)}))
    pixels = (rows[:, None] * columns[None, :])[:, :, None] * t.phases
    fits = pixels * (t.outputs / across) <= t.acc_depth
    places = (row_tiles[:, None] * column_tiles[None, :])[:, :, None]
    needed = (row_need[:, None] * column_need[None, :])[:, :, None] * t.inputs
    once = int(row_need[0] * column_need[0]) * t.inputs  # of a single tile
    weights = t.inputs * t.outputs * math.prod(t.kernel) * t.phases

    def kept(each: np.ndarray | float, times: np.ndarray, depth: int) -> np.ndarray:
        """What is read of something that is needed so many times in a row."""
        return each + (times - 1) * np.maximum(0, each - depth)

    first = np.maximum(once, needed - (places - 1) * t.inp_depth)  # halos may stay
    ways = [
        # every channel tile of a place before the next place
        places * kept(first / places, across, t.inp_depth) * t.input_bytes
        + kept(np.float64(weights), places, t.wgt_depth) * t.weight_bytes,
        # every place of a channel tile before the next channel tile
        kept(first, across, t.inp_depth) * t.input_bytes
        + across * kept(weights / across, places, t.wgt_depth) * t.weight_bytes,
    ]
    return round(min(float(np.where(fits, way, np.inf).min()) for way in ways))
