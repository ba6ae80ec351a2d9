"""llvmlite carries no types, and what a checker infers from its code is wrong."""

from typing import Any

def __getattr__(name: str) -> Any: ...
