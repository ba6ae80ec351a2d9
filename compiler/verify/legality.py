"""Every word of the stream is an instruction of the machine; FINISH is there, and last."""

from __future__ import annotations

import numpy as np

from covta.compiler.verify.report import Rule
from covta.compiler.verify.stream import Findings, Stream
from covta.hw.isa import AluOp, MemoryType, Opcode, Unit

__all__ = ["check_legality"]

PAD_MIN_BIT = 58
PADS = ("y_pad_0", "y_pad_1", "x_pad_0", "x_pad_1")
NO_NEIGHBOUR = {Unit.LOAD: ("pop_prev", "push_prev"), Unit.STORE: ("pop_next", "push_next")}
LOADABLE = tuple(m for m in MemoryType if m != MemoryType.OUT)


def check_legality(stream: Stream, findings: Findings) -> None:
    """Report illegal instructions, loops written backwards, and what is wrong with FINISH."""
    for index in np.flatnonzero(stream["illegal"]):
        for reason in _reasons(stream, int(index)):
            findings.error(Rule.ILLEGAL, index, reason)
    loops = (stream["opcode"] == Opcode.GEMM) | (stream["opcode"] == Opcode.ALU)
    for index in np.flatnonzero(stream.legal & loops & (stream["uop_bgn"] > stream["uop_end"])):
        bgn, end = int(stream["uop_bgn"][index]), int(stream["uop_end"][index])
        findings.warning(
            Rule.EMPTY_LOOP, index, f"uop_bgn must not exceed uop_end, got {bgn} and {end}"
        )
    _check_finish(stream, findings)


def _reasons(stream: Stream, index: int) -> list[str]:
    """Everything that makes one instruction illegal."""
    row = {name: int(stream[name][index]) for name in ("opcode", "unit", "memory_type")}
    opcode = row["opcode"]
    formats = stream.isa.by_opcode
    if opcode not in formats:
        return [f"opcode must be one of 0 to 4, got {opcode}"]
    reasons = []
    stray = formats[opcode].stray_bits(stream.program.insn[index].tobytes())
    if stray:
        bits = [bit for bit in range(128) if stray >> bit & 1]
        reasons.append(f"bits of no field must be zero, got bit {', '.join(map(str, bits))} set")
        if opcode == Opcode.LOAD and PAD_MIN_BIT in bits:
            reasons[-1] += "; bit 58 is pad_min, an extension that the machine lacks"
    memory_type = row["memory_type"]
    if opcode == Opcode.LOAD and memory_type not in LOADABLE:
        names = ", ".join(f"{int(m)} {m.name}" for m in LOADABLE)
        reasons.append(f"memory_type of LOAD must be one of {names}, got {memory_type}")
    if opcode == Opcode.STORE:
        if memory_type != MemoryType.OUT:
            reasons.append(f"memory_type of STORE must be 4 OUT, got {memory_type}")
        for name in PADS:
            if stream[name][index]:
                reasons.append(f"{name} of STORE must be 0, got {int(stream[name][index])}")
    alu_opcode = int(stream["alu_opcode"][index])
    if opcode == Opcode.ALU and alu_opcode not in stream.isa.alu_ops:
        lacks = "; 5 is RQT, an extension that the machine lacks" * (alu_opcode == AluOp.RQT)
        reasons.append(f"alu_opcode must be one the machine has, got {alu_opcode}{lacks}")
    for name in NO_NEIGHBOUR.get(Unit(row["unit"]), ()):
        if stream[name][index]:
            unit = Unit(row["unit"]).name.lower()
            reasons.append(f"{name} must be 0 in the {unit} unit, which has no such neighbour")
    assert reasons, f"instruction {index} is illegal and no rule says why"
    return reasons


def _check_finish(stream: Stream, findings: Findings) -> None:
    finishes = np.flatnonzero(stream.legal & (stream["opcode"] == Opcode.FINISH))
    if not len(finishes):
        findings.error(Rule.NO_FINISH, len(stream), "the stream must hold a FINISH, got none")
        return
    first = int(finishes[0])
    for index in finishes[1:]:
        findings.warning(Rule.AFTER_FINISH, index, f"a second FINISH, after instruction {first}")
    working = np.flatnonzero(stream.transfers | stream.loops)
    late = working[working > first]
    if len(late):
        findings.warning(
            Rule.AFTER_FINISH,
            late[0],
            f"must stand before FINISH, instruction {first}; {len(late)} such instructions do not",
        )
