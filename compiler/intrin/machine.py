"""The machine's own intrinsics, declared from its configuration: GEMM and the ALU.

(DMA is no tensor intrinsic but a pragma, since its shape is free; see `covta.compiler.lower.dma`.)
"""

from __future__ import annotations

from functools import cached_property, lru_cache

from covta.compiler import te
from covta.compiler.intrin.tensor_intrin import TensorIntrin, decl_tensor_intrin, intrin_call
from covta.compiler.te.expr import Expr, Var, binary
from covta.hw.isa import AluOp
from covta.hw.params import Config

__all__ = ["ALU_OPS", "IMM", "MachineIntrinsics"]

ALU_OPS = {
    "min": AluOp.MIN,
    "max": AluOp.MAX,
    "add": AluOp.ADD,
    "shr": AluOp.SHR,
    "mul": AluOp.MUL,
}
"""Operators of expressions that are one ALU operation."""

IMM = Var("imm")
"""Stands for the immediate in the behaviour of an ALU intrinsic."""


class MachineIntrinsics:
    """GEMM and ALU of one machine.

    Parameters
    ----------
    cfg : Config
    """

    def __init__(self, cfg: Config) -> None:
        self.cfg = cfg

    @property
    def lanes(self) -> tuple[int, int]:
        """Shape of an accumulator element, ``(batch, block_out)``."""
        return (self.cfg.batch, self.cfg.block_out)

    @cached_property
    def gemm(self) -> TensorIntrin:
        """``y[b, o] = sum_i x[b, i] * w[o, i]``: one micro-op."""
        cfg = self.cfg
        x = te.placeholder((cfg.batch, cfg.block_in), "int8", name="x")
        w = te.placeholder((cfg.block_out, cfg.block_in), "int8", name="w")
        i = te.reduce_axis((0, cfg.block_in), name="i")
        y = te.compute(
            self.lanes,
            lambda b, o: te.sum(x[b, i].astype("int32") * w[o, i].astype("int32"), axis=i),
            name="y",
        )
        return decl_tensor_intrin(
            y.op,
            lambda inputs, outputs: (
                None,
                intrin_call("vta.gemm", reset=True),
                intrin_call("vta.gemm", reset=False),
            ),
            name="vta.gemm",
            scopes={x: "inp", w: "wgt", y: "acc"},
        )

    @cached_property
    def gemm_pair(self) -> TensorIntrin:
        """``y[b, o] = sum_i x[b, i] * w[o, i] + z[b, i] * v[o, i]``: two micro-ops."""
        cfg = self.cfg
        x, z = (te.placeholder((cfg.batch, cfg.block_in), "int8", name=n) for n in "xz")
        w, v = (te.placeholder((cfg.block_out, cfg.block_in), "int8", name=n) for n in "wv")
        i = te.reduce_axis((0, cfg.block_in), name="i")
        y = te.compute(
            self.lanes,
            lambda b, o: te.sum(
                x[b, i].astype("int32") * w[o, i].astype("int32")
                + z[b, i].astype("int32") * v[o, i].astype("int32"),
                axis=i,
            ),
            name="y",
        )
        return decl_tensor_intrin(
            y.op,
            lambda inputs, outputs: (
                None,
                intrin_call("vta.gemm", reset=True),
                intrin_call("vta.gemm", reset=False),
            ),
            name="vta.gemm.pair",
            scopes={x: "inp", w: "wgt", z: "inp", v: "wgt", y: "acc"},
        )

    def alu_imm(self, op: str) -> TensorIntrin:
        """``a op imm``, `op` one of `ALU_OPS`."""
        return _alu(self.lanes, op, True)

    def alu(self, op: str) -> TensorIntrin:
        """``a op b``, both in acc."""
        return _alu(self.lanes, op, False)

    @cached_property
    def reduce_max(self) -> TensorIntrin:
        """``y = max(y, x)``: pooling."""
        return _alu_reduce(self.lanes, "max")

    @cached_property
    def reduce_min(self) -> TensorIntrin:
        """``y = min(y, x)``."""
        return _alu_reduce(self.lanes, "min")

    @cached_property
    def reduce_sum(self) -> TensorIntrin:
        """``y = y + x``."""
        return _alu_reduce(self.lanes, "sum")


@lru_cache
def _alu(lanes: tuple[int, int], op: str, imm: bool) -> TensorIntrin:
    a = te.placeholder(lanes, "int32", name="a")
    b = te.placeholder(lanes, "int32", name="b")

    def body(i: Expr, j: Expr) -> Expr:
        return binary(op, a[i, j], IMM if imm else b[i, j])

    y = te.compute(lanes, body, name="y")
    scopes = {a: "acc", y: "acc"} if imm else {a: "acc", b: "acc", y: "acc"}
    call = intrin_call("vta.alu", op=ALU_OPS[op])
    name = f"vta.alu.{op}" + (".imm" if imm else "")
    return decl_tensor_intrin(y.op, lambda inputs, outputs: call, name=name, scopes=scopes)


@lru_cache
def _alu_reduce(lanes: tuple[int, int], kind: str) -> TensorIntrin:
    x = te.placeholder((1, *lanes), "int32", name="x")
    r = te.reduce_axis((0, 1), name="r")
    y = te.compute(lanes, lambda i, j: getattr(te, kind)(x[r, i, j], axis=r), name="y")
    op = {"sum": AluOp.ADD, "max": AluOp.MAX, "min": AluOp.MIN}[kind]
    return decl_tensor_intrin(
        y.op,
        lambda inputs, outputs: (
            None,
            intrin_call("vta.fill", value=y.body.identity.value),  # type: ignore[union-attr]
            intrin_call("vta.alu", op=op),
        ),
        name=f"vta.alu.{kind}",
        scopes={x: "acc", y: "acc"},
    )
