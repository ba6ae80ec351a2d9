"""The functional simulator as a device."""

from __future__ import annotations

from pathlib import Path

from covta.runtime.device import DeviceError, RunResult
from covta.runtime.program import Program
from covta.sim.dram import DEFAULT_DRAM, DramModel
from covta.sim.run import run_functional

__all__ = ["FunctionalDevice"]


class FunctionalDevice:
    """What a program does, without time."""

    name = "functional"

    def run(
        self, program: Program, dram: DramModel = DEFAULT_DRAM, *, waveform: Path | None = None
    ) -> RunResult:
        """Run a program; memory's timing does not matter."""
        if waveform is not None:
            raise DeviceError("the functional device has no time to draw a waveform of")
        return RunResult.of(self.name, program, run_functional(program))
