"""An operator, a machine, knobs: a program."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from covta.compiler.backend.pipeline import CompiledTrace, compile_trace
from covta.compiler.ir.stmt import Function
from covta.compiler.lower.driver import lower_stages
from covta.compiler.lower.unroll import unroll
from covta.compiler.ops.operator import Operator
from covta.hw.params import Config
from covta.runtime.program import Program

__all__ = ["Compiled", "compile_operator"]


@dataclass(frozen=True, kw_only=True)
class Compiled:
    """A program and everything that led to it.

    Parameters
    ----------
    operator : Operator
    knobs : object
    functions : dict of str to Function
        The loop IR after each pass.
    backend : CompiledTrace
    """

    operator: Operator
    knobs: Any
    functions: dict[str, Function]
    backend: CompiledTrace

    @property
    def program(self) -> Program:
        """What a device runs."""
        return self.backend.program

    def stages(self) -> dict[str, str]:
        """Text of every stage, in order."""
        texts = {name: str(function) for name, function in self.functions.items()}
        return texts | {stage.name: str(stage.result) for stage in self.backend.stages}


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
        A setting of `operator.space`; by default `operator.default`.
    arrays : mapping of str to np.ndarray, optional
        Natural inputs to put into the program; zeros otherwise.
    expect : bool
        Let the program hold the reference result of `arrays` as what to expect.
    """
    knobs = operator.default(cfg) if knobs is None else knobs
    scheduled = operator.schedule(cfg, knobs)
    name = name or operator.name
    functions = lower_stages(scheduled.schedule, scheduled.args, name)
    trace = unroll(cfg, list(functions.values())[-1])
    values: dict[str, np.ndarray] = {}
    expected: dict[str, np.ndarray] | None = None
    if arrays is not None:
        operator.check_inputs(arrays)
        values = operator.pack(cfg, arrays)
        if expect:
            result = operator.pack_output(cfg, operator.reference(arrays))
            expected = {scheduled.args[-1].name: result}
    backend = compile_trace(
        cfg, trace, values=values, expect=expected, meta={"macs": operator.macs()}
    )
    return Compiled(operator=operator, knobs=knobs, functions=functions, backend=backend)
