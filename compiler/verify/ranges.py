"""Bounds on every accumulator: what may wrap at acc_bits, what a STORE may truncate.

An interval for every lane of acc, one for all lanes of an inp element, and for every wgt element
and output lane the sums of its positive and of its negative weights. With inputs between ``l`` and
``h`` a micro-op adds to a lane between ``pos * l - neg * h`` and ``pos * h - neg * l``: exact for
one micro-op, since some input attains each.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from covta.compiler.verify.addresses import Accesses, Rows
from covta.compiler.verify.memory import Memory, Ranges, merge
from covta.compiler.verify.range_kernels import analyse
from covta.compiler.verify.report import Rule
from covta.compiler.verify.stream import Findings, Stream
from covta.compiler.verify.tokens import Execution
from covta.hw.isa import AluOp, MemoryType, Opcode

__all__ = ["check_ranges"]

MAX_OPERATIONS = 1 << 25
"""Micro-ops, times lanes over 16, beyond which the analysis is left out."""


def check_ranges(
    stream: Stream,
    memory: Memory,
    rows: Rows,
    accesses: Accesses,
    execution: Execution,
    findings: Findings,
    *,
    inputs: Sequence[str | int] | None = None,
) -> None:
    """Warn of what may wrap or be truncated; bounds in the message are of the worst lane."""
    varying, inp_varies = _varying(stream, rows, inputs)
    cfg = stream.cfg
    count = _operations(stream)
    if count > MAX_OPERATIONS:
        findings.warning(
            Rule.NOT_ANALYSED,
            None,
            f"ranges of at most {MAX_OPERATIONS} operations are analysed, got {count}",
        )
        return
    limit = np.iinfo(np.int64)
    found = np.zeros((len(stream), 3), np.int64)
    found[:, 0], found[:, 1] = limit.max, limit.min
    analyse(
        stream.table,
        execution.order,
        rows.valid,
        rows.addr,
        rows.stride,
        (memory.data, memory.ranges.begin, memory.offset),
        (varying.begin, varying.end, inp_varies),
        accesses.first,
        accesses.runs,
        accesses.acc_base,
        accesses.uop_first,
        accesses.uops,
        np.array([stream.isa.elem_bytes(m) for m in MemoryType], np.int64),
        np.array([cfg.inp_depth, cfg.wgt_depth, cfg.acc_depth], np.int64),
        np.array([cfg.batch, cfg.block_in, cfg.block_out], np.int64),
        np.array([cfg.inp_bits, cfg.wgt_bits, cfg.acc_bits, cfg.out_bits], np.int64),
        found,
    )
    for index in np.flatnonzero(found[:, 2]):
        _report(stream, int(index), int(found[index, 0]), int(found[index, 1]), findings)


def _report(stream: Stream, index: int, low: int, high: int, findings: Findings) -> None:
    cfg = stream.cfg
    if stream["opcode"][index] == Opcode.STORE:
        findings.warning(
            Rule.TRUNCATION,
            index,
            f"stores values from {low} to {high}; {cfg.out_bits} bits hold"
            f" {-(1 << (cfg.out_bits - 1))} to {(1 << (cfg.out_bits - 1)) - 1}",
        )
        return
    what = "GEMM"
    if stream["opcode"][index] == Opcode.ALU:
        what = AluOp(int(stream["alu_opcode"][index])).name
    findings.warning(
        Rule.WRAP,
        index,
        f"{what} may give values from {low} to {high}; {cfg.acc_bits} bits wrap beyond"
        f" {-(1 << (cfg.acc_bits - 1))} to {(1 << (cfg.acc_bits - 1)) - 1}",
    )


def _operations(stream: Stream) -> int:
    """Operations of the analysis; trips of a GEMM that repeat the one before are one."""
    loops, gemm = stream.loops, stream["opcode"] == Opcode.GEMM
    total = np.where(loops, stream["uop_end"] - stream["uop_bgn"], 0).astype(float)
    for side in ("out", "in"):
        still = gemm.copy()
        for name in ("dst", "src", "wgt"):
            still &= stream[f"{name}_factor_{side}"] == 0
        total *= np.where(still, 1, np.maximum(stream[f"iter_{side}"], 1))
    return int(total.sum() * max(1, stream.cfg.block_out // 16))


def _varying(stream: Stream, rows: Rows, inputs: Sequence[str | int] | None) -> tuple[Ranges, bool]:
    """Addresses whose bytes vary, and whether all of inp does wherever it comes from."""
    program = stream.program
    if inputs is None:
        inputs = program.meta.get("inputs")
    begin, end = list(rows.stored.begin), list(rows.stored.end)
    if inputs is not None:
        for k in _regions(stream, inputs):
            begin.append(int(program.region_addrs[k]))
            end.append(int(program.region_addrs[k]) + len(program.regions[k]))
    return merge(np.array(begin, np.int64), np.array(end, np.int64)), inputs is None


def _regions(stream: Stream, inputs: Sequence[str | int]) -> list[int]:
    """Numbers of regions given by name or number."""
    program = stream.program
    buffers = program.meta.get("buffers", [])
    names = [b.get("name") if isinstance(b, dict) else None for b in buffers]
    numbers = []
    for item in inputs:
        if isinstance(item, str) and item in names:
            number = names.index(item)
        elif isinstance(item, str):
            known = ", ".join(str(n) for n in names) or "none"
            raise ValueError(f"inputs must name buffers of the program ({known}), got {item!r}")
        else:
            number = item
        if not isinstance(number, int) or not 0 <= number < len(program.regions):
            raise ValueError(
                f"inputs must be regions 0 to {len(program.regions) - 1}, got {item!r}"
            )
        numbers.append(number)
    return numbers
