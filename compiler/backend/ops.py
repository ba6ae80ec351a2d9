"""Transfers and loops over tiles: what is left of a computation once its outer loops are unrolled.

A `Trace` is a list of operations in the order in which one thread would do them. Each works on
*tiles*, virtual pieces of scratchpads that are not placed yet; addresses are elements of a tile.
From here on passes reorder (`order`), place tiles (`allocate`), cut loops into instructions
(`compress`) and emit a program (`emit`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from itertools import count

from covta.hw.isa import AluOp, MemoryType

__all__ = [
    "MOST_ELEMS",
    "Alu",
    "DramTensor",
    "Gemm",
    "Lifetime",
    "Load",
    "Loop",
    "Op",
    "Point",
    "Store",
    "Tile",
    "Trace",
]


MOST_ELEMS = (1 << 16) - 1
"""Greatest x_size, y_size and x_stride of a LOAD."""


@dataclass(frozen=True, kw_only=True)
class DramTensor:
    """A tensor in DRAM.

    Parameters
    ----------
    name : str
    memory : MemoryType
        INP, WGT, ACC, ACC_8BIT or OUT; says what an element is.
    shape : tuple of int
        In elements, without the element's own axes.
    """

    name: str
    memory: MemoryType
    shape: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Tile:
    """A piece of a scratchpad, written and then read, identified by itself.

    Parameters
    ----------
    name : str
        Of the buffer, with its place in it: ``x.inp(2)``.
    scope : str
        ``inp``, ``wgt`` or ``acc``.
    elems : int
        Its size.
    pool : str
        Tiles of one buffer share a pool, a part of the scratchpad used as a ring.
    instance : int
        Tiles of one pool with the same number are alive together (one execution of the buffer's
        `Allocate`), and need not but may lie side by side.
    key : tuple or None
        Equal for tiles that are filled with the same data in the same layout, so that one may stand
        for the other while it lasts; None for what the machine itself computes.
    """

    name: str
    scope: str
    elems: int
    pool: str
    instance: int
    key: tuple | None = None

    def __str__(self) -> str:
        return f"{self.name}#{self.instance}"


@dataclass(frozen=True, kw_only=True)
class Loop:
    """An affine loop: `count` turns, and what each adds to the operands' addresses."""

    count: int
    dst: int = 0
    src: int = 0
    wgt: int = 0


@dataclass(frozen=True, slots=True)
class Point:
    """Operands of one turn of all loops: offsets within tiles."""

    dst: int
    src: int = 0
    wgt: int = 0
    src_tile: Tile | None = None
    wgt_tile: Tile | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Load:
    """DRAM to tile: a 2-D block with a frame of padding; the tile is filled from `offset` on.

    Parameters as of the LOAD instruction, in elements; `begin` is the first element in `src`.
    """

    dst: Tile
    offset: int = 0
    src: DramTensor
    begin: int
    y_size: int = 1
    x_size: int
    x_stride: int = 0
    y_pad: tuple[int, int] = (0, 0)
    x_pad: tuple[int, int] = (0, 0)
    pad_min: bool = False

    @cached_property
    def elems(self) -> int:
        """Elements of the tile that are written."""
        return (sum(self.y_pad) + self.y_size) * (sum(self.x_pad) + self.x_size)

    @property
    def tile(self) -> Tile:
        """The tile that is filled."""
        return self.dst

    @property
    def reads(self) -> tuple[Tile, ...]:
        """Tiles that are read."""
        return ()

    @cached_property
    def reach(self) -> dict[Tile, tuple[int, int]]:
        """By tile, the first element that is touched, and the one behind the last."""
        return {self.dst: (self.offset, self.offset + self.elems)}

    def __str__(self) -> str:
        pads = "" if self.y_pad == self.x_pad == (0, 0) else f" pad {self.y_pad} {self.x_pad}"
        shape = f"{self.y_size}x{self.x_size} by {self.x_stride}"
        return f"load {self.dst}[{self.offset}] = {self.src.name}[{self.begin}] {shape}{pads}"


@dataclass(frozen=True, kw_only=True, eq=False)
class Gemm:
    """``dst[d] += src[s] @ wgt[w].T`` for every turn of `loops` and every point.

    The turns and points may be done in any order. With `reset`, ``dst[d] = 0`` instead.

    Parameters
    ----------
    dst : Tile
    points : tuple of Point
        What is not affine: unrolled loops over separate tiles.
    loops : tuple of Loop
        Any number, outermost first.
    """

    dst: Tile
    points: tuple[Point, ...]
    loops: tuple[Loop, ...] = ()
    reset: bool = False

    @cached_property
    def cycles(self) -> int:
        """Micro-ops it takes."""
        return len(self.points) * math.prod(loop.count for loop in self.loops)

    @cached_property
    def operands(self) -> tuple[Tile, ...]:
        """Tiles that the points name, each once."""
        tiles = (t for p in self.points for t in (p.src_tile, p.wgt_tile) if t is not None)
        return tuple(dict.fromkeys(tiles))

    @property
    def tile(self) -> Tile:
        """The tile that is worked on."""
        return self.dst

    @cached_property
    def reads(self) -> tuple[Tile, ...]:
        """Tiles that are read, each once; an accumulated tile is read too."""
        return () if self.reset else _reads(self)

    @cached_property
    def reach(self) -> dict[Tile, tuple[int, int]]:
        """By tile of acc, the first element that is touched, and the one behind the last."""
        return _reach(self)

    def __str__(self) -> str:
        return f"{'reset' if self.reset else 'gemm'} {self.dst} {_shape(self)}"


@dataclass(frozen=True, kw_only=True, eq=False)
class Alu:
    """``dst[d] = dst[d] op (imm or src[s])`` for every turn of `loops` and every point.

    Turns happen in order, outermost loop first, points innermost.

    Parameters
    ----------
    op : AluOp
    dst : Tile
    imm : int or None
        Exactly one of `imm` and the points' `src_tile` (scope acc, may be `dst`) is given.
    """

    op: AluOp
    dst: Tile
    points: tuple[Point, ...]
    loops: tuple[Loop, ...] = ()
    imm: int | None = None

    cycles = Gemm.cycles
    operands = Gemm.operands
    tile = Gemm.tile
    reach = Gemm.reach

    @cached_property
    def reads(self) -> tuple[Tile, ...]:
        """Tiles that are read, each once; what is worked on is read too."""
        return _reads(self)

    @cached_property
    def sources(self) -> int:
        """Elements that are read beside dst; turns that share one follow each other."""
        if self.imm is not None:
            return 0
        each = len({(p.src_tile, p.src) for p in self.points})
        return each * math.prod(loop.count for loop in self.loops if loop.src)

    def __str__(self) -> str:
        source = self.imm if self.imm is not None else self.points[0].src_tile
        return f"alu {self.op.name} {self.dst} {source} {_shape(self)}"


@dataclass(frozen=True, kw_only=True, eq=False)
class Store:
    """Tile (scope acc), dense from `offset` on, to DRAM: rows of the low bits of each element."""

    src: Tile
    offset: int = 0
    dst: DramTensor
    begin: int
    y_size: int = 1
    x_size: int
    x_stride: int = 0

    @property
    def elems(self) -> int:
        """Elements that are written."""
        return self.y_size * self.x_size

    @property
    def tile(self) -> Tile:
        """The tile that is stored."""
        return self.src

    @property
    def reads(self) -> tuple[Tile, ...]:
        """Tiles that are read."""
        return (self.src,)

    @cached_property
    def reach(self) -> dict[Tile, tuple[int, int]]:
        """By tile, the first element that is touched, and the one behind the last."""
        return {self.src: (self.offset, self.offset + self.elems)}

    def __str__(self) -> str:
        shape = f"{self.y_size}x{self.x_size} by {self.x_stride}"
        return f"store {self.dst.name}[{self.begin}] {shape} = {self.src}[{self.offset}]"


Op = Load | Gemm | Alu | Store


def _reads(op: Gemm | Alu) -> tuple[Tile, ...]:
    return op.dst, *(tile for tile in op.operands if tile is not op.dst)


def _reach(op: Gemm | Alu) -> dict[Tile, tuple[int, int]]:
    reach: dict[Tile, tuple[int, int]] = {}
    for name in ("dst", "src"):
        steps = [(k.count - 1) * getattr(k, name) for k in op.loops]
        back, forth = sum(s for s in steps if s < 0), sum(s for s in steps if s > 0)
        for p in op.points:
            tile, at = (op.dst, p.dst) if name == "dst" else (p.src_tile, p.src)
            if tile is None or tile.scope != "acc":
                continue
            low, high = reach.get(tile, (tile.elems, 0))
            reach[tile] = min(low, at + back), max(high, at + forth + 1)
    return reach


def _shape(op: Gemm | Alu) -> str:
    loops = " ".join(f"{k.count}(+{k.dst},+{k.src},+{k.wgt})" for k in op.loops)
    return f"{len(op.points)} points x [{loops}]"


@dataclass(kw_only=True, slots=True)
class Lifetime:
    """Positions in a trace: of a tile's first and last operation, of its last Load, and of the last
    operation that reads it.

    `computed` says that something other than a Load writes it.
    """

    first: int
    last: int
    last_load: int = -1
    last_read: int = -1
    computed: bool = False


@dataclass(frozen=True, kw_only=True)
class Trace:
    """Operations in the order of one thread.

    Parameters
    ----------
    name : str
    ops : tuple of Op
    generations : dict of str to int
        For a pool, how many instances may be alive at a time; others take what room there is.
    tensors : tuple of DramTensor
        Parameters, in order.
    preloads : frozenset of str
        Pools of sums that are to begin with what is added to them first; see `preload`.
    """

    name: str
    ops: tuple[Op, ...]
    generations: dict[str, int] = field(default_factory=dict)
    tensors: tuple[DramTensor, ...] = ()
    preloads: frozenset[str] = frozenset()

    def __str__(self) -> str:
        number = count()
        return "\n".join(f"{next(number):5}  {op}" for op in self.ops)

    @cached_property
    def lifetimes(self) -> dict[Tile, Lifetime]:
        """For how long each tile is needed, in order of first appearance."""
        lives: dict[Tile, Lifetime] = {}
        for k, op in enumerate(self.ops):
            for tile in op.reads:
                life = lives.get(tile)
                if life is None:
                    life = lives[tile] = Lifetime(first=k, last=k)
                life.last = life.last_read = k
            if isinstance(op, Store):
                continue
            life = lives.get(op.dst)
            if life is None:
                life = lives[op.dst] = Lifetime(first=k, last=k)
            life.last = k
            if isinstance(op, Load):
                life.last_load = k
            else:
                life.computed = True
        return lives

    @cached_property
    def written(self) -> set[DramTensor]:
        """Tensors that something is stored to."""
        return {op.dst for op in self.ops if isinstance(op, Store)}

    @cached_property
    def users(self) -> dict[Tile, list[Alu]]:
        """By tile, the ALU's operations that have it as operand 2, or by itself."""
        users: dict[Tile, list[Alu]] = {}
        for op in self.ops:
            if isinstance(op, Alu):
                for source in op.operands:
                    users.setdefault(source, []).append(op)
        return users
