"""The state of one LLVM function under construction, and helpers that do not depend on the IR."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from llvmlite import ir

from covta.compiler.ir.stmt import Buffer
from covta.compiler.llvm.target import Target
from covta.compiler.llvm.types import BOOL, I32, I64, POINTER, int64
from covta.compiler.te.expr import Expr, Var

__all__ = ["CodegenError", "Emitter", "Lanes", "Options"]


class CodegenError(ValueError):
    """A function that host code cannot be made of, with the reason."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What code generation may choose.

    Parameters
    ----------
    contract : bool
        Let ``a * b + c`` over floats be one operation, rounded once. Off, results equal NumPy's
        to the bit.
    parallel : bool
        Give loops marked ``parallel`` to a thread pool, which becomes the first parameter of the
        function; off, they are done in order.
    """

    contract: bool = False
    parallel: bool = True


@dataclass(frozen=True)
class Lanes:
    """A loop whose turns are lanes of vectors: lane ``k`` is the turn ``base + k``.

    Parameters
    ----------
    var : Var
    base : ir.Value
        int64, the first lane's turn.
    count : int
    mask : ir.Value or None
        Lanes that are alive; None for all of them.
    """

    var: Var
    base: ir.Value
    count: int
    mask: ir.Value | None = None


@dataclass
class Emitter:
    """One LLVM function under construction.

    Attributes
    ----------
    module, builder : llvmlite objects
    variables : dict of Var to ir.Value
        Those of loops and parameters: int32 as int64, others in their types.
    scalars : frozenset of Var
        The parameters among them.
    buffers : dict of Buffer to ir.Value
        Where each buffer begins.
    lanes : Lanes or None
        The vectorised loop that is being written.
    pool : ir.Value or None
        The thread pool; None where everything is done in order.
    failed : ir.Block
        Where to go if there is no memory.
    domain : dict of Var to (Expr, Expr)
        First and last value of each variable.
    """

    module: ir.Module
    function: ir.Function
    builder: ir.IRBuilder
    target: Target
    options: Options
    pool: ir.Value | None = None
    failed: ir.Block | None = None
    variables: dict[Var, ir.Value] = field(default_factory=dict)
    scalars: frozenset[Var] = frozenset()
    domain: dict[Var, tuple[Expr, Expr]] = field(default_factory=dict)
    buffers: dict[Buffer, ir.Value] = field(default_factory=dict)
    lanes: Lanes | None = None

    @classmethod
    def begin(
        cls, module: ir.Module, function: ir.Function, target: Target, options: Options
    ) -> Emitter:
        """An empty function, and the block that gives up."""
        builder = ir.IRBuilder(function.append_basic_block("entry"))
        # Stack slots go into the entry block, code goes into the next.
        start = function.append_basic_block("start")
        builder.branch(start)
        builder.position_at_end(start)
        failed = function.append_basic_block("failed")
        ir.IRBuilder(failed).ret(I32(1))
        return cls(module, function, builder, target, options, failed=failed)

    def nested(self, function: ir.Function) -> Emitter:
        """Another function of the same module, which runs within this one's loops."""
        inner = Emitter.begin(self.module, function, self.target, self.options)
        inner.domain, inner.scalars = dict(self.domain), self.scalars
        return inner

    @property
    def word_bits(self) -> int:
        """Of an address."""
        return 32 if self.target.triple.startswith(("arm", "i386", "i686")) else 64

    # ---- scopes -----------------------------------------------------------------------------
    @contextmanager
    def in_lanes(self, lanes: Lanes | None) -> Iterator[None]:
        """Write vector code for the turns of a loop."""
        before = self.lanes
        self.lanes = lanes
        yield
        self.lanes = before

    @contextmanager
    def branch(self, condition: ir.Value) -> Iterator[None]:
        """Code that runs only where `condition`."""
        inside = self.function.append_basic_block("then")
        after = self.function.append_basic_block("after")
        self.builder.cbranch(condition, inside, after)
        self.builder.position_at_end(inside)
        yield
        self.builder.branch(after)
        self.builder.position_at_end(after)

    def choose(
        self, condition: ir.Value, yes: Callable[[], ir.Value], no: Callable[[], ir.Value]
    ) -> ir.Value:
        """The value of one of two pieces of code, of which only that one runs."""
        blocks = [self.function.append_basic_block(n) for n in ("yes", "no", "chosen")]
        self.builder.cbranch(condition, blocks[0], blocks[1])
        ends = []
        for block, make in zip(blocks, (yes, no), strict=False):
            self.builder.position_at_end(block)
            value = make()
            ends.append((value, self.builder.block))
            self.builder.branch(blocks[2])
        self.builder.position_at_end(blocks[2])
        phi = self.builder.phi(ends[0][0].type)
        for value, block in ends:
            phi.add_incoming(value, block)
        return phi

    @contextmanager
    def loop(self, begin: ir.Value, end: ir.Value, step: int = 1) -> Iterator[ir.Value]:
        """``for i in range(begin, end, step)``; no turn where `end` does not exceed `begin`.

        Where a step is given, `end - begin` is a multiple of it.
        """
        b = self.builder
        before = b.block
        body = self.function.append_basic_block("body")
        after = self.function.append_basic_block("done")
        b.cbranch(b.icmp_signed("<", begin, end), body, after)
        b.position_at_end(body)
        i = b.phi(I64)
        i.add_incoming(begin, before)
        yield i
        following = b.add(i, int64(step), flags=("nsw",))
        i.add_incoming(following, b.block)
        b.cbranch(b.icmp_signed("<", following, end), body, after)
        b.position_at_end(after)

    def slot(self, kind: ir.Type, align: int | None = None) -> ir.Value:
        """Room on the stack, made once however often this runs."""
        with self.builder.goto_entry_block():
            room = self.builder.alloca(kind)
        room.align = align
        room.type = POINTER  # pointers have no type of what they point to
        return room

    # ---- vectors ----------------------------------------------------------------------------
    def splat(self, value: ir.Value, count: int) -> ir.Value:
        """The same scalar in every lane."""
        kind = ir.VectorType(value.type, count)
        if isinstance(value, ir.Constant) and value.constant is not ir.Undefined:
            return ir.Constant(kind, [value.constant] * count)
        one = self.builder.insert_element(ir.Constant(kind, ir.Undefined), value, I32(0))
        order = ir.Constant(ir.VectorType(I32, count), [0] * count)
        return self.builder.shuffle_vector(one, ir.Constant(kind, ir.Undefined), order)

    def widen(self, value: ir.Value, count: int) -> ir.Value:
        """A vector of `count` lanes, of a scalar or of such a vector."""
        return value if isinstance(value.type, ir.VectorType) else self.splat(value, count)

    def together(self, *values: ir.Value) -> list[ir.Value]:
        """All as vectors if one is."""
        counts = {v.type.count for v in values if isinstance(v.type, ir.VectorType)}
        assert len(counts) <= 1
        return [self.widen(v, *counts) for v in values] if counts else list(values)

    def shuffle(self, value: ir.Value, order: list[int]) -> ir.Value:
        """Lanes of one vector, picked."""
        index = ir.Constant(ir.VectorType(I32, len(order)), order)
        return self.builder.shuffle_vector(value, ir.Constant(value.type, ir.Undefined), index)

    def iota(self, count: int, bits: ir.Type = I64) -> ir.Value:
        """0, 1, 2, ..."""
        return ir.Constant(ir.VectorType(bits, count), list(range(count)))

    def constant(self, value: float | int, like: ir.Type) -> ir.Constant:
        """A number in a scalar type, or in every lane of a vector type."""
        if isinstance(like, ir.VectorType):
            return ir.Constant(like, [value] * like.count)
        return ir.Constant(like, value)

    def intrinsic(self, name: str, result: ir.Type, arguments: list[ir.Value]) -> ir.CallInstr:
        """Call an intrinsic or a function of the C library."""
        function = self.module.globals.get(name)
        if function is None:
            kind = ir.FunctionType(result, [a.type for a in arguments])
            function = ir.Function(self.module, kind, name)
        return self.builder.call(function, arguments)

    def true(self, count: int) -> ir.Constant:
        """All lanes alive."""
        return ir.Constant(ir.VectorType(BOOL, count), [1] * count)


def type_name(kind: ir.Type) -> str:
    """As in the names of overloaded intrinsics: ``v16i32``."""
    if isinstance(kind, ir.VectorType):
        return f"v{kind.count}{type_name(kind.element)}"
    if isinstance(kind, ir.PointerType):
        return "p0"
    return "f32" if isinstance(kind, ir.FloatType) else f"i{kind.width}"
