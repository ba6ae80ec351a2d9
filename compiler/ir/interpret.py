"""Run a function of the loop IR on NumPy arrays: slow, plain, and independent of every back end.

The function is turned into Python source, a line a statement, and executed. `Copy` and `Call` mean
what their definitions say: a padded, strided copy, and the behaviour an intrinsic declares.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count

import numpy as np

from covta.compiler.ir.affine import PYTHON_OPERATORS
from covta.compiler.ir.fold import is_index
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
    Store,
)
from covta.compiler.te.expr import Binary, Cast, Const, Expr, Lookup, Read, Select, Var, const

__all__ = ["interpret"]


def interpret(function: Function, *arrays: np.ndarray | float) -> None:
    """Execute `function`; results are left in the arrays of its output parameters.

    Parameters
    ----------
    function : Function
    *arrays : np.ndarray or number
        One per parameter, of its shape and dtype.

    Raises
    ------
    ExprError
        For a number that a scalar parameter cannot hold.
    """
    assert len(arrays) == len(function.params), "one array per parameter"
    given: list[object] = []
    for p, a in zip(function.params, arrays, strict=True):
        if isinstance(p, Var):
            given.append(const(a, p.dtype).value)  # type: ignore[arg-type]
            continue
        given.append(a)
        assert isinstance(a, np.ndarray)
        shape = tuple(int(s.value) for s in p.shape)  # type: ignore[attr-defined]
        assert (a.shape, str(a.dtype)) == (shape, p.dtype), f"{p} got {a.dtype}{a.shape}"
    emitter = _Emitter(function.scalars)
    names = [emitter.names[p] if isinstance(p, Var) else emitter.buffer(p) for p in function.params]
    lines = [f"def run({', '.join(names)}):", *emitter.stmt(function.body, "    "), "    return"]
    scope = {"np": np, "objects": emitter.objects, "copy": _copy, "call": _call, "_shr": _shift}
    scope |= {"floordiv": _floordiv, "floormod": _floormod}
    scope |= {"int8": np.int8, "int32": np.int32, "float32": np.float32}
    exec("\n".join(lines), scope)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        scope["run"](*given)


def _shift(a: int, b: int) -> int:
    return a >> min(b, 31) if b >= 0 else (a << -b if b > -32 else a * 0)


def _floordiv(a: int, b: int) -> int:
    return a // b if b else 0


def _floormod(a: int, b: int) -> int:
    return a % b if b else 0


def _copy(
    dst: np.ndarray, dst_at: tuple, src: np.ndarray, src_at: tuple, op: Copy, bounds: tuple
) -> None:
    begins, extents = dst_at
    if min(extents) <= 0:
        return
    rank = len(src_at[0])
    lead = len(begins) - rank
    window = dst[tuple(slice(b, b + e) for b, e in zip(begins, extents, strict=True))]
    shape = tuple(e for e in extents[lead:]) if lead >= 0 else extents
    own = src_at[0] if lead >= 0 else src_at[0][-lead:]
    fixed = () if lead >= 0 else tuple(src_at[0][: rank - len(extents)])
    valid = np.ones(shape, bool)
    at: list[np.ndarray] = []
    offset = len(fixed)
    for d, (n, b) in enumerate(zip(shape, own, strict=True)):
        index = (b + op.strides[offset + d] * np.arange(n)).reshape(
            [-1 if k == d else 1 for k in range(len(shape))]
        )
        limits = bounds[offset + d]
        if limits is not None:
            valid = valid & (index >= limits[0]) & (index < limits[1])
            index = np.clip(index, 0, src.shape[offset + d] - 1)
        at.append(index)
    window[...] = np.where(valid, src[(*fixed, *at)], op.fill).astype(dst.dtype)


def _call(op: Call, arrays: list[np.ndarray], regions: list[tuple]) -> None:
    views = [
        a[tuple(slice(b, b + e) for b, e in zip(*r, strict=True))]
        for a, r in zip(arrays, regions, strict=True)
    ]
    op.intrin.apply(op.phase, views[0], views[1:], dict(op.attrs))


class _Emitter:
    def __init__(self, scalars: Sequence[Var]) -> None:
        self.objects: list[object] = []
        self.scalars = scalars
        self.names: dict[Var, str] = {v: f"s{k}" for k, v in enumerate(scalars)}
        self._buffers: dict[Buffer, str] = {}
        self._ids = count()

    def buffer(self, b: Buffer) -> str:
        return self._buffers.setdefault(b, f"b{next(self._ids)}")

    def object(self, value: object) -> str:
        self.objects.append(value)
        return f"objects[{len(self.objects) - 1}]"

    def indices(self, exprs: tuple[Expr, ...]) -> str:
        return "(" + "".join(f"{self.index(e)}, " for e in exprs) + ")"

    def region(self, r: Region) -> str:
        return f"({self.indices(r.begins)}, {self.indices(r.extents)})"

    def stmt(self, s: Stmt, indent: str) -> Iterator[str]:
        match s:
            case Seq(body):
                for x in body:
                    yield from self.stmt(x, indent)
                if not body:
                    yield f"{indent}pass"
            case For(var, begin, extent, body):
                self.names[var] = name = f"v{next(self._ids)}"
                low, turns = (self.index(e) for e in (begin, extent))
                yield f"{indent}for {name} in range({low}, {low} + {turns}):"
                yield from self.stmt(body, indent + "    ")
            case If(condition, body):
                yield f"{indent}if {self.condition(condition)}:"
                yield from self.stmt(body, indent + "    ")
            case Allocate(buffer, body):
                fill = "np.nan" if buffer.dtype == "float32" else "77"
                # Of a part that is empty an extent may be negative.
                shape = f"({''.join(f'max({self.index(n)}, 0), ' for n in buffer.shape)})"
                yield f"{indent}{self.buffer(buffer)} = np.full({shape}, {fill}, {buffer.dtype})"
                yield from self.stmt(body, indent)
            case Store(buffer, indices, value):
                where = f"{self.buffer(buffer)}[{self.indices(indices)}]"
                yield f"{indent}{where} = {self.value(value)}"
            case Copy(dst, src, _, bounds):
                limits = "".join("None, " if b is None else f"{self.indices(b)}, " for b in bounds)
                yield (
                    f"{indent}copy({self.buffer(dst.buffer)}, {self.region(dst)},"
                    f" {self.buffer(src.buffer)}, {self.region(src)}, {self.object(s)}, ({limits}))"
                )
            case Call(_, _, output, inputs):
                regions = [output, *inputs]
                buffers = ", ".join(self.buffer(r.buffer) for r in regions)
                boxes = ", ".join(self.region(r) for r in regions)
                yield f"{indent}call({self.object(s)}, [{buffers}], [{boxes}])"
            case _:
                raise AssertionError(type(s))

    def index(self, e: Expr) -> str:
        """Source of an index or of a condition on indices, in Python's integers."""
        match e:
            case Const(value, _):
                return repr(value)
            case Var():
                return self.names[e]
            case Select(c, a, b):
                return f"({self.index(a)} if {self.condition(c)} else {self.index(b)})"
            case Lookup(table, at):
                return f"{table!r}[{self.index(at)}]"
            case Binary(("floordiv" | "floormod") as op, a, b):
                return f"{op}({self.index(a)}, {self.index(b)})"
            case Binary(op, a, b) if a.dtype in ("int32", "bool"):
                return PYTHON_OPERATORS[op].format(self.index(a), self.index(b))
        return f"int({self.value(e)})"

    def condition(self, e: Expr) -> str:
        """Source of a condition; values of tensors wrap in it, indices do not."""
        return self.index(e) if is_index(e, self.scalars) else self.value(e)

    def value(self, e: Expr) -> str:
        """Source of a value, with NumPy scalars so that types and wrapping are right."""
        match e:
            case Const(value, dtype):
                if dtype == "float32" and not np.isfinite(value):
                    return f"float32('{value}')"
                return f"{dtype}({value!r})" if dtype != "bool" else repr(value)
            case Var(_, dtype):
                return f"{dtype}({self.names[e]})"
            case Read(buffer, indices):
                return f"{self.buffer(buffer)}[{self.indices(indices)}]"  # type: ignore[arg-type]
            case Cast(a, dtype):
                return f"np.asarray({self.value(a)}).astype({dtype})[()]"
            case Select(c, a, b):
                return f"({self.value(a)} if {self.value(c)} else {self.value(b)})"
            case Lookup():
                return f"int32({self.index(e)})"
            case Binary("shr", a, b):
                return f"{a.dtype}(_shr({self.value(a)}, int({self.value(b)})))"
            case Binary("div", a, b):
                return f"({self.value(a)} / {self.value(b)})"
            case Binary(("min" | "max") as op, a, b) if a.dtype == "float32":
                # Python's would lose what is not a number.
                return f"np.{op}imum({self.value(a)}, {self.value(b)})"
            case Binary(op, a, b):
                return PYTHON_OPERATORS[op].format(self.value(a), self.value(b))
        raise AssertionError(type(e))
