"""Programs as text and back, with their micro-ops."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from covta.hw.assembler import AssemblerError
from covta.hw.isa import MemoryType
from covta.hw.params import load_config
from covta.runtime.program import Program
from covta.runtime.text import program_from_text, program_like, program_text, uop_runs
from covta.sim.fuzz.generator import random_program

TINY = load_config("tiny")
QUICK = settings(max_examples=40, deadline=None, derandomize=True)

TEXT = """\
LOAD memory_type=UOP dram_base=64 y_size=2 x_size=2 x_stride=4
FINISH
.org 0x100
.uop dst=1 src=2 wgt=3
.uop
.org 0x110
.uop dst=4
.uop 0x80000001
"""


def same(a: Program, b: Program) -> bool:
    pairs = [(a.insn, b.insn), *zip(a.regions, b.regions, strict=True)]
    fields = ("config", "insn_addr", "region_addrs", "base_ptrs", "initial_tokens", "meta")
    return all(np.array_equal(x, y) for x, y in pairs) and all(
        getattr(a, name) == getattr(b, name) for name in fields
    )


def as_program(fuzzed) -> Program:
    names = ("config", "insn", "insn_addr", "region_addrs", "regions", "base_ptrs")
    return Program(**{name: getattr(fuzzed, name) for name in names})


def without_micro_ops(program: Program) -> Program:
    """Every micro-op that the program loads turned over."""
    regions = [data.copy() for data in program.regions]
    for run in uop_runs(program):
        for addr, data in zip(program.region_addrs, regions, strict=True):
            if addr <= run.addr < addr + len(data):
                data[run.addr - addr : run.addr - addr + run.words.nbytes] ^= 0xFF
    return replace(program, regions=tuple(regions))


@given(seed=st.integers(0, 10_000), name=st.sampled_from(["tiny", "extended", "bus256"]))
@QUICK
def test_text_brings_back_every_micro_op_of_a_random_program(seed, name):
    program = as_program(random_program(load_config(name), seed, 30))
    text = program_text(program)
    bare = without_micro_ops(program)
    assert same(program_like(bare, text), program)
    assert same(bare, program) == (".uop" not in text)


@given(
    loads=st.lists(
        st.tuples(st.integers(0, 40), *[st.integers(0, n) for n in (5, 6, 9)]), max_size=6
    ),
    stray=st.booleans(),
)
@QUICK
def test_a_text_alone_gives_the_same_micro_ops(loads, stray):
    """Whatever rows the LOADs read: apart, side by side, one over the other."""
    insns = "".join(
        f"LOAD memory_type=UOP dram_base={base} y_size={y} x_size={x} x_stride={stride}\n"
        for base, y, x, stride in loads
    )
    words = np.arange(1, 201, dtype=np.uint32) | (0x80000000 if stray else 0)
    memory = words.view(np.uint8)
    read = {
        base + row * stride + k
        for base, y, x, stride in loads
        for row in range(y)
        for k in range(x)
    }
    insn = program_from_text(TINY, insns + "FINISH\n", insn_addr=0x1000).insn
    program = Program(
        config=TINY, insn=insn, insn_addr=0x1000, region_addrs=(0,), regions=(memory,)
    )
    again = program_from_text(TINY, program_text(program), insn_addr=0x1000)
    np.testing.assert_array_equal(again.insn, insn)
    got = {
        addr // 4 + k: word
        for addr, data in zip(again.region_addrs, again.regions, strict=True)
        for k, word in enumerate(data.view(np.uint32).tolist())
    }
    assert got == {at: int(words[at]) for at in read}


def test_runs_become_regions_of_their_own():
    program = program_from_text(TINY, TEXT)
    assert program.region_addrs == (0x100, 0x110)
    assert program_text(program).count(".uop") == 4
    assert same(program_from_text(TINY, program_text(program)), program)


def test_micro_ops_are_written_over_the_region_that_holds_them():
    data = np.full(64, 7, np.uint8)
    after = data.copy()
    after[4] = 9  # what the program itself writes
    base = replace(
        program_from_text(TINY, "FINISH\n"),
        region_addrs=(0x100,),
        regions=(data,),
        expected=(after,),
    )
    made = program_like(base, TEXT)
    assert made.region_addrs == (0x100,)
    assert made.regions[0][16:24].tolist() == [4, 0, 0, 0, 1, 0, 0, 0x80]
    assert made.regions[0][24:].tolist() == [7] * 40
    assert made.expected[0] is not None
    assert made.expected[0][16:24].tolist() == made.regions[0][16:24].tolist()
    assert made.expected[0][4] == 9
    assert data.tolist() == [7] * 64


def test_base_pointer_moves_the_micro_ops():
    base_ptrs = [0] * len(MemoryType)
    base_ptrs[MemoryType.UOP] = 0x400
    base = replace(
        program_from_text(TINY, "FINISH\n"),
        region_addrs=(0x500,),
        regions=(np.zeros(32, np.uint8),),
        base_ptrs=tuple(base_ptrs),
    )
    made = program_like(base, TEXT.replace(".org 0x1", ".org 0x5"))
    assert [run.addr for run in uop_runs(made)] == [0x500, 0x510]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (".org 0x0\n.uop", "t:2: micro-ops at 0x0 to 0x3 must not overlap the instructions at 0x0"),
        (".org 0x40\n.uop\n.uop\n.org 0x44\n.uop", "t:5: micro-ops at 0x44 to 0x47 must not"),
        (
            ".org 0xfc\n.uop\n.uop",
            "t:2: micro-ops must lie in one region or in none, got 0xfc to 0x103 beside the region",
        ),
    ],
)
def test_micro_ops_in_the_wrong_place_are_named(text, message):
    base = program_from_text(TINY, "FINISH\n")
    base = replace(base, region_addrs=(0x100,), regions=(np.zeros(32, np.uint8),))
    with pytest.raises(AssemblerError, match=message):
        program_like(base, "FINISH\n" + text, "t")
