"""The machine's RTL under Verilator as a device."""

from __future__ import annotations

from pathlib import Path

from covta.hw.faults import FaultCause
from covta.runtime.device import WATCHDOG_CYCLES, DeviceError, Fault, RunResult
from covta.runtime.program import Program
from covta.sim.bench.build import ToolError
from covta.sim.bench.model import NO_LIMIT, LimitError
from covta.sim.bench.run import Job, run_job
from covta.sim.dram import DEFAULT_DRAM, DramModel

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
        placed = len(program.regions)
        job = Job(
            insn_addr=program.insn_addr,
            insn_count=len(program.insn),
            regions=program.memory(),
            base_ptrs=program.base_ptrs,
            initial_tokens=program.initial_tokens,
        )
        try:
            memory, outcome = run_job(
                program.config,
                job,
                dram,
                trace=waveform,
                watchdog_cycles=WATCHDOG_CYCLES,
                max_cycles=max_cycles,
            )
        except (ToolError, LimitError) as error:
            raise DeviceError(f"rtl: {error}") from None
        return RunResult(
            device=self.name,
            cycles=outcome.cycles,
            fault=None
            if outcome.cause is FaultCause.NONE
            else Fault(cause=outcome.cause, insn=outcome.insn),
            memory=tuple(memory[:placed]),
            counters=outcome.counters,
        )
