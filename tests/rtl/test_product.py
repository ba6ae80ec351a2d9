"""Products in logic equal those of Python."""

from __future__ import annotations

import random

import pytest
from amaranth.hdl import Module, Signal
from amaranth.sim import Simulator

from covta.hw.rtl.product import product

WIDTHS = [(1, 1), (4, 5), (5, 3), (12, 12), (14, 14)]


@pytest.mark.parametrize(("a_bits", "b_bits"), WIDTHS)
def test_product_is_exact(a_bits: int, b_bits: int):
    a, b, o = Signal(a_bits), Signal(b_bits), Signal(a_bits + b_bits)
    m = Module()
    m.d.comb += o.eq(product(m, "p", a, b))
    rng = random.Random(f"{a_bits} {b_bits}")
    greatest = (1 << a_bits) - 1, (1 << b_bits) - 1
    pairs = [(0, 0), greatest, (greatest[0], 1), (1, greatest[1])]
    if a_bits + b_bits <= 9:
        pairs = [(x, y) for x in range(1 << a_bits) for y in range(1 << b_bits)]
    else:
        pairs += [(rng.getrandbits(a_bits), rng.getrandbits(b_bits)) for _ in range(300)]

    async def bench(ctx):
        for x, y in pairs:
            ctx.set(a, x)
            ctx.set(b, y)
            assert ctx.get(o) == x * y

    sim = Simulator(m)
    sim.add_testbench(bench)
    sim.run()
