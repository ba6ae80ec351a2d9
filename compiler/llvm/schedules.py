"""Schedules for processors: convolution, dense layers, elementwise work, pooling.

Each template writes the computation as a tensor expression with its weights in panels, as wide as
a register tile, and schedules it by the rules of `tiles`. Activations are channels-last. Weights
are brought into panels by `Kernel.pack`, once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from covta.compiler import te
from covta.compiler.ir.stmt import Function
from covta.compiler.llvm.target import Target, resolve
from covta.compiler.llvm.tiles import block_rows, host_caches, register_tile
from covta.compiler.lower import lower
from covta.compiler.schedule import create_schedule
from covta.compiler.te.expr import Expr
from covta.compiler.te.tensor import Tensor

__all__ = ["Kernel", "conv2d_int8", "dense_float32", "elementwise", "max_pool2d"]

GROUP = 4
"""Bytes of one channel group, whose products meet in one lane."""

PRODUCT_REGISTERS = 6
"""Where no instruction adds up four products, they need room before they are added."""

Epilogue = Callable[[Expr, Expr], Expr]
"""What becomes of an int32 sum: called with the sum and the output channel."""


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """A scheduled function, and how its constant parameters come about.

    Parameters
    ----------
    function : Function
        Takes activations, the arrays of `pack`, and the result.
    pack : callable
        From weights as networks give them to what `function` takes.
    macs : int
        Multiply-accumulates of a call.
    """

    function: Function
    pack: Callable[[np.ndarray], tuple[np.ndarray, ...]]
    macs: int


def conv2d_int8(
    shape: tuple[int, int, int],
    channels: int,
    kernel: tuple[int, int] = (3, 3),
    *,
    stride: int = 1,
    padding: int = 0,
    epilogue: Epilogue | None = None,
    target: str | Target = "native",
    name: str = "conv2d",
) -> Kernel:
    """Convolution of int8 activations and weights, summed in int32.

    Where the processor multiplies unsigned by signed bytes, 128 is added to activations as they
    are padded, and ``128 * sum(w)`` is taken off each channel's result.

    Parameters
    ----------
    shape : (int, int, int)
        Height, width, channels of the input, int8, row-major in that order.
    channels : int
        Of the output, ``(height, width, channels)``.
    kernel : (int, int)
    stride, padding : int
        In both directions; padded with 0.
    epilogue : callable, optional
        Bias, shift, clip, cast, ...; the plain int32 sum by default.
    target : str or Target
    name : str

    Returns
    -------
    Kernel
        `pack` takes ``(channels, input channels, *kernel)`` int8, and gives the panels and an
        int32 per channel.
    """
    machine = resolve(target)
    height, width, inputs = shape
    kh, kw = kernel
    rows, columns = (
        (n + 2 * padding - k) // stride + 1 for n, k in zip(shape, kernel, strict=False)
    )
    spare = PRODUCT_REGISTERS if machine.dot == "none" else 0
    tile = register_tile(columns, channels, machine, spare)
    lanes, groups = tile.lanes, -(-inputs // GROUP)
    blocks = -(-channels // lanes)
    moved = machine.dot.startswith("vnni")
    x = te.placeholder(shape, "int8", name="x")
    w = te.placeholder((blocks, kh, kw, groups, lanes, GROUP), "int8", name="w")
    offset = te.placeholder((blocks * lanes,), "int32", name="offset")

    def activation(i: Expr, j: Expr, c: Expr) -> Expr:
        value = x[i - padding, j - padding, c]
        if moved:
            value = (value.astype("int32") + 128).astype("int8")
        inside = [] if inputs % GROUP == 0 else [c < inputs]
        if padding:
            inside += [i >= padding, i < padding + height, j >= padding, j < padding + width]
        zero = te.const(-128 if moved else 0, "int8")
        return te.select(te.all_of(*inside), value, zero) if inside else value

    padded = te.compute(
        (height + 2 * padding, width + 2 * padding, groups * GROUP), activation, name="padded"
    )
    dy, dx = te.reduce_axis((0, kh), name="dy"), te.reduce_axis((0, kw), name="dx")
    g, q = te.reduce_axis((0, groups), name="g"), te.reduce_axis((0, GROUP), name="q")

    def products(i: Expr, j: Expr, n: Expr, v: Expr) -> Expr:
        a = padded[i * stride + dy, j * stride + dx, g * GROUP + q].astype("int32")
        return te.sum(
            (a % 256 if moved else a) * w[n, dy, dx, g, v, q].astype("int32"), [dy, dx, g, q]
        )

    acc = te.compute((rows, columns, blocks, lanes), products, name="acc")

    def result(i: Expr, j: Expr, c: Expr) -> Expr:
        total = acc[i, j, c // lanes, c % lanes] + offset[c]
        return total if epilogue is None else epilogue(total, c)

    y = te.compute((rows, columns, channels), result, name="y")

    s = create_schedule(y)
    s[acc].set_scope("local")
    s[padded].vectorize(s[padded].axis[2])
    s[padded].parallel(s[padded].axis[0])
    i, j, c = s[y].axis
    j_tile, j_in = s[y].split(j, tile.rows)
    c_tile, c_in = s[y].split(c, tile.columns)
    c_block, c_lane = s[y].split(c_in, lanes)
    # A panel of weights stays in the second cache while the picture passes by.
    s[y].reorder(c_tile, i, j_tile, j_in, c_block, c_lane)
    outer = s[y].fuse(c_tile, i)
    s[y].parallel(outer)
    s[y].unroll(j_in)
    s[y].unroll(c_block)
    s[y].vectorize(c_lane)
    s[acc].compute_at(s[y], j_tile)
    _, column, block, lane = s[acc].axis
    s[acc].reorder(dy, dx, g, column, block, lane, q)
    s[acc].unroll(column)
    s[acc].unroll(block)
    s[acc].vectorize(lane)

    def pack(weights: np.ndarray) -> tuple[np.ndarray, ...]:
        want = (channels, inputs, kh, kw)
        if weights.shape != want or weights.dtype != np.int8:
            raise ValueError(
                f"{name}: weights must be int8{list(want)}, got {weights.dtype}"
                f"{list(weights.shape)}"
            )
        full = np.zeros((blocks * lanes, groups * GROUP, kh, kw), np.int8)
        full[:channels, :inputs] = weights
        panels = full.reshape(blocks, lanes, groups, GROUP, kh, kw).transpose(0, 4, 5, 2, 1, 3)
        sums = full.astype(np.int32).reshape(blocks * lanes, -1).sum(1, dtype=np.int32)
        return np.ascontiguousarray(panels), (-128 if moved else 0) * sums

    return Kernel(
        function=lower(s, [x, w, offset, y], name=name),
        pack=pack,
        macs=rows * columns * channels * inputs * kh * kw,
    )


def dense_float32(
    rows: int,
    columns: int,
    depth: int,
    *,
    target: str | Target = "native",
    name: str = "dense",
) -> Kernel:
    """``(rows, depth) @ (depth, columns)`` over float32.

    Sums run in order of the depth; compile with ``Options(contract=True)`` to have products and
    sums rounded once.

    Returns
    -------
    Kernel
        `pack` takes ``(depth, columns)`` float32.
    """
    machine = resolve(target)
    tile = register_tile(rows, columns, machine)
    panels, panel = -(-columns // tile.columns), tile.columns
    block = block_rows(rows, tile, depth * 4, host_caches())
    x = te.placeholder((rows, depth), "float32", name="x")
    w = te.placeholder((panels, depth, panel), "float32", name="w")
    k = te.reduce_axis((0, depth), name="k")
    acc = te.compute(
        (rows, panels, panel), lambda i, p, v: te.sum(x[i, k] * w[p, k, v], axis=k), name="acc"
    )
    y = te.compute((rows, columns), lambda i, j: acc[i, j // panel, j % panel], name="y")

    s = create_schedule(y)
    s[acc].set_scope("local")
    i, j = s[y].axis
    i_block, i_rest = s[y].split(i, block)
    i_tile, i_in = s[y].split(i_rest, tile.rows)
    j_panel, j_in = s[y].split(j, panel)
    s[y].reorder(i_block, j_panel, i_tile, i_in, j_in)
    s[y].parallel(i_block)
    s[y].unroll(i_in)
    s[y].vectorize(j_in)
    s[acc].compute_at(s[y], i_tile)
    row, one, lane = s[acc].axis
    s[acc].reorder(k, row, one, lane)
    s[acc].unroll(row)
    s[acc].unroll(one)
    s[acc].vectorize(lane)

    def pack(weights: np.ndarray) -> tuple[np.ndarray, ...]:
        if weights.shape != (depth, columns) or weights.dtype != np.float32:
            raise ValueError(
                f"{name}: weights must be float32[{depth}, {columns}], got {weights.dtype}"
                f"{list(weights.shape)}"
            )
        full = np.zeros((depth, panels * panel), np.float32)
        full[:, :columns] = weights
        return (np.ascontiguousarray(full.reshape(depth, panels, panel).transpose(1, 0, 2)),)

    return Kernel(function=lower(s, [x, w, y], name=name), pack=pack, macs=rows * columns * depth)


def elementwise(
    output: Tensor, args: Sequence[Tensor] | None = None, name: str = "elementwise"
) -> Function:
    """A tensor whose producers are all computed in place: rows to threads, elements to lanes.

    Parameters
    ----------
    output : Tensor
        No reduction, nor any of its producers.
    args : sequence of Tensor, optional
        Parameters, as for `lower`.
    """
    s = create_schedule(output)
    for stage in s:
        if stage.tensor is not output:
            stage.compute_inline()
    *outer, last = s[output].axis
    if outer:
        s[output].parallel(outer[0])
    s[output].vectorize(last)
    return lower(s, args, name=name)


def max_pool2d(
    shape: tuple[int, int, int],
    window: int,
    *,
    stride: int,
    padding: int = 0,
    dtype: str = "int8",
    name: str = "max_pool2d",
) -> Function:
    """Greatest element of each window of ``(height, width, channels)``; channels to lanes."""
    height, width, channels = shape
    x = te.placeholder(shape, dtype, name="x")
    low = -np.inf if dtype == "float32" else int(np.iinfo(dtype).min)
    source = te.pad(x, (padding, padding, 0), value=low, name="padded") if padding else x
    rows, columns = ((n + 2 * padding - window) // stride + 1 for n in (height, width))
    dy, dx = te.reduce_axis((0, window), name="dy"), te.reduce_axis((0, window), name="dx")
    y = te.compute(
        (rows, columns, channels),
        lambda i, j, c: te.max(source[i * stride + dy, j * stride + dx, c], axis=[dy, dx]),
        name="y",
    )
    s = create_schedule(y)
    i, j, c = s[y].axis
    if padding:
        s[source].vectorize(s[source].axis[2])
        s[source].parallel(s[source].axis[0])
    s[y].reorder(i, j, dy, dx, c)
    s[y].vectorize(c)
    s[y].parallel(i)
    return lower(s, [x, y], name=name)
