"""One fault put into a legal program, with what every device must report of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random

import numpy as np

from covta.hw.faults import FaultCause
from covta.hw.isa import INSN_BYTES, MemoryType, Opcode, Unit, isa
from covta.hw.microarchitecture import TOKEN_MAX
from covta.sim.decode import COLUMNS, decode
from covta.sim.fuzz.order import POP_FLAG, PUSH_FLAG, QUEUES
from covta.sim.fuzz.program import Program

__all__ = ["KINDS", "IllegalProgram", "mutate"]

OPCODE_MASK = 7
FLAGS = ("pop_prev", "pop_next", "push_prev", "push_next")
PADS = ("y_pad_0", "y_pad_1", "x_pad_0", "x_pad_1")


@dataclass(frozen=True, kw_only=True)
class IllegalProgram:
    """A program with one fault.

    Parameters
    ----------
    program : Program
    kind : str
        One of `KINDS`.
    cause : FaultCause
        What every device reports.
    insn : int or None
        Index of the instruction that every device names; None where it depends on timing.
    """

    program: Program
    kind: str
    cause: FaultCause
    insn: int | None


class _Mutation:
    """The pieces of a program that mutations change."""

    def __init__(self, program: Program, rng: Random) -> None:
        self.program = program
        self.cfg = program.config
        self.isa = isa(self.cfg)
        self.rng = rng
        self.words = [
            int.from_bytes(row.tobytes(), "little") for row in program.insn.reshape(-1, INSN_BYTES)
        ]
        self.fields = [
            dict(zip(COLUMNS, map(int, row), strict=True))
            for row in decode(self.cfg, program.insn.reshape(-1, INSN_BYTES))
        ]

    def pick(self, wanted: Callable[[dict[str, int]], bool]) -> int | None:
        """Index of a random instruction of some kind."""
        found = [k for k, fields in enumerate(self.fields) if wanted(fields)]
        return self.rng.choice(found) if found else None

    def set(self, index: int, **values: int) -> None:
        """Change fields of an instruction."""
        fmt = self.isa.by_opcode[self.fields[index]["opcode"]]
        self.fields[index] |= values
        kept = {name: self.fields[index][name] for name in fmt.fields}
        self.words[index] = int.from_bytes(fmt.encode(kept), "little")

    def result(self, cause: FaultCause, insn: int | None, **changes: object) -> tuple:
        """The changed program and its fault."""
        data = b"".join(word.to_bytes(INSN_BYTES, "little") for word in self.words)
        insns = np.frombuffer(data, np.uint8).reshape(-1, INSN_BYTES).copy()
        return replace(self.program, **{"insn": insns, **changes}), cause, insn


def _moves(fields: dict[str, int]) -> bool:
    transfer = fields["opcode"] in (Opcode.LOAD, Opcode.STORE)
    return transfer and bool(fields["x_size"] and fields["y_size"])


def _runs(fields: dict[str, int]) -> bool:
    loop = fields["opcode"] in (Opcode.GEMM, Opcode.ALU)
    trips = fields["iter_out"] and fields["iter_in"] and fields["uop_bgn"] < fields["uop_end"]
    return loop and bool(trips)


# ---- illegal instructions ----------------------------------------------------------------------
def _opcode(m: _Mutation):
    index = m.rng.randrange(len(m.words))
    m.words[index] = m.words[index] & ~OPCODE_MASK | m.rng.randrange(5, 8)
    return m.result(FaultCause.ILLEGAL_INSTRUCTION, index)


def _stray_bit(m: _Mutation):
    index = m.rng.randrange(len(m.words))
    fmt = m.isa.by_opcode[m.fields[index]["opcode"]]
    used = fmt.words[0].used_mask | fmt.words[1].used_mask << 64
    free = [bit for bit in range(128) if not used >> bit & 1]
    if not free:
        return None
    m.words[index] |= 1 << m.rng.choice(free)
    return m.result(FaultCause.ILLEGAL_INSTRUCTION, index)


def _memory_type(m: _Mutation):
    index = m.pick(lambda f: f["opcode"] in (Opcode.LOAD, Opcode.STORE))
    if index is None:
        return None
    if m.fields[index]["opcode"] == Opcode.LOAD:
        # It moves to the queue of compute: it must not wait there for tokens of others.
        none = dict.fromkeys(FLAGS, 0)
        m.set(index, memory_type=m.rng.choice((MemoryType.OUT, 6, 7)), **none)
    else:
        m.set(index, memory_type=m.rng.choice((0, 1, 2, 3, 5, 6, 7)))
    return m.result(FaultCause.ILLEGAL_INSTRUCTION, index)


def _alu_opcode(m: _Mutation):
    index = m.pick(lambda f: f["opcode"] == Opcode.ALU)
    if index is None:
        return None
    m.set(index, alu_opcode=m.rng.randrange(max(m.isa.alu_ops) + 1, 8))
    return m.result(FaultCause.ILLEGAL_INSTRUCTION, index)


def _flag(m: _Mutation):
    index = m.pick(lambda f: f["unit"] in (Unit.LOAD, Unit.STORE))
    if index is None:
        return None
    side = "prev" if m.fields[index]["unit"] == Unit.LOAD else "next"
    m.set(index, **{f"{m.rng.choice(('pop', 'push'))}_{side}": 1})
    return m.result(FaultCause.ILLEGAL_INSTRUCTION, index)


def _store_pad(m: _Mutation):
    index = m.pick(lambda f: f["opcode"] == Opcode.STORE)
    if index is None:
        return None
    m.set(index, **{m.rng.choice(PADS): m.rng.randrange(1, 16)})
    return m.result(FaultCause.ILLEGAL_INSTRUCTION, index)


# ---- scratchpads -------------------------------------------------------------------------------
def _scratchpad_transfer(m: _Mutation, opcode: Opcode):
    index = m.pick(lambda f: f["opcode"] == opcode and _moves(f))
    if index is None:
        return None
    f = m.fields[index]
    height = f["y_pad_0"] + f["y_size"] + f["y_pad_1"]
    width = f["x_pad_0"] + f["x_size"] + f["x_pad_1"]
    depth = m.isa.depth(f["memory_type"])
    first = depth - height * width + 1
    last = min(depth + 2, (1 << 16) - 1) if m.rng.random() < 0.8 else (1 << 16) - 1
    if first > last:
        return None
    m.set(index, sram_base=m.rng.randrange(first, last + 1))
    return m.result(FaultCause.SCRATCHPAD, index)


def _scratchpad_load(m: _Mutation):
    return _scratchpad_transfer(m, Opcode.LOAD)


def _scratchpad_store(m: _Mutation):
    return _scratchpad_transfer(m, Opcode.STORE)


def _scratchpad_loop(m: _Mutation, opcode: Opcode, names: dict[str, int]):
    index = m.pick(lambda f: f["opcode"] == opcode and _runs(f))
    if index is None:
        return None
    f, depth = m.fields[index], m.cfg.uop_depth
    if (f["reset"] and opcode == Opcode.GEMM) or f["use_imm"]:
        names = {"dst": names["dst"]}
    if m.rng.random() < 0.3:
        m.set(index, uop_end=m.rng.randrange(depth + 1, 2 * depth))
    else:
        # Three trips, each as far as a factor reaches, go beyond whatever the micro-op names.
        name, side = m.rng.choice(sorted(names)), m.rng.choice(("out", "in"))
        m.set(index, **{f"iter_{side}": 3, f"{name}_factor_{side}": names[name] - 1})
    return m.result(FaultCause.SCRATCHPAD, index)


def _scratchpad_gemm(m: _Mutation):
    cfg = m.cfg
    names = {"dst": cfg.acc_depth, "src": cfg.inp_depth, "wgt": cfg.wgt_depth}
    return _scratchpad_loop(m, Opcode.GEMM, names)


def _scratchpad_alu(m: _Mutation):
    return _scratchpad_loop(m, Opcode.ALU, {"dst": m.cfg.acc_depth, "src": m.cfg.acc_depth})


# ---- DRAM --------------------------------------------------------------------------------------
def _dram_window(m: _Mutation):
    end = 1 << m.cfg.bus.addr_bits

    def first_beyond(f: dict[str, int]) -> int:
        size = m.isa.elem_bytes(f["memory_type"])
        return -(-(end - m.program.base_ptrs[f["memory_type"]]) // size)

    index = m.pick(lambda f: _moves(f) and first_beyond(f) < 1 << 32)
    if index is None:
        return None
    m.set(index, dram_base=m.rng.randrange(first_beyond(m.fields[index]), 1 << 32))
    return m.result(FaultCause.DRAM_WINDOW, index)


def _bus_error(m: _Mutation):
    """A transfer whose first row lies between regions."""
    program, rng = m.program, m.rng
    index = m.pick(_moves)
    if index is None:
        return None
    f = m.fields[index]
    # A later row might lie off the window, or be stored into the stream that is being fetched.
    m.set(index, y_size=1)
    beat = m.cfg.bus_bytes
    taken = [(a, a + len(d)) for a, d in zip(program.region_addrs, program.regions, strict=True)]
    taken.append((program.insn_addr, program.insn_addr + program.insn.size))
    taken = sorted((low // beat * beat, -(-high // beat) * beat) for low, high in taken)
    base, size = program.base_ptrs[f["memory_type"]], m.isa.elem_bytes(f["memory_type"])
    span = ((f["y_size"] - 1) * f["x_stride"] + f["x_size"]) * size
    limit = 1 << m.cfg.bus.addr_bits
    for _ in range(16):
        place = rng.randrange(len(taken) - 1)  # what is around all regions may lie off the window
        low, high = taken[place][1], taken[place + 1][0]
        first = -(-(low - base) // size)
        last = (high - base) // size - f["x_size"]
        if first <= last:
            dram_base = rng.randrange(first, min(last, first + 64) + 1)
            if dram_base < 1 << 32 and base + dram_base * size + span <= limit:
                m.set(index, dram_base=dram_base)
                return m.result(FaultCause.BUS_ERROR, index)
    return None


# ---- tokens and the end ------------------------------------------------------------------------
def _deadlock(m: _Mutation):
    """Fewer pushes than pops: take away the last pushes, or add a pop."""
    rng, tokens = m.rng, m.program.initial_tokens
    queue = rng.randrange(4)
    producer, consumer = QUEUES[queue]
    pushes = [k for k, f in enumerate(m.fields) if f["unit"] == producer and f[PUSH_FLAG[queue]]]
    poppers = [k for k, f in enumerate(m.fields) if f["unit"] == consumer]
    pops = [k for k in poppers if m.fields[k][POP_FLAG[queue]]]
    surplus = tokens[queue] + len(pushes) - len(pops)
    if surplus < len(pushes) and rng.random() < 0.7:
        for index in pushes[len(pushes) - surplus - 1 :]:
            m.set(index, **{PUSH_FLAG[queue]: 0})
    else:
        others = [k for k in poppers if k not in pops][-surplus - 1 :]
        if len(others) <= surplus:
            return None
        for index in others:
            m.set(index, **{POP_FLAG[queue]: 1})
    return m.result(FaultCause.WATCHDOG, None)


def _token_overflow(m: _Mutation):
    """A queue that is full at the start, to which something pushes and nothing pops."""
    order = list(range(4))
    m.rng.shuffle(order)
    for queue in order:
        producer, consumer = QUEUES[queue]
        push, pop = PUSH_FLAG[queue], POP_FLAG[queue]
        if any(f["unit"] == consumer and f[pop] for f in m.fields):
            continue
        pushes = [k for k, f in enumerate(m.fields) if f["unit"] == producer and f[push]]
        if pushes:
            tokens = list(m.program.initial_tokens)
            tokens[queue] = TOKEN_MAX
            return m.result(FaultCause.TOKEN_OVERFLOW, pushes[0], initial_tokens=tuple(tokens))
    return None


def _no_finish(m: _Mutation):
    for index, f in enumerate(m.fields):
        if f["opcode"] == Opcode.FINISH:
            flags = {name: f[name] for name in FLAGS}
            m.words[index] = int.from_bytes(m.isa.encode(Opcode.GEMM, **flags), "little")
    return m.result(FaultCause.NO_FINISH, len(m.words))


_MUTATIONS = {
    "opcode": _opcode,
    "stray_bit": _stray_bit,
    "memory_type": _memory_type,
    "alu_opcode": _alu_opcode,
    "flag": _flag,
    "store_pad": _store_pad,
    "scratchpad_load": _scratchpad_load,
    "scratchpad_store": _scratchpad_store,
    "scratchpad_gemm": _scratchpad_gemm,
    "scratchpad_alu": _scratchpad_alu,
    "dram_window": _dram_window,
    "bus_error": _bus_error,
    "deadlock": _deadlock,
    "token_overflow": _token_overflow,
    "no_finish": _no_finish,
}

KINDS = tuple(_MUTATIONS)
"""Names of the faults that `mutate` knows."""


def mutate(program: Program, seed: int, kind: str | None = None) -> IllegalProgram | None:
    """Put one fault into a legal program.

    Parameters
    ----------
    program : Program
        Legal, as `random_program` makes them; it stays as it is.
    seed : int
        The same arguments give the same result.
    kind : str or None
        One of `KINDS`; None: a random one that the program has room for.

    Returns
    -------
    IllegalProgram or None
        None if the program has no place for the kind.
    """
    rng = Random(seed)
    kinds = [kind] if kind is not None else rng.sample(KINDS, len(KINDS))
    for name in kinds:
        found = _MUTATIONS[name](_Mutation(program, rng))
        if found is not None:
            changed, cause, insn = found
            return IllegalProgram(program=changed, kind=name, cause=cause, insn=insn)
    return None
