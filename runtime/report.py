"""What a run comes to: a comparison with what was expected, as JSON or as tables."""

from __future__ import annotations

from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from covta.hw.faults import FAULT_TEXT
from covta.runtime.device import RunResult
from covta.runtime.program import Program

__all__ = ["as_json", "first_difference", "print_report", "printable", "verdict"]


def printable(text: object) -> str:
    """Text from a file as a table shows it: no markup, no lone surrogates."""
    return escape(str(text).encode("utf-8", "replace").decode("utf-8"))


def first_difference(program: Program, result: RunResult) -> str | None:
    """The first byte that is not as expected, in words; None if all are."""
    for k, (expected, got) in enumerate(zip(program.expected, result.memory, strict=False)):
        if expected is None or np.array_equal(expected, got):
            continue
        at = int(np.flatnonzero(expected != got)[0])
        count = int(np.count_nonzero(expected != got))
        return (
            f"region_{k} byte {at} (address {program.region_addrs[k] + at:#x}): expected"
            f" {int(expected[at]):#04x}, got {int(got[at]):#04x};"
            f" {count} of {len(got)} bytes differ"
        )
    return None


def verdict(program: Program, result: RunResult) -> str:
    """``match``, ``mismatch`` or ``none``."""
    if not any(e is not None for e in program.expected):
        return "none"
    return "mismatch" if first_difference(program, result) else "match"


def as_json(program: Program, result: RunResult) -> dict[str, Any]:
    """The report of ``vta run --json``."""
    fault = result.fault
    return {
        "device": result.device,
        "cycles": result.cycles,
        "expected": verdict(program, result),
        "first_difference": first_difference(program, result),
        "fault": None if fault is None else {"cause": fault.cause.text, "insn": fault.insn},
        "counters": result.counters,
    }


def print_report(program: Program, result: RunResult, console: Console) -> None:
    """Tables for a person."""
    cfg = program.config
    title = printable(program.meta.get("name", "program"))
    table = Table(title=f"{title} on {cfg.name}, device {result.device}")
    table.add_column("what")
    table.add_column("value", justify="right")
    if result.cycles is not None:
        table.add_row("cycles", f"{result.cycles:,}")
    for name, value in result.counters.items():
        share = ""
        if name.endswith("_cycles") and result.cycles:
            share = f"  ({100 * value / result.cycles:5.1f} %)"
        table.add_row(name, f"{value:,}{share}")
    console.print(table)
    if result.fault is not None:
        fault = result.fault
        console.print(
            f"fault: {fault.cause.text} at instruction {fault.insn}: {FAULT_TEXT[fault.cause]}"
        )
    difference = first_difference(program, result)
    if difference:
        console.print(f"differs: {difference}")
    elif verdict(program, result) == "match":
        console.print("memory is as expected")
