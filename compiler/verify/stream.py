"""A decoded stream with its queues, and the list to which rules add what they find."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from covta.compiler.verify.report import Finding, Report, Rule, Severity
from covta.hw.assembler import disassemble_insn
from covta.hw.isa import Isa, Opcode, Unit, isa
from covta.hw.params import Config
from covta.sim.decode import column, decode

__all__ = ["QUEUES", "QUEUE_NAMES", "Findings", "ProgramLike", "Stream"]

QUEUES: tuple[tuple[Unit, Unit], ...] = (
    (Unit.LOAD, Unit.COMPUTE),
    (Unit.COMPUTE, Unit.LOAD),
    (Unit.COMPUTE, Unit.STORE),
    (Unit.STORE, Unit.COMPUTE),
)
"""Producer and consumer of the token queues, in the order of `initial_tokens`."""

QUEUE_NAMES = tuple(f"{a.name.lower()}→{b.name.lower()}" for a, b in QUEUES)


class ProgramLike(Protocol):
    """What the verifier reads of a program; `covta.runtime.program.Program` has it."""

    @property
    def config(self) -> Config: ...
    @property
    def insn(self) -> np.ndarray: ...
    @property
    def insn_addr(self) -> int: ...
    @property
    def region_addrs(self) -> tuple[int, ...]: ...
    @property
    def regions(self) -> tuple[np.ndarray, ...]: ...
    @property
    def base_ptrs(self) -> tuple[int, ...]: ...
    @property
    def initial_tokens(self) -> tuple[int, ...]: ...
    @property
    def meta(self) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Stream:
    """A program's instructions, decoded.

    ``legal`` is False where an instruction does nothing but fault; rules about effects pass over
    those.
    """

    program: ProgramLike

    @property
    def cfg(self) -> Config:
        """The machine."""
        return self.program.config

    @cached_property
    def isa(self) -> Isa:
        """Its instruction set."""
        return isa(self.cfg)

    @cached_property
    def table(self) -> np.ndarray:
        """``(n, columns) int64``, as `covta.sim.decode` makes it."""
        return decode(self.cfg, self.program.insn)

    def __len__(self) -> int:
        return len(self.program.insn)

    def __getitem__(self, name: str) -> np.ndarray:
        """A column by name."""
        return self.table[:, column(name)]

    @cached_property
    def legal(self) -> np.ndarray:
        """``(n,) bool``."""
        return self["illegal"] == 0

    @cached_property
    def transfers(self) -> np.ndarray:
        """``(n,) bool``: legal LOAD and STORE that move something."""
        kind = (self["opcode"] == Opcode.LOAD) | (self["opcode"] == Opcode.STORE)
        return self.legal & kind & (self["x_size"] > 0) & (self["y_size"] > 0)

    @cached_property
    def loops(self) -> np.ndarray:
        """``(n,) bool``: legal GEMM and ALU with at least one operation."""
        kind = (self["opcode"] == Opcode.GEMM) | (self["opcode"] == Opcode.ALU)
        trips = (self["iter_out"] > 0) & (self["iter_in"] > 0)
        return self.legal & kind & trips & (self["uop_bgn"] < self["uop_end"])

    @cached_property
    def ordinals(self) -> np.ndarray:
        """``(n,) int64``: place of every instruction in the queue of its unit."""
        ordinals = np.zeros(len(self), np.int64)
        for mine in self.queues:
            ordinals[mine] = np.arange(len(mine))
        return ordinals

    @cached_property
    def queues(self) -> tuple[np.ndarray, ...]:
        """Indices of each unit's instructions, in order."""
        return tuple(np.flatnonzero(self["unit"] == unit) for unit in Unit)

    def text(self, index: int) -> str:
        """An instruction, disassembled."""
        return disassemble_insn(self.cfg, self.program.insn[index].tobytes())

    def name(self, index: int) -> str:
        """An instruction in few words: index, opcode and memory type."""
        row = self.table[index]
        opcode = int(row[column("opcode")])
        if opcode not in self.isa.by_opcode:
            return f"instruction {index}"
        parts = [Opcode(opcode).name]
        if opcode == Opcode.LOAD:
            parts.append(self.text(index).split("memory_type=")[-1].split(" ")[0])
        return f"instruction {index} ({' '.join(parts)})"


@dataclass(frozen=True)
class Findings:
    """Collects what rules find."""

    stream: Stream
    found: list[Finding] = field(default_factory=list)

    def error(self, rule: Rule, insn: int | np.integer | None, message: str) -> None:
        """Something that faults or races."""
        self._add(rule, Severity.ERROR, insn, message)

    def warning(self, rule: Rule, insn: int | np.integer | None, message: str) -> None:
        """Something legal and suspicious."""
        self._add(rule, Severity.WARNING, insn, message)

    def _add(
        self, rule: Rule, severity: Severity, insn: int | np.integer | None, message: str
    ) -> None:
        index = None if insn is None else int(insn)
        text = ""
        if index is not None:
            text = self.stream.text(index) if index < len(self.stream) else "end of the stream"
        self.found.append(
            Finding(rule=rule, severity=severity, insn=index, text=text, message=message)
        )

    def report(self, token_bounds: tuple[int, int, int, int]) -> Report:
        """Everything found, in order of the stream."""
        last = len(self.stream) + 1
        found = sorted(self.found, key=lambda f: last if f.insn is None else f.insn)
        return Report(
            errors=tuple(f for f in found if f.severity is Severity.ERROR),
            warnings=tuple(f for f in found if f.severity is Severity.WARNING),
            insns=len(self.stream),
            token_bounds=token_bounds,
        )
