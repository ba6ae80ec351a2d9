"""``vta ops`` and ``vta lower``: operators, their knobs, and every stage of their compilation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

if TYPE_CHECKING:
    from covta.compiler.ops import Compiled, Operator
    from covta.hw.params import Config

__all__ = ["lower", "ops"]

BAD_INPUT = 2

Settings = Annotated[
    list[str] | None,
    typer.Argument(help="Parameters as key=value; requantize.shift=8 sets a part of one."),
]


def _refuse(message: object) -> NoReturn:
    typer.echo(f"vta: {message}", err=True)
    raise typer.Exit(BAD_INPUT)


def _machine(config: str) -> Config:
    from covta.hw.params import ConfigError, load_config

    try:
        return load_config(config)
    except ConfigError as error:
        _refuse(error)


def _operator(name: str, settings: list[str] | None) -> Operator:
    from covta.compiler.ops.operator import OperatorError
    from covta.compiler.ops.registry import make_operator

    try:
        return make_operator(name, settings or [])
    except OperatorError as error:
        _refuse(error)


def ops(
    name: Annotated[str | None, typer.Argument(help="One operator.")] = None,
    settings: Settings = None,
    config: Annotated[str, typer.Option(help="The machine.")] = "edge",
) -> None:
    """List operators; one operator's parameters; or, given all of them, its knobs on a machine."""
    from rich.console import Console
    from rich.table import Table

    from covta.compiler.ops.operator import OperatorError
    from covta.compiler.ops.registry import operators, parameters

    console = Console()
    known = operators()
    if name is None:
        table = Table("operator", "computes", title="Operators")
        for key, kind in known.items():
            table.add_row(key, (kind.__doc__ or "").strip().splitlines()[0].replace("`", ""))
        console.print(table)
        return
    if not settings:
        if name not in known:
            _operator(name, None)
        table = Table("parameter", "type", "default", title=name)
        for row in parameters(known[name]):
            table.add_row(*row)
        console.print(table)
        return
    cfg, operator = _machine(config), _operator(name, settings)
    try:
        space, default = operator.space(cfg), operator.default(cfg)
    except OperatorError as error:
        _refuse(error)
    table = Table("knob", "choices", "default", title=f"{name} on {cfg.name}")
    for knob, values in space.choices.items():
        table.add_row(knob, ", ".join(map(str, values)), str(getattr(default, knob)))
    console.print(table)
    console.print(f"{space.combinations:,} combinations; those that fit {cfg.name} are legal")


def lower(
    name: Annotated[str, typer.Argument(help="An operator; `vta ops` lists them.")],
    settings: Settings = None,
    config: Annotated[str, typer.Option(help="The machine.")] = "edge",
    knob: Annotated[
        list[str] | None, typer.Option("--knob", help="key=value, other than the default.")
    ] = None,
    stage: Annotated[str | None, typer.Option(help="Show this stage; `all` for every one.")] = None,
    output: Annotated[Path | None, typer.Option("-o", help="Write the program, .npz.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the random inputs in the program.")] = 0,
) -> None:
    """Compile an operator on random inputs and show how: tensor expressions to instructions."""
    from rich.console import Console
    from rich.table import Table

    from covta.compiler.ops import compile_operator
    from covta.compiler.ops.operator import OperatorError
    from covta.compiler.ops.registry import make_knobs

    cfg, operator = _machine(config), _operator(name, settings)
    if output is not None and not output.absolute().parent.is_dir():
        _refuse(f"-o {output}: no such folder")
    try:
        knobs = make_knobs(cfg, operator, knob or [])
        compiled = compile_operator(
            cfg, operator, knobs, arrays=operator.random_inputs(seed), expect=True
        )
    except (OperatorError, ValueError) as error:
        _refuse(error)
    texts = _texts(cfg, compiled)
    if stage is not None:
        if stage != "all" and stage not in texts:
            _refuse(f"--stage must be all or among {', '.join(texts)}, got {stage!r}")
        for key, text in texts.items():
            if stage in ("all", key):
                typer.echo(f"---- {key}" if stage == "all" else "", nl=stage == "all")
                typer.echo(text.rstrip())
    if output is not None:
        try:
            compiled.program.save(output)
        except OSError as error:
            _refuse(f"{output}: cannot be written: {error.strerror or error}")
    if stage is None:
        console = Console()
        table = Table("stage", "lines", title=f"{name} on {cfg.name}")
        for key, text in texts.items():
            table.add_row(key, f"{len(text.splitlines()):,}")
        console.print(table)
        console.print(f"knobs: {compiled.knobs}")
        console.print("`--stage NAME` shows one of them, `-o FILE.npz` writes the program")


def _texts(cfg: Config, compiled: Compiled) -> dict[str, str]:
    from covta.hw.assembler import disassemble

    texts = compiled.stages()
    texts["program"] = disassemble(cfg, compiled.program.insn)
    return texts
