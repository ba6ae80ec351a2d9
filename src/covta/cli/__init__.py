"""The command lines: ``vta`` and ``vta-gen``."""

from __future__ import annotations

__all__ = ["generate_main", "main"]


def main() -> None:
    """``vta``."""
    from covta.cli.vta import app

    app()


def generate_main() -> None:
    """``vta-gen``."""
    from covta.cli.generate import main as generate

    generate()
