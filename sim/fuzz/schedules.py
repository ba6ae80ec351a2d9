"""Runs a program with units that race each other at random: does anything depend on it?

Each unit starts its instructions in order, up to `IN_FLIGHT` before the oldest is complete, and
only tokens hold one back. Instructions of a unit take effect in order, in small pieces between
which any other unit may go on; a LOAD may read DRAM as early as it has started. A program is free
of races if no schedule changes a byte.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random

import numpy as np

from covta.hw.isa import AluOp, MemoryType, Opcode, Unit, isa
from covta.sim.decode import COLUMNS, decode
from covta.sim.fuzz.order import POP_FLAG, PUSH_FLAG, QUEUES
from covta.sim.fuzz.program import Program

__all__ = ["DeadlockError", "run_schedule"]

IN_FLIGHT = 4


class DeadlockError(RuntimeError):
    """Every unit waits for a token."""


@dataclass(kw_only=True)
class _Started:
    fields: dict[str, int]
    effects: Iterator[None]


@dataclass(kw_only=True)
class _UnitState:
    queue: deque[dict[str, int]]
    started: deque[_Started] = field(default_factory=deque)


def run_schedule(program: Program, seed: int) -> list[np.ndarray]:
    """Run under one random schedule; what was never written reads as random as the seed.

    Returns
    -------
    list of ndarray
        ``(size,) uint8``, every region after the run.

    Raises
    ------
    DeadlockError
        If no unit can go on before all are done.
    """
    return _Schedule(program, Random(seed)).run()


class _Schedule:
    def __init__(self, program: Program, rng: Random) -> None:
        self.program = program
        self.cfg = cfg = program.config
        self.isa = isa(cfg)
        self.rng = rng
        noise = np.random.default_rng(rng.getrandbits(32))
        self.memory = [data.copy() for data in program.regions]
        self.uop = noise.integers(0, 1 << 32, cfg.uop_depth, np.uint64)
        self.inp = self._noise(noise, cfg.inp_bits, (cfg.inp_depth, cfg.batch, cfg.block_in))
        self.wgt = self._noise(noise, cfg.wgt_bits, (cfg.wgt_depth, cfg.block_out, cfg.block_in))
        self.acc = self._noise(noise, cfg.acc_bits, (cfg.acc_depth, cfg.batch, cfg.block_out))
        self.tokens = list(program.initial_tokens)
        self.units = [_UnitState(queue=deque()) for _ in Unit]
        for row in decode(cfg, program.insn):
            fields = dict(zip(COLUMNS, map(int, row), strict=True))
            self.units[fields["unit"]].queue.append(fields)

    @staticmethod
    def _noise(noise: np.random.Generator, bits: int, shape: tuple[int, ...]) -> np.ndarray:
        return noise.integers(-(1 << (bits - 1)), 1 << (bits - 1), shape, np.int64)

    def run(self) -> list[np.ndarray]:
        weights = [self.rng.choice((1, 1, 5, 50)) for _ in Unit]
        eager = self.rng.random()
        while any(u.queue or u.started for u in self.units):
            able = [u for u in Unit if self._can_start(u) or self.units[u].started]
            if not able:
                raise DeadlockError
            unit = self.rng.choices(able, [weights[u] for u in able])[0]
            if self.rng.random() < 0.02:
                weights = [self.rng.choice((1, 1, 5, 50)) for _ in Unit]
            if self._can_start(unit) and (
                not self.units[unit].started or self.rng.random() < eager
            ):
                self._start(unit)
            else:
                self._advance(unit)
        return self.memory

    # ---- units -----------------------------------------------------------------------------
    def _can_start(self, unit: Unit) -> bool:
        state = self.units[unit]
        if not state.queue or len(state.started) >= IN_FLIGHT:
            return False
        fields = state.queue[0]
        return all(
            self.tokens[q] > 0
            for q, (_, consumer) in enumerate(QUEUES)
            if consumer == unit and fields[POP_FLAG[q]]
        )

    def _start(self, unit: Unit) -> None:
        state = self.units[unit]
        fields = state.queue.popleft()
        for queue, (_, consumer) in enumerate(QUEUES):
            if consumer == unit and fields[POP_FLAG[queue]]:
                self.tokens[queue] -= 1
        effects = self._effects(fields)
        if fields["opcode"] == Opcode.LOAD and self.rng.random() < 0.5:
            next(effects, None)  # the first piece of a LOAD only reads DRAM
        state.started.append(_Started(fields=fields, effects=effects))

    def _advance(self, unit: Unit) -> None:
        started = self.units[unit].started
        for _ in range(self.rng.randrange(1, 4)):
            if next(started[0].effects, True) is True:
                done = started.popleft()
                for queue, (producer, _) in enumerate(QUEUES):
                    if producer == unit and done.fields[PUSH_FLAG[queue]]:
                        self.tokens[queue] += 1
                return

    # ---- effects, in pieces ----------------------------------------------------------------
    def _effects(self, fields: dict[str, int]) -> Iterator[None]:
        opcode = fields["opcode"]
        if opcode == Opcode.LOAD and fields["x_size"] and fields["y_size"]:
            yield from self._load(fields)
        elif opcode == Opcode.STORE and fields["x_size"] and fields["y_size"]:
            yield from self._store(fields)
        elif opcode == Opcode.GEMM:
            yield from self._loop(fields, self._gemm)
        elif opcode == Opcode.ALU:
            yield from self._loop(fields, self._alu)

    def _row(self, fields: dict[str, int], y: int) -> np.ndarray:
        """The bytes of a row in DRAM, shared."""
        memory_type = fields["memory_type"]
        size = self.isa.elem_bytes(memory_type)
        addr = self.program.base_ptrs[memory_type]
        addr += (fields["dram_base"] + y * fields["x_stride"]) * size
        for base, data in zip(self.program.region_addrs, self.memory, strict=True):
            if base <= addr and addr + fields["x_size"] * size <= base + len(data):
                return data[addr - base : addr - base + fields["x_size"] * size]
        raise AssertionError(f"0x{addr:x} is in no region")

    def _load(self, fields: dict[str, int]) -> Iterator[None]:
        memory_type = MemoryType(fields["memory_type"])
        rows = [self._row(fields, y).copy() for y in range(fields["y_size"])]
        yield
        cfg = self.cfg
        target, bits = {
            MemoryType.UOP: (self.uop, 32),
            MemoryType.INP: (self.inp, cfg.inp_bits),
            MemoryType.WGT: (self.wgt, cfg.wgt_bits),
            MemoryType.ACC: (self.acc, cfg.acc_bits),
            MemoryType.ACC_8BIT: (self.acc, 8),
        }[memory_type]
        least = -(1 << (bits - 1)) if fields["pad_min"] and memory_type != MemoryType.UOP else 0
        width = fields["x_pad_0"] + fields["x_size"] + fields["x_pad_1"]
        at = fields["sram_base"]
        for y in range(-fields["y_pad_0"], fields["y_size"] + fields["y_pad_1"]):
            target[at : at + width] = least
            if 0 <= y < fields["y_size"]:
                inner = at + fields["x_pad_0"]
                part = target[inner : inner + fields["x_size"]]
                if memory_type == MemoryType.UOP:
                    part[:] = rows[y].view("<u4")
                else:
                    part[:] = _unpack(rows[y], bits).reshape(part.shape)
            at += width
            yield

    def _store(self, fields: dict[str, int]) -> Iterator[None]:
        at = fields["sram_base"]
        for y in range(fields["y_size"]):
            values = self.acc[at : at + fields["x_size"]].copy()
            yield
            self._row(fields, y)[:] = _pack(values.ravel(), self.cfg.out_bits)
            at += fields["x_size"]
            yield

    def _loop(self, fields: dict[str, int], operation) -> Iterator[None]:
        for y in range(fields["iter_out"]):
            for x in range(fields["iter_in"]):
                for u in range(fields["uop_bgn"], fields["uop_end"]):
                    uop = self.isa.uop.decode(int(self.uop[u]))
                    at = [
                        uop[name]
                        + y * fields[f"{name}_factor_out"]
                        + x * fields[f"{name}_factor_in"]
                        for name in ("dst", "src", "wgt")
                    ]
                    operation(fields, *at)
                    if u % 4 == 0:
                        yield

    def _gemm(self, fields: dict[str, int], dst: int, src: int, wgt: int) -> None:
        if fields["reset"]:
            self.acc[dst] = 0
        else:
            self.acc[dst] = _wrap(
                self.acc[dst] + self.inp[src] @ self.wgt[wgt].T, self.cfg.acc_bits
            )

    def _alu(self, fields: dict[str, int], dst: int, src: int, _: int) -> None:
        a = self.acc[dst]
        b = np.full_like(a, fields["imm"]) if fields["use_imm"] else self.acc[src]
        self.acc[dst] = _wrap(
            _operate(AluOp(fields["alu_opcode"]), a, b, self.cfg.out_bits), self.cfg.acc_bits
        )


def _operate(op: AluOp, a: np.ndarray, b: np.ndarray, out_bits: int) -> np.ndarray:
    if op == AluOp.MIN:
        return np.minimum(a, b)
    if op == AluOp.MAX:
        return np.maximum(a, b)
    if op == AluOp.ADD:
        return a + b
    if op == AluOp.MUL:
        return a * b
    # 62 is beyond every width: what is shifted out is gone, and no shift of int64 goes further.
    if op == AluOp.SHR:
        return np.where(b >= 0, a >> np.clip(b, 0, 62), a << np.clip(-b, 0, 62))
    assert op == AluOp.RQT
    shift = b & 31  # round with bit 5, clip from zero on with bit 6
    half = np.where((b & 32 != 0) & (shift > 0), 1 << np.maximum(shift - 1, 0), 0)
    limit = 1 << (out_bits - 1)
    return np.clip((a + half) >> shift, np.where(b & 64, 0, -limit), limit - 1)


def _wrap(values: np.ndarray, bits: int) -> np.ndarray:
    shift = 64 - bits
    return (values << shift) >> shift


def _unpack(data: np.ndarray, bits: int) -> np.ndarray:
    """Signed elements of packed bytes."""
    if bits >= 8:
        return data.view(f"<i{bits // 8}").astype(np.int64)
    per_byte = 8 // bits
    parts = (data[:, None] >> (np.arange(per_byte) * bits).astype(np.uint8)).astype(np.int64)
    return _wrap(parts.ravel(), bits)


def _pack(values: np.ndarray, bits: int) -> np.ndarray:
    """Bytes of the low bits of each value."""
    if bits >= 8:
        return values.astype(f"<i{bits // 8}").view(np.uint8)
    per_byte = 8 // bits
    parts = (values & ((1 << bits) - 1)).reshape(-1, per_byte) << np.arange(per_byte) * bits
    return parts.sum(axis=1).astype(np.uint8)
