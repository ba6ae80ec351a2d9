"""A whole run on a fresh machine: regions in, tokens, launch, regions out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from covta.hw.isa import MemoryType
from covta.hw.params import Config
from covta.sim.bench.launch import DEFAULT_WATCHDOG_CYCLES, Launch, Outcome, push_tokens
from covta.sim.bench.memory import extents_of
from covta.sim.bench.model import NO_LIMIT, RtlModel

if TYPE_CHECKING:
    from covta.sim.dram import DramModel

__all__ = ["Job", "run_job"]


@dataclass(frozen=True, kw_only=True)
class Job:
    """What to run, in the terms of the program container.

    Parameters
    ----------
    insn_addr, insn_count : int
        The stream, which lies in a region.
    regions : sequence of (int, np.ndarray)
        Byte address and ``(size,) uint8`` bytes before the run.
    base_ptrs : sequence of int
        By memory type.
    initial_tokens : sequence of int
        load→compute, compute→load, compute→store, store→compute.
    """

    insn_addr: int
    insn_count: int
    regions: Sequence[tuple[int, np.ndarray]]
    base_ptrs: Sequence[int] = field(default=(0,) * len(MemoryType))
    initial_tokens: Sequence[int] = (0, 0, 0, 0)


def run_job(
    cfg: Config,
    job: Job,
    dram: DramModel,
    *,
    trace: Path | None = None,
    watchdog_cycles: int = DEFAULT_WATCHDOG_CYCLES,
    max_cycles: int = NO_LIMIT,
) -> tuple[list[np.ndarray], Outcome]:
    """Run on a machine fresh from reset, scratchpads zero.

    The DRAM window spans the regions. With initial tokens, a launch before this one pushes them.

    Returns
    -------
    list of np.ndarray
        Bytes of every region after the run.
    Outcome
    """
    extents = extents_of(job.regions, cfg.bus_bytes)
    with RtlModel(cfg, trace=trace) as model:
        model.set_dram(dram)
        if any(job.initial_tokens):
            push_tokens(model, job.initial_tokens)
        model.set_memory(extents)
        launch = Launch(
            insn_addr=job.insn_addr,
            insn_count=job.insn_count,
            base_ptrs=job.base_ptrs,
            window_base=extents[0].base if extents else 0,
            window_last=extents[-1].end - 1 if extents else 0,
            watchdog_cycles=watchdog_cycles,
        )
        outcome = launch.run(model, max_cycles=max_cycles)
    after = []
    for addr, data in job.regions:
        if not len(data):
            after.append(data.copy())
            continue
        extent = next(e for e in extents if e.base <= addr < e.end)
        after.append(extent.view(addr, len(data)).copy())
    return after, outcome
