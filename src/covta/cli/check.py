"""``vta check``: prove what can be proved of a program without running it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from covta.compiler.verify import Report

__all__ = ["check"]

VIOLATIONS, BAD_INPUT = 1, 2


def check(
    file: Annotated[Path, typer.Argument(help="A program, .npz.")],
    inputs: Annotated[
        list[str] | None,
        typer.Option("--input", help="A region whose data vary, by name or number; repeatable."),
    ] = None,
    strict: Annotated[bool, typer.Option(help="Warnings count as violations.")] = False,
    ranges: Annotated[bool, typer.Option(help="Bound accumulators.")] = True,
    limit: Annotated[int, typer.Option(min=1, help="Findings shown.")] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object, all findings.")] = False,
) -> None:
    """Check a program without running it; exit 0: clean, 1: violations, 2: bad input."""
    from rich.console import Console

    from covta.compiler.verify import verify_program
    from covta.runtime.program import Program, ProgramError

    try:
        program = Program.load(file)
        named = [int(k) if k.isdecimal() else k for k in inputs] if inputs else None
        report = verify_program(program, inputs=named, ranges=ranges)
    except (ProgramError, ValueError) as error:
        typer.echo(f"vta: {error}", err=True)
        raise typer.Exit(BAD_INPUT) from None
    if as_json:
        typer.echo(json.dumps({"file": str(file), **report.as_dict()}))
    else:
        _print(report, str(program.meta.get("name", file.name)), limit, Console())
    if report.errors or (strict and report.warnings):
        raise typer.Exit(VIOLATIONS)


def _print(report: Report, name: str, limit: int, console: Console) -> None:
    """A table of findings and a line that sums up."""
    from rich.table import Table
    from rich.text import Text

    from covta.runtime.report import printable

    if report.findings:
        table = Table(title=f"{printable(name)}: what was found", show_lines=True)
        table.add_column("rule")
        table.add_column("insn", justify="right")
        table.add_column("what")
        for f in report.findings[:limit]:
            what = Text(f.message)
            if f.text:
                what.append(f"\n{f.text}", style="dim")
            style = "red" if f.severity == "error" else "yellow"
            insn = "" if f.insn is None else str(f.insn)
            table.add_row(Text(f"{f.rule}\n{f.severity}", style=style), insn, what)
        console.print(table)
        if len(report.findings) > limit:
            console.print(f"… and {len(report.findings) - limit} more; --limit shows more of them")
    bounds = ", ".join(str(b) for b in report.token_bounds)
    console.print(
        f"{report.insns:,} instructions: {len(report.errors)} errors,"
        f" {len(report.warnings)} warnings; tokens at most {bounds}"
    )
