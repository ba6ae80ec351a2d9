"""Which operations must come before which: over acc tiles, and the loads a GEMM needs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from covta.compiler.backend.merge import Merged
from covta.compiler.backend.ops import Gemm, Load, Op, Store, Tile
from covta.compiler.backend.placement import Placement

__all__ = ["Graph", "Node", "dependences"]


@dataclass(eq=False, kw_only=True)
class Node:
    """An operation of the compute or store queue, with what it waits for.

    Parameters
    ----------
    number : int
        Place in the trace.
    op : Op
    banks : int
        Mask of the banks of acc that it touches.
    before, after : list of Node
        Must be issued earlier, later.
    loads : int
        How many of the load unit's operations must have been issued.
    """

    number: int
    op: Op
    banks: int
    before: list[Node] = field(default_factory=list)
    after: list[Node] = field(default_factory=list)
    loads: int = 0

    @property
    def multiplies(self) -> bool:
        """Whether it is a GEMM proper, which keep their order."""
        return isinstance(self.op, Gemm) and not self.op.reset


@dataclass(kw_only=True)
class Graph:
    """All nodes in the order of the trace, and the load unit's operations in theirs."""

    nodes: list[Node]
    loads: list[Load]


class _Access(NamedTuple):
    """Elements ``low ... high - 1`` of acc are read or written by a node."""

    node: Node
    low: int
    high: int
    writes: bool


class _Accesses:
    """What happened to each element of acc since it was written last, and that write."""

    def __init__(self) -> None:
        self._all: list[_Access] = []

    def add(self, new: _Access) -> None:
        """Order an access behind those to the same elements, unless all of them read."""
        kept = []
        for old in self._all:
            if old.high <= new.low or new.high <= old.low:
                kept.append(old)
                continue
            if old.writes or new.writes:
                _order(old.node, new.node)
            if not new.writes:
                kept.append(old)
                continue
            if old.low < new.low:
                kept.append(old._replace(high=new.low))
            if new.high < old.high:
                kept.append(old._replace(low=new.high))
        self._all = [*kept, new]


def dependences(merged: Merged, placement: Placement) -> Graph:
    """The graph of a trace whose tiles are placed.

    Operations that share elements of acc stay in order unless all of them read. GEMMs stay in
    order.
    """
    nodes: list[Node] = []
    loads: list[Load] = []
    loaded: dict[Tile, int] = {}
    accesses = _Accesses()
    gemm: Node | None = None
    for number, op in enumerate(merged.ops):
        if isinstance(op, Load) and op.dst.scope != "acc":
            loads.append(op)
            for tile in merged.covers[op]:
                loaded[placement.home[tile]] = len(loads)
            continue
        node = Node(number=number, op=op, banks=0)
        into = () if isinstance(op, Store) else (op.dst,)
        covered = merged.covers.get(op, ()) if isinstance(op, Load) else ()
        for tile in dict.fromkeys((*op.reads, *into, *covered)):
            home = placement.home[tile]
            if tile.scope != "acc":
                node.loads = max(node.loads, loaded.get(home, 0))
                continue
            node.banks |= placement.banks(tile)
            writes = tile in into or tile in covered
            low, high = (0, tile.elems) if tile in covered else op.reach[tile]
            base = placement.base[home]
            accesses.add(_Access(node, base + low, base + high, writes))
        if isinstance(op, Store):
            node.banks = 0
        if node.multiplies:
            if gemm is not None:
                _order(gemm, node)
            gemm = node
        nodes.append(node)
    return Graph(nodes=nodes, loads=loads)


def _order(first: Node, second: Node) -> None:
    if first is not second and first not in second.before:
        second.before.append(first)
        first.after.append(second)
