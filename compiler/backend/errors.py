"""What cannot be compiled, and why."""

__all__ = ["AllocationError", "TooSlowError"]


class AllocationError(ValueError):
    """Tiles that do not fit a scratchpad; names pool, need and room."""


class TooSlowError(Exception):
    """No program, since it would take longer than the caller has use for."""
