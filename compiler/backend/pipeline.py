"""The back end as a whole: from a trace to a program."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np

from covta.compiler.backend.allocate import allocate
from covta.compiler.backend.compress import compress
from covta.compiler.backend.costs import slow_cycles
from covta.compiler.backend.depend import dependences
from covta.compiler.backend.drain import drain
from covta.compiler.backend.emit import emit
from covta.compiler.backend.errors import AllocationError, TooSlowError
from covta.compiler.backend.halve import halve
from covta.compiler.backend.insns import Insn
from covta.compiler.backend.merge import Merged, merge_loads
from covta.compiler.backend.ops import DramTensor, Gemm, Load, Store, Trace
from covta.compiler.backend.order import Early, Options, Ordered, order
from covta.compiler.backend.placement import Placement
from covta.compiler.backend.prefetch import prefetch
from covta.compiler.backend.preload import preload
from covta.compiler.backend.requantize import fuse_requantize
from covta.compiler.backend.resets import alternatives
from covta.compiler.backend.stagger import narrow_start, stagger
from covta.compiler.backend.taper import taper
from covta.compiler.backend.turn import turn
from covta.hw.isa import INSN_BYTES
from covta.hw.params import Config
from covta.runtime.program import Program

__all__ = ["CompiledTrace", "Stage", "compile_trace"]


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What a pass left: its name, something that prints, and how long it took."""

    name: str
    result: object
    seconds: float

    def __str__(self) -> str:
        return f"---- {self.name}\n{self.result}"


@dataclass(frozen=True, kw_only=True)
class CompiledTrace:
    """A program and how it came about.

    Parameters
    ----------
    program : Program
    stages : tuple of Stage
        Every pass's result, in order.
    report : dict
        Counts and estimates: plain numbers by name.
    """

    program: Program
    stages: tuple[Stage, ...]
    report: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return "\n".join(str(stage) for stage in self.stages)


class _Stream(tuple[Insn, ...]):
    """Instructions; prints one a line."""

    def __str__(self) -> str:
        return "\n".join(f"{k:5}  {insn}" for k, insn in enumerate(self))


def compile_trace(
    cfg: Config,
    trace: Trace,
    *,
    values: Mapping[str, np.ndarray] | None = None,
    expect: Mapping[str, np.ndarray] | None = None,
    meta: Mapping[str, Any] | None = None,
    reorder: bool = True,
    without: Collection[str] = (),
    most_cycles: float = math.inf,
) -> CompiledTrace:
    """Run all passes.

    Parameters
    ----------
    values : mapping of str to np.ndarray, optional
        Contents of tensors, ``shape + element shape``; zeros for what is not named.
    expect : mapping of str to np.ndarray, optional
        Contents of outputs after a right run, for the program's own check.
    meta : mapping, optional
        Goes into the program's meta.
    reorder : bool
        If not, operations stay as they are in the trace, each load by itself.
    without : collection of str
        Passes to leave out: stagger, taper.
    most_cycles : float
        Of array and loads, as far as they are known before anything is ordered.

    Raises
    ------
    AllocationError
        If tiles do not fit a scratchpad.
    TooSlowError
        If `most_cycles` would be exceeded.
    """
    stages: list[Stage] = []
    begin = time.perf_counter()

    def done(name: str, result: Any) -> Any:
        nonlocal begin
        now = time.perf_counter()
        stages.append(Stage(name=name, result=result, seconds=now - begin))
        begin = now
        return result

    done("trace", trace)
    trace = done("requantize", fuse_requantize(cfg, trace))
    trace = done("preload", preload(trace))
    if reorder:
        plan = _plan(cfg, trace, most_cycles)
        done("turn", plan.trace)
        for name, changes in _SHAPES.items():
            if name not in without:
                plan = _best(cfg, plan, changes)
                done(name, plan.trace)
        plan = _roomier(cfg, plan)
    else:
        plan = _as_it_is(cfg, trace)
    done("allocate", plan.placement)
    done("merge", plan.merged)
    done("order", plan.ordered)
    stream = _Stream(i for op in plan.ordered.ops for i in compress(cfg, op, plan.placement))
    insns = done("compress", stream)
    program = emit(cfg, trace.name, _tensors(trace), insns, values=values, expect=expect, meta=meta)
    done("emit", f"{len(program.insn)} instructions")
    report = {
        "seconds": sum(stage.seconds for stage in stages),
        "estimated_cycles": plan.ordered.cycles,
        "array_cycles": sum(op.cycles for op in plan.ordered.ops if isinstance(op, Gemm)),
        "instructions": len(program.insn),
        "loads": sum(isinstance(op, Load) for op in plan.ordered.ops),
        "dropped_loads": len(plan.placement.dropped),
    }
    return CompiledTrace(program=program, stages=tuple(stages), report=report)


@dataclass(frozen=True, kw_only=True)
class _Placed:
    """Where tiles lie, in which order they are loaded, and how long that takes at least.

    `lead` is that of what keeps operands; `cycles` are those of array and loads, `slow` those of
    loads on slow memory.
    """

    trace: Trace
    lead: int | None
    placement: Placement
    merged: Merged
    cycles: int
    slow: int = 0

    @property
    def worst(self) -> int:
        """Cycles on either memory."""
        return max(self.cycles, self.slow)


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """Where and when operations happen, and what was decided for that."""

    placed: _Placed
    ordered: Ordered
    options: Options = field(default_factory=Options)

    @property
    def trace(self) -> Trace:
        return self.placed.trace

    @property
    def placement(self) -> Placement:
        return self.placed.placement

    @property
    def merged(self) -> Merged:
        return self.placed.merged


def _plan(cfg: Config, trace: Trace, most_cycles: float) -> _Plan:
    """The plan with rings, or with caches and back and forth where that is quicker."""
    rings = _placed(cfg, trace, None)
    best = rings
    if rings.worst > GOOD_ENOUGH * _array_cycles(trace):
        best = _kept(cfg, trace, rings)
    if best.cycles > most_cycles:
        raise TooSlowError(f"{trace.name}: {best.cycles:,} cycles, {most_cycles:,.0f} at most")
    return _ordered(cfg, best)


def _kept(cfg: Config, trace: Trace, rings: _Placed) -> _Placed:
    """With caches: as long as more lead means less waiting."""
    best = rings
    for lead in LEADS:
        way = _placed(cfg, trace, lead)
        if way.placement.loaded_elems >= rings.placement.loaded_elems:
            break
        if best is not rings and way.worst >= best.worst:
            break
        best = min(best, way, key=lambda way: way.worst)
    if best is rings:
        return best
    turned = turn(trace)
    return min(best, _placed(cfg, turned, best.lead), key=lambda way: way.worst)


def _placed(cfg: Config, trace: Trace, lead: int | None, *, full: bool = False) -> _Placed:
    placement = allocate(cfg, trace, lead=lead, full=full)
    merged, cycles = prefetch(cfg, trace, merge_loads(trace, placement), placement)
    slow = sum(slow_cycles(cfg, op) for op in merged.ops if isinstance(op, Load))
    return _Placed(
        trace=trace, lead=lead, placement=placement, merged=merged, cycles=cycles, slow=round(slow)
    )


def _ordered(cfg: Config, placed: _Placed, chosen: Options | None = None) -> _Plan:
    """With the options that were chosen, or those that seem quickest."""
    resets = alternatives(cfg, placed.merged.ops, placed.placement)
    graph = dependences(placed.merged, placed.placement)

    def plan(options: Options) -> _Plan:
        trace, merged, placement = placed.trace, placed.merged, placed.placement
        ordered = order(cfg, trace, merged, graph, placement, resets, options)
        return _Plan(placed=placed, ordered=ordered, options=options)

    best = plan(chosen or Options())
    if chosen is None and best.ordered.cycles > WORTH_REORDERING * _array_cycles(placed.trace):
        for early, gemms_first in list(product(Early, (True, False)))[1:]:
            best = _quicker(cfg, best, plan(Options(early=early, gemms_first=gemms_first)))
        best = _quicker(cfg, best, plan(dataclasses.replace(best.options, share_resets=True)))
    return best


def _quicker(cfg: Config, one: _Plan, other: _Plan) -> _Plan:
    """The first, unless the other saves more than its further instructions take of the bus."""
    each = -(-INSN_BYTES // cfg.bus_bytes)
    costs = [plan.ordered.cycles + each * len(plan.ordered.ops) for plan in (one, other)]
    return other if costs[1] < costs[0] else one


def _as_it_is(cfg: Config, trace: Trace) -> _Plan:
    """Everything in the order of the trace."""
    placement = allocate(cfg, trace)
    merged = merge_loads(trace, placement, join=False)
    ordered = Ordered(ops=merged.ops, starts=(0,) * len(merged.ops), cycles=0)
    placed = _Placed(trace=trace, lead=None, placement=placement, merged=merged, cycles=0)
    return _Plan(placed=placed, ordered=ordered)


LEADS = (0, 1, 2, 4)
"""Leads of a `Cache` that are tried."""

GOOD_ENOUGH = 1.005
"""Cycles for each of the array's with which no further shape is tried."""

WORTH_LARGER = 1.01
"""How many times quicker larger rings have to be: they need more micro-ops."""

WORTH_REORDERING = 1.02
"""The same for further orders."""


_Change = Callable[[Config, Trace], Trace]

_SHAPES: dict[str, tuple[_Change, ...]] = {
    "stagger": tuple(
        lambda cfg, trace, share=share: stagger(narrow_start(cfg, trace, share=share))
        for share in (0.85, 1.1, 1.4, math.inf)
    ),
    "taper": tuple(
        lambda cfg, trace, ratio=ratio, share=share: taper(cfg, trace, ratio=ratio, share=share)
        for ratio in (4, 2)
        for share in (1, math.inf)
    ),
    "halve": (lambda cfg, trace: halve(trace, cfg.acc_depth // 2),),
    "drain": (
        lambda cfg, trace: drain(trace, runs=8),
        lambda cfg, trace: drain(trace, runs=8, elems=32),
    ),
}
"""Passes that change the trace's shape, in several ways: the one that seems quickest is taken."""


def _best(cfg: Config, plan: _Plan, changes: Sequence[_Change]) -> _Plan:
    """The quickest of a plan and those of the changed trace, if they fit."""
    best, known = plan, {_sizes(plan.trace)}
    array = _array_cycles(plan.trace)
    for change in changes:
        if best is not plan and best.ordered.cycles <= GOOD_ENOUGH * array:
            break
        trace = change(cfg, plan.trace)
        sizes = _sizes(trace)
        if sizes in known:  # nothing new
            continue
        known.add(sizes)
        try:
            placed = _placed(cfg, trace, plan.placed.lead)
        except AllocationError:
            continue
        best = _quicker(cfg, best, _ordered(cfg, placed, plan.options))
    return best if best is plan else _quicker(cfg, best, _ordered(cfg, best.placed))


def _roomier(cfg: Config, plan: _Plan) -> _Plan:
    """With rings that take all the room, where that seems clearly quicker."""
    if plan.ordered.cycles <= GOOD_ENOUGH * _array_cycles(plan.trace):
        return plan
    placed = _placed(cfg, plan.trace, plan.placed.lead, full=True)
    if placed.placement.base == plan.placement.base:
        return plan
    larger = _ordered(cfg, placed, plan.options)
    return larger if WORTH_LARGER * larger.ordered.cycles < plan.ordered.cycles else plan


def _sizes(trace: Trace) -> tuple[int, ...]:
    """What tells shapes of one trace from each other."""
    return tuple(op.elems if isinstance(op, Load | Store) else op.cycles for op in trace.ops)


def _array_cycles(trace: Trace) -> int:
    """Cycles of the array's work, without zeroing."""
    return sum(op.cycles for op in trace.ops if isinstance(op, Gemm) and not op.reset)


def _tensors(trace: Trace) -> list[DramTensor]:
    """Parameters, and others that transfers name."""
    tensors = dict.fromkeys(trace.tensors)
    for op in trace.ops:
        if isinstance(op, Load):
            tensors.setdefault(op.src)
        elif isinstance(op, Store):
            tensors.setdefault(op.dst)
    return list(tensors)
