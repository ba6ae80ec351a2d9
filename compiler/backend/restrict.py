"""Parts of operations: what of one concerns some elements of its tile, or some rows of a load."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

from covta.compiler.backend.ops import Alu, Gemm, Load, Loop, Point, Store, Tile

__all__ = ["load_rows", "retarget", "turn_starts", "turns", "window"]


def window(op: Gemm | Alu | Store, low: int, high: int) -> Sequence[Gemm | Alu | Store] | None:
    """The part of `op` on elements ``low ... high - 1`` of its acc tile.

    Returns
    -------
    list or None
        One operation, or more or none; None if such a part is not expressible.
    """
    if isinstance(op, Store):
        return _stored(op, low, high)
    loops = [k for k in op.loops if k.count != 1]
    widest = max(range(len(loops)), key=lambda k: loops[k].dst, default=None)
    reach = sum((k.count - 1) * k.dst for n, k in enumerate(loops) if n != widest)
    parts: dict[tuple[int, int], list[Point]] = {}
    for p in op.points:
        if widest is None or not loops[widest].dst:
            inside = low <= p.dst and p.dst + reach < high
            if not inside and low <= p.dst + reach and p.dst < high:
                return None
            if inside:
                count = 1 if widest is None else loops[widest].count
                parts.setdefault((0, count), []).append(p)
            continue
        step, count = loops[widest].dst, loops[widest].count
        first = min(count, max(0, -((p.dst - low) // step)))
        end = max(first, min(count, (high - 1 - reach - p.dst) // step + 1))
        before, behind = p.dst + (first - 1) * step + reach, p.dst + end * step
        if (first > 0 and before >= low and p.dst + (first - 1) * step < high) or (
            end < count and behind < high and behind + reach >= low
        ):
            return None
        if end > first:
            parts.setdefault((first, end), []).append(p)
    if isinstance(op, Alu) and len(parts) > 1:
        return None
    return [
        dataclasses.replace(
            op, **(_turned(loops, widest, *k, points) if widest is not None else
                   {"points": tuple(points), "loops": tuple(loops)})
        )
        for k, points in parts.items()
    ]  # fmt: skip


def turn_starts(op: Gemm | Alu) -> set[int]:
    """Elements of dst at which a turn of the widest loop begins, or all of it without loops."""
    starts = {p.dst for p in op.points}
    widest = max(op.loops, key=lambda k: k.dst * (k.count > 1), default=None)
    if widest is None:
        return starts
    return {at + k * widest.dst for at in starts for k in range(widest.count)}


def turns(op: Gemm, loop: int, first: int, end: int) -> Gemm:
    """A GEMM's turns ``first ... end - 1`` of one of its loops."""
    return dataclasses.replace(op, **_turned(list(op.loops), loop, first, end, op.points))


def _turned(
    loops: list[Loop], which: int, first: int, end: int, points: Iterable[Point]
) -> dict[str, tuple]:
    k = loops[which]
    moved = tuple(
        Point(
            p.dst + first * k.dst,
            p.src + first * k.src,
            p.wgt + first * k.wgt,
            p.src_tile,
            p.wgt_tile,
        )
        for p in points
    )
    shorter = dataclasses.replace(k, count=end - first)
    return {"points": moved, "loops": (*loops[:which], shorter, *loops[which + 1 :])}


def _stored(op: Store, low: int, high: int) -> list[Store] | None:
    begin, end = max(low, op.offset), min(high, op.offset + op.elems)
    if begin >= end:
        return []
    if op.y_size == 1:
        ahead = begin - op.offset
        return [dataclasses.replace(op, offset=begin, begin=op.begin + ahead, x_size=end - begin)]
    first, rest = divmod(begin - op.offset, op.x_size)
    rows, rest_end = divmod(end - begin, op.x_size)
    if rest or rest_end:
        return None
    return [
        dataclasses.replace(op, offset=begin, begin=op.begin + first * op.x_stride, y_size=rows)
    ]


def load_rows(load: Load, first: int, end: int) -> Load | None:
    """Rows ``first ... end - 1`` of a load, padding counted, to where they would have come.

    None if there is nothing but padding among them, which no load can bring by itself.
    """
    top, bottom = load.y_pad[0], load.y_pad[0] + load.y_size
    inner, outer = max(first, top), min(end, bottom)
    if inner >= outer:
        return None
    width = sum(load.x_pad) + load.x_size
    return dataclasses.replace(
        load,
        offset=load.offset + first * width,
        begin=load.begin + (inner - top) * load.x_stride,
        y_size=outer - inner,
        y_pad=(inner - first, end - outer),
    )


def retarget(op, tiles: Mapping[Tile, tuple[Tile, int]]):
    """The same operation on other tiles, whose elements are so many further to the front."""
    if isinstance(op, Load):
        tile, shift = tiles.get(op.dst, (op.dst, 0))
        return dataclasses.replace(op, dst=tile, offset=op.offset - shift)
    if isinstance(op, Store):
        tile, shift = tiles.get(op.src, (op.src, 0))
        return dataclasses.replace(op, src=tile, offset=op.offset - shift)
    dst, ahead = tiles.get(op.dst, (op.dst, 0))
    points = []
    for p in op.points:
        src, src_shift = tiles.get(p.src_tile, (p.src_tile, 0))
        wgt, wgt_shift = tiles.get(p.wgt_tile, (p.wgt_tile, 0))
        points.append(Point(p.dst - ahead, p.src - src_shift, p.wgt - wgt_shift, src, wgt))
    return dataclasses.replace(op, dst=dst, points=tuple(points))
