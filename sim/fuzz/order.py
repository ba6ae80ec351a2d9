"""What is known to happen before what: dependence tokens as vector clocks.

Each unit executes its instructions in order, a token is pushed once its instruction and all before
it in the same unit are complete, and the k-th pop of a queue takes the k-th token. So an
instruction starts after everything that the tokens popped by it, and by those before it in its
unit, stand for.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from covta.hw.isa import Opcode, Unit

__all__ = ["POP_FLAG", "PUSH_FLAG", "QUEUES", "Clock", "Order", "Step", "first_conflict"]

Clock = tuple[int, int, int]
"""Instructions of load, compute and store unit known to be complete."""

QUEUES: tuple[tuple[Unit, Unit], ...] = (
    (Unit.LOAD, Unit.COMPUTE),
    (Unit.COMPUTE, Unit.LOAD),
    (Unit.COMPUTE, Unit.STORE),
    (Unit.STORE, Unit.COMPUTE),
)
"""Producer and consumer of the token queues, in the order of `initial_tokens`."""

PUSH_FLAG = ("push_next", "push_prev", "push_next", "push_prev")
"""Flag with which an instruction of the producer pushes, by queue."""

POP_FLAG = ("pop_prev", "pop_next", "pop_prev", "pop_next")
"""Flag with which an instruction of the consumer pops, by queue."""

QUEUE_OF: dict[tuple[Unit, Unit], int] = {pair: queue for queue, pair in enumerate(QUEUES)}
_INPUTS = tuple(tuple(q for q, (_, to) in enumerate(QUEUES) if to == unit) for unit in Unit)
_OUTPUTS = tuple(tuple(q for q, (frm, _) in enumerate(QUEUES) if frm == unit) for unit in Unit)
_ZERO: Clock = (0, 0, 0)


@dataclass(slots=True, kw_only=True)
class Step:
    """One instruction with what it touches and when it may start.

    Parameters
    ----------
    opcode : Opcode
    fields : dict
        Of the instruction, flags included.
    unit : Unit
    left : int
        inp elements, and wgt elements above them, that load writes or compute reads.
    right : int
        acc (and out) elements that compute writes or store reads.
    reads_dram, writes_dram : int
        DRAM, in the granules of its owner.
    """

    opcode: Opcode
    fields: dict[str, int]
    unit: Unit
    left: int = 0
    right: int = 0
    reads_dram: int = 0
    writes_dram: int = 0
    index: int = -1
    clock: Clock = _ZERO
    pops: list[int] = field(default_factory=list)
    pushes: list[int] = field(default_factory=list)


def _conflict(a: Step, b: Step) -> bool:
    """Whether two instructions of different units must not run at the same time."""
    if a.writes_dram & (b.reads_dram | b.writes_dram) or a.reads_dram & b.writes_dram:
        return True
    pair = a.unit + b.unit
    if pair == Unit.LOAD + Unit.COMPUTE:
        return bool(a.left & b.left)
    if pair == Unit.COMPUTE + Unit.STORE:
        return bool(a.right & b.right)
    return False


def first_conflict(steps: Sequence[Step], known: int, step: Step) -> int:
    """How many of another unit's `steps` must be complete before `step`; `known` are."""
    if not (step.left or step.right or step.reads_dram or step.writes_dram):
        return 0
    for k in range(len(steps) - 1, known - 1, -1):
        if _conflict(steps[k], step):
            return k + 1
    return 0


class Order:
    """Clocks and token queues of a stream that grows at its end.

    A push can be added to an instruction of the past as long as no later one of its unit pushed to
    the same queue; pops cannot, since instructions that follow were placed without them.

    Parameters
    ----------
    initial_tokens : sequence of int
        Tokens in the four queues at the start.
    """

    def __init__(self, initial_tokens: Sequence[int] = (0, 0, 0, 0)) -> None:
        self.stream: list[Step] = []
        self.units: tuple[list[Step], ...] = ([], [], [])
        self.pending: tuple[deque[Clock], ...] = tuple(deque([_ZERO] * n) for n in initial_tokens)
        self.push_total = list(initial_tokens)
        self._last_pusher = [-1, -1, -1, -1]
        self._clock: list[list[int]] = [[0, 0, 0], [0, 0, 0], [0, 0, 0]]

    def clock(self, unit: Unit) -> list[int]:
        """What is complete when the next instruction of a unit starts, tokens it pops aside."""
        return self._clock[unit]

    def inputs(self, unit: Unit) -> tuple[int, ...]:
        """Queues that a unit pops."""
        return _INPUTS[unit]

    def outputs(self, unit: Unit) -> tuple[int, ...]:
        """Queues that a unit pushes."""
        return _OUTPUTS[unit]

    def last_pusher(self, queue: int) -> int:
        """Index, in its unit, of the last instruction that pushes; -1 if none."""
        return self._last_pusher[queue]

    def push(self, step: Step, queue: int) -> None:
        """Let an instruction push, after every one that pushes to the queue already."""
        assert QUEUES[queue][0] == step.unit
        assert step.index > self._last_pusher[queue]
        self._last_pusher[queue] = step.index
        self.push_total[queue] += 1
        step.pushes.append(queue)
        token = list(step.clock)
        token[step.unit] = step.index + 1
        self.pending[queue].append((token[0], token[1], token[2]))

    def append(self, step: Step, pops: Sequence[int]) -> None:
        """Place an instruction at the end; it pops a token of each queue in `pops`."""
        clock = self._clock[step.unit]
        for queue in pops:
            token = self.pending[queue].popleft()
            for k in range(3):
                if token[k] > clock[k]:
                    clock[k] = token[k]
        step.pops.extend(pops)
        step.index = len(self.units[step.unit])
        step.clock = (clock[0], clock[1], clock[2])
        self.units[step.unit].append(step)
        self.stream.append(step)
