"""`vta` and `vta-gen`: every way to get it wrong ends in a message, whatever the device."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from covta.cli.generate import app as generate
from covta.cli.vta import app
from covta.hw.counters import COUNTERS
from covta.hw.faults import FaultCause
from covta.hw.isa import INSN_BYTES
from covta.runtime.functional import FunctionalDevice
from covta.runtime.program import Program
from covta.sim.fuzz.generator import random_program

from ..handmade import CASES, CFG, FINISH, INP, PIPELINE, load, program_of, store

OUT_OFFSET, OUT_BYTES = 2048, 64
QUICK = settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.fixture
def program():
    """Loads, products, shifts and a store, with what comes of them."""
    plain = program_of(PIPELINE)
    return replace(plain, expected=FunctionalDevice().run(plain).memory)


@pytest.fixture
def path(tmp_path, program):
    target = tmp_path / "p.npz"
    program.save(target)
    return target


def vta(*args, of=app):
    return CliRunner().invoke(of, [str(a) for a in args])


def refused(result, message):
    """Exit code 2, nothing on the screen but one line on the error stream."""
    assert (result.exit_code, result.stdout) == (2, ""), result.exception
    assert message in result.stderr
    assert result.stderr.strip().count("\n") == 0


def files(folder):
    return sorted(p.name for p in folder.iterdir())


# ---- run: JSON and exit codes ------------------------------------------------------------------
@pytest.mark.parametrize("device", ["functional", "cycle"])
def test_json_holds_what_the_architecture_says(path, device):
    result = vta("run", path, "--on", device, "--json")
    assert result.exit_code == 0
    report = json.loads(result.stdout)
    assert {"device", "cycles", "expected", "fault", "counters"} <= report.keys()
    assert (report["device"], report["expected"], report["fault"]) == (device, "match", None)
    assert report["first_difference"] is None
    assert all(isinstance(n, int) for n in report["counters"].values())
    if device == "cycle":
        assert report["cycles"] == CASES["load to store"].cycles
        assert report["counters"].keys() == COUNTERS.keys()


def test_the_default_device_knows_no_cycles(path):
    report = json.loads(vta("run", path, "--json").stdout)
    assert (report["device"], report["cycles"]) == ("functional", None)


def test_memory_options_reach_the_device(path):
    def cycles(*options):
        return json.loads(vta("run", path, "--on", "cycle", "--json", *options).stdout)["cycles"]

    assert cycles("--latency", 9, "--stall-seed", 1) == CASES["load to store, stalls"].cycles
    assert cycles("--beats-per-cycle", 0.25) > cycles()
    assert cycles("--max-outstanding", 1) >= cycles()


@pytest.mark.parametrize("device", ["functional", "cycle"])
@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.fault])
def test_a_fault_exits_3_on_every_device(tmp_path, name, device):
    case = CASES[name]
    case.program.save(tmp_path / "p.npz")
    result = vta("run", tmp_path / "p.npz", "--on", device, "--json")
    assert result.exit_code == 3
    cause, insn = case.fault
    assert json.loads(result.stdout)["fault"] == {"cause": cause.text, "insn": insn}


def test_a_fault_weighs_more_than_a_difference(tmp_path):
    program = program_of([load(INP, sram_base=CFG.inp_depth), FINISH])
    wrong = program.regions[0] ^ 1
    replace(program, expected=(wrong,)).save(tmp_path / "p.npz")
    result = vta("run", tmp_path / "p.npz", "--json")
    assert result.exit_code == 3
    assert json.loads(result.stdout)["expected"] == "mismatch"


@pytest.mark.parametrize("device", ["functional", "cycle"])
def test_a_difference_exits_1_on_every_device(path, program, device):
    wrong = program.expected[0].copy()
    wrong[OUT_OFFSET + 3] ^= 0xFF
    replace(program, expected=(wrong,)).save(path)
    assert vta("run", path, "--on", device, "--json").exit_code == 1
    shown = " ".join(vta("run", path, "--on", device).stdout.split())
    assert f"differs: region_0 byte {OUT_OFFSET + 3} (address 0x1803)" in shown
    assert "1 of 4096 bytes differ" in shown


@pytest.mark.parametrize("cause", list(FaultCause))
def test_every_cause_has_a_name_for_json(cause):
    assert cause.text == cause.name.lower()


# ---- run: files --------------------------------------------------------------------------------
def test_a_dump_holds_every_region_even_after_a_fault(path, program, tmp_path):
    dump = tmp_path / "d.npz"
    assert vta("run", path, "--on", "cycle", "--dump", dump).exit_code == 0
    with np.load(dump, allow_pickle=False) as arrays:
        assert sorted(arrays) == ["region_0", "region_addr"]
        assert arrays["region_addr"].tolist() == list(program.region_addrs)
        np.testing.assert_array_equal(arrays["region_0"], program.expected[0])
    program_of([store(at=0x4000), FINISH]).save(path)
    assert vta("run", path, "--dump", dump).exit_code == 3
    with np.load(dump, allow_pickle=False) as arrays:
        np.testing.assert_array_equal(arrays["region_0"], program.regions[0])


def test_a_trace_has_a_span_for_every_instruction(path, tmp_path):
    trace = tmp_path / "t.json"
    assert vta("run", path, "--on", "cycle", "--trace", trace).exit_code == 0
    events = json.loads(trace.read_text(encoding="utf-8"))["traceEvents"]
    spans = {phase: [e for e in events if e["ph"] == phase] for phase in "be"}
    assert [e["id"] for e in spans["b"]] == list(range(len(PIPELINE)))
    for begin, end in zip(spans["b"], spans["e"], strict=True):
        assert 0 <= begin["ts"] < end["ts"] <= CASES["load to store"].cycles
    assert files(tmp_path) == ["p.npz", "t.json"]


@pytest.mark.parametrize("option", ["--dump", "--trace"])
def test_a_folder_is_no_file_to_write(path, tmp_path, option):
    refused(vta("run", path, "--on", "cycle", option, tmp_path), "is a folder")
    refused(vta("run", path, "--on", "cycle", option, tmp_path / "no" / "x"), "no such folder")
    assert files(tmp_path) == ["p.npz"]


def test_bad_input_leaves_no_files(path, tmp_path):
    path.write_bytes(path.read_bytes()[:-40])
    result = vta("run", path, "--dump", tmp_path / "d.npz", "--trace", tmp_path / "t.json")
    refused(result, "not a program file")
    assert files(tmp_path) == ["p.npz"]


def test_a_write_that_fails_leaves_the_old_file(path, tmp_path, monkeypatch):
    from covta.sim import timeline

    def full(cfg, insn, trace, target):
        target.write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(timeline, "write_timeline", full)
    trace = tmp_path / "t.json"
    trace.write_text("old")
    refused(vta("run", path, "--on", "cycle", "--trace", trace), "No space left")
    assert trace.read_text() == "old"
    assert files(tmp_path) == ["p.npz", "t.json"]


# ---- run: input --------------------------------------------------------------------------------
BAD_CONFIGS = {
    "rule": ("batch: 3", "batch must be a power of two"),
    "unknown key": ("speed: 3", "speed: Extra inputs are not permitted"),
    "list": ("[1, 2]", "must be a mapping"),
    "empty": ("", "must be a mapping"),
    "date": ("batch: 2020-99-99", "not YAML: month must be"),
    "tag": ("batch: !!int x", "not YAML: invalid literal"),
    "python tag": ("!!python/object:os.system x", "not YAML: could not determine a constructor"),
    "digits": ("batch: " + "9" * 5000, "not YAML: Exceeds the limit"),
    "nested": ("[" * 5000, "is nested too deeply"),
    "null": ("a: \0", "not YAML: unacceptable character"),
}


@pytest.mark.parametrize(("text", "message"), BAD_CONFIGS.values(), ids=BAD_CONFIGS)
def test_a_bad_configuration_exits_2_everywhere(path, tmp_path, text, message):
    config = tmp_path / "c.yaml"
    config.write_text(text, encoding="utf-8")
    refused(vta("run", path, "--config", config), message)
    source = tmp_path / "p.s"
    source.write_text("FINISH", encoding="utf-8")
    refused(vta("asm", source, "-o", tmp_path / "x.npz", "--config", config), message)
    refused(vta("-c", config, "-o", tmp_path / "out", of=generate), message)
    assert files(tmp_path) == ["c.yaml", "p.npz", "p.s"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-c", "absent"], "absent: no such file, and no built-in configuration"),
        (["-c", "tiny", "--clock-mhz", "0"], "clock_mhz must lie between"),
        (["-c", "tiny", "--clock-mhz", "nan"], "clock_mhz must lie between"),
    ],
)
def test_generation_refuses_with_one_line(tmp_path, options, message):
    refused(vta(*options, "-o", tmp_path / "out", of=generate), message)
    assert files(tmp_path) == []


@pytest.mark.parametrize(
    "args",
    [
        [],
        ["absent"],
        ["run"],
        ["run", "p", "--on", "board"],
        ["run", "p", "--latency", "x"],
        ["run", "p", "--nonsense"],
        ["asm", "p"],
        ["disasm"],
    ],
)
def test_usage_errors_exit_2(args):
    result = vta(*args)
    assert result.exit_code == 2
    assert "Traceback" not in result.output


@pytest.mark.parametrize("name", ["[bold", "[/]", "\ud800", "a\nb", ["list"], None])
def test_any_name_can_be_shown(path, program, name):
    replace(program, meta={"name": name}).save(path)
    for command in ("run", "info"):
        assert vta(command, path).exit_code == 0


# ---- text --------------------------------------------------------------------------------------
@given(rows=st.lists(st.binary(min_size=INSN_BYTES, max_size=INSN_BYTES), min_size=1, max_size=9))
@QUICK
def test_any_words_survive_files_of_text(tmp_path, rows):
    source, text, again = (tmp_path / n for n in ("p.npz", "p.s", "q.npz"))
    program_of(rows).save(source)
    assert vta("disasm", source, "-o", text).exit_code == 0
    assert vta("asm", text, "--like", source, "-o", again).exit_code == 0
    assert again.read_bytes() == source.read_bytes()


@given(seed=st.integers(0, 10_000), name=st.sampled_from(["tiny", "extended", "bus256"]))
@QUICK
def test_random_programs_survive_text_on_the_screen(tmp_path, seed, name):
    from covta.hw.assembler import assemble
    from covta.hw.params import load_config

    program, cfg = random_program(load_config(name), seed, 20), load_config(name)
    path = tmp_path / "p.npz"
    program.save(path)
    text = vta("disasm", path).stdout
    assert ".word" not in text
    np.testing.assert_array_equal(assemble(cfg, text), program.insn)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("FINISH\n\n# two\nJUMP\n", "p.s:4: no instruction 'JUMP'"),
        ("FINISH\nGEMM uop_end=1 reset=2\n", "p.s:2: gemm.0.reset=2 does not fit in 1 bits"),
        ("LOAD memory_type=7 x_size=-1\n", "p.s:1: load.1.x_size=-1 does not fit in 16 bits"),
        ("FINISH\x0bFINISH\n", "p.s:1: no field 'FINISH'"),
        ("GEMM =\n", "p.s:1: no field ''"),
        ("GEMM opcode=1\n", "p.s:1: no field 'opcode'"),
        ("\ufeffFINISH\n", "p.s:1: no instruction"),
        ("FINISH\n.uop dst=1\n", "p.s:2: a .uop needs an address"),
        ("FINISH\n.org 8\n.uop\n", "p.s:2: micro-ops at 0x8 to 0xb must not overlap the instr"),
        ("# nothing\n", "insn: must hold 1 to 16777215 instructions, got 0"),
    ],
)
def test_wrong_text_names_the_line(tmp_path, monkeypatch, text, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p.s").write_text(text, encoding="utf-8")
    refused(vta("asm", "p.s", "--config", "tiny", "-o", "x.npz"), message)
    assert files(tmp_path) == ["p.s"]


@pytest.mark.parametrize("address", [-16, 8, 1 << 32, 1 << 64])
def test_a_stream_lies_in_memory(tmp_path, address):
    (tmp_path / "p.s").write_text("FINISH\n", encoding="utf-8")
    output = tmp_path / "x.npz"
    refused(vta("asm", tmp_path / "p.s", "-o", output, "--insn-addr", address), "insn_addr: ")
    assert vta("asm", tmp_path / "p.s", "-o", output, "--insn-addr", 1 << 20).exit_code == 0
    assert Program.load(output).insn_addr == 1 << 20


def test_files_that_cannot_be_read_or_written_exit_2(path, tmp_path):
    text = tmp_path / "p.s"
    text.write_bytes(b"\xff")
    target = tmp_path / "x.npz"
    refused(vta("asm", tmp_path / "absent.s", "-o", target), "cannot be read")
    refused(vta("asm", text, "-o", target), "cannot be read")
    text.write_text("FINISH\n")
    refused(vta("asm", text, "-o", tmp_path), "is a folder")
    refused(vta("asm", text, "-o", tmp_path / "no" / "x.npz"), "no such folder")
    refused(vta("asm", text, "-o", target, "--like", text), "not a program file")
    refused(vta("disasm", path, "-o", tmp_path), "is a folder")
    refused(vta("disasm", text), "not a program file")
    refused(vta("info", tmp_path / "absent.npz"), "no such file")
    assert files(tmp_path) == ["p.npz", "p.s"]
