"""Small programs written by hand for the tiny machine, with the cycles that they take.

The RTL is where the counts come from: `tests/rtl/test_cycle_equals_rtl.py` runs every program
there, `tests/sim/test_cycle.py` on the cycle simulator.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from covta.hw.faults import FaultCause
from covta.hw.isa import INSN_BYTES, AluOp, MemoryType, Opcode, isa
from covta.hw.params import load_config
from covta.runtime.program import Program
from covta.sim.dram import DEFAULT_DRAM, DramModel

CFG = load_config("tiny")
STREAM_ADDR = 0x8000
DATA_ADDR, DATA_BYTES = 0x1000, 4096
ZEROS_ADDR, ZEROS_BYTES = DATA_ADDR + 3072, 64
NEAR = DramModel(latency_cycles=1)
SLOW = DramModel(beats_per_cycle=0.25)
ALONE = DramModel(max_outstanding=1)
STALLS = DramModel(latency_cycles=9, stall_seed=1)


@dataclass(frozen=True, kw_only=True)
class Case:
    """A program, the memory it runs on, how long that takes and how it ends."""

    insns: tuple[bytes, ...]
    cycles: int
    dram: DramModel = DEFAULT_DRAM
    fault: tuple[FaultCause, int] | None = None

    @property
    def program(self) -> Program:
        return program_of(self.insns)


def program_of(insns: Iterable[bytes], **fields) -> Program:
    """A stream beside 4 KiB of data: bytes 0, 1, 2, …, with zeros at `ZEROS_ADDR`."""
    region = (np.arange(DATA_BYTES) % 251).astype(np.uint8)
    region[ZEROS_ADDR - DATA_ADDR :][:ZEROS_BYTES] = 0
    insn = np.frombuffer(b"".join(insns), np.uint8).reshape(-1, INSN_BYTES)
    defaults = {"config": CFG, "region_addrs": (DATA_ADDR,), "regions": (region,)}
    return Program(insn=insn, insn_addr=STREAM_ADDR, **(defaults | fields))


def load(memory_type: MemoryType, elems: int = 1, at: int = DATA_ADDR, **fields: int) -> bytes:
    """Load one row of elements, unless `fields` say otherwise."""
    place = {"memory_type": memory_type, "dram_base": at // isa(CFG).elem_bytes(memory_type)}
    row = {"x_size": elems, "y_size": 1, "x_stride": elems}
    return isa(CFG).encode(Opcode.LOAD, **(place | row | fields))


def store(elems: int = 1, at: int = DATA_ADDR + 2048, **fields: int) -> bytes:
    place = {"memory_type": MemoryType.OUT, "dram_base": at // CFG.out_elem_bytes}
    row = {"x_size": elems, "y_size": 1, "x_stride": elems}
    return isa(CFG).encode(Opcode.STORE, **(place | row | fields))


def gemm(times: int = 1, **fields: int) -> bytes:
    """The micro-op 0, over and over."""
    return isa(CFG).encode(
        Opcode.GEMM, **({"uop_end": 1, "iter_out": 1, "iter_in": times} | fields)
    )


def alu(op: AluOp, times: int = 1, **fields: int) -> bytes:
    loop = {"alu_opcode": op, "uop_end": 1, "iter_out": 1, "iter_in": times}
    return isa(CFG).encode(Opcode.ALU, **(loop | fields))


def finish(**flags: int) -> bytes:
    return isa(CFG).encode(Opcode.FINISH, **flags)


INP, WGT, UOP, ACC = MemoryType.INP, MemoryType.WGT, MemoryType.UOP, MemoryType.ACC
FINISH = finish()
ZERO_UOP = load(UOP, at=ZEROS_ADDR)
UPPER_UOP = load(UOP, at=DATA_ADDR + 32, sram_base=1)
"""Micro-op 1: dst 32, in the upper bank."""
UPPER = {"uop_bgn": 1, "uop_end": 2}
PLAIN_GEMM = isa(CFG).encode(Opcode.GEMM)
IMM = {"use_imm": 1, "imm": 3}
NEXT = {"dst_factor_in": 1, "src_factor_in": 1}
LOWER_ALU = alu(AluOp.ADD, 30, **IMM, **NEXT)
UPPER_ALU = alu(AluOp.ADD, 30, **UPPER, **IMM, **NEXT)
PIPELINE = (
    ZERO_UOP,
    load(INP, 8),
    load(WGT, 4, push_next=1),
    gemm(16, dst_factor_in=1, pop_prev=1),
    alu(AluOp.SHR, 16, push_next=1, **IMM, **NEXT),
    store(16, pop_prev=1),
    FINISH,
)

CASES: dict[str, Case] = {
    "finish": Case(insns=(FINISH,), cycles=47),
    "finish, latency 1": Case(insns=(FINISH,), dram=NEAR, cycles=16),
    "four finishes": Case(insns=(FINISH,) * 4, cycles=59),
    "load 8 inp": Case(insns=(load(INP, 8), FINISH), cycles=86),
    "load 8 inp, latency 1": Case(insns=(load(INP, 8), FINISH), dram=NEAR, cycles=24),
    "load 8 wgt": Case(insns=(load(WGT, 8), FINISH), cycles=110),
    "load 8 wgt, quarter rate": Case(insns=(load(WGT, 8), FINISH), dram=SLOW, cycles=212),
    "two loads overlap": Case(insns=(load(INP, 8), load(INP, 8), FINISH), cycles=94),
    "two loads, one burst in flight": Case(
        insns=(load(INP, 8), load(INP, 8), FINISH), dram=ALONE, cycles=128
    ),
    "padding alone": Case(insns=(load(INP, 1, y_pad_0=2, x_pad_1=7), FINISH), cycles=86),
    "gemm reset 1": Case(insns=(ZERO_UOP, gemm(1, reset=1), FINISH), cycles=103),
    "gemm reset 101": Case(insns=(ZERO_UOP, gemm(101, reset=1), FINISH), cycles=203),
    "two gemms of 50": Case(insns=(ZERO_UOP, *[gemm(50)] * 2, FINISH), cycles=202),
    "alu imm 1": Case(insns=(ZERO_UOP, alu(AluOp.ADD, 1, **IMM), FINISH), cycles=102),
    "alu imm 61": Case(insns=(ZERO_UOP, alu(AluOp.ADD, 61, **IMM, **NEXT), FINISH), cycles=162),
    "alu imm 61 on one element": Case(
        insns=(ZERO_UOP, alu(AluOp.ADD, 61, **IMM), FINISH), cycles=402
    ),
    "alu two operands 61": Case(insns=(ZERO_UOP, alu(AluOp.ADD, 61, **NEXT), FINISH), cycles=222),
    "alu mul 61": Case(insns=(ZERO_UOP, alu(AluOp.MUL, 61, **IMM, **NEXT), FINISH), cycles=164),
    "gemm waits for the alu on its bank": Case(
        insns=(ZERO_UOP, UPPER_UOP, UPPER_ALU, LOWER_ALU, gemm(40, reset=1), FINISH), cycles=217
    ),
    "gemm waits for the first of two alu instructions": Case(
        insns=(ZERO_UOP, UPPER_UOP, LOWER_ALU, UPPER_ALU, gemm(40, reset=1), FINISH), cycles=186
    ),
    "gemm waits for the first and third of three alu instructions": Case(
        insns=(ZERO_UOP, UPPER_UOP, *[LOWER_ALU, UPPER_ALU] * 2, gemm(40, reset=1), FINISH),
        cycles=248,
    ),
    "store 1": Case(insns=(store(1), FINISH), cycles=82),
    "store 16": Case(insns=(store(16), FINISH), cycles=97),
    "store 16, latency 1": Case(insns=(store(16), FINISH), dram=NEAR, cycles=35),
    "two stores": Case(insns=(store(16), store(16, at=DATA_ADDR), FINISH), cycles=113),
    "load to store": Case(insns=PIPELINE, cycles=210),
    "load to store, stalls": Case(insns=PIPELINE, dram=STALLS, cycles=174),
    "token ring": Case(
        insns=(
            load(INP, 0, push_next=1),
            finish(pop_prev=1, push_next=1),
            store(0, pop_prev=1, push_prev=1),
            finish(pop_next=1, push_prev=1),
            load(INP, 0, pop_next=1),
        ),
        cycles=63,
    ),
    "no finish": Case(insns=(PLAIN_GEMM,), cycles=47, fault=(FaultCause.NO_FINISH, 1)),
    "watchdog": Case(
        insns=(FINISH, store(0, pop_prev=1)), cycles=65584, fault=(FaultCause.WATCHDOG, 1)
    ),
    "token overflow": Case(
        insns=(*[load(INP, 0, push_next=1)] * 256, FINISH),
        cycles=1064,
        fault=(FaultCause.TOKEN_OVERFLOW, 255),
    ),
    "unknown opcode": Case(
        insns=(FINISH, bytes([5]) + bytes(15)),
        cycles=45,
        fault=(FaultCause.ILLEGAL_INSTRUCTION, 1),
    ),
    "illegal load": Case(
        insns=(load(INP, pop_prev=1), FINISH),
        cycles=41,
        fault=(FaultCause.ILLEGAL_INSTRUCTION, 0),
    ),
    "illegal alu": Case(
        insns=(alu(AluOp.RQT, 1), FINISH), cycles=48, fault=(FaultCause.ILLEGAL_INSTRUCTION, 0)
    ),
    "load beyond inp": Case(
        insns=(load(INP, sram_base=CFG.inp_depth), FINISH),
        cycles=78,
        fault=(FaultCause.SCRATCHPAD, 0),
    ),
    "gemm beyond acc": Case(
        insns=(ZERO_UOP, gemm(CFG.acc_depth + 1, reset=1, dst_factor_in=1), FINISH),
        cycles=89,
        fault=(FaultCause.SCRATCHPAD, 1),
    ),
    "load below the window": Case(
        insns=(load(INP, at=DATA_ADDR - 16), FINISH), cycles=44, fault=(FaultCause.DRAM_WINDOW, 0)
    ),
    "load between regions": Case(
        insns=(load(INP, at=0x4000), FINISH), cycles=78, fault=(FaultCause.BUS_ERROR, 0)
    ),
    "store between regions": Case(
        insns=(store(at=0x4000), FINISH), cycles=81, fault=(FaultCause.BUS_ERROR, 0)
    ),
}  # fmt: skip
