"""An operator, a machine, knobs: a program."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice
from typing import Any

import numpy as np

from covta.compiler.backend.errors import TooSlowError
from covta.compiler.build import Built, build
from covta.compiler.ops.operator import Operator, require
from covta.compiler.ops.promising import promising
from covta.hw.collector import without_collector
from covta.hw.isa import INSN_BYTES
from covta.hw.params import Config
from covta.runtime.builder import with_contents
from covta.runtime.device import RunResult
from covta.runtime.program import Program

__all__ = ["Compiled", "compile_operator"]

SECOND_OPINION = 1.1
"""Cycles for each of the bound's from which further settings are compiled."""

OPINIONS = 8
"""Settings that are compiled then."""

WORTH_ORDERING = 1.1
"""Cycles of array and loads, for each of the best setting's, up to which another is tried to the
end."""

REMEMBERED = 32
"""Programs that are remembered: networks repeat their layers, with other weights."""

MOST_INSNS = 2000
"""Instructions of a program whose like are not too long to compile for that."""


@dataclass(frozen=True, kw_only=True)
class Compiled:
    """A program and everything that led to it.

    Parameters
    ----------
    operator : Operator
    knobs : object
    built : Built
    """

    operator: Operator
    knobs: Any
    built: Built

    @property
    def program(self) -> Program:
        """What a device runs."""
        return self.built.program

    @property
    def estimated_cycles(self) -> int:
        """How long the program should take, if instructions took no time of the bus."""
        return self.built.backend.report["estimated_cycles"]

    @property
    def cost_cycles(self) -> int:
        """What programs are compared by: an estimate, and the beats of the instructions."""
        beats = -(-INSN_BYTES // self.program.config.bus_bytes)
        return self.estimated_cycles + beats * len(self.program.insn)

    def stages(self) -> dict[str, str]:
        """Text of every stage, in order."""
        return self.built.stages()

    def result(self, run: RunResult) -> np.ndarray:
        """The output after a run, in its natural layout."""
        return self.operator.unpack(self.program.config, self.built.result(run))


def compile_operator(
    cfg: Config,
    operator: Operator,
    knobs: Any = None,
    *,
    arrays: Mapping[str, np.ndarray] | None = None,
    expect: bool = False,
    name: str | None = None,
) -> Compiled:
    """Compile an operator.

    Parameters
    ----------
    cfg : Config
    operator : Operator
    knobs : object, optional
        A setting of `operator.space`. By default `operator.default`, or, where that seems to take
        `SECOND_OPINION` times the cycles that bound it and is short, the best of the `OPINIONS`
        most promising.
    arrays : mapping of str to np.ndarray, optional
        Natural inputs to put into the program; zeros otherwise.
    expect : bool
        Let the program hold the reference result of `arrays` as what to expect.

    Raises
    ------
    OperatorError
        If the machine's operands are not int8, or its sums not int32: what an operator computes is
        defined with these.
    """
    bits = (cfg.inp_bits, cfg.wgt_bits, cfg.acc_bits)
    require(
        bits == (8, 8, 32),
        f"{operator.name}: operators need a machine of int8 inputs and weights and int32 sums,"
        f" {cfg.name} has inp_bits {bits[0]}, wgt_bits {bits[1]}, acc_bits {bits[2]}",
    )
    if arrays is not None:
        operator.check_inputs(arrays)
    compiled = _compiled(cfg, operator, knobs, name or operator.name)
    values, right = {}, {}
    if arrays is not None:
        values = operator.pack(cfg, arrays)
        if expect:
            right = {compiled.built.output.name: operator.expected(cfg, arrays)}
    program = with_contents(compiled.program, values, right)
    backend = replace(compiled.built.backend, program=program)
    return replace(compiled, built=replace(compiled.built, backend=backend))


@lru_cache(maxsize=REMEMBERED)
@without_collector()
def _compiled(cfg: Config, operator: Operator, knobs: Any, name: str) -> Compiled:
    """The program on zeros: what is computed says how, with any contents."""

    def compiled(knobs: Any, most_cycles: float = math.inf) -> Compiled:
        scheduled = operator.schedule(cfg, knobs)
        built = build(
            cfg, scheduled.schedule, scheduled.args, name=name,
            meta={"macs": operator.macs()}, most_cycles=most_cycles,
        )  # fmt: skip
        for region in built.program.regions:  # which later programs share
            region.setflags(write=False)
        return Compiled(operator=operator, knobs=knobs, built=built)

    if knobs is not None:
        return compiled(knobs)
    best = compiled(operator.default(cfg))
    slow = best.estimated_cycles > SECOND_OPINION * max(operator.bounds(cfg).values())
    if slow and len(best.program.insn) <= MOST_INSNS:
        for other in islice(promising(cfg, operator), 1, OPINIONS):
            with suppress(TooSlowError):
                way = compiled(other, WORTH_ORDERING * best.estimated_cycles)
                best = min(best, way, key=lambda c: c.cost_cycles)
    return best
