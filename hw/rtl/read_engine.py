"""The read half of the memory engine: several clients share AR and R of one AXI4 port."""

from __future__ import annotations

from amaranth.hdl import Array, Cat, Const, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out

from covta.hw.params import Config
from covta.hw.rtl.interfaces import AxiRead, ReadClient

BEATS_BITS = 8
"""Bits of a burst's length, as AXI4 counts it: beats less one."""


class ReadEngine(wiring.Component):
    """Gives bursts of the clients to AR and brings every beat back to the client that asked.

    Client 0 goes first. A burst that a client presents in cycle ``c`` is accepted in ``c`` if no
    client before it presents one, the AR register is empty or taken in ``c``, fewer than
    ``cfg.bus.max_outstanding`` bursts are in flight in ``c``, and not `halt`; it is on AR from
    ``c + 1``. So bursts go out one a cycle. A burst is in flight from the first cycle on AR up to
    and including the cycle in which its last beat is taken.

    Data returns in order, so what the last client has in flight is what the others wait behind: its
    burst is accepted only while its bursts in flight have fewer than ``cfg.load_ahead_beats`` beats
    together.

    Beats arrive in order and pass combinationally to the client of the oldest burst in flight,
    whose ready is `rready`; `rready` is low while nothing is in flight. With `halt` no further
    burst is accepted, the one on AR stays there until taken, and beats are dropped as they come.

    Parameters
    ----------
    cfg : Config
    clients : int

    Members
    -------
    clients : ``In(ReadClient).array(clients)``
    axi : ``Out(AxiRead)``
    halt : ``In(1)``
    idle : ``Out(1)``, nothing in flight
    """

    def __init__(self, cfg: Config, clients: int = 3) -> None:
        self.cfg = cfg
        self.client_count = clients
        super().__init__(
            {
                "clients": In(ReadClient(cfg)).array(clients),
                "axi": Out(AxiRead(cfg)),
                "halt": In(1),
                "idle": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        self._client_bits = max(1, (self.client_count - 1).bit_length())
        m.submodules.owners = owners = SyncFIFO(
            width=self._client_bits + BEATS_BITS, depth=self.cfg.bus.max_outstanding
        )
        self._owner = owners.r_data[: self._client_bits]
        self._ahead(m, owners)
        self._addresses(m, owners)
        self._beats(m, owners)
        # An entry is made when its burst enters the AR register, so AR is empty with the queue.
        m.d.comb += self.idle.eq(~owners.r_rdy)
        return m

    def _ahead(self, m: Module, owners: SyncFIFO) -> None:
        """Beats of the last client's bursts in flight."""
        cfg, last = self.cfg, self.client_count - 1
        limit = cfg.load_ahead_beats
        request = self.clients[last].request
        # Short of the limit another burst was accepted, and no more than the port's.
        ahead = Signal(range(limit + cfg.bus.max_burst_beats))
        added = Signal(BEATS_BITS + 1)
        done = Signal(BEATS_BITS + 1)
        self._held = Signal()
        with m.If(request.valid & request.ready):
            m.d.comb += added.eq(request.p.beats_m1 + 1)
        with m.If(owners.r_en & (self._owner == last)):
            m.d.comb += done.eq(owners.r_data[self._client_bits :] + 1)
        m.d.sync += ahead.eq(ahead + added - done)
        m.d.comb += self._held.eq(ahead >= limit)

    def _addresses(self, m: Module, owners: SyncFIFO) -> None:
        ar = self.axi.ar
        free = Signal()
        m.d.comb += free.eq((~ar.valid | ar.ready) & owners.w_rdy & ~self.halt)
        with m.If(ar.ready):
            m.d.sync += ar.valid.eq(0)
        granted = False
        for k in range(self.client_count):
            request = self.clients[k].request
            wants = request.valid & ~self._held if k == self.client_count - 1 else request.valid
            with m.If(wants) if not granted else m.Elif(wants):
                m.d.comb += [
                    request.ready.eq(free),
                    owners.w_en.eq(free),
                    owners.w_data.eq(Cat(Const(k, self._client_bits), request.p.beats_m1)),
                ]
                with m.If(free):
                    m.d.sync += [ar.valid.eq(1), ar.payload.eq(request.payload)]
            granted = True

    def _beats(self, m: Module, owners: SyncFIFO) -> None:
        r = self.axi.r
        ready = Array(client.beat.ready for client in self._client_list())[self._owner]
        m.d.comb += [
            r.ready.eq(owners.r_rdy & (ready | self.halt)),
            owners.r_en.eq(r.valid & r.ready & r.p.last),
        ]
        for k, client in enumerate(self._client_list()):
            m.d.comb += [
                client.beat.valid.eq(r.valid & owners.r_rdy & ~self.halt & (self._owner == k)),
                client.beat.p.data.eq(r.p.data),
                client.beat.p.error.eq(r.p.resp[1]),
                client.beat.p.last.eq(r.p.last),
            ]

    def _client_list(self) -> list:
        return [self.clients[k] for k in range(self.client_count)]
