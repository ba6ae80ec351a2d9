"""DMA extraction: a nest that only copies, with padding, becomes one transfer."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from covta.compiler.ir.affine import Linear, linear, simplify, variables
from covta.compiler.ir.stmt import Copy, Region, Stmt
from covta.compiler.lower.guards import conjuncts
from covta.compiler.schedule.stage import require
from covta.compiler.te.expr import (
    Binary,
    Cast,
    Const,
    Expr,
    Read,
    Select,
    Var,
    maximum,
    minimum,
    substitute,
)

if TYPE_CHECKING:
    from covta.compiler.lower.nest import StageNest

__all__ = ["make_copy"]


def make_copy(n: StageNest, at: int, localize: Callable[[Expr], Expr]) -> Stmt:
    """One transfer of what the loops from `at` inwards copy.

    Parameters
    ----------
    n : StageNest
        Its body is ``T[i]``, ``select(inside, T[i], fill)``, or a cast of these; every index is
        ``c * axis + offset``.
    at : int
        Loops outside of it are repeated, one transfer each.

    Raises
    ------
    ScheduleError
        If the body is something else, or a loop from `at` inwards is a part of an axis.
    """
    stage = n.stage
    what = f"dma_copy: {stage.name}"
    body = n.source
    require(n.combiner is None, f"{what} is a reduction, not a copy")
    inner = stage.leaves[at:]
    zero: dict[Var, Expr] = {leaf.var: Const(0) for leaf in inner}
    turns = {leaf.var: n.extents[leaf] for leaf in inner}
    extents: dict[Var, Expr] = {}
    for axis, local in zip(stage.axes, n.local, strict=True):
        form = linear(local)
        own = [v for v in form.terms if variables(v) & set(turns)]
        require(
            len(own) <= 1 and all(v in turns and form.terms[v] == 1 for v in own),
            f"{what}: each axis must be a single loop from {inner[0].name} inwards, {axis.name} is"
            f" {local}",
        )
        extents[axis.var] = turns[own[0]] if own else Const(1)  # type: ignore[index]
    while isinstance(body, Cast):
        body = body.a
    fill, inside = 0, []
    if isinstance(body, Select):
        require(isinstance(body.b, Const), f"{what}: padding must be a constant, got {body.b}")
        fill, inside, body = int(body.b.value), conjuncts(body.condition), body.a  # type: ignore[attr-defined]
    while isinstance(body, Cast):
        body = body.a
    require(isinstance(body, Read), f"{what}: the body must read one tensor, got {n.source}")
    assert isinstance(body, Read)
    axes = [a.var for a in stage.axes]
    source = localize(substitute(body, n.values))
    assert isinstance(source, Read)
    forms = [linear(i) for i in body.indices]
    strides, source_extents = [], []
    for d, form in enumerate(forms):
        own = [v for v in form.terms if v in axes]
        require(
            len(own) <= 1 and all(v in axes for v in form.terms),
            f"{what}: an index must be linear in one axis, got {body.indices[d]}",
        )
        if own:
            stride = form.terms[own[0]]
            require(stride >= 1, f"{what}: an index must go forwards, got {body.indices[d]}")
            strides.append(stride)
            source_extents.append(extents[own[0]])  # type: ignore[index]
        else:
            strides.append(1)
            source_extents.append(Const(1))
    used = [v for form in forms for v in form.terms]
    require(
        used == sorted(used, key=axes.index),  # type: ignore[arg-type]
        f"{what}: a transfer keeps the order of axes, got {body}",
    )
    dst = Region(
        buffer=n.buffer,
        begins=tuple(substitute(i, zero) for i in n.local),
        extents=tuple(extents[v] for v in axes),
    )
    src = Region(
        buffer=source.tensor,  # type: ignore[arg-type]
        begins=tuple(simplify(substitute(i, zero)) for i in source.indices),
        extents=tuple(source_extents),
    )
    bounds = _bounds(what, inside, body, forms)
    return Copy(dst, src, tuple(strides), bounds, fill)


def _bounds(
    what: str, inside: list[Expr], body: Read, forms: list[Linear]
) -> tuple[tuple[Expr, Expr] | None, ...]:
    """Limits on the source's own index, per dimension, from conditions on axes."""
    bounds: list[tuple[Expr, Expr] | None] = [None] * len(forms)
    for condition in inside:
        found = False
        if isinstance(condition, Binary) and condition.op in ("lt", "le"):
            form = linear(condition.a).plus(linear(condition.b), -1)
            if condition.op == "le":
                form = form.plus(linear(Const(-1)))  # form < 0
            for d, index in enumerate(forms):
                if len(form.terms) != 1 or set(form.terms) != set(index.terms):
                    continue
                c, stride = next(iter(form.terms.values())), next(iter(index.terms.values()))
                low, high = bounds[d] or (Const(0), Const(body.tensor.shape[d]))
                # axis < -const/c, or axis > const/-c; the index is stride * axis + offset
                if c > 0:
                    last = -(form.const // c) - 1 if form.const % c == 0 else -form.const // c
                    high = minimum(high, stride * last + index.const + 1)
                else:
                    first = form.const // -c + 1
                    low = maximum(low, stride * first + index.const)
                bounds[d] = (low, high)
                found = True
                break
        require(found, f"{what}: padding must be a frame, got the condition {condition}")
    return tuple(bounds)
