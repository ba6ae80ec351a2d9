"""Runs a decoded program to its end: three queues, four token counters, no time.

Any order that the tokens allow gives the same bytes for a program without races; this one lets each
unit run until it waits, in turn. Queues are bounded as in the machine, so that a stream which
needs more lookahead than they give deadlocks here too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from covta.hw.faults import FaultCause
from covta.hw.isa import MemoryType, Opcode, Unit
from covta.hw.microarchitecture import TOKEN_MAX
from covta.hw.params import Config
from covta.sim.decode import column, decode
from covta.sim.jit import jit
from covta.sim.kernels import (
    check_loop,
    check_transfer,
    exec_alu,
    exec_gemm,
    exec_load,
    exec_store,
    loop_count,
    moved_elems,
)
from covta.sim.state import Dram, State

__all__ = ["COUNTERS", "Outcome", "execute"]

"""What a token counter holds."""

COUNTERS = (
    "load.instructions",
    "compute.instructions",
    "store.instructions",
    "compute.gemm.uops",
    "compute.alu.uops",
    "dram.read_bytes",
    "dram.write_bytes",
)
"""Names of what `execute` counts, in order."""

N_UNITS = len(Unit)
LOAD_UNIT, COMPUTE_UNIT, STORE_UNIT = (int(u) for u in Unit)
OP_LOAD, OP_STORE, OP_GEMM, OP_FINISH, OP_ALU = (int(op) for op in Opcode)
UNIT, ILLEGAL, OPCODE, MEMORY_TYPE = (
    column(n) for n in ("unit", "illegal", "opcode", "memory_type")
)
POP_PREV, POP_NEXT, PUSH_PREV, PUSH_NEXT = (
    column(n) for n in ("pop_prev", "pop_next", "push_prev", "push_next")
)
C_GEMM, C_ALU, C_READ, C_WRITE = (
    COUNTERS.index(n)
    for n in ("compute.gemm.uops", "compute.alu.uops", "dram.read_bytes", "dram.write_bytes")
)
OUT = int(MemoryType.OUT)

F_ILLEGAL = int(FaultCause.ILLEGAL_INSTRUCTION)
F_OVERFLOW = int(FaultCause.TOKEN_OVERFLOW)
F_WATCHDOG = int(FaultCause.WATCHDOG)
F_NO_FINISH = int(FaultCause.NO_FINISH)

# Token counters: load->compute, compute->load, compute->store, store->compute; by unit, the one
# that each flag names (-1: none).
POP_PREV_FROM = np.array([-1, 0, 2])
POP_NEXT_FROM = np.array([1, 3, -1])
PUSH_PREV_TO = np.array([-1, 1, 3])
PUSH_NEXT_TO = np.array([0, 2, -1])


@jit
def _static_fault(state, insn, unit):
    """Faults that need neither tokens nor micro-ops, nor DRAM."""
    if insn[ILLEGAL] != 0:
        return F_ILLEGAL
    if insn[OPCODE] == OP_LOAD or insn[OPCODE] == OP_STORE:
        return check_transfer(state, insn)
    return 0


@jit
def _pop(tokens, insn, unit):
    """Take the tokens that an instruction waits for, if all are there."""
    prev, following = POP_PREV_FROM[unit], POP_NEXT_FROM[unit]
    if insn[POP_PREV] != 0 and prev >= 0 and tokens[prev] == 0:
        return False
    if insn[POP_NEXT] != 0 and following >= 0 and tokens[following] == 0:
        return False
    if insn[POP_PREV] != 0 and prev >= 0:
        tokens[prev] -= 1
    if insn[POP_NEXT] != 0 and following >= 0:
        tokens[following] -= 1
    return True


@jit
def _push(tokens, insn, unit):
    """Add the tokens of a completed instruction."""
    for flag, to in ((PUSH_PREV, PUSH_PREV_TO[unit]), (PUSH_NEXT, PUSH_NEXT_TO[unit])):
        if insn[flag] != 0 and to >= 0:
            if tokens[to] == TOKEN_MAX:
                return F_OVERFLOW
            tokens[to] += 1
    return 0


@jit
def _effect(state, dram, insn, counters):
    """Everything that an instruction does to scratchpads and DRAM."""
    opcode = insn[OPCODE]
    if opcode == OP_LOAD:
        counters[C_READ] += moved_elems(insn) * state.elem_bytes[insn[MEMORY_TYPE]]
        return exec_load(state, dram, insn)
    if opcode == OP_STORE:
        counters[C_WRITE] += moved_elems(insn) * state.elem_bytes[OUT]
        return exec_store(state, dram, insn)
    if opcode == OP_FINISH:
        return 0
    cause = check_loop(state, insn)
    if cause != 0:
        return cause
    if opcode == OP_GEMM:
        counters[C_GEMM] += loop_count(insn)
        exec_gemm(state, insn)
    else:
        counters[C_ALU] += loop_count(insn)
        exec_alu(state, insn)
    return 0


@jit
def _step(state, dram, tokens, counters, insn, unit):
    """Try the head of a unit's queue: ``(completed, fault cause)``.

    Load and store units check before they wait for tokens, the compute unit after.
    """
    if unit != COMPUTE_UNIT:
        cause = _static_fault(state, insn, unit)
        if cause != 0:
            return False, cause
    if not _pop(tokens, insn, unit):
        return False, 0
    if unit == COMPUTE_UNIT:
        cause = _static_fault(state, insn, unit)
        if cause != 0:
            return False, cause
    cause = _effect(state, dram, insn, counters)
    if cause == 0:
        cause = _push(tokens, insn, unit)
    counters[unit] += 1
    return True, cause


@jit
def _run(table, queues, capacity, state, dram, tokens, counters):
    """Run to the end: ``(cause, index)`` of the fault, ``(0, 0)`` if there is none.

    `queues` is (3, n): the indices of each unit's instructions, in order.
    """
    done, fetched = np.zeros(N_UNITS, np.int64), np.zeros(N_UNITS, np.int64)
    n, next_insn, finished = len(table), 0, False
    progress = True
    while progress:
        progress = False
        while next_insn < n:
            unit = table[next_insn, UNIT]
            if unit < 0:
                return F_ILLEGAL, next_insn
            if fetched[unit] - done[unit] >= capacity[unit]:
                break
            fetched[unit] += 1
            next_insn += 1
            progress = True
        for unit in (COMPUTE_UNIT, LOAD_UNIT, STORE_UNIT):
            while done[unit] < fetched[unit]:
                index = queues[unit, done[unit]]
                insn = table[index]
                completed, cause = _step(state, dram, tokens, counters, insn, unit)
                if cause != 0:
                    return cause, index
                if not completed:
                    break
                finished = finished or insn[OPCODE] == OP_FINISH
                done[unit] += 1
                progress = True
    for unit in range(N_UNITS):
        if done[unit] < fetched[unit]:
            return F_WATCHDOG, queues[unit, done[unit]]
    if not finished:
        return F_NO_FINISH, n
    return 0, 0


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a run ended: fault `cause` (NONE) at instruction `index`, `tokens` left, `counters`."""

    cause: FaultCause
    index: int
    tokens: tuple[int, ...]
    counters: dict[str, int]


SCANNED_AHEAD, CHECKED_AHEAD = 9, 1
"""Instructions that wait behind a queue: scanned or in scan (compute), in check (store)."""


def queue_capacity(cfg: Config) -> tuple[int, int, int]:
    """Instructions that fetch may be ahead of load, compute and store on the RTL."""
    depth = cfg.insn_queue_depth
    return depth, depth + SCANNED_AHEAD, depth + CHECKED_AHEAD


def execute(
    cfg: Config,
    insn: np.ndarray,
    state: State,
    dram: Dram,
    *,
    tokens: Sequence[int] = (0, 0, 0, 0),
    capacity: Sequence[int] | None = None,
) -> Outcome:
    """Run a stream on `state` and `dram`, which it changes.

    Parameters
    ----------
    cfg : Config
        The machine; `state` was made for it.
    insn : ndarray
        ``(n, 16) uint8``.
    tokens : sequence of 4 int
        Present at the start.
    capacity : sequence of 3 int, optional
        Instructions that fetch may be ahead of load, compute and store; `queue_capacity` if
        absent.
    """
    table = decode(cfg, insn)
    queues = np.zeros((N_UNITS, len(table)), np.int64)
    for unit in range(N_UNITS):
        mine = np.flatnonzero(table[:, UNIT] == unit)
        queues[unit, : len(mine)] = mine
    counts = np.zeros(len(COUNTERS), np.int64)
    left = np.array([int(t) for t in tokens], np.int64)
    depths = np.array(capacity or queue_capacity(cfg), np.int64)
    cause, index = _run(table, queues, depths, state, dram, left, counts)
    return Outcome(
        cause=FaultCause(int(cause)),
        index=int(index),
        tokens=tuple(int(t) for t in left),
        counters={name: int(count) for name, count in zip(COUNTERS, counts, strict=True)},
    )
