"""Pictures of runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from covta.runtime.device import RunResult
from covta.runtime.program import Program
from covta.sim.timeline import TRACKS, spans

__all__ = ["draw_timelines"]

_COLOURS = dict(zip(TRACKS, ("#4878a8", "#88b0d0", "#c85040", "#e0a030", "#589860"), strict=True))


def draw_timelines(runs: Mapping[str, tuple[Program, RunResult]], path: Path | str) -> None:
    """When each unit worked, one run below the other on one scale of time.

    Parameters
    ----------
    runs : mapping of str to (Program, RunResult)
        By title; results of the cycle simulator, which alone has traces.
    path : Path
        Of the picture to write; its suffix says the format.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 0.6 + 2.6 * len(runs)), layout="constrained")
    axes = figure.subplots(len(runs), squeeze=False)[:, 0]
    longest = max(result.cycles or 0 for _, result in runs.values())
    for axis, (title, (program, result)) in zip(axes, runs.items(), strict=True):
        assert result.trace is not None, "only the cycle simulator knows when"
        for row, track in enumerate(TRACKS):
            bars = [
                (s["start"], s["end"] - s["start"] + 1)
                for s in spans(program.config, program.insn, result.trace)
                if s["track"] == track
            ]
            axis.broken_barh(bars, (row - 0.35, 0.7), color=_COLOURS[track], alpha=0.6, linewidth=0)
        axis.set_yticks(range(len(TRACKS)), TRACKS)
        axis.invert_yaxis()
        axis.set_xlim(0, longest)
        axis.set_title(f"{title}: {result.cycles:,} cycles")
    axes[-1].set_xlabel("cycle (an instruction from its start to its completion)")
    figure.savefig(path, dpi=110)
