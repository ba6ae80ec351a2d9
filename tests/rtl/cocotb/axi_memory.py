"""Memory behind cocotbext-axi's slaves: it pauses, takes its time, and fails where told."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator

import numpy as np
from cocotb.triggers import ClockCycles

PAUSE_PROBABILITY = 0.4


class Memory:
    """Bytes by address; an access to a missing or broken byte answers SLVERR.

    cocotbext-axi turns an exception into that response. With `take_time` a beat waits for a
    number of cycles drawn anew for each.
    """

    def __init__(self) -> None:
        self.data: dict[int, int] = {}
        self.broken: range = range(0)
        self._clock = None
        self._most_cycles = 0

    def take_time(self, clock, most_cycles: int, seed: int) -> None:
        """Hold back every beat by up to `most_cycles`, mostly by none."""
        self._clock, self._most_cycles = clock, most_cycles
        self._rng = random.Random(seed)

    def place(self, addr: int, data: np.ndarray) -> None:
        """Put bytes there."""
        self.data.update(enumerate(data.tolist(), addr))

    def bytes_at(self, addr: int, count: int) -> np.ndarray:
        """The bytes there."""
        return np.array([self.data[a] for a in range(addr, addr + count)], np.uint8)

    async def read(self, addr: int, length: int) -> bytes:
        """Serve a beat."""
        await self._wait()
        return bytes(self.data[a] for a in self._span(addr, length))

    async def write(self, addr: int, data: bytes) -> None:
        """Take a beat."""
        await self._wait()
        self.data.update(zip(self._span(addr, len(data)), data, strict=True))

    async def _wait(self) -> None:
        if self._most_cycles and self._rng.random() < 0.1:
            await ClockCycles(self._clock, self._rng.randint(1, self._most_cycles))

    def _span(self, addr: int, length: int) -> range:
        span = range(addr, addr + length)
        if any(a in self.broken or a not in self.data for a in span):
            raise IndexError(f"no memory at 0x{addr:x}")
        return span


def pause_randomly(channels: Iterable, seed: int) -> None:
    """Hold back ready or valid of channels in random cycles."""

    def pauses(channel_seed: int) -> Iterator[bool]:
        rng = random.Random(channel_seed)
        while True:
            yield rng.random() < PAUSE_PROBABILITY

    for k, channel in enumerate(channels):
        channel.set_pause_generator(pauses(1000 * seed + k))
