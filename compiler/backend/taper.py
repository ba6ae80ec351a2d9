"""A short end: what follows the last GEMM has no shadow, so let it be little.

The last block is cut into smaller and smaller ones; each is finished beside the GEMMs of the next.
"""

from __future__ import annotations

import dataclasses
from bisect import bisect_right

from covta.compiler.backend.blocks import Numbers, cuts, find_block, split_block
from covta.compiler.backend.ops import Trace

__all__ = ["taper"]

LAST_ELEMS = 64
"""A block of so few sums is not cut."""


def taper(trace: Trace, *, ratio: int = 4) -> Trace:
    """Cut the last block.

    Rewrite: block -> block of the first sums, block of the last ``1 / ratio`` of them, and so on.
    Preserves: results. A trace whose last block is interwoven with others stays as it is.
    """
    numbers = Numbers(trace)
    while True:
        block = find_block(trace, last=True)
        if block is None or block.tile.elems <= LAST_ELEMS:
            return trace
        able = cuts(block)
        if not able:
            return trace
        size = block.tile.elems
        k = bisect_right(able, size - size // ratio) - 1
        cut = able[k] if k >= 0 else able[0]
        parts = split_block(block, (0, cut, size), numbers)
        ops = (*trace.ops[: block.begin], *parts[0], *parts[1], *trace.ops[block.end :])
        trace = dataclasses.replace(trace, ops=ops)
