"""Changed programs: what the verifier passes is harmless, what it reports is not its invention.

Every mutant of a sound program is either reported, or leaves the bytes that the program leaves: on
the functional simulator, on the cycle simulator with several memories, and under random schedules.
Where fields other than tokens change, a mutant that passes may be another program; then it must
fault nowhere and leave the same bytes everywhere.
"""

from __future__ import annotations

from random import Random

import pytest

from covta.compiler.verify import Rule, verify_program
from covta.sim.fuzz.legality import LegalityError, check_program

from .mutants import Mutator, conv2d, fuzzed, matmul, outcomes, vector_add

PROGRAMS = {
    "matmul, tiny": lambda: matmul("tiny"),
    "matmul, 16 to 4": lambda: matmul("in16_out4"),
    "vector_add, batch 2": lambda: vector_add("batch2"),
    "conv2d, block 8": lambda: conv2d("block8"),
    "fuzz, tiny": lambda: fuzzed("tiny", 0),
    "fuzz, shallow": lambda: fuzzed("shallow", 2),
    "fuzz, 4-bit": lambda: fuzzed("int4", 4),
    "fuzz, batch 2": lambda: fuzzed("batch2", 5),
    "fuzz, extended": lambda: fuzzed("extended", 7),
}
SLOW = pytest.mark.slow
EACH = [
    pytest.param(name, 600, marks=SLOW, id=f"{name}, many") if slow else pytest.param(name, 40)
    for slow in (False, True)
    for name in PROGRAMS
]


def legality(program) -> str:
    """What the fuzzer's checker has against a program; empty if nothing."""
    try:
        check_program(program)
    except LegalityError as error:
        return str(error)
    return ""


def sample(mutants, count: int):
    found = list(mutants)
    return Random(1).sample(found, min(count, len(found)))


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_programs_are_sound(name):
    program = PROGRAMS[name]()
    assert verify_program(program).errors == ()
    runs = outcomes(program)
    assert all(run == runs[0] for run in runs)


@pytest.mark.parametrize(("name", "count"), EACH)
def test_a_token_change_is_reported_or_harmless(name, count):
    program = PROGRAMS[name]()
    mutator, right = Mutator(program), outcomes(program, 0)[0]
    reported = 0
    for mutant in sample((*mutator.tokens(), *mutator.dropped()), count):
        if verify_program(mutant.program, ranges=False).errors:
            reported += 1
            continue
        runs = outcomes(mutant.program)
        assert all(run == right for run in runs), f"{mutant.what} at {mutant.insn}"
    assert reported


@pytest.mark.parametrize("name", [n for n in PROGRAMS if "fuzz" not in n])
def test_every_pair_of_tokens_of_an_example_is_needed(name):
    mutants = list(Mutator(PROGRAMS[name]()).dropped())
    assert len(mutants) > 2
    for mutant in mutants:
        errors = verify_program(mutant.program, ranges=False).errors
        assert errors, f"{mutant.what} at {mutant.insn}"


@pytest.mark.parametrize(("name", "count"), EACH)
def test_a_field_change_that_passes_neither_faults_nor_races(name, count):
    program = PROGRAMS[name]()
    known_undefined = bool(
        [f for f in verify_program(program).warnings if f.rule == Rule.UNDEFINED]
    )
    for mutant in sample(Mutator(program).fields(Random(3), 6), count):
        report = verify_program(mutant.program, ranges=False)
        if report.errors:
            continue
        runs = outcomes(mutant.program, 2)
        where = f"{mutant.what} at {mutant.insn}"
        assert not [run for run in runs if isinstance(run, str)], where
        if known_undefined or any(f.rule == Rule.UNDEFINED for f in report.warnings):
            runs = runs[:5]  # schedules begin with noise, devices with zeros
        assert all(run == runs[0] for run in runs), where


@pytest.mark.parametrize("name", [n for n in PROGRAMS if "fuzz" in n])
def test_hazards_are_those_of_the_fuzzers_own_checker(name):
    """It walks bit masks of elements; the verifier tables. Both say the same of tokens dropped."""
    seen = 0
    mutator = Mutator(PROGRAMS[name]())
    for mutant in sample((*mutator.tokens(), *mutator.dropped()), 150):
        report = verify_program(mutant.program, ranges=False)
        hazards = [f for f in report.errors if f.rule in (Rule.HAZARD, Rule.DRAM_HAZARD)]
        said = legality(mutant.program)
        if "may overlap" in said:
            assert said.startswith(f"instruction {hazards[0].insn}:")
            seen += 1
        elif not said:
            assert not report.errors
    assert seen
