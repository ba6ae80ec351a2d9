"""Traces become programs that compute what NumPy does, whatever the passes do to them."""

import numpy as np
import pytest
import traces
from hypothesis import given, settings
from hypothesis import strategies as st

from covta.compiler.backend import pipeline
from covta.compiler.backend.allocate import allocate
from covta.compiler.backend.errors import AllocationError
from covta.compiler.backend.ops import Alu, DramTensor, Gemm, Load, Loop, Point, Store, Tile, Trace
from covta.compiler.backend.pipeline import compile_trace
from covta.hw.isa import AluOp, MemoryType
from covta.hw.params import load_config
from covta.runtime.device import open_device
from covta.runtime.report import first_difference

EDGE = load_config("edge")
TINY = load_config("tiny")
BATCH2 = load_config("batch2")
SHALLOW = load_config("shallow")


def check(cfg, case, *devices, **options):
    compiled = compile_trace(cfg, case.trace, values=case.values, expect=case.expect, **options)
    results = [open_device(d).run(compiled.program) for d in devices or ("functional",)]
    for result in results:
        assert result.fault is None, (result.device, result.fault, str(compiled))
        assert first_difference(compiled.program, result) is None, (result.device, str(compiled))
    return compiled, results[-1]


@pytest.mark.parametrize(
    "case",
    [
        traces.matmul(EDGE, m=64, k=512, n=512, tm=32, tn=8, tk=8),
        traces.matmul(EDGE, m=1, k=256, n=1024, tm=1, tn=16, tk=4),
        traces.add(EDGE, elems=1000, tile=128),
        traces.add(EDGE, elems=700, tile=256, generations=2),
        traces.maxpool(EDGE, size=32, blocks=2, rows=4),
        traces.conv(EDGE, size=14, inputs=64, outputs=64, rows=7, co=2, ci=2, relu=False),
        traces.conv(EDGE, size=15, inputs=32, outputs=48, stride=2, rows=3, co=2, ci=1),
        traces.conv(EDGE, size=9, inputs=32, outputs=64, kernel=1, pad=0, rows=9, co=4, ci=2),
    ],
    ids=lambda case: case.trace.name,
)
@pytest.mark.parametrize("reorder", [False, True])
def test_kernels_compute_what_numpy_does(case, reorder):
    check(EDGE, case, "functional", "cycle", reorder=reorder)


@settings(max_examples=40, deadline=None)
@given(
    cfg=st.sampled_from([TINY, BATCH2, SHALLOW]),
    size=st.integers(2, 5),
    inputs=st.integers(1, 12),
    outputs=st.integers(1, 16),
    kernel=st.sampled_from([1, 2, 3]),
    stride=st.integers(1, 2),
    rows=st.integers(1, 3),
    co=st.integers(1, 3),
    ci=st.integers(1, 2),
    relu=st.booleans(),
    bias=st.booleans(),
)
def test_any_convolution_that_fits_is_right(cfg, size, kernel, **options):
    case = traces.conv(cfg, size=size, kernel=kernel, pad=kernel // 2, **options)
    try:
        check(cfg, case, "functional", "cycle")
    except AllocationError:
        pass


# ---- random traces -------------------------------------------------------------------------
@st.composite
def elementwise(draw):
    """Operations on some tiles of acc, loaded and stored, with NumPy's result of one thread."""
    cfg = TINY
    lanes = (cfg.batch, cfg.block_out)
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    x = rng.integers(-100, 100, (32, *lanes))
    y = np.zeros((64, *lanes), np.int64)
    tx = DramTensor(name="x", memory=MemoryType.ACC, shape=(32,))
    ty = DramTensor(name="y", memory=MemoryType.OUT, shape=(64,))
    ops, at = [], 0
    for instance in range(draw(st.integers(1, 5))):
        names = draw(st.sampled_from(["a", "ab"]))
        elems = draw(st.integers(1, 6))
        tiles, state = {}, {}
        for name in names:
            begin = draw(st.integers(0, 32 - elems))
            key = ("x", begin, elems) if name == "b" else None
            tiles[name] = Tile(
                name=name, scope="acc", elems=elems, pool=name, instance=instance, key=key
            )
            state[name] = x[begin : begin + elems].astype(np.int64)
            ops.append(Load(dst=tiles[name], src=tx, begin=begin, x_size=elems))
        for _ in range(draw(st.integers(0, 5))):
            dst, src = draw(st.sampled_from(names)), draw(st.sampled_from(names))
            op = draw(st.sampled_from([AluOp.MIN, AluOp.MAX, AluOp.ADD, AluOp.SHR, None]))
            if op is None:
                ops.append(
                    Gemm(
                        dst=tiles[dst], points=(Point(0),), loops=(Loop(count=elems, dst=1),),
                        reset=True,
                    )
                )  # fmt: skip
                state[dst] = np.zeros_like(state[dst])
                continue
            imm = draw(st.none() | st.integers(0, 20))
            if op == AluOp.SHR or (dst == src and imm is None):
                imm = 1
            count = draw(st.integers(1, elems))
            d, s = draw(st.integers(0, elems - count)), draw(st.integers(0, elems - count))
            step = draw(st.integers(0, 1))
            ops.append(
                Alu(
                    op=op, dst=tiles[dst], imm=imm, loops=(Loop(count=count, dst=step, src=1),),
                    points=(Point(d, s, 0, None if imm is not None else tiles[src]),),
                )
            )  # fmt: skip
            for k in range(count):
                left = state[dst][d + k * step]
                right = imm if imm is not None else state[src][s + k].copy()
                state[dst][d + k * step] = {
                    AluOp.MIN: np.minimum, AluOp.MAX: np.maximum, AluOp.ADD: np.add,
                    AluOp.SHR: np.right_shift,
                }[op](left, right)  # fmt: skip
        for name in names:
            if at + elems <= 64 and draw(st.booleans()):
                ops.append(Store(src=tiles[name], dst=ty, begin=at, x_size=elems))
                y[at : at + elems] = state[name].astype(np.int8)
                at += elems
    generations = {name: draw(st.integers(1, 4)) for name in draw(st.sampled_from(["", "a", "ab"]))}
    trace = Trace(name="random", ops=tuple(ops), generations=generations, tensors=(tx, ty))
    return traces.Case(trace=trace, values={"x": x}, expect={"y": y})


@settings(max_examples=150, deadline=None)
@given(case=elementwise())
def test_any_order_of_alu_operations_is_right(case):
    check(TINY, case, "functional", "cycle")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"acc": 5000}, "pool acc: 1 instances of 5000 elements .* must fit acc"),
        ({"inp": 3000}, "pool inp: the instances of every pool of inp must fit 2048 elements"),
    ],
)
def test_a_tile_that_does_not_fit_is_named(change, message):
    tensor = {
        s: DramTensor(name=s, memory=MemoryType[s.upper()], shape=(9999,)) for s in ("inp", "acc")
    }
    ops = tuple(
        Load(
            dst=Tile(name=s, scope=s, elems=n, pool=s, instance=0), src=tensor[s], begin=0, x_size=n
        )
        for s, n in change.items()
    )
    with pytest.raises(AllocationError, match=message):
        allocate(EDGE, Trace(name="big", ops=ops))


@pytest.mark.parametrize("name", traces.LAYERS)
def test_layers_keep_the_array_busy(name):
    case = traces.layer(EDGE, name)
    compiled, result = check(EDGE, case, "cycle")
    ideal = sum(op.cycles for op in case.trace.ops if isinstance(op, Gemm) and not op.reset)
    assert ideal / result.cycles >= 0.99
    assert compiled.report["seconds"] < 5


def test_rings_that_take_all_the_room_compute_the_same(monkeypatch):
    case = traces.conv(EDGE, size=14, inputs=256, outputs=512, rows=14, co=5, ci=2)
    usual, larger = (allocate(EDGE, case.trace, full=full) for full in (False, True))

    def addresses(placement):
        return {placement.base[t] for t in case.trace.lifetimes if t.scope == "wgt"}

    assert addresses(usual) < addresses(larger)
    monkeypatch.setattr(pipeline, "GOOD_ENOUGH", 0)
    monkeypatch.setattr(pipeline, "WORTH_LARGER", 0)
    check(EDGE, case, "functional", "cycle")
