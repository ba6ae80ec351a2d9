"""The innermost loop of GEMM as LLVM vector code, for any target that LLVM knows.

Sixteen output lanes accumulate sixteen products each. Inputs and weights lie as int16 pairs along
the reduction, so that x86 selects its multiply-add of pairs and other targets their widening
multiplies.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

__all__ = ["LANES", "PAIRS", "gemm_rows"]

LANES = 16
"""Output lanes of one call."""

PAIRS = 8
"""Pairs along the reduction of one call."""

I16, I32, I64 = ir.IntType(16), ir.IntType(32), ir.IntType(64)
ACCS = ir.VectorType(I32, LANES)
WEIGHTS = ir.VectorType(I16, 2 * LANES)
PRODUCTS = ir.VectorType(I32, 2 * LANES)
EVEN = ir.Constant(ACCS, list(range(0, 2 * LANES, 2)))
ODD = ir.Constant(ACCS, list(range(1, 2 * LANES, 2)))
SPLAT = ir.Constant(ACCS, [0] * LANES)


def _load(builder: ir.IRBuilder, address: Any, offset: int, type_: ir.Type, align: int) -> Any:
    pointer = builder.inttoptr(
        builder.add(address, ir.Constant(address.type, offset)), type_.as_pointer()
    )
    return builder.load(pointer, align=align)


def _pair_products(builder: ir.IRBuilder, pair: Any, weights: Any) -> Any:
    """``pair[0] * weights[o][0] + pair[1] * weights[o][1]`` for every lane o, int32 wrapping."""
    undefined = ir.Constant(ACCS, ir.Undefined)
    splat = builder.insert_element(undefined, pair, ir.Constant(I32, 0))
    splat = builder.shuffle_vector(splat, undefined, SPLAT)
    inputs = builder.bitcast(splat, WEIGHTS)
    products = builder.mul(builder.sext(inputs, PRODUCTS), builder.sext(weights, PRODUCTS))
    return builder.add(
        builder.shuffle_vector(products, products, EVEN),
        builder.shuffle_vector(products, products, ODD),
    )


@intrinsic
def gemm_rows(typingctx, acc, acc_step, inp, inp_step, wgt, count):
    """``acc[k] += inp[k] . wgt`` for `count` rows with one block of weights, held in registers.

    Arguments are integers. `acc`, `inp`, `wgt` are addresses of int32 (16,), int16 (16,) and int16
    (8 pairs, 16 lanes, 2); `acc_step` and `inp_step` are bytes from one row to the next.
    """
    signature = types.void(types.intp, types.intp, types.intp, types.intp, types.intp, types.intp)

    def codegen(context, builder, sig, args):
        acc, acc_step, inp, inp_step, wgt, count = args
        weights = [_load(builder, wgt, p * 4 * LANES, WEIGHTS, 2) for p in range(PAIRS)]
        with cgutils.for_range(builder, count) as loop:
            row = builder.add(inp, builder.mul(loop.index, inp_step))
            address = builder.add(acc, builder.mul(loop.index, acc_step))
            # Two chains of additions: rows that hit one accumulator wait for half as long.
            sums = [_load(builder, address, 0, ACCS, 4), None]
            for p in range(PAIRS):
                pair = _load(builder, row, 4 * p, I32, 2)
                term = _pair_products(builder, pair, weights[p])
                chain = sums[p % 2]
                sums[p % 2] = term if chain is None else builder.add(chain, term)
            pointer = builder.inttoptr(address, ACCS.as_pointer())
            builder.store(builder.add(sums[0], sums[1]), pointer, align=4)
        return context.get_dummy_value()

    return signature, codegen
