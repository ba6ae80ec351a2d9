"""What cocotb runs on fetch behind its AXI port; `test_cocotb.py` starts it."""

from __future__ import annotations

import os
import random

import cocotb
import numpy as np
from cocotb.triggers import ClockCycles, ReadOnly, RisingEdge
from unit_bench import MOST_CYCLES, UnitBench
from units import QUEUES

from covta.hw.faults import FaultCause
from covta.hw.isa import INSN_BYTES, MemoryType, Opcode
from covta.hw.params import load_config
from covta.hw.rtl.interfaces import INSN_LAYOUT

CFG = load_config(os.environ["COVTA_TEST_CONFIG"])
ADDR = 0x2F40


def draw(count: int, seed: int) -> list[bytes]:
    """Known opcodes, every memory type, any other bits."""
    rng = random.Random(seed)
    stream = [bytearray(rng.randbytes(INSN_BYTES)) for _ in range(count)]
    for insn in stream:
        insn[0] = insn[0] & ~7 | rng.choice(list(Opcode))
    return [bytes(insn) for insn in stream]


def queue_of(insn: bytes) -> str:
    """Where an instruction belongs."""
    word = int.from_bytes(insn[:8], "little")
    if word & 7 == Opcode.STORE:
        return "store"
    operand = word >> 7 & 7 in (MemoryType.INP, MemoryType.WGT)
    return "load" if word & 7 == Opcode.LOAD and operand else "compute"


class FetchBench(UnitBench):
    """Takes what the queues give, one of them at random in a cycle where there is a seed."""

    async def fetch(self, addr: int, count: int, seed: int | None):
        """Run a stream; what each queue gave, and the fault if there was one."""
        dut, rng = self.dut, random.Random(seed)
        got = {name: [] for name in QUEUES}
        dut.insn_addr.value, dut.insn_count.value = addr, count
        dut.start.value = 1
        await RisingEdge(dut.clk)
        dut.start.value = 0
        for _ in range(MOST_CYCLES):
            for name in QUEUES:
                ready = seed is None or rng.random() < 0.4
                getattr(dut, f"{name}__ready").value = ready
            await ReadOnly()
            for name in QUEUES:
                if getattr(dut, f"{name}__valid").value and getattr(dut, f"{name}__ready").value:
                    bits = int(getattr(dut, f"{name}__payload").value)
                    insn = INSN_LAYOUT.from_bits(bits)
                    words = (insn.word[k].to_bytes(8, "little") for k in range(2))
                    got[name].append((insn.index, b"".join(words)))
            idle, fault = dut.idle.value, self.fault()
            await RisingEdge(dut.clk)
            if idle or fault:
                return got, fault
        raise AssertionError(f"fetch is not done in {MOST_CYCLES} cycles")


async def started(dut, seed: int | None, stream: list[bytes]) -> FetchBench:
    """A bench whose memory holds a stream, and whole beats around it."""
    ready = {f"{name}__ready": 0 for name in QUEUES}
    bench = await FetchBench.start(
        dut, CFG, "read", seed=seed, start=0, insn_addr=0, insn_count=0, **ready
    )
    slack = np.zeros(INSN_BYTES * len(stream) + 2 * CFG.bus_bytes, np.uint8)
    bench.memory.place(ADDR - CFG.bus_bytes, slack)
    bench.memory.place(ADDR, np.frombuffer(b"".join(stream), np.uint8))
    return bench


@cocotb.test()
@cocotb.parametrize(seed=[None, 1, 2, 3], first=[0, 1, 3])
async def every_instruction_reaches_its_queue_in_order(dut, seed, first):
    stream = draw(150, first)
    bench = await started(dut, seed, stream)
    count = len(stream) - first
    got, fault = await bench.fetch(ADDR + INSN_BYTES * first, count, seed)
    assert fault is None
    for name in QUEUES:
        want = [(k, i) for k, i in enumerate(stream[first:]) if queue_of(i) == name]
        assert got[name] == want, f"queue {name}"


@cocotb.test()
@cocotb.parametrize(seed=[None, 4, 5], at=[0, 17, 149])
async def an_error_response_is_a_fault_of_its_instruction(dut, seed, at):
    stream = draw(150, 9)
    bench = await started(dut, seed, stream)
    bench.memory.broken = range(ADDR + INSN_BYTES * at, ADDR + INSN_BYTES * at + 1)
    got, fault = await bench.fetch(ADDR, len(stream), seed)
    whole = max(1, CFG.bus_bytes // INSN_BYTES)  # instructions in a beat, all of them in error
    offset = ADDR // INSN_BYTES % whole
    first = max(0, (at + offset) // whole * whole - offset)
    assert fault == (FaultCause.BUS_ERROR, first)
    assert all(index < first for name in QUEUES for index, _ in got[name])
    # Fetch is halted two cycles on. What is on AR by then stays until it is taken; nothing follows.
    await ClockCycles(dut.clk, 3)
    for _ in range(MOST_CYCLES):
        if not dut.m_axi_arvalid.value:
            break
        await RisingEdge(dut.clk)
    for _ in range(50):
        await RisingEdge(dut.clk)
        assert not dut.m_axi_arvalid.value
