"""The multiplier array: one matrix-vector product a cycle."""

from __future__ import annotations

from amaranth import Cat, Const, Module, Signal, signed, unsigned
from amaranth.hdl import ShapeCastable, ValueLike
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from covta.hw.params import Config, log2_exact

__all__ = ["MacArray"]


class MacArray(wiring.Component):
    """Multiply every inp row with every wgt row and add up the products.

    ``sum[b*block_out + o] = sum_i inp[b][i] * wgt[o][i]``, modulo ``2**acc_bits``. Latency 4
    cycles: operands presented at ``c``, sums valid at ``c + 4``.
    One tensor a cycle, no stall, no reset.

    ======= =========================================================
    cycle   register
    ======= =========================================================
    c + 1   multipliers (DSP48 ``M``)
    c + 2   products (DSP48 ``P``)
    c + 3   adder tree, levels 1 and 2
    c + 4   adder tree, the other levels
    ======= =========================================================

    With ``cfg.dsp_pack`` the output lanes ``2k`` and ``2k+1`` share one 24 x 8 multiplier. Its wide
    operand is ``{w_hi, 8'b0, w_lo + 128}``, so with the input ``x`` the product is
    ``w_hi * x * 2**16 + (w_lo + 128) * x``. The adder behind the multiplier (port ``C`` of a DSP48)
    adds ``2**31 + 2**15 - 128 * (x + 1)``: that turns both halves into unsigned 16-bit numbers,
    ``w_hi * x + 2**15`` and ``w_lo * x + 2**15 - 128``, without a borrow between them, from wires
    and inverters only. The ``-128`` of every product is made good in the first one. The tree adds
    unsigned numbers, and ``block_in * 2**15`` leaves its result by an inverted top bit.

    Parameters
    ----------
    cfg : Config
        Shapes, widths, and the style of the multipliers.

    Members
    -------
    inp : ``In(inp_elem_bits)``
        ``(batch, block_in)``, row-major, signed.
    wgt : ``In(wgt_elem_bits)``
        ``(block_out, block_in)``, row-major, signed.
    sum : ``Out(ArrayLayout(signed(acc_bits), batch * block_out))``
    """

    latency = 4

    def __init__(self, cfg: Config) -> None:
        self.cfg = cfg
        super().__init__(
            {
                "inp": In(cfg.inp_elem_bits),
                "wgt": In(cfg.wgt_elem_bits),
                "sum": Out(data.ArrayLayout(signed(cfg.acc_bits), cfg.lanes)),
            }
        )

    def elaborate(self, platform) -> Module:
        """Build one multiplier style; the tree is the same."""
        m = Module()
        for b in range(self.cfg.batch):
            if self.cfg.dsp_pack:
                self._packed_row(m, b)
            else:
                self._plain_row(m, b)
        return m

    # ---- operands and results --------------------------------------------------------------
    def _inp(self, b: int, i: int):
        return self.inp.word_select(b * self.cfg.block_in + i, self.cfg.inp_bits)

    def _wgt(self, o: int, i: int):
        return self.wgt.word_select(o * self.cfg.block_in + i, self.cfg.wgt_bits)

    def _plain_row(self, m: Module, b: int) -> None:
        cfg = self.cfg
        bits = cfg.inp_bits + cfg.wgt_bits
        for o in range(cfg.block_out):
            products = []
            for i in range(cfg.block_in):
                name = f"{b}_{o}_{i}"
                mul = _register(
                    m,
                    f"mul_{name}",
                    signed(bits),
                    self._inp(b, i).as_signed() * self._wgt(o, i).as_signed(),
                )
                products.append(_register(m, f"product_{name}", signed(bits), mul))
            total = _tree(m, f"tree_{b}_{o}", products)
            m.d.comb += self.sum[b * cfg.block_out + o].eq(total)

    def _packed_row(self, m: Module, b: int) -> None:
        cfg = self.cfg
        offsets = [self._offset(m, b, i) for i in range(cfg.block_in)]
        for o in range(0, cfg.block_out, 2):
            low, high = [], []
            for i in range(cfg.block_in):
                name = f"{b}_{o}_{i}"
                pair = Cat(self._wgt(o, i) ^ 0x80, Const(0, 8), self._wgt(o + 1, i)).as_signed()
                mul = _register(m, f"mul_{name}", signed(32), pair * self._inp(b, i).as_signed())
                product = _register(m, f"product_{name}", unsigned(32), mul + offsets[i])
                low.append(product[:16])
                high.append(product[16:])
            for lane, products in ((o, low), (o + 1, high)):
                total = _tree(m, f"tree_{b}_{lane}", products)
                signed_total = Cat(total[:-1], ~total[-1]).as_signed()
                m.d.comb += self.sum[b * cfg.block_out + lane].eq(signed_total)

    def _offset(self, m: Module, b: int, i: int) -> Signal:
        """The addend of all products with ``inp[b][i]``, one cycle behind it."""
        x = self._inp(b, i)
        # 256 + ~x = 255 - x, nine bits; the first product adds block_in for all of them
        scaled = Cat(~x, x[-1])
        if i == 0:
            scaled = (scaled + self.cfg.block_in)[:9]
        scaled_q = _register(m, f"offset_{b}_{i}", unsigned(9), scaled)
        return Cat(Const(0, 7), scaled_q, Const(0, 15), Const(1, 1))


def _register(m: Module, name: str, shape: ShapeCastable, value: ValueLike) -> Signal:
    register = Signal(shape, name=name, reset_less=True)
    m.d.sync += register.eq(value)
    return register


def _tree(m: Module, name: str, values: list) -> Signal:
    """Sum in two registers, behind level 2 and behind the last; no level wider than it must be."""
    levels = log2_exact(len(values))
    for level in range(levels):
        values = [a + b for a, b in zip(values[::2], values[1::2], strict=True)]
        if level == 1:
            values = [_register(m, f"{name}_l2_{k}", v.shape(), v) for k, v in enumerate(values)]
    total = _register(m, f"{name}_sum", values[0].shape(), values[0])
    return total if levels >= 2 else _register(m, f"{name}_late", total.shape(), total)
