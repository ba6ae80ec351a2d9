"""Configurations: what is derived, what is refused and in which words, official JSON."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from covta.hw.params import Config, ConfigError, builtin_configs, load_config

SMALL = {
    "batch": 1,
    "block_in": 4,
    "block_out": 4,
    "buffers": {"uop": "256 B", "inp": "256 B", "wgt": "512 B", "acc": "1 KiB"},
    "bus": {"data_bits": 32},
}


def with_buffers(**sizes):
    return {"buffers": SMALL["buffers"] | sizes}


# ---- derived values ------------------------------------------------------------------------
def test_default_machine_is_the_published_one():
    cfg = Config()
    assert (cfg.inp_elem_bytes, cfg.wgt_elem_bytes, cfg.acc_elem_bytes) == (16, 256, 64)
    assert (cfg.uop_depth, cfg.inp_depth, cfg.wgt_depth, cfg.acc_depth) == (8192, 2048, 1024, 2048)
    assert cfg.macs == 256
    assert cfg.acc8_elem_bytes == 16


def test_edge_programs_are_programs_of_the_default_machine():
    edge = load_config("edge")
    assert edge.isa_equal(Config())
    assert edge.dsp_pack


def test_extended_machine_runs_base_programs_but_not_the_reverse():
    extended = Config(extensions=("pad_min",))
    assert extended.isa_equal(Config())
    assert not Config().isa_equal(extended)


@pytest.mark.parametrize(("text", "size_bytes"), [("64 B", 64), ("1KiB", 1024), ("256", 256)])
def test_sizes_have_units(text, size_bytes):
    cfg = Config.from_dict(SMALL | with_buffers(inp=text))
    assert cfg.buffers.inp == size_bytes


def test_mul_takes_a_cycle_for_each_group_of_lanes():
    assert Config(alu_mul_lanes=2).mul_cycles == 8


# ---- built-in machines ---------------------------------------------------------------------
@pytest.mark.parametrize("name", builtin_configs())
def test_builtin_machine_is_named_after_its_file(name):
    assert load_config(name).name == name
    assert load_config(f"{name}.yaml").name == name


@pytest.mark.parametrize("name", builtin_configs())
def test_builtin_machine_says_what_it_is(name):
    first = builtin_configs()[name].read_text(encoding="utf-8").splitlines()[0]
    assert re.fullmatch(r"# .{10,}\.", first)


@pytest.mark.parametrize("name", builtin_configs())
def test_yaml_round_trip(name):
    cfg = load_config(name)
    assert Config.from_text(cfg.to_yaml()) == cfg


def test_there_are_machines_enough_for_a_campaign():
    tests = [name for name, path in builtin_configs().items() if path.parent.name == "test"]
    assert len(tests) >= 20
    machines = [load_config(name) for name in tests]
    assert {1, 2, 4} <= {cfg.batch for cfg in machines}
    assert {32, 64, 128, 256} <= {cfg.bus.data_bits for cfg in machines}
    assert {4, 8, 16} <= {cfg.inp_bits for cfg in machines}
    assert all(cfg.macs <= 256 for cfg in machines)


# ---- refusals ------------------------------------------------------------------------------
REFUSALS = {
    "batch": ({"batch": 3}, "batch must be a power of two from 1 to 64, got 3"),
    "block_in": ({"block_in": 128}, "block_in must be a power of two from 2 to 64, got 128"),
    "block_out": ({"block_out": 1}, "block_out must be a power of two from 2 to 64, got 1"),
    "bus above inp": (
        {"bus": {"data_bits": 64}},
        "bus.data_bits must not exceed one inp tensor, got 64 > 32",
    ),
    "bus above wgt": (
        {"block_in": 8, "block_out": 2, "wgt_bits": 2, "bus": {"data_bits": 64}},
        "bus.data_bits must not exceed one wgt tensor, got 64 > 32",
    ),
    "bus above acc": (
        {"block_in": 16, "block_out": 2, "bus": {"data_bits": 128}},
        "bus.data_bits must not exceed one acc tensor, got 128 > 64",
    ),
    "bus above out": (
        {"block_in": 8, "bus": {"data_bits": 64}},
        "bus.data_bits must not exceed one out tensor, got 64 > 32",
    ),
    "bus above acc_8bit": (
        {"block_in": 8, "block_out": 4, "inp_bits": 16, "bus": {"data_bits": 64}},
        "bus.data_bits must not exceed one ACC_8BIT tensor of batch * block_out * 8 bits",
    ),
    "acc_bits": (
        {"inp_bits": 16, "acc_bits": 16},
        "acc_bits must hold a product of inp_bits + wgt_bits = 24 bits, got 16",
    ),
    "size no power": (
        with_buffers(inp=96),
        "buffers.inp must be a power of two of at least 4 elements of 4 bytes, got 96",
    ),
    "size too small": (
        with_buffers(wgt=32),
        "buffers.wgt must be a power of two of at least 4 elements of 16 bytes, got 32",
    ),
    "size no size": (with_buffers(acc="1 GiB"), "'1 GiB' is no size; write e.g. 32 KiB"),
    "too deep": (
        with_buffers(inp="512 KiB"),
        "buffers.inp must not exceed 65536 elements (16-bit sram_base), got 131072",
    ),
    "uop beats": (
        {
            "batch": 4,
            "block_in": 8,
            "block_out": 8,
            "buffers": {"uop": 16, "inp": 1024, "wgt": 1024, "acc": 4096},
            "bus": {"data_bits": 128},
        },
        "buffers.uop must hold at least two beats of micro-ops, got 16",
    ),
    "micro-op": (
        with_buffers(acc="1 MiB", wgt="8 KiB"),
        "a micro-op must fit 32 bits: dst 16 + src 16 + wgt 9 = 41",
    ),
    "gemm.0": (
        with_buffers(uop="64 KiB"),
        "gemm.0 must fit 64 bits: 8 + uop_bgn 14 + uop_end 15 + 28 = 65",
    ),
    "alu.1": (
        with_buffers(acc="64 KiB", wgt="128 B"),
        "alu.1 must fit 64 bits: 4 * acc 12 + 20 = 68",
    ),
    "mul lanes": (
        {"alu_mul_lanes": 8},
        "alu_mul_lanes must be a power of two from 1 to batch * block_out = 4, got 8",
    ),
    "mul lanes no power": (
        {"alu_mul_lanes": 3},
        "alu_mul_lanes must be a power of two from 1 to batch * block_out = 4, got 3",
    ),
    "dsp_pack": (
        {"dsp_pack": True, "wgt_bits": 4},
        "dsp_pack needs 8-bit operands, got inp_bits 8, wgt_bits 4",
    ),
    "dsp_pack of cells": (
        {"dsp_pack": True, "dsp_cell": "mult18x18d"},
        "dsp_pack needs dsp_cell generic, got mult18x18d",
    ),
    "dsp_cell": (
        {"dsp_cell": "dsp58"},
        "dsp_cell: Input should be 'generic' or 'mult18x18d', got 'dsp58'",
    ),
    "extension": (
        {"extensions": ["warp"]},
        "extensions must be among requantize, pad_min, got 'warp'",
    ),
    "extension twice": (
        {"extensions": ["pad_min", "pad_min"]},
        "extensions must not repeat, got pad_min, pad_min",
    ),
    "inp_bits": ({"inp_bits": 5}, "inp_bits: Input should be 4, 8 or 16, got 5"),
    "wgt_bits": ({"wgt_bits": 1}, "wgt_bits: Input should be 2, 4, 8 or 16, got 1"),
    "acc_bits values": ({"acc_bits": 64}, "acc_bits: Input should be 16 or 32, got 64"),
    "data_bits": (
        {"bus": {"data_bits": 48}},
        "bus.data_bits: Input should be 32, 64, 128, 256 or 512, got 48",
    ),
    "addr_bits": (
        {"bus": {"data_bits": 32, "addr_bits": 65}},
        "bus.addr_bits: Input should be less than or equal to 64, got 65",
    ),
    "max_outstanding": (
        {"bus": {"data_bits": 32, "max_outstanding": 1}},
        "bus.max_outstanding: Input should be 2, 4, 8, 16, 32 or 64, got 1",
    ),
    "max_burst_beats": (
        {"bus": {"data_bits": 32, "max_burst_beats": 3}},
        "bus.max_burst_beats: Input should be 1, 2, 4, 8, 16, 32, 64, 128 or 256, got 3",
    ),
    "insn_queue_depth": (
        {"insn_queue_depth": 2},
        "insn_queue_depth: Input should be 4, 8, 16, 32, 64 or 128, got 2",
    ),
    "name": ({"name": "Big One"}, "name: String should match pattern"),
    "type": ({"batch": "one"}, "batch: Input should be a valid integer, got 'one'"),
    "unknown key": ({"blocks": 4}, "blocks: Extra inputs are not permitted, got 4"),
    "unknown buffer": (with_buffers(out=64), "buffers.out: Extra inputs are not permitted, got 64"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_refusal_names_field_rule_and_value(case):
    change, message = REFUSALS[case]
    with pytest.raises(ConfigError) as caught:
        Config.from_dict(SMALL | change, "machine.yaml")
    assert str(caught.value).startswith("machine.yaml: ")
    assert message in str(caught.value)


def test_several_mistakes_are_told_at_once():
    with pytest.raises(ConfigError, match=r"inp_bits: .*; acc_bits: "):
        Config.from_dict(SMALL | {"inp_bits": 5, "acc_bits": 5})


def test_not_a_mapping():
    with pytest.raises(ConfigError, match="must be a mapping of parameters, got \\[1, 2\\]"):
        Config.from_text("[1, 2]")


def test_not_yaml():
    with pytest.raises(ConfigError, match=r"^x\.yaml: not YAML: "):
        Config.from_text("{", "x.yaml")


def test_unknown_name_lists_the_builtin_ones():
    with pytest.raises(ConfigError, match=r"no such file, and no built-in configuration .*edge"):
        load_config("nothing")


def test_missing_path_is_not_taken_for_a_builtin_name():
    with pytest.raises(ConfigError, match="no such file"):
        load_config("elsewhere/edge.yaml")


def test_binary_file_is_refused(tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(path)


# ---- official JSON -------------------------------------------------------------------------
def test_default_machine_in_official_keys():
    assert Config().to_official() == {
        "TARGET": "sim",
        "HW_VER": "0.0.2",
        "LOG_INP_WIDTH": 3,
        "LOG_WGT_WIDTH": 3,
        "LOG_ACC_WIDTH": 5,
        "LOG_BATCH": 0,
        "LOG_BLOCK": 4,
        "LOG_UOP_BUFF_SIZE": 15,
        "LOG_INP_BUFF_SIZE": 15,
        "LOG_WGT_BUFF_SIZE": 18,
        "LOG_ACC_BUFF_SIZE": 17,
    }


@pytest.mark.parametrize("name", builtin_configs())
def test_official_round_trip(name, tmp_path):
    cfg = load_config(name)
    if cfg.block_in != cfg.block_out:
        with pytest.raises(ConfigError, match="official keys tie block_in and block_out together"):
            cfg.to_official()
        return
    path = tmp_path / "vta_config.json"
    path.write_text(cfg.to_official_json(), encoding="utf-8")
    again = load_config(path)
    base = cfg.model_copy(update={"extensions": ()})
    assert again.isa_equal(base)
    assert again.to_official() == cfg.to_official()


def test_official_keys_of_a_small_machine_get_a_bus_that_suits():
    keys = official(LOG_BLOCK=2, LOG_WGT_BUFF_SIZE=10, LOG_ACC_BUFF_SIZE=10)
    cfg = Config.from_dict(keys)
    assert cfg.bus.data_bits == 32
    assert Config.from_dict(official()) == Config(name="official")


def official(**changes):
    return Config().to_official() | changes


def test_official_unknown_key():
    with pytest.raises(ConfigError, match="unknown key 'LOG_FOO' among the official keys"):
        Config.from_dict(official(LOG_FOO=1))


@pytest.mark.parametrize(
    "more",
    [
        {"LOG_OUT_WIDTH": 3, "LOG_OUT_BUFF_SIZE": 15, "LOG_UOP_WIDTH": 5},
        {"LOG_BLOCK_IN": 4, "LOG_BLOCK_OUT": 4},
        {"HW_FREQ": 100, "HW_CLK_TARGET": 8},
    ],
)
def test_official_keys_that_follow_from_others_may_be_there(more):
    assert Config.from_dict(official(**more)) == Config.from_dict(official())


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("LOG_OUT_WIDTH", 5, "LOG_OUT_WIDTH must be LOG_INP_WIDTH = 3, got 5"),
        ("LOG_BLOCK_IN", 5, "LOG_BLOCK_IN must be LOG_BLOCK = 4, got 5"),
        ("LOG_OUT_BUFF_SIZE", 14, "LOG_INP_WIDTH - LOG_ACC_WIDTH = 15, got 14"),
    ],
)
def test_official_keys_that_contradict_others(key, value, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        Config.from_dict(official(**{key: value}))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "name: m\nbatch: 1\nbatch: 2\n",
            "m.yaml: 'batch' stands twice, the second time in line 3",
        ),
        ("bus:\n  data_bits: 64\n  data_bits: 32\n", "'data_bits' stands twice"),
        ('{"LOG_BATCH": 0, "LOG_BATCH": 1}', "'LOG_BATCH' stands twice"),
        ("extensions: pad_min\n", "'pad_min' is no list; write e.g. [pad_min]"),
        ("buffers: {uop: ٣٢ KiB}\n", "is no size; write e.g. 32 KiB"),
    ],
)
def test_what_a_person_may_have_meant_otherwise_is_refused(text, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        Config.from_text(text, "m.yaml")


def test_official_missing_key():
    keys = official()
    del keys["LOG_BATCH"]
    with pytest.raises(ConfigError, match="the official key LOG_BATCH is missing"):
        Config.from_dict(keys)


@pytest.mark.parametrize("value", [-1, 31, "3", 2.0, True])
def test_official_value_out_of_range(value):
    with pytest.raises(ConfigError, match="LOG_BLOCK must be an integer from 0 to 30, got "):
        Config.from_dict(official(LOG_BLOCK=value))


@given(
    log2_block=st.integers(1, 6),
    log2_batch=st.integers(0, 6),
    log2_sizes=st.tuples(*[st.integers(8, 20)] * 4),
)
def test_official_keys_are_read_as_written_or_refused(log2_block, log2_batch, log2_sizes):
    names = ("UOP", "INP", "WGT", "ACC")
    sizes = {f"LOG_{name}_BUFF_SIZE": size for name, size in zip(names, log2_sizes, strict=True)}
    keys = official(LOG_BLOCK=log2_block, LOG_BATCH=log2_batch, **sizes)
    try:
        cfg = Config.from_text(json.dumps(keys))
    except ConfigError:
        return
    assert cfg.to_official() == keys
