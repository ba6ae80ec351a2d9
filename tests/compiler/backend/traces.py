"""Traces built by hand, as the front end would hand them over, with what NumPy says comes out."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from covta.compiler.backend.ops import Alu, DramTensor, Gemm, Load, Loop, Point, Store, Tile, Trace
from covta.hw.isa import AluOp, MemoryType
from covta.hw.params import Config
from covta.runtime.layout import tile_activation, tile_bias, tile_kernel, tile_matrix


@dataclass(frozen=True, kw_only=True)
class Case:
    """A trace, what is in its tensors before, and what must be in its results."""

    trace: Trace
    values: dict[str, np.ndarray]
    expect: dict[str, np.ndarray]


def conv(
    cfg: Config,
    *,
    size: int,
    inputs: int,
    outputs: int,
    kernel: int = 3,
    stride: int = 1,
    pad: int = 1,
    rows: int,
    co: int,
    ci: int,
    shift: int = 8,
    bias: bool = True,
    relu: bool = True,
    seed: int = 0,
) -> Case:
    """A dense convolution with `rows` rows of `co` output channel blocks a tile, `ci` input channel
    blocks a stage."""
    rng = np.random.default_rng(seed)
    x = rng.integers(-128, 128, (cfg.batch, inputs, size, size))
    w = rng.integers(-128, 128, (outputs, inputs, kernel, kernel))
    offsets = rng.integers(-(1 << 12), 1 << 12, outputs)
    out = (size + 2 * pad - kernel) // stride + 1
    padded = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad))).astype(np.float64)
    sums = np.zeros((cfg.batch, outputs, out, out))
    for ky in range(kernel):
        for kx in range(kernel):
            patch = padded[:, :, ky : ky + out * stride : stride, kx : kx + out * stride : stride]
            sums += np.einsum("nchw,oc->nohw", patch, w[:, :, ky, kx].astype(float), optimize=True)
    sums = np.rint(sums).astype(np.int64)
    if bias:
        sums += offsets[None, :, None, None]
    result = np.clip(sums >> shift, 0 if relu else -128, 127)

    xt = tile_activation(x, cfg.batch, cfg.block_in)
    kt = tile_kernel(w, cfg.block_out, cfg.block_in)
    kt = kt.reshape(*kt.shape[:2], -1, *kt.shape[4:])
    yt = tile_activation(result, cfg.batch, cfg.block_out)
    cis, cos, taps = xt.shape[1], yt.shape[1], kernel * kernel
    tx = DramTensor(name="x", memory=MemoryType.INP, shape=xt.shape[:4])
    tw = DramTensor(name="w", memory=MemoryType.WGT, shape=kt.shape[:3])
    tb = DramTensor(name="bias", memory=MemoryType.ACC, shape=(cos,))
    ty = DramTensor(name="y", memory=MemoryType.OUT, shape=yt.shape[:4])
    ops = []
    stage = 0
    for number, (row, first) in enumerate(
        (r, c) for r in range(0, out, rows) for c in range(0, cos, co)
    ):
        height, some = min(rows, out - row), min(co, cos - first)
        pixels = height * out
        acc = Tile(name="acc", scope="acc", elems=pixels * some, pool="acc", instance=number)
        plane = (Loop(count=some * pixels, dst=1),)
        ops.append(Gemm(dst=acc, points=(Point(0),), loops=plane, reset=True))
        begin = row * stride - pad
        tall = (height - 1) * stride + kernel
        end = begin + tall
        top, bottom = max(begin, 0), min(end, size)
        width = size + 2 * pad
        for chunk in range(0, cis, ci):
            channels = range(chunk, min(chunk + ci, cis))
            inp = {}
            for c in channels:
                inp[c] = Tile(
                    name=f"x.inp({c})", scope="inp", elems=tall * width, pool="x.inp",
                    instance=stage, key=("x", c, begin, end),
                )  # fmt: skip
                ops.append(
                    Load(
                        dst=inp[c], src=tx, begin=(c * size + top) * size,
                        y_size=bottom - top, x_size=size, x_stride=size,
                        y_pad=(top - begin, end - bottom), x_pad=(pad, pad),
                    )
                )  # fmt: skip
            wgt = {}
            for o in range(first, first + some):
                for c in channels:
                    wgt[o, c] = Tile(
                        name=f"w.wgt({o},{c})", scope="wgt", elems=taps, pool="w.wgt",
                        instance=stage, key=("w", o, c),
                    )  # fmt: skip
                    ops.append(Load(dst=wgt[o, c], src=tw, begin=(o * cis + c) * taps, x_size=taps))
            for tap in range(taps):
                ky, kx = divmod(tap, kernel)
                points = tuple(
                    Point((o - first) * pixels, ky * width + kx, tap, inp[c], wgt[o, c])
                    for c in channels
                    for o in range(first, first + some)
                )
                loops = (
                    Loop(count=height, dst=out, src=stride * width),
                    Loop(count=out, dst=1, src=stride),
                )
                ops.append(Gemm(dst=acc, points=points, loops=loops))
            stage += 1
        if bias:
            offset = Tile(
                name="bias.acc", scope="acc", elems=some, pool="bias.acc", instance=number,
                key=("bias", first, some),
            )  # fmt: skip
            ops.append(Load(dst=offset, src=tb, begin=first, x_size=some))
            ops.append(
                Alu(
                    op=AluOp.ADD, dst=acc, points=(Point(0, 0, 0, offset),),
                    loops=(Loop(count=some, dst=pixels, src=1), Loop(count=pixels, dst=1)),
                )
            )  # fmt: skip
        for op, imm in (
            (AluOp.SHR, shift),
            (AluOp.MAX, 0 if relu else -128),
            (AluOp.MIN, 127),
        ):
            ops.append(Alu(op=op, dst=acc, points=(Point(0),), loops=plane, imm=imm))
        ops.append(
            Store(
                src=acc, dst=ty, begin=(first * out + row) * out,
                y_size=some, x_size=pixels, x_stride=out * out,
            )
        )  # fmt: skip
    trace = Trace(
        name="conv", ops=tuple(ops), generations={"acc": 2},
        tensors=(tx, tw, *([tb] if bias else []), ty),
    )  # fmt: skip
    values = {"x": xt, "w": kt}
    if bias:
        values["bias"] = tile_bias(offsets, cfg.batch, cfg.block_out)
    return Case(trace=trace, values=values, expect={"y": yt})


def matmul(
    cfg: Config, *, m: int, k: int, n: int, tm: int, tn: int, tk: int, shift: int = 6, seed: int = 0
) -> Case:
    """``clip((a @ b.T) >> shift)``; sizes of tiles in elements of the machine."""
    rng = np.random.default_rng(seed)
    a, b = rng.integers(-128, 128, (m, k)), rng.integers(-128, 128, (n, k))
    result = np.clip((a @ b.T) >> shift, -128, 127)
    at = tile_matrix(a, cfg.batch, cfg.block_in)
    bt = tile_matrix(b, cfg.block_out, cfg.block_in)
    ct = tile_matrix(result, cfg.batch, cfg.block_out)
    (ms, ks), ns = at.shape[:2], bt.shape[0]
    ta = DramTensor(name="a", memory=MemoryType.INP, shape=(ms, ks))
    tb = DramTensor(name="b", memory=MemoryType.WGT, shape=(ns, ks))
    tc = DramTensor(name="c", memory=MemoryType.OUT, shape=(ms, ns))
    ops = []
    stage = number = 0
    for i in range(0, ms, tm):
        for j in range(0, ns, tn):
            h, w = min(tm, ms - i), min(tn, ns - j)
            acc = Tile(name="c.acc", scope="acc", elems=h * w, pool="c.acc", instance=number)
            number += 1
            whole = (Loop(count=h, dst=w), Loop(count=w, dst=1))
            ops.append(Gemm(dst=acc, points=(Point(0),), loops=whole, reset=True))
            for kk in range(0, ks, tk):
                d = min(tk, ks - kk)
                inp = Tile(
                    name="a.inp", scope="inp", elems=h * d, pool="a.inp", instance=stage,
                    key=("a", i, kk),
                )  # fmt: skip
                wgt = Tile(
                    name="b.wgt", scope="wgt", elems=w * d, pool="b.wgt", instance=stage,
                    key=("b", j, kk),
                )  # fmt: skip
                stage += 1
                for tile, src, first, height in ((inp, ta, i, h), (wgt, tb, j, w)):
                    ops.append(
                        Load(
                            dst=tile, src=src, begin=first * ks + kk,
                            y_size=height, x_size=d, x_stride=ks,
                        )
                    )  # fmt: skip
                ops.append(
                    Gemm(
                        dst=acc, points=(Point(0, 0, 0, inp, wgt),),
                        loops=(
                            Loop(count=h, dst=w, src=d), Loop(count=w, dst=1, wgt=d),
                            Loop(count=d, src=1, wgt=1),
                        ),
                    )
                )  # fmt: skip
            for op, imm in ((AluOp.SHR, shift), (AluOp.MAX, -128), (AluOp.MIN, 127)):
                ops.append(Alu(op=op, dst=acc, points=(Point(0),), loops=whole, imm=imm))
            ops.append(Store(src=acc, dst=tc, begin=i * ns + j, y_size=h, x_size=w, x_stride=ns))
    trace = Trace(name="matmul", ops=tuple(ops), generations={}, tensors=(ta, tb, tc))
    return Case(trace=trace, values={"a": at, "b": bt}, expect={"c": ct})


def add(cfg: Config, *, elems: int, tile: int, generations: int = 4, seed: int = 0) -> Case:
    """``(a + b) >> 1`` elementwise."""
    rng = np.random.default_rng(seed)
    a, b = (rng.integers(-1000, 1000, (elems, cfg.batch, cfg.block_out)) for _ in "ab")
    result = np.clip((a + b) >> 1, -128, 127)
    ta, tb = (DramTensor(name=n, memory=MemoryType.ACC, shape=(elems,)) for n in "ab")
    tc = DramTensor(name="c", memory=MemoryType.OUT, shape=(elems,))
    ops = []
    for number, at in enumerate(range(0, elems, tile)):
        size = min(tile, elems - at)
        one, two = (
            Tile(name=f"{n}.acc", scope="acc", elems=size, pool=f"{n}.acc", instance=number)
            for n in "ab"
        )
        ops += [
            Load(dst=one, src=ta, begin=at, x_size=size),
            Load(dst=two, src=tb, begin=at, x_size=size),
            Alu(
                op=AluOp.ADD, dst=one, points=(Point(0, 0, 0, two),),
                loops=(Loop(count=size, dst=1, src=1),),
            ),
        ]  # fmt: skip
        for op, imm in ((AluOp.SHR, 1), (AluOp.MAX, -128), (AluOp.MIN, 127)):
            loops = (Loop(count=size, dst=1),)
            ops.append(Alu(op=op, dst=one, points=(Point(0),), loops=loops, imm=imm))
        ops.append(Store(src=one, dst=tc, begin=at, x_size=size))
    trace = Trace(
        name="add", ops=tuple(ops), tensors=(ta, tb, tc),
        generations={"a.acc": generations, "b.acc": generations},
    )  # fmt: skip
    return Case(trace=trace, values={"a": a, "b": b}, expect={"c": result})


def maxpool(cfg: Config, *, size: int, blocks: int, rows: int, seed: int = 0) -> Case:
    """2x2 maximum, stride 2, of int32 images."""
    rng = np.random.default_rng(seed)
    x = rng.integers(-128, 128, (blocks, size, size, cfg.batch, cfg.block_out))
    out = size // 2
    y = x.reshape(blocks, out, 2, out, 2, cfg.batch, cfg.block_out).max((2, 4))
    tx = DramTensor(name="x", memory=MemoryType.ACC, shape=x.shape[:3])
    ty = DramTensor(name="y", memory=MemoryType.OUT, shape=y.shape[:3])
    ops = []
    number = 0
    for c in range(blocks):
        for row in range(0, out, rows):
            h = min(rows, out - row)
            src = Tile(name="x.acc", scope="acc", elems=2 * h * size, pool="x.acc", instance=number)
            dst = Tile(name="y.acc", scope="acc", elems=h * out, pool="y.acc", instance=number)
            number += 1
            flat = (Loop(count=h * out, dst=1),)
            ops += [
                Load(dst=src, src=tx, begin=(c * size + 2 * row) * size, x_size=2 * h * size),
                Alu(op=AluOp.MIN, dst=dst, points=(Point(0),), loops=flat, imm=-128),
                Alu(op=AluOp.MAX, dst=dst, points=(Point(0),), loops=flat, imm=-128),
                Alu(
                    op=AluOp.MAX, dst=dst,
                    points=tuple(Point(0, k // 2 * size + k % 2, 0, src) for k in range(4)),
                    loops=(
                        Loop(count=h, dst=out, src=2 * size), Loop(count=out, dst=1, src=2),
                    ),
                ),
                Store(src=dst, dst=ty, begin=(c * out + row) * out, x_size=h * out),
            ]  # fmt: skip
    trace = Trace(name="maxpool", ops=tuple(ops), tensors=(tx, ty))
    return Case(trace=trace, values={"x": x}, expect={"y": y})


LAYERS = {
    "C2": {"size": 56, "inputs": 64, "outputs": 64},
    "C8": {"size": 14, "inputs": 256, "outputs": 256},
    "C11": {"size": 7, "inputs": 512, "outputs": 512},
}


def layer(cfg: Config, name: str) -> Case:
    """A layer of ResNet-18 with the tiles that the hand-written kernel chooses."""
    what = LAYERS[name]
    rows, co, ci = {"C2": (8, 2, 1), "C8": (14, 4, 2), "C11": (7, 8, 2)}[name]
    shift = math.ceil(math.log2(2 * 127 * 127 / 3 * math.sqrt(what["inputs"] * 9) / 127))
    return conv(cfg, **what, rows=rows, co=co, ci=ci, shift=shift)
