"""Timing of the compute unit: scan, dispatch, the ALU's schedule. Mirrors ``hw/rtl``."""

from __future__ import annotations

from covta.hw.faults import FaultCause
from covta.hw.isa import AluOp, Opcode
from covta.hw.microarchitecture import (
    ALU_GENERATE_TO_READ_CYCLES,
    ALU_QUEUE_DEPTH,
    ALU_READ_TO_WRITE_CYCLES,
    ALU_START_TO_GENERATE_CYCLES,
    GEMM_DRAIN_CYCLES,
    GEMM_RESULT_CYCLES,
    MUL_LATENCY_CYCLES,
    SCAN_ALU_CYCLES,
    SCAN_GEMM_CYCLES,
    SCAN_LOAD_JUDGE_CYCLES,
    SCAN_LOOP_JUDGE_CYCLES,
)
from covta.sim.cycle.memory import (
    MEMORY_TYPE,
    SRAM_BASE,
    UOP_TYPE,
    Y_PAD_0,
    Y_PAD_1,
    Y_SIZE,
    is_empty,
    progress,
    x_total,
)
from covta.sim.cycle.state import NEVER, RING
from covta.sim.decode import column
from covta.sim.jit import jit

GEMM_DONE_CYCLES = GEMM_RESULT_CYCLES + 1
"""From the last issue of a GEMM to `done`."""

MUL_EXTRA = MUL_LATENCY_CYCLES - 1

NONE, GEMM, ALU, LOADER = range(4)

OPCODE, ILLEGAL = column("opcode"), column("illegal")
POP_PREV, POP_NEXT = column("pop_prev"), column("pop_next")
PUSH_PREV, PUSH_NEXT = column("push_prev"), column("push_next")
RESET, UOP_BGN, UOP_END = column("reset"), column("uop_bgn"), column("uop_end")
ITER_OUT, ITER_IN = column("iter_out"), column("iter_in")
DST_OUT, DST_IN = column("dst_factor_out"), column("dst_factor_in")
SRC_OUT, SRC_IN = column("src_factor_out"), column("src_factor_in")
WGT_OUT, WGT_IN = column("wgt_factor_out"), column("wgt_factor_in")
ALU_OPCODE, USE_IMM = column("alu_opcode"), column("use_imm")

OP_LOAD, OP_GEMM, OP_ALU, OP_FINISH = (
    int(Opcode.LOAD),
    int(Opcode.GEMM),
    int(Opcode.ALU),
    int(Opcode.FINISH),
)
OP_MUL = int(AluOp.MUL)
CAUSE_ILLEGAL = int(FaultCause.ILLEGAL_INSTRUCTION)
CAUSE_SCRATCHPAD = int(FaultCause.SCRATCHPAD)


@jit
def is_loop(table, i):
    """GEMM or ALU."""
    return table[i, OPCODE] == OP_GEMM or table[i, OPCODE] == OP_ALU


@jit
def does_nothing(table, i):
    """An empty transfer, an empty loop, or FINISH."""
    if table[i, OPCODE] == OP_LOAD:
        return is_empty(table, i)
    if is_loop(table, i):
        return (
            table[i, ITER_OUT] == 0
            or table[i, ITER_IN] == 0
            or table[i, UOP_END] <= table[i, UOP_BGN]
        )
    return True


# ---- scan --------------------------------------------------------------------------------------
@jit
def scan_take(p, r, table, i, t):
    """Take an instruction in cycle `t`: when may it leave the first stage."""
    r.s_insn = i
    r.s_left = 0
    r.s_leaves_at = t + 1
    r.s_judge_cycles = 1
    if does_nothing(table, i):
        return
    if table[i, OPCODE] == OP_LOAD:
        r.s_judge_cycles = SCAN_LOAD_JUDGE_CYCLES
    elif table[i, UOP_END] <= p.uop_depth:
        r.s_judge_cycles = SCAN_LOOP_JUDGE_CYCLES
        r.s_taken_at = t
        r.s_left = table[i, UOP_END] - table[i, UOP_BGN]
        r.s_counted_at = t + 1
        r.s_leaves_at = NEVER


@jit
def scan_read(r, table, t):
    """Count the micro-ops read up to and including cycle `t`; returns when to look again."""
    if r.s_left == 0:
        return NEVER
    if r.uop_pending != 0:
        r.s_counted_at = t + 1
        return NEVER
    # Cycles before the ALU's hold, then those after it.
    start = r.s_counted_at
    if r.a_hold_from <= start <= r.a_hold_last:
        start = r.a_hold_last + 1
    finish = start + r.s_left - 1
    if start < r.a_hold_from <= finish:
        finish += r.a_hold_last - r.a_hold_from + 1
    if finish > t:
        # not yet: count what was read
        if start <= t:
            read = t - start + 1
            if start < r.a_hold_from <= t:
                read -= min(t, r.a_hold_last) - r.a_hold_from + 1
            r.s_left -= read
        r.s_counted_at = t + 1
        return finish
    r.s_left = 0
    turns = SCAN_GEMM_CYCLES if table[r.s_insn, OPCODE] == OP_GEMM else SCAN_ALU_CYCLES
    r.s_leaves_at = max(r.s_taken_at + turns, finish)
    return r.s_leaves_at


@jit
def scan_judge(p, r, table, uops):
    """The verdict on the instruction: banks of acc, fault.

    `uops` holds the micro-ops' fields: int (uop_depth, 3), dst, src, wgt.
    """
    i = r.j_insn
    r.s_banks = 0
    r.s_cause = 0
    r.s_uop_end = 0
    r.s_empty = 1 if does_nothing(table, i) else 0
    if table[i, ILLEGAL] != 0:
        r.s_cause = CAUSE_ILLEGAL
        return
    if r.s_empty != 0:
        return
    half = p.acc_depth // 2
    if table[i, OPCODE] == OP_LOAD:
        height = table[i, Y_PAD_0] + table[i, Y_SIZE] + table[i, Y_PAD_1]
        end = table[i, SRAM_BASE] + height * x_total(table, i)
        r.s_uop_end = end
        if table[i, MEMORY_TYPE] == UOP_TYPE:
            beyond = end > p.uop_depth
        else:
            beyond = end > p.acc_depth
            if table[i, SRAM_BASE] < half:
                r.s_banks |= 1
            if end > half:
                r.s_banks |= 2
    elif table[i, UOP_END] > p.uop_depth:
        beyond = True
    else:
        low_dst, low_src, dst, src, wgt = NEVER, NEVER, 0, 0, 0
        for u in range(table[i, UOP_BGN], table[i, UOP_END]):
            low_dst = min(low_dst, uops[u, 0])
            low_src = min(low_src, uops[u, 1])
            dst = max(dst, uops[u, 0])
            src = max(src, uops[u, 1])
            wgt = max(wgt, uops[u, 2])
        rows, columns = table[i, ITER_OUT] - 1, table[i, ITER_IN] - 1
        dst += rows * table[i, DST_OUT] + columns * table[i, DST_IN]
        src += rows * table[i, SRC_OUT] + columns * table[i, SRC_IN]
        wgt += rows * table[i, WGT_OUT] + columns * table[i, WGT_IN]
        if low_dst < half:
            r.s_banks |= 1
        if dst >= half:
            r.s_banks |= 2
        beyond = dst >= p.acc_depth
        if table[i, OPCODE] == OP_GEMM:
            if table[i, RESET] == 0:
                beyond = beyond or src >= p.inp_depth or wgt >= p.wgt_depth
        elif table[i, USE_IMM] == 0:
            beyond = beyond or src >= p.acc_depth
            if low_src < half:
                r.s_banks |= 1
            if src >= half:
                r.s_banks |= 2
    if beyond:
        r.s_cause = CAUSE_SCRATCHPAD


# ---- which banks are taken ---------------------------------------------------------------------
@jit
def gemm_banks(r, t):
    """Banks that GEMM works on in cycle `t`."""
    banks = 0
    if t <= r.m_last:
        banks = r.m_banks
        if t <= r.m_drain_last + GEMM_DRAIN_CYCLES:
            banks |= r.m_drain_banks
    elif t <= r.m_last + GEMM_DRAIN_CYCLES:
        banks = r.m_banks
        if r.m_last - r.m_drain_last < GEMM_DRAIN_CYCLES:
            banks |= r.m_drain_banks
    return banks


@jit
def gemm_start(r, table, i, t, banks, done_at):
    """Start a GEMM in cycle `t`."""
    if r.m_last - r.m_drain_last < GEMM_DRAIN_CYCLES:
        r.m_drain_banks |= r.m_banks
    else:
        r.m_drain_banks = r.m_banks
    r.m_drain_last = r.m_last
    count = (table[i, UOP_END] - table[i, UOP_BGN]) * table[i, ITER_OUT] * table[i, ITER_IN]
    r.m_start = t
    r.m_last = t + count
    r.m_banks = banks
    r.m_uop_bgn = table[i, UOP_BGN]
    r.m_uop_end = table[i, UOP_END]
    r.gemm_busy += count
    done_at[r.m_done_in % RING] = r.m_last + GEMM_DONE_CYCLES
    r.m_done_in += 1
    progress(r, r.m_last + 1)


@jit
def alu_banks(r, t):
    """Banks that the ALU works on in cycle `t`."""
    banks = r.a_banks if t <= r.a_busy_last + 1 else 0
    if t <= r.a_older_last + 1:
        banks |= r.a_older_banks
    return banks


@jit
def alu_start(p, r, table, uops, reads_at, written_at, i, t, banks, done_at):
    """Start an ALU instruction in cycle `t`: the recurrence of ``hw/rtl/alu.py``.

    `reads_at` is a ring of the last operations' ``e``; `written_at` the last ``w`` of every
    element.
    """
    reads_src = table[i, USE_IMM] == 0
    reads = 2  # an immediate takes the place of src once, and src is kept while it is the same
    occupied, extra = 1, 0
    g, f, before, k = r.a_g, r.a_f, r.a_gap, r.a_count
    if table[i, ALU_OPCODE] == OP_MUL:
        occupied, extra = p.mul_cycles, MUL_EXTRA
        if before > MUL_EXTRA:  # MUL after MUL
            before -= MUL_EXTRA
    first_g, w = -1, 0
    kept = -1
    bgn, end = table[i, UOP_BGN], table[i, UOP_END]
    earliest = t + ALU_START_TO_GENERATE_CYCLES
    for y in range(table[i, ITER_OUT]):
        dst_row, src_row = y * table[i, DST_OUT], y * table[i, SRC_OUT]
        for x in range(table[i, ITER_IN]):
            dst_offset = dst_row + x * table[i, DST_IN]
            src_offset = src_row + x * table[i, SRC_IN]
            for u in range(bgn, end):
                dst = uops[u, 0] + dst_offset
                slot = k % ALU_QUEUE_DEPTH
                g = max(max(g + 1, earliest), reads_at[slot] + 1)
                if first_g < 0:
                    first_g = g
                seen = written_at[dst]
                if reads_src:
                    src = uops[u, 1] + src_offset
                    seen = max(seen, written_at[src])
                    reads = 1 if src == kept else 2
                    kept = src if dst != src else -1
                f = max(
                    max(g + ALU_GENERATE_TO_READ_CYCLES + reads - 1, f + max(reads, before)),
                    seen + reads,
                )
                reads_at[slot] = f - reads + 1
                w = f + ALU_READ_TO_WRITE_CYCLES + occupied - 1 + extra
                written_at[dst] = w
                before = occupied
                if not reads_src:
                    reads = 1
                k += 1
    r.a_g, r.a_f, r.a_gap, r.a_count = g, f, occupied + extra, k
    older = r.a_older_banks if t <= r.a_older_last else 0
    r.a_older_banks = older | (r.a_banks if t <= r.a_busy_last else 0)
    r.a_older_last = r.a_busy_last
    r.a_banks = banks
    r.alu_busy += w - max(t, r.a_busy_last)
    r.a_busy_last = w
    r.a_ready_at = g
    r.a_hold_from = t + 1
    r.a_hold_last = (first_g if end - bgn == 1 else g) + 2
    done_at[r.a_done_in % RING] = w + 1
    r.a_done_in += 1
    progress(r, f + 1)


# ---- dispatch ----------------------------------------------------------------------------------
@jit
def engine_of(table, i, empty):
    """Where a scanned instruction executes."""
    if empty != 0:
        return NONE
    opcode = table[i, OPCODE]
    if opcode == OP_GEMM:
        return GEMM
    if opcode == OP_ALU:
        return ALU
    return LOADER


@jit
def hazard(r, table, i, engine, banks, uop_end, t):
    """Whether another engine stands in the way of an instruction in cycle `t`."""
    taken = 0
    if engine != GEMM:
        taken |= gemm_banks(r, t)
    if engine != ALU:
        taken |= alu_banks(r, t)
    if engine != LOADER:
        taken |= r.loader_banks
    if (taken & banks) != 0:
        return True
    if engine == LOADER and table[i, MEMORY_TYPE] == UOP_TYPE:
        if r.a_busy_last >= t:
            return True
        if r.m_start < t <= r.m_last:
            return r.m_uop_bgn < uop_end and table[i, SRAM_BASE] < r.m_uop_end
    return False


@jit
def hazard_clears_at(r, t):
    """Next cycle after `t` in which time alone may clear a hazard."""
    soonest = NEVER
    for at in (
        r.m_last + 1,
        r.m_last + GEMM_DRAIN_CYCLES + 1,
        r.m_drain_last + GEMM_DRAIN_CYCLES + 1,
        r.a_busy_last + 1,
        r.a_busy_last + 2,
        r.a_older_last + 2,
    ):
        if at > t:
            soonest = min(soonest, at)
    return soonest
