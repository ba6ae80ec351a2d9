"""Results that leave piece by piece: while the ALU finishes the next, the first are stored."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from itertools import groupby, pairwise

from covta.compiler.backend.ops import Alu, Op, Store, Tile, Trace
from covta.compiler.backend.restrict import turn_starts, window

__all__ = ["drain"]


def drain(trace: Trace, *, runs: int = 3, elems: int = 64) -> Trace:
    """Cut what follows the GEMMs of the last tiles of sums.

    Rewrite: the last `runs` times that ALU operations and stores on one tile follow each other:
    they are done for the first `elems` or more of its elements, then for the next, and so on.
    Preserves: results. What does not work element by element stays as it is.
    """
    parts = [(tile, list(ops)) for tile, ops in groupby(trace.ops, key=_finished)]
    left = runs
    for k in reversed(range(len(parts))):
        tile, ops = parts[k]
        if tile is None or not any(isinstance(op, Store) for op in ops):
            continue
        parts[k] = tile, _in_pieces(ops, tile, elems)
        left -= 1
        if not left:
            break
    return dataclasses.replace(trace, ops=tuple(op for _, ops in parts for op in ops))


def _finished(op: Op) -> Tile | None:
    """The tile whose elements an operation works on one by one, or stores."""
    if isinstance(op, Alu):
        return None if op.dst in op.operands else op.dst
    return op.src if isinstance(op, Store) else None


def _in_pieces(ops: list[Op], tile: Tile, elems: int) -> list[Op]:
    bounds = [0]
    for cut in _cuts(ops):
        if cut - bounds[-1] >= elems and tile.elems - cut >= elems // 2:
            bounds.append(cut)
    bounds.append(tile.elems)
    pieces: list[Op] = []
    for low, high in pairwise(bounds):
        for op in ops:
            assert isinstance(op, Alu | Store)
            some = window(op, low, high)
            if some is None:
                return ops
            pieces += some
    return pieces


def _cuts(ops: Sequence[Op]) -> list[int]:
    return sorted(set().union(*(turn_starts(op) for op in ops if isinstance(op, Alu) and op.loops)))
