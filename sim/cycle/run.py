"""Set up a program for the cycle simulator, run it, read its counters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from covta.hw.faults import FaultCause
from covta.hw.microarchitecture import fetch_buffer_beats, fetch_burst_beats
from covta.hw.params import Config
from covta.sim.cycle.engine import simulate
from covta.sim.cycle.state import GENERATOR, LOADER, NEVER, PARAMETERS, RUN
from covta.sim.decode import decode
from covta.sim.dram import DramModel
from covta.sim.state import Dram, State

__all__ = ["CycleOutcome", "execute"]


@dataclass(frozen=True, kw_only=True)
class CycleOutcome:
    """How a run ended.

    Parameters
    ----------
    cycles : int
        Cycles with `running` high.
    cause : FaultCause
    insn : int
        Of the fault.
    counters : dict of str to int
        The machine's, by dotted name.
    tokens : tuple of int
        Left over.
    trace : np.ndarray
        ``(n, 2) int64``: cycle in which each instruction started and was complete; -1: never.
    visited : int
        Cycles that were looked at.
    """

    cycles: int
    cause: FaultCause
    insn: int
    counters: dict[str, int]
    tokens: tuple[int, ...]
    trace: np.ndarray
    visited: int


def _parameters(
    cfg: Config, dram: Dram, model: DramModel, *, insn_count: int, insn_addr: int, watchdog: int
) -> np.void:
    p = np.zeros(1, PARAMETERS)[0]
    first = int(dram.begin[0]) if len(dram.begin) else 0
    last = int(dram.end[-1]) - 1 if len(dram.end) else -1
    values = {
        "bus_bytes": cfg.bus_bytes,
        "bus_shift": cfg.bus_bytes.bit_length() - 1,
        "max_burst": cfg.bus.max_burst_beats,
        "port_limit": cfg.bus.max_outstanding,
        "dram_limit": min(model.max_outstanding, 64),
        "load_ahead": cfg.load_ahead_beats,
        "queue_depth": cfg.insn_queue_depth,
        "uop_depth": cfg.uop_depth,
        "inp_depth": cfg.inp_depth,
        "wgt_depth": cfg.wgt_depth,
        "acc_depth": cfg.acc_depth,
        "mul_cycles": cfg.mul_cycles,
        "fetch_buffer": fetch_buffer_beats(cfg),
        "fetch_burst": fetch_burst_beats(cfg),
        "insns_per_beat": max(cfg.bus_bytes // 16, 1),
        "beats_per_insn": max(16 // cfg.bus_bytes, 1),
        "first_slot": insn_addr % cfg.bus_bytes // 16,
        "insn_count": insn_count,
        "insn_addr": insn_addr,
        "window_first": first,
        "window_last": last,
        "watchdog": watchdog,
        "out_beats": cfg.out_elem_bytes // cfg.bus_bytes,
        "latency": model.latency_cycles,
        "rate": model.rate,
        "seed": (model.stall_seed or 0) - ((model.stall_seed or 0) >> 63 << 64),
        "threshold": model.stall_threshold,
        "regions": len(dram.begin),
    }
    for name, value in values.items():
        p[name] = value
    return p


def execute(
    cfg: Config,
    insn: np.ndarray,
    state: State,
    dram: Dram,
    model: DramModel,
    *,
    insn_addr: int,
    initial_tokens: Sequence[int] = (0, 0, 0, 0),
    watchdog: int = 65536,
    every_cycle: bool = False,
) -> CycleOutcome:
    """Run a stream; `state` and `dram` are changed as the machine would change them.

    Parameters
    ----------
    insn : np.ndarray
        ``(n, 16) uint8``, also in `dram` at `insn_addr`.
    every_cycle : bool
        Visit every cycle: slower, for tests of the skipping.
    """
    count = len(insn)
    table = decode(cfg, insn)
    p = _parameters(cfg, dram, model, insn_count=count, insn_addr=insn_addr, watchdog=watchdog)
    r = np.zeros(1, RUN)
    beats_per_insn, insns_per_beat = int(p["beats_per_insn"]), int(p["insns_per_beat"])
    slot = int(p["first_slot"])
    start = {
        "f_left": count * beats_per_insn
        if insns_per_beat == 1
        else -(-(slot + count) // insns_per_beat),
        "f_addr": insn_addr // cfg.bus_bytes * cfg.bus_bytes,
        "f_free": int(p["fetch_buffer"]),
        "f_slot": slot,
        "r_credit": 65536,
        "w_credit": 65536,
        "aw_last": -1,
        "w_last": -1,
        "b_last": -1,
        "s_insn": -1,
        "j_insn": -1,
        "m_start": -1000,
        "m_last": -1000,
        "m_drain_last": -1000,
        "a_g": -1000,
        "a_f": -1000,
        "a_ready_at": -1000,
        "a_busy_last": -1000,
        "a_older_last": -1000,
        "a_hold_from": -1000,
        "a_hold_last": -1000,
        "retired_at": -1,
        "st_counted": -1,
        "st_checked": -1,
        "st_read_last": -1,
        "st_leave_last": -1,
        "last_progress": -1,
        "fault_at": NEVER,
    }
    for name, value in start.items():
        r[name] = value
    gens = np.zeros(3, GENERATOR)
    loaders = np.zeros(2, LOADER)
    loaders["insn"] = -1
    loaders["rank"] = (2, 1)
    regions = np.stack([dram.begin, dram.end - 1], axis=1)
    tokens = np.array(initial_tokens, np.int64)
    trace = np.full((max(count, 1), 2), -1, np.int64)
    visited = simulate(
        p, r[0], gens, loaders, table, regions, state, dram, tokens, every_cycle, trace
    )
    run = r[0]
    faulty = run["fault_at"] < NEVER
    counters = {
        "fetch.insns": int(run["f_index"]),
        "fetch.read_beats": int(run["fetch_beats"]),
        "load.busy_cycles": int(loaders["busy_cycles"][1]),
        "load.token_stall_cycles": int(run["load_token_stall"]),
        "load.read_beats": int(loaders["read_beats"][1]),
        "compute.gemm.busy_cycles": int(run["gemm_busy"]),
        "compute.alu.busy_cycles": int(run["alu_busy"]),
        "compute.load.busy_cycles": int(loaders["busy_cycles"][0]),
        "compute.load.read_beats": int(loaders["read_beats"][0]),
        "compute.token_stall_cycles": int(run["compute_token_stall"]),
        "compute.hazard_stall_cycles": int(run["compute_hazard_stall"]),
        "store.busy_cycles": int(run["store_busy"]),
        "store.token_stall_cycles": int(run["store_token_stall"]),
        "store.write_beats": int(run["write_beats"]),
    }
    return CycleOutcome(
        cycles=int(run["fault_at"] if faulty else run["now"]) + 1,
        cause=FaultCause(int(run["fault_cause"])),
        insn=int(run["fault_insn"]),
        counters=counters,
        tokens=tuple(int(n) for n in tokens),
        trace=trace[:count],
        visited=visited,
    )
