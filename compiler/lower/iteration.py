"""Extents of a stage's loops, and the values of its axes in terms of them."""

from __future__ import annotations

from covta.compiler.ir.affine import simplify
from covta.compiler.schedule.relations import Fuse, Partition, Split
from covta.compiler.schedule.stage import Stage, require
from covta.compiler.te.expr import Const, Expr, Lookup, binary, minimum
from covta.compiler.te.tensor import IterVar

__all__ = ["Iteration"]


class Iteration:
    """What a stage's loops run over, once the extents of its axes are known.

    Parameters
    ----------
    stage : Stage
    extents : dict of IterVar to Expr
        Of the tensor's axes: the part of the tensor that is computed.
    """

    def __init__(self, stage: Stage, extents: dict[IterVar, Expr]) -> None:
        self.stage = stage
        self._extent = dict(extents) | {a: a.extent for a in stage.reduce_axes}
        self._value: dict[IterVar, Expr] = {leaf: leaf.var for leaf in stage.leaves}
        self._by_parent = {p: r for r in stage.relations for p in r.parents}
        self._by_child: dict[IterVar, Split | Fuse | Partition] = {}
        for r in stage.relations:
            match r:
                case Split():
                    children = (r.outer, r.inner)
                case Fuse():
                    children = (r.fused,)
                case Partition():
                    children = (r.index, *r.inners)
            self._by_child |= dict.fromkeys(children, r)
            if isinstance(r, Partition):
                for axis in r.parents:
                    require(
                        self._extent[axis] == axis.extent,
                        f"partition: {stage.name} is computed in parts of {self._extent[axis]},"
                        f" its boxes are of the whole {axis.name}",
                    )
        fused = {a for r in stage.relations if isinstance(r, Fuse) for a in (r.outer, r.inner)}
        self._rectangular = {a for a in fused if a in self._by_child}
        self._check_fusions()

    def value(self, axis: IterVar) -> Expr:
        """An axis in terms of the loops' variables."""
        if axis not in self._value:
            r = self._by_parent[axis]
            match r:
                case Split():
                    outer, inner = self.value(r.outer), self.value(r.inner)
                    result = binary("add", binary("mul", outer, self.factor(r)), inner)
                case Fuse():
                    op = "floordiv" if axis is r.outer else "floormod"
                    result = binary(op, self.value(r.fused), self.extent(r.inner))
                case Partition():
                    d = r.parents.index(axis)
                    begin = Lookup(r.begins[d], self.value(r.index))
                    result = binary("add", begin, self.value(r.inners[d]))
            self._value[axis] = simplify(result)
        return self._value[axis]

    def factor(self, r: Split) -> Expr:
        """Turns of the inner loop, but for the last tile."""
        if r.factor is not None:
            extent = self.extent(r.parent)
            if isinstance(extent, Const) and extent.value < r.factor:
                return extent
            return Const(r.factor)
        assert r.parts is not None
        return simplify((self.extent(r.parent) + (r.parts - 1)) // r.parts)

    def extent(self, axis: IterVar) -> Expr:
        """Turns of a loop; may depend on loops that lie outside of it."""
        if axis not in self._extent:
            loose = axis in self._rectangular
            self._extent[axis] = simplify(self._derive(axis, loose=loose))
        return self._extent[axis]

    def most(self, axis: IterVar) -> Expr:
        """At least the turns of a loop: a number for a given number of parts."""
        r = self._by_child.get(axis)
        extent = self.extent(axis)
        if isinstance(r, Split) and axis is r.outer and r.parts and not isinstance(extent, Const):
            return Const(r.parts)
        return extent

    def exact_extent(self, axis: IterVar) -> Expr:
        """Turns of a loop, its smaller last tile taken into account."""
        return simplify(self._derive(axis, loose=False))

    def conditions(self) -> list[Expr]:
        """What must hold because fused loops take all turns of a rectangle."""
        result = []
        for axis in self._by_child:  # in the order of relations
            if axis in self._rectangular:
                exact = self.exact_extent(axis)
                if exact != self.extent(axis):
                    result.append(binary("lt", self.value(axis), exact))
        return result

    def _derive(self, axis: IterVar, *, loose: bool) -> Expr:
        if axis not in self._by_child:
            return self._extent[axis]
        r = self._by_child[axis]
        match r:
            case Split():
                whole, factor = self.extent(r.parent), self.factor(r)
                if axis is r.outer:
                    return (whole + (factor - 1)) // factor
                if loose or _divides(factor, whole):
                    return factor
                return minimum(factor, whole - binary("mul", self.value(r.outer), factor))
            case Fuse():
                return binary("mul", self.extent(r.outer), self.extent(r.inner))
            case Partition():
                if axis is r.index:
                    return Const(len(r.begins[0]))
                sizes = r.sizes[r.inners.index(axis)]
                if loose or len(set(sizes)) == 1:
                    return Const(max(sizes))
                return Lookup(sizes, self.value(r.index))

    def _check_fusions(self) -> None:
        """Fused loops must be rectangular."""
        for r in self.stage.relations:
            if isinstance(r, Fuse):
                for axis in (r.outer, r.inner):
                    on = self._depends(axis)
                    require(
                        not on,
                        f"fuse: the turns of {axis.name} of {self.stage.name} depend on"
                        f" {', '.join(a.name for a in on)}; fuse needs a rectangle",
                    )

    def _depends(self, axis: IterVar) -> list[IterVar]:
        """Loops that the number of turns of another depends on."""
        r = self._by_child.get(axis)
        match r:
            case Split():
                smaller = axis is r.inner and axis not in self._rectangular
                return [*([r.outer] if smaller else []), *self._depends(r.parent)]
            case Fuse():
                return [*self._depends(r.outer), *self._depends(r.inner)]
            case Partition():
                return [] if axis is r.index else [r.index]
        return []


def _divides(factor: Expr, whole: Expr) -> bool:
    return (
        isinstance(factor, Const)
        and isinstance(whole, Const)
        and int(whole.value) % int(factor.value) == 0
    )
