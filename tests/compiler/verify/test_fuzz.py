"""Random programs: legal ones have no errors; illegal ones have one where the machine faults."""

from __future__ import annotations

import pytest

from covta.compiler.verify import Rule, verify_program
from covta.hw.params import builtin_configs, load_config
from covta.sim.fuzz.generator import random_program
from covta.sim.fuzz.illegal import KINDS, mutate

MACHINES = sorted(name for name, path in builtin_configs().items() if path.parent.name == "test")
RULES = {
    "opcode": Rule.ILLEGAL,
    "stray_bit": Rule.ILLEGAL,
    "memory_type": Rule.ILLEGAL,
    "alu_opcode": Rule.ILLEGAL,
    "flag": Rule.ILLEGAL,
    "store_pad": Rule.ILLEGAL,
    "scratchpad_load": Rule.SCRATCHPAD,
    "scratchpad_store": Rule.SCRATCHPAD,
    "scratchpad_gemm": Rule.SCRATCHPAD,
    "scratchpad_alu": Rule.SCRATCHPAD,
    "dram_window": Rule.DRAM_REGION,
    "bus_error": Rule.DRAM_REGION,
    "deadlock": Rule.DEADLOCK,
    "token_overflow": Rule.TOKEN_OVERFLOW,
    "no_finish": Rule.NO_FINISH,
}
SEEDS = [*range(12), *[pytest.param(seed, marks=pytest.mark.slow) for seed in range(12, 200)]]


@pytest.mark.parametrize("seed", SEEDS)
def test_a_legal_program_has_no_errors_and_reads_nothing_undefined(seed):
    for k, machine in enumerate(MACHINES):
        program = random_program(load_config(machine), 1000 * k + seed, size=40)
        report = verify_program(program)
        assert report.errors == (), f"{machine}, seed {1000 * k + seed}"
        assert Rule.UNDEFINED not in {f.rule for f in report.warnings}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", SEEDS)
def test_a_fault_is_found_where_the_machine_faults(kind, seed):
    machine = MACHINES[seed % len(MACHINES)]
    program = random_program(load_config(machine), seed, size=40)
    illegal = mutate(program, seed, kind)
    if illegal is None:
        pytest.skip("the program has no place for it")
    errors = verify_program(illegal.program).errors
    assert RULES[kind] in {f.rule for f in errors}
    if illegal.insn is not None:
        assert errors[0].insn == illegal.insn
