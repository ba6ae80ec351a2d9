"""All stages of a computation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from covta.compiler.schedule.reads import check_reads
from covta.compiler.schedule.stage import ScheduleError, Stage, require
from covta.compiler.te.expr import Expr, Read, Reduce, Var, const, substitute, transform
from covta.compiler.te.tensor import IterVar, Tensor, inputs_of

__all__ = ["Schedule", "create_schedule"]


def create_schedule(*outputs: Tensor) -> Schedule:
    """A schedule that computes every tensor by its plain loops, producers first.

    Raises
    ------
    ExprError
        Where a tensor may be read outside of its shape.
    """
    flat: list[Tensor] = []
    for o in outputs:
        flat += [o] if isinstance(o, Tensor) else o
    return Schedule(flat)


class Schedule:
    """How a computation is done; `schedule[T]` is the `Stage` of one of its tensors.

    Attributes
    ----------
    outputs : tuple of Tensor
    stages : dict of Tensor to Stage
    """

    def __init__(self, outputs: Sequence[Tensor]) -> None:
        require(len(outputs) > 0, "a schedule needs at least one output")
        for o in outputs:
            require(not o.is_placeholder, f"{o.name} is a placeholder: nothing is to be computed")
        self.outputs = tuple(outputs)
        self.stages: dict[Tensor, Stage] = {}
        for output in outputs:
            self._add(output)

    def _add(self, tensor: Tensor) -> None:
        if tensor in self.stages or tensor.body is None:
            return
        for source in inputs_of(tensor.body):
            self._add(source)
        check_reads(tensor)
        self.stages[tensor] = Stage(self, tensor, tensor.body)

    def __getitem__(self, tensor: Tensor | Stage) -> Stage:
        if isinstance(tensor, Stage):
            return tensor
        require(
            tensor in self.stages,
            f"{tensor.name} has no loops: it is"
            f" {'a placeholder' if tensor.is_placeholder else 'not of this schedule'}",
        )
        return self.stages[tensor]

    def __iter__(self) -> Iterator[Stage]:
        return iter(self.ordered())

    def ordered(self) -> list[Stage]:
        """Stages, producers before their consumers; otherwise as they were made."""
        done: dict[Stage, None] = {}

        def visit(stage: Stage) -> None:
            if stage in done:
                return
            for tensor in stage.reads():
                if tensor in self.stages:
                    visit(self.stages[tensor])
            done.setdefault(stage)

        for stage in self.stages.values():
            visit(stage)
        return list(done)

    def readers(self, tensor: Tensor) -> list[Stage]:
        """Stages whose bodies read `tensor`."""
        return [s for s in self.stages.values() if tensor in s.reads()]

    def cache_read(self, tensor: Tensor, scope: str, readers: Sequence[Tensor | Stage]) -> Tensor:
        """Copy `tensor` into `scope`, and let `readers` read the copy.

        Returns
        -------
        Tensor
            The copy, with a stage of its own.
        """
        stages = [self[r] for r in readers]
        require(len(stages) > 0, f"cache_read of {tensor.name}: readers must be named")
        for stage in stages:
            require(
                tensor in stage.reads(),
                f"cache_read: {stage.name} must read {tensor.name}, it reads"
                f" {', '.join(t.name for t in stage.reads())}",
            )
        axes = tuple(IterVar(Var(f"i{d}"), const(n)) for d, n in enumerate(tensor.shape))
        body = Read(tensor, tuple(a.var for a in axes))
        cached = Tensor(f"{tensor.name}.{scope}", tensor.shape, tensor.dtype, axes, body)
        for stage in stages:
            stage.body = _redirect(stage.body, tensor, cached)
        self._insert(cached, body, before=stages[0]).set_scope(scope)
        return cached

    def cache_write(self, tensor: Tensor, scope: str) -> Tensor:
        """Compute `tensor` in `scope`, then copy it to where it belongs.

        Returns
        -------
        Tensor
            What is computed, with a stage of its own; the stage of `tensor` becomes a copy.
        """
        stage = self[tensor]
        require(
            not stage.relations and not stage.kinds and stage.intrin is None and not stage.pragmas,
            f"cache_write: {tensor.name} has been scheduled already; cache it first",
        )
        axes = tuple(IterVar(Var(a.name), a.extent) for a in stage.axes)
        renamed = {a.var: b.var for a, b in zip(stage.axes, axes, strict=True)}
        body = substitute(stage.body, renamed)  # type: ignore[arg-type]
        cached = Tensor(f"{tensor.name}.{scope}", tensor.shape, tensor.dtype, axes, body)
        self._insert(cached, body, before=stage).set_scope(scope)
        stage.body = Read(cached, tuple(a.var for a in stage.axes))
        stage.leaves = list(stage.axes)
        return cached

    def _insert(self, tensor: Tensor, body: Expr, before: Stage) -> Stage:
        stage = Stage(self, tensor, body)
        items = list(self.stages.items())
        at = next(k for k, (_, s) in enumerate(items) if s is before)
        self.stages = dict([*items[:at], (tensor, stage), *items[at:]])
        return stage

    def __str__(self) -> str:
        from covta.compiler.lower import lower

        try:
            return str(lower(self))
        except ScheduleError as error:
            names = ", ".join(o.name for o in self.outputs)
            return f"schedule of {names}, which has no loops: {error}"


def _redirect(body: Expr, old: Tensor, new: Tensor) -> Expr:
    def rule(e: Expr) -> Expr | None:
        if isinstance(e, Read) and e.tensor is old:
            return Read(new, e.indices)
        return None

    result = transform(body, rule)
    assert isinstance(result, Reduce) == isinstance(body, Reduce)
    return result
