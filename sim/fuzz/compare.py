"""What must be equal between the runs of one program on several devices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from covta.sim.fuzz.illegal import IllegalProgram
from covta.sim.run import RunOutcome

__all__ = ["TIMED", "differences", "same_bytes"]

TIMED = ("cycle", "rtl")
"""Devices that know time, whose cycles and counters must agree to the last one."""


def _describe(result: RunOutcome) -> str:
    return f"{result.cause.text} at {result.insn}" if result.cause else "no fault"


def same_bytes(a: Sequence[np.ndarray], b: Sequence[np.ndarray]) -> str | None:
    """The first difference between two memories, in words."""
    for region, (left, right) in enumerate(zip(a, b, strict=True)):
        if not np.array_equal(left, right):
            at = int(np.flatnonzero(left != right)[0])
            count = int(np.count_nonzero(left != right))
            return (
                f"region {region} byte {at}: 0x{left[at]:02x} and 0x{right[at]:02x}"
                f" ({count} bytes differ)"
            )
    return None


def differences(
    results: Mapping[str, RunOutcome | Exception],
    illegal: IllegalProgram | None = None,
) -> list[str]:
    """Everything that is wrong with the results of one program; empty if nothing is.

    Parameters
    ----------
    results : mapping
        By device: what it says, or the exception that it raised.
    illegal : IllegalProgram or None
        What must be reported, if the program has a fault: what it leaves is compared on devices
        that know when the machine stops.
    """
    good: dict[str, RunOutcome] = {}
    wrong = []
    for name, result in results.items():
        if isinstance(result, Exception):
            wrong.append(f"{name} raised {type(result).__name__}: {result}")
        else:
            good[name] = result
            wrong += _fault(name, result, illegal)
    names = list(good)
    timed = [name for name in names if name in TIMED]
    if illegal is None:
        for name in names[1:]:
            text = same_bytes(good[names[0]].memory, good[name].memory)
            if text:
                wrong.append(f"bytes of {names[0]} and {name}: {text}")
    if len(timed) == len(TIMED):
        wrong += _timing(*(good[name] for name in TIMED))
    return wrong


def _fault(name: str, result: RunOutcome, illegal: IllegalProgram | None) -> list[str]:
    if illegal is None:
        return [f"{name} faults: {_describe(result)}"] if result.cause else []
    right = result.cause == illegal.cause
    if right and illegal.insn is not None:
        right = result.insn == illegal.insn
    if right:
        return []
    where = "" if illegal.insn is None else f" at {illegal.insn}"
    return [f"{name}: {_describe(result)}, not {illegal.cause.text}{where} ({illegal.kind})"]


def _timing(a: RunOutcome, b: RunOutcome) -> list[str]:
    """Differences between the two timed devices."""
    first, second = TIMED
    wrong = []
    if _describe(a) != _describe(b):
        wrong.append(f"fault of {first}: {_describe(a)}, of {second}: {_describe(b)}")
    if a.cycles != b.cycles:
        wrong.append(f"cycles: {first} {a.cycles}, {second} {b.cycles}")
    for name in sorted({*a.counters, *b.counters}):
        left, right = a.counters.get(name), b.counters.get(name)
        if left != right:
            wrong.append(f"{name}: {first} {left}, {second} {right}")
    if a.cause or b.cause:
        text = same_bytes(a.memory, b.memory)
        if text:
            wrong.append(f"bytes of {first} and {second}: {text}")
    return wrong
