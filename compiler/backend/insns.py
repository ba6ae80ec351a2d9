"""Instructions with addresses, before they get tokens and places for their micro-ops."""

from __future__ import annotations

from dataclasses import dataclass

from covta.compiler.backend.ops import DramTensor
from covta.hw.isa import AluOp
from covta.runtime.builder import Loop

__all__ = ["AluInsn", "GemmInsn", "Insn", "LoadInsn", "StoreInsn", "Uop"]

Uop = tuple[int, int, int]
"""dst, src, wgt"""


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadInsn:
    """LOAD of a block of `src`."""

    scope: str
    sram_base: int
    src: DramTensor
    begin: int
    y_size: int
    x_size: int
    x_stride: int
    y_pad: tuple[int, int] = (0, 0)
    x_pad: tuple[int, int] = (0, 0)
    pad_min: bool = False

    def __str__(self) -> str:
        pads = "" if self.y_pad == self.x_pad == (0, 0) else f" pad {self.y_pad} {self.x_pad}"
        block = f"{self.y_size}x{self.x_size} by {self.x_stride}"
        return f"load {self.scope}[{self.sram_base}] = {self.src.name}[{self.begin}] {block}{pads}"


@dataclass(frozen=True, kw_only=True, slots=True)
class StoreInsn:
    """STORE of elements of acc from `sram_base` on."""

    sram_base: int
    dst: DramTensor
    begin: int
    y_size: int
    x_size: int
    x_stride: int

    def __str__(self) -> str:
        block = f"{self.y_size}x{self.x_size} by {self.x_stride}"
        return f"store {self.dst.name}[{self.begin}] {block} = acc[{self.sram_base}]"


@dataclass(frozen=True, kw_only=True, slots=True)
class GemmInsn:
    """GEMM, or a reset."""

    uops: tuple[Uop, ...]
    outer: Loop
    inner: Loop
    reset: bool = False

    @property
    def turns(self) -> int:
        """Turns of both loops together."""
        return self.outer.count * self.inner.count

    def __str__(self) -> str:
        return f"{'reset' if self.reset else 'gemm'} {_loops(self)}"


@dataclass(frozen=True, kw_only=True, slots=True)
class AluInsn:
    """ALU operation with an immediate, or with two operands."""

    op: AluOp
    uops: tuple[Uop, ...]
    outer: Loop
    inner: Loop
    imm: int | None

    def __str__(self) -> str:
        operand = "src" if self.imm is None else self.imm
        return f"alu {self.op.name} {operand} {_loops(self)}"


Insn = LoadInsn | StoreInsn | GemmInsn | AluInsn


def _loops(insn: GemmInsn | AluInsn) -> str:
    parts = [
        f"{k.count}(+{k.dst},+{k.src},+{k.wgt})" for k in (insn.outer, insn.inner) if k.count > 1
    ]
    d, s, w = insn.uops[0]
    first = f"({d},{s},{w})" if len(insn.uops) == 1 else f"({d},{s},{w})..."
    return " ".join([*parts, f"{len(insn.uops)} uops {first}"])
