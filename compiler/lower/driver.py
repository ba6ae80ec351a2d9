"""The passes in their order."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from covta.compiler.ir.stmt import Function
from covta.compiler.ir.verify import verify
from covta.compiler.lower.clean import clean
from covta.compiler.lower.guards import tighten
from covta.compiler.lower.nest import build
from covta.compiler.lower.threads import inject_virtual_threads
from covta.compiler.schedule.schedule import Schedule
from covta.compiler.te.expr import Var
from covta.compiler.te.tensor import Tensor

__all__ = ["PASSES", "lower", "lower_stages"]

PASSES: dict[str, Callable[[Function], Function]] = {
    "tighten": tighten,
    "virtual threads": inject_virtual_threads,
    "clean": clean,
}
"""What is done to the loop nest, in order."""


def lower_stages(
    schedule: Schedule, args: Sequence[Tensor | Var] | None = None, name: str = "kernel"
) -> dict[str, Function]:
    """The function after each pass, by the pass's name; the first is the plain ``nest``."""
    function = verify(build(schedule, args, name))
    stages = {"nest": function}
    for title, run in PASSES.items():
        function = verify(run(function))
        stages[title] = function
    return stages


def lower(
    schedule: Schedule, args: Sequence[Tensor | Var] | None = None, name: str = "kernel"
) -> Function:
    """Loops over buffers for a schedule.

    Parameters
    ----------
    schedule : Schedule
    args : sequence of Tensor or Var, optional
        Parameters, inputs first; by default placeholders in order of first use, free variables,
        then outputs. A variable becomes a parameter that is a number.
    name : str
        Of the function; one that C may use, for an object file.
    """
    return list(lower_stages(schedule, args, name).values())[-1]
