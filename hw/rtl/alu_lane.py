"""One lane of the ALU: an adder, a rotator, a clip, and the multiplier that lanes take turns on."""

from __future__ import annotations

from amaranth import Cat, Const, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data, enum, wiring
from amaranth.lib.wiring import In, Out

from covta.hw.params import Config, log2_exact

__all__ = ["STAGE1_LAYOUT", "AluLane", "LaneMultiplier"]

CHUNK = 4
"""Bits that share the coarse part of a shift mask."""


class Select(enum.Enum, shape=unsigned(2)):
    """What a lane puts out; SUM and IMM differ in the upper bit only."""

    SHIFT = 0
    SUM = 1
    B = 2
    IMM = 3


STAGE1_LAYOUT = data.StructLayout(
    {"use_imm": 1, "subtract": 1, "min": 1, "max": 1, "add": 1, "shr": 1, "mul": 1, "rqt": 1}
)
"""Predecoded operation, equal for all lanes."""


class AluLane(wiring.Component):
    """Compute one element: operand `a` in the cycle of `load`, result registered two edges later.

    Stage 1 (cycle of `load`) adds or compares, and rotates `a` right by the low bits of operand 2.
    Stage 2 (cycle of `store`) turns the rotation into a shift, selects, and clips.

    A shift by ``b`` of either sign is a rotation right by ``r = b mod acc_bits`` under a mask: bit
    ``i`` keeps its value if ``i + r < acc_bits`` shifting right and if ``i + r >= acc_bits``
    shifting left. The mask is kept as coarse terms (a chunk of 4 bits is dropped, or contains the
    edge) and fine terms.

    Parameters
    ----------
    cfg : Config

    Members
    -------
    a : ``In(acc_bits)``
        acc data.
    capture : ``In(1)``
        Keep `a` as operand 2 from the next cycle on.
    load, op, imm : ``In``
        Stage 1 takes `a`, and `b` or `imm`.
    store : ``In(1)``
        Stage 2 takes the operation loaded last; operand 2 and `imm2` still hold.
    rqt2, imm2 : ``In``
        Whether that operation is RQT; its `imm`, 0 for RQT.
    product : ``In(acc_bits)``
        Of a MUL, 0 otherwise.
    kept_a, kept_b : ``Out(acc_bits)``
        `a` of a MUL after `load`, operand 2 after `capture`.
    o : ``Out(acc_bits)``
    """

    def __init__(self, cfg: Config) -> None:
        self.cfg = cfg
        n = cfg.acc_bits
        super().__init__(
            {
                "a": In(n),
                "capture": In(1),
                "load": In(1),
                "op": In(STAGE1_LAYOUT),
                "imm": In(n),
                "store": In(1),
                "rqt2": In(1),
                "imm2": In(n),
                "product": In(n),
                "kept_a": Out(n),
                "kept_b": Out(n),
                "o": Out(n),
            }
        )

    def elaborate(self, platform) -> Module:
        """Two stages."""
        m = Module()
        n = self.cfg.acc_bits
        self._b = Signal(n, name="b_q", reset_less=True)
        with m.If(self.capture):
            m.d.sync += self._b.eq(self.a)
        m.d.comb += self.kept_b.eq(self._b)
        self._stage1(m)
        self._stage2(m)
        return m

    # ---- stage 1 ---------------------------------------------------------------------------
    def _stage1(self, m: Module) -> None:
        n = self.cfg.acc_bits
        op = self.op
        b = Signal(n)
        m.d.comb += b.eq(Mux(op.use_imm, self.imm, self._b))
        self._sum = Signal(n, reset_less=True)
        self._select = Signal(Select, reset_less=True)
        less = self._add(m, b)
        with m.If(self.load):
            chosen_b = Mux(op.use_imm, Select.IMM, Select.B)
            with m.If(op.add):
                m.d.sync += self._select.eq(Select.SUM)
            with m.Elif(op.rqt if self.cfg.has("requantize") else 0):
                m.d.sync += self._select.eq(Select.IMM)
            with m.Elif((op.min & ~less) | (op.max & less)):
                m.d.sync += self._select.eq(chosen_b)
            with m.Else():
                m.d.sync += self._select.eq(Select.SHIFT)
        self._rotate(m, b)

    def _add(self, m: Module, b: Signal):
        """Register ``a + b`` (all ones for RQT); return whether ``a < b``, given `subtract`."""
        n = self.cfg.acc_bits
        op = self.op
        addend = Signal(n)
        m.d.comb += addend.eq(b ^ op.subtract.replicate(n))
        if self.cfg.has("requantize"):
            with m.If(op.rqt):
                m.d.comb += addend.eq(~self.a)
        # one bit below for the carry in, one above for the sign of the true difference
        left = Cat(op.subtract, self.a, self.a[-1])
        right = Cat(op.subtract, addend, addend[-1])
        total = Signal(n + 2)
        m.d.comb += total.eq(left + right)
        with m.If(self.load):
            m.d.sync += self._sum.eq(total[1 : n + 1])
        return total[n + 1]

    def _rotate(self, m: Module, b: Signal) -> None:
        n = self.cfg.acc_bits
        log2_n = log2_exact(n)
        op = self.op
        shifts = op.shr | op.rqt if self.cfg.has("requantize") else op.shr
        r = Signal(log2_n)
        left = Signal()
        over = Signal()

        def far(value):  # a shift by acc_bits or more, either way; for imm all lanes share this
            return value[log2_n:-1] != value[-1].replicate(n - 1 - log2_n)

        m.d.comb += [
            r.eq(b[:log2_n] & shifts.replicate(log2_n)),
            left.eq(op.shr & b[-1]),
            over.eq((op.shr & Mux(op.use_imm, far(self.imm), far(self._b))) | op.mul),
        ]
        if self.cfg.has("requantize") and log2_n < 5:
            with m.If(op.rqt):
                m.d.comb += over.eq(b[log2_n:5].any())

        value = self.a
        for bit in range(0, log2_n, 2):
            width = min(2, log2_n - bit)
            choices = [value.rotate_right(k << bit) for k in range(1 << width)]
            rotated = Signal(n, name=f"rotate_{bit}")
            with m.Switch(r[bit : bit + width]):
                for k, choice in enumerate(choices):
                    with m.Case(k):
                        m.d.comb += rotated.eq(choice)
            value = rotated

        chunks = n // CHUNK
        self._rotated = Signal(n, reset_less=True)
        self._fill = Signal(reset_less=True)
        self._drop = Signal(chunks, reset_less=True)
        self._edge = Signal(chunks, reset_less=True)
        self._fine = Signal(CHUNK, reset_less=True)
        drop_d, edge_d, fine_d = (
            Signal.like(q, name=f"{name}_d")
            for q, name in ((self._drop, "drop"), (self._edge, "edge"), (self._fine, "fine"))
        )
        coarse, fine = r[2:], r[:2]
        for j in range(CHUNK):
            m.d.comb += fine_d[j].eq(left ^ _table(fine, lambda q, j=j: q + j >= CHUNK))
        for k in range(chunks):
            edge = chunks - 1 - k
            above = _table(coarse, lambda p, edge=edge: p > edge)
            below = _table(coarse, lambda p, edge=edge: p < edge)
            m.d.comb += [
                edge_d[k].eq(_table(coarse, lambda p, edge=edge: p == edge)),
                drop_d[k].eq(over | Mux(left, below, above)),
            ]
        with m.If(self.load):
            m.d.sync += [
                self._rotated.eq(value),
                self._fill.eq(self.a[-1] & ~left & ~op.mul),
                self._fine.eq(fine_d),
                self._edge.eq(edge_d),
                self._drop.eq(drop_d),
            ]
        m.d.comb += self.kept_a.eq(self._rotated)
        if self.cfg.has("requantize"):
            self._over = Signal(reset_less=True)
            self._round = Signal(reset_less=True)
            self._relu = Signal(reset_less=True)
            with m.If(self.load):
                m.d.sync += [
                    self._over.eq(over),
                    self._round.eq(b[5] & b[:5].any()),
                    self._relu.eq(b[6]),
                ]

    # ---- stage 2 ---------------------------------------------------------------------------
    def _stage2(self, m: Module) -> None:
        n = self.cfg.acc_bits
        shifted = Signal(n)
        for i in range(n):
            k, j = divmod(i, CHUNK)
            drop = self._drop[k] | (self._edge[k] & self._fine[j])
            m.d.comb += shifted[i].eq(Mux(drop, self._fill, self._rotated[i]) | self.product[i])

        select = Signal(Select)
        m.d.comb += select.eq(self._select)
        clipped = self._clip(m, shifted, select) if self.cfg.has("requantize") else None
        selected = Signal(n)
        with m.Switch(select):
            with m.Case(Select.SHIFT):
                m.d.comb += selected.eq(shifted)
            with m.Case(Select.SUM):
                m.d.comb += selected.eq(self._sum)
            with m.Case(Select.B):
                m.d.comb += selected.eq(self._b)
            with m.Case(Select.IMM):
                m.d.comb += selected.eq(self.imm2)
        result = Signal(n, reset_less=True)
        with m.If(self.store):
            m.d.sync += result.eq(selected)
            if clipped is not None:
                with m.If(self.rqt2):
                    m.d.sync += result[: len(clipped)].eq(clipped)
        m.d.comb += self.o.eq(result)

    def _clip(self, m: Module, shifted: Signal, select: Signal) -> Signal:
        """Low bits of an RQT's result; its sign goes into `select`, as all ones or zeros.

        Rounding adds the last bit shifted out to the shifted value: it cannot overflow before the
        clip, since a value that reaches the upper bound is clipped to it with or without that bit.
        """
        magnitude_bits = self.cfg.out_bits - 1
        negative = self._fill
        carry = Signal()
        outside, all_ones, forced, keeps_sign = (Signal() for _ in range(4))
        last_out = self._rotated[-1]
        if self.cfg.acc_bits < 32:
            last_out = Mux(self._over, negative, last_out)
        upper = shifted[magnitude_bits:]
        low = shifted[:magnitude_bits]
        clipped = Signal(magnitude_bits)
        m.d.comb += [
            carry.eq(self._round & last_out),
            outside.eq(upper != negative.replicate(len(upper))),
            all_ones.eq(low.all()),
            forced.eq(outside | (negative & self._relu) | (~negative & all_ones)),
            clipped.eq(Mux(forced, (~negative).replicate(magnitude_bits), low + carry)),
            keeps_sign.eq(negative & ~self._relu & (outside | ~(all_ones & carry))),
        ]
        with m.If(self.rqt2):
            m.d.comb += Cat(select.as_value()[1]).eq(~keeps_sign)
        return clipped


def _table(index, predicate) -> Value:
    """Look a small index up: one LUT, where a comparison might become a carry chain."""
    size = 1 << len(index)
    return Const(sum(predicate(k) << k for k in range(size)), size).bit_select(index, 1)


class LaneMultiplier(wiring.Component):
    """Low ``acc_bits`` bits of a product, one register deep; 0 in cycles after `en` was low.

    32-bit operands take two multipliers of DSP size, 24 x 17 and 24 x 15, and the 8 x 8 corner of
    which only 8 bits count.

    Members
    -------
    en : ``In(1)``
    a, b : ``In(acc_bits)``
    o : ``Out(acc_bits)``, of the operands one cycle before
    """

    def __init__(self, cfg: Config) -> None:
        self.bits = cfg.acc_bits
        super().__init__({"en": In(1), "a": In(self.bits), "b": In(self.bits), "o": Out(self.bits)})

    def elaborate(self, platform) -> Module:
        """Partial products, a register each, and their sum."""
        m = Module()
        a, b = self.a, self.b
        if self.bits <= 16:
            partials = [(a.as_signed() * b.as_signed(), 0)]
        else:
            assert self.bits == 32
            partials = [(a[:24] * b[:17], 0), (a[:24] * b[17:], 17), (a[24:] * b[:8], 24)]
        terms = []
        for value, shift in partials:
            q = Signal(self.bits - shift, name=f"partial_{shift}", reset_less=True)
            m.d.sync += q.eq(Mux(self.en, value, 0))
            terms.append(Cat(Const(0, shift), q))
        m.d.comb += self.o.eq(sum(terms[1:], terms[0]))
        return m
