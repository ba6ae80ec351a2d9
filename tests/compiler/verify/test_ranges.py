"""Bounds of accumulators: exact where they can be, never too small."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from covta.compiler.verify import Rule, verify_program
from covta.hw.isa import AluOp, Opcode, Unit, isa
from covta.hw.params import load_config
from covta.runtime.program import Program
from covta.sim.decode import column, decode
from covta.sim.fuzz.generator import random_program

from ...golden import ACC, GEMM, INP, LOAD, OUT, STORE, WGT, Golden, wrap
from .mutants import conv2d, matmul, vector_add

ACC16 = load_config("acc16")
DATA, OUTPUT, CONST, UOPS = 0x1000, 0x1080, 0x2000, 0x3000


class Watching(Golden):
    """The golden interpreter, noting which instruction wraps or truncates."""

    def watch(self, program) -> tuple[set[int], set[int]]:
        units = decode(program.config, program.insn)[:, column("unit")]
        self.queues = [list(np.flatnonzero(units == unit)) for unit in Unit]
        self.now, self.wrapped, self.truncated = -1, set(), set()
        self.run(program.insn, program.initial_tokens)
        return self.wrapped, self.truncated

    def execute(self, opcode, low, high):
        load = opcode == LOAD and low.word & 7 in (INP, WGT)
        unit = Unit.LOAD if load else Unit.STORE if opcode == STORE else Unit.COMPUTE
        self.now = int(self.queues[unit].pop(0))
        before = None
        if opcode == GEMM:
            before = [list(lanes) for lanes in self.pads[ACC]]
            self.exact: dict[int, list[int]] = {}
        super().execute(opcode, low, high)
        if before is not None:
            limit = 1 << (self.cfg.acc_bits - 1)
            for d, added in self.exact.items():
                sums = [a + b for a, b in zip(before[d], added, strict=True)]
                if not all(-limit <= s < limit for s in sums):
                    self.wrapped.add(self.now)

    def loop(self, low, widths, high):
        for d, s, w in super().loop(low, widths, high):
            if widths[2] and not self.resets:
                inp, wgt, n = self.pads[INP][s], self.pads[WGT][w], self.cfg.block_in
                exact = self.exact.setdefault(d, [0] * self.cfg.lanes)
                for b in range(self.cfg.batch):
                    for o in range(self.cfg.block_out):
                        exact[b * self.cfg.block_out + o] += sum(
                            inp[b * n + i] * wgt[o * n + i] for i in range(n)
                        )
            yield d, s, w

    def gemm(self, low, high):
        self.resets = low.word & 1
        super().gemm(low, high)

    def operate(self, op, a, b):
        raw = {2: a + b, 4: a * b}.get(op)
        if op == 3 and b < 0 and -b < self.cfg.acc_bits:
            raw = a << -b
        if raw is not None and wrap(raw, self.cfg.acc_bits) != raw:
            self.wrapped.add(self.now)
        return super().operate(op, a, b)

    def write(self, elem, values):
        if any(wrap(v, self.shape[OUT][1]) != v for v in values):
            self.truncated.add(self.now)
        super().write(elem, values)


def watched(program) -> tuple[set[int], set[int]]:
    memory = {a + k: int(v) for a, data in program.memory() for k, v in enumerate(data)}
    bus = program.config.bus_bytes
    for at in list(memory):
        for k in range(at // bus * bus, at // bus * bus + bus):
            memory.setdefault(k, 0)
    return Watching(program.config, memory, program.base_ptrs).watch(program)


def warned(program, rule: Rule, **options) -> set[int | None]:
    return {f.insn for f in verify_program(program, **options).warnings if f.rule == rule}


MACHINES = ("acc16", "extended_acc16", "int16", "int4", "batch2", "tiny", "pad_min", "wgt2")


@pytest.mark.parametrize("seed", range(64))
def test_whatever_wraps_or_is_truncated_was_warned_of(seed):
    program = random_program(load_config(MACHINES[seed % len(MACHINES)]), seed, size=40)
    wrapped, truncated = watched(program)
    regions = range(len(program.regions))
    for options in ({}, {"inputs": []}, {"inputs": regions}):
        assert truncated <= warned(program, Rule.TRUNCATION, **options)
        # An element that may have wrapped before is not reported again.
        if wrapped:
            assert min(warned(program, Rule.WRAP, **options)) <= min(wrapped)


def test_known_inputs_give_no_more_warnings_than_unknown_ones():
    for seed in range(16):
        program = random_program(ACC16, seed, size=40)
        unknown = warned(program, Rule.TRUNCATION, inputs=range(len(program.regions)))
        assert warned(program, Rule.TRUNCATION, inputs=[]) <= unknown


# ---- exact bounds, by hand ---------------------------------------------------------------------
def one_lane(times: int, *alu: dict[str, int], cfg=ACC16):
    """Inputs times weights of which lane 0 has 1, -2, 3, -4, …, `times` times, then ALU, STORE."""
    weights = np.zeros((cfg.block_out, cfg.block_in), np.int8)
    weights[0] = [(k + 1) * (-1) ** k for k in range(cfg.block_in)]
    encode = isa(cfg).encode
    row = {"x_size": 1, "y_size": 1, "x_stride": 1}

    def load(kind, at, **fields):
        base = {"memory_type": kind, "dram_base": at // isa(cfg).elem_bytes(kind)}
        return encode(Opcode.LOAD, **(base | row | fields))

    loop = {"uop_end": 1, "iter_out": 1}
    insns = [
        load(0, UOPS),
        load(INP, DATA),
        load(WGT, CONST, push_next=1),
        encode(Opcode.GEMM, **loop, iter_in=1, reset=1),
        encode(Opcode.GEMM, **loop, iter_in=times, pop_prev=1),
        *[encode(Opcode.ALU, **loop, iter_in=1, **fields) for fields in alu],
        encode(Opcode.GEMM, push_next=1),
        encode(
            Opcode.STORE, pop_prev=1, memory_type=OUT, dram_base=OUTPUT // cfg.out_elem_bytes, **row
        ),
        encode(Opcode.FINISH),
    ]
    return Program(
        config=cfg,
        insn=np.frombuffer(b"".join(insns), np.uint8).reshape(-1, 16),
        insn_addr=0x8000,
        region_addrs=(DATA, CONST, UOPS),
        regions=(
            np.zeros(256, np.uint8),
            weights.reshape(-1).view(np.uint8).copy(),
            np.zeros(64, np.uint8),
        ),
    )


def extremes(cfg) -> tuple[int, int]:
    """Least and greatest product of lane 0's weights and any int8 inputs."""
    plus = sum(k + 1 for k in range(0, cfg.block_in, 2))
    minus = sum(k + 1 for k in range(1, cfg.block_in, 2))
    return -128 * plus - 127 * minus, 127 * plus + 128 * minus


def test_a_sum_of_products_is_bounded_exactly():
    low, high = extremes(ACC16)
    program = one_lane(1)
    text = next(f.message for f in verify_program(program).warnings if f.rule == Rule.TRUNCATION)
    assert text == f"stores values from {low} to {high}; 8 bits hold -128 to 127"
    times = 32767 // high
    assert warned(one_lane(times), Rule.WRAP) == set()
    assert warned(one_lane(times + 1), Rule.WRAP) == {4}


def test_a_clip_takes_the_warning_away():
    clip = (
        {"alu_opcode": AluOp.MAX, "use_imm": 1, "imm": -128},
        {"alu_opcode": AluOp.MIN, "use_imm": 1, "imm": 127},
    )
    assert warned(one_lane(3, *clip), Rule.TRUNCATION) == set()
    assert warned(one_lane(3, clip[0]), Rule.TRUNCATION) == {7}


@pytest.mark.parametrize(
    ("alu", "wraps"),
    [
        ({"alu_opcode": AluOp.MUL, "imm": 6}, False),
        ({"alu_opcode": AluOp.MUL, "imm": 60}, True),
        ({"alu_opcode": AluOp.SHR, "imm": -1}, False),
        ({"alu_opcode": AluOp.SHR, "imm": -9}, True),
        ({"alu_opcode": AluOp.SHR, "imm": -16}, False),
        ({"alu_opcode": AluOp.SHR, "imm": 40}, False),
        ({"alu_opcode": AluOp.ADD, "imm": 1000}, False),
        ({"alu_opcode": AluOp.ADD, "imm": 32767}, True),
    ],
)
def test_what_the_alu_may_wrap(alu, wraps):
    assert warned(one_lane(1, alu | {"use_imm": 1}), Rule.WRAP) == ({5} if wraps else set())


def test_inputs_by_number_by_name_and_from_meta():
    program = one_lane(32767 // extremes(ACC16)[1] + 1)
    assert warned(program, Rule.WRAP) == {4}
    assert warned(program, Rule.WRAP, inputs=[]) == set()
    named = replace(program, meta={"buffers": [{"name": "x"}, {"name": "w"}]})
    for inputs in (["x"], [0]):
        assert warned(named, Rule.WRAP, inputs=inputs) == {4}
    assert warned(replace(program, meta={"inputs": [0]}), Rule.WRAP) == {4}


@pytest.mark.parametrize(
    ("inputs", "text"),
    [
        (["y"], "inputs must name buffers of the program (none), got 'y'"),
        ([3], "inputs must be regions 0 to 2, got 3"),
    ],
)
def test_inputs_that_are_no_regions(inputs, text):
    with pytest.raises(ValueError, match="inputs must") as error:
        verify_program(one_lane(1), inputs=inputs)
    assert str(error.value) == text


@pytest.mark.parametrize("build", [matmul, vector_add, conv2d])
def test_examples_neither_wrap_nor_truncate(build):
    for rule in (Rule.WRAP, Rule.TRUNCATION, Rule.NOT_ANALYSED):
        assert warned(build("block8"), rule) == set()


def test_a_program_too_long_to_analyse_says_so():
    program = one_lane(1, {"alu_opcode": AluOp.ADD, "use_imm": 1, "imm": 1})
    insn = program.insn.copy()
    fields = {"uop_end": 1, "iter_out": 16383, "iter_in": 16383, "alu_opcode": AluOp.ADD}
    insn[5] = np.frombuffer(isa(ACC16).encode(Opcode.ALU, use_imm=1, imm=1, **fields), np.uint8)
    report = verify_program(replace(program, insn=insn))
    assert [(f.rule, f.insn) for f in report.warnings] == [(Rule.NOT_ANALYSED, None)]


def test_a_gemm_that_repeats_itself_is_multiplied_out():
    program = one_lane(1)
    insn = program.insn.copy()
    fields = {"uop_end": 1, "iter_out": 16383, "iter_in": 16383, "pop_prev": 1}
    insn[4] = np.frombuffer(isa(ACC16).encode(Opcode.GEMM, **fields), np.uint8)
    assert warned(replace(program, insn=insn), Rule.WRAP) == {4}
