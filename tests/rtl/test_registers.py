"""The AXI4-Lite slave of the control registers."""

from __future__ import annotations

import random

import pytest
from amaranth.sim import Simulator

from covta.hw.counters import COUNTERS
from covta.hw.params import Config, load_config
from covta.hw.registers import REGISTER_BY_NAME, REGISTERS, Access, counter_register, reset_value
from covta.hw.rtl.event_counters import CYCLES_LOW, TURN_BITS, WORDS, EventCounters
from covta.hw.rtl.registers import RESP_OKAY, RESP_SLVERR, ControlRegisters

LIMIT_CYCLES = 200


def offset(name: str) -> int:
    return REGISTER_BY_NAME[name].offset


class Bus:
    """An AXI4-Lite master with random delays on every channel."""

    def __init__(self, ctx, dut, seed: int | None = None) -> None:
        self.ctx, self.axil = ctx, dut.axil
        self.rng = None if seed is None else random.Random(seed)

    def _delay(self) -> int:
        return 0 if self.rng is None else self.rng.randrange(4)

    async def _run(self, sends, answer):
        """Send on some channels at their own times, take one answer."""
        ctx = self.ctx
        waiting = {id(s): (s, self._delay(), values) for s, values in sends}
        accept_after = self._delay()
        for _ in range(LIMIT_CYCLES):
            for s, delay, values in waiting.values():
                ctx.set(s.valid, delay <= 0)
                for name, value in values.items():
                    ctx.set(s.p[name], value if delay <= 0 else 0)
            ready = {key: ctx.get(s.ready) for key, (s, _, _) in waiting.items()}
            answered = ctx.get(answer.valid)
            ctx.set(answer.ready, answered and accept_after <= 0)
            taken = answered and accept_after <= 0
            result = ctx.get(answer.payload)
            accept_after -= bool(answered)
            await ctx.tick()
            for key, (s, delay, values) in list(waiting.items()):
                if delay <= 0 and ready[key]:
                    ctx.set(s.valid, 0)
                    del waiting[key]
                else:
                    waiting[key] = (s, delay - 1, values)
            if taken:
                ctx.set(answer.ready, 0)
                assert not waiting
                return result
        raise AssertionError("no answer")

    async def write(self, addr: int, value: int, strb: int = 15) -> int:
        a = self.axil
        sends = [(a.aw, {"addr": addr}), (a.w, {"data": value, "strb": strb})]
        return (await self._run(sends, a.b)).resp

    async def read(self, addr: int) -> tuple[int, int]:
        r = await self._run([(self.axil.ar, {"addr": addr})], self.axil.r)
        return r.data, r.resp

    async def value(self, name: str) -> int:
        data, resp = await self.read(offset(name))
        assert resp == RESP_OKAY
        return data


def simulate(dut, bench, *background) -> None:
    sim = Simulator(dut)
    sim.add_clock(1e-6)
    sim.add_testbench(bench)
    for process in background:
        sim.add_testbench(process, background=True)
    sim.run()


@pytest.mark.parametrize("name", ["edge", "wide_address"])
def test_every_register_reads_its_reset_value_and_holds_what_is_written(name):
    cfg = load_config(name)
    dut = ControlRegisters(cfg)

    async def bench(ctx):
        bus = Bus(ctx, dut, seed=1)
        rng = random.Random(2)
        ctx.set(dut.idle, 1)
        for r in REGISTERS:
            assert await bus.read(r.offset) == (reset_value(r, cfg), RESP_OKAY), r.name
        values = {}
        for r in REGISTERS:
            if r.access is Access.WRITE:
                bits = 1 if r.name == "IRQ_ENABLE" else 24 if r.name == "INSN_COUNT" else 32
                if r.name.endswith("_HI") and cfg.bus.addr_bits == 32:
                    bits = 0
                values[r.name] = rng.getrandbits(bits) if bits else 0
                assert await bus.write(r.offset, values[r.name]) == RESP_OKAY
        for n, value in values.items():
            assert await bus.value(n) == value
        assert ctx.get(dut.insn_count) == values["INSN_COUNT"]
        assert ctx.get(dut.watchdog) == values["WATCHDOG"]
        for k in range(6):
            whole = values[f"BASE_PTR_{k}_LO"] | values[f"BASE_PTR_{k}_HI"] << 32
            assert ctx.get(dut.base_ptr[k]) == whole
        for n in ("insn_addr", "window_base", "window_last"):
            stem = n.upper()
            whole = values[f"{stem}_LO"] | values[f"{stem}_HI"] << 32
            assert ctx.get(getattr(dut, n)) == whole

    simulate(dut, bench)


def test_refused_accesses_answer_slverr_and_change_nothing():
    dut = ControlRegisters(Config())

    async def bench(ctx):
        bus = Bus(ctx, dut)
        assert await bus.read(0xFFC) == (0, RESP_SLVERR)
        assert await bus.write(0xFFC, 1) == RESP_SLVERR
        assert await bus.write(offset("ID"), 1) == RESP_SLVERR
        assert await bus.write(offset("INSN_COUNT"), 1 << 24) == RESP_SLVERR
        assert await bus.write(offset("INSN_ADDR_HI"), 1) == RESP_SLVERR
        assert await bus.write(offset("INSN_ADDR_HI"), 0) == RESP_OKAY
        assert await bus.value("INSN_COUNT") == 0
        ctx.set(dut.running, 1)
        assert await bus.write(offset("INSN_COUNT"), 7) == RESP_SLVERR
        assert await bus.write(offset("IRQ_ENABLE"), 1) == RESP_OKAY
        ctx.set(dut.running, 0)
        assert await bus.value("INSN_COUNT") == 0
        assert await bus.value("IRQ_ENABLE") == 1

    simulate(dut, bench)


def test_byte_strobes_are_heeded():
    dut = ControlRegisters(Config())

    async def bench(ctx):
        bus = Bus(ctx, dut)
        await bus.write(offset("WATCHDOG"), 0x11223344)
        assert await bus.write(offset("WATCHDOG"), 0xAABBCCDD, strb=0b0101) == RESP_OKAY
        assert await bus.value("WATCHDOG") == 0x11BB33DD

    simulate(dut, bench)


def test_commands_strobe_for_one_cycle():
    dut = ControlRegisters(Config())
    seen = {"launch": 0, "reset": 0}

    async def watch(ctx):
        async for *_, launch, reset in ctx.tick().sample(dut.launch, dut.reset):
            seen["launch"] += launch
            seen["reset"] += reset

    async def bench(ctx):
        bus = Bus(ctx, dut, seed=3)
        control = REGISTER_BY_NAME["CONTROL"]
        await bus.write(control.offset, control.encode(launch=1))
        assert await bus.value("CONTROL") == 0
        await bus.write(control.offset, control.encode(reset=1))
        await bus.write(control.offset, control.encode(launch=1), strb=0b1110)
        await ctx.tick().repeat(4)

    simulate(dut, bench, watch)
    assert seen == {"launch": 1, "reset": 1}


def test_interrupt_stays_until_acknowledged():
    dut = ControlRegisters(Config())

    async def bench(ctx):
        bus = Bus(ctx, dut)
        ctx.set(dut.done, 1)
        await ctx.tick().repeat(2)
        assert not ctx.get(dut.irq)
        await bus.write(offset("IRQ_ENABLE"), 1)
        assert ctx.get(dut.irq)
        await bus.write(offset("CONTROL"), 0b100)
        await ctx.tick()
        assert not ctx.get(dut.irq)
        ctx.set(dut.done, 0)
        ctx.set(dut.fault, 1)
        ctx.set(dut.fault_cause, 4)
        ctx.set(dut.fault_insn, 99)
        await ctx.tick().repeat(2)
        assert ctx.get(dut.irq)
        assert await bus.value("STATUS") == 0b1000
        assert await bus.value("FAULT_CAUSE") == 4
        assert await bus.value("FAULT_INSN") == 99

    simulate(dut, bench)


def test_counters_count_strobes_since_the_launch():
    dut = ControlRegisters(Config())
    rng = random.Random(4)
    expected = [0] * len(COUNTERS)

    async def bench(ctx):
        bus = Bus(ctx, dut)
        ctx.set(dut.counter, -1)
        ctx.set(dut.clear_counters, 1)
        await ctx.tick()
        ctx.set(dut.clear_counters, 0)
        ctx.set(dut.running, 1)
        for _ in range(100):
            word = rng.getrandbits(len(COUNTERS))
            ctx.set(dut.counter, word)
            for k in range(len(COUNTERS)):
                expected[k] += word >> k & 1
            await ctx.tick()
        ctx.set(dut.counter, 0)
        ctx.set(dut.running, 0)
        assert await bus.value("CYCLES_LO") == 100
        assert await bus.value("CYCLES_HI") == 0
        for name, count in zip(COUNTERS, expected, strict=True):
            assert await bus.value(counter_register(name)) == count

    simulate(dut, bench)


def test_an_access_is_answered_two_cycles_on_and_another_starts_with_the_answer():
    dut = ControlRegisters(Config())

    async def bench(ctx):
        a = dut.axil
        ctx.set(a.aw.valid, 1)
        ctx.set(a.w.valid, 1)
        ctx.set(a.ar.valid, 1)
        ctx.set(a.b.ready, 1)
        ctx.set(a.r.ready, 1)
        for answered in (0, 0, 1, 0, 1, 0):
            assert ctx.get(a.b.valid) == answered
            assert ctx.get(a.r.valid) == answered
            await ctx.tick()

    simulate(dut, bench)


def test_counters_stay_at_their_maximum_and_cycles_carry_into_their_high_half():
    dut = EventCounters()
    strobed = 3

    async def value(ctx, word):
        while ctx.get(dut.turn) != word:
            await ctx.tick()
        return ctx.get(dut.value)

    async def bench(ctx):
        ctx.set(dut.clear, 1)
        await ctx.tick()
        ctx.set(dut.clear, 0)
        await ctx.tick().repeat(2 << TURN_BITS)
        assert await value(ctx, WORDS - 1) == 0
        for word in (strobed, CYCLES_LOW):
            ctx.set(dut.words.data[word], (1 << 32) - 5)
        ctx.set(dut.strobe, 1 << strobed)
        ctx.set(dut.running, 1)
        await ctx.tick().repeat(40)
        ctx.set(dut.strobe, 0)
        ctx.set(dut.running, 0)
        await ctx.tick().repeat(2)
        assert await value(ctx, 0) == 0
        assert await value(ctx, strobed) == (1 << 32) - 1
        assert await value(ctx, CYCLES_LOW) == 35
        assert await value(ctx, CYCLES_LOW + 1) == 1

    simulate(dut, bench)
