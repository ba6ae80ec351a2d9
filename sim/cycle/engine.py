"""The main loop: visits the cycles in which something can change, skips the others.

In a visited cycle every unit looks at the state that the cycle began with and changes what the
clock edge at its end changes in the RTL. If anything changed, the next cycle is visited too; else
the earliest cycle in which time alone changes something. ``every_cycle`` visits them all: the
result must be the same.
"""

from __future__ import annotations

import numpy as np

from covta.hw.faults import FaultCause
from covta.hw.isa import MemoryType
from covta.hw.microarchitecture import (
    ALU_QUEUE_DEPTH,
    COMPUTE_RETIRE_DEPTH,
    LOADER_DEPTH,
    PAGE_BYTES,
    SCANNED_DEPTH,
    STORE_ELEM_DEPTH,
    STORE_RETIRE_DEPTH,
    TOKEN_MAX,
)
from covta.sim.cycle.compute import (
    ALU,
    CAUSE_ILLEGAL,
    CAUSE_SCRATCHPAD,
    GEMM,
    ILLEGAL,
    LOADER,
    NONE,
    OP_FINISH,
    OP_LOAD,
    OPCODE,
    POP_NEXT,
    POP_PREV,
    PUSH_NEXT,
    PUSH_PREV,
    alu_start,
    engine_of,
    gemm_start,
    hazard,
    hazard_clears_at,
    scan_judge,
    scan_read,
    scan_take,
)
from covta.sim.cycle.memory import (
    BUS_ERROR,
    DRAM_WINDOW,
    MEMORY_TYPE,
    SRAM_BASE,
    UOP_TYPE,
    X_SIZE,
    Y_SIZE,
    bad_beat,
    burst_beats,
    grant_read,
    grant_write,
    is_empty,
    load_block,
    next_beat,
    presents,
    progress,
    receive,
    report,
    start_transfers,
    steady,
    take_row,
)
from covta.sim.cycle.state import BEAT_RING, NEVER, RING
from covta.sim.decode import column
from covta.sim.jit import jit
from covta.sim.kernels import (
    check_transfer,
    exec_alu,
    exec_gemm,
    exec_load,
    stage_store,
    write_staged,
)

UNIT = column("unit")
FETCH_RING = 256
"""Beats of instructions that are remembered: more than the fetch buffer holds."""

STAGED = 4
"""Stores whose bytes are kept until written: more than have bursts to be granted."""

OUT = int(MemoryType.OUT)

CLIENT_FETCH, CLIENT_COMPUTE, CLIENT_LOAD = range(3)
"""Order of priority at the read engine."""

G_COMPUTE, G_LOAD, G_STORE = range(3)
"""Rows of the generators; the first two are the Loaders' as well."""

TOKEN_OVERFLOW = int(FaultCause.TOKEN_OVERFLOW)
NO_FINISH = int(FaultCause.NO_FINISH)
WATCHDOG = int(FaultCause.WATCHDOG)


# ---- read engine -------------------------------------------------------------------------------
@jit
def grant_client(p, r, gens, ring_last, ahead_last, ahead_beats, t):
    """Client whose burst the read engine accepts in cycle `t`, or -1; and when to look again."""
    while r.ahead_out < r.ahead_in and ahead_last[r.ahead_out % RING] < t:
        r.ahead_sum -= ahead_beats[r.ahead_out % RING]
        r.ahead_out += 1
    k = r.read_grants
    free_at = r.ar_free_at
    if k >= p.port_limit:
        free_at = max(free_at, ring_last[(k - p.port_limit) % RING] + 1)
    wants = -1
    if r.f_request != 0:
        wants = CLIENT_FETCH
    else:
        for n in range(2):
            g = gens[n]
            if g.valid != 0 and presents(p, g, burst_beats(p, g)):
                wants = n + 1
                break
    if wants < 0:
        return -1, NEVER
    if wants == CLIENT_LOAD and r.ahead_sum >= p.load_ahead:
        return -1, ahead_last[r.ahead_out % RING] + 1
    if free_at > t:
        return -1, free_at
    return wants, t + 1


# ---- fetch -------------------------------------------------------------------------------------
@jit
def fetch_burst(p, r, regions, ring_last, read_at, beat_at, beat_bad, t):
    """The offered burst of fetch is granted in cycle `t`."""
    beats, addr = r.f_request_beats, r.f_request_addr
    index = r.read_grants % RING
    due = grant_read(p, r, ring_last, t)
    at = t
    for k in range(beats):
        at = next_beat(p, r, due)
        r.r_free_at = at + 1
        read_at[(r.read_beats + k) % BEAT_RING] = at
        slot = (r.f_beats_in + k) % FETCH_RING
        beat_at[slot] = at
        beat_bad[slot] = bad_beat(p, regions, addr + k * p.bus_bytes, 1) == 0
    r.f_beats_in += beats
    r.read_beats += beats
    ring_last[index] = at
    r.fetch_beats += beats
    progress(r, at)


@jit
def fetch_step(p, r, table, queue, queue_at, queue_in, queue_out, beat_at, beat_bad, granted, t):
    """One cycle of fetch; true if anything changed."""
    changed = False
    # the instruction in the join register
    handed = False
    emptied = False
    if r.f_full != 0:
        i = r.f_index
        unit = table[i, UNIT]
        if r.f_error != 0:
            report(r, t + 1, BUS_ERROR, i, 0)
        elif unit < 0:
            report(r, t + 1, CAUSE_ILLEGAL, i, 0)
        elif queue_in[unit] - queue_out[unit] < p.queue_depth:
            handed = True
            slot = queue_in[unit]
            queue[unit, slot] = i
            queue_at[unit, slot] = t + 1
            queue_in[unit] += 1
            emptied = (
                p.insns_per_beat == 1 or r.f_slot == p.insns_per_beat - 1 or i + 1 == p.insn_count
            )
            r.f_slot = (r.f_slot + 1) % p.insns_per_beat
            r.f_index += 1
            changed = True
    # the next beat
    taken = False
    if (
        r.f_beats_out < r.f_beats_in
        and beat_at[r.f_beats_out % FETCH_RING] < t
        and (r.f_full == 0 or emptied)
    ):
        taken = True
        changed = True
        bad = beat_bad[r.f_beats_out % FETCH_RING]
        r.f_error = 1 if bad or (r.f_error != 0 and r.f_part != 0) else 0
        r.f_beats_out += 1
        r.f_part = (r.f_part + 1) & (p.beats_per_insn - 1)
        r.f_full = 1 if r.f_part == 0 else 0
    elif handed and emptied:
        r.f_full = 0
    # the next burst
    generate = False
    if r.f_left > 0 and (r.f_request == 0 or granted):
        page = (PAGE_BYTES - r.f_addr % PAGE_BYTES) >> p.bus_shift
        length = min(min(page, p.fetch_burst), r.f_left)
        first = r.f_addr
        last = first + length * p.bus_bytes - 1
        if first < p.window_first or last > p.window_last:
            skipped = p.first_slot if r.f_asked > 0 else 0
            index = r.f_asked * p.insns_per_beat // p.beats_per_insn - skipped
            report(r, t + 1, DRAM_WINDOW, index, 0)
        elif r.f_free >= length:
            generate = True
            changed = True
            r.f_free -= length
            r.f_request_addr = first
            r.f_request_beats = length
            r.f_addr += length * p.bus_bytes
            r.f_left -= length
            r.f_asked += length
    if generate:
        r.f_request = 1
    elif granted:
        r.f_request = 0
        changed = True
    if taken:
        r.f_free += 1
    return changed


# ---- Loaders -----------------------------------------------------------------------------------
@jit
def loader_full(ld):
    """Whether a Loader has all transfers in flight that it may."""
    return ld.accepted - ld.done >= LOADER_DEPTH


@jit
def loader_accept(p, r, ld, table, insns, accepted_at, done_at, depth, i, t):
    """A Loader takes a transfer in cycle `t`."""
    k = ld.accepted % RING
    insns[k] = i
    accepted_at[k] = t
    done_at[k] = NEVER
    ld.accepted += 1
    start_transfers(p, r, ld, table, insns, accepted_at, done_at, depth)


@jit
def generator_step(p, r, g, beats, granted):
    """Burst and row stages: (something changed, the row stage can take a transfer)."""
    changed = False
    row_last = False
    if granted:
        changed = True
        row_last = g.beats == beats
        if row_last:
            g.valid = 0
        else:
            g.addr += beats * p.bus_bytes
            g.beats -= beats
    free = g.row_valid == 0
    if g.row_valid != 0 and g.valid == 0:
        changed = True
        take_row(p, g)
    return changed, free


@jit
def loader_generator(
    p, r, g, ld, table, base_ptr, elem_bytes, insns, accepted_at, beats, granted, t
):
    """A Loader's generator in cycle `t`; true if anything changed."""
    changed, free = generator_step(p, r, g, beats, granted)
    while ld.ahead_out < ld.accepted and is_empty(table, insns[ld.ahead_out % RING]):
        ld.ahead_out += 1
    if free and ld.ahead_out < ld.accepted:
        k = ld.ahead_out % RING
        if accepted_at[k] < t:
            load_block(p, g, table, base_ptr, elem_bytes, insns[k])
            ld.ahead_out += 1
            changed = True
    return changed


@jit
def check_window(p, r, g, rank, at):
    """Report a burst outside the window, from the cycle on in which it would be presented."""
    if g.valid != 0 and not presents(p, g, burst_beats(p, g)):
        report(r, at, DRAM_WINDOW, g.insn, rank)
        return True
    return False


# ---- tokens ------------------------------------------------------------------------------------
@jit
def push(r, tokens, pushed, queue, insn, t):
    """A push in cycle `t`: seen by pops from the next cycle on."""
    pushed[queue] += 1
    if tokens[queue] >= TOKEN_MAX:
        report(r, t, TOKEN_OVERFLOW, insn, 4 + queue)


@jit
def write_burst(p, regions, dram, addr, beats, stage, at):
    """Write a granted burst, which comes to its end even after a fault; bad beats go nowhere."""
    if bad_beat(p, regions, addr, beats) == beats:
        write_staged(dram, addr, stage, at, beats * p.bus_bytes)
    else:
        for k in range(beats):
            offset = k * p.bus_bytes
            write_staged(dram, addr + offset, stage, at + offset, p.bus_bytes)


@jit
def forget_later(p, r, loaders, ring_last, ring_beats, ring_client, read_at, w_beat_at):
    """Take out of the counters what they were given ahead of time, and comes after the fault."""
    t = r.fault_at
    r.gemm_busy -= max(r.m_last - t, 0)
    r.alu_busy -= max(r.a_busy_last - t, 0)
    beat = r.read_beats
    for k in range(r.read_grants - 1, max(r.read_grants - RING, 0) - 1, -1):
        slot = k % RING
        if ring_last[slot] <= t:
            break
        beats = ring_beats[slot]
        late = 0
        if steady(p):
            late = min(beats, ring_last[slot] - t)
        else:
            for n in range(1, beats + 1):
                late += read_at[(beat - n) % BEAT_RING] > t
        beat -= beats
        client = ring_client[slot]
        if client == CLIENT_FETCH:
            r.fetch_beats -= late
        else:
            loaders[client - 1].read_beats -= late
    for k in range(r.write_beats - 1, max(r.write_beats - BEAT_RING, 0) - 1, -1):
        if w_beat_at[k % BEAT_RING] <= t:
            break
        r.write_beats -= 1


LOAD_COMPUTE, COMPUTE_LOAD, COMPUTE_STORE, STORE_COMPUTE = range(4)


@jit
def store_elems(table, i):
    """Elements that a STORE moves."""
    return table[i, X_SIZE] * table[i, Y_SIZE]


@jit
def store_is_empty(table, storing, n):
    """Whether the n-th dispatched STORE moves nothing."""
    return is_empty(table, storing[n % RING, 0])


@jit
def simulate(p, r, gens, loaders, table, regions, state, dram, tokens, every_cycle, trace):
    """Run a program to its end; everything is left in the records.

    Parameters
    ----------
    p, r, gens, loaders : records of `covta.sim.cycle.state`
    table : (n, columns) int64, the decoded stream
    regions : (k, 2) int64, first and last byte of what answers on the bus
    state, dram : scratchpads and memory of `covta.sim.state`
    tokens : (4,) int64, updated
    every_cycle : bool
        Visit every cycle instead of skipping.
    trace : (n, 2) int64
        Cycle in which every instruction starts, and in which it is complete; -1 where it does not.

    Returns
    -------
    int
        Visited cycles.
    """
    count = p.insn_count
    base_ptr, elem_bytes, depth = dram.base_ptrs, state.elem_bytes, state.depth
    elem_beats = np.maximum(elem_bytes // p.bus_bytes, 1)
    queue = np.zeros((3, count + 1), np.int64)
    queue_at = np.full((3, count + 1), NEVER, np.int64)
    queue_in, queue_out = np.zeros(3, np.int64), np.zeros(3, np.int64)
    beat_at, beat_bad = np.zeros(FETCH_RING, np.int64), np.zeros(FETCH_RING, np.bool_)
    ring_last, ring_beats = np.zeros(RING, np.int64), np.zeros(RING, np.int64)
    ring_client = np.zeros(RING, np.int64)
    read_at, w_beat_at = np.zeros(BEAT_RING, np.int64), np.zeros(BEAT_RING, np.int64)
    ahead_last, ahead_beats = np.zeros(RING, np.int64), np.zeros(RING, np.int64)
    l_insn, l_at = np.zeros((2, RING), np.int64), np.zeros((2, RING), np.int64)
    l_done = np.full((2, RING), NEVER, np.int64)
    scanned = np.zeros((RING, 6), np.int64)  # insn, visible at, banks, empty, cause, uop_end
    retiring = np.zeros((RING, 3), np.int64)  # insn, visible at, engine
    m_done, a_done = np.zeros(RING, np.int64), np.zeros(RING, np.int64)
    reads_at = np.full(ALU_QUEUE_DEPTH, -1000, np.int64)
    written_at = np.full(p.acc_depth, -1000, np.int64)
    w_at, w_aw = np.zeros(RING, np.int64), np.zeros(RING, np.int64)
    w_b = np.zeros(RING, np.int64)
    leave_at = np.zeros(STORE_ELEM_DEPTH, np.int64)
    storing = np.zeros((RING, 3), np.int64)  # insn, dispatched at, complete at
    out_bytes = p.acc_depth * elem_bytes[OUT]
    stage = np.zeros(STAGED * out_bytes, np.uint8)  # of stores with bursts to be granted
    pushed = np.zeros(4, np.int64)
    compute_loader, load_loader = loaders[0], loaders[1]
    visits = 0
    t = 0
    while True:
        r.now = t
        visits += 1
        for k in range(4):
            tokens[k] += pushed[k]
            pushed[k] = 0
        wake = NEVER
        changed = False

        # ---- the state that this cycle begins with --------------------------------------------
        load_visible = queue_out[0] < queue_in[0] and queue_at[0, queue_out[0]] <= t
        store_visible = queue_out[2] < queue_in[2] and queue_at[2, queue_out[2]] <= t
        compute_visible = queue_out[1] < queue_in[1] and queue_at[1, queue_out[1]] <= t
        head_visible = r.q_out < r.q_in and scanned[r.q_out % RING, 1] <= t
        q_level = r.q_in - r.q_out
        retire_level = r.r_in - r.r_out
        store_level = r.st_dispatched - r.st_retired
        fetch_idle = (
            r.f_index == count
            and queue_in[0] == queue_out[0]
            and queue_in[1] == queue_out[1]
            and queue_in[2] == queue_out[2]
        )
        if r.fault_at < t:
            break
        idle = (
            fetch_idle
            and load_loader.accepted == load_loader.done
            and r.s_insn < 0
            and r.j_insn < 0
            and q_level == 0
            and retire_level == 0
            and store_level == 0
            and r.st_checked < 0
        )
        if idle:
            if r.finished == 0:
                report(r, t, NO_FINISH, count, 9)
            break

        # ---- read engine and fetch ------------------------------------------------------------
        beats0, beats1 = burst_beats(p, gens[0]), burst_beats(p, gens[1])
        granted, look = grant_client(p, r, gens, ring_last, ahead_last, ahead_beats, t)
        wake = min(wake, look)
        slot = r.read_grants % RING
        if granted == CLIENT_FETCH:
            ring_client[slot], ring_beats[slot] = granted, r.f_request_beats
            fetch_burst(p, r, regions, ring_last, read_at, beat_at, beat_bad, t)
        elif granted >= 0:
            n = granted - 1
            g = gens[n]
            beats = beats0 if n == 0 else beats1
            ring_client[slot], ring_beats[slot] = granted, beats
            receive(
                p,
                r,
                loaders[n],
                table,
                regions,
                l_insn[n],
                l_at[n],
                l_done[n],
                depth,
                elem_beats,
                t,
                g.addr,
                beats,
                g.beats == beats,
                ring_last,
                read_at,
            )
            if granted == CLIENT_LOAD:
                ahead_last[r.ahead_in % RING] = ring_last[slot]
                ahead_beats[r.ahead_in % RING] = beats
                r.ahead_sum += beats
                r.ahead_in += 1
        if fetch_step(
            p,
            r,
            table,
            queue,
            queue_at,
            queue_in,
            queue_out,
            beat_at,
            beat_bad,
            granted == CLIENT_FETCH,
            t,
        ):
            changed = True
        if r.f_beats_out < r.f_beats_in:
            at = beat_at[r.f_beats_out % FETCH_RING] + 1
            if at > t:
                wake = min(wake, at)

        # ---- load unit ------------------------------------------------------------------------
        load_stall = False
        full1 = loader_full(load_loader)
        busy1 = load_loader.accepted > load_loader.done
        busy0 = compute_loader.accepted > compute_loader.done
        full0 = loader_full(compute_loader)
        if load_visible:
            i = queue[0, queue_out[0]]
            if table[i, ILLEGAL] != 0:
                if not busy1:
                    report(r, t, CAUSE_ILLEGAL, i, 1)
            elif not full1:
                if table[i, POP_NEXT] == 0 or tokens[COMPUTE_LOAD] > 0:
                    tokens[COMPUTE_LOAD] -= table[i, POP_NEXT]
                    loader_accept(
                        p, r, load_loader, table, l_insn[1], l_at[1], l_done[1], depth, i, t
                    )
                    if check_transfer(state, table[i]) == 0:
                        exec_load(state, dram, table[i])
                    queue_out[0] += 1
                    trace[i, 0] = t
                    changed = True
                else:
                    load_stall = True
        if busy1:
            k = load_loader.done % RING
            if l_done[1, k] == t:
                i = l_insn[1, k]
                load_loader.done += 1
                trace[i, 1] = t
                if table[i, PUSH_NEXT] != 0:
                    push(r, tokens, pushed, LOAD_COMPUTE, i, t)
                progress(r, t)
                changed = True
        if load_loader.done < load_loader.accepted:
            at = l_done[1, load_loader.done % RING]
            if at > t:
                wake = min(wake, at)
        if loader_generator(
            p,
            r,
            gens[1],
            load_loader,
            table,
            base_ptr,
            elem_bytes,
            l_insn[1],
            l_at[1],
            beats1,
            granted == CLIENT_LOAD,
            t,
        ):
            changed = True

        # ---- compute: retirement --------------------------------------------------------------
        if retire_level > 0:
            k = r.r_out % RING
            i, engine = retiring[k, 0], retiring[k, 2]
            at = retiring[k, 1]
            if engine == GEMM:
                at = max(at, m_done[r.m_done_out % RING] + 1)
            elif engine == ALU:
                at = max(at, a_done[r.a_done_out % RING] + 1)
            elif engine == LOADER:
                done = l_done[0, r.l_retired % RING]
                at = NEVER if done == NEVER else max(at, done + 1)
            if r.retired_at >= at:
                at = r.retired_at + 1
            if at <= t:
                r.retired_at = t
                r.r_out += 1
                if engine == GEMM:
                    r.m_done_out += 1
                elif engine == ALU:
                    r.a_done_out += 1
                elif engine == LOADER:
                    r.l_retired += 1
                if table[i, PUSH_PREV] != 0:
                    push(r, tokens, pushed, COMPUTE_LOAD, i, t)
                if table[i, PUSH_NEXT] != 0:
                    push(r, tokens, pushed, COMPUTE_STORE, i, t)
                if table[i, OPCODE] == OP_FINISH:
                    r.finished = 1
                trace[i, 1] = t
                progress(r, t + 1)
                changed = True
            else:
                wake = min(wake, at)

        # ---- compute: scan's micro-ops (as hold and pending stand in this cycle) ---------------
        if r.s_insn >= 0 and r.s_leaves_at == NEVER:
            wake = min(wake, scan_read(r, table, t))

        # ---- compute: dispatch ----------------------------------------------------------------
        compute_stall, hazard_stall = False, False
        uop_entered, uop_done = 0, 0
        loader_go, loader_go_banks = False, 0
        if head_visible and retire_level < COMPUTE_RETIRE_DEPTH:
            k = r.q_out % RING
            i, banks, empty, cause = scanned[k, 0], scanned[k, 2], scanned[k, 3], scanned[k, 4]
            if (table[i, POP_PREV] == 0 or tokens[LOAD_COMPUTE] > 0) and (
                table[i, POP_NEXT] == 0 or tokens[STORE_COMPUTE] > 0
            ):
                engine = engine_of(table, i, empty)
                if cause != 0:
                    if retire_level == 0:
                        report(r, t, cause, i, 2)
                else:
                    ready = True
                    if engine == GEMM and t < r.m_last:
                        ready = False
                        wake = min(wake, r.m_last)
                    elif engine == ALU and t < r.a_ready_at:
                        ready = False
                        wake = min(wake, r.a_ready_at)
                    elif engine == LOADER and full0:
                        ready = False
                    if ready:
                        if engine != NONE and hazard(r, table, i, engine, banks, scanned[k, 5], t):
                            hazard_stall = True
                            wake = min(wake, hazard_clears_at(r, t))
                        else:
                            tokens[LOAD_COMPUTE] -= table[i, POP_PREV]
                            tokens[STORE_COMPUTE] -= table[i, POP_NEXT]
                            r.q_out += 1
                            retiring[r.r_in % RING, 0] = i
                            retiring[r.r_in % RING, 1] = t + 1
                            retiring[r.r_in % RING, 2] = engine
                            r.r_in += 1
                            trace[i, 0] = t
                            progress(r, t + 1)
                            changed = True
                            if engine == GEMM:
                                gemm_start(r, table, i, t, banks, m_done)
                                exec_gemm(state, table[i])
                            elif engine == ALU:
                                alu_start(
                                    p,
                                    r,
                                    table,
                                    state.uop,
                                    reads_at,
                                    written_at,
                                    i,
                                    t,
                                    banks,
                                    a_done,
                                )
                                exec_alu(state, table[i])
                            elif engine == LOADER:
                                loader_accept(
                                    p,
                                    r,
                                    compute_loader,
                                    table,
                                    l_insn[0],
                                    l_at[0],
                                    l_done[0],
                                    depth,
                                    i,
                                    t,
                                )
                                exec_load(state, dram, table[i])
                                loader_go, loader_go_banks = True, banks
            elif cause == 0:
                compute_stall = True
        # ---- compute: its Loader --------------------------------------------------------------
        in_flight = compute_loader.accepted - compute_loader.done - (1 if loader_go else 0)
        done_now = False
        if in_flight > 0:
            k = compute_loader.done % RING
            if l_done[0, k] == t:
                done_now = True
                compute_loader.done += 1
                changed = True
                if table[l_insn[0, k], MEMORY_TYPE] == UOP_TYPE:
                    uop_done = 1
        none_left = in_flight == 0 or (in_flight == 1 and done_now)
        if loader_go:
            r.loader_banks = (0 if none_left else r.loader_banks) | loader_go_banks
        elif none_left:
            if r.loader_banks != 0:
                changed = True
            r.loader_banks = 0
        if compute_loader.done < compute_loader.accepted:
            at = l_done[0, compute_loader.done % RING]
            if at > t:
                wake = min(wake, at)
        if loader_generator(
            p,
            r,
            gens[0],
            compute_loader,
            table,
            base_ptr,
            elem_bytes,
            l_insn[0],
            l_at[0],
            beats0,
            granted == CLIENT_COMPUTE,
            t,
        ):
            changed = True

        # ---- compute: scan --------------------------------------------------------------------
        offered = 0
        if r.j_insn >= 0:
            if t >= r.j_offers_at:
                scan_judge(p, r, table, state.uop)
                k = r.q_in % RING
                scanned[k, 0] = r.j_insn
                scanned[k, 1] = t + 1
                scanned[k, 2] = r.s_banks
                scanned[k, 3] = r.s_empty
                scanned[k, 4] = r.s_cause
                scanned[k, 5] = r.s_uop_end
                r.q_in += 1
                r.j_insn = -1
                offered = 1
                changed = True
            else:
                wake = min(wake, r.j_offers_at)
        if r.s_insn >= 0 and r.j_insn < 0 and q_level + offered < SCANNED_DEPTH:
            i = r.s_insn
            if t >= r.s_leaves_at:
                r.j_insn = i
                r.j_offers_at = t + r.s_judge_cycles + 1
                r.s_insn = -1
                if (
                    table[i, OPCODE] == OP_LOAD
                    and table[i, MEMORY_TYPE] == UOP_TYPE
                    and not is_empty(table, i)
                ):
                    uop_entered = 1
                changed = True
            else:
                wake = min(wake, r.s_leaves_at)
        if r.s_insn < 0 and compute_visible:
            scan_take(p, r, table, queue[1, queue_out[1]], t)
            queue_out[1] += 1
            changed = True
        r.uop_pending += uop_entered - uop_done

        # ---- store unit -----------------------------------------------------------------------
        g = gens[G_STORE]
        store_granted = False
        beats = burst_beats(p, g)
        if g.valid != 0 and presents(p, g, beats):
            k = r.write_grants
            at = t
            if k >= 1:
                at = max(at, w_aw[(k - 1) % RING])
            if k >= p.port_limit:
                at = max(at, w_b[(k - p.port_limit) % RING] + 1)
            if at <= t:
                store_granted = True
                changed = True
                n = r.st_answered
                last = g.beats == beats and (g.row_valid == 0 or g.row_insn != g.insn)
                while store_is_empty(table, storing, n):
                    n += 1
                answer = grant_write(
                    p,
                    r,
                    regions,
                    w_at,
                    w_aw,
                    w_b,
                    w_beat_at,
                    leave_at,
                    storing[n % RING, 1] + 1,
                    t,
                    g.insn,
                    g.addr,
                    beats,
                )
                staged = r.st_written % STAGED * out_bytes + r.st_written_bytes
                write_burst(p, regions, dram, g.addr, beats, stage, staged)
                r.st_written_bytes += beats * p.bus_bytes
                r.st_answered = n
                if last:
                    storing[n % RING, 2] = answer + 1
                    r.st_answered = n + 1
                    r.st_written += 1
                    r.st_written_bytes = 0
            else:
                wake = min(wake, at)
        moved, _ = generator_step(p, r, g, beats, store_granted)
        changed = changed or moved
        check_window(p, r, g, 3, t + 2)
        store_stall = False
        leaves = False
        if r.st_checked >= 0:
            i = r.st_checked
            empty = is_empty(table, i)
            beyond = table[i, SRAM_BASE] + store_elems(table, i) > p.acc_depth
            token = table[i, POP_PREV] == 0 or tokens[COMPUTE_STORE] > 0
            if r.st_generating != 0:
                leaves = g.row_valid == 0
            elif table[i, ILLEGAL] != 0 or (beyond and not empty):
                if token and store_level == 0:
                    cause = CAUSE_ILLEGAL if table[i, ILLEGAL] != 0 else CAUSE_SCRATCHPAD
                    report(r, t + 1, cause, i, 3)
            elif store_level < STORE_RETIRE_DEPTH:
                if not token:
                    store_stall = True
                else:
                    changed = True
                    tokens[COMPUTE_STORE] -= table[i, POP_PREV]
                    k = r.st_dispatched % RING
                    storing[k, 0] = i
                    storing[k, 1] = t
                    storing[k, 2] = t + 1 if empty else NEVER
                    r.st_dispatched += 1
                    trace[i, 0] = t
                    if empty:
                        leaves = True
                    else:
                        r.st_generating = 1
                        load_block(p, g, table, base_ptr, elem_bytes, i)
                        stage_store(state, table[i], stage, r.st_staged % STAGED * out_bytes)
                        r.st_staged += 1
        if leaves:
            r.st_checked = -1
            r.st_generating = 0
            changed = True
        if r.st_counted >= 0:
            if r.st_checked < 0:
                r.st_checked = r.st_counted
                r.st_counted = -1
                queue_out[2] += 1
                changed = True
        elif store_visible:
            r.st_counted = queue[2, queue_out[2]]
            changed = True
        if store_level > 0:
            k = r.st_retired % RING
            at = max(storing[k, 2], storing[k, 1] + 1)
            if at <= t:
                i = storing[k, 0]
                r.st_retired += 1
                trace[i, 1] = t
                if table[i, PUSH_PREV] != 0:
                    push(r, tokens, pushed, STORE_COMPUTE, i, t)
                progress(r, t)
                changed = True
            else:
                wake = min(wake, at)

        # ---- windows --------------------------------------------------------------------------
        check_window(p, r, gens[0], 2, t + 1)
        check_window(p, r, gens[1], 1, t + 1)

        # ---- the next cycle to visit ----------------------------------------------------------
        following = t + 1
        if not changed and not every_cycle:
            following = max(min(wake, r.fault_at), t + 1)
        quiet_at = r.last_progress + 1 + p.watchdog
        if following > quiet_at and r.fault_at > t:
            following = max(quiet_at, t + 1)
            insn = 0
            if load_visible:
                insn = queue[0, queue_out[0]]
            elif head_visible:
                insn = scanned[r.q_out % RING, 0]
            elif r.st_checked >= 0:
                insn = r.st_checked
            report(r, max(quiet_at, t), WATCHDOG, insn, 9)
        span = following - t
        r.load_token_stall += span * load_stall
        r.compute_token_stall += span * compute_stall
        r.compute_hazard_stall += span * hazard_stall
        r.store_token_stall += span * store_stall
        load_loader.busy_cycles += span * busy1
        compute_loader.busy_cycles += span * busy0
        r.store_busy += span * (store_level > 0)
        t = following
    for k in range(4):
        tokens[k] += pushed[k]
    if r.fault_at < NEVER:
        forget_later(p, r, loaders, ring_last, ring_beats, ring_client, read_at, w_beat_at)
    return visits
