"""Run the outer loops: what the machine is to do becomes a `Trace` over tiles.

The function is turned into a Python program whose loops are those around transfers and intrinsics.
The loops directly around an intrinsic are not run but taken over as they are, as far as the
operands' addresses are linear in them; those that choose among separately placed pieces of a buffer
become points.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count, product

import numpy as np

from covta.compiler.backend.ops import (
    Alu,
    DramTensor,
    Gemm,
    Load,
    Loop,
    Op,
    Point,
    Store,
    Tile,
    Trace,
)
from covta.compiler.ir.affine import linear, python_source, variables
from covta.compiler.ir.stmt import (
    Allocate,
    Buffer,
    Call,
    Copy,
    For,
    Function,
    If,
    Region,
    Seq,
    Stmt,
    walk_stmts,
)
from covta.compiler.schedule.stage import ScheduleError, require
from covta.compiler.te.expr import Const, Expr, Var, substitute
from covta.hw.isa import AluOp, MemoryType
from covta.hw.params import Config

__all__ = ["dram_tensors", "unroll"]

MAX_PAD = 15
"""Rows or columns of padding that one LOAD can add on a side."""


def unroll(cfg: Config, function: Function) -> Trace:
    """Operations over tiles, in the order of one thread.

    Parameters
    ----------
    cfg : Config
    function : Function
        Lowered; its innermost statements are transfers and the machine's intrinsics.

    Raises
    ------
    ScheduleError
        If something is left that the machine cannot do, with what it is.
    """
    require(
        not function.scalars,
        f"{function.name}: the machine takes no numbers as parameters, got"
        f" {', '.join(map(str, function.scalars))}; put constants in their place",
    )
    tensors = dram_tensors(cfg, function)
    tracer = _Tracer(cfg, function, tensors)
    emitter = _Emitter(tracer)
    lines = ["def run(T):", *emitter.stmt(function.body, "    "), "    return"]
    scope: dict = {"_shr": lambda a, b: a >> b if b >= 0 else a << -b}
    exec("\n".join(lines), scope)
    scope["run"](tracer)
    return Trace(
        name=function.name,
        ops=tuple(tracer.ops),
        generations=tracer.generations,
        preloads=frozenset(tracer.preloads),
        tensors=tuple(tensors[p] for p in function.buffers),
    )


def dram_tensors(cfg: Config, function: Function) -> dict[Buffer, DramTensor]:
    """What each parameter is to the machine, by what its transfers connect it with."""
    lanes = {
        MemoryType.INP: (cfg.batch, cfg.block_in),
        MemoryType.WGT: (cfg.block_out, cfg.block_in),
        MemoryType.ACC: (cfg.batch, cfg.block_out),
        MemoryType.ACC_8BIT: (cfg.batch, cfg.block_out),
        MemoryType.OUT: (cfg.batch, cfg.block_out),
    }
    memory: dict[Buffer, MemoryType] = {}
    for stmt in walk_stmts(function.body):
        if not isinstance(stmt, Copy):
            continue
        dst, src = stmt.dst.buffer, stmt.src.buffer
        if dst.scope == "global":
            require(
                src.scope == "acc" and dst.dtype == "int8",
                f"{dst.name}: the machine stores int8 from acc, got {dst.dtype} from {src.scope}",
            )
            own, kind = dst, MemoryType.OUT
        else:
            require(
                src.scope == "global",
                f"{dst.name}: a transfer goes between DRAM and a scratchpad, got one from"
                f" {src.name} in {src.scope}",
            )
            eight = MemoryType.ACC_8BIT if src.dtype == "int8" else MemoryType.ACC
            own = src
            kind = {"inp": MemoryType.INP, "wgt": MemoryType.WGT, "acc": eight}.get(
                dst.scope, MemoryType.UOP
            )
            require(kind != MemoryType.UOP, f"{dst.name} must lie in a scratchpad: {dst.scope}")
        require(
            memory.setdefault(own, kind) == kind,
            f"{own.name} is used as {memory[own].name} and as {kind.name}; pass it twice",
        )
        require(
            tuple(own.shape[-2:]) == tuple(map(Const, lanes[kind])),
            f"{own.name}: its last two dimensions must be one {kind.name} element {lanes[kind]},"
            f" got {[str(s) for s in own.shape[-2:]]}",
        )
    result = {}
    for p in function.buffers:
        require(p in memory, f"{p.name}: no transfer moves it")
        shape = tuple(int(s.value) for s in p.shape[:-2])  # type: ignore[attr-defined]
        result[p] = DramTensor(name=p.name, memory=memory[p], shape=shape)
    return result


class _Instance:
    """One execution of an `Allocate`."""

    __slots__ = ("buffer", "number", "shape", "strides", "tiles", "unit_elems")

    def __init__(self, buffer: Buffer, number: int, shape: tuple[int, ...]) -> None:
        self.buffer, self.number, self.shape = buffer, number, shape
        strides = [1] * len(shape)
        for d in range(len(shape) - 2, -1, -1):
            strides[d] = strides[d + 1] * shape[d + 1]
        self.strides = strides
        self.unit_elems = int(np.prod(shape[buffer.units :], dtype=np.int64))
        self.tiles: dict[tuple[int, ...], Tile] = {}

    def tile(self, at: tuple[int, ...], key: tuple | None = None) -> Tile:
        if at not in self.tiles:
            name = self.buffer.name + (f"({', '.join(map(str, at))})" if at else "")
            self.tiles[at] = Tile(
                name=name, scope=self.buffer.scope, elems=self.unit_elems, pool=self.buffer.name,
                instance=self.number, key=key,
            )  # fmt: skip
        return self.tiles[at]


@dataclass(frozen=True)
class _Operand:
    """Of an intrinsic: coefficients of the affine loops, per dimension without lanes."""

    units: int
    steps: tuple[tuple[int, ...], ...]  # by loop, then by dimension


class _Tracer:
    """What the generated program calls."""

    def __init__(self, cfg: Config, function: Function, tensors: dict[Buffer, DramTensor]) -> None:
        self.cfg = cfg
        self.ops: list[Op] = []
        self.tensors = tensors
        self.generations: dict[str, int] = {}
        self.preloads: set[str] = set()
        self.statements: list = []
        self._instances = count()
        self.function = function

    def alloc(self, index: int, shape: tuple[int, ...]) -> _Instance:
        buffer: Buffer = self.statements[index]
        if buffer.generations:
            self.generations[buffer.name] = buffer.generations
        if buffer.preloaded:
            self.preloads.add(buffer.name)
        return _Instance(buffer, next(self._instances), shape[:-2])

    # ---- transfers -------------------------------------------------------------------------
    def copy(
        self,
        index: int,
        instance: _Instance,
        begins: tuple[int, ...],
        extents: tuple[int, ...],
        far: tuple[int, ...],
        bounds: tuple,
    ) -> None:
        """A transfer; `begins` is in the scratchpad, `far` in DRAM."""
        op: Copy = self.statements[index]
        if min(extents) <= 0:
            return
        stores = op.dst.buffer.scope == "global"
        tensor = self.tensors[op.dst.buffer if stores else op.src.buffer]
        units = instance.buffer.units
        at, own = begins[:units], begins[units:-2]
        shape = instance.shape[units:]
        lead = len(instance.shape) - len(tensor.shape)  # threads' dimensions
        rows = list(extents[lead:-2]) if not stores else list(extents[:-2])
        offset = sum(b * s for b, s in zip(own, instance.strides[units:], strict=True))
        strides = np.ones(len(tensor.shape), np.int64)
        for d in range(len(strides) - 2, -1, -1):
            strides[d] = strides[d + 1] * tensor.shape[d + 1]
        far = far[:-2]
        if stores:
            tile = instance.tile(at)
            self._dense(op, shape, rows, lead, units)
            for begin, begin_far, y, x, stride in _blocks(
                rows, [int(s) for s in strides], far, [(0, 0)] * len(rows), shape_of=None
            ):
                self.ops.append(
                    Store(
                        src=tile,
                        offset=offset + begin,
                        dst=tensor,
                        begin=begin_far,
                        y_size=y[1],
                        x_size=x[1],
                        x_stride=stride,
                    )
                )
            return
        pads, inner, first = [], [], []
        for d, (b, n) in enumerate(zip(far, rows, strict=True)):
            step, limits = op.strides[d], bounds[d]
            before = after = 0
            if limits is not None:
                before = min(n, max(0, -((b - limits[0]) // step)))
                after = min(n - before, max(0, n - 1 - (limits[1] - 1 - b) // step))
            pads.append((before, after))
            inner.append(n - before - after)
            first.append(b + before * step)
        key = (
            (tensor.name, tuple(first), tuple(inner), tuple(pads), op.strides)
            if tuple(shape) == tuple(rows[units - lead :])
            else None
        )
        tile = instance.tile(at, key)
        self._dense(op, shape, rows, lead, units)
        by = [int(s) * t for s, t in zip(strides, op.strides, strict=False)]
        minimum = op.fill != 0 and any(p != (0, 0) for p in pads)
        if minimum:
            bits = self.cfg.acc_bits if tensor.memory == MemoryType.ACC else self.cfg.inp_bits
            require(
                op.fill == -(1 << (bits - 1)),
                f"{op.dst.buffer.name}: padding is 0 or the least value, got {op.fill}",
            )
        if 0 in inner:
            require(False, f"{op.dst.buffer.name}: a transfer of nothing but padding: {op}")
        for begin, begin_far, y, x, stride in _blocks(
            inner, by, [f for f in first], pads, shape_of=tensor.shape
        ):
            self.ops.append(
                Load(
                    dst=tile,
                    offset=offset + begin,
                    src=tensor,
                    begin=begin_far,
                    y_size=y[1],
                    x_size=x[1],
                    x_stride=stride,
                    y_pad=(y[0], y[2]),
                    x_pad=(x[0], x[2]),
                    pad_min=minimum,
                )
            )

    def _dense(
        self, op: Copy, shape: Sequence[int], rows: Sequence[int], lead: int, units: int
    ) -> None:
        """The scratchpad side must be one dense block."""
        box = list(rows[max(0, units - lead) :])
        whole = False
        for n, size in zip(box, shape, strict=True):
            if whole and n != size:
                raise ScheduleError(
                    f"{op.dst.buffer.name}: a transfer must cover whole rows of the scratchpad"
                    f" buffer {list(shape)}, got {box}"
                )
            whole = whole or n != 1

    # ---- intrinsics ------------------------------------------------------------------------
    def call(
        self,
        index: int,
        instances: tuple[_Instance, ...],
        counts: tuple[int, ...],
        points: list[tuple[tuple[int, ...], ...]],
    ) -> None:
        """An intrinsic with loops of `counts` turns; `points` hold begins, per operand."""
        if 0 in counts or any(c < 0 for c in counts) or not points:
            return
        op, operands = self.statements[index]
        steps = []
        for inst, operand in zip(instances, operands, strict=True):
            steps.append(
                [
                    sum(c * s for c, s in zip(row, inst.strides, strict=False))
                    for row in operand.steps
                ]
            )
        placed = []
        for begins in points:
            where = []
            for inst, operand, at in zip(instances, operands, begins, strict=True):
                u = operand.units
                offset = sum(b * s for b, s in zip(at[u:-2], inst.strides[u:], strict=True))
                where.append((inst.tile(at[:u]), offset))
            placed.append(where)
        self._emit(op, steps, counts, placed)

    def _emit(self, op: Call, steps: list, counts: tuple[int, ...], placed: list) -> None:
        call = op.attr("call")
        reset = op.phase == "reset"
        column = {"dst": 0, "src": 1, "wgt": 2}
        by_tile: dict[Tile, list] = {}
        for where in placed:
            by_tile.setdefault(where[0][0], []).append(where)

        def loops(*names: str) -> tuple[Loop, ...]:
            return tuple(
                Loop(count=n, **{k: steps[column[k]][j] for k in names})
                for j, n in enumerate(counts)
            )

        for dst, group in by_tile.items():
            if call == "vta.gemm" and reset:
                points = tuple(Point(w[0][1]) for w in group)
                self.ops.append(Gemm(dst=dst, points=points, loops=loops("dst"), reset=True))
            elif call == "vta.gemm":
                for src, wgt in _pairs(len(group[0])):
                    column |= {"src": src, "wgt": wgt}
                    points = tuple(
                        Point(w[0][1], w[src][1], w[wgt][1], w[src][0], w[wgt][0]) for w in group
                    )
                    names = ("dst", "src", "wgt")
                    self.ops.append(Gemm(dst=dst, points=points, loops=loops(*names)))
            elif call == "vta.alu":
                imm = op.attr("imm")
                in_place = imm is not None
                source = len(op.inputs)  # the operand that is not worked on in place
                points = tuple(
                    Point(w[0][1]) if in_place else Point(w[0][1], w[source][1], 0, w[source][0])
                    for w in group
                )
                column["src"] = source
                self.ops.append(
                    Alu(
                        op=AluOp(op.attr("op")),
                        dst=dst,
                        points=points,
                        loops=loops("dst") if in_place else loops("dst", "src"),
                        imm=imm,
                    )
                )
            elif call == "vta.fill":
                points = tuple(Point(w[0][1]) for w in group)
                for alu, imm in _fill(int(op.attr("value"))):
                    self.ops.append(
                        Alu(op=alu, dst=dst, points=points, loops=loops("dst"), imm=imm)
                    )
            else:
                raise ScheduleError(f"{op.intrin.name}: the machine has no operation {call}")


def _fill(value: int) -> list[tuple[AluOp, int]]:
    """ALU operations that leave `value`, whatever was there."""
    if -(1 << 15) <= value < 1 << 15:
        return [(AluOp.MIN, value), (AluOp.MAX, value)]
    ops = [(AluOp.MIN, 1), (AluOp.MAX, 1), (AluOp.SHR, -31)]  # -2**31
    if value == -(1 << 31):
        return ops
    require(value == (1 << 31) - 1, f"the ALU cannot be filled with {value}")
    return [*ops, (AluOp.ADD, -1)]


def _blocks(
    sizes: Sequence[int],
    strides: Sequence[int],
    first: Sequence[int],
    pads: Sequence[tuple[int, int]],
    shape_of: tuple[int, ...] | None,
) -> Iterator[tuple[int, int, tuple[int, int, int], tuple[int, int, int], int]]:
    """Cut a box into 2-D transfers.

    Yields where each begins in the scratchpad (dense) and in DRAM, then ``(pad, size, pad)`` of
    rows and columns, and the stride from row to row.
    """
    dims = [(n, s, p) for n, s, p in zip(sizes, strides, pads, strict=True) if n > 1 or p != (0, 0)]
    base = sum(f * s for f, s in zip(first, strides, strict=True))
    if shape_of is not None:  # strides include the step; positions do not
        plain = [1] * len(shape_of)
        for d in range(len(plain) - 2, -1, -1):
            plain[d] = plain[d + 1] * shape_of[d + 1]
        base = sum(f * s for f, s in zip(first, plain, strict=True))
    merged: list[tuple[int, int, tuple[int, int]]] = []
    for n, s, p in dims:  # rows that follow each other are one row
        if merged and p == (0, 0) and merged[-1][2] == (0, 0) and merged[-1][1] == n * s:
            n, _ = merged.pop()[0] * n, None
        merged.append((n, s, p))
    if not merged or merged[-1][1] != 1:
        merged.append((1, 1, (0, 0)))
    x = merged.pop()
    y = merged.pop() if merged else (1, x[0], (0, 0))
    width = x[0] + sum(x[2])
    plane = width * (y[0] + sum(y[2]))
    require(
        all(p == (0, 0) for _, _, p in merged) and max(*x[2], *y[2]) <= MAX_PAD,
        f"a transfer pads its last two dimensions, by at most {MAX_PAD}; got {list(pads)}",
    )
    at = 0
    for index in product(*(range(n) for n, _, _ in merged)):
        far = base + sum(k * s for k, (_, s, _) in zip(index, merged, strict=True))
        yield at, far, (y[2][0], y[0], y[2][1]), (x[2][0], x[0], x[2][1]), y[1]
        at += plane


class _Emitter:
    """Source of the program that runs the outer loops."""

    def __init__(self, tracer: _Tracer) -> None:
        self.tracer = tracer
        self.names: dict[Var, str] = {}
        self.buffers: dict[Buffer, str] = {}
        self._ids = count()

    def _statement(self, value: object) -> int:
        self.tracer.statements.append(value)
        return len(self.tracer.statements) - 1

    def tuple(self, exprs: Sequence[Expr]) -> str:
        return "(" + "".join(f"{python_source(e, self.names)}, " for e in exprs) + ")"

    def name(self, var: Var) -> str:
        self.names[var] = f"v{next(self._ids)}"
        return self.names[var]

    def stmt(self, s: Stmt, indent: str) -> Iterator[str]:
        match s:
            case Seq(body):
                for x in body:
                    yield from self.stmt(x, indent)
                if not body:
                    yield f"{indent}pass"
            case Allocate(buffer, body):
                self.buffers[buffer] = name = f"b{next(self._ids)}"
                shape = self.tuple(buffer.shape)
                yield f"{indent}{name} = T.alloc({self._statement(buffer)}, {shape})"
                yield from self.stmt(body, indent)
            case Copy():
                yield self._copy(s, indent)
            case For() | Call() | If():
                nest = _nest(s)
                if nest is not None:
                    yield from self._nest(*nest, indent)
                elif isinstance(s, If):
                    yield f"{indent}if {python_source(s.condition, self.names)}:"
                    yield from self.stmt(s.body, indent + "    ")
                else:
                    assert isinstance(s, For)
                    yield from self._loop(s.var, s.begin, s.extent, indent)
                    yield from self.stmt(s.body, indent + "    ")
            case _:
                raise ScheduleError(
                    f"the machine cannot do this by itself: {s}; tensorize it, or make it a"
                    " transfer"
                )

    def _loop(self, var: Var, begin: Expr, extent: Expr, indent: str) -> Iterator[str]:
        low, high = (python_source(e, self.names) for e in (begin, begin + extent))
        yield f"{indent}for {self.name(var)} in range({low}, {high}):"

    def _copy(self, s: Copy, indent: str) -> str:
        near, far = (s.src, s.dst) if s.dst.buffer.scope == "global" else (s.dst, s.src)
        bounds = "".join("None, " if b is None else f"{self.tuple(b)}, " for b in s.bounds)
        extents = near.extents if near is s.dst else far.extents
        return (
            f"{indent}T.copy({self._statement(s)}, {self.buffers[near.buffer]},"
            f" {self.tuple(near.begins)}, {self.tuple(extents)}, {self.tuple(far.begins)},"
            f" ({bounds}))"
        )

    def _nest(self, loops: list[tuple[Var, Expr, Expr]], call: Call, indent: str) -> Iterator[str]:
        """Loops around an intrinsic: some are run, some are points, the others stay."""
        regions: list[Region] = [call.output, *call.inputs]
        variables_ = [v for v, _, _ in loops]
        run: set[Var] = set()
        for _, begin, extent in loops:
            run |= (variables(begin) | variables(extent)) & set(variables_)
        points: set[Var] = set()
        for region in regions:
            units = region.buffer.units
            for d, index in enumerate(region.begins[:-2]):
                form = linear(index)
                for term in form.terms:
                    inside = variables(term) & set(variables_)
                    if term not in variables_:
                        run |= inside  # not linear
                    elif d < units:
                        points |= inside
        points -= run
        affine = [(v, b, e) for v, b, e in loops if v not in run and v not in points]
        for var, begin, extent in loops:
            if var in run:
                yield from self._loop(var, begin, extent, indent)
                indent += "    "
        operands = tuple(
            _Operand(
                r.buffer.units,
                tuple(tuple(linear(i).coefficient(v) for i in r.begins[:-2]) for v, _, _ in affine),
            )
            for r in regions
        )
        start: dict[Var, Expr] = {v: b for v, b, _ in affine}
        counts = self.tuple([e for _, _, e in affine])
        head = ""
        for var, begin, extent in loops:
            if var in points:
                low, high = (python_source(x, self.names) for x in (begin, begin + extent))
                head += f" for {self.name(var)} in range({low}, {high})"
        begins = "".join(
            f"{self.tuple([substitute(i, start) for i in r.begins])}, " for r in regions
        )
        inside = f"[({begins}){head}]" if head else f"[({begins})]"
        buffers = "".join(f"{self.buffers[r.buffer]}, " for r in regions)
        index = self._statement((call, operands))
        yield f"{indent}T.call({index}, ({buffers}), {counts}, {inside})"


def _nest(s: Stmt) -> tuple[list[tuple[Var, Expr, Expr]], Call] | None:
    """The loops around a single intrinsic, or None if that is not what `s` is."""
    loops: list[tuple[Var, Expr, Expr]] = []
    while isinstance(s, For):
        loops.append((s.var, s.begin, s.extent))
        s = s.body
    return (loops, s) if isinstance(s, Call) else None


def _pairs(operands: int) -> Iterator[tuple[int, int]]:
    """Positions of inputs and weights among the operands of a GEMM, the output being first."""
    return ((k, k + 1) for k in range(1, operands, 2))
