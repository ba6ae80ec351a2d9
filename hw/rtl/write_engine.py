"""The write half of the memory engine: AW, W and B of the AXI4 port for one client."""

from __future__ import annotations

from amaranth.hdl import Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from covta.hw.params import Config
from covta.hw.rtl.interfaces import AxiWrite, burst_layout


def write_beat_layout(cfg: Config) -> data.StructLayout:
    """A beat of write data; `last` ends its burst."""
    return data.StructLayout({"data": cfg.bus.data_bits, "last": 1})


class OutputRegister(wiring.Component):
    """A stream's register: `o` comes from it, `i` is taken while it is empty or taken from.

    Taken in ``t``, offered from ``t + 1`` on; one a cycle. `i.ready` depends on `o.ready` in the
    same cycle.

    Parameters
    ----------
    shape : Layout

    Members
    -------
    i : ``In(stream(shape))``
    o : ``Out(stream(shape))``
    """

    def __init__(self, shape: data.Layout) -> None:
        self.shape = shape
        super().__init__({"i": In(stream.Signature(shape)), "o": Out(stream.Signature(shape))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        i, o = self.i, self.o
        valid = Signal()
        held = Signal(self.shape)
        m.d.comb += [i.ready.eq(~valid | o.ready), o.valid.eq(valid), o.payload.eq(held)]
        with m.If(i.ready):
            m.d.sync += [valid.eq(i.valid), held.eq(i.payload)]
        return m


class WriteEngine(wiring.Component):
    """Passes bursts to AW and beats to W, each through a register, and counts bursts.

    A burst is accepted in a cycle in which the AW register is empty or taken, fewer than
    ``cfg.bus.max_outstanding`` bursts are in flight and not `halt`; it is on AW from the next cycle
    on. It is in flight from the cycle after it is accepted up to and including the cycle of its B.
    A beat is taken in a cycle ``t`` in which the W register is empty or taken, and is on W from
    ``t + 1`` on. `response` is B itself, in its cycle.

    The client offers beats only of bursts that were accepted in an earlier cycle, and does so
    under `halt` too: then everything accepted completes and `idle` rises.

    Members
    -------
    request : ``In(stream(burst_layout))``
    data : ``In(stream(write_beat_layout))``
    axi : ``Out(AxiWrite)``; ``b.ready`` is 1
    response, error : ``Out(1)``, a burst is answered; with SLVERR or DECERR
    halt : ``In(1)``
    idle : ``Out(1)``, no burst in flight
    """

    def __init__(self, cfg: Config) -> None:
        self.cfg = cfg
        super().__init__(
            {
                "request": In(stream.Signature(burst_layout(cfg))),
                "data": In(stream.Signature(write_beat_layout(cfg))),
                "axi": Out(AxiWrite(cfg)),
                "response": Out(1),
                "error": Out(1),
                "halt": In(1),
                "idle": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        cfg, axi = self.cfg, self.axi
        m.submodules.aw = aw = OutputRegister(burst_layout(cfg))
        m.submodules.w = w = OutputRegister(write_beat_layout(cfg))
        wiring.connect(m, aw.o, wiring.flipped(axi.aw))
        wiring.connect(m, w.o, wiring.flipped(axi.w))
        wiring.connect(m, wiring.flipped(self.data), w.i)

        limit = cfg.bus.max_outstanding
        in_flight = Signal(range(limit + 1))
        allowed = Signal()
        accepted = Signal()
        m.d.comb += [
            allowed.eq((in_flight != limit) & ~self.halt),
            aw.i.payload.eq(self.request.payload),
            aw.i.valid.eq(self.request.valid & allowed),
            self.request.ready.eq(aw.i.ready & allowed),
            accepted.eq(self.request.valid & self.request.ready),
            axi.b.ready.eq(1),
            self.response.eq(axi.b.valid),
            self.error.eq(axi.b.p.resp[1]),
            self.idle.eq(in_flight == 0),
        ]
        m.d.sync += in_flight.eq(in_flight + accepted - self.response)
        return m
