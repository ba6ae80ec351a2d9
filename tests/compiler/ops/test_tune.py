"""Knobs picked by running them; tiles that take all of acc; virtual threads."""

from __future__ import annotations

from dataclasses import replace

import pytest

from covta.compiler.backend.ops import Alu, Gemm
from covta.compiler.ops import Conv2d, MaxPool2d, OperatorError, compile_operator
from covta.compiler.ops.tune import tune
from covta.hw.isa import AluOp
from covta.hw.params import load_config
from covta.runtime.device import open_device
from covta.sim.dram import DramModel

LAYER = Conv2d(in_channels=32, out_channels=32, height=8, width=8, padding=1)


def cycles(cfg, operator, knobs):
    arrays = operator.random_inputs(1)
    compiled = compile_operator(cfg, operator, knobs, arrays=arrays)
    run = open_device("cycle").run(compiled.program, DramModel(latency_cycles=32))
    assert (compiled.result(run) == operator.reference(arrays)).all()
    return run.cycles


def test_what_was_tuned_is_no_slower_than_the_default_and_takes_what_was_measured():
    cfg = load_config("block16")
    knobs, measured = tune(cfg, LAYER, tries=4)
    assert cycles(cfg, LAYER, knobs) == measured
    assert measured <= cycles(cfg, LAYER, LAYER.default(cfg))


def test_one_try_is_the_default():
    cfg = load_config("block16")
    assert tune(cfg, LAYER, tries=1)[0] == LAYER.default(cfg)


def test_pooling_is_tuned_too():
    cfg, operator = load_config("block16"), MaxPool2d(channels=16, height=6, width=6)
    knobs, measured = tune(cfg, operator, tries=3)
    assert cycles(cfg, operator, knobs) == measured <= cycles(cfg, operator, operator.default(cfg))


def test_no_try_is_refused():
    with pytest.raises(OperatorError, match="tries must be at least 1, got 0"):
        tune(load_config("block16"), LAYER, tries=0)


def test_a_tile_may_take_all_of_acc_in_turns():
    cfg = load_config("block16")
    operator = Conv2d(in_channels=16, out_channels=32, height=7, width=9, kernel=1)
    knobs = replace(operator.default(cfg), rows=7, columns=9, channels=1, banks=1)
    assert operator.need(cfg, knobs)["acc"] == cfg.acc_depth
    assert not operator.legal(cfg, replace(knobs, banks=2))
    assert cycles(cfg, operator, knobs) > 0


def test_virtual_threads_sum_two_tiles_in_turns():
    cfg = load_config("block16")
    operator = Conv2d(in_channels=32, out_channels=32, height=8, width=8, kernel=1)
    one = replace(
        operator.default(cfg), rows=4, columns=2, channels=1, reduce=1, taper=False, stages=1,
        weight_stages=2,
    )  # fmt: skip
    two = replace(one, threads=2)
    compiled = compile_operator(cfg, operator, two)
    trace = next(s.result for s in compiled.built.backend.stages if s.name == "trace")
    tiles = [op.dst for op in trace.ops if isinstance(op, Gemm) and not op.reset]
    assert tiles[0] is not tiles[1]
    assert tiles[0] is tiles[2]
    assert cycles(cfg, operator, two) > 0


def test_a_bias_may_be_loaded_in_place_of_a_reset():
    cfg = load_config("block16")
    operator = Conv2d(in_channels=32, out_channels=32, height=8, width=8, kernel=3, padding=1)
    added = replace(operator.default(cfg), taper=False)
    loaded = replace(added, preload=True)
    for knobs, expected in ((added, True), (loaded, False)):
        stages = compile_operator(cfg, operator, knobs).built.backend.stages
        ops = next(stage.result for stage in stages if stage.name == "preload").ops
        resets = [op for op in ops if isinstance(op, Gemm) and op.reset]
        additions = [op for op in ops if isinstance(op, Alu) and op.op == AluOp.ADD]
        assert (bool(resets), bool(additions)) == (expected, expected)
    assert cycles(cfg, operator, loaded) > 0
    plain = replace(operator, requantize=replace(operator.requantize, bias=False))
    assert not plain.legal(cfg, loaded)
    assert plain.space(cfg).choices["preload"] == (False,)


@pytest.mark.parametrize("change", [{"taper": True}, {"rows": 3}, {"columns": 8}])
def test_threads_take_tiles_that_are_all_alike(change):
    cfg = load_config("block16")
    operator = Conv2d(in_channels=16, out_channels=16, height=8, width=8, kernel=1)
    good = replace(operator.default(cfg), rows=4, columns=2, taper=False, channels=1, threads=2)
    assert operator.legal(cfg, good)
    assert not operator.legal(cfg, replace(good, **change))


def test_tiles_that_padding_clips_are_not_paired():
    cfg = load_config("block16")
    knobs = replace(LAYER.default(cfg), rows=2, columns=2, channels=1, reduce=1, taper=False)
    assert LAYER.legal(cfg, knobs)
    assert not LAYER.legal(cfg, replace(knobs, threads=2))
