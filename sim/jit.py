"""One way to compile a kernel: Numba, cached on disk, safe against stale code.

Numba keys a cached function by its own file only; a kernel that calls a kernel of another file
would go on using the old one after an edit. So the cache's folder is named after the contents of
the files that others call into (`SHARED`).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numba
from numba.core import config as numba_config
from platformdirs import user_cache_path

__all__ = ["SHARED", "cache_dir", "jit"]

SHARED = (
    "jit.py",
    "vector.py",
    "decode.py",
    "state.py",
    "kernels.py",
    "dram.py",
    "cycle/state.py",
    "cycle/memory.py",
    "cycle/compute.py",
    "../hw/isa.py",
    "../hw/faults.py",
    "../hw/microarchitecture.py",
)
"""Files, from this folder, whose functions or constants are compiled into other files' kernels."""


@lru_cache(maxsize=1)
def cache_dir() -> str:
    """Folder of the compiled kernels: ``NUMBA_CACHE_DIR`` or the user's cache, by contents."""
    digest = hashlib.sha256()
    for name in SHARED:
        digest.update((Path(__file__).parent / name).read_bytes())
    root = os.environ.get("NUMBA_CACHE_DIR")
    base = Path(root) if root else user_cache_path("covta") / "kernels"
    return str(base / digest.hexdigest()[:16])


def jit(function: Callable[..., Any]) -> Any:
    """Compile with Numba (nopython, no bounds checks), cached in `cache_dir`."""
    before = numba_config.CACHE_DIR  # pyright: ignore[reportAttributeAccessIssue]
    numba_config.CACHE_DIR = cache_dir()  # pyright: ignore[reportAttributeAccessIssue]
    try:
        return numba.njit(cache=True)(function)
    except RuntimeError:  # no folder can be written: compile in every process
        return numba.njit(function)
    finally:
        numba_config.CACHE_DIR = before  # pyright: ignore[reportAttributeAccessIssue]
