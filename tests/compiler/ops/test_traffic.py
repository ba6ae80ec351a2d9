"""The least that a windowed sum reads, and what knobs do to what is read."""

from __future__ import annotations

from dataclasses import replace

import pytest

from covta.compiler.ops import Conv2d, compile_operator
from covta.compiler.ops.traffic import Traffic, least_bytes
from covta.hw.params import load_config
from covta.runtime.device import open_device

LAYER = {
    "inputs": 4, "outputs": 8, "shape": (16, 16), "out_shape": (16, 16), "kernel": (3, 3),
    "stride": (1, 1), "padding": (1, 1), "dilation": (1, 1), "phases": 1,
    "input_bytes": 16, "weight_bytes": 256,
}  # fmt: skip
IMAGE_BYTES = 4 * 16 * 16 * 16
WEIGHT_BYTES = 4 * 8 * 9 * 256


def test_everything_is_read_once_where_it_fits():
    t = Traffic(**LAYER, inp_depth=4096, wgt_depth=4096, acc_depth=64)
    assert least_bytes(t) == IMAGE_BYTES + WEIGHT_BYTES


def test_everything_is_read_once_where_acc_holds_all_sums():
    t = Traffic(**LAYER, inp_depth=16, wgt_depth=16, acc_depth=16 * 16 * 8)
    assert least_bytes(t) == IMAGE_BYTES + WEIGHT_BYTES


def test_inputs_are_read_again_for_every_tile_of_channels_but_what_is_kept():
    heavy = LAYER | {"weight_bytes": 1 << 20}  # too much to be read for every tile of places
    t = Traffic(**heavy, inp_depth=24, wgt_depth=1, acc_depth=16 * 16)
    kept_bytes = 7 * 24 * 16
    assert least_bytes(t) == 8 * IMAGE_BYTES - kept_bytes + (4 * 8 * 9 << 20)


@pytest.mark.parametrize("depth", ["inp_depth", "wgt_depth", "acc_depth"])
def test_a_larger_scratchpad_never_asks_for_more(depth):
    sizes = {"inp_depth": 64, "wgt_depth": 64, "acc_depth": 64}
    least = [least_bytes(Traffic(**LAYER, **(sizes | {depth: n}))) for n in (16, 64, 200, 1000)]
    assert least == sorted(least, reverse=True)


@pytest.mark.parametrize("config", ["block16", "batch2", "in8_out4", "tiny"])
@pytest.mark.parametrize("kernel", [1, 3])
def test_no_program_reads_less(config, kernel):
    cfg = load_config(config)
    operator = Conv2d(
        in_channels=40, out_channels=48, height=10, width=10, kernel=kernel,
        padding=kernel // 2, stride=2,
    )  # fmt: skip
    run = open_device("cycle").run(compile_operator(cfg, operator).program)
    beats = run.counters["load.read_beats"] + run.counters["compute.load.read_beats"]
    assert beats >= round(operator.bounds(cfg)["read"])


def test_columns_that_a_stride_steps_over_need_not_be_loaded():
    cfg = load_config("block16")
    operator = Conv2d(in_channels=32, out_channels=16, height=8, width=8, kernel=1, stride=2)
    beats = {}
    for gaps in (True, False):
        knobs = replace(operator.default(cfg), gaps=gaps)
        arrays = operator.random_inputs(3)
        compiled = compile_operator(cfg, operator, knobs, arrays=arrays)
        run = open_device("cycle").run(compiled.program)
        assert (compiled.result(run) == operator.reference(arrays)).all()
        beats[gaps] = run.counters["load.read_beats"]
    assert beats[False] < beats[True]


def test_lines_load_every_row_once():
    cfg = load_config("edge")
    layer = Conv2d(in_channels=32, out_channels=32, height=24, width=24, padding=1)
    knobs = replace(layer.default(cfg), rows=2, columns=24, channels=1, taper=False)
    loaded = {}
    for lines in (False, True):
        setting = replace(knobs, lines=lines)
        placement = compile_operator(cfg, layer, setting).built.backend.stages[-5].result
        tiles = {t for t in placement.home.values() if t.scope == "inp"}
        loaded[lines] = sum(tile.elems for tile in tiles)
    assert loaded[True] == 2 * 24 * 24 < loaded[False]
