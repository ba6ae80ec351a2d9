"""``vta``: run, assemble, disassemble and look at programs."""

from __future__ import annotations

import json
from collections.abc import Callable
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from covta.cli.check import check
from covta.cli.operators import lower, ops

if TYPE_CHECKING:
    from covta.runtime.device import RunResult
    from covta.runtime.program import Program

__all__ = ["app"]

MISMATCH, BAD_INPUT, FAULT = 1, 2, 3

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    help="Programs for the Versatile Tensor Accelerator.",
)
app.command()(check)
app.command()(ops)
app.command()(lower)


class DeviceName(StrEnum):
    """Devices by name."""

    functional = "functional"
    cycle = "cycle"
    rtl = "rtl"


@app.callback()
def _root() -> None:
    """Keep `run` a subcommand."""


def _refuse(message: object) -> NoReturn:
    typer.echo(f"vta: {message}", err=True)
    raise typer.Exit(BAD_INPUT)


def _load(file: Path, config: str | None) -> Program:
    from dataclasses import replace

    from covta.hw.params import ConfigError, load_config
    from covta.runtime.program import Program, ProgramError

    try:
        program = Program.load(file)
        if config is None:
            return program
        cfg = load_config(config)
        if not cfg.isa_equal(program.config):
            _refuse(
                f"{file}: made for another machine than {config}: shapes, widths, buffers or"
                " extensions differ"
            )
        return replace(program, config=cfg)
    except (ProgramError, ConfigError) as error:
        _refuse(error)


@app.command()
def run(
    file: Annotated[Path, typer.Argument(help="A program, .npz.")],
    on: Annotated[DeviceName, typer.Option("--on", help="Device.")] = DeviceName.functional,
    latency: Annotated[int, typer.Option(help="DRAM latency in cycles.")] = 32,
    beats_per_cycle: Annotated[float, typer.Option(help="DRAM rate, at most 1.")] = 1.0,
    max_outstanding: Annotated[int, typer.Option(help="DRAM bursts in flight.")] = 16,
    stall_seed: Annotated[int | None, typer.Option(help="Seed of random stalls.")] = None,
    config: Annotated[str | None, typer.Option(help="Run on this machine instead.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
    dump: Annotated[Path | None, typer.Option(help="Write memory after the run, .npz.")] = None,
    trace: Annotated[
        Path | None, typer.Option(help="Timeline (cycle: Perfetto) or waveform (rtl: VCD).")
    ] = None,
) -> None:
    """Run a program; exit 0: matched, 1: differs, 2: bad input, 3: the machine reported a fault."""
    from rich.console import Console

    from covta.runtime import report
    from covta.runtime.device import DeviceError, open_device
    from covta.sim.dram import DramModel

    program = _load(file, config)
    for option, path in (("--dump", dump), ("--trace", trace)):
        if path is not None:
            _check_target(option, path, file)
    try:
        dram = DramModel(
            latency_cycles=latency,
            beats_per_cycle=beats_per_cycle,
            max_outstanding=max_outstanding,
            stall_seed=stall_seed,
        )
    except ValueError as error:
        field, rule = str(error).split(" ", 1)
        option = "latency" if field == "latency_cycles" else field.replace("_", "-")
        _refuse(f"--{option} {rule}")
    try:
        device = open_device(on.value)
        waveform = trace if on is DeviceName.rtl else None
        if trace is not None and on is DeviceName.functional:
            _refuse("--trace: the functional device has no time; use --on cycle or --on rtl")
        result = device.run(program, dram, waveform=waveform)
    except (ValueError, OSError, DeviceError) as error:
        _refuse(error)
    if dump is not None:
        _write(dump, partial(_dump, program, result))
    if trace is not None and result.trace is not None:
        from covta.sim.timeline import write_timeline

        cfg, insn, spans = program.config, program.insn, result.trace
        _write(trace, partial(_write_whole, write=partial(write_timeline, cfg, insn, spans)))
    if as_json:
        typer.echo(json.dumps(report.as_json(program, result)))
    else:
        report.print_report(program, result, Console())
    if result.fault is not None:
        raise typer.Exit(FAULT)
    if report.verdict(program, result) == "mismatch":
        raise typer.Exit(MISMATCH)


def _check_target(option: str, path: Path, source: Path) -> None:
    """Refuse early what cannot be written later, or would destroy what was read."""
    if path.exists() and source.exists() and path.samefile(source):
        _refuse(f"{option} {path}: is the file that is read; name another")
    if not path.absolute().parent.is_dir():
        _refuse(f"{option} {path}: no such folder")
    if path.is_dir():
        _refuse(f"{option} {path}: is a folder")


def _write(path: Path, write: Callable[[Path], object]) -> None:
    try:
        write(path)
    except OSError as error:
        _refuse(f"{path}: cannot be written: {error.strerror or error}")


def _write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file whole or not at all; what is no regular file is written to directly."""
    if path.exists() and not path.is_file():
        write(path)
        return
    part = path.with_name(f".{path.name}.part")
    try:
        write(part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _dump(program: Program, result: RunResult, path: Path) -> None:
    import numpy as np

    from covta.runtime.program import write_npz

    arrays = {f"region_{k}": data for k, data in enumerate(result.memory)}
    arrays["region_addr"] = np.array(program.region_addrs, np.uint64)
    write_npz(path, arrays)


@app.command()
def disasm(
    file: Annotated[Path, typer.Argument(help="A program, .npz.")],
    output: Annotated[
        Path | None, typer.Option("-o", help="Write here, not to the screen.")
    ] = None,
) -> None:
    """Print a program's instructions and micro-ops as text."""
    from covta.runtime.text import program_text

    text = program_text(_load(file, None))
    if output is None:
        typer.echo(text, nl=False)
    else:
        _write_text(output, text, file)


@app.command()
def asm(
    source: Annotated[Path, typer.Argument(help="Text of instructions and micro-ops.")],
    output: Annotated[Path, typer.Option("-o", help="The program to write, .npz.")],
    config: Annotated[str, typer.Option(help="The machine.")] = "edge",
    like: Annotated[
        Path | None, typer.Option(help="Take regions, base pointers and tokens from this program.")
    ] = None,
    insn_addr: Annotated[int, typer.Option(help="Byte address of the stream.")] = 0,
) -> None:
    """Assemble text to a program; with --like, around another program's memory."""
    from covta.hw.assembler import AssemblerError
    from covta.hw.params import ConfigError, load_config
    from covta.runtime.program import Program, ProgramError
    from covta.runtime.text import program_from_text, program_like

    try:
        text = source.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        _refuse(f"{source}: cannot be read: {error}")
    for read in (source, like):
        if read is not None:
            _check_target("-o", output, read)
    try:
        if like is None:
            cfg = load_config(config)
            program = program_from_text(cfg, text, str(source), insn_addr=insn_addr)
        else:
            program = program_like(Program.load(like), text, str(source))
    except (AssemblerError, ConfigError, ProgramError) as error:
        _refuse(error)
    _write(output, program.save)


@app.command()
def info(file: Annotated[Path, typer.Argument(help="A program, .npz.")]) -> None:
    """Print what a program holds."""
    from rich.console import Console
    from rich.table import Table

    from covta.runtime.report import printable

    program = _load(file, None)
    table = Table(title=printable(program.meta.get("name", file.name)))
    table.add_column("region", justify="right")
    table.add_column("address", justify="right")
    table.add_column("bytes", justify="right")
    table.add_column("expected")
    for k, (addr, data) in enumerate(zip(program.region_addrs, program.regions, strict=True)):
        known = bool(program.expected) and program.expected[k] is not None
        table.add_row(str(k), f"{addr:#x}", f"{len(data):,}", "yes" if known else "-")
    console = Console()
    console.print(table)
    console.print(f"machine {program.config.name}, {len(program.insn)} instructions")
    console.print(f"stream at {program.insn_addr:#x}, tokens {program.initial_tokens}")


def _write_text(path: Path, text: str, source: Path) -> None:
    _check_target("-o", path, source)
    _write(path, partial(_write_whole, write=partial(Path.write_text, data=text, encoding="utf-8")))
