"""Compiled code equals NumPy, to the bit: random expressions, schedules, sizes, threads."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from covta.compiler import te
from covta.compiler.ir import interpret
from covta.compiler.llvm import build
from covta.compiler.lower import lower
from covta.compiler.schedule import create_schedule
from covta.compiler.te.expr import walk

EXAMPLES = settings(
    derandomize=True,
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
INTEGERS = ("add", "sub", "mul", "floordiv", "floormod", "min", "max", "shr")
FLOATS = ("add", "sub", "mul", "div", "min", "max")
COMPARISONS = ("lt", "le", "eq", "ne")
NUMBERS = {"int8": (-128, -1, 0, 1, 3, 127), "int32": (-(2**31), -7, -1, 0, 1, 5, 33, 2**31 - 1)}


def values(rng, shape, dtype):
    if dtype == "float32":
        a = rng.normal(0, 100, shape).astype(dtype)
        special = rng.choice([0.0, 0.0, np.inf, -np.inf, np.nan, 1e30, -3e9], shape)
        return np.where(rng.random(shape) < 0.1, special, a).astype(dtype)
    info = np.iinfo(dtype)
    a = rng.integers(info.min, info.max, shape, dtype, endpoint=True)
    return np.where(rng.random(shape) < 0.3, rng.integers(-40, 40, shape), a).astype(dtype)


@st.composite
def expressions(draw, sources, axes, dtype, depth):
    """An expression of a type, over elements of the sources at shifted, clipped places."""
    kind = draw(st.sampled_from(["leaf", "binary", "binary", "cast", "select", "axis"]))
    if depth == 0 or kind == "leaf":
        t = draw(st.sampled_from([s for s in sources if s.dtype == dtype]))
        return t[tuple(draw(places(a, n)) for a, n in zip(axes, t.shape, strict=True))]
    deeper = lambda d: draw(expressions(sources, axes, d, depth - 1))  # noqa: E731
    if kind == "axis":
        number = draw(st.sampled_from(NUMBERS.get(dtype, (-1.5, 0.0, 2.0))))
        index = draw(st.sampled_from(axes))
        return draw(st.sampled_from([te.const(number, dtype), te.cast(index + 0, dtype)]))
    if kind == "cast":
        return te.cast(deeper(draw(st.sampled_from(["int8", "int32", "float32"]))), dtype)
    if kind == "select":
        other = draw(st.sampled_from(["int8", "int32", "float32"]))
        op = draw(st.sampled_from(COMPARISONS))
        return te.select(te.Binary(op, deeper(other), deeper(other)), deeper(dtype), deeper(dtype))
    op = draw(st.sampled_from(FLOATS if dtype == "float32" else INTEGERS))
    return te.Binary(op, deeper(dtype), deeper(dtype))


@st.composite
def places(draw, axis, extent):
    """Where to read along an axis: as it runs, backwards, fixed, folded, or shifted and clipped."""
    i = axis + 0
    return draw(
        st.sampled_from(
            [
                i,
                i,
                i,
                extent - 1 - i,
                te.const(extent // 2),
                i // 2,
                (i * 3) % extent,
                te.clip(i + 1, 0, extent - 1),
                te.select(i < extent - 2, i + 2, te.const(0)),
            ]
        )
    )


@st.composite
def schedules(draw, tensor):
    """Loops split, reordered and marked at random."""
    s = create_schedule(tensor)
    stage = s[tensor]
    for axis in list(stage.leaves):
        if draw(st.booleans()):
            stage.split(axis, draw(st.integers(1, 20)))
    spatial = [a for a in stage.leaves if not a.reduce]
    order = draw(st.permutations(spatial))
    if draw(st.booleans()) and not stage.reduce_axis:
        stage.reorder(*order)
    marks = {"vectorize": draw(st.booleans()), "parallel": draw(st.booleans())}
    if marks["parallel"]:
        stage.parallel(order[0])
    if marks["vectorize"] and len(order) > 1:
        stage.vectorize(order[-1])
    if draw(st.booleans()) and len(order) > 2:
        stage.unroll(order[1])
    return s


def check(schedule, tensor, inputs, seed, *, also_interpret=True):
    rng = np.random.default_rng(seed)
    arrays = {t: values(rng, t.shape, t.dtype) for t in inputs}
    want = te.evaluate(tensor, dict(arrays))
    function = lower(schedule, [*inputs, tensor], name="random")
    code = build(function)
    for threads in (1, 2):
        code.threads = threads
        got = np.full(tensor.shape, 99).astype(tensor.dtype)
        code(*arrays.values(), got)
        np.testing.assert_array_equal(got, want, err_msg=str(function))
    # The interpreter's min and max are Python's, which lose what is not a number.
    if also_interpret and want.size <= 200 and not np.isnan(want).any():
        slow = np.full(tensor.shape, 99).astype(tensor.dtype)
        interpret(function, *arrays.values(), slow)
        np.testing.assert_array_equal(slow, want)


SHAPES = st.lists(st.integers(1, 37), min_size=1, max_size=3).filter(lambda s: np.prod(s) < 4000)


@EXAMPLES
@given(st.data(), SHAPES, st.sampled_from(["int8", "int32", "float32"]), st.integers(0, 99))
def test_elementwise_equals_numpy(data, shape, dtype, seed):
    sources = [te.placeholder(shape, d, name=f"x{d}") for d in ("int8", "int32", "float32")]
    drawn = []

    def body(*axes):
        drawn.append(data.draw(expressions(sources, axes, dtype, 3)))
        return drawn[-1]

    names = ["i", "j", "k"][: len(shape)]
    rule = eval(f"lambda {', '.join(names)}: body({', '.join(names)})", {"body": body})
    tensor = te.compute(shape, rule, name="y")
    schedule = data.draw(schedules(tensor))
    used = {r.tensor for r in walk(tensor.body) if isinstance(r, te.Read)}
    check(schedule, tensor, [t for t in sources if t in used], seed, also_interpret=False)


@EXAMPLES
@given(
    st.data(),
    st.tuples(*[st.integers(1, 24)] * 3),
    st.sampled_from([("int8", "int32"), ("int32", "int32"), ("float32", "float32")]),
    st.sampled_from([te.sum, te.max, te.min]),
    st.integers(0, 99),
)
def test_reductions_equal_numpy(data, sizes, dtypes, reduce, seed):
    m, n, depth = sizes
    a = te.placeholder((m, depth), dtypes[0], name="a")
    b = te.placeholder((depth, n), dtypes[0], name="b")
    r = te.reduce_axis((0, depth), name="r")
    y = te.compute(
        (m, n),
        lambda i, j: reduce(te.cast(a[i, r], dtypes[1]) * te.cast(b[r, j], dtypes[1]), axis=r),
        name="y",
    )
    s = create_schedule(y)
    stage = s[y]
    if data.draw(st.booleans()):
        cached = s.cache_write(y, "local")
        i, j = stage.axis
        _, jo, ii, ji = stage.tile(
            i, j, data.draw(st.integers(1, 5)), data.draw(st.integers(1, 20))
        )
        s[cached].compute_at(stage, jo)
        stage.vectorize(ji)
        stage.unroll(ii)
        x, z = s[cached].axis
        s[cached].reorder(s[cached].reduce_axis[0], x, z)
        s[cached].vectorize(z)
        s[cached].unroll(x)
    else:
        i, j = stage.axis
        if data.draw(st.booleans()):
            stage.reorder(*data.draw(st.permutations([i, j, stage.reduce_axis[0]])))
        stage.vectorize(data.draw(st.sampled_from([i, j])))
        if dtypes[1] == "int32" and data.draw(st.booleans()) and stage.leaves[0] in (i, j):
            axis = stage.leaves[0]
            if axis not in stage.kinds:
                stage.parallel(axis)
    check(s, y, [a, b], seed)


@pytest.mark.parametrize("dtype", ["int8", "int32", "float32"])
@pytest.mark.parametrize("depth", [1, 5, 16, 63, 64, 65, 200, 1000])
def test_vectorised_sums_use_all_lanes(dtype, depth):
    x = te.placeholder((3, depth), dtype, name="x")
    r = te.reduce_axis((0, depth), name="r")
    wide = "float32" if dtype == "float32" else "int32"
    y = te.compute((3,), lambda i: te.sum(te.cast(x[i, r], wide), axis=r), name="y")
    s = create_schedule(y)
    s[y].vectorize(s[y].reduce_axis[0], reassociate=True)
    rng = np.random.default_rng(depth)
    value = rng.integers(-100, 100, x.shape).astype(dtype)
    got = np.zeros(3, wide)
    build(lower(s, name="sums"))(value, got)
    # Whole numbers: sums in any order are exact.
    np.testing.assert_array_equal(got, te.evaluate(y, {x: value}))


@EXAMPLES
@given(st.tuples(st.integers(1, 9), st.integers(1, 40)), st.integers(0, 3), st.integers(1, 20))
def test_padding_reads_nothing_outside(shape, frame, factor):
    x = te.placeholder(shape, "float32", name="x")
    y = te.pad(x, (frame, frame), value=7)
    s = create_schedule(y)
    _, inner = s[y].split(s[y].axis[1], factor)
    s[y].vectorize(inner)
    s[y].parallel(s[y].axis[0])
    rng = np.random.default_rng(factor)
    value = rng.random(shape).astype("f")
    got = np.zeros(y.shape, "f")
    build(lower(s, name="pad"), threads=2)(value, got)
    np.testing.assert_array_equal(got, te.evaluate(y, {x: value}))
