"""Free variables as parameters: numbers, beside arrays, of every back end but the machine's."""

import numpy as np
import pytest
from llvmlite import ir

from covta.compiler import te
from covta.compiler.build import build as build_program
from covta.compiler.ir import interpret
from covta.compiler.llvm import build, build_object
from covta.compiler.llvm.codegen import generate
from covta.compiler.lower import lower
from covta.compiler.lower.unroll import unroll
from covta.compiler.schedule import ScheduleError, create_schedule
from covta.hw.params import Config

X = te.placeholder((37,), "int32", name="X")
x = np.random.default_rng(0).integers(-(2**31), 2**31, 37).astype(np.int32)
N, B8, S, P = te.var("n"), te.var("b", "int8"), te.var("s", "float32"), te.var("p", "bool")

RULES = {
    "product": ((N,), lambda i: X[i] * N),
    "wraps": ((N,), lambda i: te.select(N * 2 + i < 8, X[i], N * 4 // 4)),
    "index": ((N,), lambda i: X[te.clip(N, 0, 9) + i % 20]),
    "mod": ((N,), lambda i: X[(i + N % 37) % 37]),
    "guard": ((N,), lambda i: te.select((i < N) & (N <= 37), X[i], -1)),
    "byte": ((B8,), lambda i: X[i] >> (B8.astype("int32") % 8)),
    "float": ((S,), lambda i: X[i].astype("float32") * S + 0.5),
    "condition": ((P,), lambda i: te.select(P & (i > 3), X[i], 0)),
    "all": (
        (N, B8, S, P),
        lambda i: te.select(~P, X[i] * N, (S * 2.0).astype("int32") + B8.astype("int32")),
    ),
}
NUMBERS = {
    N: [0, 5, -3, 37, 2**31 - 1, -(2**31), 2**30],
    B8: [0, -128, 127],
    S: [0.0, -1.5, 3e9],
    P: [True, False],
}


def check(c, s, scalars):
    args = [*scalars[:1], X, *scalars[1:], c]
    function = lower(s, args)
    compiled = build(function, threads=2)
    for turn in range(max(len(NUMBERS[v]) for v in scalars)):
        numbers = {v: NUMBERS[v][turn % len(NUMBERS[v])] for v in scalars}
        want = te.evaluate(c, {X: x} | numbers)
        given = [numbers[v] if v in numbers else x for v in args[:-1]]
        for run in (lambda *a: interpret(function, *a), compiled):
            result = np.zeros(c.shape, c.dtype)
            run(*given, result)
            np.testing.assert_array_equal(result, want, str(numbers))


@pytest.mark.parametrize("kind", ["serial", "vectorize", "parallel", "tiles"])
@pytest.mark.parametrize("case", RULES)
def test_a_number_means_the_same_everywhere(case, kind):
    scalars, rule = RULES[case]
    c = te.compute((37,), rule, name="c")
    s = create_schedule(c)
    if kind == "tiles":
        outer, inner = s[c].split(s[c].axis[0], 8)
        s[c].vectorize(inner)
        s[c].parallel(outer)
    elif kind != "serial":
        getattr(s[c], kind)(s[c].axis[0])
    check(c, s, scalars)


@pytest.mark.parametrize("vector", [False, True])
@pytest.mark.parametrize("kind", [te.sum, te.max])
def test_a_reduction_up_to_a_number(kind, vector):
    k = te.reduce_axis((0, 37), name="k")
    c = te.compute((1,), lambda i: kind(te.select(k < N, X[k], -(2**31)), axis=k), name="c")
    s = create_schedule(c)
    if vector:
        s[c].vectorize(k)
    check(c, s, (N,))


def test_a_number_scales_an_inlined_and_an_attached_tensor():
    a = te.compute((37,), lambda i: X[i] * N, name="a")
    b = te.compute((37,), lambda i: a[i] + N, name="b")
    c = te.compute((37,), lambda i: b[i] - a[36 - i], name="c")
    s = create_schedule(c)
    s[b].compute_inline()
    outer, inner = s[c].split(s[c].axis[0], 8)
    s[a].compute_at(s[c], outer)
    s[c].vectorize(inner)
    check(c, s, (N,))


def test_parameters_are_named_in_the_order_given():
    c = te.compute((37,), lambda n: X[n] * N, name="c")
    f = lower(create_schedule(c), [X, N, c])
    assert str(f).splitlines() == [
        "def kernel(X: int32[37], n: int32, c: int32[37]):",
        "    for n_1 in range(37):",
        "        c[n_1] = X[n_1] * n",
    ]
    assert [p.name for p in lower(create_schedule(c)).params] == ["X", "n", "c"]


def test_a_header_declares_numbers():
    c = te.compute((37,), RULES["all"][1], name="c")
    f = lower(create_schedule(c), [N, X, B8, S, P, c], name="f")
    header = build_object(f, "aarch64").header
    want = "int32_t f(int32_t n, const int32_t *X, int8_t b, float s, int8_t p, int32_t *c);"
    assert want in header
    assert " *   s: float32\n" in header
    kinds = generate(f).get_global("f").ftype.args
    assert [type(k) for k in kinds] == [
        ir.IntType, ir.PointerType, ir.IntType, ir.FloatType, ir.IntType, ir.PointerType
    ]  # fmt: skip


def test_what_a_number_cannot_be_is_refused():
    c = te.compute((37,), lambda i: X[i] * N, name="c")
    f = lower(create_schedule(c), [X, N, c])
    out = np.zeros(37, np.int32)
    with pytest.raises(ValueError, match=r"kernel: n: a constant of int32 must lie in"):
        build(f)(x, 2**31, out)
    with pytest.raises(ValueError, match=r"kernel: n: a constant must be a number, got array"):
        build(f)(x, x, out)
    with pytest.raises(TypeError, match=r"kernel takes 3 arguments \(X, n, c\), got 2"):
        build(f)(x, out)
    with pytest.raises(te.ExprError, match=r"a constant of int32 must lie in .*, got 2\.5"):
        interpret(f, x, 2.5, out)


def test_args_must_name_what_is_used_and_no_more():
    c = te.compute((37,), lambda i: X[i] * N, name="c")
    s = create_schedule(c)
    for args, message in (
        ([X, c], "lower: args must name n, which is read or computed"),
        ([X, N, te.var("m"), c], "lower: args name m, which is neither read nor computed"),
        ([X, N, N, c], "lower: args name n twice"),
        ([X, 5, N, c], "lower: args must be tensors and variables, got int"),
        ([X, c, N], "lower: outputs must come last among args"),
    ):
        with pytest.raises(ScheduleError) as error:
            lower(s, args)
        assert str(error.value) == message


def shifted(at):
    a = te.compute((37,), lambda i: X[i] * 2, name="a")
    c = te.compute((37,), lambda i: a[(at % 37 + i) % 37], name="c")
    s = create_schedule(c)
    outer, _ = s[c].split(s[c].axis[0], 8)
    s[a].compute_at(s[c], outer)
    return s


def test_a_tensor_is_not_computed_where_its_reader_points_by_a_number():
    with pytest.raises(ScheduleError, match=r"compute_at: a cannot be computed in a loop, as"):
        lower(shifted(N))


def test_a_tensor_is_computed_whole_where_its_reader_points_by_data():
    x = np.random.default_rng(0).integers(0, 99, 37).astype(np.int32)
    results = np.zeros((2, 37), np.int32)
    function = lower(shifted(X[0]))
    interpret(function, x, results[0])
    build(function)(x, results[1])
    np.testing.assert_array_equal(results, [(x * 2)[(x[0] + np.arange(37)) % 37]] * 2)


def test_the_machine_takes_no_numbers():
    c = te.compute((37,), lambda i: X[i] * N, name="c")
    cfg = Config()
    with pytest.raises(ScheduleError, match=r"takes no numbers as parameters, got n; put const"):
        unroll(cfg, lower(create_schedule(c)))
    with pytest.raises(ScheduleError, match=r"main: the machine takes no numbers"):
        build_program(cfg, create_schedule(c), [X, N, c])
