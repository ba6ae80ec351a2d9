"""Object files for boards' processors, and the C header that declares what is in them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from llvmlite import binding

from covta.compiler.ir.stmt import Buffer, Function
from covta.compiler.llvm.codegen import generate, takes_pool
from covta.compiler.llvm.emitter import CodegenError, Options
from covta.compiler.llvm.engine import optimise
from covta.compiler.llvm.target import Target, resolve
from covta.compiler.te.expr import Const, Var

__all__ = ["ObjectFile", "build_object"]

C_TYPES = {"int8": "int8_t", "int32": "int32_t", "float32": "float", "bool": "int8_t"}

C_WORDS = frozenset(
    "auto break case char const continue default do double else enum extern float for goto if"
    " inline int long main register restrict return short signed sizeof static struct switch"
    " typedef union unsigned void volatile while".split()
)

POOL_DECLARATION = """\
/* Who does the turns of parallel loops. `run` has `body(context, begin, end)` called on parts of
 * 0 ... n-1, on any threads, and returns when all are done. A null pool: the caller does them. */
#ifndef COVTA_POOL
#define COVTA_POOL
typedef struct covta_pool covta_pool;
struct covta_pool {
    void (*run)(covta_pool *pool, void (*body)(void *context, int64_t begin, int64_t end),
                void *context, int64_t n);
};
#endif
"""


@dataclass(frozen=True, kw_only=True)
class ObjectFile:
    """Machine code to be linked, and its header.

    Parameters
    ----------
    code : bytes
        An ELF relocatable file. It needs ``malloc`` and ``free`` where functions have large
        buffers of their own, and the C library's mathematics where they divide floats with ``//``.
    header : str
        C declarations.
    target : Target
    """

    code: bytes
    header: str
    target: Target

    def write(self, folder: str | Path, name: str) -> tuple[Path, Path]:
        """Write ``name.o`` and ``name.h``; a folder that is not there is made.

        Returns
        -------
        (Path, Path)
            Object file and header.
        """
        base = Path(folder)
        paths = base / f"{name}.o", base / f"{name}.h"
        base.mkdir(parents=True, exist_ok=True)
        paths[0].write_bytes(self.code)
        paths[1].write_text(self.header, encoding="utf-8")
        return paths


def build_object(
    functions: Function | Sequence[Function],
    target: str | Target,
    opt: int = 3,
    *,
    options: Options | None = None,
) -> ObjectFile:
    """Compile functions for another machine.

    Parameters
    ----------
    functions : Function or sequence of Function
        Named differently, by C identifiers.
    target : str or Target
        E.g. ``aarch64`` or ``armv7`` (hard-float).
    opt : int
        0 to 3.
    options : Options, optional

    Raises
    ------
    CodegenError
        For names that C cannot use, or what host code cannot contain.
    """
    if opt not in (0, 1, 2, 3):
        raise ValueError(f"opt must be 0, 1, 2 or 3, got {opt!r}")
    all_of = [functions] if isinstance(functions, Function) else list(functions)
    machine, options = resolve(target), options or Options()
    seen: set[str] = set()
    whole: binding.ModuleRef | None = None
    tool = machine.machine(opt)
    for f in all_of:
        _check_name(f.name, seen)
        module = binding.parse_assembly(str(generate(f, machine, options)))
        if whole is None:
            whole = module
        else:
            whole.link_in(module)
    if whole is None:
        raise CodegenError("an object file needs at least one function")
    code = tool.emit_object(optimise(whole, tool, opt))
    return ObjectFile(code=code, header=_header(all_of, machine, options), target=machine)


def _check_name(name: str, seen: set[str]) -> None:
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name) or name in C_WORDS:
        raise CodegenError(
            f"a function's name must be a C identifier other than main, got {name!r}"
        )
    if name in seen:
        raise CodegenError(f"functions of one object must differ in name, {name!r} occurs twice")
    seen.add(name)


def _header(functions: Sequence[Function], target: Target, options: Options) -> str:
    lines = [
        f"/* Made by covta for {target.triple}. */",
        "#pragma once",
        "#include <stdint.h>",
        "",
    ]
    if any(takes_pool(f, options) for f in functions):
        lines += [POOL_DECLARATION]
    lines += ["#ifdef __cplusplus", 'extern "C" {', "#endif", ""]
    for f in functions:
        lines += [*_declaration(f, takes_pool(f, options)), ""]
    lines += ["#ifdef __cplusplus", "}", "#endif", ""]
    return "\n".join(lines)


def _declaration(f: Function, pool: bool) -> list[str]:
    results = len(f.params) - f.outputs
    shapes = [
        f" *   {name}: {p.dtype}{_shape(p)}{', result' * (k >= results)}"
        for k, (p, name) in enumerate(zip(f.params, _names(f.params), strict=True))
    ]
    arguments = ["covta_pool *pool"] * pool + [
        f"{C_TYPES[p.dtype]} {name}"
        if isinstance(p, Var)
        else f"{'const ' * (k < results)}{C_TYPES[p.dtype]} *{name}"
        for k, (p, name) in enumerate(zip(f.params, _names(f.params), strict=True))
    ]
    return [
        "/* Arrays are contiguous, the last index runs fastest, and none overlaps a result.",
        *shapes,
        " * Gives 0, or 1 where memory ran out. */",
        f"int32_t {f.name}({', '.join(arguments)});",
    ]


def _shape(p: Buffer | Var) -> str:
    """A parameter's shape, nothing for a number."""
    if isinstance(p, Var):
        return ""
    sizes = [int(n.value) for n in p.shape if isinstance(n, Const)]
    if len(sizes) < len(p.shape):
        raise CodegenError(f"a parameter's shape must be constant, got {p}")
    return str(sizes)


def _names(params: Sequence[Buffer | Var]) -> list[str]:
    """C identifiers of the parameters, all different."""
    names: list[str] = []
    for p in params:
        base = re.sub(r"\W", "_", p.name)
        if not base or not base[0].isalpha() or base in C_WORDS or base == "pool":
            base = f"p_{base}"
        name, k = base, 1
        while name in names:
            name, k = f"{base}_{k}", k + 1
        names.append(name)
    return names
