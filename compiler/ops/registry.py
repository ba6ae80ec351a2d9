"""Operators by name, and settings of them from text."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterator, Sequence
from typing import Any

import yaml

from covta.compiler.ops.operator import Operator, OperatorError
from covta.compiler.ops.requantize import Requantize
from covta.hw.params import Config

__all__ = ["make_knobs", "make_operator", "operators", "parameters"]


def operators() -> dict[str, type[Operator]]:
    """Every operator by its name, e.g. ``conv2d``, in alphabetical order."""

    def below(kind: type) -> Iterator[type]:
        for sub in kind.__subclasses__():
            if dataclasses.is_dataclass(sub) and not getattr(sub, "__abstractmethods__", None):
                yield sub
            yield from below(sub)

    return dict(sorted((_name(kind), kind) for kind in dict.fromkeys(below(Operator))))


def _name(kind: type) -> str:
    text = kind.__name__
    return "".join(
        f"_{c.lower()}" if c.isupper() and k and not text[k - 1].isupper() else c.lower()
        for k, c in enumerate(text)
    )


def parameters(kind: type[Operator]) -> list[tuple[str, str, str]]:
    """Name, type and default (``required`` if none) of each parameter."""
    result = []
    for f in dataclasses.fields(kind):  # type: ignore[arg-type]
        default = "required"
        if f.default is not dataclasses.MISSING:
            default = str(f.default)
        elif f.default_factory is not dataclasses.MISSING:
            default = str(f.default_factory())
        result.append((f.name, str(f.type), default))
    return result


def make_operator(name: str, settings: Sequence[str]) -> Operator:
    """An operator from ``key=value`` texts; ``requantize.shift=8`` sets a part of a parameter.

    Raises
    ------
    OperatorError
        For an unknown name or key, a missing parameter, or a value that the operator refuses.
    """
    known = operators()
    if name not in known:
        raise OperatorError(
            f"operator must be among {', '.join(known)}, got {name!r}{_hint(name, known)}"
        )
    kind = known[name]
    fields = {f.name: f for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    values: dict[str, Any] = {}
    parts: dict[str, Any] = {}
    for setting in settings:
        key, value = _pair(setting)
        head, _, part = key.partition(".")
        if head not in fields:
            raise OperatorError(
                f"{name}: {setting}: parameters are {', '.join(fields)}{_hint(head, fields)}"
            )
        if head == "requantize":
            choices = [f.name for f in dataclasses.fields(Requantize)]
            if part not in choices:
                raise OperatorError(
                    f"{name}: {setting}: requantize has {', '.join(choices)}{_hint(part, choices)}"
                )
            parts[part] = value
        else:
            values[key] = value
    if parts:
        values["requantize"] = _made(Requantize, "requantize", parts)
    missing = [
        f.name
        for f in fields.values()
        if f.default is dataclasses.MISSING
        and f.default_factory is dataclasses.MISSING
        and f.name not in values
    ]
    if missing:
        raise OperatorError(f"{name}: needs {', '.join(f'{m}=...' for m in missing)}")
    return _made(kind, name, values)


def make_knobs(cfg: Config, operator: Operator, settings: Sequence[str]) -> Any:
    """Knobs that differ from the default as ``key=value`` texts say.

    Raises
    ------
    OperatorError
        For an unknown knob, or a value beyond those that the operator's space has.
    """
    default, choices = operator.default(cfg), operator.space(cfg).choices
    values = {}
    for setting in settings:
        key, value = _pair(setting)
        if key not in choices:
            raise OperatorError(f"{setting}: knobs are {', '.join(choices)}{_hint(key, choices)}")
        of_type = [c for c in choices[key] if type(c) is type(value)]
        if not of_type or not min(of_type) <= value <= max(of_type):
            known = ", ".join(map(str, choices[key]))
            raise OperatorError(f"{setting}: {key} must be among {known}")
        values[key] = value
    return dataclasses.replace(default, **values)


def _made(kind: type, name: str, values: dict[str, Any]) -> Any:
    try:
        return kind(**values)
    except TypeError as error:
        raise OperatorError(f"{name}: {error}") from None


def _pair(setting: str) -> tuple[str, Any]:
    key, equals, text = setting.partition("=")
    if not equals:
        raise OperatorError(f"{setting!r} must read key=value")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise OperatorError(f"{setting!r}: the value must be YAML") from None
    return key.strip(), tuple(value) if isinstance(value, list) else value


def _hint(name: str, known: Any) -> str:
    close = difflib.get_close_matches(name, list(known), 1)
    return f"; did you mean {close[0]}?" if close else ""
