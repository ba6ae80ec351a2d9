"""A program on a simulator or on the RTL: set up, run, read memory back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from covta.hw.faults import FaultCause
from covta.hw.params import Config
from covta.sim.dram import DramModel

__all__ = ["RunOutcome", "Runnable", "run_cycle", "run_functional", "run_rtl"]


class Runnable(Protocol):
    """What a program has to say of itself."""

    @property
    def config(self) -> Config: ...

    @property
    def insn(self) -> np.ndarray: ...

    @property
    def insn_addr(self) -> int: ...

    @property
    def base_ptrs(self) -> Sequence[int]: ...

    @property
    def initial_tokens(self) -> tuple[int, ...]: ...

    def memory(self) -> list[tuple[int, np.ndarray]]:
        """Byte address and bytes of every region, that of the stream among them."""
        ...


@dataclass(frozen=True, kw_only=True)
class RunOutcome:
    """What came of a run.

    Parameters
    ----------
    memory : list of ndarray
        Bytes of every region after the run, in the order of `Runnable.memory`.
    cause : FaultCause
    insn : int
        Index of the instruction at fault.
    cycles : int or None
        None where there is no time.
    counters : dict of str to int
        By dotted name.
    trace : ndarray or None
        ``(n, 2) int64``: cycle in which each instruction started and was complete; -1: never.
    """

    memory: list[np.ndarray]
    cause: FaultCause = FaultCause.NONE
    insn: int = 0
    cycles: int | None = None
    counters: dict[str, int] = field(default_factory=dict)
    trace: np.ndarray | None = None


def run_functional(program: Runnable) -> RunOutcome:
    """What a program does, without time."""
    from covta.sim.functional.machine import execute
    from covta.sim.state import make_dram, make_state, read_dram

    cfg, regions = program.config, program.memory()
    dram = make_dram(regions, program.base_ptrs, bus_bytes=cfg.bus_bytes)
    outcome = execute(cfg, program.insn, make_state(cfg), dram, tokens=program.initial_tokens)
    return RunOutcome(
        memory=[read_dram(dram, addr, len(data)) for addr, data in regions],
        cause=outcome.cause,
        insn=outcome.index,
        counters=outcome.counters,
    )


def run_cycle(
    program: Runnable, model: DramModel, *, watchdog_cycles: int, every_cycle: bool = False
) -> RunOutcome:
    """What a program does, and when; `every_cycle` skips nothing."""
    from covta.sim.cycle.run import execute
    from covta.sim.state import make_dram, make_state, read_dram

    cfg, regions = program.config, program.memory()
    dram = make_dram(regions, program.base_ptrs, bus_bytes=cfg.bus_bytes)
    outcome = execute(
        cfg,
        program.insn,
        make_state(cfg),
        dram,
        model,
        insn_addr=program.insn_addr,
        initial_tokens=program.initial_tokens,
        watchdog=watchdog_cycles,
        every_cycle=every_cycle,
    )
    return RunOutcome(
        memory=[read_dram(dram, addr, len(data)) for addr, data in regions],
        cause=outcome.cause,
        insn=outcome.insn,
        cycles=outcome.cycles,
        counters=outcome.counters,
        trace=outcome.trace,
    )


def run_rtl(
    program: Runnable,
    model: DramModel,
    *,
    watchdog_cycles: int,
    max_cycles: int,
    waveform: Path | None = None,
) -> RunOutcome:
    """The RTL itself, fresh from reset.

    Raises
    ------
    ToolError
        If its model cannot be built.
    LimitError
        If `max_cycles` are over.
    BenchError
        If the machine breaks a protocol of its bus.
    """
    from covta.sim.bench.run import Job, run_job

    job = Job(
        insn_addr=program.insn_addr,
        insn_count=len(program.insn),
        regions=program.memory(),
        base_ptrs=program.base_ptrs,
        initial_tokens=program.initial_tokens,
    )
    memory, outcome = run_job(
        program.config,
        job,
        model,
        trace=waveform,
        watchdog_cycles=watchdog_cycles,
        max_cycles=max_cycles,
    )
    return RunOutcome(
        memory=memory,
        cause=outcome.cause,
        insn=outcome.insn,
        cycles=outcome.cycles,
        counters=outcome.counters,
    )
