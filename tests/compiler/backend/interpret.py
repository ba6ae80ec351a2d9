"""A trace done by one thread in NumPy: what every later form of it must compute."""

from itertools import product

import numpy as np

from covta.compiler.backend.ops import Gemm, Load, Store, Tile, Trace
from covta.hw.isa import AluOp, MemoryType
from covta.hw.params import Config
from covta.runtime.builder.memory import elem_shape

_ALU = {
    AluOp.MIN: np.minimum,
    AluOp.MAX: np.maximum,
    AluOp.ADD: np.add,
    AluOp.SHR: np.right_shift,
}


def interpret(
    cfg: Config, trace: Trace, values: dict[str, np.ndarray], *, garbage: int = 77
) -> dict[str, np.ndarray]:
    """Contents of all output tensors, zero where nothing is stored."""
    memory = {}
    for t in trace.tensors:
        shape, _ = elem_shape(cfg, t.memory)
        given = values.get(t.name)
        given = np.zeros((*t.shape, *shape), np.int64) if given is None else given
        memory[t] = given.reshape(-1, *shape).astype(np.int64)
    kinds = {"inp": MemoryType.INP, "wgt": MemoryType.WGT, "acc": MemoryType.ACC}
    tiles: dict[Tile, np.ndarray] = {}

    def of(tile: Tile) -> np.ndarray:
        if tile not in tiles:
            shape, _ = elem_shape(cfg, kinds[tile.scope])
            tiles[tile] = np.full((tile.elems, *shape), garbage, np.int64)
        return tiles[tile]

    for op in trace.ops:
        if isinstance(op, Load):
            width = sum(op.x_pad) + op.x_size
            block = np.zeros((sum(op.y_pad) + op.y_size, width, *of(op.dst).shape[1:]), np.int64)
            for y in range(op.y_size):
                begin = op.begin + y * op.x_stride
                row = memory[op.src][begin : begin + op.x_size]
                block[op.y_pad[0] + y, op.x_pad[0] : op.x_pad[0] + op.x_size] = row
            of(op.dst)[op.offset : op.offset + op.elems] = block.reshape(-1, *block.shape[2:])
        elif isinstance(op, Store):
            for y in range(op.y_size):
                at, to = op.offset + y * op.x_size, op.begin + y * op.x_stride
                memory[op.dst][to : to + op.x_size] = (
                    of(op.src)[at : at + op.x_size].astype(np.int8).astype(np.int64)
                )
        else:
            dst = of(op.dst)
            for turn in product(*(range(k.count) for k in op.loops)):
                step = [
                    sum(n * getattr(k, what) for n, k in zip(turn, op.loops, strict=True))
                    for what in ("dst", "src", "wgt")
                ]
                for p in op.points:
                    d, s, w = p.dst + step[0], p.src + step[1], p.wgt + step[2]
                    if isinstance(op, Gemm):
                        if op.reset:
                            dst[d] = 0
                        else:
                            dst[d] += of(p.src_tile)[s] @ of(p.wgt_tile)[w].T
                    else:
                        right = op.imm if op.imm is not None else of(p.src_tile)[s]
                        dst[d] = _ALU[op.op](dst[d], right)
    return {
        t.name: memory[t].reshape(*t.shape, *elem_shape(cfg, t.memory)[0])
        for t in trace.tensors
        if t.memory == MemoryType.OUT
    }
