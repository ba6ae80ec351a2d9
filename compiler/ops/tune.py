"""Pick knobs by running them on the cycle simulator."""

from __future__ import annotations

from itertools import islice
from typing import Any

from covta.compiler.ops.compile import compile_operator
from covta.compiler.ops.model import LATENCY_CYCLES
from covta.compiler.ops.operator import Operator, require
from covta.compiler.ops.promising import promising
from covta.hw.params import Config
from covta.runtime.device import open_device
from covta.sim.dram import DramModel

__all__ = ["tune"]


def tune(
    cfg: Config, operator: Operator, *, tries: int = 32, latency_cycles: int = LATENCY_CYCLES
) -> tuple[Any, int]:
    """The quickest of some settings, and its cycles: the default, then those of least estimates.

    Parameters
    ----------
    tries : int
        Settings to compile and run, the default among them.
    latency_cycles : int
        Of the memory.
    """
    require(tries >= 1, f"tune: tries must be at least 1, got {tries}")
    best: tuple[int, Any] | None = None
    for knobs in islice(promising(cfg, operator), tries):
        program = compile_operator(cfg, operator, knobs).program
        run = open_device("cycle").run(program, DramModel(latency_cycles=latency_cycles))
        assert run.cycles is not None
        if best is None or run.cycles < best[0]:
            best = run.cycles, knobs
    assert best is not None
    return best[1], best[0]
