"""What the check of the loop IR says, and that it spells nothing out where all is well."""

from __future__ import annotations

import pytest

from covta.compiler.ir.stmt import Buffer, For, Function, Stmt, Store
from covta.compiler.ir.verify import IRError, verify
from covta.compiler.te.expr import Const, Expr, Var

ROW, OTHER = Var("i"), Var("j")
Y = Buffer(name="y", shape=(Const(4),), dtype="int32")


def loop(*indices: Expr) -> Function:
    body = For(ROW, Const(0), Const(4), Store(Y, indices, Const(1)))
    return Function(name="f", params=(Y,), body=body, outputs=1)


def test_an_unbound_variable_is_named_with_its_statement():
    with pytest.raises(IRError, match=r"variable j is not bound in: y\[j\] = 1"):
        verify(loop(OTHER))


def test_a_wrong_rank_is_named_with_its_statement():
    with pytest.raises(IRError, match=r"y: wrong rank in: y\[i, i\] = 1"):
        verify(loop(ROW, ROW))


def test_no_statement_is_spelled_out_where_all_is_well(monkeypatch):
    def text(self):
        raise AssertionError("a statement was spelled out")

    monkeypatch.setattr(Store, "__str__", text)
    monkeypatch.setattr(Stmt, "__str__", text)
    function = loop(ROW)
    assert verify(function) is function
