"""Timing of the memory side: bursts, the read and write engines, Receivers, the store path.

Mirrors ``hw/rtl``: `burst_generator`, `read_engine`, `receiver`, `loader`, `write_engine`,
`store_unit`. What follows from a burst once it is granted (its beats, what they write, the
response) depends on nothing that comes later, so it is computed at the grant.
"""

from __future__ import annotations

import numpy as np

from covta.hw.faults import FaultCause
from covta.hw.microarchitecture import PAGE_BYTES, STORE_ELEM_DEPTH, STORE_OUT_LATENCY_CYCLES
from covta.sim.cycle.state import BEAT_RING, NEVER, RING
from covta.sim.decode import column
from covta.sim.dram import AR, AW, RATE_ONE, B, R, W, stall
from covta.sim.jit import jit

DRAM_WINDOW = int(FaultCause.DRAM_WINDOW)
BUS_ERROR = int(FaultCause.BUS_ERROR)
SCRATCHPAD = int(FaultCause.SCRATCHPAD)

MEMORY_TYPE = column("memory_type")
SRAM_BASE = column("sram_base")
DRAM_BASE = column("dram_base")
Y_SIZE, X_SIZE, X_STRIDE = column("y_size"), column("x_size"), column("x_stride")
Y_PAD_0, Y_PAD_1 = column("y_pad_0"), column("y_pad_1")
X_PAD_0, X_PAD_1 = column("x_pad_0"), column("x_pad_1")

UOP_TYPE = 0


@jit
def report(r, at, cause, insn, rank):
    """Remember a fault valid from cycle `at` on; the first wins, then the lowest rank."""
    if at < r.fault_at or (at == r.fault_at and rank < r.fault_rank):
        r.fault_at = at
        r.fault_cause = cause
        r.fault_insn = insn
        r.fault_rank = rank


@jit
def progress(r, at):
    """Something moves in cycle `at`: the watchdog is content."""
    r.last_progress = max(r.last_progress, at)


@jit
def not_stalled(p, channel, t):
    """First cycle from `t` on in which a channel does not stall."""
    if p.threshold > 0:
        while stall(np.uint64(p.seed), np.uint64(p.threshold), np.uint64(channel), np.uint64(t)):
            t += 1
    return t


@jit
def affordable(p, credit, credit_at, t):
    """First cycle from `t` on in which the rate allows a beat."""
    missing = RATE_ONE - credit - (t - credit_at) * p.rate
    if missing > 0:
        t += (missing + p.rate - 1) // p.rate
    return t


@jit
def bad_beat(p, regions, addr, beats):
    """Index of the first beat of a burst that lies in no region; `beats` if there is none."""
    k = 0
    while k < beats:
        byte = addr + k * p.bus_bytes
        found = False
        for n in range(p.regions):
            if regions[n, 0] <= byte <= regions[n, 1]:
                k = min(beats, (regions[n, 1] + 1 - addr) // p.bus_bytes)
                found = True
                break
        if not found:
            return k
    return beats


# ---- burst generator ---------------------------------------------------------------------------
@jit
def burst_beats(p, g):
    """Length of the burst that a generator presents."""
    page = (PAGE_BYTES - g.addr % PAGE_BYTES) >> p.bus_shift
    return min(min(p.max_burst, page), g.beats)


@jit
def presents(p, g, beats):
    """Whether the generator's burst lies in the window."""
    return g.addr >= p.window_first and g.addr + beats * p.bus_bytes - 1 <= p.window_last


@jit
def load_block(p, g, table, base_ptr, elem_bytes, i):
    """Put an instruction into the row stage."""
    kind = table[i, MEMORY_TYPE]
    size = elem_bytes[kind]
    g.row_valid = 1
    g.row_addr = base_ptr[kind] + table[i, DRAM_BASE] * size
    g.rows_left = table[i, Y_SIZE]
    g.row_bytes = table[i, X_SIZE] * size
    g.stride = table[i, X_STRIDE] * size
    g.row_insn = i


@jit
def take_row(p, g):
    """Move the next row into the burst stage."""
    offset = g.row_addr & (p.bus_bytes - 1)
    g.addr = g.row_addr - offset
    g.beats = (offset + g.row_bytes + p.bus_bytes - 1) >> p.bus_shift
    g.insn = g.row_insn
    g.valid = 1
    g.row_addr += g.stride
    g.rows_left -= 1
    if g.rows_left == 0:
        g.row_valid = 0


# ---- reading -----------------------------------------------------------------------------------
@jit
def grant_read(p, r, ring_last, t):
    """A burst enters the AR register at the end of cycle `t`; when its first beat is due."""
    k = r.read_grants
    accept = t + 1
    if k >= p.dram_limit:
        accept = max(accept, ring_last[(k - p.dram_limit) % RING] + 1)
    accept = not_stalled(p, AR, accept)
    r.ar_free_at = accept
    r.read_grants = k + 1
    return accept + p.latency


@jit
def next_beat(p, r, due):
    """Cycle in which R presents its next beat."""
    t = max(due, r.r_free_at)
    if p.rate < RATE_ONE:
        t = affordable(p, r.r_credit, r.r_credit_at, t)
    t = not_stalled(p, R, t)
    r.r_credit = p.rate
    r.r_credit_at = t + 1
    return t


@jit
def steady(p):
    """Whether the beats of a burst follow one another, and none need be remembered."""
    return p.rate >= RATE_ONE and p.threshold == 0


@jit
def take_beats(p, r, beats, due, ready_at, read_at):
    """Beats one after the other to a taker that is ready from `ready_at` on; cycle of the last."""
    if steady(p):
        t = max(max(due, r.r_free_at), ready_at) + beats - 1
    else:
        t = 0
        for k in range(beats):
            t = max(next_beat(p, r, due), ready_at)
            r.r_free_at = t + 1
            read_at[(r.read_beats + k) % BEAT_RING] = t
    r.r_free_at = t + 1
    r.read_beats += beats
    return t


# ---- Receiver ----------------------------------------------------------------------------------
@jit
def x_total(table, i):
    """Elements of a padded row."""
    return table[i, X_PAD_0] + table[i, X_SIZE] + table[i, X_PAD_1]


@jit
def is_empty(table, i):
    """Whether a LOAD or STORE moves nothing."""
    return table[i, X_SIZE] == 0 or table[i, Y_SIZE] == 0


@jit
def pad_steps(r, ld, count):
    """Padding elements, one a cycle; a step beyond the scratchpad is a fault, and the last."""
    done = ld.step_at + count
    if count > 0 and ld.room < count:
        at = ld.step_at + ld.room + 1
        report(r, at, SCRATCHPAD, ld.insn, ld.rank)
        ld.room = NEVER
        done = max(done, at + 1)
    ld.room -= count
    ld.step_at = done
    if count > 0:
        progress(r, r.now)


@jit
def start_transfers(p, r, ld, table, insns, accepted_at, done_at, depth):
    """Let the Receiver begin what was accepted, up to a transfer that waits for data."""
    while ld.insn < 0 and ld.started < ld.accepted:
        k = ld.started % RING
        i = insns[k]
        ld.started += 1
        ld.step_at = max(ld.step_at, accepted_at[k] + 2)
        if is_empty(table, i):
            ld.step_at += 1
            done_at[k] = ld.step_at
        else:
            ld.insn = i
            ld.rows_left = table[i, Y_SIZE]
            ld.room = max(depth[table[i, MEMORY_TYPE]] - table[i, SRAM_BASE], 0)
            pad_steps(r, ld, table[i, Y_PAD_0] * x_total(table, i) + table[i, X_PAD_0])


@jit
def receive(
    p,
    r,
    ld,
    table,
    regions,
    insns,
    accepted_at,
    done_at,
    depth,
    elem_beats,
    t,
    addr,
    beats,
    row_last,
    ring_last,
    read_at,
):
    """A burst of a Loader is granted in cycle `t`: its beats, and the padding that follows them."""
    index = r.read_grants % RING
    due = grant_read(p, r, ring_last, t)
    i = ld.insn
    bad = bad_beat(p, regions, addr, beats)
    kind = table[i, MEMORY_TYPE]
    per_elem = elem_beats[kind]
    over = beats
    if kind != UOP_TYPE and ld.room * per_elem - ld.row_beats < beats:
        over = max(ld.room * per_elem - ld.row_beats, 0)
    first_bad = min(bad, over)
    stopped = 0
    if first_bad < beats:
        at = take_beats(p, r, first_bad + 1, due, ld.step_at, read_at)
        report(r, at + 1, SCRATCHPAD if over <= bad else BUS_ERROR, i, ld.rank)
        stopped = at + 2  # beats are taken again once the machine has stopped
        rest = beats - first_bad - 1
        last = at if rest == 0 else take_beats(p, r, rest, due, stopped, read_at)
    else:
        last = take_beats(p, r, beats, due, ld.step_at, read_at)
    ring_last[index] = last
    ld.read_beats += beats
    ld.step_at = max(last + 1, stopped)
    ld.row_beats += beats
    progress(r, last)
    if row_last:
        if kind != UOP_TYPE:
            ld.room -= table[i, X_SIZE]
        ld.row_beats = 0
        ld.rows_left -= 1
        pad_steps(r, ld, table[i, X_PAD_1])
        if ld.rows_left > 0:
            pad_steps(r, ld, table[i, X_PAD_0])
        else:
            pad_steps(r, ld, table[i, Y_PAD_1] * x_total(table, i))
            done_at[(ld.started - 1) % RING] = ld.step_at
            ld.insn = -1
            start_transfers(p, r, ld, table, insns, accepted_at, done_at, depth)


# ---- writing -----------------------------------------------------------------------------------
@jit
def grant_write(
    p, r, regions, write_at, write_aw, write_b, beat_at, leave_at, elem_from, t, insn, addr, beats
):
    """A burst of the store unit is accepted in cycle `t`; returns the cycle of its response.

    `elem_from` is the first cycle in which elements of its instruction can be read.
    """
    k = r.write_grants
    r.write_grants = k + 1
    write_at[k % RING] = t
    aw = max(t + 1, r.aw_last + 1)
    if k >= p.dram_limit:
        aw = max(aw, write_b[(k - p.dram_limit) % RING] + 1)
    aw = not_stalled(p, AW, aw)
    r.aw_last = aw
    write_aw[k % RING] = aw
    for n in range(beats):
        # The element: read, then its beats leave to the queue before W.
        if r.st_part == 0:
            read = max(r.st_read_last + 1, elem_from)
            if r.st_elems >= STORE_ELEM_DEPTH:
                read = max(read, leave_at[r.st_elems % STORE_ELEM_DEPTH] + 1)
            r.st_read_last = read
            r.st_elem_at = read + STORE_OUT_LATENCY_CYCLES + 1
        leave = max(max(r.st_elem_at, r.st_leave_last + 1), max(t + 1, r.w_last))
        r.st_leave_last = leave
        r.st_part += 1
        if r.st_part == p.out_beats:
            r.st_part = 0
            leave_at[r.st_elems % STORE_ELEM_DEPTH] = leave
            r.st_elems += 1
        w = max(max(leave + 1, r.w_last + 1), aw + 1)
        if p.rate < RATE_ONE:
            w = affordable(p, r.w_credit, r.w_credit_at, w)
        w = not_stalled(p, W, w)
        r.w_credit = p.rate
        r.w_credit_at = w + 1
        r.w_last = w
        beat_at[(r.write_beats + n) % BEAT_RING] = w
    r.write_beats += beats
    b = not_stalled(p, B, max(r.w_last + p.latency, r.b_last + 1))
    r.b_last = b
    write_b[k % RING] = b
    progress(r, b)
    if bad_beat(p, regions, addr, beats) < beats:
        report(r, b + 1, BUS_ERROR, insn, 3)
    return b
