"""The read side obeys AXI4, whatever its users and the memory do."""

import pytest
from amaranth.hdl import Assert, Assume, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In

from covta.hw.params import load_config
from covta.hw.rtl.burst_generator import PAGE_BYTES, BurstGenerator, block_layout
from covta.hw.rtl.interfaces import beat_layout, burst_layout
from covta.hw.rtl.read_engine import ReadEngine

from .prove import prove

pytestmark = pytest.mark.formal

TINY = load_config("tiny")
EDGE = load_config("edge")
SIZE_BITS = 20


class BurstProof(wiring.Component):
    """Legality of bursts, and that a burst which waits holds still."""

    def __init__(self, cfg):
        self.cfg = cfg
        addr_bits = cfg.bus.addr_bits
        super().__init__(
            {
                "valid": In(1),
                "block": In(block_layout(cfg, SIZE_BITS)),
                "ready": In(1),
                "halt": In(1),
                "window_base": In(addr_bits),
                "window_last": In(addr_bits),
                "burst_valid": In(1),
                "burst_inside": In(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        cfg = self.cfg
        m.submodules.dut = dut = BurstGenerator(cfg, size_bits=SIZE_BITS)
        m.d.comb += [
            dut.i.valid.eq(self.valid),
            dut.i.payload.eq(self.block),
            dut.o.ready.eq(self.ready),
            dut.halt.eq(self.halt),
            dut.window_base.eq(self.window_base),
            dut.window_last.eq(self.window_last),
        ]
        base, last = Signal.like(self.window_base), Signal.like(self.window_last)
        started = Signal()
        m.d.sync += [started.eq(1), base.eq(self.window_base), last.eq(self.window_last)]
        with m.If(started):
            m.d.comb += [Assume(base == self.window_base), Assume(last == self.window_last)]
        burst = dut.o.p
        beats = burst.beats_m1 + 1
        # Of every burst, presented or not: this makes the claim inductive.
        one_page = burst.addr % PAGE_BYTES + beats * cfg.bus_bytes <= PAGE_BYTES
        m.d.comb += [
            Assert(beats <= cfg.bus.max_burst_beats),
            Assert(burst.addr % cfg.bus_bytes == 0),
            Assert(~self.burst_valid | one_page),
        ]
        with m.If(self.burst_valid & self.burst_inside):
            m.d.comb += [
                Assert(burst.addr >= self.window_base),
                Assert(burst.addr + beats * cfg.bus_bytes - 1 <= self.window_last),
            ]
        with m.If(dut.o.valid):
            m.d.comb += [
                Assert(self.burst_valid & self.burst_inside),
                Assert(~self.halt),
                Assert(~dut.fault.valid),
            ]
        waited = Signal()
        held = Signal(burst_layout(cfg))
        m.d.sync += [waited.eq(dut.o.valid & ~self.ready), held.eq(dut.o.payload)]
        with m.If(waited & ~self.halt):
            m.d.comb += [Assert(dut.o.valid), Assert(dut.o.payload.as_value() == held.as_value())]
        return m


@pytest.mark.parametrize("cfg", [TINY, EDGE], ids=lambda c: c.name)
def test_bursts_are_legal_and_hold_still(cfg, tmp_path):
    probes = {name: f"dut._{name}" for name in ("burst_valid", "burst_inside")}
    prove(BurstProof(cfg), tmp_path, probes=probes)


class ReadEngineProof(wiring.Component):
    """AR holds still, the number of bursts in flight is bounded, a beat goes to one client.

    Four clients, where the machine has three, so that each code of an owner names one: induction
    also starts from states that no run reaches.
    """

    CLIENTS = 4

    def __init__(self, cfg):
        self.cfg = cfg
        super().__init__(
            {
                "request_valid": In(self.CLIENTS),
                "request": In(burst_layout(cfg)).array(self.CLIENTS),
                "beat_ready": In(self.CLIENTS),
                "arready": In(1),
                "rvalid": In(1),
                "r": In(beat_layout(cfg)),
                "halt": In(1),
                "level": In(range(cfg.bus.max_outstanding + 1)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        cfg = self.cfg
        m.submodules.dut = dut = ReadEngine(cfg, clients=self.CLIENTS)
        ar, r = dut.axi.ar, dut.axi.r
        m.d.comb += [
            ar.ready.eq(self.arready),
            r.valid.eq(self.rvalid),
            r.p.data.eq(self.r.data),
            r.p.last.eq(self.r.last),
            dut.halt.eq(self.halt),
        ]
        for k in range(self.CLIENTS):
            client = dut.clients[k]
            m.d.comb += [
                client.request.valid.eq(self.request_valid[k]),
                client.request.payload.eq(self.request[k]),
                client.beat.ready.eq(self.beat_ready[k]),
            ]
        waited = Signal()
        held = Signal(burst_layout(cfg))
        m.d.sync += [waited.eq(ar.valid & ~ar.ready), held.eq(ar.payload)]
        with m.If(waited):
            m.d.comb += [Assert(ar.valid), Assert(ar.payload.as_value() == held.as_value())]

        # What the memory owes: bursts taken from AR less bursts whose last beat was taken.
        owed = Signal(range(cfg.bus.max_outstanding + 2))
        m.d.sync += owed.eq(owed + (ar.valid & ar.ready) - (r.valid & r.ready & r.p.last))
        m.d.comb += [
            Assume(~r.valid | (owed != 0)),
            Assert(owed + ar.valid == self.level),
            Assert(self.level <= cfg.bus.max_outstanding),
            Assert(dut.idle == ((owed == 0) & ~ar.valid)),
        ]
        beats = sum(dut.clients[k].beat.valid for k in range(self.CLIENTS))
        m.d.comb += Assert(beats <= 1)
        with m.If(r.valid & ~self.halt):
            m.d.comb += Assert(beats == 1)
        taken = sum(
            dut.clients[k].beat.valid & dut.clients[k].beat.ready for k in range(self.CLIENTS)
        )
        with m.If(~self.halt):
            m.d.comb += Assert(taken == (r.valid & r.ready))
        grants = sum(
            dut.clients[k].request.valid & dut.clients[k].request.ready for k in range(self.CLIENTS)
        )
        m.d.comb += Assert(grants <= 1)
        with m.If(self.halt):
            m.d.comb += [Assert(grants == 0), Assert(~r.valid | r.ready)]
        return m


@pytest.mark.parametrize("cfg", [TINY, EDGE], ids=lambda c: c.name)
def test_the_read_engine_keeps_the_rules_of_axi(cfg, tmp_path):
    prove(ReadEngineProof(cfg), tmp_path, probes={"level": "dut.owners.level"})
