"""A function of the loop IR as an LLVM module.

The LLVM function has the loop IR function's name, takes a pointer per parameter (behind the thread
pool's, where a loop is ``parallel``), and gives an int32: 0, or 1 where memory ran out.
"""

from __future__ import annotations

from llvmlite import ir

from covta.compiler.ir.stmt import For, Function, walk_stmts
from covta.compiler.ir.verify import verify
from covta.compiler.llvm import stmt
from covta.compiler.llvm.emitter import Emitter, Options
from covta.compiler.llvm.peel import peel
from covta.compiler.llvm.target import Target, resolve
from covta.compiler.llvm.types import I32, POINTER

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
    kinds = [POINTER] * (len(function.params) + pool)
    entry = ir.Function(module, ir.FunctionType(I32, kinds), function.name)
    e = Emitter.begin(module, entry, machine, options)
    arguments = list(entry.args)
    if pool:
        arguments[0].name = "pool"
        e.pool = arguments.pop(0)
    for buffer, argument in zip(function.params, arguments, strict=True):
        argument.add_attribute("noalias")
        argument.add_attribute("nonnull")
        e.buffers[buffer] = argument
    stmt.emit(e, function.body)
    e.builder.ret(I32(0))
    return module
