"""Host code: functions of the loop IR through LLVM, for this processor and for boards' ones.

`build` gives a function to call with NumPy arrays, `build_object` an object file and a C header.
Read `codegen` first, then `stmt`, `vectorize` and `expr`.
"""

from covta.compiler.llvm.codegen import generate
from covta.compiler.llvm.emitter import CodegenError, Options
from covta.compiler.llvm.jit import CompiledFunction, build
from covta.compiler.llvm.objects import ObjectFile, build_object
from covta.compiler.llvm.target import TARGETS, Target, TargetError

__all__ = [
    "TARGETS",
    "CodegenError",
    "CompiledFunction",
    "ObjectFile",
    "Options",
    "Target",
    "TargetError",
    "build",
    "build_object",
    "generate",
]
