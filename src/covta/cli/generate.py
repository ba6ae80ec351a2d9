"""`vta-gen`: a configuration in, files for hardware flows out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

__all__ = ["app", "main"]

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

BAD_INPUT = 2


@app.command()
def generate(
    config: Annotated[
        str, typer.Option("--config", "-c", help="A configuration file, or a built-in one by name.")
    ],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Folder; build/NAME if not given.")
    ] = None,
    split: Annotated[bool, typer.Option("--split", help="A Verilog file for each module.")] = False,
    clock_mhz: Annotated[
        float, typer.Option("--clock-mhz", help="Clock for the timing constraints.")
    ] = 100.0,
) -> None:
    """Generate Verilog, wrappers, constraints and headers of one machine."""
    from covta.hw.generate.bundle import BundleError, build_bundle, write_bundle
    from covta.hw.generate.tools import ToolError
    from covta.hw.params import ConfigError, load_config

    try:
        cfg = load_config(config)
        files = build_bundle(cfg, clock_mhz=clock_mhz, split=split)
        folder = output or Path("build") / cfg.name
        write_bundle(files, folder)
    except (BundleError, ConfigError, ToolError) as error:
        typer.echo(f"vta-gen: {error}", err=True)
        raise typer.Exit(BAD_INPUT) from None
    table = Table(title=f"{cfg.name}: {cfg.macs} multiply-accumulates a cycle, in {folder}")
    table.add_column("file")
    table.add_column("is")
    table.add_column("bytes", justify="right")
    for file in files:
        table.add_row(file.path, file.purpose, f"{len(file.text.encode()):,}")
    Console().print(table)


def main() -> None:
    """Entry point of the command."""
    app()
