"""Random traces with all kinds of operations, interwoven, against one thread in NumPy."""

from dataclasses import replace

import numpy as np
import traces
from hypothesis import given, settings
from hypothesis import strategies as st
from interpret import interpret
from test_compile_trace import check

from covta.compiler.backend.errors import AllocationError
from covta.compiler.backend.halve import halve
from covta.compiler.backend.ops import Alu, DramTensor, Gemm, Load, Loop, Point, Store, Tile, Trace
from covta.compiler.backend.preload import preload
from covta.compiler.backend.stagger import narrow_start, stagger
from covta.compiler.backend.taper import taper
from covta.hw.isa import AluOp, MemoryType
from covta.hw.params import load_config

TINY = load_config("tiny")
SHALLOW = load_config("shallow")
DRAM = 24


@st.composite
def mixed(draw, cfg):
    """Up to six sums of products in one or two tiles at a time, finished in any order."""
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    tx = DramTensor(name="x", memory=MemoryType.INP, shape=(DRAM,))
    tw = DramTensor(name="w", memory=MemoryType.WGT, shape=(DRAM,))
    tb = DramTensor(name="b", memory=MemoryType.ACC, shape=(DRAM,))
    ty = DramTensor(name="y", memory=MemoryType.OUT, shape=(64,))
    values = {
        "x": rng.integers(-8, 8, (DRAM, cfg.batch, cfg.block_in)),
        "w": rng.integers(-2, 2, (DRAM, cfg.block_out, cfg.block_in)),
        "b": rng.integers(-9, 9, (DRAM, cfg.batch, cfg.block_out)),
    }
    ops, at, stage = [], 0, 0
    for number in range(draw(st.integers(1, 6))):
        elems = draw(st.integers(1, 6))
        acc = Tile(name="acc", scope="acc", elems=elems, pool="acc", instance=number)
        plane = (Loop(count=elems, dst=1),)
        ops.append(Gemm(dst=acc, points=(Point(0),), loops=plane, reset=True))
        for _ in range(draw(st.integers(1, 3))):
            loaded = {}
            for scope, tensor in (("inp", tx), ("wgt", tw)):
                loaded[scope] = []
                for _ in range(draw(st.integers(1, 2))):
                    size = draw(st.integers(1, 4))
                    begin = draw(st.integers(0, DRAM - size))
                    keyed = draw(st.booleans())
                    tile = Tile(
                        name=scope, scope=scope, elems=size, pool=scope, instance=stage,
                        key=(scope, begin, size) if keyed else None,
                    )  # fmt: skip
                    loaded[scope].append(tile)
                    ops.append(Load(dst=tile, src=tensor, begin=begin, x_size=size))
            stage += 1
            for _ in range(draw(st.integers(1, 3))):
                count = draw(st.integers(1, elems))
                moving = draw(st.sampled_from(["src", "wgt", "none"]))
                points = []
                for _ in range(draw(st.integers(1, 3))):
                    src, wgt = draw(st.sampled_from(loaded["inp"])), loaded["wgt"][0]
                    room = {"src": src.elems, "wgt": wgt.elems, "none": count}[moving]
                    count = min(count, room)
                    points.append((src, wgt))
                steps = {"src": (1, 0), "wgt": (0, 1), "none": (0, 0)}[moving]
                points = tuple(
                    Point(
                        draw(st.integers(0, elems - count)),
                        draw(st.integers(0, s.elems - 1 - steps[0] * (count - 1))),
                        draw(st.integers(0, w.elems - 1 - steps[1] * (count - 1))), s, w,
                    )
                    for s, w in points
                )  # fmt: skip
                loop = Loop(count=count, dst=1, src=steps[0], wgt=steps[1])
                ops.append(Gemm(dst=acc, points=points, loops=(loop,)))
        finish = []
        if draw(st.booleans()):
            begin = draw(st.integers(0, 3))
            bias = Tile(
                name="b", scope="acc", elems=elems, pool="b", instance=number,
                key=("b", begin, elems),
            )  # fmt: skip
            finish += [
                Load(dst=bias, src=tb, begin=begin, x_size=elems),
                Alu(
                    op=AluOp.ADD, dst=acc, points=(Point(0, 0, 0, bias),),
                    loops=(Loop(count=elems, dst=1, src=1),),
                ),
            ]  # fmt: skip
        for op, imm in draw(
            st.sampled_from([(), ((AluOp.MAX, 0), (AluOp.MIN, 99)), ((AluOp.SHR, 1),)])
        ):
            finish.append(Alu(op=op, dst=acc, points=(Point(0),), loops=plane, imm=imm))
        finish.append(Store(src=acc, dst=ty, begin=at, x_size=elems))
        at += elems
        ops += finish
    generations = {
        pool: draw(st.integers(1, 3)) for pool in draw(st.sets(st.sampled_from(["inp", "acc"])))
    }
    trace = Trace(
        name="mixed", ops=tuple(ops), generations=generations, tensors=(tx, tw, tb, ty),
        preloads=frozenset(draw(st.sets(st.sampled_from(["acc"])))),
    )  # fmt: skip
    return traces.Case(trace=trace, values=values, expect=interpret(cfg, trace, values))


@settings(max_examples=100, deadline=None)
@given(data=st.data(), cfg=st.sampled_from([TINY, SHALLOW]))
def test_mixed_traces_compute_what_one_thread_does(data, cfg):
    case = data.draw(mixed(cfg))
    try:
        check(cfg, case, "functional", "cycle")
    except AllocationError:
        pass


@settings(max_examples=60, deadline=None)
@given(case=mixed(TINY))
def test_cut_traces_compute_what_whole_ones_do(case):
    for change in (
        lambda t: stagger(t),
        lambda t: narrow_start(TINY, t, share=1e9),
        lambda t: stagger(narrow_start(TINY, t, share=1e9)),
        lambda t: halve(t, 3),
        lambda t: preload(replace(t, preloads=frozenset({"acc"}))),
    ):
        result = interpret(TINY, change(case.trace), case.values)
        np.testing.assert_array_equal(result["y"], case.expect["y"])


def test_a_convolution_cut_at_both_ends_computes_the_same():
    cfg = load_config("block8")
    case = traces.conv(cfg, size=9, inputs=16, outputs=32, rows=9, co=2, ci=1)
    trace = taper(cfg, case.trace, share=1e9)
    assert len(trace.ops) > len(case.trace.ops)
    longer = stagger(narrow_start(cfg, trace, share=1e9))
    assert len(longer.ops) > len(trace.ops)
    np.testing.assert_array_equal(interpret(cfg, longer, case.values)["y"], case.expect["y"])
