"""The program that a tuned model's profile is taken of: all units work, the GEMM engine most."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from covta.hw.faults import FaultCause
from covta.hw.isa import AluOp, MemoryType, Opcode, isa
from covta.hw.params import Config
from covta.sim.bench.launch import Launch
from covta.sim.bench.memory import extents_of
from covta.sim.bench.model import RtlModel
from covta.sim.dram import DEFAULT_DRAM

__all__ = ["main", "stream"]

INSN_ADDR, DATA_ADDR = 0x1000, 0x10000
ROUNDS = 16
GEMM_CYCLES = 3000


def stream(cfg: Config) -> bytes:
    """Rounds of loads, a long GEMM, a short ALU instruction and a store.

    No instruction waits for another unit's: what is computed does not matter.
    """
    encode = isa(cfg).encode
    uops = min(16, cfg.uop_depth, cfg.acc_depth, cfg.inp_depth, cfg.wgt_depth)

    def transfer(opcode: Opcode, memory: MemoryType, size: int) -> bytes:
        return encode(opcode, memory_type=memory, y_size=1, x_size=size, x_stride=size)

    loop = {"uop_bgn": 0, "uop_end": uops, "iter_in": 1}
    parts = [transfer(Opcode.LOAD, MemoryType.UOP, uops)]
    for _ in range(ROUNDS):
        parts += [
            transfer(Opcode.LOAD, MemoryType.INP, uops),
            transfer(Opcode.LOAD, MemoryType.WGT, uops),
            transfer(Opcode.LOAD, MemoryType.ACC, uops),
            encode(Opcode.GEMM, **loop, iter_out=GEMM_CYCLES // uops),
            encode(Opcode.ALU, **loop, iter_out=1, alu_opcode=AluOp.ADD, use_imm=1, imm=1),
            encode(Opcode.ALU, **loop, iter_out=1, alu_opcode=AluOp.SHR, use_imm=1, imm=1),
            transfer(Opcode.STORE, MemoryType.OUT, uops),
        ]
    return b"".join(parts) + encode(Opcode.FINISH)


def main(config: str, library: str) -> None:
    """Run it on a model that writes a profile when the process ends."""
    cfg = Config.from_dict(json.loads(config))
    insn = np.frombuffer(stream(cfg), np.uint8)
    memory = np.zeros(1 << 16, np.uint8)
    extents = extents_of([(INSN_ADDR, insn), (DATA_ADDR, memory)], cfg.bus_bytes)
    with RtlModel(cfg, library=Path(library)) as model:
        model.set_dram(DEFAULT_DRAM)
        model.set_memory(extents)
        outcome = Launch(
            insn_addr=INSN_ADDR,
            insn_count=len(insn) // 16,
            base_ptrs=(DATA_ADDR,) * len(MemoryType),
            window_base=0,
            window_last=extents[-1].end - 1,
        ).run(model)
    assert outcome.cause is FaultCause.NONE, f"{outcome.cause.text} at {outcome.insn}"
