"""Tensorisation: prove that a loop nest is what an intrinsic computes, then replace it.

The nest's element expression and the intrinsic's are unified node by node. Every read of the nest
then stands against a placeholder; the loops from the tensorised one inwards are matched with the
behaviour's axes so that, in the last dimensions of every operand, both step alike, and in the
others the nest does not step at all. Only then are the two the same for all inputs.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from covta.compiler.intrin.tensor_intrin import IntrinCall, TensorIntrin
from covta.compiler.ir.affine import linear, simplify, variables
from covta.compiler.ir.stmt import Call, Region, Stmt, seq
from covta.compiler.schedule.stage import Stage, require
from covta.compiler.te.expr import (
    Binary,
    Const,
    Expr,
    Read,
    Reduce,
    Var,
    children,
    substitute,
)
from covta.compiler.te.tensor import IterVar, Tensor

if TYPE_CHECKING:
    from covta.compiler.lower.nest import StageNest

__all__ = ["check_tensorize", "tensorized"]

_COMMUTES = ("add", "mul", "min", "max")


def check_tensorize(stage: Stage) -> None:
    """Check what can be checked before bounds are known: the form of the element expression."""
    assert stage.intrin is not None
    _, intrin = stage.intrin
    body, behaviour = stage.body, intrin.behaviour.body
    if isinstance(behaviour, Reduce):
        require(
            isinstance(body, Reduce) and body.kind == behaviour.kind,
            f"tensorize: {intrin.name} is a {behaviour.kind} over {len(behaviour.axes)} axes,"
            f" {stage.name} is {body}",
        )
    else:
        require(
            not isinstance(body, Reduce), f"tensorize: {intrin.name} reduces nothing, {stage.name}"
            " does",
        )  # fmt: skip


def tensorized(n: StageNest, phase: str, localize: Callable[[Expr], Expr]) -> Stmt:
    """The intrinsic in place of the loops from the tensorised one inwards.

    Parameters
    ----------
    n : StageNest
    phase : str
        ``reset``, ``update``, or ``compute`` where no loop of the reduction is left outside.

    Raises
    ------
    ScheduleError
        If the nest is not what the intrinsic computes, with what differs.
    """
    stage = n.stage
    assert stage.intrin is not None
    axis, intrin = stage.intrin
    inner = stage.leaves[stage.leaves.index(axis) :]
    match = _Match(n, intrin, inner)
    source = localize(substitute(n.source, n.values))
    output, inputs = match.regions(source)
    if phase == "compute" and intrin.compute is None:
        return seq(
            _call(intrin, "reset", intrin.reset, output, ()),
            _call(intrin, "update", intrin.update, output, inputs),
        )
    call = {"compute": intrin.compute, "reset": intrin.reset, "update": intrin.update}[phase]
    return _call(intrin, phase, call, output, () if phase == "reset" else inputs)


def _call(
    intrin: TensorIntrin, phase: str, call: IntrinCall | None, output: Region, inputs: tuple
) -> Stmt:
    require(
        call is not None,
        f"tensorize: {intrin.name} has no {phase}, which this schedule needs",
    )
    assert call is not None
    return Call(intrin, phase, output, inputs, (("call", call.name), *call.attrs))


class _Match:
    def __init__(self, n: StageNest, intrin: TensorIntrin, inner: list[IterVar]) -> None:
        self.n, self.intrin, self.inner = n, intrin, inner
        self.what = f"tensorize: {n.stage.name} with {intrin.name}"
        for leaf in inner:
            require(
                isinstance(n.extents[leaf], Const),
                f"{self.what}: the loop {leaf.name} must have a fixed number of turns, got"
                f" {n.extents[leaf]}",
            )
        mine = {leaf.var for leaf in inner}
        guards = [*n.conditions, *([substitute(n.guard, n.values)] if n.guard is not None else [])]
        for guard in guards:
            require(
                not variables(guard) & mine,
                f"{self.what}: the condition {guard} differs within the intrinsic",
            )

    def turns(self, leaf: IterVar) -> int:
        extent = self.n.extents[leaf]
        assert isinstance(extent, Const)
        return int(extent.value)

    def regions(self, source: Expr) -> tuple[Region, tuple[Region, ...]]:
        """Operands of the intrinsic, once the proof is done."""
        behaviour = self.intrin.behaviour
        body = behaviour.body
        assert body is not None
        element = body.source if isinstance(body, Reduce) else body
        pairings = list(_unify(source, element))
        require(bool(pairings), f"{self.what}: {source} is not of the form {element}")
        problem: str | None = None
        for pairs in pairings:
            for mapping in self._mappings():
                trouble = self._compare(pairs, mapping)
                if trouble is None:
                    return self._boxes(pairs)
                problem = problem or trouble
        require(False, f"{self.what}: {problem or 'no order of the loops fits'}")
        raise AssertionError

    def _mappings(self) -> Iterator[dict[Var, Var]]:
        """Ways to pair the nest's loops with the behaviour's axes of equal extent."""
        behaviour = self.intrin.behaviour
        axes = [a for a in (*behaviour.axes, *behaviour.reduce_axis) if _turns(a) > 1]
        loops = [leaf for leaf in self.inner if self.turns(leaf) > 1]
        shape = sorted((_turns(a), a.reduce) for a in axes)
        have = sorted((self.turns(leaf), leaf.reduce) for leaf in loops)
        require(
            shape == have,
            f"{self.what}: it needs loops of {_describe(shape)} turns, got {_describe(have)}",
        )
        for order in itertools.permutations(loops):
            if all(
                self.turns(leaf) == _turns(a) and leaf.reduce == a.reduce
                for leaf, a in zip(order, axes, strict=True)
            ):
                yield {leaf.var: a.var for leaf, a in zip(order, axes, strict=True)}

    def _compare(self, pairs: list[tuple[Read, Read]], mapping: dict[Var, Var]) -> str | None:
        behaviour = self.intrin.behaviour
        out = Read(self.n.buffer, tuple(self.n.local))  # type: ignore[arg-type]
        theirs = Read(behaviour, tuple(a.var for a in behaviour.axes))
        bound: dict[Tensor, Read] = {}
        for mine, other in [(out, theirs), *pairs]:
            if bound.setdefault(other.tensor, mine) != mine:
                return f"{other.tensor.name} stands for {bound[other.tensor]} and for {mine}"
            if mine.dtype != other.dtype:
                return f"{mine.tensor.name} must be {other.dtype}, got {mine.dtype}"
            scope = self.intrin.scopes.get(other.tensor)
            where = mine.tensor.scope  # type: ignore[attr-defined]
            if scope is not None and where != scope:
                return f"{mine.tensor.name} must lie in {scope}, got {where}"
            lead = len(mine.indices) - len(other.indices)
            if lead < 0 and not all(i == Const(0) for i in other.indices[:-lead]):
                return f"{mine.tensor.name} has too few dimensions"
            for d, index in enumerate(mine.indices):
                terms = linear(index).terms.items()
                have = {mapping[v]: c for v, c in terms if isinstance(v, Var) and v in mapping}
                hidden = [
                    t
                    for t in linear(index).terms
                    if t not in mapping and variables(t) & set(mapping)
                ]
                if hidden:
                    return f"{mine.tensor.name}[{index}] is not linear in the loops"
                want = {}
                if d >= lead:
                    form = linear(other.indices[d - lead])
                    want = {v: c for v, c in form.terms.items() if v in mapping.values()}
                if have != want:
                    return f"{mine} does not step like {other}"
        return None

    def _boxes(self, pairs: list[tuple[Read, Read]]) -> tuple[Region, tuple[Region, ...]]:
        zero: dict[Var, Expr] = {leaf.var: Const(0) for leaf in self.inner}

        def box(read: Read, shape: tuple[int, ...]) -> Region:
            lead = len(read.indices) - len(shape)
            extents = (1,) * lead + shape[max(0, -lead) :]
            return Region(
                buffer=read.tensor,  # type: ignore[arg-type]
                begins=tuple(simplify(substitute(i, zero)) for i in read.indices),
                extents=tuple(map(Const, extents)),
            )

        out = Read(self.n.buffer, tuple(self.n.local))  # type: ignore[arg-type]
        by_input = {other.tensor: mine for mine, other in pairs}
        return (
            box(out, self.intrin.behaviour.shape),
            tuple(box(by_input[t], t.shape) for t in self.intrin.inputs),
        )


def _turns(axis: IterVar) -> int:
    assert isinstance(axis.extent, Const)
    return int(axis.extent.value)


def _describe(shape: list[tuple[int, bool]]) -> str:
    return ", ".join(f"{n}{' (reduced)' if r else ''}" for n, r in shape) or "no"


def _unify(mine: Expr, theirs: Expr) -> Iterator[list[tuple[Read, Read]]]:
    """Ways in which two trees are the same but for what is read."""
    if isinstance(theirs, Read):
        if isinstance(mine, Read):
            yield [(mine, theirs)]
        return
    if type(mine) is not type(theirs) or mine.dtype != theirs.dtype:
        return
    if isinstance(mine, Const | Var):
        if mine == theirs:
            yield []
        return
    if isinstance(mine, Binary) and isinstance(theirs, Binary):
        if mine.op != theirs.op:
            return
        orders = [(mine.a, mine.b)]
        if mine.op in _COMMUTES:
            orders.append((mine.b, mine.a))
        for a, b in orders:
            for left in _unify(a, theirs.a):
                for right in _unify(b, theirs.b):
                    yield left + right
        return
    parts, others = children(mine), children(theirs)
    if len(parts) != len(others):
        return
    results: list[list[tuple[Read, Read]]] = [[]]
    for p, o in zip(parts, others, strict=True):
        results = [r + more for r in results for more in _unify(p, o)]
    yield from results
