"""Full tiles apart from the last: what remains is known, and nothing is done twice or left out."""

import numpy as np
import pytest

from covta.compiler import te
from covta.compiler.ir import For, interpret
from covta.compiler.ir.stmt import walk_stmts
from covta.compiler.ir.verify import verify
from covta.compiler.llvm.peel import peel
from covta.compiler.lower import lower
from covta.compiler.schedule import create_schedule
from covta.compiler.te.expr import Const


def tiled(m, n, rows, columns, mark=None):
    x = te.placeholder((m, n), "int32", name="x")
    y = te.compute((m, n), lambda i, j: x[i, j] * 3 + i, name="y")
    s = create_schedule(y)
    cached = s.cache_write(y, "local")
    yo, xo, _, _ = s[y].tile(*s[y].axis, rows, columns)
    s[cached].compute_at(s[y], xo)
    if mark:
        getattr(s[y], mark)(yo)
    return lower(s, name="tiled"), y, x


@pytest.mark.parametrize("mark", [None, "parallel"])
@pytest.mark.parametrize(("m", "n", "rows", "columns"), [(7, 9, 3, 4), (5, 5, 8, 2), (6, 8, 3, 4)])
def test_every_bound_is_known_and_results_are_the_same(m, n, rows, columns, mark):
    function, y, x = tiled(m, n, rows, columns, mark)
    peeled = verify(peel(function))
    for s in walk_stmts(peeled.body):
        if isinstance(s, For):
            assert isinstance(s.extent, Const), str(peeled)
    value = np.arange(m * n, dtype="i4").reshape(m, n)
    got = np.zeros((m, n), "i4")
    interpret(peeled, value, got)
    np.testing.assert_array_equal(got, te.evaluate(y, {x: value}))


def test_a_parallel_loop_keeps_its_turns():
    function, _, _ = tiled(7, 8, 3, 4, "parallel")
    loops = [s for s in walk_stmts(peel(function).body) if isinstance(s, For)]
    assert [s.extent for s in loops if s.kind == "parallel"] == [Const(3)]


def test_tiles_that_divide_are_left_alone():
    function, _, _ = tiled(6, 8, 3, 4)
    assert str(peel(function)) == str(function)
