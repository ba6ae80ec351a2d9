"""What a kernel's author did wrong."""

from __future__ import annotations

__all__ = ["BuildError", "require"]


class BuildError(ValueError):
    """A kernel that cannot be built; the message names field, rule and value."""


def require(condition: bool, message: str) -> None:
    """Raise `BuildError` unless `condition` holds."""
    if not condition:
        raise BuildError(message)
