"""Causes of a fault, in the order in which they win when several units report in one cycle."""

from __future__ import annotations

from enum import IntEnum

__all__ = ["FAULT_TEXT", "FaultCause"]


class FaultCause(IntEnum):
    """What the FAULT_CAUSE register and every simulator report."""

    NONE = 0
    ILLEGAL_INSTRUCTION = 1
    SCRATCHPAD = 2
    DRAM_WINDOW = 3
    BUS_ERROR = 4
    TOKEN_OVERFLOW = 5
    WATCHDOG = 6
    MISALIGNED = 7
    NO_FINISH = 8

    @property
    def text(self) -> str:
        """Lower-case name, as JSON reports print it."""
        return self.name.lower()


FAULT_TEXT: dict[FaultCause, str] = {
    FaultCause.NONE: "no fault",
    FaultCause.ILLEGAL_INSTRUCTION: (
        "unknown opcode, memory type or ALU opcode, a set bit outside every field, a dependence"
        " flag that names no neighbour, padding on a STORE"
    ),
    FaultCause.SCRATCHPAD: "an index at or beyond a scratchpad's depth",
    FaultCause.DRAM_WINDOW: "a transfer outside the programmed DRAM window",
    FaultCause.BUS_ERROR: "SLVERR or DECERR on the memory bus",
    FaultCause.TOKEN_OVERFLOW: "more than 255 tokens in one dependence queue",
    FaultCause.WATCHDOG: "no progress for as many cycles as the watchdog register says",
    FaultCause.MISALIGNED: "a base pointer or stream address not aligned to the bus or 16 bytes",
    FaultCause.NO_FINISH: "every instruction completed and none of them was FINISH",
}
