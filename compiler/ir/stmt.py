"""Statements of the loop IR, and their text.

A `Function` is a tree of loops over buffers. Expressions are those of `covta.compiler.te`, with
`Read` of buffers. Lowering turns the innermost loops of the machine's part into `Copy` (one DMA
transfer) and `Call` (one tensor intrinsic); the host's part stays loops and stores.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from covta.compiler.ir.affine import simplify
from covta.compiler.te.expr import Const, Expr, Read, Var, format_expr, substitute, transform

if TYPE_CHECKING:
    from covta.compiler.intrin.tensor_intrin import TensorIntrin

__all__ = [
    "LOOP_KINDS",
    "SCOPES",
    "Allocate",
    "Buffer",
    "Call",
    "Copy",
    "For",
    "Function",
    "If",
    "Region",
    "Seq",
    "Stmt",
    "Store",
    "map_exprs",
    "map_stmts",
    "seq",
    "walk_stmts",
]

SCOPES = ("global", "local", "inp", "wgt", "acc")
"""Where a buffer lies: DRAM (or the host's heap), the host's stack, or a scratchpad."""

LOOP_KINDS = ("serial", "unroll", "vectorize", "parallel", "vthread")


@dataclass(frozen=True, eq=False, kw_only=True)
class Buffer:
    """An array that statements read and write.

    Parameters
    ----------
    name : str
    shape : tuple of Expr
        May depend on the loops around its `Allocate`.
    dtype : str
    scope : str
        One of `SCOPES`.
    generations : int
        How many instances may be alive at a time, one being filled while others are read; 0: as
        many as there is room for.
    preloaded : bool
        Sums in it begin with what is added to them first, loaded in the place of zeros.
    units : int
        Leading dimensions whose every index is a piece of its own, filled by one transfer and
        placed by itself.
    """

    name: str
    shape: tuple[Expr, ...]
    dtype: str
    scope: str = "global"
    generations: int = 0
    preloaded: bool = False
    units: int = 0

    def __str__(self) -> str:
        return f"{self.name}: {self.dtype}[{', '.join(map(str, self.shape))}] in {self.scope}"


@dataclass(frozen=True, kw_only=True)
class Region:
    """A box of a buffer: where it begins and how far it goes, per dimension."""

    buffer: Buffer
    begins: tuple[Expr, ...]
    extents: tuple[Expr, ...]

    def __str__(self) -> str:
        parts = [
            str(b) if e == Const(1) else f"{b}:+{e}"
            for b, e in zip(self.begins, self.extents, strict=True)
        ]
        return f"{self.buffer.name}[{', '.join(parts)}]"


class Stmt:
    """Base of all statements."""

    __slots__ = ()

    def __str__(self) -> str:
        return "\n".join(_lines(self, ""))


@dataclass(frozen=True, slots=True)
class Seq(Stmt):
    """One after the other."""

    body: tuple[Stmt, ...]

    __str__ = Stmt.__str__


@dataclass(frozen=True, slots=True)
class For(Stmt):
    """``for var in begin ... begin + extent - 1``; no turn if `extent` is not positive."""

    var: Var
    begin: Expr
    extent: Expr
    body: Stmt
    kind: str = "serial"

    __str__ = Stmt.__str__


@dataclass(frozen=True, slots=True)
class If(Stmt):
    """`body` where `condition`."""

    condition: Expr
    body: Stmt

    __str__ = Stmt.__str__


@dataclass(frozen=True, slots=True)
class Store(Stmt):
    """``buffer[indices] = value``."""

    buffer: Buffer
    indices: tuple[Expr, ...]
    value: Expr

    __str__ = Stmt.__str__


@dataclass(frozen=True, slots=True)
class Allocate(Stmt):
    """A fresh instance of `buffer` for `body`."""

    buffer: Buffer
    body: Stmt

    __str__ = Stmt.__str__


@dataclass(frozen=True, slots=True)
class Copy(Stmt):
    """One DMA transfer: ``dst[i] = src[begin + stride * i]``, `fill` where that lies outside.

    Parameters
    ----------
    dst : Region
    src : Region
        Its begins may lie outside the buffer, where `bounds` allow; extents are those of `dst`.
    strides : tuple of int
        Steps in `src` per step in `dst`.
    bounds : tuple of (Expr, Expr) or None
        Per dimension the first valid index of `src` and the one behind the last; None where
        everything is valid.
    fill : int
        What stands where the source is not valid.
    """

    dst: Region
    src: Region
    strides: tuple[int, ...]
    bounds: tuple[tuple[Expr, Expr] | None, ...]
    fill: int = 0

    __str__ = Stmt.__str__


@dataclass(frozen=True, slots=True)
class Call(Stmt):
    """One tensor intrinsic.

    Parameters
    ----------
    intrin : TensorIntrin
        Its behaviour and name.
    phase : str
        ``compute`` (output overwritten), ``reset`` (output set to the identity) or ``update``
        (output combined with what it holds).
    output, inputs : Region
    attrs : tuple of (str, value)
        What the lowering rule adds, e.g. the operation and an immediate.
    """

    intrin: TensorIntrin
    phase: str
    output: Region
    inputs: tuple[Region, ...]
    attrs: tuple[tuple[Any, Any], ...] = ()

    __str__ = Stmt.__str__

    def attr(self, name: str, default: Any = None) -> Any:
        """One of `attrs`."""
        return dict(self.attrs).get(name, default)


@dataclass(frozen=True, kw_only=True)
class Function:
    """A lowered computation.

    Parameters
    ----------
    name : str
    params : tuple of Buffer or Var
        Inputs and outputs, in the order in which a caller passes them; a variable is a number.
    body : Stmt
    outputs : int
        How many of `params`, from the end, are results.
    """

    name: str
    params: tuple[Buffer | Var, ...]
    body: Stmt
    outputs: int = 1
    notes: dict[str, Any] = field(default_factory=dict, compare=False)

    @property
    def buffers(self) -> tuple[Buffer, ...]:
        """The parameters that are arrays."""
        return tuple(p for p in self.params if isinstance(p, Buffer))

    @property
    def scalars(self) -> tuple[Var, ...]:
        """The parameters that are numbers."""
        return tuple(p for p in self.params if isinstance(p, Var))

    def __str__(self) -> str:
        params = ", ".join(
            f"{p.name}: {p.dtype}"
            + (f"[{', '.join(map(str, p.shape))}]" if isinstance(p, Buffer) else "")
            for p in self.params
        )
        return "\n".join([f"def {self.name}({params}):", *_lines(self.body, "    ")])

    def with_body(self, body: Stmt) -> Function:
        """The same function with another body."""
        return replace(self, body=body)


def seq(*stmts: Stmt) -> Stmt:
    """One statement of several, nested sequences flattened."""
    flat: list[Stmt] = []
    for s in stmts:
        flat += s.body if isinstance(s, Seq) else [s]
    return flat[0] if len(flat) == 1 else Seq(tuple(flat))


def _lines(stmt: Stmt, indent: str) -> Iterator[str]:
    match stmt:
        case Seq(body):
            for s in body:
                yield from _lines(s, indent)
            if not body:
                yield f"{indent}pass"
        case For(var, begin, extent, body, kind):
            prefix = "" if kind == "serial" else f"{kind} "
            upto = simplify(begin + extent)
            lower = "" if begin == Const(0) else f"{begin}, "
            yield f"{indent}{prefix}for {var} in range({lower}{upto}):"
            yield from _lines(body, indent + "    ")
        case If(condition, body):
            yield f"{indent}if {condition}:"
            yield from _lines(body, indent + "    ")
        case Store(buffer, indices, value):
            yield f"{indent}{buffer.name}[{', '.join(map(str, indices))}] = {value}"
        case Allocate(buffer, body):
            again = f" x{buffer.generations}" if buffer.generations else ""
            first = " preloaded" if buffer.preloaded else ""
            yield f"{indent}allocate {buffer}{again}{first}"
            yield from _lines(body, indent)
        case Copy(dst, src, strides, bounds, fill):
            text = f"{indent}copy {dst} = {src}"
            if any(s != 1 for s in strides):
                text += f" by {list(strides)}"
            if any(b is not None for b in bounds):
                inside = [
                    "all" if b is None else f"{format_expr(b[0])}..{format_expr(b[1])}"
                    for b in bounds
                ]
                text += f" within [{', '.join(inside)}] else {fill}"
            yield text
        case Call(intrin, phase, output, inputs, attrs):
            shown = [f"{k}={v}" for k, v in attrs if isinstance(k, str) and k not in ("call", "op")]
            args = ", ".join([*map(str, inputs), *shown])
            how = "" if phase == "compute" else f".{phase}"
            yield f"{indent}{output} <- {intrin.name}{how}({args})"
        case _:
            raise AssertionError(type(stmt))


def walk_stmts(stmt: Stmt) -> Iterator[Stmt]:
    """Every statement, parents first."""
    yield stmt
    match stmt:
        case Seq(body):
            for s in body:
                yield from walk_stmts(s)
        case For(body=body) | If(body=body) | Allocate(body=body):
            yield from walk_stmts(body)


def map_stmts(stmt: Stmt, rule: Callable[[Stmt], Stmt | None]) -> Stmt:
    """Rewrite bottom-up; `rule` gives the replacement, or None to keep."""
    match stmt:
        case Seq(body):
            stmt = seq(*(map_stmts(s, rule) for s in body))
        case For(var, begin, extent, body, kind):
            stmt = For(var, begin, extent, map_stmts(body, rule), kind)
        case If(condition, body):
            stmt = If(condition, map_stmts(body, rule))
        case Allocate(buffer, body):
            stmt = Allocate(buffer, map_stmts(body, rule))
    new = rule(stmt)
    return stmt if new is None else new


def map_exprs(
    stmt: Stmt, rule: Callable[[Expr], Expr], moved: dict[Buffer, Buffer] | None = None
) -> Stmt:
    """Apply `rule` to every outermost expression of a statement and those within.

    A buffer whose shape changes by that is another buffer, and so are its uses; `moved` holds those
    replaced further outside.
    """
    moved = moved or {}

    def on(e: Expr) -> Expr:
        e = rule(e)
        if not moved:
            return e
        return transform(
            e,
            lambda x: (
                Read(moved[x.tensor], x.indices)  # type: ignore[arg-type, index]
                if isinstance(x, Read) and x.tensor in moved
                else None
            ),
        )

    def region(r: Region) -> Region:
        return Region(
            buffer=moved.get(r.buffer, r.buffer),
            begins=tuple(map(on, r.begins)),
            extents=tuple(map(on, r.extents)),
        )

    match stmt:
        case Seq(body):
            return Seq(tuple(map_exprs(s, rule, moved) for s in body))
        case For(var, begin, extent, body, kind):
            return For(var, on(begin), on(extent), map_exprs(body, rule, moved), kind)
        case If(condition, body):
            return If(on(condition), map_exprs(body, rule, moved))
        case Store(buffer, indices, value):
            return Store(moved.get(buffer, buffer), tuple(map(on, indices)), on(value))
        case Allocate(buffer, body):
            shape = tuple(map(on, buffer.shape))
            if any(n is not o for n, o in zip(shape, buffer.shape, strict=True)):
                fresh = replace(buffer, shape=shape)
                return Allocate(fresh, map_exprs(body, rule, moved | {buffer: fresh}))
            return Allocate(buffer, map_exprs(body, rule, moved))
        case Copy(dst, src, strides, bounds, fill):
            limits = tuple(None if b is None else (on(b[0]), on(b[1])) for b in bounds)
            return Copy(region(dst), region(src), strides, limits, fill)
        case Call(intrin, phase, output, inputs, attrs):
            return Call(intrin, phase, region(output), tuple(map(region, inputs)), attrs)
    raise AssertionError(type(stmt))


def substitute_stmt(stmt: Stmt, values: dict[Var, Expr]) -> Stmt:
    """Replace variables throughout."""
    return map_exprs(stmt, lambda e: substitute(e, values))
