"""Write instructions through the builder, which adds tokens and places micro-ops."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from covta.compiler.backend.insns import AluInsn, GemmInsn, Insn, LoadInsn, StoreInsn
from covta.compiler.backend.ops import DramTensor
from covta.hw.params import Config
from covta.runtime.builder import Builder
from covta.runtime.program import Program

__all__ = ["emit"]


def emit(
    cfg: Config,
    name: str,
    tensors: Iterable[DramTensor],
    insns: Sequence[Insn],
    *,
    values: Mapping[str, np.ndarray] | None = None,
    expect: Mapping[str, np.ndarray] | None = None,
    meta: Mapping[str, Any] | None = None,
) -> Program:
    """A program of `insns`, in this order.

    Parameters
    ----------
    tensors : iterable of DramTensor
        Become buffers, in order.
    values : mapping of str to np.ndarray, optional
        Contents before the run, ``shape + element shape``; zeros for what is not named.
    expect : mapping of str to np.ndarray, optional
        Contents after a right run.
    """
    values = values or {}
    tensors = list(tensors)
    unknown = set(values) - {t.name for t in tensors}
    if unknown:
        raise ValueError(
            f"values must name tensors ({', '.join(t.name for t in tensors)}), got"
            f" {', '.join(sorted(unknown))}"
        )
    b = Builder(cfg, name=name)
    buffers = {}
    for tensor in tensors:
        given = values.get(tensor.name)
        if given is not None and given.shape[: len(tensor.shape)] != tensor.shape:
            raise ValueError(
                f"values of {tensor.name}: must begin with shape {tensor.shape}, got {given.shape}"
            )
        shape = tensor.shape if given is None else None
        buffers[tensor] = b.buffer(tensor.name, tensor.memory, given, shape=shape)
    for insn in insns:
        if isinstance(insn, GemmInsn):
            b.gemm(insn.uops, outer=insn.outer, inner=insn.inner, reset=insn.reset)
        elif isinstance(insn, AluInsn):
            dst = [u[0] for u in insn.uops]
            src = [u[1] for u in insn.uops] if insn.imm is None else None
            b.alu(insn.op, dst, src, imm=insn.imm, outer=insn.outer, inner=insn.inner)
        elif isinstance(insn, LoadInsn):
            b.load(
                insn.sram_base,
                buffers[insn.src],
                insn.begin,
                x_size=insn.x_size,
                y_size=insn.y_size,
                x_stride=insn.x_stride,
                y_pad=insn.y_pad,
                x_pad=insn.x_pad,
                pad_min=insn.pad_min,
            )
        else:
            assert isinstance(insn, StoreInsn)
            b.store(
                insn.sram_base,
                buffers[insn.dst],
                insn.begin,
                x_size=insn.x_size,
                y_size=insn.y_size,
                x_stride=insn.x_stride,
            )
    return b.build(expect, meta=meta)
