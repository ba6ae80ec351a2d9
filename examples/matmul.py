"""Matrix multiplication with two virtual threads.

``c = clip((a @ b.T) >> shift)``, int8 with int32 sums. The output is cut into tiles, and two
*virtual threads* take them in turn. Each thread has its own half of inp, wgt and acc and is written
as if it were alone: load a slice of the reduction, multiply, load the next. Their instructions are
interleaved, so that one's loads, ALU work and stores happen while the other multiplies. On the
machine there is one stream; tokens make it two threads:

======================= ==================================================
token                   says
======================= ==================================================
load → compute          the slice is there
compute → load          the slice has been used, its buffers are free
compute → store         the sums are clipped
store → compute         they are written, the accumulators are free
======================= ==================================================

A thread here is a Python generator that yields where the other may continue.

This is the classic schedule, for its clarity; `conv2d.py` shows how to let the array never wait.

Run it: ``python examples/matmul.py --on cycle``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from common import run_example
from reference import matmul, requantize

from covta.hw.isa import AluOp, MemoryType
from covta.hw.params import Config
from covta.runtime.builder import Buffer, Builder, BuildError, Loop, Token
from covta.runtime.layout import tile_matrix
from covta.runtime.program import Program

__all__ = ["Tiling", "build_matmul"]


@dataclass(frozen=True, kw_only=True)
class Tiling:
    """Rows and column blocks of a tile, reduction blocks of a slice, in elements."""

    rows: int
    columns: int
    slice: int

    @classmethod
    def choose(cls, cfg: Config, rows: int, columns: int, reduction: int) -> Tiling:
        """Large tiles that fit half of each scratchpad."""
        tile_columns = min(columns, 8)
        tile_rows = min(rows, cfg.acc_depth // 4 // tile_columns)
        depth = min(
            reduction,
            4,
            cfg.inp_depth // 2 // tile_rows,
            cfg.wgt_depth // 2 // tile_columns,
        )
        if not depth:
            raise BuildError(
                f"a tile of {tile_rows} x {tile_columns} elements must fit half of {cfg.name}'s inp"
                f" and wgt, got {cfg.inp_depth} and {cfg.wgt_depth} elements"
            )
        return cls(rows=tile_rows, columns=tile_columns, slice=depth)


def virtual_thread(
    b: Builder,
    half: int,
    tiles: list[tuple[int, int]],
    a: Buffer,
    w: Buffer,
    c: Buffer,
    *,
    tiling: Tiling,
    shift: int,
) -> Iterator[None]:
    """Compute `tiles` (first row, first column block) with one half of every scratchpad."""
    inp, wgt, acc = b.inp.halves()[half], b.wgt.halves()[half], b.acc.halves()[half]
    high = (1 << (b.cfg.out_bits - 1)) - 1
    (all_rows, depth), all_columns = a.shape, w.shape[0]
    free: Token | None = None
    stored: Token | None = None
    for tile, (row, column) in enumerate(tiles):
        rows, columns = min(tiling.rows, all_rows - row), min(tiling.columns, all_columns - column)
        sums = acc[: rows * columns]
        b.gemm([(sums.base, 0, 0)], inner=Loop(count=len(sums), dst=1), reset=True, pop=stored)
        for begin in range(0, depth, tiling.slice):
            ks = min(tiling.slice, depth - begin)
            b.load(inp, a, a.index(row, begin), y_size=rows, x_size=ks, x_stride=depth, pop=free)
            ready = b.load(
                wgt, w, w.index(column, begin), y_size=columns, x_size=ks, x_stride=depth
            ).push("compute")
            multiply = b.gemm(
                [
                    (sums.base + n, inp.base + k, wgt.base + n * ks + k)
                    for k in range(ks)
                    for n in range(columns)
                ],
                outer=Loop(count=rows, dst=columns, src=ks),
                pop=ready,
            )
            final = tile + 1 == len(tiles) and begin + ks == depth
            free = None if final else multiply.push("load")
            yield
        b.alu(AluOp.SHR, sums, imm=shift)
        b.alu(AluOp.MAX, sums, imm=-high - 1)
        clipped = b.alu(AluOp.MIN, sums, imm=high).push("store")
        store = b.store(
            sums, c, c.index(row, column), y_size=rows, x_size=columns, x_stride=all_columns,
            pop=clipped,
        )  # fmt: skip
        stored = store.push("compute") if tile + 1 < len(tiles) else None


def build_matmul(
    cfg: Config,
    m: int = 256,
    n: int = 256,
    k: int = 256,
    *,
    shift: int = 10,
    tiling: Tiling | None = None,
    seed: int = 0,
) -> Program:
    """``(m, k) @ (n, k).T`` on random int8, with NumPy's result as what to expect."""
    rng = np.random.default_rng(seed)
    top_a, top_w = 1 << (cfg.inp_bits - 1), 1 << (cfg.wgt_bits - 1)
    x, y = rng.integers(-top_a, top_a, (m, k)), rng.integers(-top_w, top_w, (n, k))
    expected = tile_matrix(
        requantize(matmul(x, y), shift, bits=cfg.out_bits), cfg.batch, cfg.block_out
    )

    b = Builder(cfg, name="matmul", sync="manual")
    a = b.buffer("a", MemoryType.INP, tile_matrix(x, cfg.batch, cfg.block_in))
    w = b.buffer("b", MemoryType.WGT, tile_matrix(y, cfg.block_out, cfg.block_in))
    c = b.buffer("c", MemoryType.OUT, shape=expected.shape[:2])
    tiling = tiling or Tiling.choose(cfg, a.shape[0], w.shape[0], a.shape[1])
    tiles = [
        (row, column)
        for row in range(0, a.shape[0], tiling.rows)
        for column in range(0, w.shape[0], tiling.columns)
    ]
    threads = [
        virtual_thread(b, half, tiles[half::2], a, w, c, tiling=tiling, shift=shift)
        for half in range(2)
    ]
    while threads:
        threads = [t for t in threads if next(t, "over") != "over"]
    return b.build({"c": expected}, meta={"macs": m * n * k})


def main() -> int:
    """Build, run, compare."""

    def arguments(parser: argparse.ArgumentParser) -> None:
        for name in "mnk":
            parser.add_argument(f"-{name}", type=int, default=256, help=f"extent {name}")

    def build(cfg: Config, options: argparse.Namespace) -> Program:
        return build_matmul(cfg, options.m, options.n, options.k)

    return run_example(__doc__, build, arguments)


if __name__ == "__main__":
    sys.exit(main())
