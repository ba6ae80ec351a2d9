"""One instruction of a kernel that is being written, and the tokens it gives."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from covta.hw.isa import Opcode, Unit
from covta.runtime.builder.errors import require

__all__ = ["Access", "Insn", "Loop", "Token", "merged", "unit_of"]

_UNITS = {unit.name.lower(): unit for unit in Unit}

_FLAGS = {
    (Unit.LOAD, Unit.COMPUTE): "next",
    (Unit.COMPUTE, Unit.LOAD): "prev",
    (Unit.COMPUTE, Unit.STORE): "next",
    (Unit.STORE, Unit.COMPUTE): "prev",
}
"""How an instruction of the first unit names the second."""


def unit_of(name: str) -> Unit:
    """``load``, ``compute`` or ``store``."""
    require(name in _UNITS, f"unit must be among {', '.join(_UNITS)}, got {name!r}")
    return _UNITS[name]


@dataclass(frozen=True, kw_only=True)
class Loop:
    """One of the two loops around the micro-ops of a GEMM or ALU instruction.

    Parameters
    ----------
    count : int
        Turns, at least 1.
    dst, src, wgt : int
        What each turn adds to the micro-op's indices, in elements.
    """

    count: int = 1
    dst: int = 0
    src: int = 0
    wgt: int = 0


@dataclass(frozen=True)
class Access:
    """Elements ``begin ... end - 1`` of a scratchpad."""

    pad: str
    begin: int
    end: int


def merged(pad: str, spans: Iterable[tuple[int, int]]) -> tuple[Access, ...]:
    """Join touching or overlapping spans (begin, end)."""
    joined: list[list[int]] = []
    for begin, end in sorted(set(spans)):
        if joined and begin <= joined[-1][1]:
            joined[-1][1] = max(joined[-1][1], end)
        else:
            joined.append([begin, end])
    return tuple(Access(pad, begin, end) for begin, end in joined)


@dataclass(eq=False)
class Token:
    """A promise that `producer` is complete, made to one unit and kept once.

    Given by `Insn.push`, taken by passing it as `pop` of a later instruction of that unit.
    """

    producer: Insn
    to: Unit
    consumer: Insn | None = None


@dataclass(eq=False)
class Insn:
    """An instruction of a kernel.

    Parameters
    ----------
    opcode : Opcode
    unit : Unit
    name : str
        For messages, e.g. ``gemm #12``.
    ordinal : int
        Position in its unit's queue.
    fields : dict of str to int
        All but opcode and flags.
    uops : tuple or None
        ``(dst, src, wgt)`` of each micro-op.
    reads, writes : tuple of Access
    """

    opcode: Opcode
    unit: Unit
    name: str
    ordinal: int
    fields: dict[str, int]
    uops: tuple[tuple[int, int, int], ...] | None = None
    reads: tuple[Access, ...] = ()
    writes: tuple[Access, ...] = ()
    tokens: dict[Unit, Token] = field(default_factory=dict)
    pops: dict[Unit, Token] = field(default_factory=dict)
    automatic: bool = False

    def push(self, to: str) -> Token:
        """Leave a token for unit `to` once this instruction is complete.

        Returns
        -------
        Token
            To be passed as `pop` of the instruction that has to wait.
        """
        require(
            not self.automatic,
            f"{self.name}: tokens must be left to the builder with sync='auto', got a push to {to}",
        )
        return self.leave(unit_of(to))

    def leave(self, to: Unit) -> Token:
        """What `push` does, without its rule on who may."""
        require(
            (self.unit, to) in _FLAGS,
            f"{self.name}: push must name a neighbour of {self.unit.name.lower()}, got"
            f" {to.name.lower()}",
        )
        require(
            to not in self.tokens,
            f"{self.name}: an instruction must push at most one token to a unit, got a second to"
            f" {to.name.lower()}",
        )
        self.tokens[to] = token = Token(self, to)
        return token

    def take(self, tokens: Sequence[Token]) -> None:
        """Wait for tokens before starting."""
        for token in tokens:
            source = token.producer.unit
            require(
                token.to is self.unit,
                f"{self.name}: pop must be a token for {self.unit.name.lower()}, got one of"
                f" {token.producer.name} for {token.to.name.lower()}",
            )
            require(
                token.consumer is None,
                f"{self.name}: a token is taken once, got one of {token.producer.name} that"
                f" {token.consumer.name if token.consumer else ''} took",
            )
            require(
                source not in self.pops,
                f"{self.name}: an instruction must pop at most one token of a unit, got two of"
                f" {source.name.lower()}",
            )
            token.consumer = self
            self.pops[source] = token

    def flags(self) -> dict[str, int]:
        """Dependence flags, under the instruction set's names."""
        flags = {f"push_{_FLAGS[self.unit, unit]}": 1 for unit in self.tokens}
        return flags | {f"pop_{_FLAGS[self.unit, unit]}": 1 for unit in self.pops}
