"""Programs on other data."""

import numpy as np
import pytest

from covta.hw.isa import AluOp, MemoryType
from covta.hw.params import load_config
from covta.runtime.builder import Builder, BuildError, with_contents
from covta.runtime.device import open_device

CFG = load_config("tiny")
SHAPE = (3, CFG.batch, CFG.block_out)


def doubled(values, expect=None):
    """A kernel that adds what it loads to itself."""
    b = Builder(CFG, name="double")
    x = b.buffer("x", MemoryType.ACC, values)
    y = b.buffer("y", MemoryType.OUT, shape=(3,))
    tile = b.acc.alloc(3)
    b.load(tile, x)
    b.alu(AluOp.ADD, tile, tile)
    b.store(tile, y)
    return b.build(expect)


@pytest.fixture
def arrays():
    rng = np.random.default_rng(4)
    return [rng.integers(-60, 60, SHAPE).astype(np.int32) for _ in range(2)]


def test_they_are_what_a_kernel_written_for_them_would_be(arrays):
    one, other = arrays
    again = with_contents(doubled(one), {"x": other}, {"y": 2 * other})
    fresh = doubled(other, {"y": 2 * other})
    assert (again.insn == fresh.insn).all()
    for got, want in zip(again.regions, fresh.regions, strict=True):
        np.testing.assert_array_equal(got, want)
    for got, want in zip(again.expected, fresh.expected, strict=True):
        assert (got is None) == (want is None)
        assert got is None or (got == want).all()


def test_a_device_agrees_with_what_is_expected(arrays):
    one, other = arrays
    program = doubled(one)
    device = open_device("functional")
    again = with_contents(program, {"x": other}, {"y": 2 * other})
    memory = device.run(again).memory
    assert all(w is None or (g == w).all() for g, w in zip(memory, again.expected, strict=True))
    assert program.expected == ()


def test_what_is_no_buffer_or_of_another_size_is_refused(arrays):
    program = doubled(arrays[0])
    with pytest.raises(BuildError, match=r"values must name buffers \(x, y\), got 'z'"):
        with_contents(program, {"z": arrays[1]})
    with pytest.raises(BuildError, match="expect y: must be 12 bytes, got 8"):
        with_contents(program, {}, {"y": arrays[1][:2]})
