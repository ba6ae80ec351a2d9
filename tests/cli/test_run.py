"""`vta`: exit codes, JSON, messages; nothing half-written."""

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from covta.cli.vta import app
from covta.hw.isa import AluOp, MemoryType, Opcode, isa
from covta.hw.params import load_config
from covta.runtime.program import Program

TINY = load_config("tiny")
SHARED = Path(os.environ.get("COVTA_SHARED", Path(__file__).parents[3] / "shared")) / "programs"


@pytest.fixture
def program():
    """Adds 5 to four bytes: region 0 to region 1."""
    x = isa(TINY)
    data = np.array([1, 2, 3, 4], np.uint8)
    transfer = {"y_size": 1, "x_size": 1, "x_stride": 1}
    insn = b"".join(
        [
            x.encode(Opcode.LOAD, memory_type=MemoryType.UOP, dram_base=0x3000 // 4, **transfer),
            x.encode(
                Opcode.LOAD, memory_type=MemoryType.ACC_8BIT, dram_base=0x1000 // 4, **transfer
            ),
            x.encode(
                Opcode.ALU, alu_opcode=AluOp.ADD, use_imm=1, imm=5, uop_end=1, iter_out=1,
                iter_in=1, push_next=1,
            ),
            x.encode(
                Opcode.STORE, memory_type=MemoryType.OUT, dram_base=0x2000 // 4, pop_prev=1,
                **transfer,
            ),
            x.encode(Opcode.FINISH),
        ]
    )  # fmt: skip
    return Program(
        config=TINY,
        insn=np.frombuffer(insn, np.uint8).reshape(-1, 16),
        insn_addr=0x4000,
        region_addrs=(0x1000, 0x2000, 0x3000),
        regions=(data, np.zeros(4, np.uint8), np.zeros(4, np.uint8)),
        expected=(data, data + np.uint8(5), None),
    )


@pytest.fixture
def path(tmp_path, program):
    target = tmp_path / "p.npz"
    program.save(target)
    return target


def vta(*args):
    return CliRunner().invoke(app, [str(a) for a in args])


def refused(result, message):
    """Exit code 2 and one line on the error stream."""
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stderr.strip().count("\n") == 0
    assert result.stdout == ""


def test_a_right_run_exits_0(path):
    result = vta("run", path, "--on", "functional", "--json")
    assert result.exit_code == 0
    report = json.loads(result.stdout)
    assert {k: report[k] for k in ("device", "cycles", "expected", "fault")} == {
        "device": "functional",
        "cycles": None,
        "expected": "match",
        "fault": None,
    }
    assert report["counters"]["compute.alu.uops"] == 1


def test_a_program_that_expects_nothing_exits_0(path, program):
    replace(program, expected=()).save(path)
    result = vta("run", path, "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["expected"] == "none"


def test_a_difference_exits_1_and_is_shown(path, program):
    wrong = np.array([6, 7, 9, 9], np.uint8)
    replace(program, expected=(None, wrong, None)).save(path)
    result = vta("run", path)
    assert result.exit_code == 1
    shown = " ".join(result.stdout.split())
    assert "region_1 byte 2 (address 0x2002): expected 0x09, got 0x08; 1 of 4 bytes" in shown
    result = vta("run", path, "--json")
    assert result.exit_code == 1
    report = json.loads(result.stdout)
    assert report["expected"] == "mismatch"
    assert report["first_difference"].startswith("region_1 byte 2 (address 0x2002): expected 0x09")


def test_a_fault_exits_3_and_names_the_instruction(path, program):
    insn = program.insn.copy()
    insn[2, 15] = 0x80
    replace(program, insn=insn).save(path)
    result = vta("run", path, "--json")
    assert result.exit_code == 3
    fault = json.loads(result.stdout)["fault"]
    assert fault == {"cause": "illegal_instruction", "insn": 2}
    result = vta("run", path)
    assert result.exit_code == 3
    assert "illegal_instruction at instruction 2" in " ".join(result.stdout.split())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--latency", "0"], "--latency must be from 1"),
        (["--latency", "50001"], "--latency must be from 1 to 50000, got 50001"),
        (["--beats-per-cycle", "2"], "--beats-per-cycle must be from 1/8192 to 1, got 2.0"),
        (["--beats-per-cycle", "0.0001"], "--beats-per-cycle must be from 1/8192 to 1, got 0.0001"),
        (["--max-outstanding", "0"], "--max-outstanding must be from 1"),
        (["--stall-seed", "-1"], "--stall-seed must be from 0"),
        (["--config", "edge"], "made for another machine than edge"),
        (["--config", "absent"], "absent: no such file"),
        (["--config", "/"], "/: is a folder"),
        (["--trace", "t.json"], "the functional device has no time"),
        (["--dump", "/absent/d.npz"], "no such folder"),
    ],
)
def test_bad_input_exits_2_with_one_message(path, options, message):
    refused(vta("run", path, *options), message)


def test_a_file_that_is_no_program_exits_2(tmp_path):
    refused(vta("run", tmp_path / "absent.npz"), "no such file")
    foreign = tmp_path / "foreign.npz"
    foreign.write_text("no")
    refused(vta("run", foreign), "not a program file")
    refused(vta("run", tmp_path), "not a program file")


def test_dump_holds_memory_after_the_run(path, tmp_path):
    dump = tmp_path / "dump.npz"
    assert vta("run", path, "--dump", dump).exit_code == 0
    with np.load(dump, allow_pickle=False) as arrays:
        assert arrays["region_1"].tolist() == [6, 7, 8, 9]


def test_another_configuration_of_the_same_instruction_set_is_accepted(path, tmp_path):
    config = tmp_path / "deep.yaml"
    config.write_text(TINY.model_copy(update={"insn_queue_depth": 4}).to_yaml())
    assert vta("run", path, "--config", config).exit_code == 0


def test_disasm_and_asm_give_the_same_program(path, tmp_path, program):
    text, again = tmp_path / "p.s", tmp_path / "again.npz"
    assert vta("disasm", path, "-o", text).exit_code == 0
    assert vta("asm", text, "--like", path, "-o", again).exit_code == 0
    assert again.read_bytes() == path.read_bytes()
    text.write_text("JUMP\n")
    refused(vta("asm", text, "-o", tmp_path / "x.npz"), f"{text}:1: no instruction 'JUMP'")
    assert not (tmp_path / "x.npz").exists()


def test_what_is_read_is_not_overwritten(path, tmp_path):
    before = path.read_bytes()
    message = f"{path}: is the file that is read; name another"
    refused(vta("run", path, "--dump", path), message)
    refused(vta("run", path, "--on", "cycle", "--trace", path), message)
    refused(vta("disasm", path, "-o", path), message)
    text = tmp_path / "p.s"
    assert vta("disasm", path, "-o", text).exit_code == 0
    refused(vta("asm", text, "-o", text), "is the file that is read")
    refused(vta("asm", text, "--like", path, "-o", path), message)
    assert path.read_bytes() == before


def test_info_lists_regions(path):
    result = vta("info", path)
    assert result.exit_code == 0
    assert "0x2000" in result.stdout
    assert "5 instructions" in result.stdout


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"no program files at {SHARED}")
def test_a_warm_run_takes_less_than_two_seconds_of_processor_time():
    command = [sys.executable, "-c", "from covta.cli import main; main()"]
    command += ["run", str(SHARED / "resnet18_c5.npz"), "--json"]
    subprocess.run(command, check=True, capture_output=True)  # compiles, if it must
    before, begin = os.times(), time.perf_counter()
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    after, wall_s = os.times(), time.perf_counter() - begin
    cpu_s = after.children_user + after.children_system
    cpu_s -= before.children_user + before.children_system
    assert json.loads(done.stdout)["expected"] == "match"
    assert cpu_s < 2, f"{cpu_s:.2f} s of processor time, {wall_s:.2f} s in all"
