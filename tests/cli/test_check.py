"""``vta check``: exit codes, JSON, and what a person reads."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from covta.cli.vta import app

from ..handmade import FINISH, INP, PIPELINE, load, program_of


@pytest.fixture
def check(tmp_path):
    """Save a program, check it: ``(exit code, output)``."""

    def run(insns, *options):
        path = tmp_path / "p.npz"
        program_of(insns, meta={"name": "a [bold] name", "buffers": [{"name": "x"}]}).save(path)
        result = CliRunner().invoke(app, ["check", str(path), *options])
        return result.exit_code, result.output

    return run


def test_clean(check):
    code, output = check((load(INP), FINISH))
    assert code == 0
    assert "2 instructions: 0 errors, 0 warnings; tokens at most 0, 0, 0, 0" in output


def test_violations(check):
    code, output = check((load(INP, pop_next=1), FINISH))
    assert code == 1
    assert "deadlock" in output
    assert "a [bold] name: what was found" in output


def test_json_has_every_finding(check):
    code, output = check((load(INP, pop_prev=1),), "--json", "--limit", "1")
    data = json.loads(output)
    assert code == 1
    assert [(f["rule"], f["insn"]) for f in data["errors"]] == [("illegal", 0), ("no-finish", 1)]
    assert data["ok"] is False


def test_warnings_count_if_strict(check):
    assert check((load(INP, push_next=1), FINISH))[0] == 0
    assert check((load(INP, push_next=1), FINISH), "--strict")[0] == 1


def test_only_some_findings_are_shown(check):
    output = check([load(INP, pop_prev=1)] * 5, "--limit", "2")[1]
    assert "… and 4 more; --limit shows more of them" in output


@pytest.mark.parametrize("name", ["0", "x"])
def test_inputs(check, name):
    assert check(PIPELINE, "--input", name)[0] == 0


def test_bad_input(check, tmp_path):
    code, output = check(PIPELINE, "--input", "nobody")
    assert code == 2
    assert output == "vta: inputs must name buffers of the program (x), got 'nobody'\n"
    assert CliRunner().invoke(app, ["check", str(tmp_path / "none.npz")]).exit_code == 2
