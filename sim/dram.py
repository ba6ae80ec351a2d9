"""Parameters of the DRAM model that the cycle simulator, the Verilator bench and cocotb share.

The model's behaviour, cycle by cycle, is in ``docs/microarchitecture.md``, section *DRAM model*.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from covta.sim.jit import jit

__all__ = [
    "AR",
    "AW",
    "DEFAULT_DRAM",
    "LEAST_RATE",
    "MOST_LATENCY_CYCLES",
    "RATE_ONE",
    "B",
    "DramModel",
    "R",
    "W",
    "stall",
]

AR, R, AW, W, B = range(5)
"""Channels, as `stall` numbers them."""

MOST_LATENCY_CYCLES, LEAST_RATE = 50_000, 1 / 8192
"""Slower memory is refused: waiting for it would look like no progress to the watchdog, which by
default waits for 65536 cycles."""

RATE_ONE = 65536
"""One beat, and certainty, in the fixed point of rates and probabilities."""


@dataclass(frozen=True, kw_only=True)
class DramModel:
    """Latency, rate and random stalls of memory.

    Parameters
    ----------
    latency_cycles : int
        From a burst's address to its first beat; from the last written beat to its response.
        At most 50,000.
    beats_per_cycle : float
        From 1/8192 to 1; reads and writes each.
    max_outstanding : int
        Bursts in flight; reads and writes each.
    stall_seed : int or None
        Seed of the random stalls; None: no stalls.
    stall_probability : float
        From 0 to below 1, of a stall in one cycle on one channel, where there is a seed.
    """

    latency_cycles: int = 32
    beats_per_cycle: float = 1.0
    max_outstanding: int = 16
    stall_seed: int | None = None
    stall_probability: float = 0.25

    def __post_init__(self) -> None:
        def require(condition: object, message: str) -> None:
            if not condition:
                raise ValueError(message)

        for name, low, high in (
            ("latency_cycles", 1, MOST_LATENCY_CYCLES),
            ("max_outstanding", 1, 4096),
            ("stall_seed", 0, (1 << 64) - 1),
        ):
            value = getattr(self, name)
            if name == "stall_seed" and value is None:
                continue
            require(
                isinstance(value, (int, np.integer)) and not isinstance(value, bool),
                f"{name} must be an integer, got {value!r}",
            )
            require(low <= value <= high, f"{name} must be from {low} to {high}, got {value}")
        rate = self.beats_per_cycle
        require(
            isinstance(rate, (int, float)) and LEAST_RATE <= rate <= 1,
            f"beats_per_cycle must be from 1/8192 to 1, got {rate!r}",
        )
        probability = self.stall_probability
        require(
            isinstance(probability, (int, float)) and 0 <= probability < 1,
            f"stall_probability must be from 0 to below 1, got {probability!r}",
        )

    @property
    def rate(self) -> int:
        """`beats_per_cycle` in units of 1 / 65536: the credit gained each cycle."""
        return round(self.beats_per_cycle * RATE_ONE)

    @property
    def stall_threshold(self) -> int:
        """Probability of a stall in units of 1 / 65536; 0 without a seed."""
        return 0 if self.stall_seed is None else round(self.stall_probability * RATE_ONE)


DEFAULT_DRAM = DramModel()
"""What reported figures use."""


@jit
def stall(seed, threshold, channel, t):
    """Whether a channel stalls in cycle `t`; arguments uint64, callable from other kernels."""
    z = (
        np.uint64(seed) * np.uint64(0x9E3779B97F4A7C15)
        + np.uint64(channel) * np.uint64(0xD1B54A32D192ED03)
        + np.uint64(t)
    )
    z += np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(48)) < np.uint64(threshold)
