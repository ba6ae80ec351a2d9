"""Join loads that lie side by side, in DRAM and in the scratchpad."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from itertools import groupby

from covta.compiler.backend.ops import MOST_ELEMS, DramTensor, Load, Op, Tile, Trace
from covta.compiler.backend.placement import Placement

__all__ = ["Merged", "merge_loads"]


@dataclass(frozen=True, kw_only=True)
class Merged:
    """Operations in order, without dropped loads.

    Parameters
    ----------
    ops : tuple of Op
    covers : dict of Load to tuple of Tile
        All tiles that a load fills (a part of); its `dst` is the first.
    """

    ops: tuple[Op, ...]
    covers: dict[Load, tuple[Tile, ...]]

    def __str__(self) -> str:
        lines = []
        for k, op in enumerate(self.ops):
            more = len(self.covers.get(op, ())) - 1 if isinstance(op, Load) else 0
            lines.append(f"{k:5}  {op}" + (f" and {more} tiles more" if more > 0 else ""))
        return "\n".join(lines)


def merge_loads(trace: Trace, placement: Placement, *, join: bool = True) -> Merged:
    """Drop loads of what is there, and join neighbours among the rest.

    Rewrite: loads of one pool that nothing but other loads separates, whose blocks continue each
    other as longer rows or as more rows, become one. So do the loads of acc tiles that stay and
    are loaded in one piece from what the program does not write, all but a bank's first, which
    the first work on that bank waits for.
    Preserves: the order of a pool's loads; without `join`, of all.
    """
    ops: list[Op] = []
    covers: dict[Load, tuple[Tile, ...]] = {}
    kept = [op for op in trace.ops if op not in placement.dropped]
    if join:
        kept, covers = _join_resident(kept, trace.written, placement)
    for loading, run in groupby(kept, key=_by_load_unit):
        if not loading:
            ops += run
            continue
        if not join:
            for op in run:
                assert isinstance(op, Load)
                ops.append(op)
                covers[op] = (op.dst,)
            continue
        pools: dict[str, list[tuple[Load, tuple[Tile, ...]]]] = {}
        for op in run:
            assert isinstance(op, Load)
            pools.setdefault(op.dst.pool, []).append((op, (op.dst,)))
        for loads in pools.values():
            for axis in (_longer, _taller):
                loads = _joined(loads, axis, placement)
            for load, tiles in loads:
                ops.append(load)
                covers[load] = tiles
    return Merged(ops=tuple(ops), covers=covers)


def _join_resident(
    ops: list[Op], stored: Collection[DramTensor], placement: Placement
) -> tuple[list[Op], dict[Load, tuple[Tile, ...]]]:
    """Operations, and what loads into acc fill; a joined load stands where its first one stood."""
    parts = Counter(op.dst for op in ops if isinstance(op, Load))
    fixed = {op.dst for op in ops if isinstance(op, Load) and op.src not in stored}
    whole = {tile for tile in placement.resident if tile in fixed and parts[tile] == 1}
    banks: dict[int, list[tuple[Load, tuple[Tile, ...]]]] = {}
    for op in ops:
        if isinstance(op, Load) and op.dst in whole:
            banks.setdefault(placement.banks(op.dst), []).append((op, (op.dst,)))
    at: dict[Tile, Load] = {}
    covers: dict[Load, tuple[Tile, ...]] = {}
    for (first, tile), *rest in banks.values():
        joined = rest
        for axis in (_longer, _taller):
            joined = _joined(joined, axis, placement)
        for load, tiles in ((first, tile), *joined):
            at[load.dst] = load
            covers[load] = tiles
    result: list[Op] = []
    for op in ops:
        if not isinstance(op, Load) or op.dst not in whole:
            result.append(op)
        elif op.dst in at:
            result.append(at[op.dst])
    return result, covers


def _by_load_unit(op: Op) -> bool:
    return isinstance(op, Load) and op.dst.scope != "acc"


def _joined(loads: Iterable[tuple[Load, tuple[Tile, ...]]], axis, placement: Placement) -> list:
    result: list[tuple[Load, tuple[Tile, ...]]] = []
    for load, tiles in loads:
        if result:
            last, before = result[-1]
            end = placement.base[last.dst] + last.offset + last.elems
            if end == placement.base[load.dst] + load.offset and last.src is load.src:
                joined = axis(last, load)
                if joined is not None:
                    result[-1] = joined, tuple(dict.fromkeys(before + tiles))
                    continue
        result.append((load, tiles))
    return result


def _longer(a: Load, b: Load) -> Load | None:
    """One row that goes on."""
    plain = (0, 0)
    if (
        a.y_size == b.y_size == 1
        and a.begin + a.x_size == b.begin
        and a.y_pad == a.x_pad == b.y_pad == b.x_pad == plain
        and a.x_size + b.x_size <= MOST_ELEMS
    ):
        return dataclasses.replace(a, x_size=a.x_size + b.x_size, x_stride=a.x_size + b.x_size)
    return None


def _taller(a: Load, b: Load) -> Load | None:
    """More rows of the same length, at the same distance."""
    step = b.begin - (a.begin + (a.y_size - 1) * a.x_stride)
    if (
        a.x_size == b.x_size
        and a.x_pad == b.x_pad
        and a.pad_min == b.pad_min
        and a.y_pad[1] == b.y_pad[0] == 0
        and (a.y_size == 1 or step == a.x_stride)
        and (b.y_size == 1 or step == b.x_stride)
        and 0 <= step <= MOST_ELEMS
        and a.y_size + b.y_size <= MOST_ELEMS
    ):
        return dataclasses.replace(
            a, y_size=a.y_size + b.y_size, x_stride=step, y_pad=(a.y_pad[0], b.y_pad[1])
        )
    return None
