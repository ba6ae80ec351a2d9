"""Products of control in logic, which need no multiplier and no way to the column it lies in."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal, Value

__all__ = ["product"]


def product(m: Module, name: str, a: Value, b: Value) -> Value:
    """Product of two unsigned numbers, which no synthesis takes for a multiplication.

    A tree of adders over the rows ``a * b[k]``.

    Parameters
    ----------
    m : Module
    name : str
        Prefix of the signals of the tree.
    a, b : Value
        Unsigned; `b` should be the shorter one: it has a row for each of its bits.

    Returns
    -------
    Value
        ``len(a) + len(b)`` bits.
    """
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
