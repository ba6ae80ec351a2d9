"""Cycles of a setting by arithmetic: what the array, the ALU and the bus need, tile by tile.

The machine is four servers in a row (read port, array, ALU, write port) and a tile passes them one
after the other. Two tiles are on the way through array and ALU at a time, one per bank of the
accumulator; reading runs ahead as far as buffers allow.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from covta.hw.params import Config

__all__ = ["LATENCY_CYCLES", "Machine", "TileCost", "estimate", "in_turns"]

LATENCY_CYCLES = 32
"""Of the memory that settings are picked for."""


@dataclass(frozen=True)
class Machine:
    """Cycles of transfers on one machine."""

    cfg: Config

    def read(self, size_bytes: float, rows: int) -> float:
        """Beats of a transfer of `rows` rows, and what else they cost."""
        burst = self.cfg.bus_bytes * self.cfg.bus.max_burst_beats
        bursts = max(rows, math.ceil(size_bytes / burst))
        beats = size_bytes / self.cfg.bus_bytes
        in_flight = bursts * LATENCY_CYCLES / self.cfg.bus.max_outstanding
        return max(beats, bursts, in_flight)

    def write(self, size_bytes: float) -> float:
        """Beats of a transfer."""
        return size_bytes / self.cfg.bus_bytes

    def fetch(self, instructions: int) -> float:
        """Beats of instructions, and of about as many micro-ops."""
        return 20 * instructions / self.cfg.bus_bytes


@dataclass(frozen=True, kw_only=True)
class TileCost:
    """Cycles that one tile takes of each server.

    Parameters
    ----------
    read, array, alu, write : float
    first : float
        Of reading before the array can begin.
    reset : float
        Of setting sums to zero, which array and ALU can do.
    slots : int
        Tiles that a bank of the accumulator has room for: with two, the next one need not wait
        until the last is written.
    """

    read: float
    first: float
    array: float
    reset: float
    alu: float
    write: float
    slots: int = 1


INSTRUCTION_CYCLES = 14
"""From one engine's result to the next one's start."""


def estimate(machine: Machine, cost: TileCost, tiles: int, elements: int) -> float:
    """From start to finish.

    Parameters
    ----------
    tiles : int
    elements : int
        Of the accumulator, in a tile: the first and the last may be cut smaller.
    """
    busy = max(cost.array, cost.alu, (cost.array + cost.alu + cost.reset) / 2)
    if tiles == 1:
        busy = cost.array + cost.alu + cost.reset
    written = 0 if cost.slots > 1 else cost.write + 2 * LATENCY_CYCLES
    hold = busy + (INSTRUCTION_CYCLES + written / 2 if tiles > 1 else 0)
    bank = (cost.array + cost.alu + cost.reset + written) / 2
    steady = max(cost.read, busy, min(bank, hold), cost.write)
    # small tiles at the end, which cannot overtake what the ALU has not done yet
    share = max(min(1.0, 64 / elements), 0.5 * cost.alu / steady)
    start = 2 * LATENCY_CYCLES + cost.first
    end = (cost.alu + cost.write) * share + LATENCY_CYCLES + 2 * INSTRUCTION_CYCLES
    return start + tiles * steady + end


def in_turns(machine: Machine, cost: TileCost, tiles: int, *, ahead: float) -> float:
    """From start to finish of tiles that take all of acc, half of one beside half of the next.

    Parameters
    ----------
    tiles : int
    ahead : float
        Cycles of loads that there is room for while the array waits.
    """
    tail = cost.alu + cost.reset + cost.write
    tail -= min(tail, cost.array) / 2  # halves: one leaves while the other is worked on
    tail += 2 * LATENCY_CYCLES + 2 * INSTRUCTION_CYCLES
    steady = max(cost.array, cost.read - min(tail, ahead)) + tail
    return 2 * LATENCY_CYCLES + cost.first + tiles * steady
