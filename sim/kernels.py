"""What every instruction does to scratchpads and DRAM, compiled; shared by both simulators.

All take a `State`, a `Dram` where they touch memory, and `insn`: a row of the table that
`covta.sim.decode.decode` makes. ``check_*`` and ``exec_load`` / ``exec_store`` return a fault cause
(0: none) and change nothing if it is not 0. ``exec_*`` rely on the ``check_*`` that guards them.

===============  =============================================================================
`check_transfer` LOAD, STORE: scratchpad indices
`check_dram`     LOAD, STORE: window and regions
`check_loop`     GEMM, ALU: scratchpad indices, by the bounding box of the micro-ops
`uop_extent`     least and greatest fields of the micro-ops that a GEMM or ALU reads
`exec_load`      `check_dram`, then the whole transfer
`exec_store`     `check_dram`, then the whole transfer
`stage_store`    the whole transfer, to a buffer
`write_staged`   a part of it from there to DRAM
`exec_gemm`      the whole loop nest, in any order: wrapping sums commute
`exec_alu`       the whole loop nest, in program order
===============  =============================================================================
"""

from __future__ import annotations

import numpy as np

from covta.hw.faults import FaultCause
from covta.hw.isa import AluOp, MemoryType, Opcode
from covta.sim.decode import column
from covta.sim.jit import jit
from covta.sim.vector import LANES, PAIRS, gemm_rows

__all__ = [
    "check_dram",
    "check_loop",
    "check_transfer",
    "exec_alu",
    "exec_gemm",
    "exec_load",
    "exec_store",
    "loop_count",
    "moved_elems",
    "requantize",
    "shift_right",
    "stage_store",
    "uop_extent",
    "write_staged",
]

OPCODE = column("opcode")
MEMORY_TYPE = column("memory_type")
SRAM_BASE = column("sram_base")
DRAM_BASE = column("dram_base")
Y_SIZE = column("y_size")
X_SIZE = column("x_size")
X_STRIDE = column("x_stride")
Y_PAD_0 = column("y_pad_0")
Y_PAD_1 = column("y_pad_1")
X_PAD_0 = column("x_pad_0")
X_PAD_1 = column("x_pad_1")
PAD_MIN = column("pad_min")
RESET = column("reset")
UOP_BGN = column("uop_bgn")
UOP_END = column("uop_end")
ITER_OUT = column("iter_out")
ITER_IN = column("iter_in")
DST_OUT = column("dst_factor_out")
DST_IN = column("dst_factor_in")
SRC_OUT = column("src_factor_out")
SRC_IN = column("src_factor_in")
WGT_OUT = column("wgt_factor_out")
WGT_IN = column("wgt_factor_in")
ALU_OPCODE = column("alu_opcode")
USE_IMM = column("use_imm")
IMM = column("imm")

OP_GEMM = int(Opcode.GEMM)
UOP, WGT, INP, ACC, OUT, ACC_8BIT = (int(m) for m in MemoryType)
MIN, MAX, ADD, SHR, MUL, RQT = (int(op) for op in AluOp)

SCRATCHPAD = int(FaultCause.SCRATCHPAD)
DRAM_WINDOW = int(FaultCause.DRAM_WINDOW)
BUS_ERROR = int(FaultCause.BUS_ERROR)

ROW_PAIRS = 2 * PAIRS


# ---- checks ------------------------------------------------------------------------------------
@jit
def moved_elems(insn):
    """Elements that a LOAD or STORE reads from or writes to DRAM."""
    return insn[X_SIZE] * insn[Y_SIZE]


@jit
def check_transfer(state, insn):
    """Whether a LOAD or STORE stays inside its scratchpad."""
    if moved_elems(insn) == 0:
        return 0
    height = insn[Y_PAD_0] + insn[Y_SIZE] + insn[Y_PAD_1]
    width = insn[X_PAD_0] + insn[X_SIZE] + insn[X_PAD_1]
    if insn[SRAM_BASE] + height * width > state.depth[insn[MEMORY_TYPE]]:
        return SCRATCHPAD
    return 0


@jit
def _locate(dram, addr, size):
    """Offset of `size` bytes at `addr` in the buffer, or -1."""
    low = 0
    high = len(dram.begin)
    while low < high:
        middle = (low + high) // 2
        if dram.begin[middle] <= addr:
            low = middle + 1
        else:
            high = middle
    if low == 0 or addr + size > dram.end[low - 1]:
        return np.int64(-1)
    return dram.offset[low - 1] + addr - dram.begin[low - 1]


@jit
def _row_addr(state, dram, insn, y):
    memory_type = insn[MEMORY_TYPE]
    elem = insn[DRAM_BASE] + y * insn[X_STRIDE]
    return dram.base_ptrs[memory_type] + elem * state.elem_bytes[memory_type]


@jit
def check_dram(state, dram, insn):
    """Whether a LOAD or STORE stays inside the window, then inside regions."""
    if moved_elems(insn) == 0:
        return 0
    size = insn[X_SIZE] * state.elem_bytes[insn[MEMORY_TYPE]]
    for y in range(insn[Y_SIZE]):
        addr = _row_addr(state, dram, insn, y)
        if addr < dram.window_begin or addr + size > dram.window_end:
            return DRAM_WINDOW
    for y in range(insn[Y_SIZE]):
        if _locate(dram, _row_addr(state, dram, insn, y), size) < 0:
            return BUS_ERROR
    return 0


@jit
def loop_count(insn):
    """Micro-ops that a GEMM or ALU executes."""
    uops = insn[UOP_END] - insn[UOP_BGN]
    if uops <= 0:
        return np.int64(0)
    return uops * insn[ITER_OUT] * insn[ITER_IN]


@jit
def uop_extent(state, insn):
    """``(min dst, max dst, min src, max src, max wgt)`` over the micro-ops, factors not added.

    Requires a loop that is not empty and ``uop_end <= uop_depth``.
    """
    first = insn[UOP_BGN]
    min_dst = max_dst = np.int64(state.uop[first, 0])
    min_src = max_src = np.int64(state.uop[first, 1])
    max_wgt = np.int64(state.uop[first, 2])
    for u in range(first + 1, insn[UOP_END]):
        dst, src = np.int64(state.uop[u, 0]), np.int64(state.uop[u, 1])
        min_dst, max_dst = min(min_dst, dst), max(max_dst, dst)
        min_src, max_src = min(min_src, src), max(max_src, src)
        max_wgt = max(max_wgt, np.int64(state.uop[u, 2]))
    return min_dst, max_dst, min_src, max_src, max_wgt


@jit
def check_loop(state, insn):
    """Whether a GEMM or ALU stays inside uop, acc, inp and wgt.

    Operands that are not read (GEMM with reset, ALU with an immediate) are not checked.
    """
    if loop_count(insn) == 0:
        return 0
    if insn[UOP_END] > len(state.uop):
        return SCRATCHPAD
    _, dst, _, src, wgt = uop_extent(state, insn)
    y, x = insn[ITER_OUT] - 1, insn[ITER_IN] - 1
    if dst + y * insn[DST_OUT] + x * insn[DST_IN] >= len(state.acc):
        return SCRATCHPAD
    src += y * insn[SRC_OUT] + x * insn[SRC_IN]
    wgt += y * insn[WGT_OUT] + x * insn[WGT_IN]
    if insn[OPCODE] == OP_GEMM:
        if insn[RESET] == 0 and (src >= len(state.inp) or wgt >= len(state.wgt)):
            return SCRATCHPAD
    elif insn[USE_IMM] == 0 and src >= len(state.acc):
        return SCRATCHPAD
    return 0


# ---- LOAD --------------------------------------------------------------------------------------
@jit
def _signed_lane(data, at, lane, bits):
    """Lane of a packed element that begins at byte `at`; bits is 2, 4, 8, 16 or 32."""
    first = lane * bits
    byte = at + (first >> 3)
    if bits < 8:
        value = np.int64(data[byte]) >> (first & 7)
    else:
        value = np.int64(0)
        for k in range(bits >> 3):
            value |= np.int64(data[byte + k]) << (8 * k)
    return (value << (64 - bits)) >> (64 - bits)


@jit
def _load_uops(state, data, at, sram, count):
    for k in range(count):
        word = np.int64(0)
        for b in range(4):
            word |= np.int64(data[at + 4 * k + b]) << (8 * b)
        for f in range(3):
            state.uop[sram + k, f] = (word >> state.uop_lsb[f]) & state.uop_mask[f]


@jit
def _widen(to, start, data, at, count, bits):
    """Copy `count` signed lanes of `bits` from byte `at` into a flat scratchpad."""
    if bits == 8:
        for k in range(count):
            to[start + k] = np.int8(data[at + k])
    elif bits == 32:
        for k in range(count):
            low = np.uint32(data[at + 4 * k]) | (np.uint32(data[at + 4 * k + 1]) << 8)
            high = np.uint32(data[at + 4 * k + 2]) | (np.uint32(data[at + 4 * k + 3]) << 8)
            to[start + k] = np.int32(low | (high << 16))
    else:
        for k in range(count):
            to[start + k] = _signed_lane(data, at, k, bits)


@jit
def _widen_wgt(to, start, data, at, count, bits, block_in, block_out, chunk):
    """Widen and reorder from [o][i] to [o / chunk][i / 2][o % chunk][i % 2]."""
    for k in range(count):
        for o in range(block_out):
            target = start + (k * block_out + o - o % chunk) * block_in + 2 * (o % chunk)
            source = (k * block_out + o) * block_in
            if bits == 8:
                for p in range(block_in >> 1):
                    to[target + 2 * chunk * p] = np.int8(data[at + source + 2 * p])
                    to[target + 2 * chunk * p + 1] = np.int8(data[at + source + 2 * p + 1])
            else:
                for i in range(block_in):
                    value = _signed_lane(data, at, source + i, bits)
                    to[target + (i >> 1) * 2 * chunk + (i & 1)] = value


@jit
def _load_row(state, data, memory_type, at, sram, count):
    if memory_type == UOP:
        _load_uops(state, data, at, sram, count)
    elif memory_type == INP:
        lanes = state.inp.shape[1]
        _widen(state.inp.ravel(), sram * lanes, data, at, count * lanes, state.inp_bits)
    elif memory_type == WGT:
        _widen_wgt(
            state.wgt.ravel(),
            sram * state.wgt.shape[1],
            data,
            at,
            count,
            state.wgt_bits,
            state.block_in,
            state.block_out,
            state.chunk,
        )
    else:
        lanes = state.acc.shape[1]
        bits = state.acc_bits if memory_type == ACC else 8
        _widen(state.acc.ravel(), sram * lanes, data, at, count * lanes, bits)


@jit
def _pad(state, memory_type, sram, count, least):
    """Padding: zero, or the least value of the element type (micro-ops are unsigned: zero)."""
    if memory_type == UOP:
        state.uop[sram : sram + count] = 0
    elif memory_type == INP:
        state.inp[sram : sram + count] = -(1 << (state.inp_bits - 1)) if least else 0
    elif memory_type == WGT:
        state.wgt[sram : sram + count] = -(1 << (state.wgt_bits - 1)) if least else 0
    elif memory_type == ACC:
        state.acc[sram : sram + count] = -(1 << (state.acc_bits - 1)) if least else 0
    else:
        state.acc[sram : sram + count] = -128 if least else 0


@jit
def exec_load(state, dram, insn):
    """Fill a scratchpad from DRAM, padding included."""
    if moved_elems(insn) == 0:
        return 0
    cause = check_dram(state, dram, insn)
    if cause != 0:
        return cause
    memory_type, least = insn[MEMORY_TYPE], insn[PAD_MIN] != 0
    x_size, x_pad_0, x_pad_1 = insn[X_SIZE], insn[X_PAD_0], insn[X_PAD_1]
    width = x_pad_0 + x_size + x_pad_1
    size = x_size * state.elem_bytes[memory_type]
    sram = insn[SRAM_BASE]
    _pad(state, memory_type, sram, insn[Y_PAD_0] * width, least)
    sram += insn[Y_PAD_0] * width
    for y in range(insn[Y_SIZE]):
        _pad(state, memory_type, sram, x_pad_0, least)
        at = _locate(dram, _row_addr(state, dram, insn, y), size)
        _load_row(state, dram.data, memory_type, at, sram + x_pad_0, x_size)
        _pad(state, memory_type, sram + x_pad_0 + x_size, x_pad_1, least)
        sram += width
    _pad(state, memory_type, sram, insn[Y_PAD_1] * width, least)
    return 0


# ---- STORE -------------------------------------------------------------------------------------
@jit
def _store_lanes(data, at, acc, start, count, bits):
    """Write the low `bits` of `count` lanes of flat acc to byte `at`."""
    if bits == 8:
        for k in range(count):
            data[at + k] = np.uint8(acc[start + k])
    elif bits == 4:
        for k in range(0, count, 2):
            low, high = acc[start + k] & 15, acc[start + k + 1] & 15
            data[at + (k >> 1)] = low | (high << 4)
    else:
        for k in range(count):
            data[at + 2 * k] = acc[start + k] & 255
            data[at + 2 * k + 1] = (acc[start + k] >> 8) & 255


@jit
def exec_store(state, dram, insn):
    """Write the low out_bits of acc to DRAM."""
    if moved_elems(insn) == 0:
        return 0
    cause = check_dram(state, dram, insn)
    if cause != 0:
        return cause
    size = insn[X_SIZE] * state.elem_bytes[OUT]
    acc, lanes = state.acc.ravel(), state.acc.shape[1]
    for y in range(insn[Y_SIZE]):
        at = _locate(dram, _row_addr(state, dram, insn, y), size)
        start = (insn[SRAM_BASE] + y * insn[X_SIZE]) * lanes
        _store_lanes(dram.data, at, acc, start, insn[X_SIZE] * lanes, state.out_bits)
    return 0


@jit
def stage_store(state, insn, stage, at):
    """Write what a STORE moves to byte `at` of a buffer, instead of DRAM."""
    acc, lanes = state.acc.ravel(), state.acc.shape[1]
    count = insn[X_SIZE] * insn[Y_SIZE] * lanes
    _store_lanes(stage, at, acc, insn[SRAM_BASE] * lanes, count, state.out_bits)


@jit
def write_staged(dram, addr, stage, at, size):
    """Copy bytes from a buffer to DRAM, where there is any."""
    to = _locate(dram, addr, size)
    if to >= 0:
        dram.data[to : to + size] = stage[at : at + size]


# ---- GEMM --------------------------------------------------------------------------------------
# Inner functions take flat arrays or addresses and numbers: a tuple of arrays costs a reference
# count for each of them at every call.
@jit
def _wrap(acc, start, count, bits):
    """Sign-extend what acc_bits hold."""
    for k in range(start, start + count):
        acc[k] = (np.int64(acc[k]) << (64 - bits)) >> (64 - bits)


@jit
def _gemm_reset(acc, lanes, uop, insn):
    for y in range(insn[ITER_OUT]):
        for x in range(insn[ITER_IN]):
            offset = y * insn[DST_OUT] + x * insn[DST_IN]
            for u in range(insn[UOP_BGN], insn[UOP_END]):
                start = (uop[u, 0] + offset) * lanes
                for k in range(start, start + lanes):
                    acc[k] = 0


@jit
def _gemm_narrow(acc, lanes, uop, insn, bits):
    """Wrap every accumulator that the loop writes; for acc_bits below 32."""
    for y in range(insn[ITER_OUT]):
        for x in range(insn[ITER_IN]):
            offset = y * insn[DST_OUT] + x * insn[DST_IN]
            for u in range(insn[UOP_BGN], insn[UOP_END]):
                _wrap(acc, (uop[u, 0] + offset) * lanes, lanes, bits)


@jit
def _vector_rows(acc, acc_step, inp, inp_step, wgt, count, batch, block_in, block_out):
    """`count` micro-ops that share a weight element, by `gemm_rows`; addresses and bytes."""
    for o in range(0, block_out, LANES):
        for i in range(0, block_in, ROW_PAIRS):
            block = wgt + 2 * (o * block_in + i * LANES)
            if count == 1:
                gemm_rows(  # pyright: ignore[reportCallIssue]
                    acc + 4 * o, 4 * block_out, inp + 2 * i, 2 * block_in, block, batch
                )
            else:
                for b in range(batch):
                    to, source = 4 * (b * block_out + o), 2 * (b * block_in + i)
                    gemm_rows(  # pyright: ignore[reportCallIssue]
                        acc + to, acc_step, inp + source, inp_step, block, count
                    )


@jit
def _plain_rows(
    acc, dst, dst_step, inp, src, src_step, wgt, first_wgt, count, batch, block_in, block_out
):
    """`count` micro-ops that share a weight element, for any block; flat arrays, lanes."""
    for k in range(count):
        for b in range(batch):
            to, source = dst + k * dst_step + b * block_out, src + k * src_step + b * block_in
            for p in range(block_in >> 1):
                first = np.int32(inp[source + 2 * p])
                second = np.int32(inp[source + 2 * p + 1])
                pairs = first_wgt + 2 * p * block_out
                for o in range(block_out):
                    products = first * wgt[pairs + 2 * o] + second * wgt[pairs + 2 * o + 1]
                    acc[to + o] += products


@jit
def exec_gemm(state, insn):
    """Reset or accumulate. Loops are interchanged: the innermost shares a weight where one does."""
    if loop_count(insn) == 0:
        return
    uop, acc, lanes = state.uop, state.acc.ravel(), state.acc.shape[1]
    if insn[RESET] != 0:
        _gemm_reset(acc, lanes, uop, insn)
        return
    n_out, dst_out, src_out, wgt_out = insn[ITER_OUT], insn[DST_OUT], insn[SRC_OUT], insn[WGT_OUT]
    n_in, dst_in, src_in, wgt_in = insn[ITER_IN], insn[DST_IN], insn[SRC_IN], insn[WGT_IN]
    shared_out = n_out if wgt_out == 0 else 1
    shared_in = n_in if wgt_in == 0 else 1
    if shared_out > shared_in:
        n_out, n_in, shared_in = n_in, n_out, shared_out
        dst_out, dst_in = dst_in, dst_out
        src_out, src_in = src_in, src_out
        wgt_out, wgt_in = wgt_in, wgt_out
    inp, inp_lanes = state.inp.ravel(), state.inp.shape[1]
    weights, wgt_lanes = state.wgt.ravel(), state.wgt.shape[1]
    acc_at, inp_at, wgt_at = acc.ctypes.data, inp.ctypes.data, weights.ctypes.data
    vector, batch = state.vector, state.batch
    block_in, block_out = state.block_in, state.block_out
    for y in range(n_out):
        for u in range(insn[UOP_BGN], insn[UOP_END]):
            for x in range(0, n_in, shared_in):
                dst = (uop[u, 0] + y * dst_out + x * dst_in) * lanes
                src = (uop[u, 1] + y * src_out + x * src_in) * inp_lanes
                wgt = (uop[u, 2] + y * wgt_out + x * wgt_in) * wgt_lanes
                if vector:
                    _vector_rows(
                        acc_at + 4 * dst,
                        4 * dst_in * lanes,
                        inp_at + 2 * src,
                        2 * src_in * inp_lanes,
                        wgt_at + 2 * wgt,
                        shared_in,
                        batch,
                        block_in,
                        block_out,
                    )
                else:
                    _plain_rows(
                        acc,
                        dst,
                        dst_in * lanes,
                        inp,
                        src,
                        src_in * inp_lanes,
                        weights,
                        wgt,
                        shared_in,
                        batch,
                        block_in,
                        block_out,
                    )
    if state.acc_bits < 32:
        _gemm_narrow(acc, lanes, uop, insn, state.acc_bits)


# ---- ALU ---------------------------------------------------------------------------------------
@jit
def shift_right(a, b, acc_bits):
    """Arithmetic; left by -b where b is negative; any magnitude."""
    if b >= 0:
        return a >> min(b, 63)
    if -b >= acc_bits:
        return np.int64(0)
    return a << -b


@jit
def requantize(a, b, out_bits):
    """Shift right by b[4:0], rounding if b[5], clip to out_bits, from zero if b[6]."""
    shift = b & 31
    if (b >> 5) & 1 and shift > 0:
        a += np.int64(1) << (shift - 1)
    low = np.int64(0) if (b >> 6) & 1 else -(np.int64(1) << (out_bits - 1))
    return min(max(a >> shift, low), (np.int64(1) << (out_bits - 1)) - 1)


@jit
def _alu_imm(acc, start, count, op, imm, acc_bits, out_bits):
    """One operation with an immediate on `count` lanes of flat acc."""
    end = start + count
    if op == MIN:
        for k in range(start, end):
            acc[k] = min(acc[k], np.int32(imm))
    elif op == MAX:
        for k in range(start, end):
            acc[k] = max(acc[k], np.int32(imm))
    elif op == ADD:
        for k in range(start, end):
            acc[k] = acc[k] + np.int32(imm)
    elif op == SHR and imm >= 0:
        shift = min(imm, 31)
        for k in range(start, end):
            acc[k] = acc[k] >> shift
    elif op == SHR:
        for k in range(start, end):
            acc[k] = shift_right(np.int64(acc[k]), imm, acc_bits)
    elif op == MUL:
        for k in range(start, end):
            acc[k] = acc[k] * np.int32(imm)
    else:
        for k in range(start, end):
            acc[k] = requantize(np.int64(acc[k]), imm, out_bits)


@jit
def _alu_pair(acc, dst, src, count, op, acc_bits, out_bits):
    """One operation on `count` lanes of flat acc, lowest first; operands may overlap."""
    if op == MIN:
        for k in range(count):
            acc[dst + k] = min(acc[dst + k], acc[src + k])
    elif op == MAX:
        for k in range(count):
            acc[dst + k] = max(acc[dst + k], acc[src + k])
    elif op == ADD:
        for k in range(count):
            acc[dst + k] = acc[dst + k] + acc[src + k]
    elif op == SHR:
        for k in range(count):
            a, b = np.int64(acc[dst + k]), np.int64(acc[src + k])
            acc[dst + k] = shift_right(a, b, acc_bits)
    elif op == MUL:
        for k in range(count):
            acc[dst + k] = np.int64(acc[dst + k]) * np.int64(acc[src + k])
    else:
        for k in range(count):
            a, b = np.int64(acc[dst + k]), np.int64(acc[src + k])
            acc[dst + k] = requantize(a, b, out_bits)


@jit
def _exec_alu_imm(state, insn):
    """An immediate: no operation reads another's element, so their order is free.

    Neighbouring elements along one of the loops become one run of lanes.
    """
    uop, acc, lanes = state.uop, state.acc.ravel(), state.acc.shape[1]
    acc_bits, out_bits = state.acc_bits, state.out_bits
    n_out, dst_out, n_in, dst_in = insn[ITER_OUT], insn[DST_OUT], insn[ITER_IN], insn[DST_IN]
    if dst_out == 1 and (dst_in != 1 or n_out > n_in):
        n_out, n_in, dst_out, dst_in = n_in, n_out, dst_in, dst_out
    run = n_in if dst_in == 1 else 1
    for y in range(n_out):
        for u in range(insn[UOP_BGN], insn[UOP_END]):
            for x in range(0, n_in, run):
                start = (uop[u, 0] + y * dst_out + x * dst_in) * lanes
                _alu_imm(acc, start, run * lanes, insn[ALU_OPCODE], insn[IMM], acc_bits, out_bits)
                if acc_bits < 32:
                    _wrap(acc, start, run * lanes, acc_bits)


@jit
def _exec_alu_pair(state, insn):
    """Two operands, in program order: each operation sees the writes of those before it.

    With one micro-op and neighbouring elements a row of operations is one run of lanes; lanes go
    from the lowest up, so an overlap of the operands reads what the order says.
    """
    uop, acc, lanes = state.uop, state.acc.ravel(), state.acc.shape[1]
    acc_bits, out_bits = state.acc_bits, state.out_bits
    dst_in, src_in = insn[DST_IN], insn[SRC_IN]
    single = insn[UOP_END] - insn[UOP_BGN] == 1 and dst_in == 1 and src_in == 1
    run = insn[ITER_IN] if single and acc_bits == 32 else 1
    for y in range(insn[ITER_OUT]):
        for x in range(0, insn[ITER_IN], run):
            for u in range(insn[UOP_BGN], insn[UOP_END]):
                dst = (uop[u, 0] + y * insn[DST_OUT] + x * dst_in) * lanes
                src = (uop[u, 1] + y * insn[SRC_OUT] + x * src_in) * lanes
                _alu_pair(acc, dst, src, run * lanes, insn[ALU_OPCODE], acc_bits, out_bits)
                if acc_bits < 32:
                    _wrap(acc, dst, lanes, acc_bits)


@jit
def exec_alu(state, insn):
    """The whole loop nest of an ALU instruction."""
    if loop_count(insn) == 0:
        return
    if insn[USE_IMM] != 0:
        _exec_alu_imm(state, insn)
    else:
        _exec_alu_pair(state, insn)
