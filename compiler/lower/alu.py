"""Instruction selection for the ALU: an elementwise expression, operation by operation, in place.

The machine's ALU computes ``acc[d] = acc[d] op (imm or acc[s])``. An expression is taken apart
along its first operand, which is the tensor worked on in place; each operator becomes one pass over
the tile, that is one instruction. An operand 2 of the form ``select(inside, x, neutral)`` is
applied only where `inside` holds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from covta.compiler.intrin.machine import ALU_OPS, IMM, _alu
from covta.compiler.ir.affine import linear, simplify, variables
from covta.compiler.ir.stmt import Call, If, Region, Stmt, seq
from covta.compiler.schedule.stage import require
from covta.compiler.te.expr import (
    Binary,
    Cast,
    Const,
    Expr,
    Read,
    Select,
    Var,
    binary,
    substitute,
)

if TYPE_CHECKING:
    from covta.compiler.lower.nest import StageNest

__all__ = ["select_alu"]


def select_alu(n: StageNest, at: int, localize: Callable[[Expr], Expr]) -> Stmt:
    """One nest of ALU operations after the other, for a stage with pragma ``alu``.

    Parameters
    ----------
    n : StageNest
        Its last two axes are the lanes of an accumulator element; the tensor is worked on in place
        (its buffer is that of its first operand).
    at : int
        The loop with the pragma; each operation repeats the loops from there inwards.
    """
    stage = n.stage
    what = f"alu: {stage.name}"
    lanes = stage.leaves[-2:]
    require(
        len(stage.axes) >= 2 and lanes == list(stage.axes[-2:]),
        f"{what}: the innermost loops must be the lanes, the tensor's last two axes",
    )
    require(n.buffer.scope == "acc", f"{what} must lie in acc, got {n.buffer.scope}")
    shape = tuple(n.extents[leaf] for leaf in lanes)
    require(all(isinstance(e, Const) for e in shape), f"{what}: lanes must be whole, got {shape}")
    zero: dict[Var, Expr] = {leaf.var: Const(0) for leaf in lanes}

    def region(read: Read) -> Region:
        for d, index in enumerate(read.indices):
            want = dict.fromkeys(
                [lanes[d - len(read.indices) + 2].var] if d >= len(read.indices) - 2 else [], 1
            )
            form = linear(index)
            have = {v: c for v, c in form.terms.items() if variables(v) & set(zero)}
            require(have == want, f"{what}: {read} does not lie along the lanes")
        return Region(
            buffer=read.tensor,  # type: ignore[arg-type]
            begins=tuple(simplify(substitute(i, zero)) for i in read.indices),
            extents=(Const(1),) * (len(read.indices) - 2) + shape,
        )

    out = region(Read(n.buffer, tuple(n.local)))  # type: ignore[arg-type]
    calls: list[tuple[Call, Expr | None]] = []
    size = tuple(int(e.value) for e in shape)  # type: ignore[attr-defined]

    def keeps(b: Read) -> None:
        """Refuse operand 2 if what is worked on in place is overwritten before it is read."""
        read = region(b)
        if read.buffer is not n.buffer:
            return
        away = [simplify(x - y) for x, y in zip(read.begins, out.begins, strict=True)]
        first = next((d for d in away if not (isinstance(d, Const) and d.value == 0)), Const(0))
        require(
            not calls
            and isinstance(first, Const)
            and first.value >= 0
            and list(stage.leaves) == list(stage.axes),
            f"{what}: {b} is overwritten before it is read; give it a buffer of its own",
        )

    def immediate(op: str, b: Const) -> Call:
        value = int(b.value)
        require(
            -(1 << 15) <= value < 1 << 15,
            f"{what}: an immediate must lie in -32768 ... 32767, got {value}",
        )
        attrs = (("call", "vta.alu"), ("op", ALU_OPS[op]), ("imm", value), (IMM, value))
        return Call(_alu(size, op, True), "compute", out, (out,), attrs)

    def tensor(op: str, b: Expr) -> Call:
        require(isinstance(b, Read), f"{what}: operand 2 must be read from acc, got {b}")
        assert isinstance(b, Read)
        keeps(b)
        attrs = (("call", "vta.alu"), ("op", ALU_OPS[op]))
        return Call(_alu(size, op, False), "compute", out, (out, region(b)), attrs)

    def place(expr: Expr) -> None:
        """Emit what leaves the value of `expr` in the output's place."""
        match expr:
            case Read():
                source = region(expr)
                require(
                    source.buffer is n.buffer and source.begins == out.begins,
                    f"{what}: {expr} must be worked on in place, but is read by others too or lies"
                    " elsewhere; give it a buffer of its own",
                )
            case Cast(a, "int32") if a.dtype == "int32":
                place(a)
            case Binary(op, a, b) if op in (*ALU_OPS, "sub"):
                if isinstance(a, Const) and op in ("add", "mul", "min", "max"):
                    a, b = b, a
                if op == "sub":
                    require(isinstance(b, Const), f"{what}: cannot subtract a tensor: {expr}")
                    op, b = "add", binary("mul", b, -1)
                place(a)
                if isinstance(b, Const):
                    calls.append((immediate(op, b), None))
                else:
                    b, inside = _where(op, b)
                    calls.append(
                        (immediate(op, b) if isinstance(b, Const) else tensor(op, b), inside)
                    )
            case _:
                require(False, f"{what}: the ALU cannot compute {expr}")

    place(localize(substitute(n.source, n.values)))
    nests: list[Stmt] = []
    for call, inside in calls:
        stmt = n.guarded(call)
        if inside is not None:
            stmt = If(simplify(inside), stmt)
        for leaf in reversed(stage.leaves[at:-2]):
            stmt = n.loop(leaf, stmt)
        nests.append(stmt)
    return seq(*nests)


_NEUTRAL = {"max": -(1 << 31), "min": (1 << 31) - 1, "add": 0}
"""Operands that change nothing."""


def _where(op: str, b: Expr) -> tuple[Expr, Expr | None]:
    """Operand 2, and the condition under which it does anything."""
    match b:
        case Select(condition, a, Const(value)) if value == _NEUTRAL.get(op):
            return a, condition
    return b, None
