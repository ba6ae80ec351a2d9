"""What each primitive makes of a nest, and what it refuses."""

import pytest

from covta.compiler import te
from covta.compiler.lower import lower
from covta.compiler.schedule import ScheduleError, create_schedule


@pytest.fixture
def case():
    """A matrix product in two stages: C, then D = C * 2."""
    a, b = te.placeholder((6, 8), "int32", name="A"), te.placeholder((6, 4), "int32", name="B")
    k = te.reduce_axis((0, 6), name="k")
    c = te.compute((8, 4), lambda y, x: te.sum(a[k, y] * b[k, x], axis=k), name="C")
    d = te.compute((8, 4), lambda y, x: c[y, x] * 2, name="D")
    return create_schedule(d), a, b, c, d, k


def loops(s, tensor):
    return [a.name for a in s[tensor].leaves]


def body(s):
    return str(s).split("\n", 1)[1]


def test_split_makes_the_last_tile_smaller(case):
    s, _, _, _, d, _ = case
    s[d].split(s[d].axis[0], 3)
    assert "for y.i in range(min(3, 8 - y.o * 3)):" in str(s)


def test_split_by_parts(case):
    s, _, _, _, d, _ = case
    s[d].split(s[d].axis[0], nparts=2)
    assert "for y.o in range(2):\n        for y.i in range(4):" in str(s)


def test_split_the_other_way_round_needs_a_condition(case):
    s, _, _, _, d, _ = case
    outer, inner = s[d].split(s[d].axis[0], 3)
    s[d].reorder(inner, outer)
    assert "for y.o in range(min(3, (1 - y.i) // 3 + 3)):" in str(s)


def test_fuse_and_reorder(case):
    s, _, _, _, d, _ = case
    y, x = s[d].axis
    s[d].reorder(x, y)
    assert loops(s, d) == ["x", "y"]
    s[d].fuse(x, y)
    assert "D[x.y % 8, x.y // 8] = C[x.y % 8, x.y // 8] * 2" in str(s)


def test_partition_does_boxes_in_their_order(case):
    s, _, _, _, d, _ = case
    s[d].partition(s[d].axis, [[(6, 2), (0, 4)], [(0, 6), (2, 2)], [(0, 6), (0, 2)]])
    text = str(s)
    assert "for box in range(3):" in text
    assert "for y.i in range([2, 6, 6][box]):" in text
    assert "D[[6, 0, 0][box] + y.i, [0, 2, 0][box] + x.i]" in text


def test_compute_at_needs_only_what_a_turn_needs(case):
    s, _, _, c, d, _ = case
    outer, _ = s[d].split(s[d].axis[0], 3)
    s[c].compute_at(s[d], outer)
    assert "allocate C: int32[min(2, 7 - y.o * 3) + 1, 4] in global" in str(s)


def test_compute_inline_leaves_no_buffer():
    a = te.placeholder((4,), "int32", name="A")
    b = te.compute((4,), lambda i: a[i] + 1, name="B")
    c = te.compute((4,), lambda i: b[3 - i] * 2, name="C")
    s = create_schedule(c)
    s[b].compute_inline()
    assert body(s) == "    for i in range(4):\n        C[i] = (A[3 - i] + 1) * 2"


def test_caches_copy_on_the_way_in_and_out(case):
    s, a, _, c, d, _ = case
    near = s.cache_read(a, "inp", [c])
    own = s.cache_write(d, "acc")
    text = str(s)
    assert (near.name, own.name) == ("A.inp", "D.acc")
    assert "A.inp[i0, i1] = A[i0, i1]" in text
    assert "D[y, x] = D.acc[y, x]" in text
    assert "allocate A.inp: int32[6, 8] in inp" in text


def test_kinds_of_loops_are_printed(case):
    s, _, _, c, d, _ = case
    y, x = s[d].axis
    s[d].parallel(y)
    s[d].vectorize(x)
    s[c].unroll(s[c].axis[1])
    text = str(s)
    assert "parallel for y in range(8):\n        vectorize for x in range(4):" in text
    assert "unroll for x in range(4):" in text


def test_virtual_threads_interleave_and_own_their_buffers():
    a = te.placeholder((4, 3), "int32", name="A")
    b = te.compute((4, 3), lambda i, j: a[i, j] + 1, name="B")
    c = te.compute((4, 3), lambda i, j: b[i, j] * b[i, 2 - j], name="C")
    s = create_schedule(c)
    outer, inner = s[c].split(s[c].axis[0], 2)
    s[c].reorder(inner, outer)
    s[c].bind(outer, "vthread")
    s[b].compute_at(s[c], outer)
    assert str(lower(s)) == (
        "def kernel(A: int32[4, 3], C: int32[4, 3]):\n"
        "    for i.i in range(2):\n"
        "        allocate B: int32[2, 1, 3] in global\n"
        "        for j in range(3):\n"
        "            B[0, 0, j] = A[i.i, j] + 1\n"
        "        for j in range(3):\n"
        "            B[1, 0, j] = A[i.i + 2, j] + 1\n"
        "        for j in range(3):\n"
        "            C[i.i, j] = B[0, 0, j] * B[0, 0, 2 - j]\n"
        "        for j in range(3):\n"
        "            C[i.i + 2, j] = B[1, 0, j] * B[1, 0, 2 - j]"
    )


def scheduled_twice(s, a, b, c, d, k):
    s[d].split(s[d].axis[0], 2)
    s.cache_write(d, "local")


def fuse_triangle(s, a, b, c, d, k):
    _outer, inner = s[d].split(s[d].axis[0], 3)
    one, two = s[d].split(inner, 2)
    s[d].fuse(one, two)
    lower(s)


def lost_host(s, a, b, c, d, k):
    y, _ = s[d].axis
    s[c].compute_at(s[d], y)
    s[d].split(y, 2)
    lower(s)


def read_elsewhere(s, a, b, c, d, k):
    e = te.compute((8, 4), lambda y, x: c[y, x] + d[y, x], name="E")
    t = create_schedule(e)
    t[c].compute_at(t[d], t[d].axis[0])
    lower(t)


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda s, a, b, c, d, k: s[d].split(k, 2), "split: k must be a loop of D (y, x)"),
        (
            lambda s, a, b, c, d, k: s[d].split(s[d].axis[0], 0),
            "split of y: the number must be a positive integer, got 0",
        ),
        (
            lambda s, a, b, c, d, k: s[d].split(s[d].axis[0]),
            "split: exactly one of factor, nparts is needed",
        ),
        (
            lambda s, a, b, c, d, k: s[d].fuse(s[d].axis[1], s[d].axis[0]),
            "fuse: y must lie directly in x",
        ),
        (
            lambda s, a, b, c, d, k: s[c].fuse(s[c].axis[1], k),
            "fuse: x and k must both be of the reduction, or neither",
        ),
        (fuse_triangle, "fuse needs a rectangle"),
        (
            lambda s, a, b, c, d, k: s[d].reorder(s[d].axis[0], s[d].axis[0]),
            "reorder: an axis is named twice",
        ),
        (
            lambda s, a, b, c, d, k: s[d].partition([s[d].axis[0]], [[(0, 5)], [(4, 4)]]),
            "partition: boxes must cover (8,) exactly once, got 1 points that they cover otherwise",
        ),
        (
            lambda s, a, b, c, d, k: s[c].parallel(k),
            "parallel: k of C is a reduction; its turns write one element",
        ),
        (
            lambda s, a, b, c, d, k: s[c].bind(k, "vthread"),
            "bind: k of C is a reduction; its threads would share a result",
        ),
        (
            lambda s, a, b, c, d, k: s[d].bind(s[d].axis[0], "blockIdx.x"),
            "bind: the only kind of thread is 'vthread', got 'blockIdx.x'",
        ),
        (
            lambda s, a, b, c, d, k: s[d].compute_at(s[c], s[c].axis[0]),
            "compute_at: D is an output",
        ),
        (
            lambda s, a, b, c, d, k: s[c].compute_inline(),
            "compute_inline: C is a reduction and cannot stand inside an expression",
        ),
        (lambda s, a, b, c, d, k: s[d].compute_inline(), "compute_inline: D is an output"),
        (
            lambda s, a, b, c, d, k: s[c].set_scope("l2"),
            "set_scope: scope must be among global, local, inp, wgt, acc, got 'l2'",
        ),
        (lambda s, a, b, c, d, k: s[d].set_scope("acc"), "set_scope: D is an output"),
        (
            lambda s, a, b, c, d, k: s[c].double_buffer(),
            "double_buffer: C must lie in a scratchpad, got global",
        ),
        (
            lambda s, a, b, c, d, k: s[c].preload(),
            "preload: C must be a reduction in acc, got global",
        ),
        (scheduled_twice, "cache_write: D has been scheduled already"),
        (
            lambda s, a, b, c, d, k: s.cache_read(a, "inp", [d]),
            "cache_read: D must read A, it reads C",
        ),
        (lambda s, a, b, c, d, k: s[a], "A has no loops: it is a placeholder"),
        (
            lambda s, a, b, c, d, k: s[d].pragma(s[d].axis[0], "magic"),
            "pragma must be among alu, dma_copy, got 'magic'",
        ),
        (lost_host, "compute_at: y is no longer a loop of D; schedule it first"),
        (read_elsewhere, "compute_at: C is read by E, which lies outside of D's loop y"),
    ],
)
def test_what_would_change_the_meaning_is_refused(case, act, message):
    with pytest.raises(ScheduleError) as error:
        act(*case)
    assert message in str(error.value)


def test_floats_are_not_reassociated_unasked():
    a = te.placeholder((8,), name="A")
    k = te.reduce_axis((0, 8), name="k")
    b = te.compute((1,), lambda i: te.sum(a[k], axis=k), name="B")
    s = create_schedule(b)
    with pytest.raises(ScheduleError, match="pass reassociate=True to accept that"):
        s[b].vectorize(k)
    s[b].vectorize(k, reassociate=True)
