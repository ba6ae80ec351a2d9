"""A matrix product on any machine, with its result from NumPy: what the regressions run."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from covta.hw.isa import AluOp, MemoryType, Opcode, isa
from covta.hw.params import Config

ROWS, IN_BLOCKS, OUT_BLOCKS = 4, 2, 2
SHIFT = 2

UOP_ADDR, INP_ADDR, WGT_ADDR, OUT_ADDR, INSN_ADDR = 0x1000, 0x2FE0, 0x4000, 0x5FF0, 0x7FC0
"""Byte addresses; inp, out and the stream lie across a 4 KiB boundary."""

INSNS = ("uop", "inp", "wgt", "reset", "gemm", "relu", "shift", "store", "finish")
"""What each instruction of the stream does, in order."""


@dataclass(frozen=True, kw_only=True)
class Matmul:
    """``out = max(inp @ wgt.T, 0) >> SHIFT``, the low bits kept.

    Parameters
    ----------
    regions : dict of int to np.ndarray
        Bytes before the run by address.
    expected : np.ndarray
        Bytes at `OUT_ADDR` after it.
    insn_count : int
    """

    regions: dict[int, np.ndarray]
    expected: np.ndarray
    insn_count: int


def matmul(cfg: Config, seed: int) -> Matmul:
    """Draw operands and write the program; needs 8-bit operands and one row a tensor."""
    assert (cfg.batch, cfg.inp_bits, cfg.wgt_bits) == (1, 8, 8)
    rng = np.random.default_rng(seed)
    inp = rng.integers(-128, 128, (ROWS, IN_BLOCKS, cfg.block_in), np.int8)
    wgt = rng.integers(-128, 128, (OUT_BLOCKS, IN_BLOCKS, cfg.block_out, cfg.block_in), np.int8)
    sums = np.einsum("rki,okbi->rob", inp.astype(np.int32), wgt.astype(np.int32))
    out = (np.maximum(sums, 0) >> SHIFT).astype(np.int8)
    insn = np.frombuffer(b"".join(_stream(cfg)), np.uint8)
    assert len(insn) == 16 * len(INSNS)
    return Matmul(
        regions={
            UOP_ADDR: _uops(cfg),
            INP_ADDR: _bytes(inp),
            WGT_ADDR: _bytes(wgt),
            OUT_ADDR: np.zeros(out.size, np.uint8),
            INSN_ADDR: insn,
        },
        expected=_bytes(out),
        insn_count=len(INSNS),
    )


def _bytes(array: np.ndarray) -> np.ndarray:
    return np.frombuffer(array.tobytes(), np.uint8)


def _uops(cfg: Config) -> np.ndarray:
    uop = isa(cfg).uop
    words = [
        uop.encode(dst=o, src=k, wgt=o * IN_BLOCKS + k)
        for o in range(OUT_BLOCKS)
        for k in range(IN_BLOCKS)
    ]
    return _bytes(np.array(words, np.uint32))


def _stream(cfg: Config) -> list[bytes]:
    encode = isa(cfg).encode

    def move(opcode: Opcode, memory: MemoryType, addr: int, elems: int, **flags: int) -> bytes:
        elem = addr // isa(cfg).elem_bytes(memory)
        assert elem * isa(cfg).elem_bytes(memory) == addr, f"{memory.name} at 0x{addr:x}"
        return encode(
            opcode, memory_type=memory, dram_base=elem, y_size=1, x_size=elems, x_stride=1, **flags
        )

    gemm = {
        "uop_bgn": 0,
        "uop_end": OUT_BLOCKS * IN_BLOCKS,
        "iter_out": ROWS,
        "iter_in": 1,
        "dst_factor_out": OUT_BLOCKS,
        "src_factor_out": IN_BLOCKS,
    }
    alu = {
        "uop_bgn": 0,
        "uop_end": 1,
        "iter_out": ROWS * OUT_BLOCKS,
        "iter_in": 1,
        "dst_factor_out": 1,
        "src_factor_out": 1,
        "use_imm": 1,
    }
    load, store = Opcode.LOAD, Opcode.STORE
    return [
        move(load, MemoryType.UOP, UOP_ADDR, OUT_BLOCKS * IN_BLOCKS),
        move(load, MemoryType.INP, INP_ADDR, ROWS * IN_BLOCKS),
        move(load, MemoryType.WGT, WGT_ADDR, OUT_BLOCKS * IN_BLOCKS, push_next=1),
        encode(Opcode.GEMM, reset=1, **gemm),
        encode(Opcode.GEMM, pop_prev=1, **gemm),
        encode(Opcode.ALU, alu_opcode=AluOp.MAX, imm=0, **alu),
        encode(Opcode.ALU, alu_opcode=AluOp.SHR, imm=SHIFT, push_next=1, **alu),
        move(store, MemoryType.OUT, OUT_ADDR, ROWS * OUT_BLOCKS, pop_prev=1, push_prev=1),
        encode(Opcode.FINISH, pop_next=1),
    ]
