"""Things that take long to make are made once and kept in the user's cache folder."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import platformdirs

__all__ = ["CACHE_VARIABLE", "cache_folder", "make_once"]

CACHE_VARIABLE = "COVTA_CACHE"
"""Environment variable that names another cache folder."""


def cache_folder() -> Path:
    """Where built models are kept."""
    named = os.environ.get(CACHE_VARIABLE)
    return Path(named) if named else Path(platformdirs.user_cache_dir("covta"))


def make_once(kind: str, key: str, name: str, make: Callable[[Path], Path]) -> Path:
    """Return a cached file; make it if it is not there yet.

    Processes that want the same file wait for the first of them.

    Parameters
    ----------
    kind : str
        Folder in the cache.
    key : str
        Hash of all that the file depends on.
    name : str
        File name.
    make : callable
        Takes an empty scratch folder and returns the file that it made there.
    """
    folder = cache_folder() / kind / key
    target = folder / name
    if target.is_file():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder / "lock"):
        if not target.is_file():
            scratch = Path(tempfile.mkdtemp(prefix="make-", dir=folder))
            try:
                os.replace(make(scratch), target)
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
    return target


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
