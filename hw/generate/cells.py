"""Vendors' cells in a machine: Verilog around them, and models for who simulates it."""

from __future__ import annotations

import re
from pathlib import Path

from covta.hw.params import Config

__all__ = ["cell_models", "wrapped_cells"]

_WRAPPERS = Path(__file__).parents[1] / "cells"
_MODELS = Path(__file__).parents[1] / "models"

_MODELS_OF = {"generic": (), "mult18x18d": ("MULT18X18D",)}
"""Cells that the multipliers of a machine are, by ``dsp_cell``."""


def wrapped_cells(rtlil: str) -> dict[str, str]:
    """Verilog of the modules in `hw/cells` that a design in RTLIL has cells of, by name."""
    return {
        path.stem: path.read_text(encoding="utf-8")
        for path in sorted(_WRAPPERS.glob("*.v"))
        if re.search(rf"^\s*cell \\{path.stem} ", rtlil, re.MULTILINE)
    }


def cell_models(cfg: Config) -> dict[str, str]:
    """What simulates the vendors' cells in a machine, by name; most machines have none."""
    return {
        cell: (_MODELS / f"{cell}.v").read_text(encoding="utf-8")
        for cell in _MODELS_OF[cfg.dsp_cell]
    }
