"""``python -m covta.sim.fuzz``: a differential campaign from the command line."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from covta.hw.params import ConfigError, builtin_configs
from covta.sim.fuzz.campaign import Campaign, Summary, run, write_json
from covta.sim.fuzz.devices import UnavailableError, machine

FAILED = 1
BAD_INPUT = 2
FAILURES_SHOWN = 10


def _names(text: str) -> tuple[str, ...]:
    return tuple(name for name in text.split(",") if name)


def _configs(text: str) -> tuple[str, ...]:
    """``all``, ``test`` (those under ``configs/test``), or names and paths."""
    names: list[str] = []
    for name in _names(text):
        if name == "all":
            names += builtin_configs()
        elif name == "test":
            names += [n for n, p in builtin_configs().items() if p.parent.name == "test"]
        else:
            names.append(name)
    return tuple(dict.fromkeys(names))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m covta.sim.fuzz",
        description="Run random programs on several devices and compare bytes, cycles and faults.",
    )
    add = parser.add_argument
    add("--configs", type=_configs, default="all", help="names, paths, 'test' or 'all'")
    add("--devices", type=_names, default="functional,cycle", help="also rtl, racing")
    add("--programs", type=int, default=1000)
    add("--seed", type=int, default=0, help="of the first program")
    add("--jobs", type=int, default=1, help="processes; 0: in this one")
    add("--illegal-fraction", type=float, default=0.1, help="programs with a fault in them")
    add("--shrink-seconds", type=float, default=60.0, help="for each failing program")
    add("--out", type=Path, default=Path("build/fuzz"), help="folder of failing programs")
    add("--json", type=Path, default=None, help="write the summary here")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a campaign; 0: no difference, 1: some, 2: it could not be run."""
    options = _parser().parse_args(arguments)
    console = Console()
    campaign = Campaign(
        configs=options.configs,
        devices=options.devices,
        programs=options.programs,
        seed=options.seed,
        illegal_fraction=options.illegal_fraction,
        jobs=options.jobs,
        out=options.out,
        shrink_seconds=options.shrink_seconds,
    )
    sums = Summary(next_seed=campaign.seed)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    try:
        for name in campaign.configs:
            machine(name)
        with Progress(*columns, console=console) as bar:
            task = bar.add_task("programs", total=campaign.programs)

            def progress(total: Summary, count: int) -> None:
                nonlocal sums
                sums = total
                bar.update(task, advance=count, description=f"{len(total.failures)} failed")

            sums = run(campaign, progress)
    except (UnavailableError, ConfigError) as error:
        print(f"fuzz: {error}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        console.print(f"stopped; go on with --seed {sums.next_seed}")
    _report(console, campaign, sums)
    if options.json is not None:
        write_json(sums, options.json)
    return FAILED if sums.failures else 0


def _report(console: Console, campaign: Campaign, sums: Summary) -> None:
    table = Table(title=f"seeds {campaign.seed} to {sums.next_seed - 1}", show_header=False)
    rows = {
        "devices": ", ".join(campaign.devices),
        "machines": str(len(sums.configs)),
        "programs": f"{sums.programs} ({sums.illegal} with a fault)",
        "instructions": str(sums.insns),
        **{f"cycles on {name}": str(count) for name, count in sums.cycles.items()},
        "programs / s": f"{sums.programs / max(sums.seconds, 1e-9):.1f}",
        "failed": str(len(sums.failures)),
    }
    for name, value in rows.items():
        table.add_row(name, value)
    console.print(table)
    for failure in sums.failures[:FAILURES_SHOWN]:
        print(f"{failure.path}: seed {failure.seed} on {failure.config}, {failure.kind},")
        for text in failure.differences:
            print(f"    {text}")
    if len(sums.failures) > FAILURES_SHOWN:
        print(f"and {len(sums.failures) - FAILURES_SHOWN} more in {campaign.out}")


if __name__ == "__main__":
    sys.exit(main())
