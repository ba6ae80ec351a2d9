"""The generator keeps its promises, and devices agree on what it makes."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from covta.hw.faults import FaultCause
from covta.hw.isa import Opcode, isa
from covta.hw.params import builtin_configs, load_config
from covta.sim.dram import DramModel
from covta.sim.fuzz import generator
from covta.sim.fuzz.__main__ import main
from covta.sim.fuzz.campaign import Campaign, make_case, run
from covta.sim.fuzz.compare import differences, same_bytes
from covta.sim.fuzz.devices import UnavailableError, require_devices, run_on
from covta.sim.fuzz.generator import random_program
from covta.sim.fuzz.illegal import KINDS, IllegalProgram, mutate
from covta.sim.fuzz.legality import LegalityError, check_program
from covta.sim.fuzz.program import Program
from covta.sim.fuzz.schedules import run_schedule
from covta.sim.fuzz.shrink import shrink

TINY = ("tiny", "shallow", "batch2_in8_out4", "int4", "extended", "wide_address")
REGRESSIONS = sorted((Path(__file__).parent / "regressions").glob("*.npz"))


def available(*names):
    """Those of some devices that run here."""
    found = []
    for name in names:
        try:
            require_devices((name,))
        except UnavailableError:
            continue
        found.append(name)
    return tuple(found)


# ---- the generator -----------------------------------------------------------------------------
@pytest.mark.parametrize("name", sorted(builtin_configs()))
def test_programs_are_legal_and_ordered_on_every_machine(name):
    for seed in range(12):
        check_program(random_program(load_config(name), seed))


@pytest.mark.parametrize("name", TINY)
def test_no_schedule_of_the_units_changes_a_byte(name):
    for seed in range(100, 108):
        program = random_program(load_config(name), seed)
        first = run_schedule(program, 0)
        for schedule in range(1, 5):
            assert same_bytes(first, run_schedule(program, schedule)) is None, f"seed {seed}"


def test_without_tokens_schedules_differ_and_the_checker_objects(monkeypatch):
    monkeypatch.setattr(generator, "first_conflict", lambda *_: 0)
    differ = refused = 0
    for seed in range(10):
        program = random_program(load_config("tiny"), seed)
        results = [run_schedule(program, schedule) for schedule in range(4)]
        differ += any(same_bytes(results[0], other) for other in results[1:])
        try:
            check_program(program)
        except LegalityError:
            refused += 1
    assert differ >= 6
    assert refused >= 8


def test_the_same_seed_gives_the_same_bytes():
    cfg = load_config("extended")
    one, two = (random_program(cfg, 7) for _ in range(2))
    assert one.insn.tobytes() == two.insn.tobytes()
    assert same_bytes(one.regions, two.regions) is None
    assert (one.insn_addr, one.base_ptrs) == (two.insn_addr, two.base_ptrs)
    assert one.insn.tobytes() != random_program(cfg, 8).insn.tobytes()


def test_programs_cover_every_instruction_and_overlap():
    """Every kind of work occurs, and most stores may run beside other work."""
    seen, free = set(), 0
    for seed in range(40):
        order = check_program(random_program(load_config("extended"), seed))
        for step in order.stream:
            seen.add((step.opcode, step.fields["memory_type"], step.fields["alu_opcode"]))
        store = order.units[2]
        free += sum(s.clock[1] < len(order.units[1]) for s in store)
    x = isa(load_config("extended"))
    assert {k for op, _, k in seen if op == Opcode.ALU} == set(x.alu_ops)
    assert {k for op, k, _ in seen if op == Opcode.LOAD} == {0, 1, 2, 3, 5}
    assert free > 40


@pytest.mark.parametrize("size", [1, 5, 400])
def test_any_size(size):
    program = random_program(load_config("tiny"), 3, size)
    check_program(program)
    assert len(program.insn) <= 16 * size + 600


# ---- legality ----------------------------------------------------------------------------------
def test_a_dropped_token_is_noticed():
    refused = 0
    for seed in range(20):
        program = random_program(load_config("tiny"), seed)
        illegal = mutate(program, seed, "deadlock")
        if illegal is not None:
            with pytest.raises(LegalityError, match=r"instruction \d+: (pops|may overlap)"):
                check_program(illegal.program)
            refused += 1
    assert refused > 5


def test_reading_what_was_never_written_is_noticed():
    program = random_program(load_config("tiny"), 1)
    fmt = isa(program.config).store
    store = fmt.encode({"opcode": Opcode.STORE, "memory_type": 4, "x_size": 1, "y_size": 1})
    insn = np.concatenate([np.frombuffer(store, np.uint8)[None], program.insn])
    with pytest.raises(LegalityError, match="instruction 0: "):
        check_program(replace(program, insn=insn))


# ---- faults ------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", KINDS)
def test_every_fault_is_reported(kind):
    reported = 0
    for name in TINY:
        for seed in range(6):
            illegal = mutate(random_program(load_config(name), seed), seed, kind)
            if illegal is None:
                continue
            results = {"functional": run_on("functional", illegal.program, DramModel())}
            assert not differences(results, illegal), f"{name} seed {seed}"
            reported += 1
    assert reported


def test_a_mutation_leaves_its_program_alone():
    program = random_program(load_config("tiny"), 5)
    before = program.insn.copy()
    illegal = mutate(program, 5, "opcode")
    assert np.array_equal(program.insn, before)
    assert illegal.cause == FaultCause.ILLEGAL_INSTRUCTION
    assert np.flatnonzero((illegal.program.insn != before).any(axis=1)).tolist() == [illegal.insn]


def test_faults_are_reported_alike(tmp_path):
    """In a process of its own, which a device may take down."""
    campaign = Campaign(
        configs=TINY,
        devices=available("functional", "cycle"),
        programs=200,
        illegal_fraction=1.0,
        jobs=1,
        out=tmp_path,
    )
    failures = run(campaign).failures
    assert {(f.config, f.seed, f.kind): f.differences for f in failures} == {}


# ---- devices -----------------------------------------------------------------------------------
def test_devices_agree():
    devices = available("functional", "racing", "cycle")
    campaign = Campaign(configs=TINY, devices=devices, programs=240, illegal_fraction=0.0)
    summary = run(campaign)
    assert summary.programs == 240
    assert [f.differences for f in summary.failures] == []


@pytest.mark.parametrize("path", REGRESSIONS, ids=lambda path: path.stem)
def test_regressions_stay_fixed(path):
    replay(path, available("functional", "racing", "cycle"))


@pytest.mark.rtl
@pytest.mark.parametrize("path", REGRESSIONS, ids=lambda path: path.stem)
def test_regressions_stay_fixed_on_rtl(path):
    replay(path, available("functional", "cycle", "rtl"))


def replay(path, devices):
    program = Program.load(path)
    note = program.meta["fuzz"]
    fault = note.get("expect_fault")
    illegal = None
    if fault is not None:
        cause = FaultCause[fault["cause"].upper()]
        illegal = IllegalProgram(
            program=program, kind=note["kind"], cause=cause, insn=fault["insn"]
        )
        devices = [d for d in devices if d != "racing"]  # it knows no faults
    results = {d: run_on(d, program, DramModel(**note["dram"]), note["seed"]) for d in devices}
    assert not differences(results, illegal)


# ---- the campaign ------------------------------------------------------------------------------
def test_a_difference_is_shrunk_and_saved(tmp_path, monkeypatch):
    """A device whose ALU is wrong is found out, by a short program."""
    from covta.sim.fuzz import campaign as module

    def broken(name, program, dram, seed):
        result = run_on("racing", program, dram, seed)
        used = [row for row in program.insn if row[0] & 7 == Opcode.ALU]
        if name == "broken" and used:
            result.memory[0][0] ^= 1
        return result

    monkeypatch.setattr(module, "run_on", broken)
    monkeypatch.setattr(module, "require_devices", lambda _: None)
    options = Campaign(
        configs=("tiny",),
        devices=("racing", "broken"),
        programs=8,
        out=tmp_path,
        illegal_fraction=0.0,
    )
    summary = module.run(options)
    assert summary.failures
    failure = summary.failures[0]
    assert failure.differences[0].startswith("bytes of racing and broken: region 0 byte 0:")
    assert failure.insns <= 8
    kept = Program.load(failure.path)
    check_program(kept)
    assert kept.meta["fuzz"]["seed"] == failure.seed


def test_shrinking_keeps_what_fails_and_what_is_legal():
    program = random_program(load_config("tiny"), 0)

    def fails(candidate):
        return sum(int(row[0]) & 7 == Opcode.STORE for row in candidate.insn) >= 2

    assert fails(program)
    small = shrink(program, fails, limit_seconds=20)
    check_program(small)
    assert fails(small)
    assert len(small.insn) < len(program.insn) // 2


def test_a_case_depends_on_machine_and_seed_alone():
    one, two = (make_case("tiny", 11, 0.1) for _ in range(2))
    assert one.dram == two.dram
    assert one.program.insn.tobytes() == two.program.insn.tobytes()


def test_every_seed_runs_once_across_blocks():
    campaign = Campaign(configs=("tiny", "int4"), devices=("racing",), programs=60, seed=20)
    blocks = campaign.blocks()
    assert [s for block in blocks for s in block] == list(range(20, 80))
    assert all(len({campaign.config_of(s) for s in block}) == 1 for block in blocks)


def test_command_line(tmp_path, capsys):
    path = tmp_path / "out.json"
    arguments = ["--configs", "tiny", "--devices", "racing", "--programs", "5"]
    assert main([*arguments, "--illegal-fraction", "0", "--json", str(path)]) == 0
    assert json.loads(path.read_text())["programs"] == 5
    assert "programs" in capsys.readouterr().out


def test_an_unknown_device_is_named(capsys):
    assert main(["--configs", "tiny", "--devices", "abacus", "--programs", "1"]) == 2
    assert "abacus" in capsys.readouterr().err
