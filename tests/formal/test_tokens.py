"""A token is never lost, made up or taken twice."""

import pytest
from amaranth.hdl import Assert, Assume, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In

from covta.hw.rtl.tokens import TOKEN_BITS, TOKEN_MAX, TokenCounter

from .prove import ProofError, prove

pytestmark = pytest.mark.formal


class CounterProof(wiring.Component):
    """Compares the counter with the difference of pushes and pops in a wider register."""

    def __init__(self, greatest: int = TOKEN_MAX) -> None:
        self.greatest = greatest
        super().__init__({"push": In(1), "pop": In(1), "count": In(TOKEN_BITS)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.dut = dut = TokenCounter()
        m.d.comb += [dut.push.eq(self.push), dut.pop.eq(self.pop)]
        there = Signal(16)
        m.d.sync += there.eq(there + (self.push & ~dut.overflow) - self.pop)
        m.d.comb += [
            Assume(~self.pop | dut.ready),
            Assert(there == self.count),
            Assert(there <= self.greatest),
            Assert(dut.ready == (there != 0)),
            Assert(dut.overflow == (self.push & ~self.pop & (there == TOKEN_MAX))),
        ]
        return m


def test_the_counter_holds_pushes_less_pops(tmp_path):
    prove(CounterProof(), tmp_path, probes={"count": "dut.count"})


def test_a_false_claim_is_not_proven(tmp_path):
    with pytest.raises(ProofError, match="proof did fail"):
        prove(CounterProof(TOKEN_MAX - 1), tmp_path, probes={"count": "dut.count"})
