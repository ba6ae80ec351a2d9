"""Boxes of output tiles cover what they are cut from, each point once."""

from __future__ import annotations

import itertools

import pytest

from covta.compiler.ops.tiles import Box, even, grid, halves, taper


def points(boxes: list[Box]) -> list[tuple[int, ...]]:
    return [
        point for box in boxes for point in itertools.product(*(range(b, b + n) for b, n in box))
    ]


@pytest.mark.parametrize("shape", [(1, 1), (5, 7), (8, 3), (1, 13)])
@pytest.mark.parametrize("share", [2, 4])
def test_what_is_cut_stays_whole(shape, share):
    box = tuple((3 * d, n) for d, n in enumerate(shape))
    whole = sorted(points([box]))
    assert sorted(points(halves(box, (0, 1)))) == whole
    cut = taper(box, (0, 1), lambda b: b[0][1] * b[1][1] <= 4, share=share)
    assert sorted(points(cut)) == whole
    assert cut[-1][0][1] * cut[-1][1][1] <= 4


def test_a_taper_gets_smaller():
    sizes = [b[0][1] for b in taper(((0, 64),), (0,), lambda b: b[0][1] <= 4, share=2)]
    assert sizes == [32, 16, 8, 4, 4]


def test_halves_cut_the_first_axis_that_can_be():
    assert halves(((0, 1), (2, 5)), (0, 1)) == [((0, 1), (2, 3)), ((0, 1), (5, 2))]
    assert halves(((0, 1), (2, 1)), (0, 1)) == [((0, 1), (2, 1))]


def test_a_grid_of_even_tiles():
    assert even(14, 5) == 5
    assert even(15, 7) == 5
    assert [b[0] for b in grid((14,), (5,))] == [(0, 5), (5, 5), (10, 4)]
