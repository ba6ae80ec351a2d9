"""Timelines: when every instruction ran, as a Perfetto trace and as a picture.

A Perfetto trace is opened with ui.perfetto.dev; one microsecond there is one cycle.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from covta.hw.isa import AluOp, MemoryType, Opcode, Unit
from covta.hw.params import Config
from covta.sim.decode import column, decode

__all__ = ["TRACKS", "label", "spans", "write_timeline"]

TRACKS = ("load", "compute.load", "compute.gemm", "compute.alu", "store")
"""Rows of a timeline."""


def label(row: np.ndarray) -> str:
    """Short name of a decoded instruction."""
    opcode = int(row[column("opcode")])
    if opcode in (Opcode.LOAD, Opcode.STORE):
        memory = MemoryType(int(row[column("memory_type")])).name
        size = f"{row[column('y_size')]}x{row[column('x_size')]}"
        return f"{Opcode(opcode).name} {memory} {size}"
    if opcode == Opcode.GEMM:
        kind = "reset" if row[column("reset")] else "GEMM"
        uops = row[column("uop_end")] - row[column("uop_bgn")]
        return f"{kind} {row[column('iter_out')]}x{row[column('iter_in')]}x{uops}"
    if opcode == Opcode.ALU:
        return AluOp(int(row[column("alu_opcode")])).name
    return "FINISH"


def _track(row: np.ndarray) -> str:
    if row[column("unit")] == Unit.LOAD:
        return "load"
    if row[column("unit")] == Unit.STORE:
        return "store"
    opcode = row[column("opcode")]
    return {Opcode.LOAD: "compute.load", Opcode.ALU: "compute.alu"}.get(opcode, "compute.gemm")


def spans(cfg: Config, insn: np.ndarray, trace: np.ndarray) -> list[dict[str, Any]]:
    """One entry an instruction that ran: index, track, label, first and last cycle.

    Parameters
    ----------
    insn : np.ndarray
        ``(n, 16) uint8``.
    trace : np.ndarray
        ``(n, 2) int64``, start and completion, -1 where there is none.
    """
    return [
        {"index": k, "track": _track(row), "label": label(row), "start": int(a), "end": int(b)}
        for k, (row, (a, b)) in enumerate(zip(decode(cfg, insn), trace, strict=True))
        if a >= 0 and b >= 0
    ]


def write_timeline(cfg: Config, insn: np.ndarray, trace: np.ndarray, path: Path) -> None:
    """Write a timeline in the Chrome trace event format, which Perfetto loads."""
    events: list[dict[str, Any]] = [
        {"ph": "M", "pid": 0, "tid": k, "name": "thread_name", "args": {"name": track}}
        for k, track in enumerate(TRACKS)
    ]
    # Loads and stores overlap each other: asynchronous spans lie side by side.
    for span in spans(cfg, insn, trace):
        common = {
            "cat": span["track"],
            "name": f"{span['index']}: {span['label']}",
            "pid": 0,
            "tid": TRACKS.index(span["track"]),
            "id": span["index"],
        }
        events.append({**common, "ph": "b", "ts": span["start"]})
        events.append({**common, "ph": "e", "ts": span["end"] + 1})
    path.write_text(json.dumps({"traceEvents": events, "displayTimeUnit": "ns"}), "utf-8")
