"""Which operations must come before which: over acc tiles, and the loads a GEMM needs."""

from __future__ import annotations

from dataclasses import dataclass, field

from covta.compiler.backend.merge import Merged
from covta.compiler.backend.ops import Gemm, Load, Op, Store, Tile
from covta.compiler.backend.placement import Placement
from covta.compiler.backend.uses import reads, written

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


class _TileState:
    """Last write of a tile, and the reads since."""

    def __init__(self) -> None:
        self.writer: Node | None = None
        self.readers: list[Node] = []

    def all(self) -> list[Node]:
        return self.readers if self.readers else [self.writer] if self.writer else []


def dependences(merged: Merged, placement: Placement) -> Graph:
    """The graph of a trace whose tiles are placed.

    Operations that share a tile of acc stay in order unless all of them read; so do those on tiles
    that share addresses. GEMMs stay in order.
    """
    nodes: list[Node] = []
    loads: list[Load] = []
    loaded: dict[Tile, int] = {}
    states: dict[Tile, _TileState] = {}
    gemm: Node | None = None
    for number, op in enumerate(merged.ops):
        if isinstance(op, Load) and op.dst.scope != "acc":
            loads.append(op)
            for tile in merged.covers[op]:
                loaded[placement.home[tile]] = len(loads)
            continue
        node = Node(number=number, op=op, banks=0)
        into = written(op)
        covered = merged.covers.get(op, ()) if isinstance(op, Load) else ()
        touched: list[Tile] = [*reads(op), *([into] if into else []), *covered]
        for tile in dict.fromkeys(touched):
            home = placement.home[tile]
            if tile.scope != "acc":
                node.loads = max(node.loads, loaded.get(home, 0))
                continue
            node.banks |= placement.banks(tile)
            if home not in states:
                _take_over(home, states, placement, node)
            state = states[home]
            if tile is into or tile in covered:
                for other in state.all():
                    _order(other, node)
                state.writer, state.readers = node, []
            else:
                if state.writer is not None:
                    _order(state.writer, node)
                state.readers.append(node)
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


def _take_over(
    tile: Tile, states: dict[Tile, _TileState], placement: Placement, node: Node
) -> None:
    """A tile's first operation comes after all of those whose addresses it gets."""
    begin = placement.base[tile]
    end = begin + tile.elems
    for other in list(states):
        at = placement.base[other]
        if at < end and begin < at + other.elems:
            for user in states[other].all():
                _order(user, node)
            if begin <= at and at + other.elems <= end:
                del states[other]
    states[tile] = _TileState()
