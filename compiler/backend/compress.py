"""Cut loops over tiles into instructions: two loops and a list of micro-ops each.

An instruction's list is read once, a micro-op a cycle, before it starts, and has to be brought from
DRAM; so lists are kept short and alike: loops are joined where their strides allow, regular points
become loops again, and the two longest loops stay loops. The ALU reads operand 2 once for turns
that follow each other and share it: what changes it stays a loop, the outer one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from covta.compiler.backend.insns import AluInsn, GemmInsn, Insn, LoadInsn, StoreInsn, Uop
from covta.compiler.backend.ops import Alu, Gemm, Load, Op, Store, Tile
from covta.compiler.backend.placement import Placement
from covta.hw.isa import AluOp
from covta.hw.params import Config
from covta.runtime.builder import Loop

__all__ = ["compress", "destinations", "operands"]

MOST_TURNS = (1 << 14) - 1
"""Greatest count of an instruction's loop."""

MOST_UOPS = 1024
"""Micro-ops of an instruction, at most; fewer if the uop scratchpad is small."""

Vector = tuple[int, int, int]
"""What belongs to dst, src and wgt."""


@dataclass(frozen=True, slots=True)
class _Axis:
    """A loop: turns, and what each adds."""

    count: int
    step: Vector


def compress(cfg: Config, op: Op, placement: Placement) -> Iterator[Insn]:
    """The instructions of one operation, in order.

    Requires: every tile of `op` is placed.
    Preserves: for an `Alu` whose elements depend on each other, the order of turns.
    """
    base = placement.base
    if isinstance(op, Load):
        yield LoadInsn(
            scope=op.dst.scope,
            sram_base=base[op.dst] + op.offset,
            src=op.src,
            begin=op.begin,
            y_size=op.y_size,
            x_size=op.x_size,
            x_stride=op.x_stride,
            y_pad=op.y_pad,
            x_pad=op.x_pad,
            pad_min=op.pad_min,
        )
    elif isinstance(op, Store):
        yield StoreInsn(
            sram_base=base[op.src] + op.offset,
            dst=op.dst,
            begin=op.begin,
            y_size=op.y_size,
            x_size=op.x_size,
            x_stride=op.x_stride,
        )
    else:
        yield from _loops(cfg, op, placement)


def destinations(op: Gemm | Alu, placement: Placement) -> np.ndarray:
    """Addresses in acc that an operation writes, in order, with repetitions."""
    return operands(op, placement.base)[:, 0]


def operands(op: Gemm | Alu, base: Mapping[Tile, int]) -> np.ndarray:
    """``(turns, 3)``: what every turn works on in dst, src and wgt, for tiles that begin at `base`;
    0 for what is not read."""
    return _expand(*_absolute(op, base))


def _loops(cfg: Config, op: Gemm | Alu, placement: Placement) -> Iterator[Insn]:
    points, axes = _absolute(op, placement.base)
    if not len(points) or any(axis.count == 0 for axis in axes):
        return
    ordered = isinstance(op, Alu) and _order_matters(op, points, axes)
    limit = max(1, min(MOST_UOPS, cfg.uop_depth // 4))
    shared = isinstance(op, Alu) and 0 < op.sources < op.cycles
    for uops, outer, inner in _cut(points, axes, ordered=ordered, shared=shared, limit=limit):
        if isinstance(op, Gemm):
            yield GemmInsn(uops=uops, outer=outer, inner=inner, reset=op.reset)
        else:
            yield AluInsn(op=op.op, uops=uops, outer=outer, inner=inner, imm=op.imm)


def _absolute(op: Gemm | Alu, base: Mapping[Tile, int]) -> tuple[np.ndarray, list[_Axis]]:
    """Points with addresses in place of offsets, and loops, without operands that are not read."""
    dst = base[op.dst]
    has_src = op.imm is None if isinstance(op, Alu) else not op.reset
    has_wgt = isinstance(op, Gemm) and not op.reset
    rows = []
    for p in op.points:
        assert not has_src or p.src_tile is not None, f"{op}: a point without src_tile"
        assert not has_wgt or p.wgt_tile is not None, f"{op}: a point without wgt_tile"
        rows.append(
            (
                dst + p.dst,
                base[p.src_tile] + p.src if has_src else 0,  # type: ignore[index]
                base[p.wgt_tile] + p.wgt if has_wgt else 0,  # type: ignore[index]
            )
        )
    axes = [
        _Axis(k.count, (k.dst, k.src if has_src else 0, k.wgt if has_wgt else 0))
        for k in op.loops
        if k.count != 1
    ]
    return np.array(rows, np.int64).reshape(-1, 3), axes


def _order_matters(op: Alu, points: np.ndarray, axes: Sequence[_Axis]) -> bool:
    """Whether turns may not change places: results are read again, other than to accumulate."""
    indices = _expand(points, axes)
    dst = indices[:, 0]
    if op.imm is None and np.intersect1d(dst, indices[:, 1]).size:
        return not np.array_equal(dst, indices[:, 1]) or len(np.unique(dst)) != len(dst)
    return op.op not in (AluOp.MIN, AluOp.MAX, AluOp.ADD) and len(np.unique(dst)) != len(dst)


def _expand(points: np.ndarray, axes: Sequence[_Axis]) -> np.ndarray:
    """All indices in order: axes outermost first, points innermost."""
    for axis in reversed(axes):
        steps = np.arange(axis.count)[:, None, None] * np.array(axis.step)[None, None, :]
        points = (steps + points[None, :, :]).reshape(-1, 3)
    return points


def _factor(points: np.ndarray) -> tuple[np.ndarray, list[_Axis]]:
    """Find loops in a list of points: returns a shorter list, and axes outermost first."""
    axes = []
    while (n := len(points)) > 1:
        for length in range(1, n // 2 + 1):
            if n % length:
                continue
            steps = points[length:] - points[:-length]
            if (steps == steps[0]).all():
                dst, src, wgt = (int(s) for s in steps[0])
                axes.append(_Axis(n // length, (dst, src, wgt)))
                points = points[:length]
                break
        else:
            break
    return points, axes


def _joined(axes: Sequence[_Axis], *, ordered: bool) -> list[_Axis]:
    """Fewer axes: one goes on where another ends."""
    left = list(axes)
    changed = True
    while changed:
        changed = False
        for a in range(len(left)):
            others = [a + 1] if ordered else range(len(left))
            for b in others:
                if b >= len(left) or a == b:
                    continue
                outer, inner = left[a], left[b]
                if all(o == i * inner.count for o, i in zip(outer.step, inner.step, strict=True)):
                    left[b] = _Axis(outer.count * inner.count, inner.step)
                    del left[a]
                    changed = True
                    break
            if changed:
                break
    return left


def _cut(
    points: np.ndarray, axes: Sequence[_Axis], *, ordered: bool, shared: bool, limit: int
) -> Iterator[tuple[tuple[Uop, ...], Loop, Loop]]:
    points, found = _factor(points)
    axes = _joined([*axes, *found], ordered=ordered)
    if not ordered:
        points, axes = _ascending(points, axes)
    loops = _choose(axes, ordered=ordered, shared=shared)
    rest = [axis for axis in axes if all(axis is not loop for loop in loops)]
    uops = _expand(points, rest)
    if len(uops) > limit and ordered and loops:
        first, *others = axes  # do its turns one after the other
        for turn in range(first.count):
            moved = points + turn * np.array(first.step)
            yield from _cut(moved, others, ordered=True, shared=shared, limit=limit)
        return
    for begin in range(0, len(uops), limit):
        yield from _instructions(uops[begin : begin + limit], loops)


def _instructions(
    uops: np.ndarray, loops: Sequence[_Axis]
) -> Iterator[tuple[tuple[Uop, ...], Loop, Loop]]:
    """One instruction, or several where a loop has too many turns."""
    for k, loop in enumerate(loops):
        if loop.count > MOST_TURNS:
            for begin in range(0, loop.count, MOST_TURNS):
                part = _Axis(min(MOST_TURNS, loop.count - begin), loop.step)
                moved = uops + begin * np.array(loop.step)
                yield from _instructions(moved, [*loops[:k], part, *loops[k + 1 :]])
            return
    outer, inner = [_Axis(1, (0, 0, 0))] * (2 - len(loops)) + list(loops)
    yield tuple(map(tuple, uops.tolist())), _loop(outer), _loop(inner)


def _loop(axis: _Axis) -> Loop:
    dst, src, wgt = axis.step if axis.count > 1 else (0, 0, 0)
    return Loop(count=axis.count, dst=dst, src=src, wgt=wgt)


def _ascending(points: np.ndarray, axes: Sequence[_Axis]) -> tuple[np.ndarray, list[_Axis]]:
    """Turn loops around that go down."""
    turned = []
    for axis in axes:
        if min(axis.step) < 0 and max(axis.step) <= 0:
            points = points + (axis.count - 1) * np.array(axis.step)
            dst, src, wgt = axis.step
            axis = _Axis(axis.count, (-dst, -src, -wgt))
        turned.append(axis)
    return points, turned


def _choose(axes: Sequence[_Axis], *, ordered: bool, shared: bool) -> list[_Axis]:
    """At most two that stay loops, outer first: the longest, or if order matters the first.

    If operand 2 is `shared`, those that change it before others.
    """
    if ordered:
        chosen = []
        for axis in axes[:2]:
            if min(axis.step) < 0:
                break
            chosen.append(axis)
        return chosen
    able = [axis for axis in axes if min(axis.step) >= 0]

    def changes(axis: _Axis) -> bool:
        return shared and axis.step[1] != 0

    chosen = sorted(able, key=lambda axis: (changes(axis), axis.count), reverse=True)[:2]
    return sorted(chosen, key=lambda axis: (changes(axis), axis.step), reverse=True)
