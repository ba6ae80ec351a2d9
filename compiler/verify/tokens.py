"""Tokens alone, without effects: deadlock, overflow, and what happens before what.

Every token counter has one producer and one consumer, both in order, so the k-th pop takes the k-th
token whatever the timing. The stream is a marked graph: if one order of execution gets to its
end, all do, and where one stops, all stop. So one simulation decides about deadlock, and gives
every instruction a *clock*: how many instructions of each unit are complete before it starts, by
its own tokens and by those that came before it in its unit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from covta.compiler.verify.report import Rule
from covta.compiler.verify.stream import QUEUE_NAMES, QUEUES, Findings, Stream
from covta.hw.isa import Unit
from covta.hw.microarchitecture import TOKEN_MAX
from covta.sim.functional.machine import queue_capacity
from covta.sim.jit import jit

__all__ = ["Execution", "check_tokens"]

N_UNITS, N_QUEUES = len(Unit), len(QUEUES)
UNLIMITED = 1 << 40
PUSH_FLAG = ("push_next", "push_prev", "push_next", "push_prev")
POP_FLAG = ("pop_prev", "pop_next", "pop_prev", "pop_next")
PRODUCER = np.array([int(a) for a, _ in QUEUES])
CONSUMER = np.array([int(b) for _, b in QUEUES])


@dataclass(frozen=True, kw_only=True)
class Execution:
    """One order in which the stream can run, and what holds in all of them.

    Parameters
    ----------
    order : ndarray
        Indices of the instructions that run, in an order that tokens and queues allow: that
        of the stream wherever they do.
    clocks : ndarray
        ``(n, 3) int64``: instructions of load, compute and store known to be complete when
        instruction ``i`` starts. Nothing but tokens counts.
    done : ndarray
        ``(3,)``: instructions of each unit that run.
    waiting : ndarray
        ``(3,)``: index of the instruction at which each unit stops for lack of a token, or -1.
    fetched : int
        Instructions that reach a queue.
    """

    order: np.ndarray
    clocks: np.ndarray
    done: np.ndarray
    waiting: np.ndarray
    fetched: int


@jit
def _simulate(unit, ordinal, queues, pops, pushes, initial, capacity, push_list, clocks, order):
    """Run tokens to the end; fills `push_list`, `clocks`, `order`.

    Returns ``(count, fetched, done, waiting)``. `pops` and `pushes` are (n, 4) flags by queue.
    """
    n = len(unit)
    done, arrived = np.zeros(N_UNITS, np.int64), np.zeros(N_UNITS, np.int64)
    waiting = np.full(N_UNITS, -1, np.int64)
    pushed, popped = np.zeros(N_QUEUES, np.int64), np.zeros(N_QUEUES, np.int64)
    now = np.zeros((N_UNITS, N_UNITS), np.int64)
    fetched, count = 0, 0
    while True:
        while fetched < n:
            u = unit[fetched]
            if u >= 0:
                if arrived[u] - done[u] >= capacity[u]:
                    break
                arrived[u] += 1
            fetched += 1
        best = n
        for u in range(N_UNITS):
            waiting[u] = -1
            if done[u] < arrived[u]:
                head = queues[u, done[u]]
                ready = True
                for q in range(N_QUEUES):
                    if pops[head, q] and initial[q] + pushed[q] <= popped[q]:
                        ready = False
                if not ready:
                    waiting[u] = head
                elif head < best:
                    best = head
        if best == n:
            return count, fetched, done, waiting
        u = unit[best]
        for q in range(N_QUEUES):
            if pops[best, q]:
                k = popped[q] - initial[q]
                popped[q] += 1
                if k >= 0:
                    source = push_list[q, k]
                    for v in range(N_UNITS):
                        now[u, v] = max(now[u, v], clocks[source, v])
                    v = unit[source]
                    now[u, v] = max(now[u, v], ordinal[source] + 1)
        for v in range(N_UNITS):
            clocks[best, v] = now[u, v]
        for q in range(N_QUEUES):
            if pushes[best, q]:
                push_list[q, pushed[q]] = best
                pushed[q] += 1
        order[count] = best
        count += 1
        done[u] += 1


@dataclass(frozen=True)
class _Tokens:
    """Flags of a stream by token queue, those that name no neighbour left out."""

    stream: Stream

    def flags(self, names: tuple[str, ...], units: np.ndarray) -> np.ndarray:
        """``(n, 4) bool``: which instruction of `units` has which flag."""
        unit = self.stream["unit"]
        columns = [(unit == units[q]) & (self.stream[name] != 0) for q, name in enumerate(names)]
        return np.stack(columns, axis=1)

    def run(self, capacity: tuple[int, int, int]) -> Execution:
        """Simulate with queues of some capacity."""
        stream = self.stream
        n = len(stream)
        queues = np.full((N_UNITS, n), -1, np.int64)
        for unit, mine in enumerate(stream.queues):
            queues[unit, : len(mine)] = mine
        pops, pushes = self.flags(POP_FLAG, CONSUMER), self.flags(PUSH_FLAG, PRODUCER)
        order, clocks = np.zeros(n, np.int64), np.zeros((n, N_UNITS), np.int64)
        count, fetched, done, waiting = _simulate(
            stream["unit"].copy(),
            stream.ordinals,
            queues,
            pops,
            pushes,
            np.array([int(t) for t in stream.program.initial_tokens], np.int64),
            np.array(capacity, np.int64),
            np.zeros((N_QUEUES, n), np.int64),
            clocks,
            order,
        )
        return Execution(
            order=order[:count], clocks=clocks, done=done, waiting=waiting, fetched=int(fetched)
        )


def check_tokens(stream: Stream, findings: Findings) -> tuple[Execution, tuple[int, int, int, int]]:
    """Simulate the tokens; report deadlock, possible overflow, tokens left over.

    Returns
    -------
    Execution
    tuple of int
        The most tokens that each counter can hold.
    """
    tokens = _Tokens(stream)
    execution = tokens.run(queue_capacity(stream.cfg))
    pops, pushes = tokens.flags(POP_FLAG, CONSUMER), tokens.flags(PUSH_FLAG, PRODUCER)
    if len(execution.order) < int(np.count_nonzero(stream["unit"] >= 0)):
        _report_deadlock(tokens, execution, pops, pushes, findings)
    bounds = _check_overflow(stream, execution, pops, pushes, findings)
    if not (execution.waiting >= 0).any():
        _check_left(stream, pops, pushes, findings)
    return execution, bounds


def _report_deadlock(
    tokens: _Tokens,
    execution: Execution,
    pops: np.ndarray,
    pushes: np.ndarray,
    findings: Findings,
) -> None:
    """Name every instruction at the head of a queue and what it waits for."""
    stream = tokens.stream
    ran = np.zeros(len(stream), bool)
    ran[execution.order] = True
    deep = tokens.run((UNLIMITED, UNLIMITED, UNLIMITED))
    for head in execution.waiting[execution.waiting >= 0]:
        for q in np.flatnonzero(pops[head]):
            initial = int(stream.program.initial_tokens[q])
            taken = int(np.count_nonzero(pops[ran, q]))
            given = initial + int(np.count_nonzero(pushes[ran, q]))
            if given > taken:
                continue
            message = f"waits for token {taken + 1} of {QUEUE_NAMES[q]}, "
            sources = np.flatnonzero(pushes[:, q])
            if taken - initial >= len(sources):
                message += f"but only {initial + len(sources)} are ever pushed"
            else:
                source = int(sources[taken - initial])
                message += f"which {stream.name(source)} pushes; that "
                message += _why_not(stream, execution, source)
                if len(deep.order) > len(execution.order):
                    message += " (deeper queues would let the stream go on)"
            findings.error(Rule.DEADLOCK, head, message)


def _why_not(stream: Stream, execution: Execution, source: int) -> str:
    """Why an instruction never runs."""
    if source >= execution.fetched:
        stuck = int(execution.fetched)
        unit = Unit(int(stream["unit"][stuck]))
        room = queue_capacity(stream.cfg)[unit]
        return (
            f"is never fetched: instruction {stuck} finds the {unit.name.lower()} queue full,"
            f" {room} instructions"
        )
    head = int(execution.waiting[int(stream["unit"][source])])
    return "waits itself" if head == source else f"stands behind instruction {head}, which waits"


def _check_overflow(
    stream: Stream,
    execution: Execution,
    pops: np.ndarray,
    pushes: np.ndarray,
    findings: Findings,
) -> tuple[int, int, int, int]:
    """Bound every counter: its tokens after each push, with the consumer as late as it may be.

    The consumer has certainly popped what is complete by the producer's clock, and all but the
    last `capacity` instructions of its own that fetch handed out before the producer's.
    """
    unit, capacity = stream["unit"], queue_capacity(stream.cfg)
    order = execution.order
    bounds = []
    for q in range(N_QUEUES):
        initial = int(stream.program.initial_tokens[q])
        by = order[pushes[order, q]]
        consumer = int(CONSUMER[q])
        queue = stream.queues[consumer]
        popped = np.concatenate(([0], np.cumsum(pops[queue, q])))
        before = np.cumsum(unit == consumer)[by] - capacity[consumer]
        known = np.maximum(execution.clocks[by, consumer], before)
        tokens = initial + np.arange(1, len(by) + 1) - popped[np.maximum(known, 0)]
        bounds.append(max(initial, int(tokens.max(initial=0))))
        over = np.flatnonzero(tokens > TOKEN_MAX)
        if len(over):
            findings.error(
                Rule.TOKEN_OVERFLOW,
                int(by[over[0]]),
                f"{QUEUE_NAMES[q]} holds at most {TOKEN_MAX} tokens; this push can be number"
                f" {int(tokens[over[0]])} in it, and {len(over)} pushes can exceed it",
            )
    return (bounds[0], bounds[1], bounds[2], bounds[3])


def _check_left(stream: Stream, pops: np.ndarray, pushes: np.ndarray, findings: Findings) -> None:
    """Warn of tokens that nothing takes."""
    for q in range(N_QUEUES):
        initial = int(stream.program.initial_tokens[q])
        given, taken = np.flatnonzero(pushes[:, q]), int(np.count_nonzero(pops[:, q]))
        left = initial + len(given) - taken
        if left > 0:
            first = taken - initial
            findings.warning(
                Rule.TOKEN_LEFT,
                None if first < 0 else given[first],
                f"{left} tokens of {QUEUE_NAMES[q]} are left at the end",
            )
