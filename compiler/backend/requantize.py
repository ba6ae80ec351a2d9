"""Shift and clip in one ALU operation, on machines that have it."""

from __future__ import annotations

import dataclasses
from itertools import pairwise

from covta.compiler.backend.ops import Alu, Op, Trace
from covta.hw.isa import AluOp
from covta.hw.params import Config

__all__ = ["fuse_requantize"]


def fuse_requantize(cfg: Config, trace: Trace) -> Trace:
    """Join a shift and a clip to the range of a stored element.

    Rewrite:   SHR s; MAX low; MIN high  ->  RQT (shift s, ReLU if low is 0)
    Requires:  extension *requantize*; 0 <= s <= 31; low the least stored value or 0, high the
               greatest; all three over the same elements, none twice
    Preserves: every element's value after the three
    """
    if not cfg.has("requantize"):
        return trace
    ops: list[Op] = []
    for op in trace.ops:
        ops.append(op)
        joined = _join(cfg, ops[-3:])
        if joined is not None:
            ops[-3:] = [joined]
    return dataclasses.replace(trace, ops=tuple(ops))


def _join(cfg: Config, ops: list[Op]) -> Alu | None:
    if len(ops) < 3 or not all(isinstance(op, Alu) for op in ops):
        return None
    shift, low, high = ops
    assert isinstance(shift, Alu)
    assert isinstance(low, Alu)
    assert isinstance(high, Alu)
    top = (1 << (cfg.out_bits - 1)) - 1
    if (shift.op, low.op, high.op) != (AluOp.SHR, AluOp.MAX, AluOp.MIN):
        return None
    if high.imm != top or low.imm not in (0, -top - 1):
        return None
    if shift.imm is None or not 0 <= shift.imm < 32:
        return None
    where = [(op.dst, op.points, op.loops) for op in (shift, low, high)]
    if where[0] != where[1] or where[1] != where[2] or _repeats(shift):
        return None
    imm = shift.imm | (64 if low.imm == 0 else 0)
    return Alu(op=AluOp.RQT, dst=shift.dst, points=shift.points, loops=shift.loops, imm=imm)


def _repeats(op: Alu) -> bool:
    """True if an element may be worked on twice: then the order of operations matters."""
    loops = sorted((k for k in op.loops if k.count > 1), key=lambda k: k.dst)
    reach = 0
    for loop in loops:
        if loop.dst <= reach:
            return True
        reach += (loop.count - 1) * loop.dst
    bases = sorted(p.dst for p in op.points)
    return any(b - a <= reach for a, b in pairwise(bases))
