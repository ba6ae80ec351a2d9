"""From a schedule to a program that any device runs."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from covta.compiler import te
from covta.compiler.backend.pipeline import CompiledTrace, compile_trace
from covta.compiler.ir.stmt import Function
from covta.compiler.lower.driver import lower_stages
from covta.compiler.lower.unroll import unroll
from covta.compiler.schedule.schedule import Schedule
from covta.compiler.te.expr import Var
from covta.compiler.te.tensor import Tensor
from covta.compiler.verify import verify_program
from covta.hw.params import Config
from covta.runtime.device import RunResult
from covta.runtime.program import Program

__all__ = ["Built", "build"]


@dataclass(frozen=True, kw_only=True)
class Built:
    """A program and everything that led to it.

    Parameters
    ----------
    expression : str
        What is computed.
    functions : dict of str to Function
        The loop IR after each pass.
    backend : CompiledTrace
    output : Tensor
    """

    expression: str
    functions: dict[str, Function]
    backend: CompiledTrace
    output: Tensor

    @property
    def program(self) -> Program:
        """What a device runs."""
        return self.backend.program

    def stages(self) -> dict[str, str]:
        """Text of every stage, in order."""
        texts = {"expression": self.expression}
        texts |= {name: str(function) for name, function in self.functions.items()}
        return texts | {stage.name: str(stage.result) for stage in self.backend.stages}

    def result(self, run: RunResult) -> np.ndarray:
        """The output tensor after a run, in the machine's layout."""
        names = [b["name"] for b in self.program.meta["buffers"]]
        data = run.memory[names.index(self.output.name)]
        size = int(np.prod(self.output.shape))
        return data[:size].view(np.int8).reshape(self.output.shape)


def build(
    cfg: Config,
    schedule: Schedule,
    args: Sequence[Tensor | Var],
    values: Mapping[str, np.ndarray] | None = None,
    *,
    expect: np.ndarray | None = None,
    name: str = "main",
    meta: Mapping[str, Any] | None = None,
    reorder: bool = True,
    without: Collection[str] = (),
    most_cycles: float = math.inf,
    check: bool = True,
) -> Built:
    """Compile a schedule for the machine.

    Parameters
    ----------
    cfg : Config
    schedule : Schedule
        With everything on the machine: transfers, tensorised loops, ALU stages.
    args : sequence of Tensor
        Inputs, then the output.
    values : mapping of str to np.ndarray, optional
        Contents of inputs, in the machine's layout; zeros for what is not named.
    expect : np.ndarray, optional
        The right output; devices compare.
    reorder, without, most_cycles
        See `covta.compiler.backend.pipeline.compile_trace`.
    check : bool
        Prove the program free of faults and races before it is handed out.

    Raises
    ------
    ScheduleError, AllocationError, BuildError
        If the schedule leaves something to the machine that it cannot do, or that does not fit.
    TooSlowError
        If it would take more than `most_cycles`.
    VerifyError
        If the program is not right: a mistake of the compiler.
    """
    functions = lower_stages(schedule, args, name)
    trace = unroll(cfg, list(functions.values())[-1])
    output = args[-1]
    assert isinstance(output, Tensor)
    backend = compile_trace(
        cfg, trace, values=values, expect=None if expect is None else {output.name: expect},
        meta=meta, reorder=reorder, without=without, most_cycles=most_cycles,
    )  # fmt: skip
    if check:
        verify_program(backend.program, ranges=False).raise_for_errors()
    return Built(
        expression=te.describe(output), functions=functions, backend=backend, output=output
    )
