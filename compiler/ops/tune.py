"""Pick knobs by running them on the cycle simulator."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

from covta.compiler.ops.compile import compile_operator
from covta.compiler.ops.model import LATENCY_CYCLES, Machine
from covta.compiler.ops.operator import Operator, require
from covta.compiler.ops.window import WindowOperator
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
        Settings to compile and run, the default among them. An operator whose template has no
        estimates keeps its default.
    latency_cycles : int
        Of the memory.
    """
    require(tries >= 1, f"tune: tries must be at least 1, got {tries}")
    best: tuple[int, Any] | None = None
    for knobs in islice(_promising(cfg, operator), tries):
        program = compile_operator(cfg, operator, knobs).program
        run = open_device("cycle").run(program, DramModel(latency_cycles=latency_cycles))
        assert run.cycles is not None
        if best is None or run.cycles < best[0]:
            best = run.cycles, knobs
    assert best is not None
    return best[1], best[0]


def _promising(cfg: Config, operator: Operator) -> Iterator[Any]:
    """The default; then what was estimated best, every shape of tiles before its variants."""
    default = operator.default(cfg)
    yield default
    if not isinstance(operator, WindowOperator):
        return
    machine, window = Machine(cfg), operator.window(cfg)
    ranked = sorted(
        dict.fromkeys(operator.candidates(cfg)),
        key=lambda knobs: operator.estimate(machine, window, knobs),
    )
    later, seen = [], {_shape(default)}
    for knobs in ranked:
        if knobs == default:
            continue
        if _shape(knobs) in seen:
            later.append(knobs)
            continue
        seen.add(_shape(knobs))
        yield knobs
    yield from later


def _shape(knobs: Any) -> tuple[Any, ...]:
    return knobs.rows, knobs.columns, knobs.channels, knobs.groups, knobs.banks, knobs.gaps
