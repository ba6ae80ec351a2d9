"""Templates for processors compute what NumPy does; the instructions they are there for appear."""

import numpy as np
import pytest

from covta.compiler import te
from covta.compiler.llvm import TARGETS, Options, build, generate
from covta.compiler.llvm.schedules import conv2d_int8, dense_float32, elementwise, max_pool2d
from covta.compiler.llvm.target import Target, native
from covta.compiler.llvm.tiles import Caches, block_rows, register_tile

X86 = native().triple.startswith("x86_64")
LOCAL = ["native", *(["x86-64", "x86-64-v3"] if X86 and native().vector_bits >= 256 else [])]


def convolve(x, w, stride, padding):
    """Channels-last input, (channels out, in, height, width) weights."""
    x = np.pad(x.astype(np.int64), [(padding, padding)] * 2 + [(0, 0)])
    kh, kw = w.shape[2:]
    rows, columns = ((n - k) // stride + 1 for n, k in zip(x.shape, (kh, kw), strict=False))
    y = np.zeros((rows, columns, w.shape[0]), np.int64)
    for i in range(kh):
        for j in range(kw):
            part = x[i : i + stride * rows : stride, j : j + stride * columns : stride]
            y += part[:rows, :columns] @ w[:, :, i, j].T.astype(np.int64)
    return y.astype(np.int32)


@pytest.mark.parametrize("target", LOCAL)
@pytest.mark.parametrize(
    ("shape", "channels", "kernel", "stride", "padding"),
    [
        ((9, 9, 16), 32, (3, 3), 1, 1),
        ((10, 17, 5), 19, (3, 3), 2, 1),
        ((7, 7, 8), 7, (1, 1), 1, 0),
        ((12, 11, 3), 40, (5, 3), 2, 0),
    ],
)
def test_convolution(shape, channels, kernel, stride, padding, target):
    rng = np.random.default_rng(0)
    x = rng.integers(-128, 128, shape).astype("i1")
    w = rng.integers(-128, 128, (channels, shape[2], *kernel)).astype("i1")
    x[0], w[0] = -128, -128
    made = conv2d_int8(shape, channels, kernel, stride=stride, padding=padding, target=target)
    want = convolve(x, w, stride, padding)
    for threads in (1, 2):
        got = np.zeros_like(want)
        build(made.function, target, threads=threads)(x, *made.pack(w), got)
        np.testing.assert_array_equal(got, want)


def test_convolution_with_an_epilogue():
    rng = np.random.default_rng(0)
    x = rng.integers(-128, 128, (6, 6, 8)).astype("i1")
    w = rng.integers(-128, 128, (16, 8, 3, 3)).astype("i1")
    made = conv2d_int8(
        (6, 6, 8),
        16,
        padding=1,
        epilogue=lambda y, _: te.clip(te.shift(y, 5), 0, 127).astype("int8"),
    )
    got = np.zeros((6, 6, 16), "i1")
    build(made.function)(x, *made.pack(w), got)
    np.testing.assert_array_equal(got, np.clip(convolve(x, w, 1, 1) >> 5, 0, 127))


@pytest.mark.parametrize("shape", [(1, 1, 1), (5, 33, 7), (30, 64, 20), (29, 50, 40)])
def test_dense(shape):
    made = dense_float32(*shape)
    rows, columns, depth = shape
    rng = np.random.default_rng(1)
    a = rng.integers(-9, 9, (rows, depth)).astype("f")
    b = rng.integers(-9, 9, (depth, columns)).astype("f")
    for contract in (False, True):
        got = np.zeros((rows, columns), "f")
        code = build(made.function, options=Options(contract=contract), threads=2)
        code(a, *made.pack(b), got)
        np.testing.assert_array_equal(got, a @ b)


def test_weights_of_other_shapes_are_refused():
    with pytest.raises(ValueError, match=r"weights must be float32\[3, 2\], got float32\[2, 3\]"):
        dense_float32(4, 2, 3).pack(np.zeros((2, 3), "f"))
    with pytest.raises(ValueError, match=r"weights must be int8\[8, 4, 3, 3\], got int8\[8\]"):
        conv2d_int8((5, 5, 4), 8).pack(np.zeros(8, "i1"))


@pytest.mark.parametrize("dtype", ["int8", "float32"])
@pytest.mark.parametrize(("window", "stride", "padding"), [(3, 2, 1), (2, 2, 0), (3, 1, 0)])
def test_pooling(window, stride, padding, dtype):
    shape = (9, 8, 21)
    x = np.random.default_rng(2).integers(-128, 128, shape).astype(dtype)
    low = -np.inf if dtype == "float32" else -128
    framed = np.pad(x, [(padding, padding)] * 2 + [(0, 0)], constant_values=low)
    windows = np.lib.stride_tricks.sliding_window_view(framed, (window, window), (0, 1))
    want = windows[::stride, ::stride].max((-1, -2))
    got = np.zeros_like(want)
    build(max_pool2d(shape, window, stride=stride, padding=padding, dtype=dtype))(x, got)
    np.testing.assert_array_equal(got, want)


def test_elementwise_producers_are_computed_in_place():
    a, b = (te.placeholder((5, 70), "int8", name=n) for n in "ab")
    total = te.compute((5, 70), lambda i, j: a[i, j].astype("int32") + b[i, j].astype("int32"))
    y = te.compute((5, 70), lambda i, j: te.clip(total[i, j], -128, 127).astype("int8"), name="y")
    function = elementwise(y, [a, b, y])
    assert "allocate" not in str(function)
    rng = np.random.default_rng(3)
    values = [rng.integers(-128, 128, (5, 70)).astype("i1") for _ in "ab"]
    got = np.zeros((5, 70), "i1")
    build(function)(*values, got)
    want = np.clip(values[0].astype(int) + values[1], -128, 127)
    np.testing.assert_array_equal(got, want)


# ---- instructions ----------------------------------------------------------------------------
def assembly(function, target, options=None):
    from llvmlite import binding

    from covta.compiler.llvm.engine import optimise

    tool = target.machine(3)
    module = binding.parse_assembly(str(generate(function, target, options)))
    return tool.emit_assembly(optimise(module, tool, 3))


AVX512 = Target(
    name="avx512",
    triple="x86_64-unknown-linux-gnu",
    cpu="icelake-server",
    features="-prefer-256-bit",
    vector_bits=512,
    dot="vnni512",
)


@pytest.mark.parametrize(
    ("target", "instruction", "at_least"),
    [
        (AVX512, "vpdpbusd", 28),
        (TARGETS["aarch64-dot"], "sdot", 24),
        (TARGETS["x86-64-v3"], "vpmaddwd", 12),
        (TARGETS["aarch64"], "smull", 20),
    ],
    ids=lambda v: getattr(v, "name", None),
)
def test_products_of_bytes_use_the_processors_instruction(target, instruction, at_least):
    made = conv2d_int8((14, 14, 64), 64, padding=1, target=target)
    assert assembly(made.function, target).count(instruction) >= at_least


def test_a_register_tile_is_not_spilled():
    text = assembly(
        dense_float32(56, 64, 32, target=AVX512).function, AVX512, Options(contract=True)
    )
    assert text.count("vfmadd") >= 28
    loop = [line for line in text.splitlines() if "zmm" in line and "rsp" in line]
    assert not loop


def test_floats_are_not_contracted_unless_asked():
    function = dense_float32(56, 64, 32, target=AVX512).function
    assert "vfmadd" not in assembly(function, AVX512)


@pytest.mark.parametrize(
    ("rows", "columns", "target", "want"),
    [
        (56, 64, AVX512, (14, 2)),
        (7, 512, AVX512, (7, 2)),
        (60, 64, TARGETS["x86-64-v3"], (6, 2)),
        (3, 16, AVX512, (3, 1)),
    ],
)
def test_tiles_by_rule(rows, columns, target, want):
    tile = register_tile(rows, columns, target)
    assert (tile.rows, tile.vectors) == want


def test_blocks_fit_half_the_second_cache():
    tile = register_tile(1000, 64, AVX512)
    caches = Caches(l2_bytes=64 << 10)
    assert block_rows(1000, tile, 1024, caches) * 1024 <= 32 << 10
    assert block_rows(1000, tile, 1 << 20, caches) == tile.rows
