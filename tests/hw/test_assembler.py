"""Text to instructions and back."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from covta.hw.assembler import (
    AssemblerError,
    UopRun,
    assemble,
    assemble_uops,
    disassemble,
    disassemble_uops,
)
from covta.hw.isa import isa
from covta.hw.params import load_config

MACHINES = {name: load_config(name) for name in ("edge", "tiny", "extended")}
QUICK = settings(max_examples=60, deadline=None, derandomize=True)


@pytest.mark.parametrize("name", MACHINES)
@given(data=st.data())
@QUICK
def test_any_words_survive_the_round_trip(name, data):
    """Also words that are no instruction."""
    raw = data.draw(st.binary(min_size=16, max_size=16))
    insn = np.frombuffer(raw, np.uint8).reshape(1, 16)
    text = disassemble(MACHINES[name], insn)
    np.testing.assert_array_equal(assemble(MACHINES[name], text), insn)


@pytest.mark.parametrize("name", MACHINES)
@given(data=st.data())
@QUICK
def test_any_fields_survive_the_round_trip(name, data):
    fmt = data.draw(st.sampled_from(list(isa(MACHINES[name]).formats())))
    opcode = {f.name: op for op, f in isa(MACHINES[name]).by_opcode.items()}[fmt.name]
    values = {
        n: data.draw(st.integers(field.minimum, field.maximum))
        for n, (_, _, field) in fmt.fields.items()
    }
    raw = fmt.encode(values | {"opcode": int(opcode)})
    insn = np.frombuffer(raw, np.uint8).reshape(1, 16)
    text = disassemble(MACHINES[name], insn)
    assert ".word" not in text
    np.testing.assert_array_equal(assemble(MACHINES[name], text), insn)


def test_text_is_readable():
    cfg = MACHINES["edge"]
    source = (
        "LOAD push_next memory_type=INP sram_base=16 dram_base=4096 y_size=2 x_size=3 x_stride=8\n"
        "alu pop_prev uop_end=0x10 iter_out=1 iter_in=2 alu_opcode=shr use_imm=1 imm=-3  # left\n"
        "\n# nothing\nFINISH\n"
    )
    lines = [
        line.split("  #")[0].rstrip()
        for line in disassemble(cfg, assemble(cfg, source)).splitlines()
    ]
    assert lines == [
        "LOAD push_next memory_type=INP sram_base=16 dram_base=4096 y_size=2 x_size=3 x_stride=8",
        "ALU pop_prev uop_end=16 iter_out=1 iter_in=2 alu_opcode=SHR use_imm=1 imm=-3",
        "FINISH",
    ]


@pytest.mark.parametrize("name", MACHINES)
@given(data=st.data())
@QUICK
def test_any_micro_ops_survive_the_round_trip(name, data):
    """Also words with bits outside every field."""
    cfg = MACHINES[name]
    word = st.integers(0, (1 << 32) - 1) | st.integers(0, isa(cfg).uop.used_mask)
    run = st.tuples(st.integers(0, 1 << 30), st.lists(word, min_size=1, max_size=9))
    runs = [(4 * a, w) for a, w in data.draw(st.lists(run, max_size=4))]
    text = disassemble_uops(cfg, [UopRun(addr=a, words=np.array(w, np.uint32)) for a, w in runs])
    assert [(r.addr, r.words.tolist()) for r in assemble_uops(cfg, text)] == runs
    assert len(assemble(cfg, text)) == 0


def test_micro_ops_are_readable():
    cfg = MACHINES["tiny"]
    stray = 1 << 31
    words = np.array([0, 1, stray], np.uint32)
    text = disassemble_uops(cfg, [UopRun(addr=0x40, words=words)])
    assert text == ".org 0x40\n.uop  # 0\n.uop dst=1  # 1\n.uop 0x80000000  # 2\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (".uop dst=1", r"t:1: a \.uop needs an address; put \.org before the first"),
        (".org", r"t:1: \.org needs one byte address, got 0"),
        (".org 2", r"t:1: the address of a micro-op must be a multiple of 4, got 0x2"),
        (".org x", r"t:1: 'x' is no integer"),
        (".org 4\n.uop acc=1", r"t:2: no field 'acc'; there are dst, src, wgt"),
        (".org 4\n.uop dst=1\n.uop dst=2048", r"t:3: uop\.dst=2048 does not fit in 11 bits"),
        (".org 4\n.uop dst=1 dst=1", r"t:2: the field dst stands twice"),
        (".org 4\n.uop 0x100000000", r"t:2: a micro-op must fit 32 bits, got 0x100000000"),
    ],
)
def test_wrong_micro_ops_are_named(text, message):
    with pytest.raises(AssemblerError, match=message):
        assemble_uops(MACHINES["edge"], text, "t")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("JUMP", r"t:1: no instruction 'JUMP'; there are LOAD, STORE, GEMM, FINISH, ALU"),
        ("GEMM uop=1", r"t:1: no field 'uop'"),
        ("GEMM uop_end=1 uop_end=2", r"t:1: the field uop_end stands twice"),
        ("GEMM uop_end", r"t:1: the field uop_end needs a value"),
        ("GEMM uop_end=x", r"t:1: 'x' is no integer"),
        ("GEMM uop_end=99999", r"t:1: gemm\.0\.uop_end=99999 does not fit in 14 bits"),
        ("LOAD memory_type=FOO", r"t:1: 'FOO' is no integer"),
        ("LOAD pad_min=1", r"t:1: no field 'pad_min'"),
        (".word 1", r"t:1: \.word needs two 64-bit words, got 1"),
        (".word 1 0x1ffffffffffffffff", r"t:1: a word must fit 64 bits"),
    ],
)
def test_wrong_lines_are_named(line, message):
    with pytest.raises(AssemblerError, match=message):
        assemble(MACHINES["edge"], line, "t")
