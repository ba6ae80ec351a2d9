"""Order the instruction stream so that the array waits as little as can be.

The compute unit starts instructions in order, on three engines that may run side by side if they
touch different banks of acc. One that has to wait holds up all behind it. So at every step this
scheduler issues what can start first. Of what is not needed for the next GEMM that is only what
cannot hold that up, if GEMMs come first: better where the array has most to do, worse where ALU
or transfers have as much. GEMMs and loads keep their order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from covta.compiler.backend.costs import (
    ACC_LATENCY_CYCLES,
    FILL_CYCLES,
    LOAD_LATENCY_CYCLES,
    STORE_LATENCY_CYCLES,
    beats,
    work_cycles,
)
from covta.compiler.backend.depend import Graph, Node
from covta.compiler.backend.merge import Merged
from covta.compiler.backend.ops import Alu, Gemm, Load, Op, Store, Trace
from covta.compiler.backend.placement import Placement
from covta.hw.params import Config

__all__ = ["Early", "Options", "Ordered", "order"]

MARGIN_CYCLES = 24
"""How much earlier than the next GEMM something else must be able to start: estimates err."""

AHEAD_LOADS = 16
"""Loads in the stream before the GEMM in front of those that need them: half of the queue."""

ENGINES = GEMM, ALU, LOADER = 0, 1, 2
BANKS = (1, 2)


class Early(Enum):
    """Which biases are loaded in front of all else."""

    NONE = "none"
    FIRST_BANK = "first bank"
    ALL = "all"


@dataclass(frozen=True, kw_only=True)
class Options:
    """What may be decided either way.

    Parameters
    ----------
    early : Early
        Biases that begin the stream, of those that wait for nothing: they delay the load unit by
        their beats, but do not queue behind its bursts.
    gemms_first : bool
        Issue nothing that would hold up the next GEMM.
    share_resets : bool
        The array resets where it has less left to do than the ALU, too.
    """

    early: Early = Early.NONE
    gemms_first: bool = True
    share_resets: bool = False


@dataclass(frozen=True, kw_only=True)
class Ordered:
    """Operations in the order of the stream, and the cycle in which each should start."""

    ops: tuple[Op, ...]
    starts: tuple[int, ...]
    cycles: int

    def __str__(self) -> str:
        return "\n".join(
            f"{k:5} @{at:<8} {op}"
            for k, (op, at) in enumerate(zip(self.ops, self.starts, strict=True))
        )


def order(
    cfg: Config,
    trace: Trace,
    merged: Merged,
    graph: Graph,
    placement: Placement,
    resets: Mapping[Gemm, tuple[Alu, ...]],
    options: Options,
) -> Ordered:
    """List scheduling over the in-order compute queue.

    Rewrite: operations change places; a reset becomes the ALU's, or the array's where that is done
    sooner and the next GEMM waits for it.
    Preserves: dependences of `graph`; the order of GEMMs, of loads, and of both among each other as
    far as addresses ask for it.
    """
    scheduler = _Scheduler(cfg, trace, merged, graph, placement, resets, options)
    if options.early is not Early.NONE:
        scheduler.issue_biases(options.early)
    return scheduler.run()


@dataclass(kw_only=True)
class _Machine:
    """When what is free, as far as is issued."""

    now: int = 0
    free: list[int] = field(default_factory=lambda: [0, 0, 0])
    busy: list[list[int]] = field(default_factory=lambda: [[0, 0, 0], [0, 0, 0]])
    loader_banks: int = 0
    loader_idle: int = 0
    retired: int = 0
    load_done: int = 0
    store_done: int = 0

    def start(self, engine: int, banks: int, ready: int) -> int:
        """First cycle in which an instruction could start."""
        at = max(self.now, self.free[engine], ready)
        if engine == LOADER and banks & ~self.loader_banks:
            at = max(at, self.loader_idle)  # banks are free again only when all of it is done
        for bank, mask in enumerate(BANKS):
            if banks & mask:
                for other in ENGINES:
                    if other != engine:
                        at = max(at, self.busy[bank][other])
        return at

    def issue(self, engine: int, banks: int, start: int, cycles: int, latency: int) -> int:
        """Take an instruction in; returns when it is complete."""
        self.now = start + 1
        end = start + cycles + latency
        if engine == LOADER:
            end = max(start + latency, self.loader_idle) + cycles
            self.loader_banks = (self.loader_banks if start < self.loader_idle else 0) | banks
            self.loader_idle = end
        else:
            self.free[engine] = start + cycles
        for bank, mask in enumerate(BANKS):
            if banks & mask:
                self.busy[bank][engine] = end
        self.retired = max(self.retired, end)
        return end


class _Scheduler:
    def __init__(
        self,
        cfg: Config,
        trace: Trace,
        merged: Merged,
        graph: Graph,
        placement: Placement,
        resets: Mapping[Gemm, tuple[Alu, ...]],
        options: Options,
    ) -> None:
        self.cfg = cfg
        self.options = options
        self.graph = graph
        self.resets = resets
        self.steps = {
            n: resets[n.op] for n in graph.nodes if isinstance(n.op, Gemm) and n.op in resets
        }
        self.zeroing = {op for node, steps in self.steps.items() for op in (node.op, *steps)}
        self.machine = _Machine()
        self.acc_latency = ACC_LATENCY_CYCLES if graph.loads else LOAD_LATENCY_CYCLES
        self.cost = {node: work_cycles(cfg, node.op) for node in graph.nodes}
        self.load_cost = [work_cycles(cfg, load) for load in graph.loads]
        self.left = {
            engine: sum(self.cost[n] for n in graph.nodes if isinstance(n.op, kind))
            for engine, kind in ((GEMM, Gemm), (ALU, Alu))
        }
        self.left[GEMM] -= sum(self.cost[n] for n in self.steps)
        self.waiting = {node: len(node.before) for node in graph.nodes}
        self.ready = [node for node in graph.nodes if not node.before]
        self.gemms = [node for node in graph.nodes if node.multiplies]
        self.next_gemm = 0
        self.stored: dict[Node, int] = {}
        self.retired: dict[Op, int] = {}
        self.releases = self._releases(trace, merged, placement)
        self.next_load = 0
        self._load_ends: list[int] = []
        self.needed_loads = 0
        self.ops: list[Op] = []
        self.starts: list[int] = []
        self.issued: set[Node] = set()

    def _releases(self, trace: Trace, merged: Merged, placement: Placement) -> list[list[Op]]:
        """By load, operations of the compute queue that must be complete before it."""
        releases = []
        for load in self.graph.loads:
            numbers = {placement.after[placement.home[t]] for t in merged.covers[load]}
            releases.append([trace.ops[k] for k in numbers if k >= 0])
        return releases

    # ---- the loop --------------------------------------------------------------------------
    def issue_biases(self, early: Early) -> None:
        """Issue the compute unit's loads that wait for nothing, the first GEMM's bank's first."""
        usual, self.acc_latency = self.acc_latency, LOAD_LATENCY_CYCLES
        first = self.gemms[0].banks if self.gemms else 0
        nodes = [n for n in self.ready if isinstance(n.op, Load)]
        if early is Early.FIRST_BANK:
            nodes = [n for n in nodes if n.banks == first]
        nodes.sort(key=lambda n: n.banks != first)
        for node in nodes:
            self._issue(node)
        self.acc_latency = usual
        self.machine.load_done = self.machine.loader_idle

    def run(self) -> Ordered:
        """Issue everything."""
        while self.ready:
            stores = [n for n in self.ready if isinstance(n.op, Store)]
            for node in stores:
                self._store(node)
            if stores:
                continue
            self._issue(self._pick())
        self._loads(len(self.graph.loads))
        machine = self.machine
        return Ordered(
            ops=tuple(self.ops),
            starts=tuple(self.starts),
            cycles=max(machine.retired, machine.store_done, machine.load_done),
        )

    def _pick(self) -> Node:
        """What to issue next."""
        first = min(self.ready, key=lambda n: (self._start(n), n.number))
        urgent = self._urgent() if self.options.gemms_first else None
        if urgent is None or first is urgent:
            return first
        limit = self._start(urgent)
        best: tuple[int, int] | None = None
        chosen = urgent
        for node in self.ready:
            start = self._start(node)
            if node is urgent or start + MARGIN_CYCLES > limit:
                continue
            if node.banks & urgent.banks and self._end(node, start) > limit:
                continue
            if best is None or (start, node.number) < best:
                best, chosen = (start, node.number), node
        return chosen

    def _urgent(self) -> Node | None:
        """The next GEMM, or what is ready of that which it waits for."""
        if self.next_gemm == len(self.gemms):
            return None
        node = self.gemms[self.next_gemm]
        while self.waiting[node]:
            node = min((n for n in node.before if n not in self.issued), key=lambda n: n.number)
        return node

    def _issue(self, node: Node) -> None:
        op = node.op
        if isinstance(op, Gemm) and op.reset:
            if not self._reset(node):
                return
        elif isinstance(op, Gemm):
            start = self._start(node)
            self._loads(node.loads)
            self.needed_loads = max(self.needed_loads, node.loads)
            self._emit(op, GEMM, node.banks, start, self.cost[node], FILL_CYCLES)
            self.next_gemm += 1
            self._loads_ahead()
        else:
            engine = ALU if isinstance(op, Alu) else LOADER
            latency = FILL_CYCLES if engine == ALU else self.acc_latency
            self._emit(op, engine, node.banks, self._start(node), self.cost[node], latency)
        self._done(node)

    def _reset(self, node: Node) -> bool:
        """By the ALU in the array's shadow, a step at a time; by the array where that is done
        sooner. Returns whether that was all of it."""
        assert isinstance(node.op, Gemm)
        array, alu = self._reset_starts(node)
        steps = self.steps[node]
        if self._by_array(node, array, alu):
            self._emit(node.op, GEMM, node.banks, array[0], self.cost[node], FILL_CYCLES)
            return True
        if steps:
            self._emit(steps[0], ALU, node.banks, alu[0], self.cost[node], FILL_CYCLES)
            self.steps[node] = steps[1:]
        return not self.steps[node]

    def _emit(self, op: Op, engine: int, banks: int, start: int, cycles: int, latency: int) -> None:
        self.ops.append(op)
        self.starts.append(start)
        self.machine.issue(engine, banks, start, cycles, latency)
        if engine in self.left and op not in self.zeroing:
            self.left[engine] -= cycles
        self.retired[op] = self.machine.retired

    def _store(self, node: Node) -> None:
        """Stores have a queue of their own; a token comes when all before it is complete."""
        assert isinstance(node.op, Store)
        machine = self.machine
        start = max(machine.retired, machine.store_done - STORE_LATENCY_CYCLES)
        machine.store_done = start + beats(self.cfg, node.op) + STORE_LATENCY_CYCLES
        self.stored[node] = machine.store_done
        self.ops.append(node.op)
        self.starts.append(start)
        self._done(node)

    def _done(self, node: Node) -> None:
        self.issued.add(node)
        self.ready.remove(node)
        for other in node.after:
            self.waiting[other] -= 1
            if not self.waiting[other]:
                self.ready.append(other)

    # ---- when ------------------------------------------------------------------------------
    def _start(self, node: Node) -> int:
        op = node.op
        ready = max((self.stored.get(n, 0) for n in node.before), default=0)
        if isinstance(op, Gemm) and op.reset:
            array, alu = self._reset_starts(node)
            return array[0] if self._by_array(node, array, alu) else alu[0]
        if isinstance(op, Gemm):
            ready = max(ready, self._loaded(node.loads))
            return self.machine.start(GEMM, node.banks, ready)
        engine = ALU if isinstance(op, Alu) else LOADER
        return self.machine.start(engine, node.banks, ready)

    def _end(self, node: Node, start: int) -> int:
        cycles = self.cost[node]
        if isinstance(node.op, Load):
            cycles += self.acc_latency
        elif isinstance(node.op, Gemm):
            cycles *= min(1, len(self.steps[node]))
        return start + cycles + FILL_CYCLES

    def _reset_starts(self, node: Node) -> tuple[tuple[int, int], tuple[int, int]]:
        """First cycle and end of a reset by the array, and by the ALU."""
        assert isinstance(node.op, Gemm)
        ready = max((self.stored.get(n, 0) for n in node.before), default=0)
        array = self.machine.start(GEMM, node.banks, ready)
        alu = self.machine.start(ALU, node.banks, ready)
        cycles, steps = self.cost[node], len(self.steps[node])
        return (array, array + cycles), (alu, alu + steps * cycles if steps else 0)

    def _by_array(self, node: Node, array: tuple[int, int], alu: tuple[int, int]) -> bool:
        """Whether the array is to do a reset: it is sooner done with it where the next GEMM waits
        for that, or has less left to do if they share."""
        assert isinstance(node.op, Gemm)
        if self.steps[node] != self.resets[node.op]:
            return False
        if self.options.share_resets and self.left[GEMM] + self.cost[node] <= self.left[ALU]:
            return True
        return self._holds_up(node) and array[1] <= alu[1]

    def _holds_up(self, node: Node) -> bool:
        """Whether the next GEMM waits for this."""
        if self.next_gemm == len(self.gemms):
            return False
        return node in self.gemms[self.next_gemm].before

    # ---- the load unit ---------------------------------------------------------------------
    def _loaded(self, count: int) -> int:
        """When that many loads are complete, if those not yet issued were issued now."""
        done = self.machine.load_done
        for k in range(self.next_load, count):
            done = self._load_end(k, done)
        return done if count > self.next_load else self._load_ends[count - 1] if count else 0

    def _load_end(self, k: int, done: int) -> int:
        token = self._token(k)
        return max(done, token + LOAD_LATENCY_CYCLES) + self.load_cost[k]

    def _token(self, k: int) -> int:
        return max((self.retired[op] for op in self.releases[k]), default=0)

    def _loads(self, count: int) -> None:
        while self.next_load < count:
            k = self.next_load
            self.machine.load_done = self._load_end(k, self.machine.load_done)
            self._load_ends.append(self.machine.load_done)
            self.ops.append(self.graph.loads[k])
            self.starts.append(self._token(k))
            self.next_load += 1

    def _loads_ahead(self) -> None:
        """Loads whose room is free by now, so that the stream does not keep them back."""
        limit = min(len(self.graph.loads), self.needed_loads + AHEAD_LOADS)
        while self.next_load < limit and all(
            self.retired.get(op, self.machine.now) < self.machine.now
            for op in self.releases[self.next_load]
        ):
            self._loads(self.next_load + 1)
