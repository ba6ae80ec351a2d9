"""The interval analysis of `covta.compiler.verify.ranges`, compiled.

All bounds are int64. Additions to a lane are cut at `FAR`, beyond anything that acc_bits hold, so
that nothing overflows on the way.
"""

from __future__ import annotations

import numpy as np

from covta.compiler.verify.addresses import WRITE as WRITE_FLAG
from covta.hw.isa import AluOp, MemoryType, Opcode
from covta.sim.decode import column
from covta.sim.jit import jit
from covta.sim.kernels import requantize, shift_right

__all__ = ["analyse"]

WRITE = int(WRITE_FLAG)
OP_LOAD, OP_STORE, OP_GEMM, OP_FINISH, OP_ALU = (int(op) for op in Opcode)
UOP, WGT, INP, ACC, OUT, ACC_8BIT = (int(m) for m in MemoryType)
MIN, MAX, ADD, SHR, MUL, RQT = (int(op) for op in AluOp)
OPCODE, MEMORY_TYPE, SRAM_BASE = column("opcode"), column("memory_type"), column("sram_base")
Y_SIZE, X_SIZE = column("y_size"), column("x_size")
Y_PAD_0, Y_PAD_1 = column("y_pad_0"), column("y_pad_1")
X_PAD_0, X_PAD_1 = column("x_pad_0"), column("x_pad_1")
PAD_MIN, RESET = column("pad_min"), column("reset")
ITER_OUT, ITER_IN = column("iter_out"), column("iter_in")
DST_OUT, DST_IN = column("dst_factor_out"), column("dst_factor_in")
SRC_OUT, SRC_IN = column("src_factor_out"), column("src_factor_in")
WGT_OUT, WGT_IN = column("wgt_factor_out"), column("wgt_factor_in")
ALU_OPCODE, USE_IMM, IMM = column("alu_opcode"), column("use_imm"), column("imm")

FAR = 1 << 35


# ---- bytes -------------------------------------------------------------------------------------
@jit
def _lane(data, at, lane, bits):
    """Signed lane of a packed element at byte `at`."""
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
def _varies(begin, end, low, high):
    """Whether a range of addresses meets one of the ranges."""
    k = np.searchsorted(end, low, side="right")
    return k < len(begin) and begin[k] < high


# ---- LOAD --------------------------------------------------------------------------------------
@jit
def _load_inp(lo, hi, e, data, at, lanes, bits):
    low = high = _lane(data, at, 0, bits)
    for k in range(1, lanes):
        value = _lane(data, at, k, bits)
        low, high = min(low, value), max(high, value)
    lo[e], hi[e] = low, high


@jit
def _load_wgt(pos, neg, e, data, at, block_in, block_out, bits):
    for o in range(block_out):
        plus = minus = np.int64(0)
        first = o * block_in
        if bits == 8:
            for k in range(at + first, at + first + block_in):
                byte = np.int32(data[k])
                value = byte - ((byte & 128) << 1)
                plus += max(value, 0)
                minus += max(-value, 0)
        else:
            for i in range(block_in):
                value = _lane(data, at, first + i, bits)
                plus += max(value, 0)
                minus += max(-value, 0)
        pos[e, o], neg[e, o] = plus, minus


@jit
def _load_acc(lo, hi, e, data, at, batch, block_out, bits):
    for o in range(block_out):
        low = high = _lane(data, at, o, bits)
        for b in range(1, batch):
            value = _lane(data, at, b * block_out + o, bits)
            low, high = min(low, value), max(high, value)
        lo[e, o], hi[e, o] = low, high


@jit
def _fill(kind, e, state, low, high, shape):
    """Give every lane of an element the same interval; weights: any value between."""
    inp_lo, inp_hi, pos, neg, known, acc_lo, acc_hi, wrapped = state
    if kind == INP:
        inp_lo[e], inp_hi[e] = low, high
    elif kind == WGT:
        known[e] = low == high
        pos[e, :], neg[e, :] = max(high, 0) * shape[1], max(-low, 0) * shape[1]
    elif kind == ACC or kind == ACC_8BIT:
        acc_lo[e, :], acc_hi[e, :] = low, high
        wrapped[e] = 0


@jit
def _load(insn, addr, stride, size, memory, varying, state, shape, bits):
    """Bounds of what a LOAD of inp, wgt or acc brings."""
    data, range_begin, range_offset = memory
    kind = insn[MEMORY_TYPE]
    width = insn[X_PAD_0] + insn[X_SIZE] + insn[X_PAD_1]
    height = insn[Y_PAD_0] + insn[Y_SIZE] + insn[Y_PAD_1]
    pad = np.int64(0)
    if insn[PAD_MIN] != 0:
        pad = -(np.int64(1) << (bits - 1))
    low, high = -(np.int64(1) << (bits - 1)), (np.int64(1) << (bits - 1)) - 1
    for row in range(height):
        y = row - insn[Y_PAD_0]
        inside = 0 <= y < insn[Y_SIZE]
        first = addr + y * stride
        varies, at = True, np.int64(0)
        if inside:
            end = first + insn[X_SIZE] * size
            varies = (kind == INP and varying[2]) or _varies(varying[0], varying[1], first, end)
            k = np.searchsorted(range_begin, first, side="right") - 1
            at = range_offset[k] + first - range_begin[k]
        for place in range(width):
            e = insn[SRAM_BASE] + row * width + place
            x = place - insn[X_PAD_0]
            if not (inside and 0 <= x < insn[X_SIZE]):
                _fill(kind, e, state, pad, pad, shape)
            elif varies:
                _fill(kind, e, state, low, high, shape)
            elif kind == INP:
                _load_inp(state[0], state[1], e, data, at + x * size, shape[0] * shape[1], bits)
            elif kind == WGT:
                _load_wgt(state[2], state[3], e, data, at + x * size, shape[1], shape[2], bits)
                state[4][e] = 1
            else:
                _load_acc(state[5], state[6], e, data, at + x * size, shape[0], shape[2], bits)
                state[7][e] = 0


# ---- GEMM --------------------------------------------------------------------------------------
@jit
def _delta(state, src, wgt, times, up, down):
    """What a micro-op adds at most and at least, lane by lane."""
    inp_lo, inp_hi, pos, neg, known, _, _, _ = state
    low, high = inp_lo[src], inp_hi[src]
    for o in range(len(up)):
        p, n = pos[wgt, o], neg[wgt, o]
        if known[wgt] != 0:
            most, least = p * high - n * low, p * low - n * high
        else:  # every weight from -n to p on its own
            most = max(p * max(high, 0), n * max(-low, 0))
            least = -max(p * max(-low, 0), n * max(high, 0))
        up[o] = min(max(most * times, -FAR), FAR)
        down[o] = min(max(least * times, -FAR), FAR)


@jit
def _gemm(insn, uops, state, up, down):
    inp_lo, inp_hi, acc_lo, acc_hi = state[0], state[1], state[5], state[6]
    n_out, n_in, times = insn[ITER_OUT], insn[ITER_IN], np.int64(1)
    if insn[DST_OUT] == 0 and insn[SRC_OUT] == 0 and insn[WGT_OUT] == 0:
        n_out, times = 1, times * n_out
    if insn[DST_IN] == 0 and insn[SRC_IN] == 0 and insn[WGT_IN] == 0:
        n_in, times = 1, times * n_in
    last_wgt, last_low, last_high = np.int64(-1), np.int64(0), np.int64(0)
    for u in range(len(uops)):  # sums commute; this order keeps the weights longest
        for y in range(n_out):
            for x in range(n_in):
                dst = uops[u, 0] + y * insn[DST_OUT] + x * insn[DST_IN]
                src = uops[u, 1] + y * insn[SRC_OUT] + x * insn[SRC_IN]
                wgt = uops[u, 2] + y * insn[WGT_OUT] + x * insn[WGT_IN]
                low, high = inp_lo[src], inp_hi[src]
                if wgt != last_wgt or low != last_low or high != last_high:
                    _delta(state, src, wgt, times, up, down)
                    last_wgt, last_low, last_high = wgt, low, high
                for o in range(len(up)):
                    acc_lo[dst, o] += down[o]
                for o in range(len(up)):
                    acc_hi[dst, o] += up[o]


@jit
def _settle(runs, acc_base, state, acc_bits, found):
    """Report what a GEMM took beyond acc_bits, and let it be anything from now on."""
    acc_lo, acc_hi, wrapped = state[5], state[6], state[7]
    low, high = -(np.int64(1) << (acc_bits - 1)), (np.int64(1) << (acc_bits - 1)) - 1
    for r in range(len(runs)):
        if runs[r, 2] & WRITE == 0:
            continue
        for e in range(runs[r, 0] - acc_base, runs[r, 1] - acc_base):
            least, most = acc_lo[e, 0], acc_hi[e, 0]
            for o in range(acc_lo.shape[1]):
                least, most = min(least, acc_lo[e, o]), max(most, acc_hi[e, o])
            if least < low or most > high:
                _beyond(e, least, most, wrapped, found)
                for o in range(acc_lo.shape[1]):
                    if acc_lo[e, o] < low or acc_hi[e, o] > high:
                        acc_lo[e, o], acc_hi[e, o] = low, high


@jit
def _beyond(e, least, most, wrapped, found):
    """Count a wrap, unless the element has wrapped before."""
    if wrapped[e] == 0:
        found[0], found[1] = min(found[0], least), max(found[1], most)
        found[2] += 1
        wrapped[e] = 1


@jit
def _reset(runs, acc_base, state):
    acc_lo, acc_hi, wrapped = state[5], state[6], state[7]
    for r in range(len(runs)):
        for e in range(runs[r, 0] - acc_base, runs[r, 1] - acc_base):
            acc_lo[e, :] = 0
            acc_hi[e, :] = 0
            wrapped[e] = 0


# ---- ALU ---------------------------------------------------------------------------------------
@jit
def _operate(op, a0, a1, b0, b1, acc_bits, out_bits):
    """Bounds of one operation on ``a0 <= a <= a1`` and ``b0 <= b <= b1``, unwrapped."""
    if op == MIN:
        return min(a0, b0), min(a1, b1)
    if op == MAX:
        return max(a0, b0), max(a1, b1)
    if op == ADD:
        return a0 + b0, a1 + b1
    if op == MUL:
        p, q, r, s = a0 * b0, a0 * b1, a1 * b0, a1 * b1
        return min(min(p, q), min(r, s)), max(max(p, q), max(r, s))
    if op == RQT:
        if b0 == b1:
            return requantize(a0, b0, out_bits), requantize(a1, b0, out_bits)
        return -(np.int64(1) << (out_bits - 1)), (np.int64(1) << (out_bits - 1)) - 1
    if b0 == b1:
        return shift_right(a0, b0, acc_bits), shift_right(a1, b0, acc_bits)
    p, q = shift_right(a0, b1, acc_bits), shift_right(a1, b1, acc_bits)
    if b0 <= -acc_bits:  # zero at a shift too far; the farthest that is not counts beside it
        if b1 <= -acc_bits:
            return np.int64(0), np.int64(0)
        p, q, b0 = min(p, np.int64(0)), max(q, np.int64(0)), 1 - acc_bits
    r, s = shift_right(a0, b0, acc_bits), shift_right(a1, b0, acc_bits)
    return min(p, r), max(q, s)


@jit
def _alu(insn, uops, state, acc_bits, out_bits, found):
    acc_lo, acc_hi, wrapped = state[5], state[6], state[7]
    low, high = -(np.int64(1) << (acc_bits - 1)), (np.int64(1) << (acc_bits - 1)) - 1
    op, imm = insn[ALU_OPCODE], insn[IMM]
    for y in range(insn[ITER_OUT]):
        for x in range(insn[ITER_IN]):
            for u in range(len(uops)):
                dst = uops[u, 0] + y * insn[DST_OUT] + x * insn[DST_IN]
                src = dst
                if insn[USE_IMM] == 0:
                    src = uops[u, 1] + y * insn[SRC_OUT] + x * insn[SRC_IN]
                    if wrapped[src] != 0:
                        wrapped[dst] = 1
                for o in range(acc_lo.shape[1]):
                    b0, b1 = imm, imm
                    if insn[USE_IMM] == 0:
                        b0, b1 = acc_lo[src, o], acc_hi[src, o]
                    least, most = _operate(
                        op, acc_lo[dst, o], acc_hi[dst, o], b0, b1, acc_bits, out_bits
                    )
                    if least < low or most > high:
                        if wrapped[dst] != 1:
                            found[2] += 1
                            found[0], found[1] = min(found[0], least), max(found[1], most)
                            wrapped[dst] = 2
                        least, most = low, high
                    acc_lo[dst, o], acc_hi[dst, o] = least, most
                if wrapped[dst] == 2:
                    wrapped[dst] = 1


# ---- STORE and the walk ------------------------------------------------------------------------
@jit
def _store(runs, acc_base, state, out_bits, found):
    acc_lo, acc_hi = state[5], state[6]
    low, high = -(np.int64(1) << (out_bits - 1)), (np.int64(1) << (out_bits - 1)) - 1
    for r in range(len(runs)):
        for e in range(runs[r, 0] - acc_base, runs[r, 1] - acc_base):
            least, most = acc_lo[e, 0], acc_hi[e, 0]
            for o in range(acc_lo.shape[1]):
                least, most = min(least, acc_lo[e, o]), max(most, acc_hi[e, o])
            if least < low or most > high:
                found[0], found[1] = min(found[0], least), max(found[1], most)
                found[2] += 1


@jit
def analyse(
    table, order, valid, addr, stride, memory, varying, first, runs, acc_base, uop_first, uops,
    elem_bytes, depth, shape, widths, found,
):  # fmt: skip
    """Walk the stream; fills `found`, (n, 3): least and greatest value, elements concerned."""
    inp_bits, wgt_bits, acc_bits, out_bits = widths
    state = (
        np.full(depth[0], -(1 << (inp_bits - 1)), np.int64),
        np.full(depth[0], (1 << (inp_bits - 1)) - 1, np.int64),
        np.full((depth[1], shape[2]), shape[1] * ((1 << (wgt_bits - 1)) - 1), np.int64),
        np.full((depth[1], shape[2]), shape[1] * (1 << (wgt_bits - 1)), np.int64),
        np.zeros(depth[1], np.uint8),
        np.full((depth[2], shape[2]), -(1 << (acc_bits - 1)), np.int64),
        np.full((depth[2], shape[2]), (1 << (acc_bits - 1)) - 1, np.int64),
        np.zeros(depth[2], np.uint8),
    )
    up, down = np.zeros(shape[2], np.int64), np.zeros(shape[2], np.int64)
    for i in order:
        insn = table[i]
        mine = runs[first[i] : first[i + 1]]
        mops = uops[uop_first[i] : uop_first[i + 1]]
        if insn[OPCODE] == OP_LOAD and valid[i] and insn[MEMORY_TYPE] != UOP:
            kind = insn[MEMORY_TYPE]
            bits = inp_bits
            if kind == WGT:
                bits = wgt_bits
            elif kind == ACC:
                bits = acc_bits
            elif kind == ACC_8BIT:
                bits = np.int64(8)
            size = elem_bytes[kind]
            _load(insn, addr[i], stride[i], size, memory, varying, state, shape, bits)
        elif insn[OPCODE] == OP_GEMM and len(mops) > 0:
            if insn[RESET] != 0:
                _reset(mine, acc_base, state)
            else:
                _gemm(insn, mops, state, up, down)
                _settle(mine, acc_base, state, acc_bits, found[i])
        elif insn[OPCODE] == OP_ALU and len(mops) > 0:
            _alu(insn, mops, state, acc_bits, out_bits, found[i])
        elif insn[OPCODE] == OP_STORE and valid[i]:
            _store(mine, acc_base, state, out_bits, found[i])
