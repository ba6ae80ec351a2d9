"""Bit layouts: every machine's fit, round trips, words of the public instruction set."""

from __future__ import annotations

import sys
from subprocess import run

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from covta.hw.isa import (
    INSN_BYTES,
    AluOp,
    EncodeError,
    Field,
    Format,
    Isa,
    MemoryType,
    Opcode,
    isa,
)
from covta.hw.params import builtin_configs, load_config

EDGE, TINY, EXTENDED = (load_config(n) for n in ("edge", "tiny", "extended"))
CONFIGS = {name: load_config(name) for name in builtin_configs()}
QUICK = settings(max_examples=25, deadline=None, derandomize=True)
ANY_WORD = st.binary(min_size=INSN_BYTES, max_size=INSN_BYTES)


def words(insn):
    return tuple(int.from_bytes(insn[k : k + 8], "little") for k in (0, 8))


def values_of(fmt):
    """Any legal values of a format's fields."""
    return st.fixed_dictionaries(
        {name: st.integers(f.minimum, f.maximum) for name, (_, _, f) in fmt.fields.items()}
    )


# ---- layouts -----------------------------------------------------------------------------------
@pytest.mark.parametrize("name", CONFIGS)
def test_fields_follow_each_other_and_fit(name):
    x = isa(CONFIGS[name])
    for fmt in x.formats():
        for word in fmt.words:
            end = 0
            for lsb, field in word.positions.values():
                assert lsb >= end
                end = lsb + field.width_bits
            assert end <= word.width_bits == 64
    assert sum(f.width_bits for f in x.uop.fields) <= 32


def test_the_default_machine_has_the_published_widths():
    x = isa(EDGE)

    def widths(fmt, index):
        return [f.width_bits for f in fmt.words[index].fields]

    head = [3, 1, 1, 1, 1]
    assert widths(x.load, 0) == widths(x.store, 0) == [*head, 3, 16, 32]
    assert widths(x.load, 1) == widths(x.store, 1) == [16, 16, 16, 4, 4, 4, 4]
    assert widths(x.gemm, 0) == widths(x.alu, 0) == [*head, 1, 13, 14, 14, 14]
    assert widths(x.gemm, 1) == [11, 11, 11, 11, 10, 10]
    assert widths(x.alu, 1) == [11, 11, 11, 11, 3, 1, 16]
    assert [f.width_bits for f in x.uop.fields] == [11, 11, 10]


def test_opcodes_and_memory_types_are_the_published_ones():
    assert [op.name for op in sorted(Opcode)] == ["LOAD", "STORE", "GEMM", "FINISH", "ALU"]
    assert [m.name for m in sorted(MemoryType)] == ["UOP", "WGT", "INP", "ACC", "OUT", "ACC_8BIT"]
    assert [op.name for op in sorted(AluOp)] == ["MIN", "MAX", "ADD", "SHR", "MUL", "RQT"]


def test_extensions_appear_where_the_configuration_names_them():
    assert AluOp.RQT not in isa(TINY).alu_ops
    assert AluOp.RQT in isa(EXTENDED).alu_ops
    assert "pad_min" not in isa(TINY).load.fields
    index, lsb, field = isa(EXTENDED).load.fields["pad_min"]
    assert (index, lsb, field.width_bits) == (0, 58, 1)
    assert "pad_min" not in isa(EXTENDED).store.fields


def test_instruction_sets_are_built_once():
    assert isa(EDGE) is isa(load_config("edge"))


def test_formats_need_no_hardware_library():
    code = "import sys, covta.hw.isa; sys.exit('amaranth' in sys.modules)"
    assert run([sys.executable, "-c", code], check=False).returncode == 0


# ---- words -------------------------------------------------------------------------------------
# Worked out by hand from the bit positions of the document, for the default machine.
WORDS = {
    "finish": ((Opcode.FINISH, {}), (3, 0)),
    "load inp": (
        (
            Opcode.LOAD,
            {"memory_type": 2, "sram_base": 5, "dram_base": 0x100, "y_size": 1, "x_size": 64,
             "x_stride": 64, "push_next": 1},
        ),
        (0 | 1 << 6 | 2 << 7 | 5 << 10 | 0x100 << 26, 1 | 64 << 16 | 64 << 32),
    ),
    "load padded": (
        (
            Opcode.LOAD,
            {"memory_type": 3, "y_size": 2, "x_size": 3, "x_stride": 9, "y_pad_0": 1,
             "y_pad_1": 2, "x_pad_0": 3, "x_pad_1": 4, "pop_next": 1},
        ),
        (1 << 4 | 3 << 7, 2 | 3 << 16 | 9 << 32 | 1 << 48 | 2 << 52 | 3 << 56 | 4 << 60),
    ),
    "store": (
        (
            Opcode.STORE,
            {"memory_type": 4, "sram_base": 0xFFFF, "dram_base": 0xFFFFFFFF, "y_size": 1,
             "x_size": 1, "x_stride": 1, "pop_prev": 1, "push_prev": 1},
        ),
        (1 | 1 << 3 | 1 << 5 | 4 << 7 | 0xFFFF << 10 | 0xFFFFFFFF << 26, 1 | 1 << 16 | 1 << 32),
    ),
    "gemm": (
        (
            Opcode.GEMM,
            {"reset": 1, "uop_bgn": 1, "uop_end": 8192, "iter_out": 3, "iter_in": 16383,
             "dst_factor_out": 2047, "dst_factor_in": 1, "src_factor_out": 2, "src_factor_in": 3,
             "wgt_factor_out": 4, "wgt_factor_in": 1023},
        ),
        (
            2 | 1 << 7 | 1 << 8 | 8192 << 21 | 3 << 35 | 16383 << 49,
            2047 | 1 << 11 | 2 << 22 | 3 << 33 | 4 << 44 | 1023 << 54,
        ),
    ),
    "alu": (
        (
            Opcode.ALU,
            {"uop_end": 1, "iter_out": 1, "iter_in": 1, "alu_opcode": AluOp.SHR, "use_imm": 1,
             "imm": -8, "dst_factor_in": 1, "src_factor_in": 1},
        ),
        (4 | 1 << 21 | 1 << 35 | 1 << 49, 1 << 11 | 1 << 33 | 3 << 44 | 1 << 47 | 0xFFF8 << 48),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("insn", "expected"), WORDS.values(), ids=WORDS)
def test_words_of_the_default_machine(insn, expected):
    opcode, fields = insn
    encoded = isa(EDGE).encode(opcode, **fields)
    assert words(encoded) == expected
    decoded = isa(EDGE).by_opcode[opcode].decode(encoded)
    assert {k: v for k, v in decoded.items() if v} == {
        k: v for k, v in {"opcode": opcode, **fields}.items() if v
    }


def test_a_micro_op_of_the_default_machine():
    assert isa(EDGE).uop.encode(dst=1, src=2, wgt=3) == 1 | 2 << 11 | 3 << 22


# ---- round trips -------------------------------------------------------------------------------
@pytest.mark.parametrize("name", CONFIGS)
@given(data=st.data())
@QUICK
def test_fields_survive_the_round_trip(name, data):
    x = isa(CONFIGS[name])
    opcode = data.draw(st.sampled_from(list(x.by_opcode)))
    fmt = x.by_opcode[opcode]
    values = data.draw(values_of(fmt)) | {"opcode": int(opcode)}
    insn = fmt.encode(values)
    assert len(insn) == INSN_BYTES
    assert fmt.decode(insn) == values
    assert fmt.stray_bits(insn) == 0


@pytest.mark.parametrize("name", CONFIGS)
@given(raw=ANY_WORD)
@QUICK
def test_decoding_loses_stray_bits_and_nothing_else(name, raw):
    for fmt in isa(CONFIGS[name]).formats():
        kept = int.from_bytes(fmt.encode(fmt.decode(raw)), "little")
        assert kept | fmt.stray_bits(raw) == int.from_bytes(raw, "little")
        assert kept & fmt.stray_bits(raw) == 0


@pytest.mark.parametrize("name", CONFIGS)
@given(data=st.data())
@QUICK
def test_micro_ops_survive_the_round_trip(name, data):
    fmt = isa(CONFIGS[name]).uop
    values = {f.name: data.draw(st.integers(f.minimum, f.maximum)) for f in fmt.fields}
    assert fmt.decode(fmt.encode(**values)) == values


def test_numpy_integers_are_integers():
    word = isa(EDGE).load.words[1]
    assert word.encode(x_size=np.int64(7)) == word.encode(x_size=7)


# ---- errors ------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", CONFIGS)
def test_every_field_refuses_what_is_one_too_far(name):
    for fmt in isa(CONFIGS[name]).formats():
        for field_name, (index, _, field) in fmt.fields.items():
            where = f"{fmt.words[index].name}.{field_name}"
            sign = " signed" if field.signed else ""
            for value in (field.minimum - 1, field.maximum + 1):
                with pytest.raises(EncodeError) as caught:
                    fmt.encode({field_name: value})
                assert (
                    str(caught.value)
                    == f"{where}={value} does not fit in {field.width_bits}{sign} bits"
                )
            for value in (field.minimum, field.maximum):
                assert fmt.decode(fmt.encode({field_name: value}))[field_name] == value


@pytest.mark.parametrize(
    ("opcode", "fields", "message"),
    [
        (Opcode.GEMM, {"uop_end": 1 << 20}, r"^gemm\.0\.uop_end=1048576 does not fit in 14 bits$"),
        (Opcode.GEMM, {"iter_in": -1}, r"^gemm\.0\.iter_in=-1 does not fit in 14 bits$"),
        (Opcode.ALU, {"imm": 32768}, r"^alu\.1\.imm=32768 does not fit in 16 signed bits$"),
        (Opcode.LOAD, {"uop_bgn": 0}, r"^load has no field 'uop_bgn'$"),
        (Opcode.LOAD, {"pad_min": 1}, r"^load has no field 'pad_min'$"),
        (Opcode.FINISH, {"x_size": 1}, r"^finish has no field 'x_size'$"),
    ],
)
def test_messages_name_field_value_and_width(opcode, fields, message):
    with pytest.raises(EncodeError, match=message):
        isa(EDGE).encode(opcode, **fields)


def test_an_unknown_micro_op_field_is_named():
    with pytest.raises(EncodeError, match=r"^uop has no field 'acc'$"):
        isa(EDGE).uop.encode(acc=1)


def test_formats_that_contradict_themselves_are_our_mistake():
    a, b = Field(name="a", width_bits=5), Field(name="b", width_bits=4)
    assert Format("w", 9, (a, b)).encode(b=1) == 1 << 5
    for fields in ((a, a), (a, Field(name="b", width_bits=1, lsb=4)), (a, b)):
        with pytest.raises(AssertionError):
            _ = Format("w", 8, fields).positions


# ---- memories ----------------------------------------------------------------------------------
@pytest.mark.parametrize("name", CONFIGS)
def test_elements_and_depths_follow_from_the_configuration(name):
    cfg = CONFIGS[name]
    x = Isa(cfg)
    for kind, buffer in (("UOP", "uop"), ("WGT", "wgt"), ("INP", "inp"), ("ACC", "acc")):
        memory = MemoryType[kind]
        assert x.elem_bytes(memory) * x.depth(memory) == getattr(cfg.buffers, buffer)
    assert x.depth(MemoryType.OUT) == x.depth(MemoryType.ACC_8BIT) == x.depth(MemoryType.ACC)
    assert x.elem_bytes(MemoryType.ACC_8BIT) == cfg.batch * cfg.block_out
    assert x.elem_bytes(MemoryType.OUT) * 8 == cfg.batch * cfg.block_out * cfg.inp_bits
