"""Add two int32 vectors and store the sums as int8, saturated: the smallest kernel that overlaps
work.

The vectors go through acc in chunks, one half of acc after the other. While a chunk is added and
clipped in one half, the next is loaded into the other: engines run side by side as long as they
touch different halves. The compute unit does loads of acc itself and keeps their order, so the only
tokens are those between it and the store unit: *stored* lets a half be used again.

Run it: ``python examples/vector_add.py --on cycle``.
"""

from __future__ import annotations

import argparse
import sys

import numpy as np
from common import run_example
from reference import requantize

from covta.hw.isa import AluOp, MemoryType
from covta.hw.params import Config
from covta.runtime.builder import Builder, Token
from covta.runtime.program import Program

__all__ = ["build_vector_add"]


def build_vector_add(
    cfg: Config, elems: int = 4096, *, chunk: int | None = None, seed: int = 0
) -> Program:
    """``z = clip(x + y)``.

    Parameters
    ----------
    elems : int
        Length in tensors of ``(batch, block_out)``.
    chunk : int, optional
        Tensors of a step; a quarter of acc if absent.
    """
    rng = np.random.default_rng(seed)
    shape = (elems, cfg.batch, cfg.block_out)
    limit = 1 << (cfg.out_bits - 1)
    x, y = (rng.integers(-limit, limit, shape) for _ in range(2))
    sums = requantize(x + y, 0, bits=cfg.out_bits)

    b = Builder(cfg, name="vector_add", sync="manual")
    xs, ys = b.buffer("x", MemoryType.ACC, x), b.buffer("y", MemoryType.ACC, y)
    zs = b.buffer("z", MemoryType.OUT, shape=(elems,))
    chunk = min(chunk or cfg.acc_depth // 4, elems)
    halves = b.acc.halves()
    stored: list[Token | None] = [None, None]

    def load(begin: int, which: int) -> list:
        """Loads of a chunk, still to be emitted: x, then y behind it."""
        size, half = min(chunk, elems - begin), halves[which]
        first = b.acc.at(half.base, size)
        second = b.acc.at(half.base + size, size)
        return [
            lambda: b.load(first, xs, begin, pop=stored[which]),
            lambda: b.load(second, ys, begin),
            first,
            second,
        ]

    starts = list(range(0, elems, chunk))
    load_x, load_y, first, second = load(starts[0], 0)
    load_x()
    load_y()
    for k, begin in enumerate(starts):
        here, following = (first, second), None
        b.alu(AluOp.ADD, here[0], here[1])
        if k + 1 < len(starts):
            load_x, following, first, second = load(starts[k + 1], (k + 1) % 2)
            load_x()
        b.alu(AluOp.MAX, here[0], imm=-limit)
        summed = b.alu(AluOp.MIN, here[0], imm=limit - 1).push("store")
        if following:  # not before MIN: tokens are given in program order
            following()
        store = b.store(here[0], zs, begin, pop=summed)
        stored[k % 2] = store.push("compute") if k + 2 < len(starts) else None
    return b.build({"z": sums})


def main() -> int:
    """Build, run, compare."""

    def arguments(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--elems", type=int, default=4096, help="tensors of 16 numbers")

    return run_example(
        __doc__, lambda cfg, options: build_vector_add(cfg, options.elems), arguments
    )


if __name__ == "__main__":
    sys.exit(main())
