"""Where instructions reach: scratchpad indices, micro-ops, DRAM rows.

Also expands every instruction to the scratchpad elements it touches, for the rules that follow.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from covta.compiler.verify.memory import Memory, Ranges, merge
from covta.compiler.verify.report import Rule
from covta.compiler.verify.stream import Findings, Stream
from covta.hw.isa import MemoryType, Opcode
from covta.sim.decode import column
from covta.sim.jit import jit

__all__ = ["READ", "WRITE", "Accesses", "Rows", "check_addresses"]

READ, WRITE = 1, 2
"""Flags of a run. They are compiled into kernels of other files, whose caches do not notice."""

OPCODE = column("opcode")
RESET, USE_IMM = column("reset"), column("use_imm")
UOP_BGN, UOP_END = column("uop_bgn"), column("uop_end")
ITER_OUT, ITER_IN = column("iter_out"), column("iter_in")
FACTOR_OUT = np.array([column(f"{n}_factor_out") for n in ("dst", "src", "wgt")])
FACTOR_IN = np.array([column(f"{n}_factor_in") for n in ("dst", "src", "wgt")])
OP_GEMM, OP_ALU, OP_LOAD = int(Opcode.GEMM), int(Opcode.ALU), int(Opcode.LOAD)

NEVER_LOADED, UNKNOWN = -1, -2
OK, BEYOND_UOP, NOT_LOADED, NOT_KNOWN, BEYOND_OPERAND = range(5)
OPERANDS = ("dst", "src", "wgt")


@dataclass(frozen=True, kw_only=True)
class Rows:
    """DRAM rows of transfers that are in place.

    Parameters
    ----------
    valid : ndarray
        ``(n,) bool``: which instructions move data and lie in scratchpad and regions.
    addr, size, stride, count : ndarray
        ``(n,) int64``: of the first row in bytes, of a row, from row to row; rows.
    stored : Ranges
        Every byte that some STORE writes.
    """

    valid: np.ndarray
    addr: np.ndarray
    size: np.ndarray
    stride: np.ndarray
    count: np.ndarray
    stored: Ranges


@dataclass(frozen=True, kw_only=True)
class Accesses:
    """Scratchpad elements of every instruction, as runs.

    Elements of inp, wgt and acc are numbered through: inp from 0, wgt from `wgt_base`, acc from
    `acc_base` to `total`.

    Parameters
    ----------
    first : ndarray
        ``(n + 1,)``: runs of instruction ``i`` are ``runs[first[i]:first[i + 1]]``.
    runs : ndarray
        ``(r, 3) int32``: begin, end, `READ` and `WRITE` flags.
    uop_first, uops : ndarray
        Micro-ops ``(m, 3) int32`` of every sound GEMM and ALU, in the same form.
    """

    wgt_base: int
    acc_base: int
    total: int
    first: np.ndarray
    runs: np.ndarray
    uop_first: np.ndarray
    uops: np.ndarray


def check_addresses(stream: Stream, memory: Memory, findings: Findings) -> tuple[Rows, Accesses]:
    """Report what lies outside a scratchpad or all regions; expand what does not."""
    rows = _check_transfers(stream, memory, findings)
    return rows, _check_loops(stream, memory, rows, findings)


# ---- LOAD, STORE -------------------------------------------------------------------------------
def _check_transfers(stream: Stream, memory: Memory, findings: Findings) -> Rows:
    kinds = np.minimum(stream["memory_type"], len(MemoryType) - 1)
    sizes = np.array([stream.isa.elem_bytes(m) for m in MemoryType], np.int64)[kinds]
    depths = np.array([stream.isa.depth(m) for m in MemoryType], np.int64)[kinds]
    bases = np.array([int(p) for p in stream.program.base_ptrs], np.int64)[kinds]
    addr = bases + stream["dram_base"] * sizes
    size, stride = stream["x_size"] * sizes, stream["x_stride"] * sizes
    count = stream["y_size"].copy()
    valid = stream.transfers.copy()

    elems = _block_elems(stream)
    beyond = valid & (stream["sram_base"] + elems > depths)
    for index in np.flatnonzero(beyond):
        kind, base = MemoryType(int(kinds[index])), int(stream["sram_base"][index])
        findings.error(
            Rule.SCRATCHPAD,
            index,
            f"{kind.name} elements {base} to {base + int(elems[index]) - 1} must lie below the"
            f" depth {int(depths[index])}",
        )
    valid &= ~beyond

    end = addr + np.maximum(count - 1, 0) * stride + size
    for index in np.flatnonzero(valid & ~memory.ranges.hold(addr, end)):
        starts = addr[index] + np.arange(count[index]) * stride[index]
        outside = np.flatnonzero(~memory.ranges.hold(starts, starts + size[index]))
        if len(outside):
            y = int(outside[0])
            findings.error(
                Rule.DRAM_REGION,
                index,
                f"row {y}, {int(size[index])} bytes at {int(starts[y]):#x}, must lie in one"
                f" region ({len(outside)} of {len(starts)} rows do not)",
            )
            valid[index] = False
    stored = _stored(stream, valid, addr, size, stride, count)
    rows = Rows(valid=valid, addr=addr, size=size, stride=stride, count=count, stored=stored)
    _check_stream(stream, memory, rows, findings)
    return rows


def _block_elems(stream: Stream) -> np.ndarray:
    """Scratchpad elements of every transfer, padding included."""
    height = stream["y_pad_0"] + stream["y_size"] + stream["y_pad_1"]
    return height * (stream["x_pad_0"] + stream["x_size"] + stream["x_pad_1"])


def _starts(addr: np.ndarray, stride: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Addresses of all rows of some transfers."""
    begin = np.cumsum(count) - count
    row = np.arange(int(count.sum())) - np.repeat(begin, count)
    return np.repeat(addr, count) + row * np.repeat(stride, count)


def _stored(
    stream: Stream,
    valid: np.ndarray,
    addr: np.ndarray,
    size: np.ndarray,
    stride: np.ndarray,
    count: np.ndarray,
) -> Ranges:
    """Everything that stores write."""
    stores = valid & (stream["opcode"] == Opcode.STORE)
    starts = _starts(addr[stores], stride[stores], count[stores])
    return merge(starts, starts + np.repeat(size[stores], count[stores]))


def _check_stream(stream: Stream, memory: Memory, rows: Rows, findings: Findings) -> None:
    if not rows.stored.overlap(memory.stream.begin, memory.stream.end).any():
        return
    for index in np.flatnonzero(rows.valid & (stream["opcode"] == Opcode.STORE)):
        starts = rows.addr[index] + np.arange(rows.count[index]) * rows.stride[index]
        hits = memory.stream.overlap(starts, starts + rows.size[index])
        if hits.any():
            findings.error(
                Rule.STREAM_OVERWRITE,
                index,
                f"row {int(np.flatnonzero(hits)[0])} overwrites instructions, which fetch may read"
                " before or after",
            )


# ---- GEMM, ALU ---------------------------------------------------------------------------------
def _uop_loads(stream: Stream, memory: Memory, rows: Rows) -> tuple[np.ndarray, np.ndarray]:
    """What every LOAD UOP puts into the scratchpad: ``(first, words)``, int64.

    Padding is zero; bytes that the program itself stores are `UNKNOWN`.
    """
    first, words = np.zeros(len(stream) + 1, np.int64), []
    loads = rows.valid & (stream["opcode"] == Opcode.LOAD)
    for index in np.flatnonzero(loads & (stream["memory_type"] == MemoryType.UOP)):
        field = {
            name: int(stream[name][index])
            for name in ("y_pad_0", "y_pad_1", "x_pad_0", "x_pad_1", "y_size", "x_size")
        }
        height = field["y_pad_0"] + field["y_size"] + field["y_pad_1"]
        width = field["x_pad_0"] + field["x_size"] + field["x_pad_1"]
        block = np.zeros((height, width), np.int64)
        for y in range(field["y_size"]):
            addr = int(rows.addr[index] + y * rows.stride[index])
            row = memory.read(addr, int(rows.size[index])).copy().view("<u4").astype(np.int64)
            at = addr + 4 * np.arange(len(row))
            row[rows.stored.overlap(at, at + 4)] = UNKNOWN
            block[field["y_pad_0"] + y, field["x_pad_0"] : field["x_pad_0"] + len(row)] = row
        words.append(block.reshape(-1))
        first[index + 1] = block.size
    return np.cumsum(first), np.concatenate(words) if words else np.zeros(0, np.int64)


@jit
def _emit(runs, cursor, fill, base, n_out, f_out, n_in, f_in, kind):
    """Runs of ``base + y * f_out + x * f_in``, a run that touches the last one joined to it.

    `cursor` is ``[runs so far, end of the last run or -1]``; `fill` False only counts.
    """
    if f_out == 0:
        n_out = 1
    if f_in == 0:
        n_in = 1
    if f_in != 1 and f_out == 1:
        n_out, f_out, n_in, f_in = n_in, f_in, n_out, f_out
    length = 1
    if f_in == 1:
        length, n_in = n_in, 1
    for y in range(n_out):
        for x in range(n_in):
            begin = base + y * f_out + x * f_in
            if begin == cursor[1]:
                cursor[1] = begin + length
                if fill:
                    runs[cursor[0] - 1, 1] = begin + length
                continue
            if fill:
                runs[cursor[0], 0] = begin
                runs[cursor[0], 1] = begin + length
                runs[cursor[0], 2] = kind
            cursor[0] += 1
            cursor[1] = begin + length


@jit
def _steps(n_out, f_out, n_in, f_in):
    """Runs that `_emit` makes at most of one micro-op."""
    if f_out == 0 or (f_out == 1 and f_in != 1):
        n_out = 1
    if f_in == 0 or f_in == 1:
        n_in = 1
    return n_out * n_in


@jit
def _emit_marked(runs, cursor, fill, marks, state, insn, lsb, mask, f, base, kind):
    """Runs of a loop of many steps, each element once."""
    n_out, f_out, n_in, f_in = (
        insn[ITER_OUT],
        insn[FACTOR_OUT[f]],
        insn[ITER_IN],
        insn[FACTOR_IN[f]],
    )
    if f_out == 0:
        n_out = 1
    if f_in == 0:
        n_in = 1
    marks[:] = 0
    for u in range(insn[UOP_BGN], insn[UOP_END]):
        first = (state[u] >> lsb) & mask
        if marks[first] & 1 == 0:  # its steps are marked already
            marks[first] |= 1
            for y in range(n_out):
                for x in range(n_in):
                    marks[first + y * f_out + x * f_in] |= 2
    for e in range(len(marks)):
        if marks[e] != 0:
            _emit(runs, cursor, fill, base + e, 1, 0, 1, 1, kind)


@jit
def _extent(insn, state, lsb, mask, depth, reads, detail):
    """Fault of a loop, `detail` filled with ``[micro-op or operand, index]``."""
    if insn[UOP_END] > len(state):
        return BEYOND_UOP
    for u in range(insn[UOP_BGN], insn[UOP_END]):
        if state[u] < 0:
            detail[0] = u
            return NOT_LOADED if state[u] == NEVER_LOADED else NOT_KNOWN
    for f in range(3):
        if not reads[f]:
            continue
        greatest = np.int64(0)
        for u in range(insn[UOP_BGN], insn[UOP_END]):
            greatest = max(greatest, (state[u] >> lsb[f]) & mask[f])
        greatest += (insn[ITER_OUT] - 1) * insn[FACTOR_OUT[f]]
        greatest += (insn[ITER_IN] - 1) * insn[FACTOR_IN[f]]
        if greatest >= depth[f]:
            detail[0] = f
            detail[1] = greatest
            return BEYOND_OPERAND
    return OK


@jit
def _operands(insn, reads):
    """Which of dst, src and wgt a loop uses."""
    gemm = insn[OPCODE] == OP_GEMM
    reads[0] = True
    reads[1] = insn[RESET] == 0 if gemm else insn[USE_IMM] == 0
    reads[2] = gemm and insn[RESET] == 0


@jit
def _expand(
    table, loops, load_first, load_words, sram_base, load_runs, state, lsb, mask, depth, base,
    first, runs, uop_first, uops, fault, detail, fill,
):  # fmt: skip
    """Walk the compute queue; with `fill` False count, else fill `runs` and `uops`.

    `depth` and `base` are by opcode (GEMM, ALU) and operand. Transfers bring their one run along.
    """
    state[:] = NEVER_LOADED
    used = np.zeros(3, np.bool_)
    marks = np.zeros(depth.max(), np.uint8)
    cursor = np.zeros(2, np.int64)
    total = 0
    for i in range(len(table)):
        insn = table[i]
        cursor[1] = -1
        if load_runs[i, 2] != 0:
            if fill:
                runs[cursor[0]] = load_runs[i]
            cursor[0] += 1
        for k in range(load_first[i], load_first[i + 1]):
            state[sram_base[i] + k - load_first[i]] = load_words[k]
        if loops[i]:
            kind = 0 if insn[OPCODE] == OP_GEMM else 1
            _operands(insn, used)
            fault[i] = _extent(insn, state, lsb, mask, depth[kind], used, detail[i])
            if fault[i] == OK:
                count = insn[UOP_END] - insn[UOP_BGN]
                if fill:
                    for k in range(count):
                        for f in range(3):
                            word = state[insn[UOP_BGN] + k]
                            uops[total + k, f] = (word >> lsb[f]) & mask[f]
                total += count
                for f in range(3):
                    if not used[f]:
                        continue
                    flags = READ
                    if f == 0:
                        flags = WRITE if kind == 0 and insn[RESET] != 0 else READ + WRITE
                    cursor[1] = -1
                    steps = _steps(
                        insn[ITER_OUT], insn[FACTOR_OUT[f]], insn[ITER_IN], insn[FACTOR_IN[f]]
                    )
                    if 4 * count * steps > depth[kind, f]:
                        _emit_marked(
                            runs, cursor, fill, marks[: depth[kind, f]], state, insn, lsb[f],
                            mask[f], f, base[kind, f], flags,
                        )  # fmt: skip
                        continue
                    last = np.int64(-1)
                    for k in range(insn[UOP_BGN], insn[UOP_END]):
                        element = (state[k] >> lsb[f]) & mask[f]
                        if element == last:
                            continue
                        last = element
                        _emit(
                            runs, cursor, fill, base[kind, f] + element,
                            insn[ITER_OUT], insn[FACTOR_OUT[f]],
                            insn[ITER_IN], insn[FACTOR_IN[f]], flags,
                        )  # fmt: skip
        first[i + 1] = cursor[0]
        uop_first[i + 1] = total


def _transfer_runs(stream: Stream, rows: Rows, base: dict[MemoryType, int]) -> np.ndarray:
    """``(n, 3)``: the run of every sound transfer to or from inp, wgt, acc; zeros elsewhere."""
    runs = np.zeros((len(stream), 3), np.int32)
    load = stream["opcode"] == Opcode.LOAD
    for kind, offset in base.items():
        mine = rows.valid & (stream["memory_type"] == kind)
        begin = stream["sram_base"][mine] + offset
        runs[mine, 0] = begin
        runs[mine, 1] = begin + _block_elems(stream)[mine]
        runs[mine, 2] = np.where(load[mine], WRITE, READ)
    return runs


def _check_loops(stream: Stream, memory: Memory, rows: Rows, findings: Findings) -> Accesses:
    cfg, n = stream.cfg, len(stream)
    wgt_base = cfg.inp_depth
    acc_base = wgt_base + cfg.wgt_depth
    total = acc_base + cfg.acc_depth
    bases = {
        MemoryType.INP: 0,
        MemoryType.WGT: wgt_base,
        MemoryType.ACC: acc_base,
        MemoryType.ACC_8BIT: acc_base,
        MemoryType.OUT: acc_base,
    }
    load_first, load_words = _uop_loads(stream, memory, rows)
    fields = [stream.isa.uop.positions[name] for name in OPERANDS]
    arguments = (
        stream.table,
        stream.loops,
        load_first,
        load_words,
        stream["sram_base"].copy(),
        _transfer_runs(stream, rows, bases),
        np.zeros(cfg.uop_depth, np.int64),
        np.array([lsb for lsb, _ in fields], np.int64),
        np.array([field.maximum for _, field in fields], np.int64),
        np.array(
            [
                (cfg.acc_depth, cfg.inp_depth, cfg.wgt_depth),
                (cfg.acc_depth, cfg.acc_depth, cfg.wgt_depth),
            ],
            np.int64,
        ),
        np.array([(acc_base, 0, wgt_base), (acc_base, acc_base, wgt_base)], np.int64),
    )
    first, uop_first = np.zeros(n + 1, np.int64), np.zeros(n + 1, np.int64)
    fault, detail = np.zeros(n, np.int64), np.zeros((n, 2), np.int64)
    runs, uops = np.zeros((1, 3), np.int32), np.zeros((1, 3), np.int32)
    _expand(*arguments, first, runs, uop_first, uops, fault, detail, False)
    runs, uops = np.zeros((first[-1], 3), np.int32), np.zeros((uop_first[-1], 3), np.int32)
    _expand(*arguments, first, runs, uop_first, uops, fault, detail, True)
    for index in np.flatnonzero(fault):
        _report_loop(stream, int(index), int(fault[index]), detail[index], findings)
    return Accesses(
        wgt_base=wgt_base,
        acc_base=acc_base,
        total=total,
        first=first,
        runs=runs,
        uop_first=uop_first,
        uops=uops,
    )


def _report_loop(
    stream: Stream, index: int, fault: int, detail: np.ndarray, findings: Findings
) -> None:
    cfg = stream.cfg
    if fault == BEYOND_UOP:
        end = int(stream["uop_end"][index])
        findings.error(
            Rule.SCRATCHPAD, index, f"uop_end must not exceed {cfg.uop_depth}, got {end}"
        )
    elif fault == NOT_LOADED:
        findings.error(
            Rule.UOP_UNDEFINED, index, f"micro-op {int(detail[0])} was not loaded before"
        )
    elif fault == NOT_KNOWN:
        findings.error(
            Rule.UOP_UNKNOWN,
            index,
            f"micro-op {int(detail[0])} holds bytes that the program stores: nothing can be said"
            " of what it addresses",
        )
    else:
        operand, gemm = OPERANDS[int(detail[0])], stream["opcode"][index] == Opcode.GEMM
        memory = {"dst": "acc", "src": "inp" if gemm else "acc", "wgt": "wgt"}[operand]
        depth = {"acc": cfg.acc_depth, "inp": cfg.inp_depth, "wgt": cfg.wgt_depth}[memory]
        findings.error(
            Rule.SCRATCHPAD,
            index,
            f"{operand} reaches {memory} element {int(detail[1])}, must lie below the depth"
            f" {depth}",
        )
