"""What single passes promise."""

import dataclasses

import numpy as np
import traces
from interpret import interpret

from covta.compiler.backend.allocate import allocate
from covta.compiler.backend.compress import compress
from covta.compiler.backend.costs import work_cycles
from covta.compiler.backend.depend import dependences
from covta.compiler.backend.drain import drain
from covta.compiler.backend.halve import halve
from covta.compiler.backend.insns import AluInsn, GemmInsn
from covta.compiler.backend.merge import merge_loads
from covta.compiler.backend.ops import Alu, DramTensor, Gemm, Load, Loop, Point, Store, Tile, Trace
from covta.compiler.backend.order import Early, Options, order
from covta.compiler.backend.pipeline import compile_trace
from covta.compiler.backend.preload import preload
from covta.compiler.backend.resets import alternatives
from covta.compiler.ops import DepthwiseConv2d, compile_operator
from covta.hw.isa import AluOp, MemoryType
from covta.hw.params import load_config

EDGE = load_config("edge")
CASE = traces.conv(EDGE, size=14, inputs=64, outputs=128, rows=14, co=2, ci=2)


def test_sums_of_following_tiles_lie_in_alternate_banks():
    placement = allocate(EDGE, CASE.trace)
    sums = [op.dst for op in CASE.trace.ops if isinstance(op, Gemm) and op.reset]
    assert [placement.banks(tile) for tile in sums] == [1, 2, 1, 2]


def test_a_bias_lies_beside_its_sums():
    placement = allocate(EDGE, CASE.trace)
    adds = [op for op in CASE.trace.ops if isinstance(op, Alu) and op.imm is None]
    for op in adds:
        assert placement.banks(op.dst) == placement.banks(op.points[0].src_tile)


def test_what_is_resident_is_not_loaded_again():
    placement = allocate(EDGE, CASE.trace)
    inputs = [op for op in placement.dropped if op.dst.scope == "inp"]
    assert len(inputs) == 3 * 4  # of four tiles of channels, all but the first
    assert all(placement.base[op.dst] == placement.base[placement.home[op.dst]] for op in inputs)


def test_neighbouring_weights_become_one_load():
    merged = merge_loads(CASE.trace, allocate(EDGE, CASE.trace))
    weights = [op for op in merged.ops if isinstance(op, Load) and op.dst.scope == "wgt"]
    assert len(weights) == 4 * 2  # one a tile and stage
    assert {(op.y_size, op.x_size) for op in weights} == {(2, 18)}


def test_biases_that_stay_are_loaded_together_but_for_the_first_of_a_bank():
    layer = DepthwiseConv2d(channels=256, height=7, width=7, padding=1)
    compiled = compile_operator(EDGE, layer)
    stages = {stage.name: stage.result for stage in compiled.built.backend.stages}
    loads = [op for op in stages["merge"].ops if isinstance(op, Load) and op.dst.scope == "acc"]
    filled = [tile for op in loads for tile in stages["merge"].covers[op]]
    assert set(filled) == stages["allocate"].resident
    assert len(filled) == len(set(filled)) > len(loads)
    firsts = [op for op in loads if op.y_size == 1]
    assert {stages["allocate"].banks(op.dst) for op in firsts} == {1, 2}


def test_one_shift_zeroes_whatever_is_there():
    placement = allocate(EDGE, CASE.trace)
    found = alternatives(EDGE, merge_loads(CASE.trace, placement).ops, placement)
    steps = [[(alu.op, alu.imm) for alu in alus] for alus in found.values()]
    assert steps == [[(AluOp.SHR, -EDGE.acc_bits)]] * 4


def test_what_is_zero_needs_no_reset():
    tile = Tile(name="sums", pool="sums", scope="acc", elems=4, instance=0)
    first, second = (
        Gemm(dst=tile, points=(Point(0),), loops=(Loop(count=4, dst=1),), reset=True)
        for _ in range(2)
    )
    trace = Trace(name="twice", ops=(first, second), tensors=())
    found = alternatives(EDGE, trace.ops, allocate(EDGE, trace))
    assert [len(steps) for steps in found.values()] == [1, 0]


def test_only_the_first_tile_is_zeroed_by_the_array():
    compiled = compile_trace(EDGE, CASE.trace, without=("stagger", "taper"))
    (stage,) = (s for s in compiled.stages if s.name == "order")
    resets = [op for op in stage.result.ops if isinstance(op, Gemm) and op.reset]
    assert len(resets) == 1


def test_early_biases_come_before_all_other_loads():
    case = traces.conv(EDGE, size=14, inputs=64, outputs=64, rows=7, co=2, ci=2)
    placement = allocate(EDGE, case.trace)
    merged = merge_loads(case.trace, placement)
    graph = dependences(merged, placement)
    resets = alternatives(EDGE, merged.ops, placement)
    for early in (Early.ALL, Early.FIRST_BANK):
        ordered = order(EDGE, case.trace, merged, graph, placement, resets, Options(early=early))
        loads = [op for op in ordered.ops if isinstance(op, Load)]
        assert ordered.ops[0] is loads[0]
        assert placement.banks(loads[0].dst) == 1
        if early is Early.ALL:
            assert ordered.ops[1] is loads[1]
            assert placement.banks(loads[1].dst) == 2


def test_two_longest_loops_stay_loops_and_the_rest_becomes_micro_ops():
    placement = allocate(EDGE, CASE.trace)
    gemm = next(op for op in CASE.trace.ops if isinstance(op, Gemm) and not op.reset)
    (insn,) = compress(EDGE, gemm, placement)
    assert isinstance(insn, GemmInsn)
    assert (insn.outer.count, insn.inner.count, len(insn.uops)) == (14, 14, 4)


def test_what_changes_operand_2_is_the_outer_loop():
    sums, bias = (
        Tile(name=name, pool=name, scope="acc", elems=elems, instance=0)
        for name, elems in (("sums", 4 * 70), ("bias", 4))
    )
    loops = (Loop(count=7, dst=10), Loop(count=4, dst=70, src=1), Loop(count=9, dst=1))
    op = Alu(op=AluOp.ADD, dst=sums, points=(Point(0, 0, 0, bias, None),), loops=loops)
    trace = Trace(name="bias", ops=(op,), tensors=())
    (insn,) = compress(EDGE, op, allocate(EDGE, trace))
    assert isinstance(insn, AluInsn)
    assert (insn.outer.count, insn.inner.count, len(insn.uops)) == (4, 9, 7)
    assert op.sources == 4
    assert work_cycles(EDGE, op) == 4 * 7 * 9 + 4


def test_a_small_tile_lies_behind_the_slots():
    bank = EDGE.acc_depth // 2
    large, small = bank * 3 // 4, bank // 4
    ops = []
    for number, elems in enumerate((large, large, small, small, large)):
        tile = Tile(name="sums", pool="sums", scope="acc", elems=elems, instance=number)
        loops = (Loop(count=elems, dst=1),)
        ops += [Gemm(dst=tile, points=(Point(0),), loops=loops, reset=True)]
    placement = allocate(EDGE, Trace(name="tiles", ops=tuple(ops), tensors=()))
    bases = [placement.base[op.dst] for op in ops]
    assert bases == [0, bank, large, bank + large, 0]


def test_results_leave_piece_by_piece():
    case = traces.maxpool(EDGE, size=32, blocks=1, rows=8)
    drained = drain(case.trace, runs=1, elems=32)
    stores = [[op for op in t.ops if isinstance(op, Store)] for t in (case.trace, drained)]
    assert [op.elems for op in stores[0]][-1] == 128
    assert [op.elems for op in stores[1]][-4:] == [32] * 4
    check = drained.ops[: -4 * 4]
    assert check == case.trace.ops[: len(check)]


def test_sums_begin_with_their_biases():
    trace = dataclasses.replace(CASE.trace, preloads=frozenset({"acc"}))
    loaded = preload(trace)
    np.testing.assert_array_equal(interpret(EDGE, loaded, CASE.values)["y"], CASE.expect["y"])
    assert not any(isinstance(op, Gemm) and op.reset for op in loaded.ops)
    assert not any(isinstance(op, Alu) and op.op == AluOp.ADD for op in loaded.ops)
    loads = [op for op in loaded.ops if isinstance(op, Load) and op.dst.scope == "acc"]
    rows = [(op.begin, op.offset, op.y_size, op.x_size, op.x_stride) for op in loads]
    assert rows[:2] == [(0, 0, 196, 1, 0), (1, 196, 196, 1, 0)]
    assert rows[-1] == (7, 196, 196, 1, 0)


def test_a_bias_of_every_element_is_one_load():
    sums, bias = (
        Tile(name=name, pool=name, scope="acc", elems=8, instance=0) for name in ("sums", "bias")
    )
    tensor = DramTensor(name="b", memory=MemoryType.ACC, shape=(20,))
    plane, along = (Loop(count=8, dst=1),), (Loop(count=8, dst=1, src=1),)
    ops = (
        Gemm(dst=sums, points=(Point(0),), loops=plane, reset=True),
        Load(dst=bias, src=tensor, begin=5, x_size=8),
        Alu(op=AluOp.ADD, dst=sums, points=(Point(0, 0, 0, bias),), loops=along),
    )
    trace = Trace(name="sums", ops=ops, preloads=frozenset({"sums"}))
    (load,) = preload(trace).ops
    assert isinstance(load, Load)
    assert (load.dst, load.begin, load.y_size, load.x_size) == (sums, 5, 1, 8)
    stored = Store(src=sums, dst=tensor, begin=0, x_size=8)
    written = dataclasses.replace(trace, ops=(*ops, stored))
    assert preload(written).ops == written.ops


def test_a_tile_that_takes_both_banks_is_halved():
    bank = EDGE.acc_depth // 2
    case = traces.conv(EDGE, size=32, inputs=32, outputs=64, rows=24, co=2, ci=2)
    halved = halve(case.trace, bank)
    np.testing.assert_array_equal(interpret(EDGE, halved, case.values)["y"], case.expect["y"])
    tiles = [
        [op.dst for op in trace.ops if isinstance(op, Gemm) and op.reset]
        for trace in (case.trace, halved)
    ]
    assert [tile.elems for tile in tiles[0]] == [2 * 768, 2 * 768, 2 * 256, 2 * 256]
    assert [tile.elems for tile in tiles[1]] == [768] * 4 + [2 * 256] * 2
    placement = allocate(EDGE, halved)
    assert [placement.banks(tile) for tile in tiles[1]] == [1, 2] * 3


def test_halves_keep_the_array_busy_where_a_tile_takes_both_banks():
    case = traces.conv(EDGE, size=32, inputs=32, outputs=64, rows=24, co=2, ci=2)
    stages = {stage.name: stage.result for stage in compile_trace(EDGE, case.trace).stages}
    assert stages["halve"] is not stages["taper"]
    sums = {op.dst.elems for op in stages["order"].ops if isinstance(op, Gemm)}
    assert max(sums) <= EDGE.acc_depth // 2


def test_what_depends_on_another_element_is_not_halved():
    sums = Tile(name="sums", pool="sums", scope="acc", elems=8, instance=0)
    loops = (Loop(count=4, dst=1, src=1),)
    ops = (
        Gemm(dst=sums, points=(Point(0),), loops=(Loop(count=8, dst=1),), reset=True),
        Alu(op=AluOp.MAX, dst=sums, points=(Point(0, 4, 0, sums),), loops=loops),
    )
    trace = Trace(name="halves", ops=ops)
    assert halve(trace, 4) is trace


def test_operations_on_other_elements_of_a_tile_are_independent():
    tiles = [
        Tile(name="sums", pool="sums", scope="acc", elems=EDGE.acc_depth // 2, instance=k)
        for k in range(2)
    ]
    half = tiles[0].elems // 2
    begins = [(tile, at) for tile in (tiles[0], tiles[0], tiles[1], tiles[1]) for at in (0, half)]
    loops = (Loop(count=half, dst=1),)
    ops = [Alu(op=AluOp.MAX, dst=t, points=(Point(at),), loops=loops, imm=0) for t, at in begins]
    trace = Trace(name="halves", ops=tuple(ops), tensors=(), generations={"sums": 1})
    placement = allocate(EDGE, trace)
    assert placement.base[tiles[0]] == placement.base[tiles[1]]
    nodes = dependences(merge_loads(trace, placement), placement).nodes
    before = [{other.number for other in node.before} for node in nodes]
    assert before[:4] == [set(), set(), {0}, {1}]
    assert [max(b) for b in before[4:]] == [2, 3, 4, 5]
    assert all(k % 2 == n % 2 for n, b in enumerate(before) for k in b)


def test_every_stage_prints():
    compiled = compile_trace(EDGE, CASE.trace)
    names = [stage.name for stage in compiled.stages]
    assert names == [
        "trace", "requantize", "preload", "turn", "stagger", "taper", "halve", "drain", "allocate",
        "merge", "order", "compress", "emit",
    ]  # fmt: skip
    assert all(f"---- {name}" in str(compiled) for name in names)
    assert str(compile_trace(EDGE, CASE.trace)) == str(compiled)
