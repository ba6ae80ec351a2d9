"""Operators with fixed sizes on small machines against NumPy, and what they promise of knobs."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest

from covta.compiler.backend.ops import Alu, Gemm
from covta.compiler.ops import (
    AveragePool2d,
    BatchMatmul,
    BatchNorm,
    Conv2d,
    Dense,
    DepthwiseConv2d,
    Elementwise,
    GlobalAveragePool2d,
    GroupedConv2d,
    LeakyRelu,
    MaxPool2d,
    OperatorError,
    Requantization,
    Requantize,
    ResidualAdd,
    TransposedConv2d,
    compile_operator,
)
from covta.compiler.ops.pointwise import PointwiseKnobs
from covta.compiler.verify import verify_program
from covta.hw.params import load_config
from covta.runtime.device import open_device
from covta.runtime.report import verdict

PLAIN = Requantize(bias=False, shift=0)

CASES = {
    "conv2d of 3 channels": Conv2d(in_channels=3, out_channels=8, height=9, width=9, padding=1),
    "conv2d of 255 channels": Conv2d(
        in_channels=255, out_channels=5, height=2, width=2, kernel=1
    ),
    "conv2d with a large kernel": Conv2d(
        in_channels=4, out_channels=4, height=11, width=11, kernel=11, padding=5, stride=4
    ),
    "conv2d with a large dilation": Conv2d(
        in_channels=4, out_channels=4, height=17, width=9, kernel=(3, 2), dilation=(8, 5), padding=1
    ),
    "conv2d, gathered": Conv2d(
        in_channels=3, out_channels=8, height=11, width=11, kernel=7, stride=2, padding=3,
        gather=True,
    ),
    "depthwise": DepthwiseConv2d(channels=10, height=7, width=7, padding=1),
    "depthwise, two outputs a channel": DepthwiseConv2d(
        channels=6, height=5, width=6, stride=2, padding=1, multiplier=2
    ),
    "grouped, groups within an element": GroupedConv2d(
        in_channels=12, out_channels=12, groups=6, height=5, width=5, padding=1
    ),
    "grouped, groups across elements": GroupedConv2d(
        in_channels=21, out_channels=35, groups=7, height=4, width=4
    ),
    "batch norm": BatchNorm(channels=9, height=4, width=5),
    "transposed, 4 by 2": TransposedConv2d(in_channels=5, out_channels=6, height=4, width=4),
    "transposed, 3 by 2": TransposedConv2d(
        in_channels=5, out_channels=6, height=4, width=3, kernel=3, output_padding=1
    ),
    "transposed, stride beyond the kernel": TransposedConv2d(
        in_channels=4, out_channels=4, height=3, width=3, kernel=1, stride=3, padding=0
    ),
    "dense": Dense(in_features=21, out_features=11, batch=5),
    "batched matmul": BatchMatmul(items=3, rows=5, in_features=9, out_features=7),
    "max pool 3 by 2": MaxPool2d(channels=5, height=8, width=9, kernel=3, stride=2, padding=1),
    "max pool 2 by 2": MaxPool2d(channels=5, height=6, width=6),
    "max pool 3 by 1": MaxPool2d(channels=5, height=5, width=5, kernel=3, stride=1, padding=1),
    "max pool of windows that begin outside": MaxPool2d(
        channels=5, height=3, width=3, kernel=3, stride=1, padding=2
    ),
    "average pool": AveragePool2d(channels=5, height=6, width=6, kernel=3, stride=1, padding=1),
    "global average pool": GlobalAveragePool2d(channels=9, height=7, width=7),
    "residual add": ResidualAdd(channels=5, height=4, width=4, scale_a=-128, scale_b=127),
    "add": Elementwise(channels=5, height=4, width=4, op="add", requantize=PLAIN),
    "multiply": Elementwise(
        channels=5, height=4, width=4, op="multiply", requantize=Requantize(bias=False, shift=7)
    ),
    "min": Elementwise(channels=5, height=4, width=4, op="min"),
    "max": Elementwise(channels=5, height=4, width=4, op="max"),
    "leaky relu": LeakyRelu(channels=5, height=4, width=4),
    "relu6": Requantization(
        channels=5, height=4, width=4, requantize=replace(PLAIN, low=0, high=6)
    ),
    "requantise per channel": Requantization(
        channels=5, height=4, width=4,
        requantize=Requantize(bias=False, per_channel=True, shift=10, rounding=True),
    ),
    "a half beyond an immediate": Requantization(
        channels=5, height=4, width=4,
        requantize=Requantize(bias=False, multiplier=32767, shift=16, rounding=True),
    ),
    "a half that could overflow": Conv2d(
        in_channels=5, out_channels=6, height=4, width=4, kernel=1,
        requantize=Requantize(per_channel=True, pre_shift=2, shift=31, rounding=True),
    ),
}  # fmt: skip

MACHINES = ("block16", "batch2", "in8_out4", "block8")
"""One for each case, in turn; random operators run on all of them."""


def run(config, operator, knobs=None, device="functional"):
    cfg, arrays = load_config(config), operator.random_inputs(7)
    compiled = compile_operator(cfg, operator, knobs, arrays=arrays)
    result = open_device(device).run(compiled.program)
    assert result.fault is None
    return compiled, compiled.result(result), operator.reference(arrays), result


@pytest.mark.parametrize("case", CASES)
def test_an_operator_is_what_numpy_says(case):
    config = MACHINES[list(CASES).index(case) % len(MACHINES)]
    compiled, got, wanted, _ = run(config, CASES[case])
    np.testing.assert_array_equal(got, wanted)
    report = verify_program(compiled.program)
    assert [f for f in report.findings if f.severity == "error" or f.rule == "truncation"] == []


def test_a_repeated_layer_is_compiled_once_and_holds_its_own_weights():
    cfg, operator = load_config("block8"), CASES["conv2d of 3 channels"]
    inputs = [operator.random_inputs(seed) for seed in (1, 2)]
    compiled = [compile_operator(cfg, operator, arrays=arrays, expect=True) for arrays in inputs]
    assert compiled[0].built.functions is compiled[1].built.functions
    for one, arrays in zip(compiled, inputs, strict=True):
        result = open_device("functional").run(one.program)
        np.testing.assert_array_equal(one.result(result), operator.reference(arrays))
        assert verdict(one.program, result) == "match"
    again = compile_operator(cfg, operator).program  # without contents
    assert not any(again.regions[k].any() for k in range(len(again.meta["buffers"])))
    with pytest.raises(ValueError, match="read-only"):
        again.regions[0][0] = 1


@pytest.mark.parametrize("config", ["edge", "in8_out4"])
@pytest.mark.parametrize("case", CASES)
def test_no_bound_is_above_what_is_done(case, config):
    operator, cfg = CASES[case], load_config(config)
    compiled = compile_operator(cfg, operator)
    result = open_device("cycle").run(compiled.program)
    done = {
        "array": result.counters["compute.gemm.busy_cycles"],
        "alu": result.counters["compute.alu.busy_cycles"],
        "write": result.counters["store.write_beats"],
        "read": result.counters["load.read_beats"] + result.counters["compute.load.read_beats"],
    }
    bounds = operator.bounds(cfg)
    assert {name for name, cycles in done.items() if cycles < bounds[name] - 1e-6} == set()
    assert result.cycles >= max(bounds.values())


@pytest.mark.parametrize("config", ["edge", "cloud"])
@pytest.mark.parametrize(
    ("size", "kernel", "padding"),
    [((9, 7), 5, 2), ((3, 6), (4, 6), (3, 4)), ((13, 13), 9, 4), ((5, 4), (1, 3), 0)],
)
def test_maxima_slide_where_a_tile_is_an_image(size, kernel, padding, config):
    height, width = size
    operator, cfg = (
        MaxPool2d(
            channels=20, height=height, width=width, kernel=kernel, stride=1, padding=padding,
            batch=3,
        ),
        load_config(config),
    )  # fmt: skip
    rows, columns = operator.out_shape
    knobs = replace(operator.default(cfg), rows=rows, columns=columns)
    arrays = operator.random_inputs(2)
    compiled = compile_operator(cfg, operator, knobs, arrays=arrays)
    result = open_device("cycle").run(compiled.program)
    np.testing.assert_array_equal(compiled.result(result), operator.reference(arrays))
    assert result.cycles >= max(operator.bounds(cfg).values())


@pytest.mark.parametrize("case", CASES)
def test_the_expected_output_is_that_of_a_run_in_every_lane(case):
    operator, cfg = CASES[case], load_config("batch2")
    arrays = operator.random_inputs(1)
    compiled = compile_operator(cfg, operator, arrays=arrays, expect=True)
    result = open_device("functional").run(compiled.program)
    assert verdict(compiled.program, result) == "match"
    np.testing.assert_array_equal(
        operator.unpack(cfg, operator.expected(cfg, arrays)), operator.reference(arrays)
    )


@pytest.mark.parametrize("case", CASES)
def test_a_default_is_picked_at_once_and_is_legal(case):
    operator, cfg = CASES[case], load_config("edge")
    begin = time.process_time()
    knobs = operator.default(cfg)
    assert time.process_time() - begin < 0.5
    assert operator.space(cfg).legal(knobs)


def test_a_depthwise_tap_is_one_micro_op():
    layer = DepthwiseConv2d(channels=16, height=6, width=6, requantize=PLAIN)
    compiled = compile_operator(load_config("edge"), layer)
    trace = next(s.result for s in compiled.built.backend.stages if s.name == "trace")
    taps = sum(op.cycles for op in trace.ops if isinstance(op, Gemm) and not op.reset)
    assert taps == 4 * 4 * 9


def test_a_residual_add_takes_no_addition_of_the_alu():
    layer = ResidualAdd(channels=16, height=4, width=4)
    compiled = compile_operator(load_config("edge"), layer)
    trace = next(s.result for s in compiled.built.backend.stages if s.name == "trace")
    assert sum(op.cycles for op in trace.ops if isinstance(op, Gemm) and not op.reset) == 32
    assert {op.op.name for op in trace.ops if isinstance(op, Alu)} == {"SHR", "MAX", "MIN"}


def test_a_3x3_maximum_of_stride_2_takes_6_operations_a_result():
    layer = MaxPool2d(channels=16, height=8, width=8, kernel=3, stride=2, padding=1)
    knobs = replace(layer.default(load_config("edge")), rows=4, columns=4, taper=False)
    compiled = compile_operator(load_config("edge"), layer, knobs)
    trace = next(s.result for s in compiled.built.backend.stages if s.name == "trace")
    assert sum(op.cycles for op in trace.ops if isinstance(op, Alu)) <= 16 * 6


def test_a_maximum_over_padding_takes_a_column_more():
    layer = MaxPool2d(channels=1, height=4, width=10, kernel=2, stride=(1, 2), padding=(0, 1))
    cfg = load_config("in4_out16")
    knobs = PointwiseKnobs(groups=1, rows=3, columns=1)
    assert layer.footprint(cfg, knobs).inp == 4 * 4 * 3 > cfg.inp_depth
    assert not layer.legal(cfg, knobs)


def test_inputs_are_gathered_where_that_saves_time():
    edge = load_config("edge")
    first = Conv2d(
        in_channels=3, out_channels=64, height=224, width=224, kernel=7, stride=2, padding=3
    )
    assert first.gathers(edge)
    assert not replace(first, gather=False).gathers(edge)
    assert not replace(first, kernel=1, padding=0).gathers(edge)
    assert not replace(first, in_channels=64).gathers(edge)


@pytest.mark.parametrize("shift", [15, 16, 31])
def test_a_half_takes_few_operations(shift):
    how = Requantize(bias=False, multiplier=3, shift=shift, rounding=True)
    sums = np.array([[-(1 << 30), (1 << 29) + 12345, -1, 0, 1 << 28]], np.int32)
    value = sums.astype(np.int64) * 3
    value = (value + (1 << 31)) % (1 << 32) - (1 << 31)
    half = (value + (1 << (shift - 1))) >> shift  # none of these overflows
    assert np.array_equal(how.reference(sums, {}), np.clip(half, -128, 127))
    assert how.rounding_cycles == (1 if shift == 15 else 2)


def test_what_cannot_exceed_is_not_clipped():
    layer = Requantization(channels=16, height=2, width=2)  # ReLU
    compiled = compile_operator(load_config("edge"), layer)
    trace = next(s.result for s in compiled.built.backend.stages if s.name == "trace")
    assert {op.op.name for op in trace.ops if isinstance(op, Alu)} == {"MAX"}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GroupedConv2d(in_channels=6, out_channels=4, groups=4, height=3, width=3),
         "groups must divide in_channels 6"),
        (lambda: MaxPool2d(channels=1, height=4, width=4, kernel=2, padding=2),
         "every window must meet the image"),
        (lambda: LeakyRelu(channels=1, height=1, width=1, slope=9, slope_shift=3),
         "must be from 0 to 1"),
        (lambda: Elementwise(channels=1, height=1, width=1, op="xor"), "op must be among"),
        (lambda: ResidualAdd(channels=1, height=1, width=1, scale_a=200), "must fit int8"),
        (lambda: ResidualAdd(channels=1, height=1, width=1, requantize=Requantize()),
         "no vectors per channel"),
        (lambda: TransposedConv2d(in_channels=1, out_channels=1, height=1, width=1, padding=9),
         "leaves nothing of the output"),
        (lambda: Dense(in_features=0, out_features=1), "at least 1"),
        (lambda: Requantize(multiplier=0), "multiplier is 0"),
    ],
)  # fmt: skip
def test_an_operator_that_cannot_be_is_refused(make, message):
    with pytest.raises(OperatorError, match=message):
        make()


def test_a_machine_too_small_is_named():
    layer = MaxPool2d(channels=4, height=9, width=9, kernel=9)
    with pytest.raises(OperatorError, match="shallow has inp 4"):
        layer.default(load_config("shallow"))


@pytest.mark.parametrize("config", ["acc16", "int16", "int16_wgt8", "int4", "wgt2", "wgt4"])
@pytest.mark.parametrize("operator", [Dense, MaxPool2d, ResidualAdd])
def test_machines_of_other_operands_are_refused(config, operator):
    op = (
        Dense(in_features=4, out_features=4)
        if operator is Dense
        else operator(channels=4, height=4, width=4)
    )
    cfg = load_config(config)
    with pytest.raises(OperatorError, match=f"{config} has inp_bits {cfg.inp_bits}, wgt_bits"):
        compile_operator(cfg, op)
