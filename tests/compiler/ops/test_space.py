"""A space of knobs lists, counts and draws its legal settings."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from covta.compiler.ops.space import Space


@dataclass(frozen=True)
class _Setting:
    a: int
    b: int


CHOICES = {"a": (1, 2, 3), "b": (1, 2)}
LEGAL = (_Setting(1, 2), _Setting(3, 1), _Setting(3, 2))


def _space(*legal: _Setting) -> Space:
    return Space(_Setting, CHOICES, lambda setting: setting in legal)


def test_lists_legal_settings_in_order() -> None:
    space = _space(*LEGAL)
    assert space.combinations == 6
    assert space.settings == tuple(space) == tuple(list(space)) == LEGAL
    assert len(space) == 3


def test_sample_without_luck_takes_one_of_all() -> None:
    space = _space(LEGAL[1])
    assert space.sample(np.random.default_rng(0), tries=0) == LEGAL[1]


def test_nothing_to_sample() -> None:
    with pytest.raises(LookupError, match="the space of knobs is empty"):
        _space().sample(np.random.default_rng(0), tries=2)
