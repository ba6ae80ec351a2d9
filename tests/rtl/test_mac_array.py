"""The multiplier array against NumPy, for every style and width, extremes in every place."""

import numpy as np
import pytest
from amaranth.sim import Simulator

from covta.hw.params import Config
from covta.hw.rtl.mac_array import MacArray, wgt_inverted_bits

SHAPES = [
    pytest.param({"batch": 1, "block_in": 4, "block_out": 4}, id="1x4x4"),
    pytest.param({"batch": 2, "block_in": 8, "block_out": 2}, id="2x8x2"),
    pytest.param({"batch": 1, "block_in": 16, "block_out": 2}, id="1x16x2"),
    pytest.param({"batch": 1, "block_in": 2, "block_out": 8}, id="1x2x8"),
]
STYLES = [
    pytest.param({"inp_bits": 8, "wgt_bits": 8, "dsp_pack": True}, id="packed"),
    pytest.param({"inp_bits": 8, "wgt_bits": 8}, id="8x8"),
    pytest.param({"inp_bits": 8, "wgt_bits": 8, "acc_bits": 16}, id="8x8-acc16"),
    pytest.param({"inp_bits": 8, "wgt_bits": 8, "acc_bits": 16, "dsp_pack": True}, id="packed16"),
    pytest.param({"inp_bits": 4, "wgt_bits": 4}, id="4x4"),
    pytest.param({"inp_bits": 8, "wgt_bits": 4}, id="8x4"),
    pytest.param({"inp_bits": 16, "wgt_bits": 16}, id="16x16"),
]


def _config(shape: dict, style: dict) -> Config:
    return Config.model_construct(**{"acc_bits": 32, "dsp_pack": False, **shape, **style})


def _pack(values: np.ndarray, bits: int) -> int:
    word = 0
    for k, value in enumerate(values.reshape(-1)):
        word |= (int(value) & ((1 << bits) - 1)) << (k * bits)
    return word


def _extremes(rng, shape: tuple[int, int], bits: int, count: int):
    low, high = -(1 << bits - 1), (1 << bits - 1) - 1
    for value in (low, high, 0, -1, 1):
        yield np.full(shape, value)
    for _ in range(count):
        yield rng.choice([low, low + 1, -1, 0, 1, high], size=shape)
    for _ in range(count):
        yield rng.integers(low, high + 1, size=shape)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("style", STYLES)
def test_sums_match_numpy_after_the_latency(shape, style):
    cfg = _config(shape, style)
    dut = MacArray(cfg)
    rng = np.random.default_rng(1)
    inps = list(_extremes(rng, (cfg.batch, cfg.block_in), cfg.inp_bits, 30))
    wgts = list(_extremes(rng, (cfg.block_out, cfg.block_in), cfg.wgt_bits, 30))
    pairs = [(x, w) for x in inps[:5] for w in wgts[:5]] + list(zip(inps, wgts, strict=True))
    got = []

    async def bench(ctx):
        for k in range(len(pairs) + dut.latency):
            if k >= dut.latency:
                got.append([ctx.get(dut.sum[j]) + dut.deficit for j in range(cfg.lanes)])
            x, w = pairs[min(k, len(pairs) - 1)]
            ctx.set(dut.inp, _pack(x, cfg.inp_bits))
            ctx.set(dut.wgt, _pack(w, cfg.wgt_bits) ^ wgt_inverted_bits(cfg))
            await ctx.tick()

    sim = Simulator(dut)
    sim.add_clock(1e-6)
    sim.add_testbench(bench)
    sim.run()
    modulus = 1 << cfg.acc_bits
    for (x, w), sums in zip(pairs, got, strict=True):
        want = (x @ w.T).reshape(-1) % modulus
        assert [total % modulus for total in sums] == want.tolist(), (x, w)


def test_packed_lanes_are_exact_for_every_byte():
    """Every byte against extremes on the other side, each beside a neighbour of either extreme."""
    cfg = _config({"batch": 1, "block_in": 2, "block_out": 2}, {"inp_bits": 8, "wgt_bits": 8})
    cfg = cfg.model_copy(update={"dsp_pack": True})
    dut = MacArray(cfg)
    bytes_ = range(-128, 128)
    pairs = [(x, w) for x in (-128, -127, -1, 0, 1, 126, 127) for w in bytes_]
    pairs += [(x, w) for x in bytes_ for w in (-128, -127, -1, 0, 1, 126, 127)]
    vectors = [(x, w, v) for x, w in pairs for v in (-128, 127)]
    got = []

    async def bench(ctx):
        for k in range(len(vectors) + dut.latency):
            if k >= dut.latency:
                got.append(tuple(ctx.get(dut.sum[k]) + dut.deficit for k in range(2)))
            x, w, v = vectors[min(k, len(vectors) - 1)]
            ctx.set(dut.inp, _pack(np.array([x, w]), 8))
            wgt = _pack(np.array([[w, v], [v, w]]), 8)
            ctx.set(dut.wgt, wgt ^ wgt_inverted_bits(cfg))
            await ctx.tick()

    sim = Simulator(dut)
    sim.add_clock(1e-6)
    sim.add_testbench(bench)
    sim.run()
    assert got == [(x * w + w * v, x * v + w * w) for x, w, v in vectors]
