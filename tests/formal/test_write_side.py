"""The write side obeys AXI4, and its queue neither loses nor reorders."""

import pytest
from amaranth.hdl import Assert, Assume, Module, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In

from covta.hw.params import load_config
from covta.hw.rtl.interfaces import burst_layout
from covta.hw.rtl.write_engine import TwoEntryQueue, WriteEngine, write_beat_layout

from .prove import prove

pytestmark = pytest.mark.formal

TINY = load_config("tiny")
EDGE = load_config("edge")


class QueueProof(wiring.Component):
    """Compares the queue with a list of at most two items."""

    ITEM = data.StructLayout({"value": 8})

    def __init__(self):
        super().__init__(
            {
                "valid": In(1),
                "item": In(8),
                "ready": In(1),
                "second": In(8),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.dut = dut = TwoEntryQueue(self.ITEM)
        m.d.comb += [
            dut.i.valid.eq(self.valid),
            dut.i.p.value.eq(self.item),
            dut.o.ready.eq(self.ready),
        ]
        count = Signal(2)
        head, tail = Signal(8), Signal(8)
        put, take = dut.i.valid & dut.i.ready, dut.o.valid & dut.o.ready
        m.d.sync += count.eq(count + put - take)
        with m.If(take):
            m.d.sync += head.eq(tail)
        with m.If(put):
            with m.If(count - take == 0):
                m.d.sync += head.eq(self.item)
            with m.Else():
                m.d.sync += tail.eq(self.item)
        m.d.comb += [
            Assert(count <= 2),
            Assert(dut.o.valid == (count != 0)),
            Assert(dut.i.ready == (count != 2)),
            Assert((count == 0) | (dut.o.p.value == head)),
            # This makes the claims above inductive.
            Assert(dut.o.valid + (~dut.i.ready) == count),
            Assert((count != 2) | (self.second == tail)),
        ]
        return m


def test_the_queue_is_a_list_of_two(tmp_path):
    prove(QueueProof(), tmp_path, probes={"second": "dut.second"})


class WriteEngineProof(wiring.Component):
    """AW and W hold still; bursts in flight are counted and bounded; halt lets none through."""

    def __init__(self, cfg):
        self.cfg = cfg
        super().__init__(
            {
                "request_valid": In(1),
                "request": In(burst_layout(cfg)),
                "data_valid": In(1),
                "data": In(write_beat_layout(cfg)),
                "awready": In(1),
                "wready": In(1),
                "bvalid": In(1),
                "halt": In(1),
                "in_flight": In(range(cfg.bus.max_outstanding + 1)),
                "queue_ready": In(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        cfg = self.cfg
        m.submodules.dut = dut = WriteEngine(cfg)
        aw, w, b = dut.axi.aw, dut.axi.w, dut.axi.b
        m.d.comb += [
            dut.request.valid.eq(self.request_valid),
            dut.request.payload.eq(self.request),
            dut.data.valid.eq(self.data_valid),
            dut.data.payload.eq(self.data),
            aw.ready.eq(self.awready),
            w.ready.eq(self.wready),
            b.valid.eq(self.bvalid),
            dut.halt.eq(self.halt),
        ]
        for channel, layout in ((aw, burst_layout(cfg)), (w, write_beat_layout(cfg))):
            waited, held = Signal(), Signal(layout)
            m.d.sync += [waited.eq(channel.valid & ~channel.ready), held.eq(channel.payload)]
            with m.If(waited):
                m.d.comb += [
                    Assert(channel.valid),
                    Assert(channel.payload.as_value() == held.as_value()),
                ]
        # What the memory owes: bursts taken from AW less responses.
        owed = Signal(range(cfg.bus.max_outstanding + 2))
        accepted = dut.request.valid & dut.request.ready
        queued = aw.valid + ~self.queue_ready
        m.d.sync += owed.eq(owed + (aw.valid & aw.ready) - b.valid)
        m.d.comb += [
            Assume(~b.valid | (owed != 0)),
            Assert(b.ready),
            Assert(owed + queued == self.in_flight),
            Assert(aw.valid | self.queue_ready),
            Assert(self.in_flight <= cfg.bus.max_outstanding),
            Assert(dut.idle == (owed + queued == 0)),
            Assert(~(self.halt & accepted)),
        ]
        return m


@pytest.mark.parametrize("cfg", [TINY, EDGE], ids=lambda c: c.name)
def test_the_write_engine_keeps_the_rules_of_axi(cfg, tmp_path):
    probes = {"in_flight": "dut.in_flight", "queue_ready": "dut.aw.i__ready"}
    prove(WriteEngineProof(cfg), tmp_path, probes=probes)
