"""Which part of each tensor its consumers need, where it is computed."""

from __future__ import annotations

from collections.abc import Sequence

from covta.compiler.ir.affine import interval, linear, simplify, variables
from covta.compiler.lower.iteration import Iteration
from covta.compiler.schedule.schedule import Schedule
from covta.compiler.schedule.stage import Stage, require
from covta.compiler.te.expr import (
    Cast,
    Const,
    Expr,
    Read,
    Var,
    maximum,
    minimum,
    substitute,
    transform,
    walk,
)
from covta.compiler.te.tensor import Tensor, reads_of

__all__ = ["Bounds", "inline_all"]


def inline_all(schedule: Schedule) -> dict[Stage, Expr]:
    """Bodies of all stages that are not inlined, with those that are put in their place."""
    bodies: dict[Stage, Expr] = {}

    def rule(e: Expr) -> Expr | None:
        if isinstance(e, Read) and e.tensor in schedule.stages:
            source = schedule.stages[e.tensor]
            if source.inlined:
                values = {a.var: i for a, i in zip(source.axes, e.indices, strict=True)}
                return transform(substitute(source.body, values), rule)  # type: ignore[arg-type]
        return None

    for stage in schedule.ordered():
        if not stage.inlined:
            bodies[stage] = transform(stage.body, rule)
    return bodies


class Bounds:
    """Regions of all stages, consumers first.

    Attributes
    ----------
    begins, extents : dict of Stage to list of Expr
        Of the part of the tensor that one computation of the stage fills, in terms of the loops
        around it.
    iteration : dict of Stage to Iteration
    """

    def __init__(self, schedule: Schedule, bodies: dict[Stage, Expr]) -> None:
        self.schedule = schedule
        self.bodies = bodies
        self.begins: dict[Stage, list[Expr]] = {}
        self.extents: dict[Stage, list[Expr]] = {}
        self.iteration: dict[Stage, Iteration] = {}
        self._domain: dict[Var, tuple[Expr, Expr]] = {}
        for stage in bodies:
            if stage.attached is not None:
                host, axis = stage.attached
                require(
                    axis in host.leaves,
                    f"compute_at: {axis.name} is no longer a loop of {host.name}; schedule it"
                    " first",
                )
        for stage in reversed(list(bodies)):
            self._infer(stage)

    def index_values(self, stage: Stage) -> dict[Var, Expr]:
        """The stage's axes as positions in the whole tensor, in terms of loop variables."""
        it = self.iteration[stage]
        values: dict[Var, Expr] = {
            a.var: simplify(it.value(a) + b)
            for a, b in zip(stage.axes, self.begins[stage], strict=True)
        }
        return values | {a.var: it.value(a) for a in stage.reduce_axes}

    def visible(self, stage: Stage) -> set[Var]:
        """Variables of the loops around one computation of a stage."""
        if stage.attached is None:
            return set()
        host, axis = stage.attached
        at = host.leaves.index(axis)
        return self.visible(host) | {a.var for a in host.leaves[: at + 1]}

    def _infer(self, stage: Stage) -> None:
        shape = stage.tensor.shape
        if stage.attached is None:
            begins: list[Expr] = [Const(0)] * len(shape)
            extents: list[Expr] = [Const(n) for n in shape]
        else:
            begins, extents = self._needed(stage)
        self.begins[stage], self.extents[stage] = begins, extents
        it = Iteration(stage, dict(zip(stage.axes, extents, strict=True)))
        self.iteration[stage] = it
        for leaf in stage.leaves:
            self._domain[leaf.var] = (Const(0), simplify(it.most(leaf) - 1))

    def _needed(self, stage: Stage) -> tuple[list[Expr], list[Expr]]:
        assert stage.attached is not None
        host, axis = stage.attached
        require(
            host in self.bodies, f"compute_at: {stage.name} lies in {host.name}, which is inlined"
        )
        visible = self.visible(stage)
        boxes: list[list[tuple[Expr, Expr]]] = []
        copied = self._as_reader(stage)
        if copied is not None:
            return copied
        for reader, body in self.bodies.items():
            reads = [r for r in reads_of(body) if r.tensor is stage.tensor]
            if not reads:
                continue
            require(
                self._inside(reader, host, axis),
                f"compute_at: {stage.name} is read by {reader.name}, which lies outside of"
                f" {host.name}'s loop {axis.name}",
            )
            values = self.index_values(reader)
            for read in reads:
                boxes.append(
                    [
                        self._range(substitute(i, values), visible, n)
                        for i, n in zip(read.indices, stage.tensor.shape, strict=True)
                    ]
                )
        require(bool(boxes), f"compute_at: nobody reads {stage.name}")
        return self._box(boxes, stage.tensor)

    def _as_reader(self, stage: Stage) -> tuple[list[Expr], list[Expr]] | None:
        """Where one neighbour reads every element once, in order: its own part, exactly."""
        reads = [
            (reader, r)
            for reader, body in self.bodies.items()
            for r in reads_of(body)
            if r.tensor is stage.tensor
        ]
        if len(reads) != 1 or reads[0][0].attached != stage.attached:
            return None
        reader, read = reads[0]
        if len(reader.axes) != len(read.indices) or reader.attached is None:
            return None
        begins: list[Expr] = []
        for axis, index, begin, size in zip(
            reader.axes, read.indices, self.begins[reader], stage.tensor.shape, strict=True
        ):
            form = linear(index)
            whole = 0 <= form.const and form.const + int(reader.tensor.shape[len(begins)]) <= size
            if dict(form.terms) != {axis.var: 1} or not whole:
                return None
            begins.append(simplify(begin + form.const))
        return begins, list(self.extents[reader])

    def _range(self, index: Expr, known: set[Var], size: int) -> tuple[Expr, Expr]:
        """What an index runs over while the loops that are `known` stand still."""
        if any(isinstance(e, Read | Cast) for e in walk(index)):
            return Const(0), Const(size - 1)  # it depends on data, or wraps
        self._check(index, known)
        domain = {v: d for v, d in self._domain.items() if v not in known}
        outer = {v: d for v, d in self._domain.items() if v in known}
        return interval(index, domain, outer)

    def _check(self, expr: Expr, known: set[Var]) -> None:
        for v in variables(expr):
            require(
                v in known or v in self._domain,
                f"the range of {expr} is not known: {v} is not a loop",
            )

    def _inside(self, reader: Stage, host: Stage, axis: object) -> bool:
        if reader is host:
            return True
        at: Stage | None = reader
        while at is not None and at.attached is not None:
            up, loop = at.attached
            if up is host:
                return host.leaves.index(loop) >= host.leaves.index(axis)  # type: ignore[arg-type]
            at = up
        return False

    def _box(
        self, boxes: Sequence[Sequence[tuple[Expr, Expr]]], tensor: Tensor
    ) -> tuple[list[Expr], list[Expr]]:
        begins: list[Expr] = []
        extents: list[Expr] = []
        for d, n in enumerate(tensor.shape):
            low, high = boxes[0][d]
            for box in boxes[1:]:
                low, high = simplify(minimum(low, box[d][0])), simplify(maximum(high, box[d][1]))
            if self.least(low) < 0:
                low = simplify(maximum(low, 0))
            if self.greatest(high) > n - 1:
                high = simplify(minimum(high, n - 1))
            begins.append(low)
            extents.append(linear(high).plus(linear(low), -1).plus(linear(Const(1))).expr())
        return begins, extents

    def greatest_given(self, expr: Expr, known: set[Var]) -> Expr:
        """Over all turns of the loops that are not `known`, which stay as symbols."""
        self._check(expr, known)
        domain = {v: d for v, d in self._domain.items() if v not in known}
        outer = {v: d for v, d in self._domain.items() if v in known}
        while variables(expr) - known:
            expr = simplify(interval(expr, domain, outer)[1])
        return expr

    def least(self, expr: Expr) -> int:
        """Over all turns of all loops."""
        return self._number(expr, 0)

    def greatest(self, expr: Expr) -> int:
        """Over all turns of all loops."""
        return self._number(expr, 1)

    def _number(self, expr: Expr, side: int) -> int:
        value = simplify(expr)
        self._check(value, set())
        while variables(value):
            value = simplify(interval(value, self._domain)[side])
        require(isinstance(value, Const), f"the range of {expr} is not known")
        return int(value.value)  # type: ignore[attr-defined]
