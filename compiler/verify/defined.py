"""Reads of scratchpad elements that nothing in the program has written.

Only warnings: an earlier launch may have left something there. A minimum and a maximum with
immediates that meet leave one value whatever was there, and so does a shift to the left by all
bits; that is how a program fills elements on the ALU, and reads nothing.
"""

from __future__ import annotations

import numpy as np

from covta.compiler.verify.addresses import READ, WRITE, Accesses
from covta.compiler.verify.report import Rule
from covta.compiler.verify.stream import Findings, Stream
from covta.compiler.verify.tokens import Execution
from covta.hw.isa import AluOp, Opcode
from covta.sim.jit import jit

__all__ = ["check_defined"]

N_MEMORIES = 3

UNWRITTEN, WRITTEN, REPORTED, AT_MOST, AT_LEAST = range(5)
"""States of an element; the last two: only bounded, on one side, by an immediate."""


@jit
def _bound(state, limit, e, least, imm):
    """Take a MIN (`least`) or MAX with an immediate of an element that is not written."""
    mine, other = (AT_MOST, AT_LEAST) if least else (AT_LEAST, AT_MOST)
    if state[e] == other and (imm <= limit[e] if least else imm >= limit[e]):
        state[e] = WRITTEN
    elif state[e] == UNWRITTEN or state[e] == other:
        state[e], limit[e] = mine, imm
    elif state[e] == mine:
        limit[e] = min(limit[e], imm) if least else max(limit[e], imm)


@jit
def _scan(order, first, runs, bases, clamps, state, limit, missing):
    """Fill `missing`, (n, 3, 2): by instruction and memory ``[elements, the first of them]``.

    `clamps`, (n, 2): 0, or 1 for MIN and 2 for MAX with an immediate, 3 for a shift that leaves 0;
    the immediate.
    """
    for i in order:
        if clamps[i, 0] == 3:
            for r in range(first[i], first[i + 1]):
                state[runs[r, 0] : runs[r, 1]] = WRITTEN
            continue
        if clamps[i, 0]:
            for r in range(first[i], first[i + 1]):
                for e in range(runs[r, 0], runs[r, 1]):
                    if state[e] != WRITTEN and state[e] != REPORTED:
                        _bound(state, limit, e, clamps[i, 0] == 1, clamps[i, 1])
            continue
        for r in range(first[i], first[i + 1]):
            if runs[r, 2] & READ:
                memory = 0
                while runs[r, 0] >= bases[memory + 1]:
                    memory += 1
                for e in range(runs[r, 0], runs[r, 1]):
                    if state[e] != WRITTEN and state[e] != REPORTED:
                        state[e] = REPORTED
                        if missing[i, memory, 0] == 0 or e < missing[i, memory, 1]:
                            missing[i, memory, 1] = e
                        missing[i, memory, 0] += 1
        for r in range(first[i], first[i + 1]):
            if runs[r, 2] & WRITE:
                state[runs[r, 0] : runs[r, 1]] = WRITTEN


def _clamps(stream: Stream) -> np.ndarray:
    """``(n, 2)``: which instructions are MIN (1), MAX (2) or SHR by all bits to the left (3) with
    an immediate, and that."""
    clamps = np.zeros((len(stream), 2), np.int64)
    alu = stream.loops & (stream["opcode"] == Opcode.ALU) & (stream["use_imm"] == 1)
    for kind, op in ((1, AluOp.MIN), (2, AluOp.MAX)):
        clamps[alu & (stream["alu_opcode"] == op), 0] = kind
    far = (stream["alu_opcode"] == AluOp.SHR) & (stream["imm"] <= -stream.cfg.acc_bits)
    clamps[alu & far, 0] = 3
    clamps[:, 1] = stream["imm"]
    return clamps


def check_defined(
    stream: Stream, execution: Execution, accesses: Accesses, findings: Findings
) -> None:
    """Warn of every instruction that is the first to read elements never written before."""
    bases = np.array([0, accesses.wgt_base, accesses.acc_base, accesses.total])
    missing = np.zeros((len(stream), N_MEMORIES, 2), np.int64)
    state = np.zeros(accesses.total, np.uint8)
    limit = np.zeros(accesses.total, np.int64)
    runs, clamps = accesses.runs, _clamps(stream)
    _scan(execution.order, accesses.first, runs, bases, clamps, state, limit, missing)
    for index, memory in np.argwhere(missing[:, :, 0] > 0):
        count, element = (int(v) for v in missing[index, memory])
        name = ("inp", "wgt", "acc")[memory]
        findings.warning(
            Rule.UNDEFINED,
            index,
            f"reads {name}[{element - bases[memory]}], which nothing before it writes"
            f" ({count} such elements)",
        )
