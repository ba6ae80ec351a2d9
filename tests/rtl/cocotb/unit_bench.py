"""One unit of `units.py` between an instruction queue, tokens and cocotbext-axi's memory."""

from __future__ import annotations

import random
from collections.abc import Sequence

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles, ReadOnly, RisingEdge
from cocotbext.axi import AxiReadBus, AxiSlaveRead, AxiSlaveWrite, AxiWriteBus

from covta.hw.faults import FaultCause
from covta.hw.params import Config
from covta.hw.rtl.interfaces import FAULT_LAYOUT, INSN_LAYOUT

from axi_memory import Memory, pause_randomly  # isort: skip

CLOCK_NS = 2
MOST_CYCLES = 100_000


class UnitBench:
    """A unit in reset, its memory attached.

    Parameters
    ----------
    dut, cfg
    side : 'read' or 'write'
    """

    def __init__(self, dut, cfg: Config, side: str) -> None:
        self.dut, self.cfg = dut, cfg
        self.memory = Memory()
        if side == "read":
            bus = AxiReadBus.from_prefix(dut, "m_axi")
            slave = AxiSlaveRead(bus, dut.clk, dut.rst, target=self.memory)
            self._channels = (slave.ar_channel, slave.r_channel)
        else:
            bus = AxiWriteBus.from_prefix(dut, "m_axi")
            slave = AxiSlaveWrite(bus, dut.clk, dut.rst, target=self.memory)
            self._channels = (slave.aw_channel, slave.w_channel, slave.b_channel)

    @classmethod
    async def start(cls, dut, cfg: Config, side: str, *, seed: int | None, **inputs: int):
        """Clock, inputs, reset; with a seed, memory that pauses and is slow at times."""
        dut.rst.value = 1
        for name, value in inputs.items():
            getattr(dut, name).value = value
        cocotb.start_soon(Clock(dut.clk, CLOCK_NS, unit="ns").start())
        bench = cls(dut, cfg, side)
        if seed is not None:
            pause_randomly(bench._channels, seed)
            bench.memory.take_time(dut.clk, 400, seed)
        await ClockCycles(dut.clk, 4)
        dut.rst.value = 0
        await ClockCycles(dut.clk, 2)
        return bench

    def fault(self) -> tuple[FaultCause, int] | None:
        """What the unit reports, if anything."""
        fault = FAULT_LAYOUT.from_bits(int(self.dut.fault.value))
        return (FaultCause(fault.cause), fault.index) if fault.valid else None

    async def run(
        self, insns: Sequence[bytes], token: str, pushes: str, *, seed: int | None
    ) -> tuple[FaultCause, int] | None:
        """Give the instructions in order until all have retired, or one is at fault.

        A token on `token` is there from time to time only, where there is a seed; `pushes` is
        checked against what the instructions say.

        Returns
        -------
        (FaultCause, int) or None
        """
        dut, rng = self.dut, random.Random(seed)
        flags = [int.from_bytes(insn[:1], "little") for insn in insns]
        pop_bit, push_bit = (
            3 + ("prev", "next").index(token.removeprefix("pop_")),
            5 + ("prev", "next").index(pushes.removeprefix("push_")),
        )
        given = popped = pushed = retired = 0
        token_there = offer = False
        for _ in range(MOST_CYCLES):
            waits = offer  # what is offered stays until it is taken
            offer = given < len(insns) and (waits or seed is None or rng.random() < 0.8)
            dut.insn__valid.value = offer
            if offer:
                dut.insn__payload.value = insn_bits(insns[given], given)
            token_there = token_there or seed is None or rng.random() < 0.05
            getattr(dut, f"{token}_ready").value = token_there
            await ReadOnly()
            if getattr(dut, token).value:
                assert token_there, "a token was taken that is not there"
                popped, token_there = popped + 1, False
            if offer and dut.insn__ready.value:
                given, offer = given + 1, False
            pushed += int(getattr(dut, pushes).value)
            retired += int(dut.retired.value)
            self.sample()
            await RisingEdge(dut.clk)
            if fault := self.fault():
                return fault
            if retired == len(insns):
                assert popped == sum(f >> pop_bit & 1 for f in flags)
                assert pushed == sum(f >> push_bit & 1 for f in flags)
                return None
        raise AssertionError(f"{retired} of {len(insns)} retired in {MOST_CYCLES} cycles")

    def sample(self) -> None:
        """Look at further outputs, once a cycle."""


def insn_bits(insn: bytes, index: int) -> int:
    """An instruction as the queues carry it."""
    words = [int.from_bytes(insn[k : k + 8], "little") for k in (0, 8)]
    return INSN_LAYOUT.const({"word": words, "index": index}).as_bits()
