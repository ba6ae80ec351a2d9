"""Models of vendors' cells, for whoever simulates a machine that holds them."""

from __future__ import annotations

from pathlib import Path

from covta.hw.params import Config

__all__ = ["cell_models"]

_FOLDER = Path(__file__).parents[1] / "models"

_CELLS = {"generic": (), "mult18x18d": ("MULT18X18D",)}
"""Cells that the multipliers of a machine are, by ``dsp_cell``."""


def cell_models(cfg: Config) -> dict[str, str]:
    """Verilog of every vendor's cell in a machine, by the cell's name; none in most machines."""
    return {
        cell: (_FOLDER / f"{cell}.v").read_text(encoding="utf-8") for cell in _CELLS[cfg.dsp_cell]
    }
