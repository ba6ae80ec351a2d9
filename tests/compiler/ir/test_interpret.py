"""The loop IR runs as the reference evaluates, on its own and compiled."""

import numpy as np
import pytest

from covta.compiler import te
from covta.compiler.ir import interpret
from covta.compiler.llvm import build
from covta.compiler.lower import lower
from covta.compiler.schedule import create_schedule

F = te.placeholder((8,), "float32", name="F")
FLOATS = np.array([-0.5, 0.0, np.nan, np.inf, -np.inf, 3e9, -3e9, 300.7], np.float32)


def same_everywhere(c, values):
    expected = te.evaluate(c, dict(values))
    f = lower(create_schedule(c), [*values, c])
    for run in (lambda *a: interpret(f, *a), build(f)):
        result = np.zeros(c.shape, c.dtype)
        run(*values.values(), result)
        np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("extreme", [te.maximum, te.minimum])
def test_what_is_not_a_number_stays_so_in_an_extreme(extreme):
    same_everywhere(te.compute((8,), lambda i: extreme(F[i], F[7 - i]), name="c"), {F: FLOATS})
    same_everywhere(te.compute((8,), lambda i: extreme(F[i], 1.0), name="c"), {F: FLOATS})


@pytest.mark.parametrize("extreme", [te.max, te.min])
def test_what_is_not_a_number_stays_so_in_a_reduction(extreme):
    k = te.reduce_axis((0, 8), name="k")
    same_everywhere(te.compute((1,), lambda i: extreme(F[k], axis=k), name="c"), {F: FLOATS})


@pytest.mark.parametrize("first", [2**31 - 1, 2**31 - 3, -(2**31)])
def test_constants_at_the_ends_of_int32_wrap(first):
    same_everywhere(te.compute((8,), lambda i: te.const(first) + 1 + i, name="c"), {})
    same_everywhere(te.compute((8,), lambda i: i + te.const(first) + 7, name="c"), {})
    same_everywhere(te.compute((8,), lambda i: i - 2 + te.const(first), name="c"), {})
