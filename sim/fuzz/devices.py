"""Devices of a campaign, opened once a process and machine."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache

import numpy as np

from covta.hw.params import Config, load_config

__all__ = ["RACING", "UnavailableError", "machine", "open_runner", "require_devices"]

RACING = "racing"
"""The slow interpreter of `covta.sim.fuzz.schedules`, whose units race each other at random."""


class UnavailableError(RuntimeError):
    """A device that this installation cannot run; the message names it and why."""


@dataclass(frozen=True, kw_only=True)
class _RacingResult:
    memory: list[np.ndarray]
    cycles: None = None
    fault: None = None
    counters: dict[str, int] = field(default_factory=dict)


@cache
def machine(name: str) -> Config:
    """A configuration by name or path, read once."""
    return load_config(name)
