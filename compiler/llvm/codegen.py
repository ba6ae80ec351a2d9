"""A function of the loop IR as an LLVM module.

The LLVM function has the loop IR function's name, takes a pointer or a number per parameter
(behind the thread pool's, where a loop is ``parallel``), and gives an int32: 0, or 1 where memory
ran out.
"""

from __future__ import annotations

from llvmlite import ir

from covta.compiler.ir.stmt import For, Function, walk_stmts
from covta.compiler.ir.verify import verify
from covta.compiler.llvm import stmt
from covta.compiler.llvm.emitter import Emitter, Options
from covta.compiler.llvm.peel import peel
from covta.compiler.llvm.target import Target, resolve
from covta.compiler.llvm.types import BYTE, I32, I64, POINTER, SCALAR
from covta.compiler.te.expr import Var

__all__ = ["generate", "takes_pool"]


def takes_pool(function: Function, options: Options) -> bool:
    """True if the first parameter of the code is a thread pool."""
    loops = (s for s in walk_stmts(function.body) if isinstance(s, For))
    return options.parallel and any(s.kind == "parallel" for s in loops)


def generate(
    function: Function, target: str | Target = "native", options: Options | None = None
) -> ir.Module:
    """LLVM code of a function.

    Parameters
    ----------
    function : Function
        Loops over buffers in ``global`` and ``local``.
    target : str or Target
    options : Options, optional

    Returns
    -------
    llvmlite.ir.Module

    Raises
    ------
    CodegenError
        For what host code cannot contain: scratchpads, DMA, intrinsics, virtual threads.
    """
    options, machine = options or Options(), resolve(target)
    function = verify(peel(function))
    module = ir.Module(function.name)
    module.triple = machine.triple
    pool = takes_pool(function, options)
    kinds = [POINTER] * pool
    kinds += [SCALAR[p.dtype] if isinstance(p, Var) else POINTER for p in function.params]
    entry = ir.Function(module, ir.FunctionType(I32, kinds), function.name)
    e = Emitter.begin(module, entry, machine, options)
    arguments = list(entry.args)
    if pool:
        arguments[0].name = "pool"
        e.pool = arguments.pop(0)
    e.scalars = frozenset(function.scalars)
    for p, argument in zip(function.params, arguments, strict=True):
        if isinstance(p, Var):
            e.variables[p] = _scalar(e, p.dtype, argument)
            continue
        argument.add_attribute("noalias")
        argument.add_attribute("nonnull")
        e.buffers[p] = argument
    stmt.emit(e, function.body)
    e.builder.ret(I32(0))
    return module


def _scalar(e: Emitter, dtype: str, argument: ir.Value) -> ir.Value:
    """A number as expressions want it: an index in int64, a condition as one bit."""
    if dtype == "int32":
        return e.builder.sext(argument, I64)
    if dtype == "bool":
        return e.builder.icmp_unsigned("!=", argument, ir.Constant(BYTE, 0))
    return argument
