"""How long operations take, as the order of instructions assumes."""

from __future__ import annotations

from covta.compiler.backend.ops import Alu, Gemm, Load, Op, Store
from covta.hw.isa import INSN_BYTES, AluOp, isa
from covta.hw.params import Config

__all__ = [
    "ACC_LATENCY_CYCLES",
    "FILL_CYCLES",
    "LOAD_LATENCY_CYCLES",
    "SLOW_LATENCY_CYCLES",
    "STORE_LATENCY_CYCLES",
    "beats",
    "slow_cycles",
    "work_cycles",
]

LOAD_LATENCY_CYCLES = 48
"""From a load's start to its first beat, where nothing else is under way."""

ACC_LATENCY_CYCLES = 1200
"""The same for the compute unit, whose bursts may queue behind those of the load unit."""

STORE_LATENCY_CYCLES = 160
"""What a store may take beside its beats."""

SLOW_LATENCY_CYCLES = 100
"""Of memory on which a program should not be much slower."""

FILL_CYCLES = 8
"""From the last element of an engine's instruction to its being complete."""


def beats(cfg: Config, op: Load | Store) -> int:
    """Beats of the bus that a transfer takes."""
    tensor = op.src if isinstance(op, Load) else op.dst
    size_bytes = op.y_size * op.x_size * isa(cfg).elem_bytes(tensor.memory)
    return -(-size_bytes // cfg.bus_bytes)


def slow_cycles(cfg: Config, load: Load) -> float:
    """Cycles between a load's bursts, each a row at most, on memory of `SLOW_LATENCY_CYCLES`."""
    row_bytes = load.x_size * isa(cfg).elem_bytes(load.src.memory)
    bursts = load.y_size * -(-row_bytes // (cfg.bus_bytes * cfg.bus.max_burst_beats))
    return bursts * SLOW_LATENCY_CYCLES / cfg.bus.max_outstanding


def work_cycles(cfg: Config, op: Op) -> int:
    """Cycles for which an operation keeps its engine, without latencies.

    Of a load also those of its padding, and the bus's for the instruction itself.
    """
    if isinstance(op, Gemm):
        return op.cycles
    if isinstance(op, Alu):
        if op.op == AluOp.MUL:
            return max(cfg.mul_cycles * op.cycles, op.cycles + op.sources)
        return op.cycles + op.sources
    if isinstance(op, Load):
        padding = op.elems - op.y_size * op.x_size
        return beats(cfg, op) + padding + INSN_BYTES // cfg.bus_bytes
    return beats(cfg, op)
