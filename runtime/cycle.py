"""The cycle-accurate simulator as a device."""

from __future__ import annotations

from pathlib import Path

from covta.hw.faults import FaultCause
from covta.runtime.device import WATCHDOG_CYCLES, DeviceError, Fault, RunResult
from covta.runtime.program import Program
from covta.sim.cycle.run import execute
from covta.sim.dram import DEFAULT_DRAM, DramModel
from covta.sim.state import make_dram, make_state, read_dram

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
        cfg = program.config
        memory = make_dram(program.memory(), program.base_ptrs, bus_bytes=cfg.bus_bytes)
        outcome = execute(
            cfg,
            program.insn,
            make_state(cfg),
            memory,
            dram,
            insn_addr=program.insn_addr,
            initial_tokens=program.initial_tokens,
            watchdog=WATCHDOG_CYCLES,
            every_cycle=every_cycle,
        )
        return RunResult(
            device=self.name,
            cycles=outcome.cycles,
            fault=None
            if outcome.cause is FaultCause.NONE
            else Fault(cause=outcome.cause, insn=outcome.insn),
            memory=tuple(
                read_dram(memory, addr, len(data))
                for addr, data in zip(program.region_addrs, program.regions, strict=True)
            ),
            counters=outcome.counters,
            trace=outcome.trace,
        )
