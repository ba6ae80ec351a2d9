"""What stays in inp and wgt, and in which order the rest is loaded."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from covta.compiler.backend.allocate import allocate
from covta.compiler.backend.merge import merge_loads
from covta.compiler.backend.ops import DramTensor, Gemm, Load, Loop, Point, Tile, Trace
from covta.compiler.backend.prefetch import prefetch
from covta.compiler.backend.turn import turn
from covta.hw.isa import MemoryType
from covta.hw.params import load_config

TINY = load_config("tiny")
WEIGHTS = DramTensor(name="w", memory=MemoryType.WGT, shape=(1 << 16,))
SUMS = Tile(name="acc", scope="acc", elems=1, pool="acc", instance=0)


def stages(needs: list[tuple[int, int, bool]]) -> Trace:
    """A stage for each (what, elements, whether it is read), of one pool of wgt."""
    ops = []
    for number, (what, elems, read) in enumerate(needs):
        tile = Tile(
            name="w", scope="wgt", elems=elems, pool="w", instance=number, key=(what, elems)
        )
        ops.append(Load(dst=tile, src=WEIGHTS, begin=256 * what, x_size=elems))
        if read:
            point = Point(0, 0, 0, None, tile)
            ops.append(Gemm(dst=SUMS, points=(point,), loops=(Loop(count=elems, wgt=1),)))
    return Trace(name="stages", ops=tuple(ops), tensors=(WEIGHTS,))


def loaded(trace: Trace, lead: int | None) -> int:
    """Loads that are not dropped."""
    placement = allocate(TINY, trace, lead=lead)
    return len(trace.ops) // 2 - len(placement.dropped)


def test_a_ring_keeps_nothing_of_a_cycle_that_is_too_long_and_a_cache_most():
    quarter = TINY.wgt_depth // 4
    trace = stages([(what, quarter, True) for what in [*range(6)] * 4])
    assert loaded(trace, None) == 24
    assert loaded(trace, 0) == 12  # six at first, then two a round
    assert loaded(trace, 0) <= loaded(trace, 1) <= loaded(trace, 2) <= 24


def test_every_other_block_turns_round_where_that_finds_more():
    ops = []
    for block in range(3):
        sums = Tile(name="acc", scope="acc", elems=1, pool="acc", instance=100 + block)
        ops.append(Gemm(dst=sums, points=(Point(0),), reset=True))
        for op in stages([(what, 1, True) for what in range(4)]).ops:
            ops.append(dataclasses.replace(op, dst=sums) if isinstance(op, Gemm) else op)
    turned = turn(Trace(name="blocks", ops=tuple(ops), tensors=(WEIGHTS,)))
    order = [op.begin // 256 for op in turned.ops if isinstance(op, Load)]
    assert order == [0, 1, 2, 3, 3, 2, 1, 0, 0, 1, 2, 3]


def test_loads_wait_less_with_more_lead():
    quarter = TINY.wgt_depth // 4
    trace = stages([(what, quarter, True) for what in [*range(6)] * 4])
    waits = []
    for lead in (0, 1):
        placement = allocate(TINY, trace, lead=lead)
        needs = {op.points[0].wgt_tile: k for k, op in enumerate(trace.ops) if isinstance(op, Gemm)}
        waits.append(
            min(
                needs[t] - after for t, after in placement.after.items() if t in needs and after > 0
            )
        )
    assert waits[0] < waits[1]


@pytest.mark.parametrize("lead", [None, 0, 1, 3])
@pytest.mark.parametrize("seed", range(20))
def test_every_product_finds_what_was_loaded_for_it(seed: int, lead: int | None):
    """Even if each load happens as soon as what it waits for is done."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, TINY.wgt_depth // 3, 8)
    picks = rng.integers(0, 8, 60)
    trace = stages([(int(k), int(sizes[k]), rng.random() < 0.8) for k in picks])
    placement = allocate(TINY, trace, lead=lead)
    merged, _ = prefetch(TINY, trace, merge_loads(trace, placement, join=False), placement)
    waits = {op: -1 for op in merged.ops if isinstance(op, Load)}
    for op in waits:
        read = placement.after[placement.home[op.dst]]
        waits[op] = merged.ops.index(trace.ops[read]) if read >= 0 else -1
    there = np.full(TINY.wgt_depth, -1)
    queue = list(waits)
    for k, op in enumerate(merged.ops):
        while queue and waits[queue[0]] < k:
            load = queue.pop(0)
            begin = placement.base[load.dst]
            there[begin : begin + load.elems] = load.begin
        if isinstance(op, Load):
            assert op not in queue
        elif isinstance(op, Gemm):
            tile = op.points[0].wgt_tile
            assert tile is not None
            assert tile.key is not None
            begin = placement.base[tile]
            assert set(there[begin : begin + tile.elems]) == {256 * tile.key[0]}
