"""The matcher replaces a nest only by what it is."""

import random
from dataclasses import dataclass, replace

import numpy as np
import pytest

from covta.compiler import te
from covta.compiler.intrin import MachineIntrinsics, decl_tensor_intrin, intrin_call
from covta.compiler.ir import Call, interpret
from covta.compiler.ir.stmt import walk_stmts
from covta.compiler.lower import lower
from covta.compiler.schedule import ScheduleError, create_schedule
from covta.hw.params import load_config

CFG = load_config("edge")
MACHINE = MachineIntrinsics(CFG)


def gemm(n):
    w, x = te.placeholder((n, n), "int32", name="w"), te.placeholder((n, n), "int32", name="x")
    k = te.reduce_axis((0, n), name="k")
    y = te.compute((n, n), lambda i, j: te.sum(w[i, k] * x[j, k], axis=k), name="y")
    calls = (intrin_call("gemm"), intrin_call("zero"), intrin_call("gemm_add"))
    return decl_tensor_intrin(y.op, lambda inputs, outputs: calls, name=f"gemm{n}")


def product(element, shape=(16, 8), depth=24):
    a = te.placeholder((shape[0], depth), "int32", name="A")
    b = te.placeholder((shape[1], depth), "int32", name="B")
    k = te.reduce_axis((0, depth), name="k")
    c = te.compute(shape, lambda i, j: te.sum(element(a, b, i, j, k), axis=k), name="C")
    return a, b, c, k


def tensorize(c, k, factor=8):
    s = create_schedule(c)
    io, jo, ii, ji = s[c].tile(*s[c].axis, factor, factor)
    ko, ki = s[c].split(k, factor)
    s[c].reorder(io, jo, ko, ii, ji, ki)
    s[c].tensorize(ii, gemm(8))
    return s


@pytest.mark.parametrize(
    "element",
    [lambda a, b, i, j, k: a[i, k] * b[j, k], lambda a, b, i, j, k: b[j, k] * a[i, k]],
    ids=["as declared", "operands swapped"],
)
def test_an_8x8_gemm_is_used_and_right(element):
    a, b, c, k = product(element)
    function = lower(tensorize(c, k), [a, b, c])
    phases = [s.phase for s in walk_stmts(function.body) if isinstance(s, Call)]
    assert phases == ["reset", "update"]
    rng = np.random.default_rng(0)
    av, bv = (rng.integers(-99, 99, t.shape).astype(np.int32) for t in (a, b))
    cv = np.zeros(c.shape, np.int32)
    interpret(function, av, bv, cv)
    np.testing.assert_array_equal(cv, av @ bv.T)


def test_without_outer_reduction_compute_is_used():
    a, b, c, k = product(lambda a, b, i, j, k: a[i, k] * b[j, k], depth=8)
    s = create_schedule(c)
    _, _, ii, ji = s[c].tile(*s[c].axis, 8, 8)
    s[c].reorder(ii, ji, k)
    s[c].tensorize(ii, gemm(8))
    function = lower(s, [a, b, c])
    assert [x.phase for x in walk_stmts(function.body) if isinstance(x, Call)] == ["compute"]


@pytest.mark.parametrize(
    ("element", "message"),
    [
        (lambda a, b, i, j, k: a[i, k] + b[j, k], "is not of the form w[i, k] * x[j, k]"),
        (lambda a, b, i, j, k: a[i, k] * a[i, k], "does not step like"),
        (lambda a, b, i, j, k: a[i, 23 - k] * b[j, k], "does not step like"),
        (lambda a, b, i, j, k: a[i, k] * 3, "is not of the form w[i, k] * x[j, k]"),
        (lambda a, b, i, j, k: a[i // 2, k] * b[j, k], "is not linear in the loops"),
    ],
)
def test_anything_else_is_refused(element, message):
    _a, _b, c, k = product(element)
    with pytest.raises(ScheduleError) as error:
        lower(tensorize(c, k), None)
    assert message in str(error.value)


def test_loops_of_another_size_are_refused():
    _a, _b, c, k = product(lambda a, b, i, j, k: a[i, k] * b[j, k])
    message = r"it needs loops of 8, 8, 8 \(reduced\) turns, got 4, 4, 4 \(reduced\)"
    with pytest.raises(ScheduleError, match=message):
        lower(tensorize(c, k, factor=4))


def test_a_smaller_last_tile_is_refused():
    _a, _b, c, k = product(lambda a, b, i, j, k: a[i, k] * b[j, k], shape=(12, 8))
    with pytest.raises(ScheduleError, match="must have a fixed number of turns"):
        lower(tensorize(c, k))


def test_another_reduction_is_refused_at_once():
    a = te.placeholder((8, 8), "int32", name="A")
    k = te.reduce_axis((0, 8), name="k")
    c = te.compute((8, 8), lambda i, j: te.max(a[i, k] * a[j, k], axis=k), name="C")
    s = create_schedule(c)
    with pytest.raises(ScheduleError, match="gemm8 is a sum over 1 axes"):
        s[c].tensorize(s[c].axis[0], gemm(8))
    assert s[c].intrin is None


def test_loops_within_an_intrinsic_cannot_be_split():
    _a, _b, c, k = product(lambda a, b, i, j, k: a[i, k] * b[j, k])
    s = tensorize(c, k)
    with pytest.raises(ScheduleError, match="lies within gemm8"):
        s[c].split(s[c].leaves[-1], 2)


def machine_conv(x_type="int8", scopes=("inp", "wgt", "acc")):
    x = te.placeholder((4, 6, CFG.batch, CFG.block_in), x_type, name="x")
    w = te.placeholder((2, 4, CFG.block_out, CFG.block_in), "int8", name="w")
    c, i = te.reduce_axis((0, 4), "c"), te.reduce_axis((0, CFG.block_in), "i")
    y = te.compute(
        (2, 6, CFG.batch, CFG.block_out),
        lambda o, p, r, j: te.sum(
            x[c, p, r, i].astype("int32") * w[o, c, j, i].astype("int32"), axis=[c, i]
        ),
        name="y",
    )
    z = te.compute(y.shape, lambda *q: y[q].astype("int8"), name="z")
    s = create_schedule(z)
    o, p, r, j = s[y].axis
    s[y].reorder(o, c, p, r, j, i)
    s[y].tensorize(r, MACHINE.gemm)
    s[y].set_scope(scopes[2])
    s.cache_read(x, scopes[0], [y])
    s.cache_read(w, scopes[1], [y])
    return s


def test_the_machine_multiplies_what_lies_in_its_scratchpads():
    assert "<- vta.gemm.update(x.inp[c, p, 0, 0:+16], w.wgt[o, c, 0:+16, 0:+16]" in str(
        machine_conv()
    )


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ({"x_type": "int32"}, "is not of the form int32(x[b, i]) * int32(w[o, i])"),
        ({"scopes": ("wgt", "wgt", "acc")}, "x.wgt must lie in inp, got wgt"),
        ({"scopes": ("inp", "wgt", "local")}, "y must lie in acc, got local"),
    ],
)
def test_the_machine_refuses_other_types_and_places(case, message):
    with pytest.raises(ScheduleError) as error:
        lower(machine_conv(**case))
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("lower_rule", "message"),
    [
        (lambda i, o: None, "must return one intrin_call or three"),
        (lambda i, o: (None, None, None), "must return one intrin_call or three"),
        (lambda i, o: (None, intrin_call("a"), None), "must give compute: it is no reduction"),
    ],
)
def test_a_lowering_rule_must_lower(lower_rule, message):
    x = te.placeholder((4,), "int32", name="x")
    y = te.compute((4,), lambda i: x[i] + 1, name="y")
    with pytest.raises(te.ExprError, match=message):
        decl_tensor_intrin(y.op, lower_rule)


# ---- behaviours with offsets, fixed indices, and operands larger than what is read -----------
def declare(y, name="hw"):
    """An intrinsic of any behaviour."""
    calls = intrin_call("c"), intrin_call("r"), intrin_call("u")
    reduces = isinstance(y.body, te.Reduce)
    return decl_tensor_intrin(y.op, lambda i, o: calls if reduces else calls[0], name=name)


def use(y, c, axis=0):
    """`c` with its loops from `axis` inwards replaced by what computes `y`."""
    s = create_schedule(c)
    s[c].tensorize(s[c].leaves[axis], declare(y))
    return s


def check(s, c, inputs):
    """Lower, run, compare with what the tensor expression says; the call's inputs as text."""
    function = lower(s, [*inputs, c])
    calls = [x for x in walk_stmts(function.body) if isinstance(x, Call) and x.phase != "reset"]
    assert calls
    rng = np.random.default_rng(1)
    arrays = [rng.integers(-99, 99, t.shape).astype(t.dtype) for t in inputs]
    result = np.full(c.shape, 77, c.dtype)
    interpret(function, *arrays, result)
    expected = te.evaluate(c, dict(zip(inputs, arrays, strict=True)))
    np.testing.assert_array_equal(result, expected, err_msg=str(function))
    return ", ".join(map(str, calls[0].inputs))


def vector(size, element, name):
    """A tensor of 8, its elements made of those of a placeholder of `size`."""
    x = te.placeholder((size,), "int32", name={"y": "x", "C": "A"}[name])
    return te.compute((8,), lambda i: element(x, i), name=name), x


@pytest.mark.parametrize(
    ("theirs", "mine", "region"),
    [
        ((9, lambda x, i: x[i + 1] * 3), (9, lambda x, i: x[i + 1] * 3), "A[0:+9]"),
        ((9, lambda x, i: x[i + 1] * 3), (12, lambda x, i: x[i + 4] * 3), "A[3:+9]"),
        ((8, lambda x, i: x[i] * 3), (12, lambda x, i: x[i + 4] * 3), "A[4:+8]"),
        ((8, lambda x, i: x[7 - i]), (8, lambda x, i: x[7 - i]), "A[0:+8]"),
        ((8, lambda x, i: x[7 - i]), (12, lambda x, i: x[9 - i]), "A[2:+8]"),
        ((15, lambda x, i: x[i * 2]), (15, lambda x, i: x[i * 2]), "A[0:+15]"),
        ((16, lambda x, i: x[i * 2 + 1]), (20, lambda x, i: x[i * 2 + 3]), "A[2:+16]"),
        ((9, lambda x, i: x[i] - x[i + 1]), (12, lambda x, i: x[i + 2] - x[i + 3]), "A[2:+9]"),
        ((9, lambda x, i: x[i] + x[i + 1]), (9, lambda x, i: x[i + 1] + x[i]), "A[0:+9]"),
        ((1, lambda x, i: x[0]), (8, lambda x, i: x[3]), "A[3]"),
        ((4, lambda x, i: x[2]), (8, lambda x, i: x[3]), "A[1:+4]"),
        ((12, lambda x, i: x[i + 2]), (14, lambda x, i: x[i + 3]), "A[1:+12]"),
    ],
)
def test_operands_begin_where_the_behaviour_counts_from(theirs, mine, region):
    (y, _), (c, a) = vector(*theirs, "y"), vector(*mine, "C")
    assert check(use(y, c), c, [a]) == region


@pytest.mark.parametrize(
    ("theirs", "mine", "message"),
    [
        (
            (9, lambda x, i: x[i + 1] * 3),
            (9, lambda x, i: x[i] * 3),
            "x[i + 1] needs -1:+9 of dimension 0 of A, which has 9",
        ),
        (
            (16, lambda x, i: x[i] * 3),
            (8, lambda x, i: x[i] * 3),
            "x[i] needs 0:+16 of dimension 0 of A, which has 8",
        ),
        (
            (8, lambda x, i: x[0]),
            (8, lambda x, i: x[3]),
            "x[0] needs 3:+8 of dimension 0 of A, which has 8",
        ),
        (
            (9, lambda x, i: x[7 - i]),
            (9, lambda x, i: x[8 - i]),
            "x[7 - i] needs 1:+9 of dimension 0 of A, which has 9",
        ),
        ((9, lambda x, i: x[i] - x[i + 1]), (9, lambda x, i: x[i + 1] - x[i]), "x[i] needs 1:+9"),
        (
            (10, lambda x, i: x[i] - x[i + 1]),
            (12, lambda x, i: x[i] - x[i + 2]),
            "x stands for A[i] and for A[i + 2]",
        ),
        ((8, lambda x, i: x[7 - i]), (8, lambda x, i: x[i]), "does not step like x[7 - i]"),
        (
            (9, lambda x, i: x[i + i % 2] * 2),
            (9, lambda x, i: x[i] * 2),
            "x[i + i % 2] must be linear in the axes of y",
        ),
        (
            (9, lambda x, i: x[i + i % 2] * 2),
            (9, lambda x, i: x[i + i % 2] * 2),
            "x[i + i % 2] must be linear in the axes of y",
        ),
        (
            (9, lambda x, i: x[i * i % 8] * 2),
            (9, lambda x, i: x[0] * 2),
            "x[i * i % 8] must be linear in the axes of y",
        ),
        (
            (9, lambda x, i: x[i] * 2),
            (9, lambda x, i: x[i + i % 2] * 2),
            "A[i + i % 2] is not linear in the loops",
        ),
        (
            (8, lambda x, i: x[i - 1]),
            (8, lambda x, i: x[i]),
            "x[i - 1] goes from -1 to 6, x has 8",
        ),
        ((8, lambda x, i: x[i + 1]), (9, lambda x, i: x[i]), "x[i + 1] goes from 1 to 8, x has 8"),
        (
            (9, lambda x, i: x[x[i] % 9]),
            (9, lambda x, i: x[x[i] % 9]),
            "x[x[i] % 9] must be linear in the axes of y",
        ),
        ((1, lambda x, i: x[0]), (9, lambda x, i: x[x[0] % 9]), "A[A[0] % 9] depends on data"),
        ((8, lambda x, i: x[i] + i), (8, lambda x, i: x[i] + i), "is not of the form x[i] + i"),
        ((8, lambda x, i: x[i] * 3), (8, lambda x, i: x[i] * 4), "is not of the form x[i] * 3"),
    ],
)
def test_what_reads_other_elements_is_refused(theirs, mine, message):
    (y, _), (c, _) = vector(*theirs, "y"), vector(*mine, "C")
    with pytest.raises(ScheduleError) as error:
        lower(use(y, c))
    assert message in str(error.value)


def test_a_fixed_row_of_an_operand_must_have_its_rows_around_it():
    x = te.placeholder((4, 8), "int32", name="x")
    y = te.compute((8,), lambda i: x[2, i], name="y")
    a = te.placeholder((4, 8), "int32", name="A")
    c = te.compute((4, 8), lambda j, i: a[j, i], name="C")
    with pytest.raises(ScheduleError, match=r"needs j - 2:\+4 of dimension 0 of A, which has 4"):
        lower(use(y, c, axis=1))
    b = te.placeholder((7, 8), "int32", name="B")
    d = te.compute((4, 8), lambda j, i: b[j + 2, i], name="D")
    assert check(use(y, d, axis=1), d, [b]) == "B[j:+4, 0:+8]"


def test_of_two_operands_each_has_its_own_offset():
    x, w = (te.placeholder((9,), "int32", name=n) for n in "xw")
    y = te.compute((8,), lambda i: x[i] - w[i + 1], name="y")
    a, b = (te.placeholder((12,), "int32", name=n) for n in "AB")
    c = te.compute((8,), lambda i: a[i + 2] - b[i + 2], name="C")
    assert check(use(y, c), c, [a, b]) == "A[2:+9], B[1:+9]"
    d = te.compute((8,), lambda i: a[i + 2] - b[i], name="D")
    with pytest.raises(ScheduleError, match=r"w\[i \+ 1\] needs -1:\+9 of dimension 0 of B"):
        lower(use(y, d))


def test_an_operand_in_a_cache_must_lie_within_the_cache():
    x = te.placeholder((9,), "int32", name="x")
    y = te.compute((8,), lambda i: x[i] * 3, name="y")  # the ninth is not read
    a = te.placeholder((33,), "int32", name="A")
    c = te.compute((32,), lambda i: a[i] * 3, name="C")
    for attach in (False, True):
        s = create_schedule(c)
        outer, inner = s[c].split(c.axis[0], 8)
        s[c].tensorize(inner, declare(y))
        cached = s.cache_read(a, "local", [c])
        if attach:
            s[cached].compute_at(s[c], outer)
            with pytest.raises(ScheduleError, match=r"dimension 0 of A.local, which has 8"):
                lower(s, [a, c])
        else:
            assert check(s, c, [a]) == "A.local[i.o * 8:+9]"


def test_strided_and_shared_dimensions():
    x = te.placeholder((2, 10), "int32", name="x")
    k = te.reduce_axis((0, 3), name="k")
    y = te.compute((2, 4), lambda p, i: te.sum(x[p, i * 2 + k + 1], axis=k), name="y")
    a = te.placeholder((4, 40), "int32", name="A")
    r = te.reduce_axis((0, 3), name="r")
    c = te.compute((4, 16), lambda p, i: te.sum(a[p, i * 2 + r + 2], axis=r), name="C")
    s = create_schedule(c)
    _, _, pi, ii = s[c].tile(*c.axis, 2, 4)
    s[c].reorder(pi, ii, r)
    s[c].tensorize(pi, declare(y))
    assert check(s, c, [a]) == "A[p.o * 2:+2, i.o * 8 + 1:+10]"


def test_dimensions_of_one_may_lack_in_the_nest():
    x = te.placeholder((1, 8), "int32", name="x")
    y = te.compute((1, 8), lambda b, i: x[b, i] * 3, name="y")
    a = te.placeholder((16,), "int32", name="A")
    c = te.compute((16,), lambda i: a[i] * 3, name="C")
    s = create_schedule(c)
    _, inner = s[c].split(c.axis[0], 8)
    s[c].tensorize(inner, declare(y))
    assert check(s, c, [a]) == "A[i.o * 8:+8]"
    x2 = te.placeholder((2, 8), "int32", name="x")
    d, _ = vector(8, lambda x, i: x[i] * 3, "C")
    with pytest.raises(ScheduleError, match="A has too few dimensions"):
        lower(use(te.compute((8,), lambda i: x2[0, i] * 3, name="y"), d))


def test_nothing_else_may_be_computed_within_an_intrinsic():
    x = te.placeholder((2,), "int32", name="x")
    y = te.compute((8, 2), lambda i, j: x[j] * 2, name="y")
    a = te.placeholder((2,), "int32", name="A")
    p = te.compute((2,), lambda j: a[j] + 1, name="P")
    c = te.compute((8, 2), lambda i, j: p[j] * 2, name="C")
    s = create_schedule(c)
    s[p].compute_at(s[c], c.axis[0])
    s[c].tensorize(c.axis[0], declare(y))
    with pytest.raises(ScheduleError, match="P is computed within the intrinsic"):
        lower(s)


def test_no_pragma_may_lie_within_an_intrinsic():
    (y, _), (c, _) = vector(8, lambda x, i: x[i] * 3, "y"), vector(8, lambda x, i: x[i] * 3, "C")
    s = create_schedule(c)
    outer, inner = s[c].split(c.axis[0], 8)
    s[c].pragma(inner, "alu")
    with pytest.raises(ScheduleError, match=r"tensorize: i.i of C has the pragma alu"):
        s[c].tensorize(outer, declare(y))


def test_a_behaviour_may_be_that_of_the_nest_itself():
    """The axes are the very same variables then; they still have no values to compare."""
    c, a = vector(8, lambda x, i: x[i] * 3, "C")
    assert check(use(c, c), c, [a]) == "A[0:+8]"
    d, _ = vector(8, lambda x, i: x[i] + i, "C")
    with pytest.raises(ScheduleError, match="is not of the form"):
        lower(use(d, d))


@pytest.mark.parametrize(
    ("theirs", "mine"),
    [
        (lambda x: te.Lookup((1, 5, 9), x % 3), lambda a: te.Lookup((1, 5, 8), a % 3)),
        (lambda x: x.astype("float32") / 0.0, lambda a: a.astype("float32") / -0.0),
    ],
    ids=["table", "sign of zero"],
)
def test_constants_of_all_kinds_must_be_the_same(theirs, mine):
    y, _ = vector(8, lambda x, i: theirs(x[i]), "y")
    c, _ = vector(8, lambda a, i: mine(a[i]), "C")
    with pytest.raises(ScheduleError, match="is not of the form"):
        lower(use(y, c))


def test_conditions_on_data_are_part_of_what_is_computed():
    x, z = (te.placeholder((4, 3), "int32", name=n) for n in "xz")
    k = te.reduce_axis((0, 3), name="k")
    zero = te.const(0)
    y = te.compute((4,), lambda i: te.sum(te.select(z[i, k] > 0, x[i, k], zero), axis=k), name="y")
    a, b = (te.placeholder((8, 3), "int32", name=n) for n in "AB")
    r = te.reduce_axis((0, 3), name="r")
    c = te.compute((8,), lambda i: te.sum(te.select(a[i, r] > 0, b[i, r], zero), axis=r), name="C")
    s = create_schedule(c)
    plain = lower(s, [a, b, c])
    assert "C[i] = C[i] + select(0 < A[i, r], B[i, r], 0)" in str(plain)
    _, inner = s[c].split(c.axis[0], 4)
    s[c].tensorize(inner, declare(y))
    assert check(s, c, [a, b]) == "A[i.o * 4:+4, 0:+3], B[i.o * 4:+4, 0:+3]"


# ---- random behaviours against random nests --------------------------------------------------
OPERATORS = {
    "mul": lambda a, b: a * b,
    "sub": lambda a, b: a - b,
    "max": te.maximum,
    "once": lambda a, b: a * 3,
}


@dataclass(frozen=True)
class Index:
    """One index of a random read: ``sum(step * axis) + offset``, spare elements behind it."""

    steps: tuple[int, ...]
    offset: int
    spare: int
    odd: bool

    @classmethod
    def draw(cls, rng, axes):
        return cls(
            tuple(rng.choice([0, 0, 1, 1, 1, 2, -1]) for _ in range(axes)),
            rng.choice([0, 0, 0, 1, 2]),
            rng.choice([0, 0, 0, 1, 2]),
            rng.random() < 0.04,
        )

    def altered(self, rng):
        """The same, or another one, or one that begins later or has less behind it."""
        if rng.random() < 0.08:
            return Index.draw(rng, len(self.steps))
        return replace(
            self,
            offset=max(0, self.offset + rng.choice([0, 0, 0, 1, -1])),
            spare=rng.choice([0, self.spare, 2]),
            odd=self.odd or rng.random() < 0.05,
        )

    def shortened(self, rng):
        """The same, perhaps of a placeholder that lacks the last element that is read."""
        return replace(self, spare=-1) if rng.random() < 0.05 else self

    def size(self, extents):
        """Elements that it needs, the first being 0."""
        turns = sum(abs(c) * (n - 1) for c, n in zip(self.steps, extents, strict=True))
        return max(1, self.offset + turns + self.odd + self.spare + 1)

    def expr(self, axes, extents):
        first = sum(c * (n - 1) for c, n in zip(self.steps, extents, strict=True) if c < 0)
        result = te.const(self.offset - first)
        for c, v in zip(self.steps, axes, strict=True):
            result = result + v * c
        return result + axes[0] % 2 if self.odd else result


def random_tensor(names, op, reads, shape, depth, shared):
    """A computation by `op` over what `reads` say, and the placeholders that it reads."""
    k = te.reduce_axis((0, depth), name="k") if depth else None
    extents = [*shape, *([depth] if depth else [])]
    sizes = [[index.size(extents) for index in read] for read in reads]
    if shared:
        sizes = [[max(n) for n in zip(*sizes, strict=True)]]
    tensors = [te.placeholder(n, "int32", name=x) for n, x in zip(sizes, names, strict=False)]

    def body(*axes):
        axes = [*axes, *([k.var] if k else [])]
        at = [tuple(index.expr(axes, extents) for index in read) for read in reads]
        value = OPERATORS[op](tensors[0][at[0]], tensors[-1][at[-1]])
        return te.sum(value, axis=k) if k else value

    return te.compute(shape, body, name=names[2]), tensors


def random_case(rng):
    """A behaviour, and a nest that is it or nearly so: tiled, with a change here or there."""
    tile = [rng.choice([1, 2, 3, 4]) for _ in range(rng.randint(1, 2))]
    depth = rng.choice([None, 2, 3])
    op = rng.choice(list(OPERATORS))
    axes = len(tile) + bool(depth)
    ranks = [rng.randint(1, 2) for _ in range(1 if op == "once" else 2)]
    reads = [[Index.draw(rng, axes) for _ in range(rank)] for rank in ranks]
    shared = len(set(ranks)) == 1 and rng.random() < 0.3
    theirs = [[index.shortened(rng) for index in read] for read in reads]
    y, _ = random_tensor("xwy", op, theirs, tile, depth, shared)
    whole = [n * rng.choice([1, 1, 2]) for n in tile]
    mine = [[index.altered(rng) for index in read] for read in reads]
    c, inputs = random_tensor("ABC", op, mine, whole, depth, shared)
    s = create_schedule(c)
    pairs = [s[c].split(a, n) for a, n in zip(c.axis, tile, strict=True)]
    inner = [i for _, i in pairs]
    if rng.random() < 0.3:
        rng.shuffle(inner)
    s[c].reorder(*[o for o, _ in pairs], *inner, *c.reduce_axis)
    s[c].tensorize(inner[0], declare(y))
    for t in inputs:
        if rng.random() < 0.3:
            cached = s.cache_read(t, "local", [c])
            if rng.random() < 0.7:
                s[cached].compute_at(s[c], rng.choice([o for o, _ in pairs]))
    return s, c, inputs


@pytest.mark.parametrize("seed", range(8))
def test_what_is_accepted_is_right(seed):
    """Random affine behaviours against random nests: a reason, or the nest's own result."""
    rng = random.Random(seed)
    accepted = refused = 0
    for _ in range(60):
        s, c, inputs = random_case(rng)
        try:
            lower(s, [*inputs, c])
        except ScheduleError:
            refused += 1
            continue
        check(s, c, inputs)
        accepted += 1
    assert accepted >= 5
    assert refused >= 5
