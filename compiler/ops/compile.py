"""An operator, a machine, knobs: a program."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from covta.compiler.build import Built, build
from covta.compiler.ops.operator import Operator, require
from covta.compiler.ops.promising import promising
from covta.hw.isa import INSN_BYTES
from covta.hw.params import Config
from covta.runtime.device import RunResult
from covta.runtime.program import Program

__all__ = ["Compiled", "compile_operator"]

SECOND_OPINION = 1.1
"""Cycles for each of the bound's from which further settings are compiled."""

OPINIONS = 8
"""Settings that are compiled then."""

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
    values: dict[str, np.ndarray] = {}
    expected: np.ndarray | None = None
    if arrays is not None:
        operator.check_inputs(arrays)
        values = operator.pack(cfg, arrays)
        if expect:
            expected = operator.expected(cfg, arrays)

    def compiled(knobs: Any) -> Compiled:
        scheduled = operator.schedule(cfg, knobs)
        built = build(
            cfg, scheduled.schedule, scheduled.args, values, expect=expected,
            name=name or operator.name, meta={"macs": operator.macs()},
        )  # fmt: skip
        return Compiled(operator=operator, knobs=knobs, built=built)

    if knobs is not None:
        return compiled(knobs)
    best = compiled(operator.default(cfg))
    slow = best.estimated_cycles > SECOND_OPINION * max(operator.bounds(cfg).values())
    if slow and len(best.program.insn) <= MOST_INSNS:
        others = islice(promising(cfg, operator), 1, OPINIONS)
        best = min((best, *map(compiled, others)), key=lambda c: c.cost_cycles)
    return best
