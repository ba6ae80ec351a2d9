"""Runs random programs on several devices and keeps those on which the devices disagree."""

from __future__ import annotations

import json
import multiprocessing
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

from covta.sim.dram import DramModel
from covta.sim.fuzz.compare import differences
from covta.sim.fuzz.devices import RACING, machine, require_devices, run_on
from covta.sim.fuzz.generator import random_program
from covta.sim.fuzz.illegal import IllegalProgram, mutate
from covta.sim.fuzz.program import Program
from covta.sim.fuzz.shrink import shrink
from covta.sim.run import RunOutcome

__all__ = ["BLOCK", "Campaign", "Case", "Failure", "Summary", "make_case", "random_dram"]

BLOCK = 25
"""Consecutive seeds that run on one machine; then it is the next one's turn."""

SIZES = (4, 10, 20, 40, 40, 80)
RATES = (1.0, 1.0, 0.5, 0.37, 0.73, 0.9)
DIFFERENCES_KEPT = 8


@dataclass(frozen=True, kw_only=True)
class Campaign:
    """What to run.

    Parameters
    ----------
    configs : tuple of str
        Machines, by name or path.
    devices : tuple of str
        At least one.
    programs : int
        How many.
    seed : int
        Of the first program; the others follow.
    illegal_fraction : float
        Part of the programs into which a fault is put.
    jobs : int
        Processes beside this one; 0: run in this one, which a device that crashes takes down.
    out : Path
        Where programs are kept on which the devices disagree.
    shrink_seconds : float
        At most so long for each of them.
    """

    configs: tuple[str, ...]
    devices: tuple[str, ...]
    programs: int
    seed: int = 0
    illegal_fraction: float = 0.1
    jobs: int = 0
    out: Path = Path("build/fuzz")
    shrink_seconds: float = 60.0

    def config_of(self, seed: int) -> str:
        """The machine of a seed."""
        return self.configs[seed // BLOCK % len(self.configs)]

    def blocks(self) -> list[range]:
        """Seeds in parts that each run on one machine."""
        end = self.seed + self.programs
        cuts = [self.seed, *range(self.seed // BLOCK * BLOCK + BLOCK, end, BLOCK), end]
        return [range(a, b) for a, b in pairwise(cuts)]


@dataclass(frozen=True, kw_only=True)
class Case:
    """A program, its memory, and the fault that it must report."""

    config: str
    seed: int
    program: Program
    dram: DramModel
    illegal: IllegalProgram | None

    @property
    def kind(self) -> str:
        """The fault's, or ``legal``."""
        return "legal" if self.illegal is None else self.illegal.kind


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A case on which devices disagree."""

    config: str
    seed: int
    kind: str
    insns: int
    path: str
    differences: tuple[str, ...]


@dataclass(kw_only=True)
class Summary:
    """What was run and what came of it."""

    programs: int = 0
    illegal: int = 0
    insns: int = 0
    cycles: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    next_seed: int = 0
    configs: dict[str, int] = field(default_factory=dict)
    kinds: dict[str, int] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)

    def add(self, other: Summary) -> None:
        """Count another part of the campaign in."""
        self.programs += other.programs
        self.illegal += other.illegal
        self.insns += other.insns
        for mine, theirs in (
            (self.cycles, other.cycles),
            (self.configs, other.configs),
            (self.kinds, other.kinds),
        ):
            for name, count in theirs.items():
                mine[name] = mine.get(name, 0) + count
        self.failures += other.failures
        self.next_seed = max(self.next_seed, other.next_seed)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        rate = self.programs / self.seconds if self.seconds else 0.0
        return asdict(self) | {"programs_per_second": round(rate, 2)}


def random_dram(rng: Random) -> DramModel:
    """Any latency, rate and outstanding; random stalls in half of all cases."""
    return DramModel(
        latency_cycles=rng.choice((1, 2, 3, 8, 32, 32, 64, 200, rng.randrange(1, 201))),
        beats_per_cycle=rng.choice((*RATES, round(rng.uniform(0.05, 1.0), 3))),
        max_outstanding=rng.choice((1, 2, 3, 4, 8, 16, rng.randrange(1, 17))),
        stall_seed=rng.getrandbits(32) if rng.random() < 0.5 else None,
        stall_probability=rng.choice((0.05, 0.25, 0.25, 0.5, 0.8)),
    )


def make_case(config: str, seed: int, illegal_fraction: float) -> Case:
    """The case of a seed on a machine; the same arguments give the same bytes."""
    rng = Random(f"{seed}")
    dram = random_dram(rng)
    size = rng.choice(SIZES)
    wants_fault = rng.random() < illegal_fraction
    program = random_program(machine(config), seed, size)
    illegal = mutate(program, seed) if wants_fault else None
    if illegal is not None:
        program = illegal.program
    return Case(config=config, seed=seed, program=program, dram=dram, illegal=illegal)


def run(campaign: Campaign, progress: Callable[[Summary, int], None] | None = None) -> Summary:
    """Run a campaign.

    Parameters
    ----------
    campaign : Campaign
    progress : callable, optional
        Called with the sums so far and the programs of the part that ended.

    Raises
    ------
    UnavailableError
        If a device cannot be run here.
    """
    require_devices(campaign.devices)
    total = Summary(next_seed=campaign.seed)
    started = time.perf_counter()
    for part in _parts(campaign):
        total.add(part)
        total.seconds = time.perf_counter() - started
        if progress is not None:
            progress(total, part.programs)
    return total


def _parts(campaign: Campaign) -> Iterator[Summary]:
    if campaign.jobs == 0:
        for block in campaign.blocks():
            yield _run_block(campaign, block)
        return
    waiting = deque(campaign.blocks())
    while waiting:
        running: deque[tuple[range, Future[Summary]]] = deque()
        with _executor(campaign.jobs) as pool:
            try:
                while waiting or running:
                    while waiting and len(running) < 2 * campaign.jobs:
                        block = waiting.popleft()
                        running.append((block, pool.submit(_run_block, campaign, block)))
                    block, future = running[0]
                    part = future.result()
                    running.popleft()
                    yield part
            except BrokenProcessPool:  # a device took a process down: seed by seed
                waiting.extendleft(block for block, _ in reversed(running))
                for seed in waiting.popleft():
                    yield _run_alone(campaign, seed)


def _executor(jobs: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn"))


def _run_alone(campaign: Campaign, seed: int) -> Summary:
    """One seed in a process of its own, which may die."""
    with _executor(1) as pool:
        try:
            return pool.submit(_run_block, campaign, range(seed, seed + 1)).result()
        except BrokenProcessPool:
            case = make_case(campaign.config_of(seed), seed, campaign.illegal_fraction)
            part = Summary(next_seed=seed + 1)
            _count(part, case)
            part.failures.append(_save(campaign, case, case.program, ["the process died"]))
            return part


def _run_block(campaign: Campaign, seeds: range) -> Summary:
    part = Summary(next_seed=seeds.stop)
    for seed in seeds:
        case = make_case(campaign.config_of(seed), seed, campaign.illegal_fraction)
        devices = [d for d in campaign.devices if case.illegal is None or d != RACING]
        results = _results(case.program, case.dram, devices, case.seed)
        found = differences(results, case.illegal)
        _count(part, case)
        for name, result in results.items():
            if isinstance(result, RunOutcome) and result.cycles is not None:
                part.cycles[name] = part.cycles.get(name, 0) + result.cycles
        if found:
            part.failures.append(_keep(campaign, case, found))
    return part


def _count(part: Summary, case: Case) -> None:
    part.programs += 1
    part.illegal += case.illegal is not None
    part.insns += len(case.program.insn)
    part.configs[case.config] = part.configs.get(case.config, 0) + 1
    part.kinds[case.kind] = part.kinds.get(case.kind, 0) + 1


def _results(
    program: Program, dram: DramModel, devices: Sequence[str], seed: int
) -> dict[str, RunOutcome | Exception]:
    """What each device makes of a program: a result or the exception raised."""
    results: dict[str, RunOutcome | Exception] = {}
    for name in devices:
        try:
            results[name] = run_on(name, program, dram, seed)
        except Exception as error:
            results[name] = error
    return results


def _keep(campaign: Campaign, case: Case, found: list[str]) -> Failure:
    """Shrink a failing case and write it to a file."""
    program = case.program
    if case.illegal is None:
        program = shrink(
            program,
            lambda p: bool(differences(_results(p, case.dram, campaign.devices, case.seed))),
            limit_seconds=campaign.shrink_seconds,
        )
        results = _results(program, case.dram, campaign.devices, case.seed)
        found = differences(results) or found
    return _save(campaign, case, program, found)


def _save(campaign: Campaign, case: Case, program: Program, found: list[str]) -> Failure:
    note = {
        "seed": case.seed,
        "config": case.config,
        "kind": case.kind,
        "dram": asdict(case.dram),
        "devices": list(campaign.devices),
        "differences": found[:DIFFERENCES_KEPT],
    }
    if case.illegal is not None:
        note["expect_fault"] = {"cause": case.illegal.cause.text, "insn": case.illegal.insn}
    campaign.out.mkdir(parents=True, exist_ok=True)
    path = campaign.out / f"{Path(case.config).stem}-{case.seed}.npz"
    replace(program, meta={**(program.meta or {}), "fuzz": note}).save(path)
    return Failure(
        config=case.config,
        seed=case.seed,
        kind=case.kind,
        insns=len(program.insn),
        path=str(path),
        differences=tuple(found[:DIFFERENCES_KEPT]),
    )


def write_json(summary: Summary, path: Path) -> None:
    """Write the summary as one JSON object."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(summary.to_dict(), indent=2) + "\n", encoding="utf-8")
