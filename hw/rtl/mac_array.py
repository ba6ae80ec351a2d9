"""The multiplier array: one matrix-vector product a cycle."""

from __future__ import annotations

from amaranth import (
    Cat,
    ClockSignal,
    Const,
    Instance,
    Module,
    Mux,
    Signal,
    Value,
    signed,
    unsigned,
)
from amaranth.hdl import ShapeCastable, ValueLike
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from covta.hw.params import Config, log2_exact

__all__ = ["MacArray", "wgt_inverted_bits"]

PAIR_BITS = 17
"""Distance of the products of a packed multiplier: what the 25-bit operand of a DSP48 allows."""

CHAIN = 4
"""Packed products added up before the pair is taken apart: as many as ``PAIR_BITS`` tell apart."""


def wgt_inverted_bits(cfg: Config) -> int:
    """Mask of a wgt element's bits that `MacArray` takes, and its scratchpad keeps, inverted.

    With ``cfg.dsp_pack``, the sign bits of the even rows, which makes them unsigned: ``w + 128``.
    """
    if not cfg.dsp_pack:
        return 0
    row = sum(0x80 << i * cfg.wgt_bits for i in range(cfg.block_in))
    return sum(row << o * cfg.block_in * cfg.wgt_bits for o in range(0, cfg.block_out, 2))


class MacArray(wiring.Component):
    """Multiply every inp row with every wgt row and add up the products.

    ``sum[b*block_out + o] + deficit = sum_i inp[b][i] * wgt[o][i]``, modulo ``2**acc_bits``.
    Operands presented at ``c``, sums valid at ``c + latency``. One tensor a cycle, no stall, no
    reset.

    ======= ============================= ================================
    cycle   plain                         ``cfg.dsp_pack``
    ======= ============================= ================================
    c + 1   operands                      multipliers (DSP48 ``M``)
    c + 2   multipliers                   chains of products (DSP48 ``P``)
    c + 3   adder tree, levels 1 and 2    adder tree
    c + 4   adder tree, the other levels
    ======= ============================= ================================

    The operands come straight out of block RAM. The packed style needs no register there: the
    multipliers' own follows at once. With ``cfg.dsp_cell`` the registers of the plain style's
    operands and products are those of the cell.

    With ``cfg.dsp_pack`` the output lanes ``2k`` and ``2k+1`` share one 25 x 8 multiplier. Its wide
    operand is ``{w_hi, 9'b0, w_lo + 128}``, so with the input ``x`` the product is
    ``w_hi * x * 2**17 + (w_lo + 128) * x``. The adders behind the multipliers chain four of them:
    ``high * 2**17 + low + 128 * X``, where ``X`` is the sum of the four inputs and ``high`` and
    ``low``, the sums of four products each, lie in ``-65024 ... 65536``. The chain starts with
    ``65535 * 2**17 + 65535 - 128 * X``, so both halves end as unsigned 17-bit numbers, 65535 too
    large, without a borrow between them. The tree adds ``n`` such numbers, ``n - 1`` carries in,
    and ``n * 2**16`` leaves its result by an inverted top bit: what remains is one less than the
    sum, the `deficit`, left to the carry in of whoever adds it up.

    Parameters
    ----------
    cfg : Config
        Shapes, widths, and the style of the multipliers.

    Attributes
    ----------
    latency : int
        Cycles from operands to sums.
    deficit : int
        What every sum lacks: 0 or 1.

    Members
    -------
    inp : ``In(inp_elem_bits)``
        ``(batch, block_in)``, row-major, signed.
    wgt : ``In(wgt_elem_bits)``
        ``(block_out, block_in)``, row-major, signed; the bits of `wgt_inverted_bits` inverted.
    clear : ``In(1)``
        In the next cycle, ``sum + deficit`` is 0 in every lane.
    sum : ``Out(ArrayLayout(signed(acc_bits), batch * block_out))``
    """

    def __init__(self, cfg: Config) -> None:
        self.cfg = cfg
        self.latency = 3 if cfg.dsp_pack else 4
        self.deficit = 1 if cfg.dsp_pack else 0
        super().__init__(
            {
                "inp": In(cfg.inp_elem_bits),
                "wgt": In(cfg.wgt_elem_bits),
                "clear": In(1),
                "sum": Out(data.ArrayLayout(signed(cfg.acc_bits), cfg.lanes)),
            }
        )

    def elaborate(self, platform) -> Module:
        """Build one multiplier style."""
        m = Module()
        self._row = self._packed_row if self.cfg.dsp_pack else self._plain_row
        self._product = _product
        if self.cfg.dsp_pack:
            self._operands = (self.inp, self.wgt)
        elif self.cfg.dsp_cell == "mult18x18d":
            self._product = _mult18x18d
            self._operands = (self.inp, self.wgt)
        else:
            self._operands = (
                _register(m, "inp_q", self.inp.shape(), self.inp),
                _register(m, "wgt_q", self.wgt.shape(), self.wgt),
            )
        for b in range(self.cfg.batch):
            self._row(m, b)
        return m

    def _sum(self, m: Module, lane: int, total: Value) -> None:
        """The register of one sum."""
        register = Signal(total.shape(), name=f"sum_{lane}", reset_less=True)
        m.d.sync += register.eq(Mux(self.clear, -self.deficit, total))
        m.d.comb += self.sum[lane].eq(register)

    # ---- operands and results --------------------------------------------------------------
    def _inp(self, b: int, i: int):
        return self._operands[0].word_select(b * self.cfg.block_in + i, self.cfg.inp_bits)

    def _wgt(self, o: int, i: int):
        return self._operands[1].word_select(o * self.cfg.block_in + i, self.cfg.wgt_bits)

    # ---- one product a multiplier ----------------------------------------------------------
    def _plain_row(self, m: Module, b: int) -> None:
        cfg = self.cfg
        for o in range(cfg.block_out):
            products = [
                self._product(m, f"mul_{b}_{o}_{i}", self._inp(b, i), self._wgt(o, i))
                for i in range(cfg.block_in)
            ]
            self._sum(m, b * cfg.block_out + o, _tree(m, f"tree_{b}_{o}", products))

    # ---- two products a multiplier ---------------------------------------------------------
    def _packed_row(self, m: Module, b: int) -> None:
        cfg = self.cfg
        firsts = range(0, cfg.block_in, CHAIN)
        starts = [self._chain_start(m, b, first) for first in firsts]
        for o in range(0, cfg.block_out, 2):
            chains = [
                self._chain(m, b, o, first, start)
                for first, start in zip(firsts, starts, strict=True)
            ]
            for half in range(2):
                lane = b * cfg.block_out + o + half
                values = [chain.word_select(half, PAIR_BITS) for chain in chains]
                while len(values) > 1:
                    # a - ~b is a + b + 1, and the 1 is the adder's carry in
                    values = [
                        _sum_and_one(m, f"tree_{lane}", low, high)
                        for low, high in zip(values[::2], values[1::2], strict=True)
                    ]
                self._sum(m, lane, Cat(values[0][:-1], ~values[0][-1]).as_signed())

    def _chain_start(self, m: Module, b: int, first: int) -> Value:
        """What the chains of the inputs from `first` on begin with, one cycle behind the inputs.

        ``65535 - 128 * X`` is ``128 * (511 - X) + 127``, and ``511 - X`` with ``-x = ~x + 1`` is
        ``511 + n + sum(~x)`` for ``n`` inputs.
        """
        xs = [self._inp(b, i).as_signed() for i in self._links(first)]
        rest = sum((~x for x in xs[1:]), Const(511 + len(xs), signed(11)) + ~xs[0])
        scaled = _register(m, f"start_{b}_{first}", unsigned(10), rest[:10])
        return Cat(Const(127, 7), scaled, Const(0xFFFF, PAIR_BITS))

    def _chain(self, m: Module, b: int, o: int, first: int, start: Value) -> Signal:
        """Both sums of up to `CHAIN` products, two cycles behind the operands."""
        bits = 2 * PAIR_BITS
        total = start
        for i in self._links(first):
            pair = Cat(self._wgt(o, i), Const(0, PAIR_BITS - 8), self._wgt(o + 1, i)).as_signed()
            mul = _register(
                m, f"mul_{b}_{o}_{i}", signed(33), (pair * self._inp(b, i).as_signed())[:33]
            )
            following = Signal(bits, name=f"link_{b}_{o}_{i}")
            m.d.comb += following.eq(mul + total)
            total = following
        return _register(m, f"chain_{b}_{o}_{first}", unsigned(bits), total)

    def _links(self, first: int) -> range:
        return range(first, min(first + CHAIN, self.cfg.block_in))


def _register(m: Module, name: str, shape: ShapeCastable, value: ValueLike) -> Signal:
    register = Signal(shape, name=name, reset_less=True)
    m.d.sync += register.eq(value)
    return register


def _product(m: Module, name: str, a: Value, b: Value) -> Value:
    """Signed product, one cycle behind its operands."""
    return _register(m, name, signed(len(a) + len(b)), a.as_signed() * b.as_signed())


def _mult18x18d(m: Module, name: str, a: Value, b: Value) -> Value:
    """Signed product, two cycles behind its operands, in ``hw/cells/vta_mult18x18d.v``."""
    wide_a, wide_b = (Signal(signed(18), name=f"{name}_{operand}") for operand in ("a", "b"))
    product = Signal(signed(36), name=name)
    m.d.comb += [wide_a.eq(a.as_signed()), wide_b.eq(b.as_signed())]
    m.submodules[f"{name}_cell"] = Instance(
        "vta_mult18x18d", i_clk=ClockSignal(), i_a=wide_a, i_b=wide_b, o_p=product
    )
    return product[: len(a) + len(b)].as_signed()


def _sum_and_one(m: Module, name: str, low: Value, high: Value) -> Signal:
    """``low + high + 1`` of two equally wide unsigned numbers, in one adder."""
    bits = len(low) + 1
    total = Signal(bits, name=name)
    inverted = Signal(bits, name=f"{name}_inverted")
    m.d.comb += [inverted.eq(~Cat(high, Const(0, 1))), total.eq(low - inverted)]
    return total


def _tree(m: Module, name: str, values: list) -> Signal:
    """Sum with a register behind level 2, or the last if that is less; as wide as it must be."""
    levels = log2_exact(len(values))
    for level in range(levels):
        values = [a + b for a, b in zip(values[::2], values[1::2], strict=True)]
        if level == min(levels - 1, 1):
            values = [_register(m, f"{name}_{k}", v.shape(), v) for k, v in enumerate(values)]
    return values[0]
