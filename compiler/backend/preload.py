"""Sums that begin with what would be added to them, loaded in the place of zeros."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from covta.compiler.backend.compress import operands
from covta.compiler.backend.ops import MOST_ELEMS, Alu, Gemm, Load, Op, Tile, Trace
from covta.hw.isa import AluOp

__all__ = ["preload"]


def preload(trace: Trace) -> Trace:
    """Load biases into sums: a transfer of every element instead of a reset and an addition.

    Rewrite:   reset t; GEMMs on t; t += b, where all of b was loaded  ->  load t, each element of
               b as often as it is added; GEMMs on t
    Requires:  the pool of t among the trace's `preloads`; b used for nothing else, and its tensor
               not written
    Preserves: results, as sums wrap
    """
    if not trace.preloads:
        return trace
    dropped: set[Op] = set()
    begins: dict[Op, list[Load]] = {}
    for tile, life in trace.lifetimes.items():
        if tile.pool not in trace.preloads or not life.computed:
            continue
        found = _found(trace, tile)
        if found is not None:
            resets, add, load = found
            sources = _sources(tile, resets, add)
            if sources is not None:
                begins[resets[0]] = list(_loads(tile, sources, load))
                dropped |= {*resets, add, load}
    ops: list[Op] = []
    for op in trace.ops:
        ops += begins.get(op, [])
        if op not in dropped:
            ops.append(op)
    return dataclasses.replace(trace, ops=tuple(ops))


def _found(trace: Trace, tile: Tile) -> tuple[list[Gemm], Alu, Load] | None:
    """Resets of a tile, the addition, and the load of what is added; None if it is otherwise."""
    life = trace.lifetimes[tile]
    ops = [op for op in trace.ops[life.first : life.last + 1] if op.tile is tile]
    resets = [op for op in ops if isinstance(op, Gemm) and op.reset]
    sums = [op for op in ops if isinstance(op, Gemm) and not op.reset]
    rest = ops[len(resets) + len(sums) :]
    add = rest[0] if rest else None
    if not resets or ops[: len(resets) + len(sums)] != [*resets, *sums]:
        return None
    if not isinstance(add, Alu) or add.op != AluOp.ADD or len(add.operands) != 1:
        return None
    bias = add.operands[0]
    there = trace.lifetimes[bias]
    if there.computed or trace.users[bias] != [add]:
        return None
    between = trace.ops[there.first : there.last_load + 1]
    loads = [op for op in between if isinstance(op, Load) and op.dst is bias]
    flat = len(loads) == 1 and loads[0].y_size == 1 and loads[0].elems == loads[0].x_size
    if not flat or loads[0].x_size != bias.elems or loads[0].src in trace.written:
        return None
    return resets, add, loads[0]


def _sources(tile: Tile, resets: Sequence[Gemm], add: Alu) -> np.ndarray | None:
    """What is added to each element; None if not all are zero at first, or added to just once."""
    begins = {tile: 0, add.operands[0]: 0}
    zeros = np.concatenate([operands(op, begins)[:, 0] for op in resets])
    dst, src, _ = operands(add, begins).T
    every = np.arange(tile.elems)
    if not np.array_equal(np.unique(zeros), every) or not np.array_equal(np.sort(dst), every):
        return None
    return src[np.argsort(dst)]


def _loads(tile: Tile, sources: np.ndarray, load: Load) -> Iterator[Load]:
    """Loads of `sources`: an element again and again, or elements that follow each other."""
    steps = np.diff(sources).tolist()
    at = 0
    while at < len(sources):
        step, end = steps[at] if at < len(steps) else 0, at + 1
        while step in (0, 1) and end < len(sources) and steps[end - 1] == step:
            end += 1
        for begin in range(at, end, MOST_ELEMS):
            size = min(MOST_ELEMS, end - begin)
            yield Load(
                dst=tile, offset=begin, src=load.src, begin=load.begin + int(sources[begin]),
                y_size=1 if step else size, x_size=size if step == 1 else 1,
            )  # fmt: skip
        at = end
