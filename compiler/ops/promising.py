"""Settings of an operator's knobs, the most promising first."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from covta.compiler.ops.model import Machine
from covta.compiler.ops.operator import Operator
from covta.compiler.ops.pointwise import PointwiseOperator
from covta.compiler.ops.window import WindowOperator
from covta.hw.params import Config

__all__ = ["promising"]


def promising(cfg: Config, operator: Operator) -> Iterator[Any]:
    """The default; then what was estimated best, every shape of tiles before its variants."""
    default = operator.default(cfg)
    yield default
    ranked = _ranked(cfg, operator)
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


def _ranked(cfg: Config, operator: Operator) -> list[Any]:
    machine = Machine(cfg)
    if isinstance(operator, WindowOperator):
        window = operator.window(cfg)
        able = dict.fromkeys(operator.candidates(cfg))
        return sorted(able, key=lambda knobs: operator.estimate(machine, window, knobs))
    if isinstance(operator, PointwiseOperator):
        able = (knobs for knobs in operator.candidates(cfg) if operator.legal(cfg, knobs))
        return sorted(able, key=lambda knobs: operator.estimate(machine, knobs))
    return []


def _shape(knobs: Any) -> tuple[Any, ...]:
    names = ("rows", "columns", "channels", "groups", "banks", "gaps")
    return tuple(getattr(knobs, name, None) for name in names)
