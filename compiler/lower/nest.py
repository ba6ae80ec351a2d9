"""Schedule to loop nest: loops, allocations, regions; transfers and intrinsics where asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from covta.compiler.ir.affine import simplify, variables
from covta.compiler.ir.fold import tidy
from covta.compiler.ir.stmt import Allocate, Buffer, For, Function, If, Stmt, Store, seq
from covta.compiler.lower.alu import select_alu
from covta.compiler.lower.bounds import Bounds, inline_all
from covta.compiler.lower.dma import make_copy
from covta.compiler.lower.guards import split_guard
from covta.compiler.lower.names import unique_names
from covta.compiler.lower.tensorize import tensorized
from covta.compiler.schedule.schedule import Schedule
from covta.compiler.schedule.stage import Stage, require
from covta.compiler.te.expr import (
    Const,
    Expr,
    Read,
    Reduce,
    Var,
    binary,
    children,
    substitute,
    transform,
    walk,
)
from covta.compiler.te.tensor import IterVar, Tensor, inputs_of, reads_of

__all__ = ["StageNest", "build"]


def build(schedule: Schedule, args: Sequence[Tensor | Var] | None, name: str) -> Function:
    """The loop nest that a schedule stands for; see `covta.compiler.lower.lower`."""
    bodies = inline_all(schedule)
    _check_regions(schedule, bodies)
    bounds = Bounds(schedule, bodies)
    params = _parameters(schedule, bodies, args)
    buffers: dict[Tensor, Buffer] = {
        t: Buffer(name=t.name, shape=tuple(Const(n) for n in t.shape), dtype=t.dtype)
        for t in params
        if isinstance(t, Tensor)
    }
    builder = _Builder(schedule, bodies, bounds, buffers)
    body = unique_names(builder.root(), frozenset(t.name for t in params if isinstance(t, Var)))
    return Function(
        name=name,
        params=tuple(t if isinstance(t, Var) else buffers[t] for t in params),
        body=body,
        outputs=len(schedule.outputs),
    )


def _scalars(stage: Stage, body: Expr) -> list[Var]:
    """Free variables of a stage, in order of appearance."""
    own = {a.var for a in (*stage.axes, *stage.reduce_axes)}
    return list(dict.fromkeys(e for e in walk(body) if isinstance(e, Var) and e not in own))


def _check_regions(schedule: Schedule, bodies: dict[Stage, Expr]) -> None:
    """What is computed in a loop must be read where no scalar parameter says.

    Where data say, all of that dimension is computed.
    """
    for stage, body in bodies.items():
        scalars = set(_scalars(stage, body))
        for read in reads_of(body):
            source = schedule.stages.get(read.tensor)
            require(
                source is None
                or source.attached is None
                or not any(scalars & variables(i) for i in read.indices),
                f"compute_at: {read.tensor.name} cannot be computed in a loop, as where"
                f" {stage.name} reads it depends on a variable: {read}",
            )


def _parameters(
    schedule: Schedule, bodies: dict[Stage, Expr], args: Sequence[Tensor | Var] | None
) -> list[Tensor | Var]:
    inputs = [t for body in bodies.values() for t in inputs_of(body) if t not in schedule.stages]
    scalars = [v for stage, body in bodies.items() for v in _scalars(stage, body)]
    needed: list[Tensor | Var] = list(dict.fromkeys([*inputs, *scalars, *schedule.outputs]))
    if args is None:
        return needed
    for t in needed:
        require(t in args, f"lower: args must name {t.name}, which is read or computed")
    for k, t in enumerate(args):
        require(
            isinstance(t, Tensor | Var),
            f"lower: args must be tensors and variables, got {type(t).__name__}",
        )
        require(t not in args[:k], f"lower: args name {t.name} twice")
        require(t in needed, f"lower: args name {t.name}, which is neither read nor computed")
    outputs = list(args)[len(args) - len(schedule.outputs) :]
    require(set(outputs) == set(schedule.outputs), "lower: outputs must come last among args")
    return list(args)


class StageNest:
    """What the parts of lowering need to know of one stage.

    Attributes
    ----------
    values : dict of Var to Expr
        Axes as positions in the whole tensor, in terms of loop variables.
    local : list of Expr
        Index into the stage's buffer.
    extents : dict of IterVar to Expr
        Turns of each loop, in terms of loops outside of it.
    conditions : list of Expr
        What must hold where a loop had to take more turns than it needs, because a loop that the
        number depends on lies inside of it.
    source, guard : Expr, Expr or None
        What is stored, or combined with what is there, and where.
    """

    def __init__(self, stage: Stage, body: Expr, bounds: Bounds, buffer: Buffer) -> None:
        self.stage = stage
        self.buffer = buffer
        self.bounds = bounds
        self.it = bounds.iteration[stage]
        self.values = bounds.index_values(stage)
        self.local = [simplify(self.it.value(a)) for a in stage.axes]
        self.identity = body.identity if isinstance(body, Reduce) else None
        self.combiner = body.combiner if isinstance(body, Reduce) else None
        self.source, self.guard = split_guard(body, _scalars(stage, body))
        self.extents: dict[IterVar, Expr] = {}
        self.conditions: list[Expr] = self.it.conditions()
        seen = bounds.visible(stage)
        for leaf in stage.leaves:
            extent = self.it.extent(leaf)
            if not variables(extent) <= seen:
                self.conditions.append(binary("lt", leaf.var, extent))
                extent = bounds.greatest_given(extent, seen)
            self.extents[leaf] = extent
            seen = seen | {leaf.var}

    def loop(self, leaf: IterVar, body: Stmt) -> Stmt:
        """A loop around `body`."""
        return For(leaf.var, Const(0), self.extents[leaf], body, self.stage.kind(leaf))

    def guarded(self, stmt: Stmt, *, reset: bool = False) -> Stmt:
        """`stmt` where its conditions hold."""
        reduced = {leaf.var for leaf in self.stage.leaves if leaf.reduce}
        conditions = [c for c in self.conditions if not (reset and variables(c) & reduced)]
        if self.guard is not None and not reset:
            conditions.append(tidy(substitute(self.guard, self.values)))
        for condition in conditions:
            stmt = If(condition, stmt)
        return stmt


def _at_most(a: Expr, b: Expr) -> bool:
    """Whether an extent is known not to be above another."""
    return a == b or (isinstance(a, Const) and isinstance(b, Const) and a.value <= b.value)


class _Builder:
    def __init__(
        self,
        schedule: Schedule,
        bodies: dict[Stage, Expr],
        bounds: Bounds,
        buffers: dict[Tensor, Buffer],
    ) -> None:
        self.schedule, self.bodies, self.bounds = schedule, bodies, bounds
        self.buffers = buffers
        self.aliased: dict[Stage, Stage] = {}
        self.names: set[str] = {b.name for b in buffers.values()}
        for stage in bodies:
            self._alias(stage)
        for stage in bodies:
            if stage.tensor not in buffers:
                buffers[stage.tensor] = self._buffer(stage)

    # ---- buffers ---------------------------------------------------------------------------
    def _alias(self, stage: Stage) -> None:
        """An elementwise ALU stage works in place on the tensor that only it reads."""
        if "alu" not in stage.pragmas.values() or isinstance(self.bodies[stage], Reduce):
            return
        body = self.bodies[stage]
        first = body
        while not isinstance(first, Read):
            parts = [p for p in children(first) if not isinstance(p, Const)]
            if not parts:
                return
            first = parts[0]
        source = self.schedule.stages.get(first.tensor)
        if source is None or source not in self.bodies or source.scope != "acc":
            return
        readers = [s for s, b in self.bodies.items() if first.tensor in inputs_of(b)]
        sizes = zip(self.bounds.extents[stage], self.bounds.extents[source], strict=False)
        fits = all(_at_most(simplify(mine), simplify(other)) for mine, other in sizes)
        if readers == [stage] and source.attached == stage.attached and fits:
            self.aliased[stage] = source

    def _buffer(self, stage: Stage) -> Buffer:
        if stage in self.aliased:
            return self.buffers[self.aliased[stage].tensor]
        shape = self.bounds.extents[stage]
        units = 0
        for k, leaf in enumerate(stage.leaves):
            if stage.pragmas.get(leaf) == "dma_copy":
                units = k
                require(
                    stage.leaves[:k] == list(stage.axes[:k]),
                    f"dma_copy: the loops of {stage.name} outside of {leaf.name} must be the"
                    f" tensor's first {k} axes in order, got"
                    f" {', '.join(x.name for x in stage.leaves[:k])}",
                )
        name = stage.name
        while name in self.names:
            name += "_"
        self.names.add(name)
        return Buffer(
            name=name, shape=tuple(shape), dtype=stage.tensor.dtype, scope=stage.scope,
            generations=stage.generations, preloaded=stage.preloaded, units=units,
        )  # fmt: skip

    # ---- nests -----------------------------------------------------------------------------
    def root(self) -> Stmt:
        roots = [s for s in self.bodies if s.attached is None]
        return self._chain(roots, None)

    def _chain(self, stages: list[Stage], rest: Callable[[], Stmt] | None) -> Stmt:
        """Compute `stages` one after the other, each buffer living until the end; then `rest`."""
        if not stages:
            assert rest is not None
            return rest()
        first, *others = stages
        parts = [self.nest(first)]
        if others or rest is not None:
            parts.append(self._chain(others, rest))
        body = seq(*parts)
        allocated = first.tensor not in self.schedule.outputs and first not in self.aliased
        return Allocate(self.buffers[first.tensor], body) if allocated else body

    def nest(self, stage: Stage) -> Stmt:
        """The loops that fill one instance of a stage's buffer."""
        n = StageNest(stage, self.bodies[stage], self.bounds, self.buffers[stage.tensor])
        leaves = stage.leaves
        for leaf, pragma in stage.pragmas.items():
            require(leaf in leaves, f"pragma {pragma}: {leaf.name} is no longer a loop")
        cut = leaves.index(stage.intrin[0]) if stage.intrin else len(leaves)
        reduces = [k for k, leaf in enumerate(leaves) if leaf.reduce and k < cut]
        first_reduce = min(reduces, default=-1)

        def inner(k: int) -> Stmt:
            pragma = stage.pragmas.get(leaves[k]) if k < len(leaves) else None
            if pragma == "dma_copy":
                return n.guarded(make_copy(n, k, self.localize))
            if pragma == "alu" and n.combiner is None:
                return select_alu(n, k, self.localize)
            if k == cut:
                if stage.intrin:
                    phase = "update" if reduces else "compute"
                    return n.guarded(tensorized(n, phase, self.localize))
                return n.guarded(self._element(n))
            leaf = leaves[k]
            body = n.loop(leaf, self._with_attached(stage, leaf, lambda: inner(k + 1)))
            return seq(self._reset(n, k, cut), body) if k == first_reduce else body

        return inner(0)

    def _with_attached(self, stage: Stage, leaf: IterVar, rest: Callable[[], Stmt]) -> Stmt:
        here = [s for s in self.bodies if s.attached == (stage, leaf)]
        return self._chain(here, rest)

    def _element(self, n: StageNest) -> Stmt:
        value = self.localize(substitute(n.source, n.values))
        at = tuple(n.local)
        if n.combiner is not None:
            value = binary(n.combiner, Read(n.buffer, at), value)  # type: ignore[arg-type]
        return Store(n.buffer, at, value)

    def _reset(self, n: StageNest, k: int, cut: int) -> Stmt:
        """Set what the reduction from loop `k` inwards combines with."""
        if n.stage.intrin:
            stmt = tensorized(n, "reset", self.localize)
        else:
            assert n.identity is not None
            stmt = Store(n.buffer, tuple(n.local), n.identity)
        stmt = n.guarded(stmt, reset=True)
        for leaf in reversed(n.stage.leaves[k:cut]):
            if not leaf.reduce:
                stmt = n.loop(leaf, stmt)
        return stmt

    # ---- addresses -------------------------------------------------------------------------
    def localize(self, expr: Expr) -> Expr:
        """Reads of tensors become reads of buffers, positions counted from where those begin."""

        def rule(e: Expr) -> Expr | None:
            if isinstance(e, Read) and e.tensor in self.buffers:
                stage = self.schedule.stages.get(e.tensor)
                begins: Sequence[Expr] = [Const(0)] * len(e.indices)
                if stage is not None:
                    begins = self.bounds.begins[stage]
                at = tuple(simplify(i - b) for i, b in zip(e.indices, begins, strict=True))
                return Read(self.buffers[e.tensor], at)  # type: ignore[arg-type]
            return None

        return transform(expr, rule)
