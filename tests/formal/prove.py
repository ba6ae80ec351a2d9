"""Unbounded proofs with nothing but Yosys: its `sat` pass with temporal induction."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from amaranth.lib import wiring

from covta.hw.generate.cells import wrapped_cells
from covta.hw.generate.tools import ToolError, run_yosys
from covta.hw.generate.verilog import to_rtlil

__all__ = ["ProofError", "prove"]


class ProofError(AssertionError):
    """An assertion that does not hold, or not by induction; ends with the trace that shows it."""


def prove(
    component: wiring.Component,
    folder: Path,
    *,
    probes: Mapping[str, str] | None = None,
    cells: Mapping[str, str] | None = None,
    max_steps: int = 4,
) -> None:
    """Prove every `Assert` of a component from its `Assume`s, for all time.

    Registers start with their initial values, and `rst` stays low.

    Parameters
    ----------
    component : wiring.Component
        A harness: the component under proof as a submodule, with assumptions about its inputs.
    folder : Path
        Scratch.
    probes : mapping of str to str
        Input port of the harness by the signal inside that drives it (``dut.count``).
    cells : mapping of str to str
        Models of vendors' cells in it.
    max_steps : int
        Longest induction tried.

    Raises
    ------
    ProofError
        With what the solver found.
    """
    design = to_rtlil(component, "top")
    (folder / "design.il").write_text(design, encoding="utf-8")
    verilog = {**wrapped_cells(design), **(cells or {})}
    for name, text in verilog.items():
        (folder / f"{name}.v").write_text(text, encoding="utf-8")
    commands = [
        *(f"read_verilog {name}.v" for name in verilog),
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
        f"sat -verify -prove-asserts -set-assumes -set rst 0 -tempinduct -maxsteps {max_steps} top",
    ]
    try:
        run_yosys(commands, cwd=folder)
    except ToolError as error:
        raise ProofError(str(error)) from None
