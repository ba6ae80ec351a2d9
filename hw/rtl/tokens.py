"""Dependence tokens: four saturating-checked counters between neighbouring units."""

from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from covta.hw.microarchitecture import TOKEN_BITS, TOKEN_MAX


class TokenCounter(wiring.Component):
    """Counts tokens; a push is visible to a pop in the next cycle.

    Members
    -------
    push, pop : ``In(1)``; pop only while `ready`
    ready : ``Out(1)``, at least one token
    overflow : ``Out(1)``, a push that does not fit, in its cycle; the count stays
    """

    push: In(1)
    pop: In(1)
    ready: Out(1)
    overflow: Out(1)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        count = Signal(TOKEN_BITS)
        m.d.comb += [
            self.ready.eq(count != 0),
            self.overflow.eq(self.push & ~self.pop & (count == TOKEN_MAX)),
        ]
        with m.If(self.push & ~self.pop & ~self.overflow):
            m.d.sync += count.eq(count + 1)
        with m.Elif(self.pop & ~self.push):
            m.d.sync += count.eq(count - 1)
        return m
