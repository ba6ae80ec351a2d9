"""Every rule, on the smallest program that breaks it: which instruction, and what is said."""

from __future__ import annotations

import numpy as np
import pytest

from covta.compiler.verify import Rule, VerifyError, verify_program
from covta.hw.isa import AluOp, MemoryType, Opcode, isa
from covta.runtime.program import Program
from covta.sim.functional.machine import queue_capacity

from ...handmade import (
    ACC,
    CASES,
    CFG,
    DATA_ADDR,
    FINISH,
    INP,
    PIPELINE,
    STREAM_ADDR,
    UOP,
    WGT,
    ZERO_UOP,
    alu,
    finish,
    gemm,
    load,
    program_of,
    store,
)

PROGRESS = gemm(reset=1)


def found(program: Program, **options) -> list[tuple[str, int | None]]:
    """Rule and instruction of every finding, errors first."""
    return [(str(f.rule), f.insn) for f in verify_program(program, **options).findings]


def message(program: Program, rule: Rule, **options) -> str:
    """What is said of the first finding of a rule."""
    return next(f.message for f in verify_program(program, **options).findings if f.rule == rule)


def errors(program: Program) -> list[tuple[str, int | None]]:
    return [(str(f.rule), f.insn) for f in verify_program(program).errors]


def test_a_sound_program_has_no_errors():
    report = verify_program(program_of(PIPELINE))
    assert report.ok
    report.raise_for_errors()
    assert report.token_bounds == (1, 0, 1, 0)


@pytest.mark.parametrize("name", CASES)
def test_every_fault_of_the_handmade_programs_is_found(name):
    case = CASES[name]
    found = errors(case.program)
    if case.fault is None:
        assert found == []
    else:
        assert found[0][1] == case.fault[1]


def test_an_error_can_be_raised_and_names_rule_instruction_and_text():
    report = verify_program(program_of((store(0, pop_prev=1),)))
    with pytest.raises(VerifyError) as error:
        report.raise_for_errors()
    assert str(error.value).startswith("error: deadlock at instruction 0 (STORE pop_prev")
    assert str(error.value).endswith("(and 1 more)")
    assert error.value.report is report


# ---- legality ----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("insn", "text"),
    [
        (bytes([5]) + bytes(15), "opcode must be one of 0 to 4, got 5"),
        (load(INP)[:15] + b"\x10", None),
        (load(INP, pop_prev=1), "pop_prev must be 0 in the load unit"),
        (store(push_next=1), "push_next must be 0 in the store unit"),
        (store(y_pad_1=3), "y_pad_1 of STORE must be 0, got 3"),
        (
            load(MemoryType.OUT),
            "memory_type of LOAD must be one of 0 UOP, 1 WGT, 2 INP, 3 ACC, 5 ACC_8BIT, got 4",
        ),
        (alu(AluOp.RQT), "got 5; 5 is RQT, an extension that the machine lacks"),
        (
            (int.from_bytes(load(INP), "little") | 1 << 58).to_bytes(16, "little"),
            "bit 58 set; bit 58 is pad_min, an extension that the machine lacks",
        ),
        (
            (int.from_bytes(FINISH, "little") | 1 << 100).to_bytes(16, "little"),
            "bits of no field must be zero, got bit 100 set",
        ),
    ],
)
def test_illegal_instructions(insn, text):
    report = verify_program(program_of((insn, FINISH)))
    if text is None:  # x_pad_1: legal
        assert report.ok
        return
    assert (report.errors[0].rule, report.errors[0].insn) == (Rule.ILLEGAL, 0)
    assert text in report.errors[0].message


def test_finish_is_missing():
    assert errors(program_of((PROGRESS,)))[-1] == ("no-finish", 1)


def test_work_after_finish_and_a_second_finish():
    stream = (ZERO_UOP, FINISH, PROGRESS, FINISH)
    assert found(program_of(stream)) == [("after-finish", 2), ("after-finish", 3)]


def test_carriers_of_tokens_may_follow_finish():
    assert found(program_of((FINISH, gemm(0)))) == []


def test_a_loop_written_backwards_is_suspicious():
    assert found(program_of((gemm(uop_bgn=3, uop_end=1), FINISH))) == [("empty-loop", 0)]


# ---- addresses ---------------------------------------------------------------------------------
def test_padding_counts_as_scratchpad():
    fits = load(INP, 1, sram_base=CFG.inp_depth - 3, x_pad_1=2)
    beyond = load(INP, 1, sram_base=CFG.inp_depth - 3, x_pad_1=3)
    assert found(program_of((fits, FINISH))) == []
    program = program_of((beyond, FINISH))
    assert errors(program) == [("scratchpad", 0)]
    last = CFG.inp_depth
    assert f"INP elements {last - 3} to {last} must lie below the depth {last}" in message(
        program, Rule.SCRATCHPAD
    )


@pytest.mark.parametrize("side", ["out", "in"])
@pytest.mark.parametrize(
    ("field", "depth"),
    [("dst", CFG.acc_depth), ("src", CFG.inp_depth), ("wgt", CFG.wgt_depth)],
)
def test_a_loop_may_reach_the_last_element_and_not_beyond(field, depth, side):
    def program(trips: int) -> Program:
        loop = {"iter_out": 1, "iter_in": 1, f"iter_{side}": trips, f"{field}_factor_{side}": 3}
        return program_of((ZERO_UOP, isa(CFG).encode(Opcode.GEMM, uop_end=1, **loop), FINISH))

    trips = (depth - 1) // 3 + 1
    assert errors(program(trips)) == []
    assert errors(program(trips + 1)) == [("scratchpad", 1)]
    assert f"{field} reaches" in message(program(trips + 1), Rule.SCRATCHPAD)


@pytest.mark.parametrize("last", [0, 1])
def test_a_loop_with_more_steps_than_elements_touches_each_of_its_own(last):
    """Strides 2 and 4, over and over, reach the even elements alone."""
    words = np.zeros(1024, np.uint32)
    words[:8] = [isa(CFG).uop.encode(dst=2 * (k % 3)) for k in range(8)]
    strides = {"dst_factor_in": 2, "dst_factor_out": 4}
    loop = gemm(8, uop_end=8, iter_out=9, reset=1, **strides)
    stream = (
        load(UOP, 8),
        gemm(0, push_next=1),
        store(1, sram_base=40 + last, pop_prev=1),
        loop,
        FINISH,
    )
    program = program_of(stream, regions=(words.view(np.uint8),))
    assert errors(program) == ([("hazard", 3)] if last == 0 else [])


def test_operands_that_are_not_read_may_lie_anywhere():
    far = {"src_factor_in": CFG.acc_depth - 1}
    assert errors(program_of((ZERO_UOP, gemm(9, reset=1, **far), FINISH))) == []
    assert errors(program_of((ZERO_UOP, alu(AluOp.MAX, 9, use_imm=1, **far), FINISH))) == []
    assert errors(program_of((ZERO_UOP, alu(AluOp.MAX, 9, **far), FINISH))) == [("scratchpad", 1)]


def test_micro_ops_must_have_been_loaded():
    program = program_of((ZERO_UOP, gemm(uop_bgn=0, uop_end=2, reset=1), FINISH))
    assert errors(program) == [("uop-undefined", 1)]
    assert message(program, Rule.UOP_UNDEFINED) == "micro-op 1 was not loaded before"


def test_padding_loads_micro_ops_that_are_zero():
    padded = load(UOP, 1, at=DATA_ADDR + 3072, x_pad_0=1, x_pad_1=2)
    stream = (padded, gemm(uop_bgn=0, uop_end=4, reset=1), FINISH)
    assert errors(program_of(stream)) == []


def test_micro_ops_that_the_program_stores_are_not_known():
    stream = (
        ZERO_UOP,
        gemm(reset=1, push_next=1),
        store(at=DATA_ADDR, pop_prev=1, push_prev=1),
        load(UOP, at=DATA_ADDR, pop_next=1),
        gemm(reset=1),
        FINISH,
    )
    assert errors(program_of(stream)) == [("uop-unknown", 4)]


def test_micro_ops_are_those_of_the_last_load():
    words = np.zeros(1024, np.uint32)
    words[0] = isa(CFG).uop.encode(dst=CFG.acc_depth - 1)
    region = words.view(np.uint8)
    one = {"at": DATA_ADDR}
    other = {"at": DATA_ADDR + 64}
    loop = gemm(2, reset=1, dst_factor_in=1)
    stream = (load(UOP, **one), gemm(1, reset=1), load(UOP, **other), loop, FINISH)
    assert errors(program_of(stream, regions=(region,))) == []
    stream = (load(UOP, **other), loop, load(UOP, **one), loop, FINISH)
    assert errors(program_of(stream, regions=(region,))) == [("scratchpad", 3)]


def test_every_row_lies_in_a_region():
    inside = load(INP, 1, y_size=4, x_stride=1024 // CFG.inp_elem_bytes)
    assert errors(program_of((inside, FINISH))) == []
    outside = load(INP, 1, y_size=6, x_stride=1024 // CFG.inp_elem_bytes)
    program = program_of((outside, FINISH))
    assert errors(program) == [("dram-region", 0)]
    assert message(program, Rule.DRAM_REGION) == (
        f"row 4, {CFG.inp_elem_bytes} bytes at 0x2000, must lie in one region (2 of 6 rows do not)"
    )


def test_rows_lie_in_one_region_each():
    half = np.zeros(64, np.uint8)
    where = {"region_addrs": (DATA_ADDR, DATA_ADDR + 64), "regions": (half, half)}
    stride = 64 // CFG.inp_elem_bytes
    apart = load(INP, 1, y_size=2, x_stride=stride)
    assert errors(program_of((apart, FINISH), **where)) == []
    across = load(INP, stride + 1)
    assert errors(program_of((across, FINISH), **where)) == [("dram-region", 0)]


def test_the_stream_is_not_written():
    program = program_of((ZERO_UOP, gemm(reset=1, push_next=1), store(at=STREAM_ADDR, pop_prev=1)))
    assert ("stream-overwrite", 2) in errors(program)


# ---- tokens ------------------------------------------------------------------------------------
def test_a_token_that_nobody_pushes():
    program = program_of((load(INP, pop_next=1), FINISH))
    assert errors(program) == [("deadlock", 0)]
    assert (
        message(program, Rule.DEADLOCK)
        == "waits for token 1 of compute→load, but only 0 are ever pushed"
    )


def test_units_that_wait_for_each_other():
    program = program_of((load(INP, 0, pop_next=1, push_next=1), gemm(0, pop_prev=1, push_prev=1)))
    assert errors(program)[:2] == [("deadlock", 0), ("deadlock", 1)]
    text = message(program, Rule.DEADLOCK)
    assert text == (
        "waits for token 1 of compute→load, which instruction 1 (GEMM) pushes; that waits itself"
    )


def test_an_initial_token_is_taken_first():
    program = program_of((load(INP, pop_next=1), FINISH), initial_tokens=(0, 1, 0, 0))
    assert found(program) == []


def test_tokens_may_come_from_later_in_the_stream():
    assert found(program_of((load(INP, pop_next=1), gemm(0, push_prev=1), FINISH))) == []


def test_queues_are_as_deep_as_the_machine_has_them():
    def program(count: int) -> Program:
        waits = (load(INP, 0, pop_next=1), *[load(INP, 0)] * (count - 1))
        return program_of((*waits, gemm(0, push_prev=1), FINISH))

    capacity = queue_capacity(CFG)[0]
    assert found(program(capacity)) == []
    assert errors(program(capacity + 1)) == [("deadlock", 0)]
    text = message(program(capacity + 1), Rule.DEADLOCK)
    assert f"instruction {capacity} finds the load queue full, {capacity} instructions" in text
    assert "deeper queues would let the stream go on" in text


def test_a_counter_that_can_overflow_only_if_its_consumer_is_late():
    push = [load(INP, 0, push_next=1)]

    def program(count: int, *, initial: int) -> Program:
        stream = (*push * count, *[gemm(0, pop_prev=1)] * count, FINISH)
        return program_of(stream, initial_tokens=(initial, 0, 0, 0))

    assert found(program(5, initial=0)) == []
    assert verify_program(program(5, initial=0)).token_bounds[0] == 5
    assert errors(program(2, initial=253)) == []
    assert errors(program(3, initial=253)) == [("token-overflow", 2)]


def test_tokens_that_come_back_bound_a_counter():
    ring = [load(INP, 0, push_next=1, pop_next=1), gemm(0, pop_prev=1, push_prev=1)]
    program = program_of((*ring * 400, FINISH), initial_tokens=(0, 2, 0, 0))
    assert errors(program) == []
    assert verify_program(program).token_bounds == (2, 2, 0, 0)


def test_the_queue_of_the_consumer_bounds_a_counter():
    pairs = [load(INP, 0, push_next=1), gemm(0, pop_prev=1)]
    report = verify_program(program_of((*pairs * 400, FINISH)))
    assert report.ok
    assert report.token_bounds[0] == queue_capacity(CFG)[1] + 1


def test_a_token_that_nobody_takes_is_left():
    program = program_of((load(INP, push_next=1), FINISH))
    assert found(program) == [("token-left", 0)]
    assert message(program, Rule.TOKEN_LEFT) == "1 tokens of load→compute are left at the end"


# ---- hazards -----------------------------------------------------------------------------------
def test_compute_reads_what_load_writes():
    loads = (ZERO_UOP, gemm(reset=1), load(WGT), load(INP))
    program = program_of((*loads, gemm(1), FINISH))
    assert errors(program) == [("hazard", 4)]
    assert message(program, Rule.HAZARD) == (
        "no token orders it after instruction 3 (LOAD INP) of the load unit, which writes inp[0]"
    )
    ordered = (*loads[:3], load(INP, push_next=1), gemm(1, pop_prev=1), FINISH)
    assert errors(program_of(ordered)) == []


def test_load_overwrites_what_compute_reads():
    stream = [ZERO_UOP, gemm(reset=1), load(WGT), load(INP, push_next=1)]
    program = program_of((*stream, gemm(1, pop_prev=1), load(INP), FINISH))
    assert errors(program) == [("hazard", 5)]
    assert "instruction 4 (GEMM) of the compute unit, which reads inp[0]" in message(
        program, Rule.HAZARD
    )
    ordered = (*stream, gemm(1, pop_prev=1, push_prev=1), load(INP, pop_next=1), FINISH)
    assert errors(program_of(ordered)) == []


def test_store_reads_what_compute_writes():
    assert errors(program_of((ZERO_UOP, gemm(reset=1), store(), FINISH))) == [("hazard", 2)]


def test_compute_overwrites_what_store_reads():
    stream = (ZERO_UOP, gemm(reset=1, push_next=1), store(pop_prev=1), gemm(reset=1), FINISH)
    assert errors(program_of(stream)) == [("hazard", 3)]


@pytest.mark.parametrize("element", [0, 1])
def test_only_the_same_element_is_a_hazard(element):
    stream = (ZERO_UOP, gemm(reset=1, push_next=1), store(pop_prev=1), load(ACC, sram_base=element))
    expected = [("hazard", 3)] if element == 0 else []
    assert errors(program_of((*stream, FINISH))) == expected


def test_order_holds_through_a_third_unit():
    stream = [
        load(INP, push_next=1),
        ZERO_UOP,
        gemm(0, pop_prev=1, push_next=1),
        store(0, pop_prev=1, push_prev=1),
        gemm(0, pop_next=1, push_prev=1),
        load(INP, pop_next=1),
        FINISH,
    ]
    assert errors(program_of(stream)) == []


def test_a_token_orders_what_comes_later_in_its_unit():
    stream = (
        ZERO_UOP,
        gemm(reset=1),
        load(WGT),
        load(INP, push_next=1),
        finish(pop_prev=1),
        gemm(1),
    )
    assert [e for e in errors(program_of(stream)) if e[0] == "hazard"] == []


def test_a_load_of_what_was_stored():
    begin = (ZERO_UOP, gemm(reset=1, push_next=1))
    racing = (*begin, store(at=DATA_ADDR, pop_prev=1), load(ACC, at=DATA_ADDR, sram_base=4), FINISH)
    program = program_of(racing)
    assert errors(program) == [("dram-hazard", 3)]
    assert "which writes DRAM address 0x1000" in message(program, Rule.DRAM_HAZARD)
    ordered = (
        *begin,
        store(at=DATA_ADDR, pop_prev=1, push_prev=1),
        load(ACC, at=DATA_ADDR, sram_base=4, pop_next=1),
        FINISH,
    )
    assert errors(program_of(ordered)) == []


def test_a_store_over_what_load_reads():
    stream = (load(INP), ZERO_UOP, gemm(reset=1, push_next=1), store(at=DATA_ADDR, pop_prev=1))
    program = program_of((*stream, FINISH))
    assert errors(program) == [("dram-hazard", 3)]
    assert "instruction 0 (LOAD INP) of the load unit, which reads" in message(
        program, Rule.DRAM_HAZARD
    )


# ---- undefined ---------------------------------------------------------------------------------
def test_reads_of_what_was_never_written():
    stream = (ZERO_UOP, gemm(2, dst_factor_in=1), FINISH)
    assert [f for f in found(program_of(stream)) if f[0] == "undefined"] == [("undefined", 1)] * 3
    texts = [f.message for f in verify_program(program_of(stream)).warnings]
    assert "reads acc[0], which nothing before it writes (2 such elements)" in texts


# ---- the command's contract --------------------------------------------------------------------
def test_findings_are_in_order_of_the_stream_and_plain_data():
    report = verify_program(program_of((store(), load(INP, pop_prev=1))))
    assert [f.insn for f in report.errors] == [1, 2]
    plain = report.as_dict()
    assert plain["errors"][0] == {
        "rule": "illegal",
        "severity": "error",
        "insn": 1,
        "text": report.errors[0].text,
        "message": report.errors[0].message,
    }
    assert plain["ok"] is False


def test_a_minimum_and_a_maximum_that_meet_define_what_they_touch():
    def undefined(*ops):
        stream = (ZERO_UOP, *(alu(op, 2, use_imm=1, imm=imm) for op, imm in ops), FINISH)
        return [f for f in found(program_of(stream)) if f[0] == "undefined"]

    low, high, add = AluOp.MIN, AluOp.MAX, AluOp.ADD
    assert undefined((low, 0), (high, 0), (add, 1)) == []
    assert undefined((high, 5), (low, 5), (add, 1)) == []
    assert undefined((low, 9), (low, 3), (high, 4), (add, 1)) == []
    assert undefined((low, 3), (high, 2), (add, 1)) == [("undefined", 3)]
    assert undefined((low, 3), (add, 1), (high, 3)) == [("undefined", 2)]


def test_a_shift_by_all_bits_defines_what_it_touches():
    def undefined(imm):
        shift = alu(AluOp.SHR, 2, use_imm=1, imm=imm)
        stream = (ZERO_UOP, shift, alu(AluOp.ADD, 2, use_imm=1, imm=1), FINISH)
        return [f for f in found(program_of(stream)) if f[0] == "undefined"]

    assert undefined(-32) == []
    assert undefined(-31) == [("undefined", 1)]
    assert undefined(32) == [("undefined", 1)]
