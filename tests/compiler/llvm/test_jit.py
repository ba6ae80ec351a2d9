"""Compiled functions: what they refuse, cache and compute with how many threads."""

import threading

import numpy as np
import pytest

from covta.compiler import te
from covta.compiler.ir import Allocate, Buffer, Copy, For, Function, If, Region, Seq, Store
from covta.compiler.llvm import CodegenError, Options, TargetError, build, generate
from covta.compiler.lower import lower
from covta.compiler.schedule import create_schedule
from covta.compiler.te.expr import Const, Lookup, Read, var


def buffer(name, *shape, dtype="int32", scope="global"):
    return Buffer(name=name, shape=tuple(map(Const, shape)), dtype=dtype, scope=scope)


def doubled(n=10, dtype="int32", kind="serial"):
    a, b = buffer("a", n, dtype=dtype), buffer("b", n, dtype=dtype)
    i = var("i")
    body = Store(b, (i,), Read(a, (i,)) + Read(a, (i,)))
    return Function(name="doubled", params=(a, b), body=For(i, Const(0), Const(n), body, kind))


# ---- calling ---------------------------------------------------------------------------------
def test_arrays_are_checked_with_the_parameters_name():
    f = build(doubled())
    good, out = np.arange(10, dtype="i4"), np.zeros(10, "i4")
    cases = [
        (TypeError, r"takes 2 arrays \(a, b\), got 1", (good,)),
        (TypeError, r"a must be a NumPy array, got list", ([1], out)),
        (ValueError, r"a must be int32\[10\], got int64\[10\]", (good.astype("i8"), out)),
        (ValueError, r"a must be int32\[10\], got int32\[9\]", (good[:9], out)),
        (ValueError, r"a must be C-contiguous, got strides", (np.arange(20, dtype="i4")[::2], out)),
        (ValueError, r"b is written and must not overlap", (good, good)),
    ]
    for kind, text, arguments in cases:
        with pytest.raises(kind, match=text):
            f(*arguments)
    out.flags.writeable = False
    with pytest.raises(ValueError, match="b is written, but the array is read-only"):
        f(good, out)


def test_choices_are_checked():
    with pytest.raises(ValueError, match="opt must be 0, 1, 2 or 3, got 4"):
        build(doubled(), opt=4)
    with pytest.raises(ValueError, match=r"threads must lie in 1 ... 256, got 0"):
        build(doubled(), threads=0)
    with pytest.raises(TargetError, match="target must be among native, "):
        build(doubled(), "z80")
    with pytest.raises(TargetError, match="does not run on"):
        build(doubled(), "armv7")


def test_the_same_function_is_compiled_once():
    f = doubled()
    assert build(f) is build(f)
    assert build(f) is not build(f, opt=1)
    assert build(doubled()) is not build(f)


@pytest.mark.parametrize("opt", [0, 1, 2, 3])
@pytest.mark.parametrize("kind", ["serial", "unroll", "vectorize", "parallel"])
@pytest.mark.parametrize("n", [1, 2, 7, 16, 100])
def test_every_kind_of_loop_at_every_level(n, kind, opt):
    a, b = np.arange(n, dtype="i4") - 3, np.zeros(n, "i4")
    build(doubled(n, kind=kind), opt=opt, threads=2)(a, b)
    np.testing.assert_array_equal(b, 2 * a)


def test_wraps_as_numpy_does():
    a = np.array([100, -128, 127] + [0] * 7, "i1")
    b = np.zeros_like(a)
    build(doubled(dtype="int8", kind="vectorize"))(a, b)
    np.testing.assert_array_equal(b, a + a)


# ---- threads ---------------------------------------------------------------------------------
def test_threads_change_nothing_and_many_callers_may_share_them():
    n = 300
    x = te.placeholder((n, 8), "float32", name="x")
    r = te.reduce_axis((0, 8), name="r")
    y = te.compute((n,), lambda i: te.sum(x[i, r] * x[i, r], axis=r), name="y")
    s = create_schedule(y)
    s[y].parallel(s[y].axis[0])
    f = build(lower(s, name="norms"), threads=3)
    value = np.random.default_rng(0).random((n, 8), np.float32)
    want = te.evaluate(y, {x: value})
    wrong = []

    def work():
        for _ in range(200):
            got = np.zeros(n, "f")
            f(value, got)
            if not np.array_equal(got, want):
                wrong.append(got)

    callers = [threading.Thread(target=work) for _ in range(3)]
    for t in callers:
        t.start()
    for t in callers:
        t.join()
    assert not wrong


def test_a_parallel_loop_in_another_is_done_in_order():
    a, b, i, j = buffer("a", 5, 7), buffer("b", 5, 7), var("i"), var("j")
    store = Store(b, (i, j), Read(a, (i, j)) + i)
    inner = For(j, Const(0), Const(7), store, "parallel")
    f = Function(name="f", params=(a, b), body=For(i, Const(0), Const(5), inner, "parallel"))
    value, out = np.arange(35, dtype="i4").reshape(5, 7), np.zeros((5, 7), "i4")
    build(f, threads=2)(value, out)
    np.testing.assert_array_equal(out, value + np.arange(5)[:, None])


def test_without_parallel_there_is_no_pool():
    text = str(generate(doubled(kind="parallel"), options=Options(parallel=False)))
    assert "pool" not in text
    assert "pool" in str(generate(doubled(kind="parallel")))


# ---- statements ------------------------------------------------------------------------------
@pytest.mark.parametrize("scope", ["global", "local"])
@pytest.mark.parametrize("size", [9, 40_000])
def test_buffers_on_stack_and_heap(scope, size):
    a, b, t = buffer("a", size), buffer("b", size), buffer("t", size, scope=scope)
    i, j = var("i"), var("j")
    body = Allocate(
        t,
        Seq(
            (
                For(i, Const(0), Const(size), Store(t, (i,), Read(a, (i,)) + 1), "vectorize"),
                For(j, Const(0), Const(size), Store(b, (j,), Read(t, (size - 1 - j,)))),
            )
        ),
    )
    value, out = np.arange(size, dtype="i4"), np.zeros(size, "i4")
    build(Function(name="f", params=(a, b), body=body))(value, out)
    np.testing.assert_array_equal(out, value[::-1] + 1)


def test_a_buffers_shape_may_depend_on_loops():
    b, i, j, k = buffer("b", 6), var("i"), var("j"), var("k")
    t = Buffer(name="t", shape=(i + 1,), dtype="int32", scope="local")
    fill = For(j, Const(0), i + 1, Store(t, (j,), j * j), "vectorize")
    add = For(k, Const(0), i + 1, Store(b, (i,), Read(b, (i,)) + Read(t, (k,))), "vectorize")
    body = For(i, Const(0), Const(6), Allocate(t, Seq((fill, add))))
    out = np.zeros(6, "i4")
    build(Function(name="f", params=(b,), body=body))(out)
    np.testing.assert_array_equal(out, np.cumsum(np.arange(6) ** 2))


def test_tables_of_constants():
    b, i = buffer("b", 5), var("i")
    value = Lookup((3, -1, 4, 1, -5), 4 - i)
    for kind in ("serial", "vectorize"):
        out = np.zeros(5, "i4")
        loop = For(i, Const(0), Const(5), Store(b, (i,), value), kind)
        build(Function(name="f", params=(b,), body=loop))(out)
        np.testing.assert_array_equal(out, [-5, 1, 4, -1, 3])


@pytest.mark.parametrize("n", [5, 16, 37])
def test_guards_leave_the_rest_alone(n):
    a, b, i = buffer("a", 40), buffer("b", 40), var("i")
    store = Store(b, (i,), Read(a, (i + 40 - n,)))
    for kind in ("serial", "vectorize", "parallel"):
        out = np.full(40, -1, "i4")
        loop = For(i, Const(0), Const(40), If(i < n, store), kind)
        build(Function(name="f", params=(a, b), body=loop))(np.arange(40, dtype="i4"), out)
        np.testing.assert_array_equal(out, [*range(40 - n, 40)] + [-1] * (40 - n))


def test_turns_that_depend_on_one_another_are_not_lanes():
    a, i = buffer("a", 20), var("i")
    chain = Store(a, (i + 1,), Read(a, (i,)) + 1)
    loop = For(i, Const(0), Const(19), chain, "vectorize")
    out = np.zeros(20, "i4")
    build(Function(name="f", params=(a,), body=loop))(out)
    np.testing.assert_array_equal(out, np.arange(20))


def test_the_last_turn_wins_where_all_write_one_element():
    a, i = buffer("a", 1), var("i")
    loop = For(i, Const(0), Const(19), Store(a, (Const(0),), i * i), "vectorize")
    out = np.zeros(1, "i4")
    build(Function(name="f", params=(a,), body=loop))(out)
    assert out[0] == 18 * 18


# ---- refusals --------------------------------------------------------------------------------
def test_what_is_of_the_machine_is_refused():
    a, b, i = buffer("a", 4), buffer("b", 4), var("i")
    t = buffer("t", 4, scope="acc")
    loop = For(i, Const(0), Const(4), Store(b, (i,), Read(a, (i,))))
    with pytest.raises(CodegenError, match="host code has no scratchpad for t: int32"):
        generate(Function(name="f", params=(a, b), body=Allocate(t, loop)))
    region = [Region(buffer=x, begins=(Const(0),), extents=(Const(4),)) for x in (b, a)]
    copy = Copy(region[0], region[1], (1,), (None,))
    with pytest.raises(CodegenError, match="a DMA transfer cannot stand in host code"):
        generate(Function(name="f", params=(a, b), body=copy))
    threads = For(i, Const(0), Const(4), loop.body, "vthread")
    with pytest.raises(CodegenError, match="virtual threads cannot stand in host code: i"):
        generate(Function(name="f", params=(a, b), body=threads))
