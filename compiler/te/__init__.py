"""Tensor expressions: what is computed, not how.

A computation is written once, index by index::

    from covta.compiler import te

    m, n, l = 64, 32, 16
    A, B = te.placeholder((l, m), name="A"), te.placeholder((l, n), name="B")
    k = te.reduce_axis((0, l), name="k")
    C = te.compute((m, n), lambda y, x: te.sum(A[k, y] * B[k, x], axis=k), name="C")

`covta.compiler.schedule` says how, and `evaluate` computes it with NumPy, the reference that
everything else is compared with.
"""

from covta.compiler.te.evaluate import evaluate
from covta.compiler.te.expr import (
    DTYPES,
    Binary,
    Cast,
    Const,
    Expr,
    ExprError,
    Lookup,
    Read,
    Reduce,
    Select,
    Var,
    all_of,
    cast,
    const,
    equal,
    maximum,
    minimum,
    select,
    var,
)
from covta.compiler.te.tensor import (
    IterVar,
    Tensor,
    clip,
    compute,
    describe,
    max,
    min,
    pad,
    placeholder,
    reduce_axis,
    shift,
    sum,
)

__all__ = [
    "DTYPES",
    "Binary",
    "Cast",
    "Const",
    "Expr",
    "ExprError",
    "IterVar",
    "Lookup",
    "Read",
    "Reduce",
    "Select",
    "Tensor",
    "Var",
    "all_of",
    "cast",
    "clip",
    "compute",
    "const",
    "describe",
    "equal",
    "evaluate",
    "max",
    "maximum",
    "min",
    "minimum",
    "pad",
    "placeholder",
    "reduce_axis",
    "select",
    "shift",
    "sum",
    "var",
]
