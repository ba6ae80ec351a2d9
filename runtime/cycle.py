"""The cycle-accurate simulator as a device."""

from __future__ import annotations

from pathlib import Path

from covta.runtime.device import WATCHDOG_CYCLES, DeviceError, RunResult
from covta.runtime.program import Program
from covta.sim.dram import DEFAULT_DRAM, DramModel
from covta.sim.run import run_cycle

__all__ = ["CycleDevice"]


class CycleDevice:
    """What a program does, and when: cycles and counters equal the RTL's."""

    name = "cycle"

    def run(
        self,
        program: Program,
        dram: DramModel = DEFAULT_DRAM,
        *,
        waveform: Path | None = None,
        every_cycle: bool = False,
    ) -> RunResult:
        """Run a program; `every_cycle` skips nothing, for tests of the skipping."""
        if waveform is not None:
            raise DeviceError("waveforms come from the rtl device; cycle writes timelines")
        outcome = run_cycle(program, dram, watchdog_cycles=WATCHDOG_CYCLES, every_cycle=every_cycle)
        return RunResult.of(self.name, program, outcome)
