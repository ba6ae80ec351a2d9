"""Products of control: in logic where the array is to have the multipliers for itself."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal, Value

from covta.hw.params import Config

__all__ = ["product"]


def product(m: Module, cfg: Config, name: str, a: Value, b: Value) -> Value:
    """Product of two unsigned numbers.

    With ``cfg.dsp_pack``, whose array is built for parts that have just enough multipliers, it is
    a tree of adders over the rows ``a * b[k]``, which no synthesis takes for a multiplication.

    Parameters
    ----------
    m : Module
    cfg : Config
    name : str
        Prefix of the signals of the tree.
    a, b : Value
        Unsigned; `b` should be the shorter one.

    Returns
    -------
    Value
        ``len(a) + len(b)`` bits.
    """
    if not cfg.dsp_pack:
        return a * b
    terms = [(k, Mux(b[k], a, 0)) for k in range(len(b))]
    level = 0
    while len(terms) > 1:
        sums = []
        for k in range(0, len(terms) - 1, 2):
            (low_at, low), (high_at, high) = terms[k], terms[k + 1]
            bits = high_at - low_at + len(high) + 1
            total = Signal(bits, name=f"{name}_{level}_{k // 2}")
            m.d.comb += total.eq(low + (high << (high_at - low_at)))
            sums.append((low_at, total))
        terms = [*sums, *terms[len(sums) * 2 :]]
        level += 1
    return terms[0][1][: len(a) + len(b)]
