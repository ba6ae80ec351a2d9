"""Makes a failing program smaller while it stays legal and goes on failing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from covta.hw.isa import INSN_BYTES, Opcode, isa
from covta.sim.decode import COLUMNS, decode
from covta.sim.fuzz.legality import LegalityError, check_program
from covta.sim.fuzz.order import POP_FLAG, PUSH_FLAG, QUEUES
from covta.sim.fuzz.program import Program

__all__ = ["shrink"]

FLAGS = ("pop_prev", "pop_next", "push_prev", "push_next")
SIZES = ("iter_out", "iter_in", "y_size", "x_size")
PADS = ("y_pad_0", "y_pad_1", "x_pad_0", "x_pad_1")
FACTORS = tuple(f"{n}_factor_{s}" for n in ("dst", "src", "wgt") for s in ("out", "in"))


def shrink(
    program: Program, fails: Callable[[Program], bool], *, limit_seconds: float = 60.0
) -> Program:
    """Reduce a program that fails: fewer instructions, flags and regions, shorter loops.

    Parameters
    ----------
    program : Program
        Legal and free of races, as `check_program` sees it; another is returned as it is.
    fails : callable
        Whether a program still shows what is wrong.
    limit_seconds : float
        Stop looking after so long.

    Returns
    -------
    Program
        Legal, and the last for which `fails` was true.
    """
    if not _legal(program):
        return program
    deadline = time.monotonic() + limit_seconds
    progress = True
    while progress:
        progress = False
        for reduce in (_fewer_insns, _without_effect, _fewer_tokens, _smaller, _fewer_regions):
            smaller = _descend(program, reduce, fails, deadline)
            progress |= smaller is not program
            program = smaller
        if time.monotonic() > deadline:
            break
    return program


def _legal(program: Program) -> bool:
    try:
        check_program(program)
    except LegalityError:
        return False
    return True


def _descend(
    program: Program,
    reduce: Callable[[Program], Iterator[Program]],
    fails: Callable[[Program], bool],
    deadline: float,
) -> Program:
    """Take every reduction that keeps the program legal and failing."""
    candidates = reduce(program)
    while time.monotonic() < deadline:
        candidate = next(candidates, None)
        if candidate is None:
            break
        if _legal(candidate) and fails(candidate):
            program = candidate
            candidates = reduce(program)
    return program


def _with(program: Program, insn: np.ndarray) -> Program:
    return replace(program, insn=np.ascontiguousarray(insn))


def _rows(program: Program) -> tuple[np.ndarray, list[dict[str, int]]]:
    insn = program.insn.reshape(-1, INSN_BYTES)
    table = decode(program.config, insn)
    return insn, [dict(zip(COLUMNS, map(int, row), strict=True)) for row in table]


def _encode(program: Program, fields: dict[str, int]) -> np.ndarray:
    fmt = isa(program.config).by_opcode[fields["opcode"]]
    return np.frombuffer(fmt.encode({name: fields[name] for name in fmt.fields}), np.uint8)


def _replaced(program: Program, changes: dict[int, dict[str, int]]) -> Program:
    """The program with some instructions encoded anew."""
    insn, _ = _rows(program)
    insn = insn.copy()
    for index, fields in changes.items():
        insn[index] = _encode(program, fields)
    return _with(program, insn)


def _fewer_insns(program: Program) -> Iterator[Program]:
    """Without halves, quarters, ... of the stream, from its end."""
    insn, _ = _rows(program)
    count = len(insn)
    size = max(1, count // 2)
    while size >= 1:
        for first in range(count - size, -1, -size):
            keep = np.ones(count, bool)
            keep[first : first + size] = False
            yield _with(program, insn[keep])
        size //= 2


def _without_effect(program: Program) -> Iterator[Program]:
    """With an instruction turned into one that only carries its tokens."""
    _, rows = _rows(program)
    for index, fields in enumerate(rows):
        size = "x_size" if fields["opcode"] in (Opcode.LOAD, Opcode.STORE) else "iter_in"
        if fields["opcode"] != Opcode.FINISH and fields[size]:
            empty = dict.fromkeys(fields, 0)
            kept = ("opcode", "memory_type", *FLAGS)
            yield _replaced(program, {index: empty | {name: fields[name] for name in kept}})


def _fewer_tokens(program: Program) -> Iterator[Program]:
    """Without a token: its push and its pop, a push that nothing pops, tokens of the start."""
    _, rows = _rows(program)
    if any(program.initial_tokens):
        yield replace(program, initial_tokens=(0, 0, 0, 0))
    for queue, (producer, consumer) in enumerate(QUEUES):
        push, pop = PUSH_FLAG[queue], POP_FLAG[queue]
        pushes = [k for k, f in enumerate(rows) if f["unit"] == producer and f[push]]
        pops = [k for k, f in enumerate(rows) if f["unit"] == consumer and f[pop]]
        start = program.initial_tokens[queue]
        for k, pusher in enumerate(pushes):
            changes = {pusher: rows[pusher] | {push: 0}}
            if k + start < len(pops):
                popper = pops[k + start]
                changes[popper] = rows[popper] | {pop: 0}
            yield _replaced(program, changes)


def _smaller(program: Program) -> Iterator[Program]:
    """With shorter loops, smaller blocks, no padding, simpler factors."""
    _, rows = _rows(program)
    for index, fields in enumerate(rows):
        for name in SIZES:
            for value in {1, fields[name] // 2, fields[name] - 1}:
                if 0 < value < fields[name]:
                    yield _replaced(program, {index: fields | {name: value}})
        uops = fields["uop_end"] - fields["uop_bgn"]
        if uops > 1:
            half = fields["uop_bgn"] + uops // 2
            for changed in ({"uop_end": half}, {"uop_bgn": half}):
                yield _replaced(program, {index: fields | changed})
        for name in (*PADS, *FACTORS):
            if fields[name]:
                yield _replaced(program, {index: fields | {name: 0}})


def _fewer_regions(program: Program) -> Iterator[Program]:
    """Without a region that nothing uses."""
    for index in range(len(program.regions)):
        yield replace(
            program,
            region_addrs=_without(program.region_addrs, index),
            regions=_without(program.regions, index),
        )


def _without(items: tuple, index: int) -> tuple:
    return (*items[:index], *items[index + 1 :])
