"""How axes of a nest come from one another."""

from __future__ import annotations

from dataclasses import dataclass

from covta.compiler.te.tensor import IterVar

__all__ = ["Fuse", "Partition", "Relation", "Split"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Split:
    """``parent = outer * factor + inner``.

    Exactly one of the two is given.

    Parameters
    ----------
    factor : int or None
        Extent of `inner`; the last tile may be smaller.
    parts : int or None
        Extent of `outer`; then the factor follows from the parent's extent.
    """

    parent: IterVar
    outer: IterVar
    inner: IterVar
    factor: int | None = None
    parts: int | None = None

    @property
    def parents(self) -> tuple[IterVar, ...]:
        """What was there before."""
        return (self.parent,)


@dataclass(frozen=True, kw_only=True, eq=False)
class Fuse:
    """``outer = fused // extent(inner)``, ``inner = fused % extent(inner)``."""

    outer: IterVar
    inner: IterVar
    fused: IterVar

    @property
    def parents(self) -> tuple[IterVar, ...]:
        """What was there before."""
        return (self.outer, self.inner)


@dataclass(frozen=True, kw_only=True, eq=False)
class Partition:
    """A box of axes cut into a list of boxes: ``parent_d = begins[d][index] + inner_d``.

    Parameters
    ----------
    begins, sizes : tuple of tuple of int
        By axis, then by box.
    """

    parents: tuple[IterVar, ...]
    index: IterVar
    inners: tuple[IterVar, ...]
    begins: tuple[tuple[int, ...], ...]
    sizes: tuple[tuple[int, ...], ...]


Relation = Split | Fuse | Partition
