"""Any sequence of primitives leaves the meaning alone, or is refused with a reason."""

import random
from contextlib import suppress

import numpy as np
import pytest

from covta.compiler import te
from covta.compiler.ir import interpret
from covta.compiler.lower import lower
from covta.compiler.lower.driver import lower_stages
from covta.compiler.schedule import ScheduleError, create_schedule


def matmul():
    a, b = te.placeholder((5, 7), "int32", name="A"), te.placeholder((5, 6), "int32", name="B")
    k = te.reduce_axis((0, 5), name="k")
    return te.compute((7, 6), lambda y, x: te.sum(a[k, y] * b[k, x], axis=k), name="C"), [a, b]


def chain():
    a = te.placeholder((9, 4), "int32", name="A")
    b = te.compute((9, 4), lambda i, j: a[i, j] * 3 + 1, name="B")
    c = te.compute((8, 4), lambda i, j: te.maximum(b[i, j], b[i + 1, j]), name="C")
    return te.compute((8, 4), lambda i, j: c[i, j] - b[i, j], name="D"), [a]


def convolution():
    x = te.placeholder((2, 6, 6), "int8", name="X")
    w = te.placeholder((3, 2, 3, 3), "int8", name="W")
    p = te.pad(x, (0, 1, 1), name="P")
    c, ky, kx = (te.reduce_axis((0, n), name=s) for n, s in ((2, "c"), (3, "ky"), (3, "kx")))
    y = te.compute(
        (3, 3, 3),
        lambda o, i, j: te.sum(
            p[c, i * 2 + ky, j * 2 + kx].astype("int32") * w[o, c, ky, kx].astype("int32"),
            axis=[c, ky, kx],
        ),
        name="Y",
    )
    return te.compute(y.shape, lambda *i: te.clip(y[i] >> 4, 0, 127).astype("int8"), name="Z"), [
        x,
        w,
    ]


def pooling():
    x = te.placeholder((7, 5), "int8", name="X")
    p = te.pad(x, (1, 0), value=-128, name="P")
    r = te.reduce_axis((0, 3), name="r")
    y = te.compute((4, 5), lambda i, j: te.max(p[i * 2 + r, j], axis=r), name="Y")
    return te.compute(
        (4, 5), lambda i, j: y[i, j].astype("int32") - y[3 - i, j].astype("int32"), name="Z"
    ), [x]


COMPUTATIONS = [matmul, chain, convolution, pooling]


def step(rng, s):
    """One random primitive."""
    stage = rng.choice(list(s.stages.values()))
    leaves = stage.leaves
    axis = rng.choice(leaves)
    match rng.randrange(11):
        case 0:
            stage.split(axis, rng.choice([1, 2, 3, 4, 5]))
        case 1:
            stage.split(axis, nparts=rng.choice([1, 2, 3]))
        case 2:
            k = rng.randrange(len(leaves))
            stage.fuse(leaves[k], leaves[min(k + 1, len(leaves) - 1)])
        case 3:
            some = rng.sample(leaves, rng.randint(1, len(leaves)))
            stage.reorder(*some)
        case 4:
            other = rng.choice(list(s.stages.values()))
            stage.compute_at(other, rng.choice(other.leaves))
        case 5:
            stage.compute_inline()
        case 6:
            stage.bind(axis, "vthread")
        case 7:
            readers = s.readers(stage.tensor)
            if readers:
                s.cache_read(
                    stage.tensor, "local", rng.sample(readers, rng.randint(1, len(readers)))
                )
        case 8:
            s.cache_write(stage.tensor, "local")
        case 9:
            rng.choice([stage.unroll, stage.parallel, stage.vectorize])(axis)
        case 10:
            extent = stage.shape_of(axis)
            if extent is not None:
                cut = rng.randint(0, extent)
                boxes = [[(b, n)] for b, n in ((cut, extent - cut), (0, cut)) if n]
                stage.partition([axis], boxes)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("make", COMPUTATIONS)
def test_any_schedule_computes_the_same(make, seed):
    rng = random.Random(f"{make.__name__}{seed}")
    done = 0
    while done < 6:
        output, inputs = make()
        s = create_schedule(output)
        for _ in range(rng.randint(1, 8)):
            with suppress(ScheduleError):
                step(rng, s)
        try:
            stages = lower_stages(s, [*inputs, output])
        except ScheduleError:
            continue
        done += 1
        data = np.random.default_rng(seed)
        arrays = [data.integers(-128, 128, t.shape).astype(t.dtype) for t in inputs]
        expected = te.evaluate(output, dict(zip(inputs, arrays, strict=True)))
        for name, function in stages.items():
            result = np.full(output.shape, 99, output.dtype)
            try:
                interpret(function, *arrays, result)
            except IndexError as error:
                raise AssertionError(f"after {name}: {error}\n{function}") from error
            np.testing.assert_array_equal(result, expected, err_msg=f"after {name}:\n{function}")


def test_a_schedule_prints_as_its_loops():
    output, inputs = matmul()
    s = create_schedule(output)
    s[output].tile(*s[output].axis, 4, 3)
    assert str(s) == str(lower(s, [*inputs, output]))
    assert "for y.o in range(2):" in str(s)


@pytest.mark.parametrize("factor", [2, 4, 5])
@pytest.mark.parametrize("leaf", range(6))
def test_parts_of_parts_can_be_computed_at(factor, leaf):
    """The number of parts of an uneven tile is a quotient of two expressions."""
    a = te.placeholder((6, 3), "int32", name="A")
    p = te.compute((6, 3), lambda y, x: a[y, x] + 1, name="P")
    c = te.compute((6, 3), lambda y, x: p[y, x] * 2 - p[5 - y, x], name="C")
    s = create_schedule(c)
    outer, inner = s[c].split(c.axis[0], factor)
    s[c].split(outer, nparts=2)
    _, rest = s[c].split(inner, nparts=2)
    s[c].split(rest, nparts=2)
    s[p].compute_at(s[c], s[c].leaves[leaf])
    data = np.random.default_rng(0).integers(-99, 99, a.shape).astype(np.int32)
    result = np.zeros(c.shape, np.int32)
    interpret(lower(s, [a, c]), data, result)
    np.testing.assert_array_equal(result, te.evaluate(c, {a: data}))


def gathered(index):
    """C reads P where an index, or a table in memory, says so."""
    a, t = te.placeholder((8,), "int32", name="A"), te.placeholder((8,), "int32", name="T")
    p = te.compute((8,), lambda i: a[i] + 1, name="P")
    c = te.compute((4, 2), lambda i, j: p[index(t, i, j)], name="C")
    s = create_schedule(c)
    s[p].compute_at(s[c], c.axis[0])
    return s, [a, t, c]


@pytest.mark.parametrize(
    "index",
    [
        lambda t, i, j: t[i] % 8,
        lambda t, i, j: (t[i * 2 + j] % 8 + i) % 8,
        lambda t, i, j: t[t[0] % 8] % 8 * 0 + t[j] % 8,
    ],
)
def test_what_is_read_where_data_says_is_computed_whole(index):
    s, args = gathered(index)
    a, t, c = args
    values = np.random.default_rng(0).integers(0, 8, (2, 8)).astype(np.int32)
    result = np.zeros(c.shape, np.int32)
    function = lower(s, args)
    assert "allocate P: int32[8]" in str(function)
    interpret(function, *values, result)
    np.testing.assert_array_equal(result, te.evaluate(c, dict(zip([a, t], values, strict=True))))


@pytest.mark.parametrize(
    "index",
    [
        lambda t, i, j: (i * 2 + j) >> 1,
        lambda t, i, j: te.select(j < 1, i, 7 - i),
        lambda t, i, j: (i + 4) // (j + 1),
        lambda t, i, j: (i + 5) % (j + 2),
        lambda t, i, j: 7 - (i * 2 + 1) // (j + i + 1),
        lambda t, i, j: (i * 2 - 7) // (j - 2),
        lambda t, i, j: te.cast(te.cast(i, "int8"), "int32") + j,
    ],
)
def test_indices_of_any_form_can_be_computed_at(index):
    s, (a, _, c) = gathered(index)
    data = np.arange(8, dtype=np.int32) * 10
    result = np.zeros(c.shape, np.int32)
    interpret(lower(s, [a, c]), data, result)
    np.testing.assert_array_equal(result, te.evaluate(c, {a: data}))


def test_a_schedule_that_has_no_loops_says_why():
    s, (_, _, c) = gathered(lambda t, i, j: i)
    s[c].split(c.axis[0], 2)
    assert str(s) == (
        "schedule of C, which has no loops: compute_at: i is no longer a loop of C; schedule it"
        " first"
    )
