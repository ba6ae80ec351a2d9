"""The performance counters: a few low bits each, and one adder with a memory for all the rest."""

from amaranth.hdl import Array, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from covta.hw.counters import COUNTER_BITS, COUNTERS

WORD_BITS = COUNTER_BITS

CYCLES_LOW = len(COUNTERS)
"""Word of the cycle counter's low half; its high half is the next."""

WORDS = CYCLES_LOW + 2
TURN_BITS = (WORDS - 1).bit_length()


class EventCounters(wiring.Component):
    """Counts strobes: ``COUNTERS`` saturating at 32 bits, and cycles in 64 bits.

    The words lie in a memory of one write port. Each has its turn once in ``1 << TURN_BITS``
    cycles, in which what was strobed since the last one is added to it.

    A strobe in cycle ``t`` is in the `value` of its word from the turn in ``t + 2`` or later on.
    Strobes up to and including the cycle of `clear` are forgotten.

    Members
    -------
    strobe : ``In(n)``, one bit a counter, in the order of `COUNTERS`
    running : ``In(1)``, strobe of the cycle counter
    clear : ``In(1)``, strobe
    turn : ``Out``, the word whose turn it is
    value : ``Out(32)``, its count; the halves of the cycle counter belong together if read in
        turns that follow each other
    """

    strobe: In(len(COUNTERS))
    running: In(1)
    clear: In(1)
    turn: Out(TURN_BITS)
    value: Out(WORD_BITS)

    def __init__(self) -> None:
        super().__init__()
        self.words = Memory(shape=WORD_BITS, depth=1 << TURN_BITS, init=[])

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.words = words = self.words
        read, write = words.read_port(domain="comb"), words.write_port()
        strobes = Signal(CYCLES_LOW + 1)
        with m.If(~self.clear):
            m.d.sync += strobes.eq(self.strobe | self.running << CYCLES_LOW)
        with m.Else():
            m.d.sync += strobes.eq(0)

        # What came since the last turn; the high half of the cycles gets the low half's carry.
        pending = [Signal(TURN_BITS + 1, name=f"pending{k}") for k in range(len(strobes))]
        for k, count in enumerate(pending):
            with m.If(self.clear):
                m.d.sync += count.eq(0)
            with m.Elif(self.turn == k):
                m.d.sync += count.eq(strobes[k])
            with m.Elif(strobes[k]):
                m.d.sync += count.eq(count + 1)
        carry = Signal()

        # In the first round after a clear every word counts as zero.
        fresh = Signal(init=1)
        is_cycles = self.turn >= CYCLES_LOW
        total = Signal(WORD_BITS + 1)
        m.d.comb += [
            read.addr.eq(self.turn),
            write.addr.eq(self.turn),
            write.en.eq(1),
            write.data.eq(self.value),
            total.eq(Mux(fresh, 0, read.data) + Array([*pending, carry])[self.turn]),
            self.value.eq(total[:WORD_BITS] | (total[-1] & ~is_cycles).replicate(WORD_BITS)),
        ]
        m.d.sync += [self.turn.eq(self.turn + 1), carry.eq(total[-1])]
        with m.If(self.turn.all()):
            m.d.sync += fresh.eq(0)
        with m.If(self.clear):
            m.d.sync += [self.turn.eq(0), fresh.eq(1)]
        return m
