"""What vta-gen writes: equal bytes everywhere, clean in Verilator and Yosys, in place at once."""

import json
import re
from functools import cache

import pytest
import yaml
from typer.testing import CliRunner

from covta.cli.generate import app
from covta.hw.generate import bundle
from covta.hw.generate.bundle import LINT_WAIVERS, BundleError, build_bundle, write_bundle
from covta.hw.generate.tools import ToolError, find_verilator, run_verilator, run_yosys
from covta.hw.params import ConfigError, load_config
from covta.hw.ports import shell_ports

TINY = load_config("tiny")


@cache
def tiny_bundle(**options):
    return build_bundle(TINY, **options)


@cache
def bundle_of_cells():
    return build_bundle(load_config("ecp5_cells"))


@pytest.fixture(scope="module")
def files():
    return {file.path: file.text for file in tiny_bundle()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("generated") / "tiny"
    write_bundle(tiny_bundle(), path)
    return path


# ---- Verilog -------------------------------------------------------------------------------
def test_same_bytes_every_time(files):
    again = {file.path: file.text for file in build_bundle(TINY)}
    assert again == files


def test_text_names_no_machine(files):
    for path, text in files.items():
        assert not re.search(r"/(home|tmp|usr|work|root)/|\.py\b|Yosys|Amaranth", text), path


def test_ports_are_the_listed_ones_in_order(files):
    head = re.search(r"^module vta\((.*?)\);", files["vta.v"], re.M | re.S)[1]
    ports = [port.strip() for port in head.split(",")]
    assert ports == ["clk", "rst", *(port.name for port in shell_ports(TINY))]


def test_constant_channels_say_whole_incrementing_beats(files):
    text = files["vta.v"]
    assert re.search(r"assign m_axi_arburst = 2'h1;", text)
    assert re.search(r"assign m_axi_awsize = 3'h2;", text)
    assert re.search(r"assign m_axi_wstrb = 4'hf;", text)


def test_equal_modules_are_written_once(files):
    modules = re.findall(r"^module (\S+?)\(.*?\n(.*?)^endmodule", files["vta.v"], re.M | re.S)
    bodies = [body for _, body in modules]
    assert len(set(bodies)) == len(bodies) > 10


def test_every_signal_has_a_name(files):
    """Two names on the left of one assignment would leave both signals without one."""
    assert "$signal" not in files["vta.v"]


def test_memories_start_with_a_loop_not_a_list(files):
    assert "for (init_index = 0; init_index <" in files["vta.v"]
    assert not re.search(r"\[9\] = \d+'[hd]0+;\n", files["vta.v"])


@pytest.mark.rtl
@pytest.mark.parametrize("top", ["vta", "vta_xilinx", "vta_intel"])
def test_verilator_finds_nothing_that_matters(folder, top):
    sources = ["vta.v"] + ([f"{top}.v"] if top != "vta" else [])
    log = run_verilator(["--lint-only", "-Wall", *sources, "--top", top], cwd=folder)
    assert "%Warning" not in log


@pytest.mark.rtl
def test_verilator_finds_nothing_in_a_machine_of_cells(tmp_path):
    write_bundle(bundle_of_cells(), tmp_path / "out")
    sources = ["vta.v", "models/MULT18X18D.v"]
    log = run_verilator(["--lint-only", "-Wall", *sources, "--top", "vta"], cwd=tmp_path / "out")
    assert "%Warning" not in log


def test_waivers_leave_out_what_would_be_a_bug():
    serious = {"LATCH", "MULTIDRIVEN", "UNOPTFLAT", "UNDRIVEN", "PINMISSING", "IMPLICIT", "BLKSEQ"}
    assert not serious & LINT_WAIVERS.keys()


def test_yosys_reads_what_was_written(folder):
    log = run_yosys(
        ("read_verilog vta.v vta_xilinx.v", "hierarchy -check -top vta_xilinx", "check"), cwd=folder
    )
    assert "Executing CHECK pass" in log


def test_split_holds_the_same_modules(files):
    split = tiny_bundle(split=True)
    parts = {file.path: file.text for file in split if file.path.startswith("rtl/")}
    assert "rtl/vta.v" in parts
    for path, text in parts.items():
        (name,) = re.findall(r"^module (\w+)", text, re.M)
        assert path == f"rtl/{name}.v"
        module = text[text.index("module ") :]
        assert module in files["vta.v"]
    core = yaml.safe_load(next(f.text for f in split if f.path == "vta.core").split("\n", 1)[1])
    assert core["filesets"]["rtl"]["files"] == list(parts)


# ---- what stands around it -----------------------------------------------------------------
def test_xilinx_wrapper_marks_every_bus_port(files):
    text = files["vta_xilinx.v"]
    for port in shell_ports(TINY):
        if port.name.startswith(("m_axi_", "s_axi_")):
            bus, signal = port.name[:5], port.name[6:].upper()
            assert f'aximm:1.0 {bus} {signal}"' in text
    assert "FREQ_HZ 100000000" in text


def test_platform_designer_knows_every_port(files):
    named = re.findall(r"^add_interface_port \w+ (\w+) ", files["vta_hw.tcl"], re.M)
    assert sorted(named) == sorted(["clk", "reset", *(port.name for port in shell_ports(TINY))])


def test_constraints_follow_the_clock():
    text = {f.path: f.text for f in tiny_bundle(clock_mhz=250)}
    assert "-period 4.000" in text["vta.xdc"]
    assert "-period 4.000" in text["vta.sdc"]
    assert "FREQ_HZ 250000000" in text["vta_xilinx.v"]


@pytest.mark.parametrize("clock_mhz", [0.5, 3000.0, float("nan")])
def test_impossible_clock_is_refused(clock_mhz):
    with pytest.raises(BundleError, match="clock_mhz must lie between 1 and 2000, got "):
        build_bundle(TINY, clock_mhz=clock_mhz)


def test_fusesoc_core_is_capi2_and_names_existing_files(files):
    first, rest = files["vta.core"].split("\n", 1)
    assert first == "CAPI=2:"
    core = yaml.safe_load(rest)
    for fileset in core["filesets"].values():
        for entry in fileset["files"]:
            assert (entry if isinstance(entry, str) else next(iter(entry))) in files
    assert core["targets"]["default"]["toplevel"] == "vta"


def test_models_of_cells_are_for_simulators_alone():
    files = {file.path: file.text for file in bundle_of_cells()}
    core = yaml.safe_load(files["vta.core"].split("\n", 1)[1])
    assert core["filesets"]["models"]["files"] == ["models/MULT18X18D.v"]
    assert "module MULT18X18D" in files["models/MULT18X18D.v"]
    assert {name for name, t in core["targets"].items() if "models" in t["filesets"]} == {"lint"}
    assert "models" not in files["vta_hw.tcl"]


def test_configuration_comes_back(files):
    assert load_config_text(files["config.yaml"]) == TINY
    assert json.loads(files["vta_config.json"]) == TINY.to_official()


def load_config_text(text):
    return type(TINY).from_text(text)


def test_official_json_is_left_out_where_it_cannot_say_it():
    paths = {file.path for file in build_bundle(load_config("in8_out4"))}
    assert "vta_config.json" not in paths
    assert "config.yaml" in paths


def test_manifest_lists_everything_else(files):
    manifest = json.loads(files[bundle.MANIFEST])
    assert [entry["path"] for entry in manifest["files"]] == [
        p for p in files if p != "manifest.json"
    ]
    assert all(len(files[e["path"]].encode()) == e["bytes"] for e in manifest["files"])


# ---- in place ------------------------------------------------------------------------------
def test_a_second_run_replaces_the_first(tmp_path, files):
    target = tmp_path / "out"
    write_bundle(tiny_bundle(split=True), target)
    assert (target / "rtl").is_dir()
    write_bundle(tiny_bundle(), target)
    assert sorted(p.name for p in target.iterdir()) == sorted(files)
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(BundleError, match=r"is not empty and holds no manifest\.json"):
        write_bundle(tiny_bundle(), tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_file_in_the_way_is_named(tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(BundleError, match="is a file, not a folder"):
        write_bundle(tiny_bundle(), tmp_path / "out")


# ---- command -------------------------------------------------------------------------------
def test_command_writes_and_tells(tmp_path):
    result = CliRunner().invoke(app, ["--config=tiny.yaml", "-o", str(tmp_path / "out")])
    assert result.exit_code == 0
    assert "vta_xilinx.v" in result.stdout
    assert (tmp_path / "out" / "vta.h").is_file()


def test_command_refuses_a_bad_machine(tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text("block_in: 3\n")
    result = CliRunner().invoke(app, ["--config", str(path), "-o", str(tmp_path / "out")])
    assert result.exit_code == 2
    assert "block_in must be a power of two" in result.stderr
    assert not (tmp_path / "out").exists()


# ---- tools ---------------------------------------------------------------------------------
def test_yosys_error_is_told(tmp_path):
    with pytest.raises(ToolError, match="yosys exited with"):
        run_yosys(["read_verilog missing.v"], cwd=tmp_path)


def test_named_verilator_wins(monkeypatch):
    monkeypatch.setenv("VERILATOR", "/opt/special/verilator")
    assert str(find_verilator()) == "/opt/special/verilator"


def test_missing_verilator_is_told(monkeypatch):
    monkeypatch.setattr("covta.hw.generate.tools.find_verilator", lambda: None)
    with pytest.raises(ToolError, match="verilator: not found"):
        run_verilator(["--version"])


def test_configuration_error_is_a_value_error():
    assert issubclass(ConfigError, ValueError)
