"""Which tiles an operation reads and writes, and for how long each is needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from covta.compiler.backend.ops import Alu, Gemm, Load, Op, Store, Tile

__all__ = ["Lifetime", "lifetimes", "reads", "written"]


def reads(op: Op) -> tuple[Tile, ...]:
    """Tiles that are read, each once; an accumulated tile is read too."""
    if isinstance(op, Load):
        return ()
    if isinstance(op, Store):
        return (op.src,)
    if isinstance(op, Gemm) and op.reset:
        return ()
    return op.dst, *(tile for tile in op.operands if tile is not op.dst)


def written(op: Op) -> Tile | None:
    """The tile that is written."""
    return None if isinstance(op, Store) else op.dst


@dataclass(kw_only=True)
class Lifetime:
    """Positions in a trace: of a tile's first and last operation, of its last Load, and of the last
    operation that reads it.

    `computed` says that something other than a Load writes it.
    """

    first: int
    last: int
    last_load: int = -1
    last_read: int = -1
    computed: bool = False


def lifetimes(ops: Sequence[Op]) -> dict[Tile, Lifetime]:
    """Lifetimes of all tiles, in order of first appearance."""
    lives: dict[Tile, Lifetime] = {}

    for k, op in enumerate(ops):
        tiles = (op.dst,) if isinstance(op, Load) else (*reads(op), written(op))
        for tile in tiles:
            if tile is None:
                continue
            life = lives.get(tile)
            if life is None:
                lives[tile] = Lifetime(first=k, last=k)
            else:
                life.last = k
        if isinstance(op, Load):
            lives[op.dst].last_load = k
            continue
        for tile in reads(op):
            lives[tile].last_read = k
        if isinstance(op, Gemm | Alu):
            lives[op.dst].computed = True
    return lives
