"""Streams that need lookahead: every device deadlocks at the same length."""

from __future__ import annotations

import numpy as np
import pytest

from covta.hw.isa import INSN_BYTES, MemoryType, Opcode, Unit, isa
from covta.hw.params import load_config
from covta.runtime.device import open_device
from covta.runtime.program import Program
from covta.sim.functional.machine import queue_capacity

CFG = load_config("tiny")


def lookahead(unit: Unit, count: int) -> Program:
    """`count` instructions of a unit, the first of which waits for a token pushed behind them."""
    encode = isa(CFG).encode
    load, gemm, store = Opcode.LOAD, Opcode.GEMM, Opcode.STORE
    inp, out = {"memory_type": MemoryType.INP}, {"memory_type": MemoryType.OUT}
    waits, more, pushes = {
        Unit.LOAD: (
            encode(load, **inp, pop_next=1),
            encode(load, **inp),
            encode(gemm, push_prev=1),
        ),
        Unit.COMPUTE: (encode(gemm, pop_prev=1), encode(gemm), encode(load, **inp, push_next=1)),
        Unit.STORE: (
            encode(store, **out, pop_prev=1),
            encode(store, **out),
            encode(gemm, push_next=1),
        ),
    }[unit]
    stream = waits + more * (count - 1) + pushes + encode(Opcode.FINISH)
    insn = np.frombuffer(stream, np.uint8).reshape(-1, INSN_BYTES)
    return Program(config=CFG, insn=insn, insn_addr=0)


@pytest.mark.parametrize(
    "device", ["functional", "cycle", pytest.param("rtl", marks=pytest.mark.rtl)]
)
@pytest.mark.parametrize("unit", list(Unit))
def test_lookahead_ends_where_the_queue_of_the_unit_does(unit: Unit, device: str) -> None:
    capacity = queue_capacity(CFG)[unit]
    machine = open_device(device)
    assert machine.run(lookahead(unit, capacity)).fault is None
    fault = machine.run(lookahead(unit, capacity + 1)).fault
    assert fault is not None
    assert (fault.cause.text, fault.insn) == ("watchdog", 0)
