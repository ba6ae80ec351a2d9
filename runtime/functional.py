"""The functional simulator as a device."""

from __future__ import annotations

from pathlib import Path

from covta.hw.faults import FaultCause
from covta.runtime.device import DeviceError, Fault, RunResult
from covta.runtime.program import Program
from covta.sim.dram import DEFAULT_DRAM, DramModel
from covta.sim.functional.machine import execute
from covta.sim.state import make_dram, make_state, read_dram

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
        cfg = program.config
        memory = make_dram(program.memory(), program.base_ptrs, bus_bytes=cfg.bus_bytes)
        outcome = execute(cfg, program.insn, make_state(cfg), memory, tokens=program.initial_tokens)
        return RunResult(
            device=self.name,
            cycles=None,
            fault=None
            if outcome.cause is FaultCause.NONE
            else Fault(cause=outcome.cause, insn=outcome.index),
            memory=tuple(
                read_dram(memory, addr, len(data))
                for addr, data in zip(program.region_addrs, program.regions, strict=True)
            ),
            counters=outcome.counters,
        )
