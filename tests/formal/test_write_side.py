"""The write side obeys AXI4, and its registers lose nothing."""

import pytest
from amaranth.hdl import Assert, Assume, Module, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In

from covta.hw.params import load_config
from covta.hw.rtl.interfaces import burst_layout
from covta.hw.rtl.write_engine import OutputRegister, WriteEngine, write_beat_layout

from .prove import prove

pytestmark = pytest.mark.formal

TINY = load_config("tiny")
EDGE = load_config("edge")


class RegisterProof(wiring.Component):
    """Compares the register with a list of at most one item."""

    ITEM = data.StructLayout({"value": 8})

    def __init__(self):
        super().__init__({"valid": In(1), "item": In(8), "ready": In(1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.dut = dut = OutputRegister(self.ITEM)
        m.d.comb += [
            dut.i.valid.eq(self.valid),
            dut.i.p.value.eq(self.item),
            dut.o.ready.eq(self.ready),
        ]
        count, item = Signal(), Signal(8)
        put, take = dut.i.valid & dut.i.ready, dut.o.valid & dut.o.ready
        m.d.sync += count.eq(count + put - take)
        with m.If(put):
            m.d.sync += item.eq(self.item)
        m.d.comb += [
            Assert(dut.o.valid == count),
            Assert(dut.i.ready == (~count | take)),
            Assert(~count | (dut.o.p.value == item)),
        ]
        return m


def test_the_register_is_a_list_of_one(tmp_path):
    prove(RegisterProof(), tmp_path)


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
        m.d.sync += owed.eq(owed + (aw.valid & aw.ready) - b.valid)
        m.d.comb += [
            Assume(~b.valid | (owed != 0)),
            Assert(b.ready),
            Assert(owed + aw.valid == self.in_flight),
            Assert(self.in_flight <= cfg.bus.max_outstanding),
            Assert(dut.idle == (owed + aw.valid == 0)),
            Assert(~(self.halt & accepted)),
        ]
        return m


@pytest.mark.parametrize("cfg", [TINY, EDGE], ids=lambda c: c.name)
def test_the_write_engine_keeps_the_rules_of_axi(cfg, tmp_path):
    probes = {"in_flight": "dut.in_flight"}
    prove(WriteEngineProof(cfg), tmp_path, probes=probes)
