"""The machine between cocotbext-axi's models: memory that pauses and fails, a host on AXI-Lite."""

from __future__ import annotations

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles, RisingEdge, with_timeout
from cocotbext.axi import AxiBus, AxiLiteBus, AxiLiteMaster, AxiSlave

from covta.hw.faults import FaultCause
from covta.hw.params import Config
from covta.hw.registers import REGISTER_BY_NAME

from axi_memory import Memory, pause_randomly  # isort: skip
from matmul import INSN_ADDR, OUT_ADDR, Matmul  # isort: skip

CLOCK_NS = 2
RUN_CYCLES = 20_000
ANSWER_CYCLES = 1_000


class Bench:
    """One machine, reset, with its host and memory."""

    def __init__(self, dut, cfg: Config) -> None:
        self.dut, self.cfg = dut, cfg
        self.memory = Memory()
        self.host = AxiLiteMaster(AxiLiteBus.from_prefix(dut, "s_axi"), dut.clk, dut.rst)
        self.slave = AxiSlave(
            AxiBus.from_prefix(dut, "m_axi"), dut.clk, dut.rst, target=self.memory
        )

    @classmethod
    async def start(cls, dut, cfg: Config) -> Bench:
        """Clock and reset."""
        dut.rst.value = 1
        cocotb.start_soon(Clock(dut.clk, CLOCK_NS, unit="ns").start())
        bench = cls(dut, cfg)
        await ClockCycles(dut.clk, 4)
        dut.rst.value = 0
        await ClockCycles(dut.clk, 2)
        return bench

    def pause_randomly(self, seed: int) -> None:
        """Hold back ready and valid of memory and host in random cycles."""
        write, read = self.slave.write_if, self.slave.read_if
        host_write, host_read = self.host.write_if, self.host.read_if
        pause_randomly(
            (
                *(write.aw_channel, write.w_channel, write.b_channel),
                *(read.ar_channel, read.r_channel),
                *(host_write.aw_channel, host_write.w_channel, host_write.b_channel),
                *(host_read.ar_channel, host_read.r_channel),
            ),
            seed,
        )

    async def write(self, name: str, value: int) -> int:
        """Write a register; the response."""
        offset = REGISTER_BY_NAME[name].offset
        result = await _soon(self.host.write(offset, value.to_bytes(4, "little")))
        return int(result.resp)

    async def read(self, name: str) -> int:
        """Read a register that answers OKAY."""
        result = await _soon(self.host.read(REGISTER_BY_NAME[name].offset, 4))
        assert int(result.resp) == 0, f"{name}: response {result.resp}"
        return int.from_bytes(result.data, "little")

    async def status(self) -> dict[str, int]:
        """Fields of STATUS."""
        return REGISTER_BY_NAME["STATUS"].decode(await self.read("STATUS"))

    async def command(self, name: str) -> None:
        """Give a command."""
        assert await self.write("CONTROL", REGISTER_BY_NAME["CONTROL"].encode(**{name: 1})) == 0

    async def launch(self, program: Matmul) -> None:
        """Place a program and start it."""
        for addr, data in program.regions.items():
            self.memory.place(addr, data)
        await self.write("INSN_ADDR_LO", INSN_ADDR)
        await self.write("INSN_COUNT", program.insn_count)
        await self.write("IRQ_ENABLE", 1)
        await self.command("launch")

    async def wait_for_irq(self) -> None:
        """Wait until the run has ended, then acknowledge."""
        for _ in range(RUN_CYCLES):
            if self.dut.irq.value:
                break
            await RisingEdge(self.dut.clk)
        else:
            raise AssertionError(f"no interrupt in {RUN_CYCLES} cycles")
        await self.command("irq_ack")
        await ClockCycles(self.dut.clk, 3)
        assert not self.dut.irq.value

    async def run_well(self, program: Matmul) -> None:
        """A run that ends done and leaves the right bytes."""
        await self.launch(program)
        await self.wait_for_irq()
        status = await self.status()
        assert status["done"], f"status {status}, cause {await self.read('FAULT_CAUSE')}"
        got = self.memory.bytes_at(OUT_ADDR, len(program.expected))
        assert np.array_equal(got, program.expected), f"got {got}, want {program.expected}"

    async def run_into(self, program: Matmul, cause: FaultCause, insn: int) -> None:
        """A run that ends with a fault."""
        await self.launch(program)
        await self.wait_for_irq()
        status = await self.status()
        assert (status["fault"], status["done"]) == (1, 0), status
        got = FaultCause(await self.read("FAULT_CAUSE")), await self.read("FAULT_INSN")
        assert got == (cause, insn), f"fault {got}, want {(cause, insn)}"

    async def reset_command(self) -> None:
        """Give the reset command, wait until the machine is idle, drop a pending interrupt."""
        await self.command("reset")
        for _ in range(RUN_CYCLES):
            if (await self.status())["idle"]:
                await self.command("irq_ack")
                return
        raise AssertionError("the machine did not become idle after a reset command")


async def _soon(answer):
    """The host's answer; a `SimTimeoutError` if none comes."""
    return await with_timeout(answer, ANSWER_CYCLES * CLOCK_NS, "ns")
