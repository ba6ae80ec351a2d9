"""Known good programs, changed in one place, and whether such a change can be seen."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

import numpy as np

from covta.hw.isa import AluOp, Unit, isa
from covta.hw.params import load_config
from covta.runtime.device import open_device
from covta.runtime.program import Program
from covta.sim.decode import decode
from covta.sim.dram import DramModel
from covta.sim.fuzz.generator import random_program
from covta.sim.fuzz.schedules import DeadlockError, run_schedule

sys.path.insert(0, str(Path(__file__).parents[3] / "examples"))

from conv2d import Layer, build_layer
from matmul import Tiling, build_matmul
from vector_add import build_vector_add

FLAGS = ("pop_prev", "pop_next", "push_prev", "push_next")
DRAMS = (
    DramModel(),
    DramModel(latency_cycles=200),
    DramModel(latency_cycles=1, stall_seed=1),
    DramModel(latency_cycles=60, beats_per_cycle=0.3, max_outstanding=2, stall_seed=2),
)


def runtime_program(program) -> Program:
    """A program of the fuzzer as the runtime's container holds it."""
    return Program(
        config=program.config,
        insn=program.insn,
        insn_addr=program.insn_addr,
        region_addrs=program.region_addrs,
        regions=program.regions,
        base_ptrs=program.base_ptrs,
        initial_tokens=program.initial_tokens,
    )


def matmul(machine: str) -> Program:
    tiling = Tiling(rows=2, columns=2, slice=2)
    return build_matmul(load_config(machine), 8, 24, 40, shift=4, tiling=tiling)


def vector_add(machine: str) -> Program:
    return build_vector_add(load_config(machine), 19, chunk=4)


def conv2d(machine: str) -> Program:
    return build_layer(load_config(machine), Layer(size=6, inputs=20, outputs=12))


def fuzzed(machine: str, seed: int) -> Program:
    return runtime_program(random_program(load_config(machine), seed, size=40))


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """A program with one change, at instruction `insn`."""

    program: Program
    what: str
    insn: int


class Mutator:
    """Makes changed copies of a program."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.isa = isa(program.config)
        rows = [row.tobytes() for row in program.insn]
        self.values = [self.isa.by_opcode[row[0] & 7].decode(row) for row in rows]
        self.units = decode(program.config, program.insn)[:, 1]

    def change(self, what: str, *changes: tuple[int, dict[str, int]]) -> Mutant:
        """Set fields of some instructions."""
        insn = self.program.insn.copy()
        for index, values in changes:
            fields = self.values[index] | values
            data = self.isa.by_opcode[fields["opcode"]].encode(fields)
            insn[index] = np.frombuffer(data, np.uint8)
        return Mutant(program=self.with_stream(insn), what=what, insn=changes[0][0])

    def with_stream(self, insn: np.ndarray) -> Program:
        """The same memory around another stream of the same length."""
        old = self.program
        regions = []
        for addr, data in zip(old.region_addrs, old.regions, strict=True):
            if addr <= old.insn_addr < addr + len(data):
                data = data.copy()
                at = old.insn_addr - addr
                data[at : at + insn.size] = insn.reshape(-1)
            regions.append(data)
        return replace(old, insn=insn, regions=tuple(regions), expected=())

    def legal_flags(self, index: int) -> tuple[str, ...]:
        """Flags that an instruction may carry."""
        unit = Unit(int(self.units[index]))
        return {
            Unit.LOAD: ("pop_next", "push_next"),
            Unit.COMPUTE: FLAGS,
            Unit.STORE: ("pop_prev", "push_prev"),
        }[unit]

    def tokens(self) -> Iterator[Mutant]:
        """Every flag flipped, every flag moved to the next of its unit, neighbours swapped."""
        for index, values in enumerate(self.values):
            for flag in self.legal_flags(index):
                had = values[flag]
                what = "drop" if had else "add"
                yield self.change(f"{what} {flag}", (index, {flag: 1 - had}))
            later = np.flatnonzero(self.units[index + 1 :] == self.units[index])
            if not len(later):
                continue
            after = index + 1 + int(later[0])
            for flag in self.legal_flags(index):
                if values[flag] != self.values[after][flag]:
                    swapped = {flag: self.values[after][flag]}, {flag: values[flag]}
                    yield self.change(f"move {flag}", (index, swapped[0]), (after, swapped[1]))

    def dropped(self) -> Iterator[Mutant]:
        """Pairs of a push and a pop of the same queue, both dropped: order alone is lost."""
        for push, pop, producer, consumer in (
            ("push_next", "pop_prev", Unit.LOAD, Unit.COMPUTE),
            ("push_prev", "pop_next", Unit.COMPUTE, Unit.LOAD),
            ("push_next", "pop_prev", Unit.COMPUTE, Unit.STORE),
            ("push_prev", "pop_next", Unit.STORE, Unit.COMPUTE),
        ):
            pushes = [k for k, v in enumerate(self.values) if self.units[k] == producer and v[push]]
            pops = [k for k, v in enumerate(self.values) if self.units[k] == consumer and v[pop]]
            for a, b in zip(pushes, pops, strict=False):
                yield self.change(f"drop {push} and {pop}", (a, {push: 0}), (b, {pop: 0}))

    def fields(self, rng: Random, each: int) -> Iterator[Mutant]:
        """Random other values of `each` fields of every instruction, tokens aside."""
        for index, values in enumerate(self.values):
            fmt = self.isa.by_opcode[values["opcode"]]
            names = [n for n in fmt.fields if n not in (*FLAGS, "opcode")]
            for name in rng.sample(names, min(each, len(names))):
                field = fmt.fields[name][2]
                near = values[name] + rng.choice((-8, -2, -1, 1, 2, 8))
                value = near if rng.random() < 0.7 else rng.randint(field.minimum, field.maximum)
                if field.minimum <= value <= field.maximum and value != values[name]:
                    if name == "alu_opcode" and value not in set(AluOp):
                        continue
                    yield self.change(f"{name} {values[name]} -> {value}", (index, {name: value}))


def outcomes(program: Program, schedules: int = 3) -> list[list[bytes] | str]:
    """What every device and schedule makes of a program: bytes of its regions, or a fault.

    The stream's own region is left out, so that outcomes of mutants can be compared.
    """
    runs: list[list[bytes] | str] = [_outcome(program, open_device("functional").run(program))]
    runs += [_outcome(program, open_device("cycle").run(program, dram)) for dram in DRAMS]
    if isinstance(runs[0], str):
        return runs
    for seed in range(schedules):
        try:
            runs.append(_bytes(program, run_schedule(program, seed)))  # pyright: ignore
        except DeadlockError:
            runs.append("deadlock")
        except (IndexError, AssertionError) as error:  # micro-ops or rows it never had
            runs.append(f"fault {error}")
    return runs


def _outcome(program: Program, result) -> list[bytes] | str:
    if result.fault is not None:
        return f"fault {result.fault.cause.text} at {result.fault.insn}"
    return _bytes(program, result.memory)


def _bytes(program: Program, memory) -> list[bytes]:
    return [
        data.tobytes()
        for addr, data in zip(program.region_addrs, memory, strict=False)
        if not addr <= program.insn_addr < addr + len(data)
    ]
