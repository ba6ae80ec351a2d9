"""Whether the turns of a loop may be done at once, statement by statement over all of them."""

from __future__ import annotations

from covta.compiler.ir.affine import Linear, linear
from covta.compiler.ir.stmt import Allocate, Buffer, For, If, Stmt, Store, walk_stmts
from covta.compiler.llvm.memory import flat
from covta.compiler.te.expr import Binary, Expr, Read, Reduce, Var, walk

__all__ = ["independent", "mentions", "reduction_of", "same_for_all"]


def mentions(expr: Expr, var: Var) -> bool:
    """True if `expr` depends on `var`."""
    return any(x is var for x in walk(expr))


def same_for_all(buffer: Buffer, indices: tuple[Expr, ...], var: Var) -> bool:
    """True if an access means one element for every value of `var`."""
    form = flat(tuple(buffer.shape), tuple(indices))
    return not any(mentions(t, var) for t in form.terms)


def reduction_of(s: Store) -> tuple[str, Expr] | None:
    """``b[i] = b[i] op x`` as ``(op, x)``, where `x` does not read `b`."""
    if not (isinstance(s.value, Binary) and s.value.op in ("add", "min", "max")):
        return None
    for own, other in ((s.value.a, s.value.b), (s.value.b, s.value.a)):
        if isinstance(own, Read) and own.tensor is s.buffer and own.indices == s.indices:
            if not any(isinstance(x, Read) and x.tensor is s.buffer for x in walk(other)):
                return s.value.op, other
    return None


def independent(loop: For) -> bool:
    """True if lanes of a vector may be turns of `loop`.

    Every buffer that is written is either cut into parts, one a turn, that no other turn reads or
    writes; or it is only added to, in one statement. Bounds of loops within do not vary.
    """
    inner: set[Var] = set()
    accesses: dict[Buffer, list[tuple[Expr, ...]]] = {}
    stores: dict[Buffer, list[Store]] = {}
    for s in walk_stmts(loop.body):
        match s:
            case For(var, begin, extent, _, kind):
                inner.add(var)
                if mentions(begin, loop.var) or mentions(extent, loop.var):
                    return False
                if kind in ("parallel", "vthread"):
                    return False
            case Store(buffer, indices, _):
                stores.setdefault(buffer, []).append(s)
                accesses.setdefault(buffer, []).append(tuple(indices))
            case If():
                pass
            case Allocate():
                return False
        for top in _expressions(s):
            for x in walk(top):
                if isinstance(x, Reduce):
                    return False
                if isinstance(x, Read):
                    accesses.setdefault(x.tensor, []).append(tuple(x.indices))  # type: ignore[arg-type]
    return all(
        _cut(buffer, accesses[buffer], loop.var, inner)
        or _only_combined(writes, accesses[buffer], loop.var)
        for buffer, writes in stores.items()
    )


def _expressions(s: Stmt) -> list[Expr]:
    match s:
        case Store(_, indices, what):
            return [*indices, what]
        case If(test, _):
            return [test]
        case For(_, begin, extent):
            return [begin, extent]
    return []


def _cut(buffer: Buffer, places: list[tuple[Expr, ...]], var: Var, inner: set[Var]) -> bool:
    """True if some index is the same, one for one with `var`, wherever the buffer is used."""
    views = [[linear(p[d]) for p in places] for d in range(len(buffer.shape))]
    views.append([flat(tuple(buffer.shape), p) for p in places])
    return any(
        all(form == forms[0] for form in forms) and _injective(forms[0], var, inner)
        for forms in views
    )


def _injective(form: Linear, var: Var, inner: set[Var]) -> bool:
    others = [t for t in form.terms if t is not var]
    return bool(form.coefficient(var)) and not any(
        mentions(t, v) for t in others for v in (var, *inner)
    )


def _only_combined(writes: list[Store], places: list[tuple[Expr, ...]], var: Var) -> bool:
    """True if one statement combines into elements that all turns share, and nothing else reads
    them."""
    if len(writes) != 1 or reduction_of(writes[0]) is None:
        return False
    # The places are those of the store and of its own read.
    return len(places) == 2 and same_for_all(writes[0].buffer, writes[0].indices, var)
