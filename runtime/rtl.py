"""The machine's RTL under Verilator as a device."""

from __future__ import annotations

from pathlib import Path

from covta.runtime.device import WATCHDOG_CYCLES, DeviceError, RunResult
from covta.runtime.program import Program
from covta.sim.bench.build import ToolError
from covta.sim.bench.model import NO_LIMIT, LimitError
from covta.sim.dram import DEFAULT_DRAM, DramModel
from covta.sim.run import run_rtl

__all__ = ["RtlDevice"]


class RtlDevice:
    """The RTL itself, driven over its buses as a host would.

    The model of a configuration is built once (`covta.sim.bench.build`). Each run has a machine of
    its own, fresh from reset. Initial tokens come from a launch before the one that is measured.
    """

    name = "rtl"

    def run(
        self,
        program: Program,
        dram: DramModel = DEFAULT_DRAM,
        *,
        waveform: Path | None = None,
        max_cycles: int = NO_LIMIT,
    ) -> RunResult:
        """Run a program.

        Raises
        ------
        DeviceError
            If the model cannot be built, or `max_cycles` are over.
        BenchError
            If the machine breaks a protocol of its bus.
        """
        try:
            outcome = run_rtl(
                program,
                dram,
                watchdog_cycles=WATCHDOG_CYCLES,
                max_cycles=max_cycles,
                waveform=waveform,
            )
        except (ToolError, LimitError) as error:
            raise DeviceError(f"rtl: {error}") from None
        return RunResult.of(self.name, program, outcome)
