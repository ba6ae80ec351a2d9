"""Arithmetic on index expressions: linear forms, simplification, intervals, evaluation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import reduce

from covta.compiler.te.expr import (
    Binary,
    Cast,
    Const,
    Expr,
    Lookup,
    Select,
    Var,
    binary,
    children,
    maximum,
    minimum,
    rebuild,
    walk,
)

__all__ = ["Linear", "compile_exprs", "interval", "linear", "simplify", "variables"]


@dataclass
class Linear:
    """``const + sum(coefficient * term)``; terms are variables or what is not linear."""

    terms: dict[Expr, int] = field(default_factory=dict)
    const: int = 0

    def plus(self, other: Linear, factor: int = 1) -> Linear:
        """``self + factor * other``."""
        terms = dict(self.terms)
        const = self.const + factor * other.const
        for term, c in other.terms.items():
            if isinstance(term, Lookup):
                merged = _merge(terms, term, factor * c)
                if isinstance(merged, int):
                    const += merged
                else:
                    terms[merged] = 1
                continue
            total = terms.get(term, 0) + factor * c
            if total:
                terms[term] = total
            else:
                terms.pop(term, None)
        return Linear(terms, const)

    def times(self, factor: int) -> Linear:
        """``factor * self``."""
        return Linear().plus(self, factor)

    def coefficient(self, term: Expr) -> int:
        """Of one term, 0 if it is not there."""
        return self.terms.get(term, 0)

    def without(self, *terms: Expr) -> Linear:
        """The rest."""
        return Linear({t: c for t, c in self.terms.items() if t not in terms}, self.const)

    @property
    def is_const(self) -> bool:
        """True if nothing varies."""
        return not self.terms

    def expr(self) -> Expr:
        """As an expression, positive terms first."""
        positive = [(t, c) for t, c in self.terms.items() if c > 0]
        negative = [(t, -c) for t, c in self.terms.items() if c < 0]
        result: Expr = Const(0)
        if not positive or (negative and self.const > 0):
            positive.insert(0, (Const(self.const), 1))
            rest = 0
        else:
            rest = self.const
        for term, c in positive:
            result = binary("add", result, binary("mul", term, c))
        for term, c in negative:
            result = binary("sub", result, binary("mul", term, c))
        if rest:
            result = binary("add" if rest > 0 else "sub", result, Const(abs(rest)))
        return result


def _merge(terms: dict[Expr, int], term: Lookup, factor: int) -> Lookup | int:
    """`factor` times a table, with those of `terms` that have the same index taken out and added:
    one table, or a number if all its entries are equal."""
    table = [factor * entry for entry in term.table]
    same = [t for t in terms if isinstance(t, Lookup) and t.index == term.index]
    for t in same:
        c = terms.pop(t)
        table = [a + c * b for a, b in zip(table, t.table, strict=True)]
    return table[0] if len(set(table)) == 1 else Lookup(tuple(table), term.index)


def linear(expr: Expr) -> Linear:
    """An int32 expression as a linear form; what is not linear becomes a simplified term."""
    match expr:
        case Const(value, _):
            return Linear(const=int(value))
        case Var():
            return Linear({expr: 1})
        case Binary("add", a, b):
            return linear(a).plus(linear(b))
        case Binary("sub", a, b):
            return linear(a).plus(linear(b), -1)
        case Binary("mul", a, b):
            x, y = linear(a), linear(b)
            if y.is_const:
                return x.times(y.const)
            if x.is_const:
                return y.times(x.const)
            return _atom(binary("mul", x.expr(), y.expr()))
        case Binary(("floordiv" | "floormod") as op, a, b):
            x, y = linear(a), linear(b)
            if y.is_const and y.const > 0:
                return _divided(op, x, y.const)
            return _atom(binary(op, x.expr(), y.expr()))
        case Binary(("min" | "max") as op, a, b):
            return _extreme(op, linear(a), linear(b))
    parts = children(expr)
    if not parts:
        return _atom(expr)
    new = rebuild(expr, [simplify(p) for p in parts])
    folded = isinstance(new, Binary) and not (isinstance(expr, Binary) and new.op == expr.op)
    return linear(new) if folded else _atom(new)


def _atom(expr: Expr) -> Linear:
    if isinstance(expr, Const):
        return Linear(const=int(expr.value))
    if isinstance(expr, Lookup) and len(set(expr.table)) == 1:
        return Linear(const=expr.table[0])
    return Linear({expr: 1})


def _divided(op: str, x: Linear, d: int) -> Linear:
    """``x // d`` or ``x % d``: multiples of `d` come out of the division."""
    whole = Linear({t: c // d for t, c in x.terms.items() if c % d == 0}, x.const // d)
    rest = x.plus(whole, -d)
    if op == "floormod":
        if rest.is_const:
            return rest
        return _atom(binary("floormod", rest.expr(), d))
    if rest.is_const:
        return whole
    return whole.plus(_atom(binary("floordiv", rest.expr(), d)))


def _extreme(op: str, x: Linear, y: Linear) -> Linear:
    difference = x.plus(y, -1)
    if difference.is_const:
        return x if (difference.const <= 0) == (op == "min") else y
    return _atom(binary(op, x.expr(), y.expr()))


def simplify(expr: Expr) -> Expr:
    """The same value: linear parts collected, constants folded. Conditions too."""
    if expr.dtype != "int32":
        parts = children(expr)
        if not parts:
            return expr
        if isinstance(expr, Binary) and expr.op in ("lt", "le", "eq", "ne"):
            if expr.a.dtype != "int32":
                return rebuild(expr, [simplify(p) for p in parts])
            # a < b  ->  terms with positive coefficients left, the others right
            form = linear(expr.a).plus(linear(expr.b), -1)
            left = Linear({t: c for t, c in form.terms.items() if c > 0})
            right = Linear({t: -c for t, c in form.terms.items() if c < 0}, -form.const)
            return binary(expr.op, left.expr(), right.expr())
        return rebuild(expr, [simplify(p) for p in parts])
    return linear(expr).expr()


def variables(expr: Expr) -> set[Var]:
    """Variables that an expression depends on."""
    return {e for e in walk(expr) if isinstance(e, Var)}


Domain = Mapping[Var, tuple[Expr, Expr]]


def interval(expr: Expr, domain: Domain, outer: Domain | None = None) -> tuple[Expr, Expr]:
    """Least and greatest value of `expr` while variables run over `domain`.

    Parameters
    ----------
    expr : Expr
        int32.
    domain : mapping of Var to (Expr, Expr)
        First and last value of each variable that runs; others are kept as symbols.
    outer : mapping of Var to (Expr, Expr), optional
        What is known of those symbols: the sign of a divisor is found from it.

    Returns
    -------
    (Expr, Expr)
        Free of the variables of `domain`. Never too narrow; exact where each variable occurs once
        in a linear expression.
    """
    known = {v: d for v, d in (outer or {}).items() if v not in domain}
    return _Intervals(known).of(expr, domain)


def _spread(expr: Expr) -> Expr:
    """``c + min(a, b)`` as ``min(c + a, c + b)``, so that what cancels is seen to."""
    form = linear(expr)
    for term, c in form.terms.items():
        if isinstance(term, Binary) and term.op in ("min", "max") and abs(c) == 1:
            rest = form.without(term)
            if rest.is_const and not rest.const:
                return expr
            op = term.op if c == 1 else {"min": "max", "max": "min"}[term.op]
            a, b = rest.plus(linear(term.a), c), rest.plus(linear(term.b), c)
            return binary(op, _spread(a.expr()), _spread(b.expr()))
    return expr


@dataclass(frozen=True)
class _Intervals:
    """Intervals of expressions, by the form of the expression; each is found once."""

    outer: Domain
    found: dict[tuple[Expr, frozenset[Var]], tuple[Expr, Expr]] = field(default_factory=dict)

    def of(self, expr: Expr, domain: Domain) -> tuple[Expr, Expr]:
        key = expr, frozenset(domain)
        if key not in self.found:
            self.found[key] = self._linear(expr, domain)
        return self.found[key]

    def _linear(self, expr: Expr, domain: Domain) -> tuple[Expr, Expr]:
        form = linear(_spread(expr))
        low, high = Linear(const=form.const), Linear(const=form.const)
        for term, c in form.terms.items():
            least, greatest = self._term(term, domain)
            if c < 0:
                least, greatest = greatest, least
            low, high = low.plus(linear(least), c), high.plus(linear(greatest), c)
        return low.expr(), high.expr()

    def _term(self, term: Expr, domain: Domain) -> tuple[Expr, Expr]:
        if not any(v in domain for v in variables(term)):
            return term, term
        match term:
            case Var():
                first, last = domain[term]
                rest = {v: d for v, d in domain.items() if v is not term}
                return self.of(first, rest)[0], self.of(last, rest)[1]
            case Binary(op, a, b):
                return self._binary(op, self.of(a, domain), self.of(b, domain))
            case Select(_, a, b):
                (al, ah), (bl, bh) = self.of(a, domain), self.of(b, domain)
                return minimum(al, bl), maximum(ah, bh)
            case Lookup(table, index):
                low, high = self.of(index, domain)
                part = table
                if isinstance(low, Const) and isinstance(high, Const):
                    part = table[max(0, int(low.value)) : max(0, int(high.value) + 1)] or table
                return Const(min(part)), Const(max(part))
            case Cast(a, _) if a.dtype == "int8":
                return Const(-128), Const(127)
        return Const(-(1 << 31)), Const((1 << 31) - 1)  # what is read, or cast: any int32

    def _binary(self, op: str, a: tuple[Expr, Expr], b: tuple[Expr, Expr]) -> tuple[Expr, Expr]:
        (al, ah), (bl, bh) = a, b
        match op:
            case "min":
                return minimum(al, bl), minimum(ah, bh)
            case "max":
                return maximum(al, bl), maximum(ah, bh)
            case "floordiv":
                return self._quotient(a, b)
            case "floormod":
                return self._remainder(a, b)
        assert op in ("mul", "shr"), op
        if op == "mul" and self._at_least(al, 0) and self._at_least(bl, 0):
            return simplify(al * bl), simplify(ah * bh)
        # monotonic in either operand while the other stays: extremes lie in the corners
        corners = [simplify(binary(op, x, y)) for x in (al, ah) for y in (bl, bh)]
        return reduce(minimum, corners), reduce(maximum, corners)

    def _quotient(self, a: tuple[Expr, Expr], b: tuple[Expr, Expr]) -> tuple[Expr, Expr]:
        (al, ah), (bl, bh) = a, b
        if self._at_least(_negated(bh), 1):  # a // b == -a // -b
            return self._quotient((_negated(ah), _negated(al)), (_negated(bh), _negated(bl)))
        if not self._at_least(bl, 1):  # the divisor is not 0, whatever its sign
            most = simplify(maximum(ah, _negated(al)))
            return _negated(most), most
        lows = [al // bh] if self._at_least(al, 0) else [al // bl, al // bh]
        highs = [ah // bl] if self._at_least(ah, 0) else [ah // bl, ah // bh]
        low, high = reduce(minimum, map(simplify, lows)), reduce(maximum, map(simplify, highs))
        return al if al == Const(0) else low, ah if ah == Const(0) else high

    def _remainder(self, a: tuple[Expr, Expr], b: tuple[Expr, Expr]) -> tuple[Expr, Expr]:
        (al, ah), (bl, bh) = a, b
        if self._at_least(al, 0) and self._at_least(simplify(bl - ah), 1):
            return al, ah
        low = Const(0) if self._at_least(bl, 0) else simplify(minimum(0, bl + 1))
        high = Const(0) if self._at_least(_negated(bh), 0) else simplify(bh - 1)
        return low, high if self._at_least(bh, 1) else maximum(high, 0)

    def _at_least(self, expr: Expr, least: int) -> bool:
        """Whether that is known, of all values that the symbols take."""
        expr = simplify(expr)
        if not isinstance(expr, Const) and variables(expr) <= self.outer.keys():
            expr = self.of(expr, self.outer)[0]
        return isinstance(expr, Const) and expr.value >= least


def _negated(expr: Expr) -> Expr:
    return linear(expr).times(-1).expr()


# ---- evaluation -----------------------------------------------------------------------------
PYTHON_OPERATORS = {
    "add": "({} + {})", "sub": "({} - {})", "mul": "({} * {})", "floordiv": "({} // {})",
    "floormod": "({} % {})", "min": "min({}, {})", "max": "max({}, {})", "lt": "({} < {})",
    "le": "({} <= {})", "eq": "({} == {})", "ne": "({} != {})", "and": "({} and {})",
    "or": "({} or {})", "shr": "_shr({}, {})",
}  # fmt: skip


def compile_exprs(exprs: Iterable[Expr], names: Mapping[Var, str]) -> str:
    """Python source of a tuple of index expressions; `names` are those of the variables."""
    return "(" + "".join(f"{python_source(e, names)}, " for e in exprs) + ")"


def python_source(expr: Expr, names: Mapping[Var, str]) -> str:
    """Python source of an index expression or condition."""
    match expr:
        case Const(value, _):
            return repr(value)
        case Var():
            return names[expr]
        case Binary(op, a, b):
            return PYTHON_OPERATORS[op].format(python_source(a, names), python_source(b, names))
        case Select(c, a, b):
            yes, no = python_source(a, names), python_source(b, names)
            return f"({yes} if {python_source(c, names)} else {no})"
        case Lookup(table, index):
            return f"{table!r}[{python_source(index, names)}]"
    raise AssertionError(type(expr))


def evaluator(exprs: Iterable[Expr], variables_: Iterable[Var]) -> Callable[..., tuple[int, ...]]:
    """A function of the variables' values, in order, that gives the expressions'."""
    names = {v: f"v{k}" for k, v in enumerate(variables_)}
    source = f"lambda {', '.join(names.values())}: {compile_exprs(exprs, names)}"
    return eval(source, {"_shr": lambda a, b: a >> b if b >= 0 else a << -b})
