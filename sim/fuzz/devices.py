"""Devices of a campaign, opened once a process and machine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np

from covta.hw.params import Config, load_config
from covta.runtime.device import open_device
from covta.runtime.program import Program
from covta.sim.dram import DramModel
from covta.sim.fuzz.schedules import run_schedule

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


@lru_cache(maxsize=None)
def machine(name: str) -> Config:
    """A configuration by name or path, read once."""
    return load_config(name)
