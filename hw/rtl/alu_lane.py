"""One lane of the ALU: a comparator, a rotator, an adder; the multiplier that lanes share."""

from __future__ import annotations

from amaranth import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from covta.hw.microarchitecture import MUL_LATENCY_CYCLES
from covta.hw.params import Config, log2_exact

__all__ = ["STAGE1_LAYOUT", "AluLane", "LaneMultiplier"]

CHUNK = 8
"""Bits that share the coarse part of a shift mask."""

STAGE1_LAYOUT = data.StructLayout({"min": 1, "max": 1, "add": 1, "mul": 1, "shift": 1})
"""Predecoded operation, equal for all lanes; `shift` is set of SHR and RQT."""


class AluLane(wiring.Component):
    """Compute one element: operand `a` in the cycle of `load`, result registered two edges later.

    Operand 2 is what `a` was in the cycle of `capture`, until the next one; that must come not
    earlier than in the cycle of `store`. Stage 1 (cycle of `load`) rotates `a` right by the low
    bits of operand 2, all but the last level: `a` may come late in its cycle. Stage 2 (cycle of
    `store`) takes that last level, masks it, and adds operand 2 (ADD) or a product, or puts the
    sign in the masked bits. Beside that it compares, and MIN and MAX take operand 2 if it wins.

    A shift by ``b`` of either sign is a rotation right by ``r = b mod acc_bits`` under a mask: bit
    ``i`` keeps its value if ``i + r < acc_bits`` shifting right and if ``i + r >= acc_bits``
    shifting left. The mask is kept as coarse terms (a chunk of 8 bits is dropped) and fine ones, of
    the chunk with the edge.

    Parameters
    ----------
    cfg : Config

    Members
    -------
    a : ``In(acc_bits)``
        acc data.
    capture, shr, rqt : ``In(1)``
        Keep `a` as operand 2, which a SHR or an RQT will shift by.
    load, op : ``In``
        Stage 1 takes `a`.
    store : ``In(1)``
        Stage 2 takes the operation loaded last.
    rqt2 : ``In(1)``
        Whether that operation is RQT.
    product : ``In(acc_bits)``
        Of a MUL, 0 otherwise.
    kept_a, kept_b : ``Out(acc_bits)``
        `a` of a MUL after `load`, and operand 2.
    o : ``Out(acc_bits)``
    """

    def __init__(self, cfg: Config) -> None:
        self.cfg = cfg
        n = cfg.acc_bits
        super().__init__(
            {
                "a": In(n),
                "capture": In(1),
                "shr": In(1),
                "rqt": In(1),
                "load": In(1),
                "op": In(STAGE1_LAYOUT),
                "store": In(1),
                "rqt2": In(1),
                "product": In(n),
                "kept_a": Out(n),
                "kept_b": Out(n),
                "o": Out(n),
            }
        )

    def elaborate(self, platform) -> Module:
        """Operand 2, then two stages."""
        m = Module()
        self._operand(m)
        self._rotate(m)
        self._mask(m)
        self._finish(m)
        return m

    # ---- operand 2 -------------------------------------------------------------------------
    def _operand(self, m: Module) -> None:
        """Register operand 2 and what a shift needs to know of it."""
        n = self.cfg.acc_bits
        log2_n = log2_exact(n)
        self._b = Signal(n, name="b_q", reset_less=True)
        self._r = Signal(log2_n, reset_less=True)
        self._left = Signal(reset_less=True)
        self._far = Signal(reset_less=True)
        far = self.shr & (self.a[log2_n:] != self.a[-1].replicate(n - log2_n))
        if self.cfg.has("requantize") and log2_n < 5:
            far |= self.rqt & self.a[log2_n:5].any()
        with m.If(self.capture):
            m.d.sync += [
                self._b.eq(self.a),
                self._r.eq(_gray(self.a[:log2_n])),
                self._left.eq(self.a[-1] & self.shr),
                self._far.eq(far),
            ]
            with m.If(~(self.shr | self.rqt)):
                m.d.sync += self._r.eq(0)
        m.d.comb += self.kept_b.eq(self._b)

    # ---- stage 1 ---------------------------------------------------------------------------
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
        with m.If(self.load):
            m.d.sync += self._rotated.eq(value)
        m.d.comb += self.kept_a.eq(self._rotated)

    def _mask(self, m: Module) -> None:
        n = self.cfg.acc_bits
        left, r = self._left, self._r
        chunks = n // CHUNK
        self._fill = Signal(reset_less=True)
        self._drop = Signal(chunks, reset_less=True)
        fine = Signal(CHUNK, reset_less=True)
        for j in range(CHUNK):
            beyond = _table(r[:4], lambda g, j=j: _gray_index(g) % CHUNK + j >= CHUNK)
            m.d.sync += fine[j].eq(left ^ beyond)
        masked = []
        for k in range(chunks):
            edge = chunks - 1 - k
            above = _table(r[3:], lambda q, edge=edge: q > edge)
            below = _table(r[3:], lambda q, edge=edge: q < edge)
            at = _table(r[3:], lambda q, edge=edge: q == edge)
            with m.If(self.load):
                m.d.sync += self._drop[k].eq(Mux(left, below, above) | self._far | self.op.mul)
            masked += [self._drop[k] | (at & fine[j]) for j in range(CHUNK)]
        self._masked = Cat(masked)
        with m.If(self.load):
            m.d.sync += self._fill.eq(self.a[-1] & self.op.shift & ~left)

    # ---- stage 2 ---------------------------------------------------------------------------
    def _finish(self, m: Module) -> None:
        n = self.cfg.acc_bits
        rotated = self._rotated
        if log2_exact(n) % 2:
            rotated = Mux(self._r[-1], rotated.rotate_right(n // 2), rotated)
        masked = Signal(n)
        shifted = Signal(n)
        op = Signal(STAGE1_LAYOUT, name="op_q", reset_less=True)
        with m.If(self.load):
            m.d.sync += op.eq(self.op)
        less = Signal()
        take_b = Signal()
        # Yosys gives the operand that is one wire to the data inputs of the carry chain, so that
        # the other one merges into the tables of the sum.
        other = Cat((self._b[i] & op.add) | self.product[i] for i in range(n))
        m.d.comb += [
            # of MIN and MAX: operand 2 then rotates by 0 and masks nothing
            less.eq(self._rotated.as_signed() < self._b.as_signed()),
            take_b.eq((op.min & ~less) | (op.max & less)),
            masked.eq(self._masked),
            shifted.eq((rotated & ~masked) | (self._fill.replicate(n) & masked)),
        ]
        result = Signal(n, reset_less=True)
        with m.If(self.store):
            m.d.sync += result.eq(shifted + other)
            if self.cfg.has("requantize"):
                clipped = self._clip(m, shifted, rotated[-1])
                with m.If(self.rqt2):
                    m.d.sync += result.eq(clipped)
            with m.If(take_b):
                m.d.sync += result.eq(self._b)
        m.d.comb += self.o.eq(result)

    def _clip(self, m: Module, shifted: Signal, last_out: Value) -> Value:
        """Result of an RQT, of which `last_out` is the last bit shifted out, if any.

        Rounding adds that bit to the shifted value: it cannot overflow before the clip, since a
        value that reaches the upper bound is clipped to it with or without that bit.
        """
        magnitude_bits = self.cfg.out_bits - 1
        negative = self._fill
        rounds = self._b[5] & self._b[:5].any()
        relu = self._b[6]
        carry = Signal()
        outside = Signal()
        all_ones = Signal()
        forced = Signal()
        keeps_sign = Signal()
        if self.cfg.acc_bits < 32:
            last_out = Mux(self._far, negative, last_out)
        upper = shifted[magnitude_bits:]
        low = shifted[:magnitude_bits]
        clipped = Signal(magnitude_bits)
        m.d.comb += [
            carry.eq(rounds & last_out),
            outside.eq(upper != negative.replicate(len(upper))),
            all_ones.eq(low.all()),
            forced.eq(outside | (negative & relu) | (~negative & all_ones)),
            clipped.eq(Mux(forced, (~negative).replicate(magnitude_bits), low + carry)),
            keeps_sign.eq(negative & ~relu & (outside | ~(all_ones & carry))),
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
    """Low ``acc_bits`` bits of a product; 0 if `en` was low.

    Latency `LATENCY` cycles: operands, partial products and their sum are registered. 32-bit
    operands take three multipliers of 16 x 16; with ``cfg.dsp_pack`` two, of 24 x 17 and 15 x 15,
    and the low half of 8 x 8 in logic.

    Members
    -------
    en : ``In(1)``
    a, b : ``In(acc_bits)``
    o : ``Out(acc_bits)``
    """

    LATENCY = MUL_LATENCY_CYCLES

    def __init__(self, cfg: Config) -> None:
        self.bits = cfg.acc_bits
        self._cut = (24, 17) if cfg.dsp_pack else (16, 16)
        super().__init__({"en": In(1), "a": In(self.bits), "b": In(self.bits), "o": Out(self.bits)})

    def elaborate(self, platform) -> Module:
        """Operands, partial products, their sum."""
        m = Module()
        n = self.bits
        a, b, o = (Signal(n, name=f"{name}_q", reset_less=True) for name in ("a", "b", "o"))
        valid = Signal(2)
        m.d.sync += [a.eq(self.a), b.eq(self.b), valid.eq(Cat(self.en, valid[0]))]
        if n <= 16:
            partials = [(a.as_signed() * b.as_signed(), 0)]
        else:
            assert n == 32
            cut_a, cut_b = self._cut
            partials = [
                (a[:cut_a] * b[:cut_b], 0),
                (a[: n - cut_b] * b[cut_b:], cut_b),
                (a[cut_a:] * b[: n - cut_a], cut_a),
            ]
        terms = []
        for k, (value, shift) in enumerate(partials):
            q = Signal(n - shift, name=f"partial_{k}", reset_less=True)
            m.d.sync += q.eq(value)
            terms.append(Cat(Const(0, shift), q))
        m.d.sync += o.eq(Mux(valid[1], sum(terms[1:], terms[0]), 0))
        m.d.comb += self.o.eq(o)
        return m
