"""Random operators on random machines with random knobs; `covta.compiler.ops.fuzz` runs more."""

from __future__ import annotations

import pytest

from covta.compiler.ops.fuzz import check, main, make_instance
from covta.compiler.ops.random_operators import KINDS


@pytest.mark.parametrize("number", range(16))
def test_a_random_operator_is_what_numpy_says(number):
    instance = make_instance(99, number)
    assert check(instance, "functional", number) is None, str(instance)


@pytest.mark.parametrize("kind", KINDS)
def test_a_random_operator_of_every_kind_runs_in_cycles(kind):
    instance = make_instance(5, 0, kind=kind)
    assert check(instance, "cycle") is None, str(instance)


def test_an_instance_depends_on_seed_and_number_only():
    assert str(make_instance(3, 14)) == str(make_instance(3, 14))
    assert str(make_instance(3, 14)) != str(make_instance(3, 15))


def test_the_campaign_says_what_it_ran(capsys):
    assert main(["--instances", "2", "--kind", "dense"]) == 0
    out = capsys.readouterr().out
    assert "2 instances on functional, seed 0: 0 failed" in out
    assert "dense 2" in out
