"""Back and forth: a block begins with the stages that the one before ended with."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from itertools import groupby

from covta.compiler.backend.ops import Gemm, Load, Op, Trace

__all__ = ["turn"]


def turn(trace: Trace) -> Trace:
    """Reverse the stages of a block whose last one shares more with the end of the block before.

    Rewrite: stages (loads of inp and wgt, then GEMMs) that follow each other, all of one tile of
    sums, change places.
    Preserves: results, as GEMMs on one tile may change places.
    """
    ops: list[Op] = []
    before: set[tuple] = set()
    for sums, run in groupby(trace.ops, key=_sums):
        block = list(run)
        stages = _stages(block) if sums else []
        if not stages or not _separate(stages):
            ops += block
            continue
        if _shared(before, stages[-1]) > _shared(before, stages[0]):
            stages.reverse()
        before = {op.dst.key for op in stages[-1] if isinstance(op, Load) and op.dst.key}
        ops += [op for stage in stages for op in stage]
    return dataclasses.replace(trace, ops=tuple(ops))


def _sums(op: Op) -> bool:
    """Whether an operation is a part of a stage."""
    if isinstance(op, Load):
        return op.dst.scope != "acc"
    return isinstance(op, Gemm) and not op.reset


def _stages(block: Sequence[Op]) -> list[list[Op]]:
    stages: list[list[Op]] = []
    for op in block:
        if not stages or (isinstance(op, Load) and not isinstance(stages[-1][-1], Load)):
            stages.append([])
        stages[-1].append(op)
    return stages


def _separate(stages: Sequence[Sequence[Op]]) -> bool:
    """Whether stages add to one tile, and use no more than they load themselves."""
    sums = {op.dst for stage in stages for op in stage if isinstance(op, Gemm)}
    for stage in stages:
        loaded = {op.dst for op in stage if isinstance(op, Load)}
        used = {tile for op in stage for tile in op.reads}
        if not used - sums <= loaded:
            return False
    return len(sums) == 1


def _shared(keys: set[tuple], stage: Sequence[Op]) -> int:
    return sum(op.dst.elems for op in stage if isinstance(op, Load) and op.dst.key in keys)
