"""One lane of the ALU: an adder, a rotator, a clip, and the multiplier that lanes take turns on."""

from __future__ import annotations

from amaranth import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from covta.hw.params import Config, log2_exact

__all__ = ["STAGE1_LAYOUT", "AluLane", "LaneMultiplier"]

CHUNK = 8
"""Bits that share the coarse part of a shift mask."""

SPAN = 6
"""Bits of which one LUT6 tells whether they are equal."""

KEEP = {"keep": 1}
"""On a wire of two levels of logic that synthesis should not merge into three."""


STAGE1_LAYOUT = data.StructLayout(
    {"subtract": 1, "min": 1, "max": 1, "add": 1, "shift": 1, "replace": 1}
)
"""Predecoded operation, equal for all lanes.

`subtract` is set of MIN and MAX, `shift` of SHR and RQT, `replace` where nothing of `a` but perhaps
its sign remains: ADD, MUL, and shifts by an immediate of ``acc_bits`` or more.
"""


class AluLane(wiring.Component):
    """Compute one element: operand `a` in the cycle of `load`, result registered two edges later.

    Operand 2 is ``b | imm`` all along: whoever drives a lane clears the one that is not used, so
    that an immediate costs no multiplexer. Stage 1 (cycle of `load`) adds or compares, and rotates
    `a` right by the low bits of operand 2, all but the last level. Stage 2 (cycle of `store`) takes
    that last level, and replaces what is masked by a word that is a union of what the operations
    leave: registers of those that do not run are 0.

    A shift by ``b`` of either sign is a rotation right by ``r = b mod acc_bits`` under a mask: bit
    ``i`` keeps its value if ``i + r < acc_bits`` shifting right and if ``i + r >= acc_bits``
    shifting left. The mask is kept as coarse terms (a chunk of 8 bits is dropped) and, in the chunk
    with the edge only, fine ones; other operations than shifts drop every chunk.

    Parameters
    ----------
    cfg : Config

    Members
    -------
    a : ``In(acc_bits)``
        acc data.
    capture, clear : ``In(1)``
        Keep `a`, or 0, as `kept_b` from the next cycle on.
    shr, rqt, amount : ``In``
        With `capture` or `clear`, the operation; with `clear`, operand 2.
    load, op, imm : ``In``
        Stage 1 takes `a` and operand 2.
    store : ``In(1)``
        Stage 2 takes the operation loaded last.
    rqt2, imm2 : ``In``
        Whether that operation is RQT; its `imm`.
    product : ``In(acc_bits)``
        Of a MUL, 0 otherwise.
    kept_a, kept_b : ``Out(acc_bits)``
        `a` of a MUL after `load`, and what `capture` or `clear` left.
    o : ``Out(acc_bits)``
    """

    def __init__(self, cfg: Config) -> None:
        self.cfg = cfg
        n = cfg.acc_bits
        super().__init__(
            {
                "a": In(n),
                "capture": In(1),
                "clear": In(1),
                "shr": In(1),
                "rqt": In(1),
                "amount": In(n),
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
        b = Signal(self.cfg.acc_bits, name="b_q", reset_less=True)
        with m.If(self.clear):
            m.d.sync += b.eq(0)
        with m.Elif(self.capture):
            m.d.sync += b.eq(self.a)
        m.d.comb += self.kept_b.eq(b)
        self._add(m)
        self._amount(m)
        self._rotate(m)
        self._mask(m)
        self._finish(m)
        return m

    # ---- stage 1 ---------------------------------------------------------------------------
    def _add(self, m: Module) -> None:
        """Register ``a + b`` of an ADD; know whether MIN or MAX take operand 2."""
        n = self.cfg.acc_bits
        op = self.op
        addend = (self.kept_b | self.imm) ^ op.subtract.replicate(n)
        # one bit below for the carry in, one above for the sign of the true difference
        left = Cat(op.subtract, self.a, self.a[-1])
        right = Cat(op.subtract, addend, addend[-1])
        total = Signal(n + 2)
        m.d.comb += total.eq(left + right)
        less = total[n + 1]
        self._sum = Signal(n, reset_less=True)
        self._b = Signal(n, reset_less=True)
        self._take_b = Signal(reset_less=True)
        self._take_b_d = Signal()
        m.d.comb += self._take_b_d.eq((op.min & ~less) | (op.max & less))
        with m.If(self.load):
            m.d.sync += [
                self._sum.eq(Mux(op.add, total[1 : n + 1], 0)),
                self._b.eq(self.kept_b),
                self._take_b.eq(self._take_b_d),
            ]

    def _amount(self, m: Module) -> None:
        """Register what a shift needs to know of operand 2, one cycle before stage 1."""
        n = self.cfg.acc_bits
        log2_n = log2_exact(n)
        self._r = Signal(log2_n, reset_less=True)
        self._left = Signal(reset_less=True)
        parts = [self.a[k : k + SPAN] for k in range(log2_n, n - 1, SPAN - 1)]
        near = [part.all() | ~part.any() for part in parts]
        self._near = Signal(len(parts), reset_less=True)
        with m.If(self.clear):
            m.d.sync += [self._r.eq(_gray(self.amount[:log2_n])), self._left.eq(self.amount[-1])]
        with m.Elif(self.capture):
            m.d.sync += [
                self._r.eq(_gray(self.a[:log2_n])),
                self._left.eq(self.a[-1]),
                self._near.eq(Cat(near)),
            ]
        with m.If(self.clear | ~self.shr):
            m.d.sync += self._near.eq(~0)
        if self.cfg.has("requantize") and log2_n < 5:
            with m.If(self.rqt & ~self.clear):
                m.d.sync += self._near[0].eq(~self.a[log2_n:5].any())
        with m.If(~self.shr):
            m.d.sync += self._left.eq(0)
        with m.If(~(self.shr | self.rqt)):
            m.d.sync += self._r.eq(0)
        if self.cfg.has("requantize"):
            b = Mux(self.clear, self.amount, self.a)
            self._round_d = Signal(reset_less=True)
            self._relu_d = Signal(reset_less=True)
            m.d.sync += [self._round_d.eq(b[5] & b[:5].any()), self._relu_d.eq(b[6])]

    def _rotate(self, m: Module) -> None:
        """Register `a` rotated by the even number of low bits; an odd bit is left to stage 2."""
        n = self.cfg.acc_bits
        log2_n = log2_exact(n)
        value = self.a
        for bit in range(0, log2_n - 1, 2):
            rotated = Signal(n, name=f"rotate_{bit}")
            by = [value.rotate_right(k << bit) for k in range(4)]
            low, high = self._r[bit], self._r[bit + 1]
            low_first = Mux(high, Mux(low, by[2], by[3]), Mux(low, by[1], by[0]))
            high_first = Mux(low, Mux(high, by[2], by[1]), Mux(high, by[3], by[0]))
            m.d.comb += rotated.eq(
                Cat((high_first if i >> bit & 1 else low_first)[i] for i in range(n))
            )
            value = rotated
        self._rotated = Signal(n, reset_less=True)
        self._halfway = Signal(reset_less=True)
        with m.If(self.load):
            m.d.sync += self._rotated.eq(value)
            if log2_n % 2:
                m.d.sync += self._halfway.eq(self._r[-1])
        m.d.comb += self.kept_a.eq(self._rotated)

    def _mask(self, m: Module) -> None:
        n = self.cfg.acc_bits
        op = self.op
        left = self._left
        force = Signal()
        far = ~self._near.all() | op.replace
        m.d.comb += force.eq(far | self._take_b_d)
        chunks = n // CHUNK
        self._fill = Signal(reset_less=True)
        self._drop = Signal(chunks, reset_less=True)
        self._fine = Signal(n, reset_less=True)
        fine_d = Signal(CHUNK)
        r = self._r
        for j in range(CHUNK):
            beyond = _table(r[:4], lambda g, j=j: _gray_index(g) % CHUNK + j >= CHUNK)
            m.d.comb += fine_d[j].eq(left ^ beyond)
        for k in range(chunks):
            edge = chunks - 1 - k
            above = _table(r[3:], lambda q, edge=edge: q > edge)
            below = _table(r[3:], lambda q, edge=edge: q < edge)
            has_edge = Signal(name=f"has_edge_{k}")
            m.d.comb += has_edge.eq(_table(r[3:], lambda q, edge=edge: q == edge))
            with m.If(self.load):
                m.d.sync += [
                    self._drop[k].eq(Mux(left, below, above)),
                    self._fine.word_select(k, CHUNK).eq(Mux(has_edge, fine_d, 0)),
                ]
        with m.If(self.load & force):
            m.d.sync += self._drop.eq(~0)
        with m.If(self.load):
            m.d.sync += self._fill.eq(self.a[-1] & op.shift & ~left)
        if self.cfg.has("requantize"):
            self._over = Signal(reset_less=True)
            self._round = Signal(reset_less=True)
            self._relu = Signal(reset_less=True)
            with m.If(self.load):
                m.d.sync += [
                    self._over.eq(far),
                    self._round.eq(self._round_d),
                    self._relu.eq(self._relu_d),
                ]

    # ---- stage 2 ---------------------------------------------------------------------------
    def _finish(self, m: Module) -> None:
        n = self.cfg.acc_bits
        rotated = Mux(self._halfway, self._rotated.rotate_right(n // 2), self._rotated)
        other = Signal(n, attrs=KEEP)
        masked = Signal(n)
        selected = Signal(n)
        m.d.comb += [
            masked.eq(Cat(drop.replicate(CHUNK) for drop in self._drop) | self._fine),
            other.eq(
                self._fill.replicate(n)
                | self._sum
                | ((self._b | self.imm2) & self._take_b.replicate(n))
                | self.product
            ),
            selected.eq((rotated & ~masked) | (other & masked)),
        ]
        result = Signal(n, reset_less=True)
        with m.If(self.store):
            m.d.sync += result.eq(selected)
            if self.cfg.has("requantize"):
                clipped = self._clip(m, selected, rotated[-1])
                with m.If(self.rqt2):
                    m.d.sync += result.eq(clipped)
        m.d.comb += self.o.eq(result)

    def _clip(self, m: Module, shifted: Signal, last_out: Value) -> Value:
        """Result of an RQT, of which `last_out` is the last bit shifted out, if any.

        Rounding adds that bit to the shifted value: it cannot overflow before the clip, since a
        value that reaches the upper bound is clipped to it with or without that bit.
        """
        magnitude_bits = self.cfg.out_bits - 1
        negative = self._fill
        carry = Signal()
        outside, all_ones, forced, keeps_sign = (Signal() for _ in range(4))
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
        return Cat(clipped, keeps_sign.replicate(len(upper)))


def _gray(amount) -> Value:
    """Recode bits 0 and 1, and bits 2 and 3, as Gray codes.

    A 4:1 multiplexer takes as much under either code; but under this one, and with neighbours that
    look at the two bits in different order, no two bits of a rotator have half of theirs in common,
    and synthesis is not led to split what fits one LUT6.
    """
    return amount ^ (amount >> 1 & 0b00101)


def _gray_index(k: int) -> int:
    """Code of a number below 16, and the number of such a code."""
    return k ^ (k >> 1 & 0b0101)


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
