"""Tiling and packing invert; elements lie where the architecture says."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from covta.runtime.layout import (
    LayoutError,
    from_bytes,
    tile_activation,
    tile_bias,
    tile_kernel,
    tile_matrix,
    to_bytes,
    untile_activation,
    untile_matrix,
)

EXTENT, BLOCK = st.integers(1, 9), st.sampled_from((1, 2, 4))


@given(rows=EXTENT, columns=EXTENT, r=BLOCK, c=BLOCK)
def test_matrix_tiles_hold_every_entry_and_zeros_beside(rows, columns, r, c):
    m = np.arange(1, rows * columns + 1).reshape(rows, columns)
    tiles = tile_matrix(m, r, c)
    assert tiles.shape == (-(-rows // r), -(-columns // c), r, c)
    assert tiles.sum() == m.sum()
    assert (
        tiles[(rows - 1) // r, (columns - 1) // c, (rows - 1) % r, (columns - 1) % c] == m[-1, -1]
    )
    np.testing.assert_array_equal(untile_matrix(tiles, m.shape), m)


@given(shape=st.tuples(EXTENT, EXTENT, EXTENT, EXTENT), batch=BLOCK, block=BLOCK)
def test_activation_tiles_invert(shape, batch, block):
    x = np.arange(1, np.prod(shape) + 1).reshape(shape)
    tiles = tile_activation(x, batch, block)
    assert tiles.shape[2:] == (*shape[2:], batch, block)
    np.testing.assert_array_equal(untile_activation(tiles, *shape[:2]), x)


def test_kernel_element_is_outputs_by_inputs():
    w = np.arange(4 * 6 * 3 * 3).reshape(4, 6, 3, 3)
    tiles = tile_kernel(w, 2, 4)
    assert tiles.shape == (2, 2, 3, 3, 2, 4)
    assert tiles[1, 0, 2, 1, 1, 3] == w[3, 3, 2, 1]
    assert tiles[0, 1, 0, 0, 0, 2] == 0  # input channel 6 does not exist


def test_bias_is_the_same_in_every_row_of_the_batch():
    np.testing.assert_array_equal(tile_bias(np.array([1, 2, 3]), 2, 2)[1], [[3, 0], [3, 0]])


@given(
    bits=st.sampled_from((2, 4, 8, 16, 32)),
    seed=st.integers(0, 99),
    shape=st.tuples(EXTENT, EXTENT),
)
def test_bytes_invert(bits, seed, shape):
    shape = (shape[0], 4 * shape[1])
    low, high = -(1 << (bits - 1)), 1 << (bits - 1)
    values = np.random.default_rng(seed).integers(low, high, shape)
    np.testing.assert_array_equal(from_bytes(to_bytes(values, bits), bits, shape), values)


def test_the_lowest_lane_lies_in_the_lowest_bits():
    assert to_bytes(np.array([1, -1]), 4).tolist() == [0xF1]
    assert to_bytes(np.array([0x0102]), 16).tolist() == [0x02, 0x01]


def test_a_value_that_does_not_fit_is_refused():
    with pytest.raises(
        LayoutError, match=r"values must lie in -8 \.\.\. 7 \(4 bits\), got 0 \.\.\. 8"
    ):
        to_bytes(np.array([0, 8]), 4)
