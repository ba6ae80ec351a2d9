"""A short end: what follows the last GEMM has no shadow, so let it be little.

The last block is cut into smaller and smaller ones; each is finished beside the GEMMs of the next.
"""

from __future__ import annotations

import dataclasses
from bisect import bisect_right

from covta.compiler.backend.blocks import Numbers, cuts, find_block, keeps_up, part_of, split_block
from covta.compiler.backend.ops import Trace
from covta.hw.params import Config

__all__ = ["taper"]

LAST_ELEMS = 32
"""A block of so few sums is not cut."""


def taper(cfg: Config, trace: Trace, *, ratio: int = 4, share: float = 1) -> Trace:
    """Cut the last block.

    Rewrite: block -> block of the first sums, block of the last ``1 / ratio`` of them, and so on;
    of more where the loads of so few would take more than `share` of the cycles of its GEMMs.
    Preserves: results. A trace whose last block is interwoven with others stays as it is.
    """
    numbers = Numbers(trace)
    while True:
        block = find_block(trace, last=True)
        if block is None or block.tile.elems <= LAST_ELEMS:
            return trace
        size = block.tile.elems
        able = [cut for cut in cuts(block) if 2 * cut >= size]
        if not able:
            return trace
        able = able[: max(1, bisect_right(able, size - size // ratio))]
        for cut in reversed(able):
            if keeps_up(cfg, part_of(block, cut, size), share=share):
                break
        else:
            return trace
        parts = split_block(block, (0, cut, size), numbers)
        ops = (*trace.ops[: block.begin], *parts[0], *parts[1], *trace.ops[block.end :])
        trace = dataclasses.replace(trace, ops=ops)
