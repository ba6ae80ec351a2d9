"""What a windowed sum loses at its start, while little is loaded."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from covta.compiler.ops import Conv2d, Dense, compile_operator
from covta.compiler.ops.random_operators import random_operator
from covta.compiler.ops.startup import Start, array_idle_cycles, write_idle_cycles
from covta.hw.params import load_config
from covta.runtime.device import open_device

POINTWISE = Start(
    inputs=1, outputs=64, places=4096, out_places=4096, taps=1, most_taps=1, least_taps=1,
    common_tap=True, products=64 * 4096.0, input_beats=2, weight_beats=32, vector_beats=8,
    output_beats=2, acc_depth=1 << 20,
)  # fmt: skip


def test_products_grow_with_the_square_of_what_is_loaded():
    # of v weights and u inputs, 32 v + 2 u = t, come t * t / 4 / 64 products: 64 less than t at 128
    assert array_idle_cycles(POINTWISE) == pytest.approx(64, rel=1e-3)


def test_results_grow_with_the_square_of_what_is_loaded():
    # a channel costs 32 + 8, a place 2: t * t / 4 / 80 results, of two beats each: 40 less at 80
    assert write_idle_cycles(POINTWISE) == pytest.approx(40, rel=1e-3)


def test_input_blocks_share_what_is_loaded():
    # where acc holds everything, the best is to finish one block's products first: as with one
    several = replace(POINTWISE, inputs=4, products=4 * POINTWISE.products)
    assert array_idle_cycles(several) == pytest.approx(64, rel=1e-3)
    # where it holds ten sums, those of the next block are needed soon
    assert array_idle_cycles(replace(several, acc_depth=10)) > 100
    assert write_idle_cycles(several) > 500


def test_nothing_is_known_of_results_that_need_only_padding():
    assert write_idle_cycles(replace(POINTWISE, common_tap=False)) == 0
    anything = replace(POINTWISE, least_taps=0, acc_depth=1, inputs=2)
    assert array_idle_cycles(anything) == pytest.approx(64, rel=0.5)


@pytest.mark.parametrize("inputs", [1, 2])
@pytest.mark.parametrize("acc_depth", [1, 3, 100])
@pytest.mark.parametrize(("taps", "least"), [(1, 1), (3, 2)])
def test_no_choice_of_weights_and_inputs_does_better(inputs, acc_depth, taps, least):
    outputs, places = 3, 5
    whole = outputs * places * (taps + least) // 2
    s = Start(
        inputs=inputs, outputs=outputs, places=places, out_places=places, taps=taps,
        most_taps=taps, least_taps=least, common_tap=True, products=float(inputs * whole),
        input_beats=1.5, weight_beats=4, vector_beats=2, output_beats=1, acc_depth=acc_depth,
    )  # fmt: skip
    block = [
        (4 * v + 1.5 * u, min(v * u, whole))
        for v in range(outputs * taps + 1)
        for u in range(places + 1)
    ]
    idle = 0.0
    choices = []
    for blocks in itertools.product(block, repeat=inputs):
        finished = min(w for _, w in blocks) // least
        done = sum(min(w, taps * (acc_depth + finished)) for _, w in blocks)
        choices.append((sum(t for t, _ in blocks), done))
    times, done = (np.array(a) for a in zip(*choices, strict=True))
    for t in np.unique(times):
        most = done[times < t].max(initial=0)  # what is loaded just before
        if most < s.products:
            idle = max(idle, t - most)
    assert 0 < array_idle_cycles(s) <= idle


def cycles_of(cfg, operator) -> int:
    run = open_device("cycle").run(compile_operator(cfg, operator).program)
    assert run.fault is None
    return run.cycles


@pytest.mark.parametrize("config", ["edge", "block16", "batch2", "in8_out4", "tiny", "ultra96"])
@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("stride", [1, 2])
def test_no_program_is_quicker(config, kernel, stride):
    cfg = load_config(config)
    operator = Conv2d(
        in_channels=64, out_channels=80, height=11, width=10, kernel=kernel,
        padding=kernel // 2, stride=stride,
    )  # fmt: skip
    start = operator.start_up(cfg)
    assert start["array"] > 0
    bounds = operator.bounds(cfg)
    assert cycles_of(cfg, operator) >= max(bounds[part] + start[part] for part in start)


@pytest.mark.parametrize("seed", range(60))
def test_no_random_program_is_quicker(seed):
    rng = np.random.default_rng(seed)
    cfg = load_config(["edge", "tiny", "block8", "in8_out4", "batch2"][seed % 5])
    operator = random_operator(rng)
    start = operator.start_up(cfg)
    bounds = operator.bounds(cfg)
    cycles = cycles_of(cfg, operator)
    assert {k for k, idle in start.items() if cycles < bounds[k] + idle} == set()


def test_a_product_of_few_rows_waits_for_its_weights():
    cfg = load_config("edge")
    few = Dense(in_features=512, out_features=256)
    bounds, start = few.bounds(cfg), few.start_up(cfg)
    assert bounds["array"] < 0.1 * bounds["read"] <= start["array"] + bounds["array"]
