"""What the verifier says: findings, each of one rule about one instruction."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

__all__ = ["RULE_TEXT", "Finding", "Report", "Rule", "Severity", "VerifyError"]


class Severity(StrEnum):
    """An error is a fault, or bytes that depend on timing; a warning is legal and suspicious."""

    ERROR = "error"
    WARNING = "warning"


class Rule(StrEnum):
    """Names of the rules; `RULE_TEXT` says what each asks for."""

    ILLEGAL = "illegal"
    EMPTY_LOOP = "empty-loop"
    NO_FINISH = "no-finish"
    AFTER_FINISH = "after-finish"
    SCRATCHPAD = "scratchpad"
    UOP_UNDEFINED = "uop-undefined"
    UOP_UNKNOWN = "uop-unknown"
    DRAM_REGION = "dram-region"
    STREAM_OVERWRITE = "stream-overwrite"
    DEADLOCK = "deadlock"
    TOKEN_OVERFLOW = "token-overflow"
    TOKEN_LEFT = "token-left"
    HAZARD = "hazard"
    DRAM_HAZARD = "dram-hazard"
    UNDEFINED = "undefined"
    WRAP = "wrap"
    TRUNCATION = "truncation"
    NOT_ANALYSED = "not-analysed"


RULE_TEXT: dict[Rule, str] = {
    Rule.ILLEGAL: "a word is an instruction of this machine, with its extensions",
    Rule.EMPTY_LOOP: "uop_bgn does not exceed uop_end",
    Rule.NO_FINISH: "the stream holds a FINISH",
    Rule.AFTER_FINISH: "nothing after FINISH but carriers of tokens",
    Rule.SCRATCHPAD: "every index lies below the scratchpad's depth",
    Rule.UOP_UNDEFINED: "a micro-op that is read was loaded",
    Rule.UOP_UNKNOWN: "a micro-op that is read was not stored by the program itself",
    Rule.DRAM_REGION: "every row of a transfer lies in one region",
    Rule.STREAM_OVERWRITE: "no STORE writes the instruction stream",
    Rule.DEADLOCK: "every instruction gets its tokens, with queues as deep as the machine's",
    Rule.TOKEN_OVERFLOW: "no timing brings a counter above 255",
    Rule.TOKEN_LEFT: "every token is taken",
    Rule.HAZARD: "tokens order accesses of two units to a scratchpad element",
    Rule.DRAM_HAZARD: "tokens order a STORE and the LOADs of the bytes it writes",
    Rule.UNDEFINED: "a scratchpad element that is read was written",
    Rule.WRAP: "no accumulator can exceed acc_bits",
    Rule.TRUNCATION: "what is stored fits out_bits",
    Rule.NOT_ANALYSED: "the program is small enough for an analysis",
}


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One violation.

    Parameters
    ----------
    rule : Rule
    severity : Severity
    insn : int or None
        Index in the stream; its length where FINISH is missing; None: no single instruction.
    text : str
        The instruction, disassembled.
    message : str
        The rule's terms with the actual values.
    """

    rule: Rule
    severity: Severity
    insn: int | None
    text: str
    message: str

    def __str__(self) -> str:
        where = "" if self.insn is None else f" at instruction {self.insn} ({self.text})"
        return f"{self.severity}: {self.rule}{where}: {self.message}"

    def as_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return {
            "rule": str(self.rule),
            "severity": str(self.severity),
            "insn": self.insn,
            "text": self.text,
            "message": self.message,
        }


class VerifyError(ValueError):
    """A program with errors; `report` has them all, the message the first."""

    def __init__(self, report: Report) -> None:
        self.report = report
        more = len(report.errors) - 1
        super().__init__(f"{report.errors[0]}" + (f" (and {more} more)" if more else ""))


@dataclass(frozen=True, kw_only=True)
class Report:
    """Everything found in a program, by instruction.

    Parameters
    ----------
    errors, warnings : tuple of Finding
    insns : int
        Instructions looked at.
    token_bounds : tuple of int
        The most tokens that load→compute, compute→load, compute→store and store→compute can hold
        under any timing.
    """

    errors: tuple[Finding, ...]
    warnings: tuple[Finding, ...]
    insns: int
    token_bounds: tuple[int, int, int, int]

    @property
    def ok(self) -> bool:
        """No errors; there may be warnings."""
        return not self.errors

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Errors, then warnings."""
        return self.errors + self.warnings

    def raise_for_errors(self) -> None:
        """Raise `VerifyError` if there are errors."""
        if self.errors:
            raise VerifyError(self)

    def as_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return {
            "ok": self.ok,
            "insns": self.insns,
            "token_bounds": list(self.token_bounds),
            "errors": [f.as_dict() for f in self.errors],
            "warnings": [f.as_dict() for f in self.warnings],
        }
