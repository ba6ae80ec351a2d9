"""Functions of the loop IR as code in this process, called with NumPy arrays."""

from __future__ import annotations

import ctypes
from collections import OrderedDict
from contextlib import nullcontext

import numpy as np
from llvmlite import binding

from covta.compiler.ir.stmt import Function
from covta.compiler.llvm.codegen import generate, takes_pool
from covta.compiler.llvm.emitter import CodegenError, Options
from covta.compiler.llvm.engine import Engine
from covta.compiler.llvm.pool import MAX_THREADS, thread_pool
from covta.compiler.llvm.target import Target, TargetError, native, resolve
from covta.compiler.te.expr import Const, ExprError, Var, const

__all__ = ["CompiledFunction", "build"]

CACHED = 256
"""Compiled functions that are kept."""

C_TYPES = {
    "int8": ctypes.c_int8,
    "int32": ctypes.c_int32,
    "float32": ctypes.c_float,
    "bool": ctypes.c_int8,
}

_CACHE: OrderedDict[tuple, CompiledFunction] = OrderedDict()


class CompiledFunction:
    """Machine code of a `Function`.

    Called with one C-contiguous array per parameter, of its shape and dtype, or a number where the
    parameter is a variable; results are left in the arrays of the output parameters, which must not
    overlap any other.

    Attributes
    ----------
    function : Function
    threads : int
        Among which ``parallel`` loops are shared; may be set at any time.
    """

    def __init__(
        self, function: Function, target: Target, opt: int, options: Options, threads: int
    ) -> None:
        self.function = function
        self.params: list[tuple[str, tuple[int, ...] | None, np.dtype]] = []
        for p in function.params:
            if isinstance(p, Var):
                self.params.append((p.name, None, np.dtype(p.dtype)))
                continue
            shape = tuple(int(n.value) for n in p.shape if isinstance(n, Const))
            if len(shape) != len(p.shape):
                raise CodegenError(f"a parameter's shape must be constant, got {p}")
            self.params.append((p.name, shape, np.dtype(p.dtype)))
        module = generate(function, target, options)
        self._engine = Engine(binding.parse_assembly(str(module)), target, opt)
        self.takes_pool = takes_pool(function, options)
        kinds = [ctypes.c_void_p] * self.takes_pool
        kinds += [
            C_TYPES[p.dtype] if isinstance(p, Var) else ctypes.c_void_p for p in function.params
        ]
        kind = ctypes.CFUNCTYPE(ctypes.c_int32, *kinds)
        self._call = kind(self._engine.address(function.name))
        self.threads = threads

    @property
    def threads(self) -> int:
        """Among which ``parallel`` loops are shared."""
        return self._threads

    @threads.setter
    def threads(self, number: int) -> None:
        if not (isinstance(number, int) and 1 <= number <= MAX_THREADS):
            raise ValueError(f"threads must lie in 1 ... {MAX_THREADS}, got {number!r}")
        self._threads = number

    def __call__(self, *arrays: np.ndarray | float) -> None:
        name = self.function.name
        if len(arrays) != len(self.params):
            names = ", ".join(p for p, _, _ in self.params)
            what = "arguments" if self.function.scalars else "arrays"
            raise TypeError(f"{name} takes {len(self.params)} {what} ({names}), got {len(arrays)}")
        pointers: list[int | float | None] = []
        results = len(arrays) - self.function.outputs
        for k, ((p, shape, dtype), a) in enumerate(zip(self.params, arrays, strict=True)):
            if shape is None:
                pointers.append(_number(f"{name}: {p}", a, str(dtype)))
                continue
            if not isinstance(a, np.ndarray):
                raise TypeError(f"{name}: {p} must be a NumPy array, got {type(a).__name__}")
            if a.shape != shape or a.dtype != dtype:
                raise ValueError(
                    f"{name}: {p} must be {dtype}{list(shape)}, got {a.dtype}{list(a.shape)}"
                )
            if not a.flags.c_contiguous:
                raise ValueError(f"{name}: {p} must be C-contiguous, got strides {a.strides}")
            if not a.flags.aligned:
                raise ValueError(f"{name}: {p} must be aligned to its elements")
            if k >= results:
                if not a.flags.writeable:
                    raise ValueError(f"{name}: {p} is written, but the array is read-only")
                for other in (*arrays[:k], *arrays[k + 1 :]):
                    if isinstance(other, np.ndarray) and np.may_share_memory(a, other):
                        raise ValueError(f"{name}: {p} is written and must not overlap another")
            pointers.append(a.ctypes.data)
        held = nullcontext()
        if self.takes_pool:
            pool = thread_pool(self._threads) if self._threads > 1 else None
            pointers.insert(0, pool.address if pool else None)
            held = pool.lock if pool else held
        with held:
            state = self._call(*pointers)
        if state:
            raise MemoryError(f"{name}: no memory for its buffers")

    @property
    def llvm(self) -> str:
        """LLVM code after optimisation."""
        return str(self._engine.module)

    @property
    def assembly(self) -> str:
        """Machine code as text."""
        return self._engine.assembly


def _number(what: str, value: object, dtype: str) -> float:
    """A scalar argument, refused where the parameter cannot hold it."""
    try:
        return const(value, dtype).value  # type: ignore[arg-type]
    except ExprError as error:
        raise ValueError(f"{what}: {error}") from None


def build(
    function: Function,
    target: str | Target = "native",
    opt: int = 3,
    *,
    options: Options | None = None,
    threads: int = 1,
) -> CompiledFunction:
    """Compile a function to be called here.

    Parameters
    ----------
    function : Function
        Loops over buffers, as `lower` makes them for the host.
    target : str or Target
        Of this processor's family; ``native`` uses all it can do.
    opt : int
        Effort of LLVM's optimiser, 0 to 3.
    options : Options, optional
    threads : int
        For ``parallel`` loops.

    Returns
    -------
    CompiledFunction
        The same one for the same `function` object and choices.

    Raises
    ------
    CodegenError
        For what host code cannot contain.
    TargetError
        For a target whose code cannot run here.
    """
    if opt not in (0, 1, 2, 3):
        raise ValueError(f"opt must be 0, 1, 2 or 3, got {opt!r}")
    machine, options = resolve(target), options or Options()
    here = native().triple.split("-", 1)[0]
    if machine.triple.split("-", 1)[0] != here:
        raise TargetError(f"code for {machine.triple} does not run on {here}; see build_object")
    key = (id(function), machine, opt, options, threads)
    found = _CACHE.get(key)
    # The cached object holds the function, so its id is not given to another.
    if found is None:
        found = _CACHE[key] = CompiledFunction(function, machine, opt, options, threads)
        if len(_CACHE) > CACHED:
            _CACHE.popitem(last=False)
    return found
