"""Unbounded proofs with nothing but Yosys: its `sat` pass with temporal induction."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from amaranth.hdl import Signal
from amaranth.lib import wiring

from covta.hw.generate.tools import ToolError, run_yosys
from covta.hw.generate.verilog import to_rtlil

__all__ = ["ProofError", "probe", "prove"]


class ProofError(AssertionError):
    """An assertion that does not hold, or not by induction; ends with the trace that shows it."""


def probe(width: int, name: str) -> Signal:
    """Stand-in for a signal inside the component under proof; see `prove`."""
    return Signal(width, name=name)


def prove(
    component: wiring.Component,
    folder: Path,
    *,
    probes: Mapping[str, str] | None = None,
    max_steps: int = 4,
) -> None:
    """Prove every `Assert` of a component from its `Assume`s, for all time.

    The first cycle is one of reset; after it, `rst` stays low.

    Parameters
    ----------
    component : wiring.Component
        A harness: the component under proof as a submodule, with assumptions about its inputs.
    folder : Path
        Scratch.
    probes : mapping of str to str
        Input port of the harness by the signal inside that drives it (``dut.count``).
    max_steps : int
        Longest induction tried.

    Raises
    ------
    ProofError
        With what the solver found.
    """
    (folder / "design.il").write_text(to_rtlil(component, "top"), encoding="utf-8")
    commands = [
        "read_rtlil design.il",
        "hierarchy -top top",
        "proc",
        "flatten",
        *(f"connect -set {port} {inner}" for port, inner in (probes or {}).items()),
        "memory_map",
        "opt -full",
        "async2sync",
        "chformal -lower",
        "dffunmap",
        "sat -verify -prove-asserts -set-assumes -set-at 1 rst 0 -set rst 0 -tempinduct"
        f" -maxsteps {max_steps} -show-public top",
    ]
    try:
        run_yosys(commands, cwd=folder)
    except ToolError as error:
        raise ProofError(str(error)) from None
