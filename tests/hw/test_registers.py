"""The table of control registers, and what is rendered from it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from covta.hw.counters import COUNTERS, saturate
from covta.hw.params import EXTENSIONS, Config, load_config
from covta.hw.registers import (
    REGISTER_BY_NAME,
    REGISTERS,
    Access,
    counter_register,
    implemented_mask,
    param_hash,
    render_c_header,
    render_markdown,
    reset_value,
)

REPOSITORY = Path(__file__).parents[2]


def test_offsets_and_names_are_unique_and_ordered():
    offsets = [r.offset for r in REGISTERS]
    assert offsets == sorted(set(offsets))
    assert len(REGISTER_BY_NAME) == len(REGISTERS)


def test_every_counter_has_a_register_behind_the_cycle_counter():
    first = REGISTER_BY_NAME["CYCLES_HI"].offset
    assert all(REGISTER_BY_NAME[counter_register(name)].offset > first for name in COUNTERS)


def test_counters_saturate_at_32_bits():
    assert saturate(5) == 5
    assert saturate(1 << 40) == 0xFFFF_FFFF


def test_fields_encode_and_decode():
    control = REGISTER_BY_NAME["CONTROL"]
    assert control.access is Access.STROBE
    assert control.encode(launch=1, irq_ack=1) == 0b101
    assert control.decode(0b010) == {"launch": 0, "reset": 1, "irq_ack": 0}


def test_a_value_beyond_its_field_is_refused():
    with pytest.raises(ValueError, match=r"CONTROL.launch=2 does not fit in 1 bits"):
        REGISTER_BY_NAME["CONTROL"].encode(launch=2)


def test_parameters_read_back():
    cfg = load_config("edge")
    bus = REGISTER_BY_NAME["PARAM_BUS"]
    assert bus.decode(reset_value(bus, cfg)) == {
        "data_bits": 64,
        "addr_bits": 32,
        "log2_max_burst_beats": 6,
        "log2_max_outstanding": 4,
    }
    shape = REGISTER_BY_NAME["PARAM_SHAPE"]
    assert shape.decode(reset_value(shape, cfg)) == {"batch": 1, "block_in": 16, "block_out": 16}
    extensions = REGISTER_BY_NAME["PARAM_EXTENSIONS"]
    everything = cfg.model_copy(update={"extensions": tuple(EXTENSIONS)})
    assert reset_value(extensions, cfg) == 0
    assert reset_value(extensions, everything) == (1 << len(EXTENSIONS)) - 1


def test_address_registers_end_with_the_address():
    high = REGISTER_BY_NAME["WINDOW_LAST_HI"]
    assert implemented_mask(high, Config()) == 0
    assert reset_value(REGISTER_BY_NAME["WINDOW_LAST_LO"], Config()) == 0xFFFF_FFFF
    assert reset_value(high, load_config("wide_address")) == 0xFFFF_FFFF


def test_hash_ignores_name_and_description_only():
    cfg = Config()
    assert param_hash(cfg) == param_hash(cfg.model_copy(update={"name": "other"}))
    assert param_hash(cfg) != param_hash(cfg.model_copy(update={"alu_mul_lanes": 8}))


def test_page_matches_the_table():
    page = (REPOSITORY / "docs" / "registers.md").read_text(encoding="utf-8")
    assert page == render_markdown()


@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")
@pytest.mark.parametrize("name", ["edge", "wide_address", "extended"])
def test_c_header_compiles(name, tmp_path):
    header = tmp_path / "vta.h"
    header.write_text(render_c_header(load_config(name)), encoding="utf-8")
    user = tmp_path / "user.c"
    user.write_text(
        '#include "vta.h"\n'
        '#include "vta.h"\n'
        "typedef char offset_holds[VTA_REG_CONTROL == 0x8u ? 1 : -1];\n"
        "typedef char cause_holds[VTA_FAULT_BUS_ERROR == 4 ? 1 : -1];\n"
        "typedef char lanes_hold[VTA_BLOCK_OUT > 0u ? 1 : -1];\n"
        "unsigned go(void) { return VTA_CONTROL_LAUNCH_MASK | VTA_PARAM_HASH_VALUE; }\n",
        encoding="utf-8",
    )
    command = ["gcc", "-std=c99", "-Wall", "-Wextra", "-pedantic", "-Werror", "-fsyntax-only"]
    done = subprocess.run([*command, str(user)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_table_imports_no_amaranth():
    code = "import sys, covta.hw.registers, covta.hw.counters; sys.exit('amaranth' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
