"""What every device can do: run a program and say what came of it."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from covta.hw.faults import FaultCause
from covta.runtime.program import Program
from covta.sim.dram import DEFAULT_DRAM, DramModel
from covta.sim.run import RunOutcome

__all__ = [
    "DEVICES",
    "WATCHDOG_CYCLES",
    "Device",
    "DeviceError",
    "Fault",
    "RunResult",
    "open_device",
]

WATCHDOG_CYCLES = 65536
"""Cycles without progress after which a device gives up, the register's reset value."""

DEVICES = {
    "functional": "covta.runtime.functional:FunctionalDevice",
    "cycle": "covta.runtime.cycle:CycleDevice",
    "rtl": "covta.runtime.rtl:RtlDevice",
}
"""Devices by name: module and class."""


class DeviceError(RuntimeError):
    """A device that cannot be had here, or that a program cannot run on."""


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What the machine reports: cause and index of the instruction."""

    cause: FaultCause
    insn: int


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """What came of a run.

    Parameters
    ----------
    device : str
    cycles : int or None
        None where the device knows no time.
    fault : Fault or None
    memory : tuple of np.ndarray
        Bytes of the program's regions after the run.
    counters : dict of str to int
        By dotted name.
    trace : np.ndarray or None
        ``(n, 2) int64``: cycle in which each instruction started and was complete; -1: never.
    """

    device: str
    cycles: int | None
    fault: Fault | None
    memory: tuple[np.ndarray, ...]
    counters: dict[str, int] = field(default_factory=dict)
    trace: np.ndarray | None = None

    @classmethod
    def of(cls, device: str, program: Program, outcome: RunOutcome) -> RunResult:
        """What a device says of a program, from what came of the run."""
        fault = Fault(cause=outcome.cause, insn=outcome.insn)
        return cls(
            device=device,
            cycles=outcome.cycles,
            fault=None if outcome.cause is FaultCause.NONE else fault,
            memory=tuple(outcome.memory[: len(program.regions)]),
            counters=outcome.counters,
            trace=outcome.trace,
        )


class Device(Protocol):
    """Runs programs."""

    name: str

    def run(
        self, program: Program, dram: DramModel = DEFAULT_DRAM, *, waveform: Path | None = None
    ) -> RunResult:
        """Run a program to its end; the program itself does not change."""
        ...


def open_device(name: str) -> Device:
    """A device by name.

    Raises
    ------
    DeviceError
        If there is none of that name, or what it needs is not installed.
    """
    if name not in DEVICES:
        raise DeviceError(f"no device {name!r}; there are {', '.join(DEVICES)}")
    module, cls = DEVICES[name].split(":")
    try:
        return getattr(importlib.import_module(module), cls)()
    except ImportError as error:
        raise DeviceError(f"device {name!r} is not available: {error}") from None
