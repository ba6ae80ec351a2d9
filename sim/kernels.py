"""What every instruction does to scratchpads and DRAM, compiled; shared by both simulators.

All take a `State`, a `Dram` where they touch memory, and `insn`: a row of `covta.sim.decode.decode`'s
table. ``check_*`` and ``exec_load`` / ``exec_store`` return a fault cause (0: none) and change nothing
if it is not 0. ``exec_*`` rely on the ``check_*`` that guards them.

===============  =============================================================================
`check_transfer` LOAD, STORE: scratchpad indices
`check_dram`     LOAD, STORE: window and regions
`check_loop`     GEMM, ALU: scratchpad indices, by the bounding box of the micro-ops
`uop_extent`     least and greatest fields of the micro-ops that a GEMM or ALU reads
`exec_load`      `check_dram`, then the whole transfer
`exec_store`     `check_dram`, then the whole transfer
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
    "uop_extent",
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
def _load_inp(state, data, at, sram, count):
    lanes = state.batch * state.block_in
    if state.inp_bits == 8:
        for k in range(count):
            row = state.inp[sram + k]
            for lane in range(lanes):
                row[lane] = np.int8(data[at + k * lanes + lane])
    else:
        for k in range(count):
            row = state.inp[sram + k]
            for lane in range(lanes):
                row[lane] = _signed_lane(data, at, k * lanes + lane, state.inp_bits)


@jit
def _load_wgt(state, data, at, sram, count):
    """Widen and reorder from [o][i] to [o / chunk][i / 2][o % chunk][i % 2]."""
    block_in, chunk = state.block_in, state.chunk
    for k in range(count):
        row = state.wgt[sram + k]
        for o in range(state.block_out):
            to = (o // chunk) * chunk * block_in + 2 * (o % chunk)
            source = (k * state.block_out + o) * block_in
            if state.wgt_bits == 8:
                for i in range(block_in):
                    row[to + (i >> 1) * 2 * chunk + (i & 1)] = np.int8(data[at + source + i])
            else:
                for i in range(block_in):
                    value = _signed_lane(data, at, source + i, state.wgt_bits)
                    row[to + (i >> 1) * 2 * chunk + (i & 1)] = value


@jit
def _load_acc(state, data, at, sram, count, bits):
    lanes = state.acc.shape[1]
    for k in range(count):
        row = state.acc[sram + k]
        if bits == 8:
            for lane in range(lanes):
                row[lane] = np.int8(data[at + k * lanes + lane])
        else:
            for lane in range(lanes):
                row[lane] = _signed_lane(data, at, k * lanes + lane, bits)


@jit
def _load_row(state, data, memory_type, at, sram, count):
    if memory_type == UOP:
        _load_uops(state, data, at, sram, count)
    elif memory_type == INP:
        _load_inp(state, data, at, sram, count)
    elif memory_type == WGT:
        _load_wgt(state, data, at, sram, count)
    elif memory_type == ACC:
        _load_acc(state, data, at, sram, count, state.acc_bits)
    else:
        _load_acc(state, data, at, sram, count, 8)


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
def _store_row(state, data, at, sram, count):
    lanes, bits = state.acc.shape[1], state.out_bits
    for k in range(count):
        row = state.acc[sram + k]
        if bits == 8:
            for lane in range(lanes):
                data[at + k * lanes + lane] = np.uint8(row[lane])
        elif bits == 4:
            for lane in range(0, lanes, 2):
                low, high = row[lane] & 15, row[lane + 1] & 15
                data[at + ((k * lanes + lane) >> 1)] = low | (high << 4)
        else:
            for lane in range(lanes):
                byte = at + 2 * (k * lanes + lane)
                data[byte] = row[lane] & 255
                data[byte + 1] = (row[lane] >> 8) & 255


@jit
def exec_store(state, dram, insn):
    """Write the low out_bits of acc to DRAM."""
    if moved_elems(insn) == 0:
        return 0
    cause = check_dram(state, dram, insn)
    if cause != 0:
        return cause
    size = insn[X_SIZE] * state.elem_bytes[OUT]
    for y in range(insn[Y_SIZE]):
        at = _locate(dram, _row_addr(state, dram, insn, y), size)
        sram = insn[SRAM_BASE] + y * insn[X_SIZE]
        _store_row(state, dram.data, at, sram, insn[X_SIZE])
    return 0


# ---- GEMM --------------------------------------------------------------------------------------
@jit
def _wrap_row(row, bits):
    """Sign-extend what acc_bits hold."""
    for lane in range(len(row)):
        row[lane] = (np.int64(row[lane]) << (64 - bits)) >> (64 - bits)


@jit
def _gemm_reset(state, insn):
    for y in range(insn[ITER_OUT]):
        for x in range(insn[ITER_IN]):
            offset = y * insn[DST_OUT] + x * insn[DST_IN]
            for u in range(insn[UOP_BGN], insn[UOP_END]):
                row = state.acc[state.uop[u, 0] + offset]
                for lane in range(len(row)):
                    row[lane] = 0


@jit
def _gemm_narrow(state, insn):
    """Wrap every accumulator that the loop writes; for acc_bits below 32."""
    for y in range(insn[ITER_OUT]):
        for x in range(insn[ITER_IN]):
            offset = y * insn[DST_OUT] + x * insn[DST_IN]
            for u in range(insn[UOP_BGN], insn[UOP_END]):
                _wrap_row(state.acc[state.uop[u, 0] + offset], state.acc_bits)


@jit
def _vector_rows(state, dst, dst_step, src, src_step, wgt, count):
    """`count` micro-ops that share a weight element, by `gemm_rows`."""
    acc_bytes = 4 * state.acc.shape[1]
    inp_bytes = 2 * state.inp.shape[1]
    acc = state.acc.ctypes.data + dst * acc_bytes
    inp = state.inp.ctypes.data + src * inp_bytes
    weights = state.wgt.ctypes.data + 2 * wgt * state.wgt.shape[1]
    for o in range(0, state.block_out, LANES):
        for i in range(0, state.block_in, ROW_PAIRS):
            block = weights + 2 * (o * state.block_in + i * LANES)
            if count == 1:
                gemm_rows(
                    acc + 4 * o,
                    4 * state.block_out,
                    inp + 2 * i,
                    2 * state.block_in,
                    block,
                    state.batch,
                )
            else:
                for b in range(state.batch):
                    gemm_rows(
                        acc + 4 * (b * state.block_out + o),
                        dst_step * acc_bytes,
                        inp + 2 * (b * state.block_in + i),
                        src_step * inp_bytes,
                        block,
                        count,
                    )


@jit
def _plain_rows(state, dst, dst_step, src, src_step, wgt, count):
    """`count` micro-ops that share a weight element, for any block."""
    block_in, block_out = state.block_in, state.block_out
    weights = state.wgt[wgt]
    for k in range(count):
        acc, inp = state.acc[dst + k * dst_step], state.inp[src + k * src_step]
        for b in range(state.batch):
            for p in range(block_in >> 1):
                first = np.int32(inp[b * block_in + 2 * p])
                second = np.int32(inp[b * block_in + 2 * p + 1])
                pairs = weights[2 * p * block_out : 2 * (p + 1) * block_out]
                for o in range(block_out):
                    acc[b * block_out + o] += first * pairs[2 * o] + second * pairs[2 * o + 1]


@jit
def exec_gemm(state, insn):
    """Reset or accumulate. Loops are interchanged: the innermost shares a weight where one does."""
    if loop_count(insn) == 0:
        return
    if insn[RESET] != 0:
        _gemm_reset(state, insn)
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
    for y in range(n_out):
        for u in range(insn[UOP_BGN], insn[UOP_END]):
            dst = state.uop[u, 0] + y * dst_out
            src = state.uop[u, 1] + y * src_out
            wgt = state.uop[u, 2] + y * wgt_out
            for x in range(0, n_in, shared_in):
                d, s, w = dst + x * dst_in, src + x * src_in, wgt + x * wgt_in
                if state.vector:
                    _vector_rows(state, d, dst_in, s, src_in, w, shared_in)
                else:
                    _plain_rows(state, d, dst_in, s, src_in, w, shared_in)
    if state.acc_bits < 32:
        _gemm_narrow(state, insn)


# ---- ALU ---------------------------------------------------------------------------------------
@jit
def _shift_right(a, b, acc_bits):
    """Arithmetic; left by -b where b is negative; any magnitude."""
    if b >= 0:
        return a >> min(b, 63)
    if -b >= acc_bits:
        return np.int64(0)
    return a << -b


@jit
def _requantize(a, b, out_bits):
    """Shift right by b[4:0], rounding if b[5], clip to out_bits, from zero if b[6]."""
    shift = b & 31
    if (b >> 5) & 1 and shift > 0:
        a += np.int64(1) << (shift - 1)
    low = np.int64(0) if (b >> 6) & 1 else -(np.int64(1) << (out_bits - 1))
    return min(max(a >> shift, low), (np.int64(1) << (out_bits - 1)) - 1)


@jit
def _alu_imm(state, op, row, imm):
    """One operation on every lane with an immediate."""
    lanes = len(row)
    if op == MIN:
        for k in range(lanes):
            row[k] = min(row[k], np.int32(imm))
    elif op == MAX:
        for k in range(lanes):
            row[k] = max(row[k], np.int32(imm))
    elif op == ADD:
        for k in range(lanes):
            row[k] = row[k] + imm
    elif op == SHR:
        for k in range(lanes):
            row[k] = _shift_right(np.int64(row[k]), imm, state.acc_bits)
    elif op == MUL:
        for k in range(lanes):
            row[k] = row[k] * imm
    else:
        for k in range(lanes):
            row[k] = _requantize(np.int64(row[k]), imm, state.out_bits)


@jit
def _alu_pair(state, op, row, other):
    """One operation lane by lane; both rows may be the same element."""
    lanes = len(row)
    if op == MIN:
        for k in range(lanes):
            row[k] = min(row[k], other[k])
    elif op == MAX:
        for k in range(lanes):
            row[k] = max(row[k], other[k])
    elif op == ADD:
        for k in range(lanes):
            row[k] = row[k] + other[k]
    elif op == SHR:
        for k in range(lanes):
            row[k] = _shift_right(np.int64(row[k]), np.int64(other[k]), state.acc_bits)
    elif op == MUL:
        for k in range(lanes):
            row[k] = np.int64(row[k]) * np.int64(other[k])
    else:
        for k in range(lanes):
            row[k] = _requantize(np.int64(row[k]), np.int64(other[k]), state.out_bits)


@jit
def exec_alu(state, insn):
    """Every operation in program order, so that each sees the writes of those before it."""
    op, use_imm, imm = insn[ALU_OPCODE], insn[USE_IMM] != 0, insn[IMM]
    narrow = state.acc_bits < 32
    for y in range(insn[ITER_OUT]):
        for x in range(insn[ITER_IN]):
            dst = y * insn[DST_OUT] + x * insn[DST_IN]
            src = y * insn[SRC_OUT] + x * insn[SRC_IN]
            for u in range(insn[UOP_BGN], insn[UOP_END]):
                row = state.acc[state.uop[u, 0] + dst]
                if use_imm:
                    _alu_imm(state, op, row, imm)
                else:
                    _alu_pair(state, op, row, state.acc[state.uop[u, 1] + src])
                if narrow:
                    _wrap_row(row, state.acc_bits)
