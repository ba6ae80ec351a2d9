"""One tensor's loops, and the primitives that change them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from covta.compiler.ir.stmt import SCOPES
from covta.compiler.schedule.relations import Fuse, Partition, Relation, Split
from covta.compiler.te.expr import Const, Expr, Reduce, Var, const
from covta.compiler.te.tensor import IterVar, Tensor, inputs_of

if TYPE_CHECKING:
    from covta.compiler.intrin.tensor_intrin import TensorIntrin
    from covta.compiler.schedule.schedule import Schedule

__all__ = ["PRAGMAS", "ScheduleError", "Stage"]

PRAGMAS = ("alu", "dma_copy")
"""What `Stage.pragma` knows: instructions of the ALU for an elementwise body, one DMA transfer."""


class ScheduleError(ValueError):
    """A primitive that would change what is computed, or that names something not there."""


def require(condition: bool, message: str) -> None:
    """Raise `ScheduleError` with `message` unless `condition`."""
    if not condition:
        raise ScheduleError(message)


class Stage:
    """How one tensor is computed.

    Attributes
    ----------
    tensor : Tensor
    body : Expr
        What each element is; caches and inlining rewrite it.
    leaves : list of IterVar
        The loops, outermost first.
    relations : list of Relation
        How leaves come from `axes` and `reduce_axes`.
    attached : (Stage, IterVar) or None
        In whose loop it is computed; None: before everything that reads it.
    inlined : bool
    scope : str
    generations : int
        Instances of its buffer that may be alive at a time; 0: as many as there is room for.
    preloaded : bool
        Its sums begin with what is added to them first.
    kinds : dict of IterVar to str
    pragmas : dict of IterVar to str
    intrin : (IterVar, TensorIntrin) or None
    """

    def __init__(self, schedule: Schedule, tensor: Tensor, body: Expr) -> None:
        self.schedule = schedule
        self.tensor = tensor
        self.body = body
        self.axes = tensor.axes
        self.leaves: list[IterVar] = [*self.axes, *self.reduce_axes]
        self.relations: list[Relation] = []
        self.attached: tuple[Stage, IterVar] | None = None
        self.inlined = False
        self.scope = "global"
        self.generations = 0
        self.preloaded = False
        self.kinds: dict[IterVar, str] = {}
        self.pragmas: dict[IterVar, str] = {}
        self.intrin: tuple[IterVar, TensorIntrin] | None = None

    @property
    def name(self) -> str:
        """The tensor's."""
        return self.tensor.name

    @property
    def op(self) -> Stage:
        """The stage: ``s[C].op.axis`` reads as elsewhere."""
        return self

    @property
    def axis(self) -> tuple[IterVar, ...]:
        """One axis per dimension."""
        return self.axes

    @property
    def reduce_axes(self) -> tuple[IterVar, ...]:
        """Axes of the reduction, if there is one."""
        return self.body.axes if isinstance(self.body, Reduce) else ()

    reduce_axis = reduce_axes

    def _leaf(self, axis: IterVar, what: str) -> int:
        require(
            axis in self.leaves,
            f"{what}: {getattr(axis, 'name', axis)} must be a loop of {self.name}"
            f" ({', '.join(a.name for a in self.leaves)})",
        )
        position = self.leaves.index(axis)
        if self.intrin is not None:
            require(
                position < self.leaves.index(self.intrin[0]),
                f"{what}: {axis.name} of {self.name} lies within {self.intrin[1].name}",
            )
        return position

    # ---- loops -----------------------------------------------------------------------------
    def split(
        self, axis: IterVar, factor: int | None = None, *, nparts: int | None = None
    ) -> tuple[IterVar, IterVar]:
        """Cut a loop in two: ``axis = outer * factor + inner``.

        Parameters
        ----------
        axis : IterVar
        factor : int, optional
            Turns of the inner loop; where it does not divide, the last tile is smaller.
        nparts : int, optional
            Turns of the outer loop, instead; fewer where that many equal tiles are not needed.
        """
        at = self._leaf(axis, "split")
        require(
            (factor is None) != (nparts is None), "split: exactly one of factor, nparts is needed"
        )
        number = factor if factor is not None else nparts
        require(
            isinstance(number, int) and number >= 1,
            f"split of {axis.name}: the number must be a positive integer, got {number!r}",
        )
        outer = IterVar(Var(f"{axis.name}.o"), axis.extent, axis.reduce)
        inner = IterVar(Var(f"{axis.name}.i"), axis.extent, axis.reduce)
        self.relations.append(
            Split(parent=axis, outer=outer, inner=inner, factor=factor, parts=nparts)
        )
        self.leaves[at : at + 1] = [outer, inner]
        self._inherit(axis, inner)
        return outer, inner

    def _inherit(self, old: IterVar, new: IterVar) -> None:
        for table in (self.kinds, self.pragmas):
            if old in table:
                table[new] = table.pop(old)

    def fuse(self, outer: IterVar, inner: IterVar) -> IterVar:
        """Make one loop of two, of which `inner` lies directly in `outer`."""
        at = self._leaf(outer, "fuse")
        require(
            self._leaf(inner, "fuse") == at + 1,
            f"fuse: {inner.name} must lie directly in {outer.name}",
        )
        require(
            outer.reduce == inner.reduce,
            f"fuse: {outer.name} and {inner.name} must both be of the reduction, or neither",
        )
        fused = IterVar(Var(f"{outer.name}.{inner.name}"), outer.extent, outer.reduce)
        self.relations.append(Fuse(outer=outer, inner=inner, fused=fused))
        self.leaves[at : at + 2] = [fused]
        return fused

    def partition(
        self, axes: Sequence[IterVar], boxes: Sequence[Sequence[tuple[int, int]]]
    ) -> tuple[IterVar, ...]:
        """Cut a box of loops into a list of boxes, done one after the other.

        Tiles of different sizes, in any order: small ones where work begins and ends.

        Parameters
        ----------
        axes : sequence of IterVar
            Adjacent loops of constant extent.
        boxes : sequence of sequence of (int, int)
            Begin and size per axis; together they cover every point exactly once.

        Returns
        -------
        tuple of IterVar
            The loop over boxes, then one loop per axis within a box.
        """
        at = [self._leaf(a, "partition") for a in axes]
        require(
            bool(at) and at == list(range(at[0], at[0] + len(at))),
            "partition: axes must be adjacent loops, outermost first",
        )
        roots = {*self.axes, *self.reduce_axes}
        require(all(a in roots for a in axes), "partition: axes must not be split or fused before")
        require(
            len({a.reduce for a in axes}) == 1,
            "partition: axes must all be of the reduction, or none",
        )
        shape = tuple(int(a.extent.value) for a in axes)  # type: ignore[attr-defined]
        hits = np.zeros(shape, np.int32)
        for box in boxes:
            require(
                len(box) == len(axes)
                and all(
                    b >= 0 and n >= 1 and b + n <= s for (b, n), s in zip(box, shape, strict=True)
                ),
                f"partition: a box must be (begin, size) per axis within {shape}, got {tuple(box)}",
            )
            hits[tuple(slice(b, b + n) for b, n in box)] += 1
        require(
            bool((hits == 1).all()),
            f"partition: boxes must cover {shape} exactly once, got {int((hits != 1).sum())} points"
            " that they cover otherwise",
        )
        index = IterVar(Var("box"), const(len(boxes)), axes[0].reduce)
        inners = tuple(IterVar(Var(f"{a.name}.i"), a.extent, a.reduce) for a in axes)
        self.relations.append(
            Partition(
                parents=tuple(axes),
                index=index,
                inners=inners,
                begins=tuple(tuple(box[d][0] for box in boxes) for d in range(len(axes))),
                sizes=tuple(tuple(box[d][1] for box in boxes) for d in range(len(axes))),
            )
        )
        self.leaves[at[0] : at[0] + len(at)] = [index, *inners]
        return (index, *inners)

    def reorder(self, *axes: IterVar) -> None:
        """Put these loops in this order, into the places that they have now together."""
        places = sorted(self._leaf(a, "reorder") for a in axes)
        require(len(set(places)) == len(axes), "reorder: an axis is named twice")
        for place, axis in zip(places, axes, strict=True):
            self.leaves[place] = axis

    def tile(
        self, y: IterVar, x: IterVar, y_factor: int, x_factor: int
    ) -> tuple[IterVar, IterVar, IterVar, IterVar]:
        """Split both, and do tile after tile: ``y.o, x.o, y.i, x.i``."""
        yo, yi = self.split(y, y_factor)
        xo, xi = self.split(x, x_factor)
        self.reorder(yo, xo, yi, xi)
        return yo, xo, yi, xi

    def _kind(self, axis: IterVar, kind: str) -> None:
        self._leaf(axis, kind)
        require(
            self.kinds.get(axis, kind) == kind,
            f"{kind}: {axis.name} of {self.name} is {self.kinds.get(axis)} already",
        )
        self.kinds[axis] = kind

    def unroll(self, axis: IterVar) -> None:
        """Write the loop out."""
        self._kind(axis, "unroll")

    def vectorize(self, axis: IterVar, *, reassociate: bool = False) -> None:
        """Do the turns of a loop at once.

        A reduction over floats would add in another order, and round otherwise: refused unless
        `reassociate`."""
        require(
            not axis.reduce or self.tensor.dtype != "float32" or reassociate,
            f"vectorize: {axis.name} of {self.name} reduces floats, whose sum depends on the order;"
            " pass reassociate=True to accept that",
        )
        self._kind(axis, "vectorize")

    def parallel(self, axis: IterVar) -> None:
        """Share the turns among threads."""
        require(
            not axis.reduce,
            f"parallel: {axis.name} of {self.name} is a reduction; its turns write one element",
        )
        self._kind(axis, "parallel")

    def bind(self, axis: IterVar, thread: str) -> None:
        """Make a loop's turns virtual threads, whose instructions interleave (`vthread`)."""
        require(thread == "vthread", f"bind: the only kind of thread is 'vthread', got {thread!r}")
        require(
            not axis.reduce,
            f"bind: {axis.name} of {self.name} is a reduction; its threads would share a result",
        )
        self._kind(axis, "vthread")

    # ---- where it is computed and lies --------------------------------------------------------
    def compute_at(self, consumer: Stage, axis: IterVar) -> None:
        """Compute what a turn of `axis` of `consumer` needs, within that turn."""
        require(
            self.tensor not in self.schedule.outputs,
            f"compute_at: {self.name} is an output, it has no consumer to be computed in",
        )
        require(not self.inlined, f"compute_at: {self.name} is inlined")
        require(consumer is not self, f"compute_at: {self.name} must not be computed in itself")
        consumer._leaf(axis, "compute_at")
        up: Stage | None = consumer
        while up is not None:
            require(up is not self, f"compute_at: {consumer.name} is computed within {self.name}")
            up = up.attached[0] if up.attached else None
        self.attached = (consumer, axis)

    def compute_root(self) -> None:
        """Compute all of it before anything that reads it."""
        self.attached = None

    def compute_inline(self) -> None:
        """Compute each element where it is used."""
        require(
            self.tensor not in self.schedule.outputs,
            f"compute_inline: {self.name} is an output and must be stored",
        )
        require(
            not isinstance(self.body, Reduce),
            f"compute_inline: {self.name} is a reduction and cannot stand inside an expression",
        )
        require(
            not self.relations and self.intrin is None and self.attached is None,
            f"compute_inline: {self.name} has a schedule of its own already",
        )
        self.inlined = True

    def set_scope(self, scope: str) -> None:
        """Where the tensor lies: ``global``, ``local``, or a scratchpad ``inp wgt acc``."""
        require(
            scope in SCOPES, f"set_scope: scope must be among {', '.join(SCOPES)}, got {scope!r}"
        )
        require(
            scope == "global" or self.tensor not in self.schedule.outputs,
            f"set_scope: {self.name} is an output and must be global, got {scope!r}",
        )
        self.scope = scope

    def double_buffer(self, generations: int = 2) -> None:
        """Let `generations` instances of the buffer exist: one is filled while others are read.

        1 is a single buffer; without this primitive there are as many as the scratchpad holds."""
        require(
            self.scope not in ("global", "local"),
            f"double_buffer: {self.name} must lie in a scratchpad, got {self.scope}",
        )
        require(
            isinstance(generations, int) and generations >= 1,
            f"double_buffer: generations must be a positive integer, got {generations!r}",
        )
        self.generations = generations

    def preload(self) -> None:
        """Let sums begin with what is added to them first, loaded in the place of zeros.

        A transfer of every element instead of a reset and an addition: for a machine with more
        bandwidth than ALU. Sums that nothing loaded is added to first begin with zero as before.
        """
        require(
            self.scope == "acc" and bool(self.reduce_axes),
            f"preload: {self.name} must be a reduction in acc, got {self.scope}",
        )
        self.preloaded = True

    # ---- hardware ---------------------------------------------------------------------------
    def pragma(self, axis: IterVar, name: str) -> None:
        """Mark the loops from `axis` inwards: ``dma_copy`` makes one transfer of them."""
        require(name in PRAGMAS, f"pragma must be among {', '.join(PRAGMAS)}, got {name!r}")
        self._leaf(axis, f"pragma {name}")
        self.pragmas[axis] = name

    def tensorize(self, axis: IterVar, intrin: TensorIntrin) -> None:
        """Replace the loops from `axis` inwards by an intrinsic that does just that.

        Raises
        ------
        ScheduleError
            If the loops do something else, with what differs.
        """
        from covta.compiler.lower.tensorize import check_tensorize

        at = self._leaf(axis, "tensorize")
        for inner in self.leaves[at:]:
            require(
                inner not in self.kinds,
                f"tensorize: {inner.name} of {self.name} is {self.kinds.get(inner)}",
            )
            require(
                inner not in self.pragmas,
                f"tensorize: {inner.name} of {self.name} has the pragma {self.pragmas.get(inner)}",
            )
        self.intrin = (axis, intrin)
        try:
            check_tensorize(self)
        except ScheduleError:
            self.intrin = None
            raise

    # ---- facts ------------------------------------------------------------------------------
    def reads(self) -> list[Tensor]:
        """Tensors it reads."""
        return inputs_of(self.body)

    def kind(self, axis: IterVar) -> str:
        """Of a loop."""
        return self.kinds.get(axis, "serial")

    def shape_of(self, axis: IterVar) -> int | None:
        """Extent of an axis of the tensor, None for a derived one."""
        known = {a: a.extent for a in (*self.axes, *self.reduce_axes)}
        extent = known.get(axis)
        return int(extent.value) if isinstance(extent, Const) else None
