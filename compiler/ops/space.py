"""A declared space of knobs: what a template lets one choose."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

__all__ = ["Space"]


class Space:
    """Choices per knob, and which combinations are legal.

    Parameters
    ----------
    make : callable
        Builds a setting from one value per knob, as keywords.
    choices : mapping of str to sequence
        Values of each knob, in order.
    legal : callable
        True for a setting that compiles.
    """

    def __init__(
        self,
        make: Callable[..., Any],
        choices: Mapping[str, Sequence[Any]],
        legal: Callable[[Any], bool],
    ) -> None:
        self.make = make
        self.choices = {k: tuple(v) for k, v in choices.items()}
        self.legal = legal

    @property
    def combinations(self) -> int:
        """Settings, legal or not."""
        return int(np.prod([len(v) for v in self.choices.values()], dtype=np.int64))

    def __iter__(self) -> Iterator[Any]:
        for values in itertools.product(*self.choices.values()):
            setting = self.make(**dict(zip(self.choices, values, strict=True)))
            if self.legal(setting):
                yield setting

    @cached_property
    def settings(self) -> tuple[Any, ...]:
        """All legal settings, in order."""
        return tuple(iter(self))  # of the space itself, tuple() would ask for its length

    def __len__(self) -> int:
        return len(self.settings)

    def sample(self, rng: np.random.Generator, tries: int = 1000) -> Any:
        """A random legal setting, without listing all of them.

        Raises
        ------
        LookupError
            If none was found in `tries` draws and there is none at all.
        """
        for _ in range(tries):
            values = {k: v[int(rng.integers(len(v)))] for k, v in self.choices.items()}
            setting = self.make(**values)
            if self.legal(setting):
                return setting
        if not self.settings:
            raise LookupError("the space of knobs is empty")
        return self.settings[int(rng.integers(len(self.settings)))]

    def __str__(self) -> str:
        return "\n".join(f"{k}: {', '.join(map(str, v))}" for k, v in self.choices.items())
