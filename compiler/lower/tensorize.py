"""Tensorisation: prove that a loop nest is what an intrinsic computes, then replace it.

The nest's element expression and the intrinsic's are unified node by node. Every read of the nest
then stands against a placeholder, and every loop from the tensorised one inwards against an axis of
the behaviour, of as many turns. Along each of its last dimensions the nest must read
``base + f(loops)`` where the behaviour reads ``c + f(axes)``, with the same linear `f`; along those
in front of them it must not step. The operand is then the box of the placeholder's shape that
begins at ``base - c``. That box must lie within the buffer: either because the nest itself reads
from its first to its last index, or because bounds say so. Only then are the two the same for all
inputs.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from covta.compiler.intrin.tensor_intrin import IntrinCall, TensorIntrin
from covta.compiler.ir.affine import Linear, linear, variables
from covta.compiler.ir.stmt import Call, Region, Stmt, seq
from covta.compiler.schedule.stage import Stage, require
from covta.compiler.te.expr import (
    Binary,
    Const,
    Expr,
    Lookup,
    Read,
    Reduce,
    Var,
    children,
    substitute,
    walk,
)
from covta.compiler.te.tensor import IterVar, Tensor, reads_of

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
        for other in n.stage.schedule.stages.values():
            require(
                other.inlined or other.attached not in [(n.stage, leaf) for leaf in inner],
                f"{self.what}: {other.name} is computed within the intrinsic",
            )
        mine = {leaf.var for leaf in inner}
        guards = [*n.conditions, *([substitute(n.guard, n.values)] if n.guard is not None else [])]
        for guard in guards:
            require(
                not variables(guard) & mine,
                f"{self.what}: the condition {guard} differs within the intrinsic",
            )
        behaviour = intrin.behaviour
        axes = (*behaviour.axes, *behaviour.reduce_axis)
        self.axes = {a.var: _turns(a) for a in axes if _turns(a) > 1}
        once: dict[Var, Expr] = {a.var: Const(0) for a in axes if _turns(a) == 1}
        self.output = self._operand(Read(behaviour, tuple(a.var for a in behaviour.axes)), once)
        self.operands = {r: self._operand(r, once) for r in reads_of(self._element)}

    @property
    def _element(self) -> Expr:
        body = self.intrin.behaviour.body
        assert body is not None
        return body.source if isinstance(body, Reduce) else body

    def _operand(self, read: Read, once: dict[Var, Expr]) -> _Operand:
        """How the behaviour reads a placeholder, or writes its result."""
        forms = tuple(linear(substitute(i, once)) for i in read.indices)
        spans = []
        for form, size in zip(forms, read.tensor.shape, strict=True):
            require(
                form.terms.keys() <= self.axes.keys(),
                f"{self.what}: {read} must be linear in the axes of {self.intrin.behaviour.name}",
            )
            steps = [c * (self.axes[v] - 1) for v, c in form.terms.items()]  # type: ignore[index]
            first = form.const + sum(c for c in steps if c < 0)
            last = form.const + sum(c for c in steps if c > 0)
            require(
                0 <= first and last < size,
                f"{self.what}: {read} goes from {first} to {last}, {read.tensor.name} has {size}",
            )
            spans.append((first, last) == (0, size - 1))
        return _Operand(read, forms, tuple(spans))

    def turns(self, leaf: IterVar) -> int:
        extent = self.n.extents[leaf]
        assert isinstance(extent, Const)
        return int(extent.value)

    def regions(self, source: Expr) -> tuple[Region, tuple[Region, ...]]:
        """Operands of the intrinsic, once the proof is done."""
        pairings = list(_unify(source, self._element, set(self.axes)))
        require(bool(pairings), f"{self.what}: {source} is not of the form {self._element}")
        problem: str | None = None
        for pairs in pairings:
            for mapping in self._mappings():
                try:
                    return self._compare(pairs, mapping)
                except _MismatchError as mismatch:
                    problem = problem or str(mismatch)
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

    def _compare(
        self, pairs: list[tuple[Read, Read]], mapping: dict[Var, Var]
    ) -> tuple[Region, tuple[Region, ...]]:
        """Output and inputs, if the nest does with `mapping` what the behaviour does."""
        out = self._box(Read(self.n.buffer, tuple(self.n.local)), self.output, mapping)  # type: ignore[arg-type]
        bound: dict[Tensor, tuple[Read, Region]] = {}
        for mine, other in pairs:
            box = self._box(mine, self.operands[other], mapping)
            first, there = bound.setdefault(other.tensor, (mine, box))
            if (there.buffer, there.begins) != (box.buffer, box.begins):
                raise _MismatchError(f"{other.tensor.name} stands for {first} and for {mine}")
        return out, tuple(bound[t][1] for t in self.intrin.inputs)

    def _box(self, mine: Read, operand: _Operand, mapping: dict[Var, Var]) -> Region:
        """What of a buffer stands for an operand."""
        other, shape = operand.read, operand.read.tensor.shape
        buffer, name = mine.tensor, mine.tensor.name
        if mine.dtype != other.dtype:
            raise _MismatchError(f"{name} must be {other.dtype}, got {mine.dtype}")
        scope, where = self.intrin.scopes.get(other.tensor), buffer.scope  # type: ignore[attr-defined]
        if scope is not None and where != scope:
            raise _MismatchError(f"{name} must lie in {scope}, got {where}")
        lead = len(mine.indices) - len(shape)
        if any(n > 1 for n in shape[: max(0, -lead)]):
            raise _MismatchError(f"{name} has too few dimensions")
        once: dict[Var, Expr] = {
            leaf.var: Const(0) for leaf in self.inner if leaf.var not in mapping
        }
        begins, extents = [], []
        for d, index in enumerate(mine.indices):
            form = linear(substitute(index, once))
            base = form.without(*mapping)
            if any(variables(t) & mapping.keys() for t in base.terms):
                raise _MismatchError(f"{name}[{index}] is not linear in the loops")
            if any(isinstance(e, Read) for t in base.terms for e in walk(t)):
                raise _MismatchError(f"{name}[{index}] depends on data")
            have = {mapping[v]: c for v, c in form.terms.items() if v in mapping}  # type: ignore[index]
            want = operand.forms[d - lead] if d >= lead else Linear()
            if have != want.terms:
                raise _MismatchError(f"{mine} does not step like {other}")
            begin = base.plus(Linear(const=-want.const))
            extent = shape[d - lead] if d >= lead else 1
            whole = d < lead or operand.spans[d - lead]
            if not self._inside(begin, extent, buffer.shape[d], whole):  # type: ignore[arg-type]
                raise _MismatchError(
                    f"{other} needs {begin.expr()}:+{extent} of dimension {d} of {name}, which has"
                    f" {buffer.shape[d]}"
                )
            begins.append(begin.expr())
            extents.append(Const(extent))
        return Region(buffer=buffer, begins=tuple(begins), extents=tuple(extents))  # type: ignore[arg-type]

    def _inside(self, begin: Linear, extent: int, size: Expr, whole: bool) -> bool:
        """Whether a part of a dimension lies within it; the nest is right if it is `whole`."""
        behind = begin.plus(Linear(const=extent)).plus(linear(size), -1)
        if whole and not (begin.is_const and behind.is_const):
            return True
        bounds = self.n.bounds
        return bounds.least(begin.expr()) >= 0 and bounds.greatest(behind.expr()) <= 0


class _MismatchError(Exception):
    """One way to pair a nest with a behaviour fails, with what differs."""


@dataclass(frozen=True)
class _Operand:
    """A read of a placeholder: its indices, and along which of them it reaches both ends."""

    read: Read
    forms: tuple[Linear, ...]
    spans: tuple[bool, ...]


def _turns(axis: IterVar) -> int:
    assert isinstance(axis.extent, Const)
    return int(axis.extent.value)


def _describe(shape: list[tuple[int, bool]]) -> str:
    return ", ".join(f"{n}{' (reduced)' if r else ''}" for n, r in shape) or "no"


def _unify(mine: Expr, theirs: Expr, axes: set[Var]) -> Iterator[list[tuple[Read, Read]]]:
    """Ways in which two trees are the same but for what is read; `axes` have no values to compare.

    A table's entries and a constant's sign count: ``-0.0`` divides otherwise than ``0.0``.
    """
    if isinstance(theirs, Read):
        if isinstance(mine, Read):
            yield [(mine, theirs)]
        return
    if type(mine) is not type(theirs) or mine.dtype != theirs.dtype:
        return
    if isinstance(mine, Const | Var):
        if mine == theirs and repr(mine) == repr(theirs) and mine not in axes:
            yield []
        return
    if isinstance(mine, Lookup) and isinstance(theirs, Lookup) and mine.table != theirs.table:
        return
    if isinstance(mine, Binary) and isinstance(theirs, Binary):
        if mine.op != theirs.op:
            return
        orders = [(mine.a, mine.b)]
        if mine.op in _COMMUTES:
            orders.append((mine.b, mine.a))
        for a, b in orders:
            for left in _unify(a, theirs.a, axes):
                for right in _unify(b, theirs.b, axes):
                    yield left + right
        return
    parts, others = children(mine), children(theirs)
    if len(parts) != len(others):
        return
    results: list[list[tuple[Read, Read]]] = [[]]
    for p, o in zip(parts, others, strict=True):
        results = [r + more for r in results for more in _unify(p, o, axes)]
    yield from results
