"""How else a reset can be done: by the ALU, which often has time when the array has none.

A shift to the left by all bits leaves 0, whatever the number was, in one operation.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from covta.compiler.backend.compress import destinations
from covta.compiler.backend.ops import Alu, Gemm, Load, Op, Store
from covta.compiler.backend.placement import Placement
from covta.hw.isa import AluOp, MemoryType
from covta.hw.params import Config

__all__ = ["Contents", "alternatives"]


class Contents:
    """What each element of acc may hold at a point of a trace: the least and the greatest lane.

    Parameters
    ----------
    cfg : Config
    """

    def __init__(self, cfg: Config) -> None:
        self.cfg = cfg
        self._least, self._greatest = -(1 << (cfg.acc_bits - 1)), (1 << (cfg.acc_bits - 1)) - 1
        self.low = np.full(cfg.acc_depth, self._least, np.int64)
        self.high = np.full(cfg.acc_depth, self._greatest, np.int64)

    def apply(self, op: Op, placement: Placement) -> None:
        """Do an operation."""
        if isinstance(op, Store):
            return
        if isinstance(op, Alu) or (isinstance(op, Gemm) and op.reset):
            at: np.ndarray | slice = destinations(op, placement)
        else:
            base = placement.base[op.dst]
            at = slice(base, base + op.dst.elems)
        if isinstance(op, Load):
            if op.dst.scope == "acc":
                narrow = op.src.memory == MemoryType.ACC_8BIT and not op.pad_min
                self._set(at, *((-128, 127) if narrow else (self._least, self._greatest)))
        elif isinstance(op, Gemm):
            self._set(at, *((0, 0) if op.reset else (self._least, self._greatest)))
        else:
            self._alu(op, at)

    def _set(self, at: np.ndarray | slice, low: int, high: int) -> None:
        self.low[at], self.high[at] = low, high

    def _alu(self, op: Alu, at: np.ndarray | slice) -> None:
        low, high, imm = self.low[at], self.high[at], op.imm
        if op.op == AluOp.MIN:
            self.low[at] = self._least if imm is None else np.minimum(low, imm)
            self.high[at] = high if imm is None else np.minimum(high, imm)
        elif op.op == AluOp.MAX:
            self.low[at] = low if imm is None else np.maximum(low, imm)
            self.high[at] = self._greatest if imm is None else np.maximum(high, imm)
        elif op.op == AluOp.SHR and imm is not None and imm >= 0:
            # perhaps more than once, so towards 0
            self.low[at] = np.where(low < 0, low >> imm, 0)
            self.high[at] = np.where(high < 0, -1, high >> imm)
        elif op.op == AluOp.SHR and imm is not None and imm <= -self.cfg.acc_bits:
            self._set(at, 0, 0)
        elif op.op == AluOp.RQT and imm is not None:
            top = (1 << (self.cfg.out_bits - 1)) - 1
            self._set(at, 0 if imm & 64 else -top - 1, top)
        else:
            self._set(at, self._least, self._greatest)


def alternatives(
    cfg: Config, ops: Sequence[Op], placement: Placement
) -> dict[Gemm, tuple[Alu, ...]]:
    """For every reset, ALU operations that have the same effect; none where all is zero already.

    Requires: `placement` gives tiles that share addresses lifetimes apart from each other.
    """
    contents = Contents(cfg)
    found: dict[Gemm, tuple[Alu, ...]] = {}
    for op in ops:
        if isinstance(op, Gemm) and op.reset:
            at = destinations(op, placement)
            clear = not contents.low[at].any() and not contents.high[at].any()
            shift = Alu(
                op=AluOp.SHR, dst=op.dst, points=op.points, loops=op.loops, imm=-cfg.acc_bits
            )
            found[op] = () if clear else (shift,)
        contents.apply(op, placement)
    return found
