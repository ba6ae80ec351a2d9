"""What cannot be compiled, and why."""

__all__ = ["AllocationError"]


class AllocationError(ValueError):
    """Tiles that do not fit a scratchpad; names pool, need and room."""
