"""Loads whose room is free pass those that still have to wait for theirs."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from covta.compiler.backend.costs import LOAD_LATENCY_CYCLES, work_cycles
from covta.compiler.backend.merge import Merged
from covta.compiler.backend.ops import Gemm, Load, Op, Trace
from covta.compiler.backend.placement import Placement
from covta.hw.params import Config

__all__ = ["prefetch"]

WINDOW = 24
"""Loads among which the next one is looked for."""


@dataclass(frozen=True, kw_only=True)
class _Waiting:
    """A load, its place among the operations, and that of the last one it has to wait for."""

    load: Load
    number: int
    after: int


def prefetch(cfg: Config, trace: Trace, merged: Merged, placement: Placement) -> tuple[Merged, int]:
    """Let loads change places where the load unit would wait otherwise.

    Returns the cycles, too, after which load unit and array would be done.
    Rewrite: of the next loads the first is taken whose room is free by then, else the one whose
    room is free first. Times are those of the array and the load unit alone.
    Preserves: what a load waits for comes before it, with all that this needs.
    """
    waiting = _waiting(cfg, trace, merged, placement)
    clock = _Clock(merged.ops)
    moved: dict[int, list[Op]] = {}
    now = 0
    while waiting:
        first = waiting[0]
        free, chosen = clock.at(first.after), first
        for one in waiting[1:WINDOW]:
            if free <= now:
                break
            if one.after < first.number and clock.at(one.after) < free:
                free, chosen = clock.at(one.after), one
        now = max(now, free + LOAD_LATENCY_CYCLES) + work_cycles(cfg, chosen.load)
        clock.loaded[chosen.number] = now
        waiting.remove(chosen)
        moved.setdefault(first.number, []).append(chosen.load)
    loads = {op for ops in moved.values() for op in ops}
    result: list[Op] = []
    for k, op in enumerate(merged.ops):
        result += moved.get(k, ())
        if op not in loads:
            result.append(op)
    return dataclasses.replace(merged, ops=tuple(result)), clock.at(len(merged.ops) - 1)


def _waiting(cfg: Config, trace: Trace, merged: Merged, placement: Placement) -> list[_Waiting]:
    """All loads; they come after readers of what they overwrite, and after what loaded that."""
    numbers = {op: k for k, op in enumerate(merged.ops)}
    loaded = {"inp": np.full(cfg.inp_depth, -1), "wgt": np.full(cfg.wgt_depth, -1)}
    waiting = []
    for k, op in enumerate(merged.ops):
        if isinstance(op, Load) and op.dst.scope != "acc":
            begin = placement.base[op.dst] + op.offset
            there = loaded[op.dst.scope][begin : begin + op.elems]
            read = max(placement.after[placement.home[t]] for t in merged.covers[op])
            after = max(int(there.max()), numbers[trace.ops[read]] if read >= 0 else -1)
            waiting.append(_Waiting(load=op, number=k, after=after))
            there[:] = k
    return waiting


class _Clock:
    """When operations are done: the array's one after the other, each after the loads before it."""

    def __init__(self, ops: tuple[Op, ...]) -> None:
        self._ops = ops
        self._ends: list[int] = []
        self.loaded: dict[int, int] = {}

    def at(self, number: int) -> int:
        """End of an operation, all loads before which are known."""
        while len(self._ends) <= number:
            k = len(self._ends)
            now = max(self._ends[-1] if k else 0, self.loaded.get(k, 0))
            op = self._ops[k]
            self._ends.append(now + (op.cycles if isinstance(op, Gemm) else 0))
        return self._ends[number] if number >= 0 else 0
