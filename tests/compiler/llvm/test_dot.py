"""Sums of four products of bytes: every kind of factor, number of lanes and processor."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from covta.compiler import te
from covta.compiler.ir import For, Function, Seq, Store
from covta.compiler.ir.stmt import Buffer
from covta.compiler.llvm import build, generate
from covta.compiler.llvm.target import Target, native, resolve
from covta.compiler.te.expr import Const, Read, var

X86 = native().triple.startswith("x86_64")
TARGETS = ["native"]
if X86 and native().vector_bits >= 256:
    TARGETS += ["x86-64", "x86-64-v3"]

SIGNS = {
    "signed": (lambda v: v, lambda a: a),
    "unsigned": (lambda v: v % 256, lambda a: a & 255),
    "moved": (lambda v: v + 128, lambda a: a + 128),
}


def function(lanes, groups, signs, layouts, begin=0):
    """``acc[n] += a * b`` over groups of four, factors laid out as one a lane or one for all."""
    acc = Buffer(name="acc", shape=(Const(lanes),), dtype="int32")
    n, g, q = var("n"), var("g"), var("q")
    buffers, values = [], []
    for name, sign, layout in zip("ab", signs, layouts, strict=True):
        shape = {
            "panel": (groups, lanes, 4),
            "shared": (groups, 4),
            "rows": (lanes, groups, 4),
        }[layout]
        b = Buffer(name=name, shape=tuple(map(Const, shape)), dtype="int8")
        at = {"panel": (g, n, q), "shared": (g, q), "rows": (n, g, q)}[layout]
        buffers.append(b)
        values.append(SIGNS[sign][0](te.cast(Read(b, at), "int32")))
    store = Store(acc, (n,), Read(acc, (n,)) + values[0] * values[1])
    inner = For(q, Const(0), Const(4), store)
    body = For(g, Const(0), Const(groups), For(n, Const(0), Const(lanes), inner, "vectorize"))
    return Function(name="dot", params=(*buffers, acc), body=Seq((body,)))


@pytest.mark.parametrize("target", TARGETS)
@settings(derandomize=True, deadline=None, max_examples=25)
@given(
    lanes=st.sampled_from([1, 4, 5, 8, 16, 24, 32, 48]),
    groups=st.integers(1, 5),
    signs=st.tuples(*[st.sampled_from(sorted(SIGNS))] * 2),
    layouts=st.tuples(*[st.sampled_from(["panel", "shared", "rows"])] * 2),
    seed=st.integers(0, 9),
)
def test_equals_numpy(target, lanes, groups, signs, layouts, seed):
    f = function(lanes, groups, signs, layouts)
    rng = np.random.default_rng(seed)
    arrays = [
        rng.choice(np.array([-128, -127, -1, 0, 1, 127], "i1"), [int(d.value) for d in p.shape])
        for p in f.params[:2]
    ]
    start = rng.integers(-(2**31), 2**31, lanes).astype("i4")
    got = start.copy()
    build(f, target)(*arrays, got)
    wide = []
    for a, sign, layout in zip(arrays, signs, layouts, strict=True):
        a = SIGNS[sign][1](a.astype(np.int64))
        wide.append(
            {"panel": a, "shared": a[:, None] if a.ndim == 2 else a, "rows": a}[layout]
            if layout != "rows"
            else a.transpose(1, 0, 2)
        )
    want = (start + (wide[0] * wide[1]).sum((0, 2))).astype("i4")
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("signs", [("signed", "unsigned"), ("moved", "signed"), ("signed",) * 2])
def test_is_recognised_whichever_side_is_unsigned(signs):
    target = Target(name="vnni", triple="x86_64-unknown-linux-gnu", vector_bits=512, dot="vnni512")
    text = str(generate(function(16, 3, signs, ("shared", "panel")), target))
    assert text.count("call") == (2 if signs == ("signed", "signed") else 1)
    assert "llvm.x86.avx512.vpdpbusd.512" in text


def test_two_unsigned_factors_have_no_instruction():
    text = str(generate(function(16, 3, ("unsigned", "moved"), ("shared", "panel")), "native"))
    assert "vpdpbusd" not in text


def test_targets_are_found_by_name():
    assert resolve("aarch64-dot").dot == "sdot"
    assert resolve(resolve("armv7")).triple.endswith("gnueabihf")
