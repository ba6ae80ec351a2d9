"""The simulators and the RTL bench, asked to run one program each under the same name and form."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import numpy as np

from covta.hw.params import Config, load_config
from covta.sim.dram import DramModel
from covta.sim.fuzz.program import Program
from covta.sim.fuzz.schedules import run_schedule
from covta.sim.run import RunOutcome, run_cycle, run_functional, run_rtl

__all__ = ["DEVICES", "RACING", "UnavailableError", "machine", "run_on"]

WATCHDOG_CYCLES = 1 << 14
"""More than any memory of a campaign keeps a burst waiting."""

MAX_CYCLES = 50_000_000

RACING = "racing"
"""The interpreter of `covta.sim.fuzz.schedules`; knows bytes alone, not faults."""


class UnavailableError(RuntimeError):
    """A device that does not run here; the message names it and why."""


@cache
def machine(name: str) -> Config:
    """A configuration by name or path, read once."""
    return load_config(name)


def _functional(program: Program, dram: DramModel, seed: int) -> RunOutcome:
    return run_functional(program)


def _cycle(program: Program, dram: DramModel, seed: int) -> RunOutcome:
    return run_cycle(program, dram, watchdog_cycles=WATCHDOG_CYCLES)


def _rtl(program: Program, dram: DramModel, seed: int) -> RunOutcome:
    return run_rtl(program, dram, watchdog_cycles=WATCHDOG_CYCLES, max_cycles=MAX_CYCLES)


def _racing(program: Program, dram: DramModel, seed: int) -> RunOutcome:
    stream = np.ascontiguousarray(program.insn).reshape(-1).copy()
    return RunOutcome(memory=[*run_schedule(program, seed), stream])


DEVICES: dict[str, Callable[[Program, DramModel, int], RunOutcome]] = {
    "functional": _functional,
    "cycle": _cycle,
    "rtl": _rtl,
    RACING: _racing,
}
"""By name, what runs a program on a memory; the seed is for devices that act at random."""


def run_on(name: str, program: Program, dram: DramModel, seed: int = 0) -> RunOutcome:
    """Run a program on a device.

    Raises
    ------
    Exception
        Whatever the device raises.
    """
    return DEVICES[name](program, dram, seed)


def require_devices(names: Sequence[str]) -> None:
    """Make sure that devices exist here.

    Raises
    ------
    UnavailableError
        Naming the first that does not, and why.
    """
    if not names:
        raise UnavailableError("no device was named")
    for name in names:
        if name not in DEVICES:
            raise UnavailableError(f"no device is called {name!r}; there are {', '.join(DEVICES)}")
        try:
            _imports(name)
        except (ImportError, OSError) as error:
            raise UnavailableError(f"device {name} is not available here: {error}") from None


def _imports(name: str) -> None:
    """Import what a device needs."""
    if name == "functional":
        import covta.sim.functional.machine
    elif name == "cycle":
        import covta.sim.cycle.run
    elif name == "rtl":
        import covta.sim.bench.run  # noqa: F401
