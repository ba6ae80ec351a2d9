"""Work that is done while the multiplier array is busy."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

__all__ = ["Shadow"]


@dataclass(kw_only=True)
class Shadow:
    """ALU work, stores and bias loads that wait for their turn beside the GEMMs.

    Time is counted in GEMM cycles. An entry is emitted once it would start while the GEMM before it
    runs.
    """

    clock: int = 0
    free_at: int = 0
    queue: deque[tuple[Callable[[], int], int, int, Callable[[], object]]] = field(
        default_factory=deque
    )

    MARGIN = 24

    def add(
        self,
        emit: Callable[[], object],
        *,
        cost: int,
        half: int,
        ready_at: Callable[[], int] = lambda: 0,
    ) -> None:
        """Queue `emit`, which keeps the ALU `cost` cycles, not before `ready_at`."""
        self.queue.append((ready_at, cost, half, emit))

    def after_gemm(self, cycles: int) -> None:
        """A GEMM of `cycles` was emitted: let through what may start during it."""
        begin, self.clock = self.clock, self.clock + cycles
        while self.queue:
            ready_at, cost, _, emit = self.queue[0]
            start = max(begin, self.free_at, ready_at())
            if start > self.clock - self.MARGIN:
                return
            self.queue.popleft()
            emit()
            self.free_at = start + cost

    def drain(self, half: int | None = None) -> None:
        """Emit everything up to the last entry of `half` (of all), whether it blocks or not."""
        last = max((k for k, e in enumerate(self.queue) if half in (None, e[2])), default=-1)
        for _ in range(last + 1):
            _, cost, _, emit = self.queue.popleft()
            emit()
            self.free_at = max(self.free_at, self.clock) + cost
