"""What every operator offers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, get_args, get_type_hints

import numpy as np

from covta.compiler.ops.space import Space
from covta.compiler.schedule import Schedule
from covta.compiler.te import Tensor
from covta.hw.params import Config

__all__ = ["Operator", "OperatorError", "Scheduled"]


class OperatorError(ValueError):
    """An operator that cannot be as it is described, or not on this machine."""


def require(condition: bool, message: str) -> None:
    """Raise `OperatorError` with `message` unless `condition`."""
    if not condition:
        raise OperatorError(message)


def check_types(owner: str, value: Any) -> None:
    """Refuse fields of a dataclass that are not of the types that they are declared with.

    Fields declared ``Any`` pass. A bool is no integer.
    """
    hints = get_type_hints(type(value))
    for field in fields(value):
        kind, got = hints[field.name], getattr(value, field.name)
        if kind is not Any:
            kinds = get_args(kind) or (kind,)
            require(
                isinstance(got, kinds) and (bool in kinds or not isinstance(got, bool)),
                f"{owner}.{field.name} must be {_kind_text(kinds)}, got {got!r}",
            )


def _kind_text(kinds: tuple[type, ...]) -> str:
    texts = {int: "an integer", bool: "true or false", str: "a text", type(None): "none"}
    return " or ".join(texts.get(kind, kind.__name__) for kind in kinds)


def require_sizes(operator: Operator, *names: str) -> None:
    """Check the types of all parameters, and that those named are at least 1."""
    check_types(operator.name, operator)
    for name in names:
        value = getattr(operator, name)
        require(value >= 1, f"{operator.name}.{name} must be at least 1, got {value}")


@dataclass(frozen=True, kw_only=True)
class Scheduled:
    """A computation for one machine, and how it is to be done.

    Parameters
    ----------
    schedule : Schedule
    args : tuple of Tensor
        Inputs, then the output; in the machine's layout.
    """

    schedule: Schedule
    args: tuple[Tensor, ...]


class Operator(ABC):
    """One operator with all its sizes: a workload.

    Natural arrays (``NCHW`` and the like) go in and out; `pack` and `unpack` convert them to the
    machine's layout and back.
    """

    @property
    @abstractmethod
    def name(self) -> str:
        """Of the operator, as a program's name."""

    @abstractmethod
    def inputs(self) -> dict[str, tuple[tuple[int, ...], str]]:
        """Shape and dtype of each natural input, by name, data first."""

    @abstractmethod
    def space(self, cfg: Config) -> Space:
        """Every setting of the knobs that is legal on a machine."""

    @abstractmethod
    def default(self, cfg: Config) -> Any:
        """A good setting, picked by an analytical model.

        Raises
        ------
        OperatorError
            If the machine is too small for the operator.
        """

    @abstractmethod
    def bounds(self, cfg: Config, *, skip_padding: bool = True) -> dict[str, float]:
        """Cycles that each part of the machine needs at least, by its name."""

    def start_up(self, cfg: Config) -> dict[str, float]:
        """Cycles that a part of the machine, by its name in `bounds`, idles at least.

        At the start little is loaded yet; with padding skipped. The part needs at least its bound
        and this. Empty where nothing is known.
        """
        return {}

    @abstractmethod
    def schedule(self, cfg: Config, knobs: Any) -> Scheduled:
        """The computation in the machine's layout, scheduled as `knobs` say."""

    @abstractmethod
    def pack(self, cfg: Config, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Natural inputs in the machine's layout, by the names of `Scheduled.args`."""

    @abstractmethod
    def pack_output(self, cfg: Config, result: np.ndarray) -> np.ndarray:
        """The natural output in the machine's layout."""

    @abstractmethod
    def unpack(self, cfg: Config, result: np.ndarray) -> np.ndarray:
        """The output in its natural layout."""

    @abstractmethod
    def reference(self, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        """The output by NumPy, from natural inputs, independent of tensor expressions."""

    def expected(self, cfg: Config, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        """What a right run leaves, in the machine's layout."""
        return self.pack_output(cfg, self.reference(arrays))

    @abstractmethod
    def macs(self) -> int:
        """Multiply-accumulates, those with padding among them; 0 where there are none."""

    def random_inputs(self, seed: int = 0) -> dict[str, np.ndarray]:
        """Natural inputs, uniform over their types (int32: a few thousand)."""
        rng = np.random.default_rng(seed)
        arrays = {}
        for name, (shape, dtype) in self.inputs().items():
            low, high = (-128, 128) if dtype == "int8" else (-(1 << 12), 1 << 12)
            arrays[name] = rng.integers(low, high, shape).astype(dtype)
        return arrays

    def check_inputs(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Refuse what does not match `inputs`."""
        wanted = self.inputs()
        require(
            set(arrays) == set(wanted),
            f"{self.name}: inputs must be {', '.join(wanted)}, got {', '.join(arrays)}",
        )
        for name, (shape, dtype) in wanted.items():
            a = arrays[name]
            require(
                a.shape == shape and str(a.dtype) == dtype,
                f"{self.name}: {name} must be {dtype}{list(shape)}, got {a.dtype}{list(a.shape)}",
            )
