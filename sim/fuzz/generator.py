"""Random legal programs without races, for any machine.

Instructions are chosen one after the other, so that executing them in the order of the stream is
always possible; `Order` knows which instructions of other units are complete when one starts, and
where one would touch what another unit may still be working on, pushes and pops are added.
Everything else is left free to overlap. No scratchpad element and no micro-op is read before it
was written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

import numpy as np

from covta.hw.isa import INSN_BYTES, AluOp, MemoryType, Opcode, Unit, isa
from covta.hw.microarchitecture import TOKEN_MAX
from covta.hw.params import Config
from covta.sim.fuzz.layout import GRANULE_BYTES, DramLayout, DramRegion, random_layout
from covta.sim.fuzz.masks import interval, loop_offsets, rows, runs
from covta.sim.fuzz.order import POP_FLAG, PUSH_FLAG, QUEUE_OF, Order, Step, first_conflict
from covta.sim.fuzz.program import Program

__all__ = ["random_program"]

MAX_PAD = 15
BLOCK_BYTES = 2048
"""About the size of the part of a scratchpad that one instruction works on."""

IMMEDIATES = (0, 1, -1, 2, 3, 4, 7, 8, 15, 16, 17, 31, 32, 33, -2, -8, -15, -16, -31, -32, -33)
IMMEDIATE_EXTREMES = (32767, -32768, 127, -128, 128, 255, -129)

Run = tuple[int, int]
"""First element and count of consecutive elements."""


class _FullError(Exception):
    """No room for what was wanted: tokens, or micro-ops in DRAM."""


@dataclass(frozen=True, kw_only=True)
class _Mood:
    """What one program is inclined to."""

    push_chance: float
    pop_chance: float
    late_push_chance: float
    pad_chance: float
    reuse_chance: float
    long_chance: float
    most_elems: int
    pipeline: bool


def random_program(cfg: Config, seed: int, size: int = 40) -> Program:
    """Make a program that is legal, free of races and the same for the same arguments.

    Parameters
    ----------
    cfg : Config
        Any machine.
    seed : int
        Non-negative.
    size : int
        About the most instructions, those not counted that only carry tokens; at least 1.

    Returns
    -------
    Program
        Its `meta` holds seed and size. It has no expectations.
    """
    assert size >= 1
    return _Generator(cfg, Random(seed), size).program({"fuzz": {"seed": seed, "size": size}})


class _Generator:
    def __init__(self, cfg: Config, rng: Random, size: int) -> None:
        self.cfg = cfg
        self.isa = isa(cfg)
        self.elem_bytes = {m: self.isa.elem_bytes(m) for m in MemoryType}
        self.rng = rng
        self.budget = rng.randrange(max(1, size // 4), size + 1)
        self.mood = _Mood(
            push_chance=rng.choice((0.0, 0.05, 0.2, 0.5)),
            pop_chance=rng.choice((0.1, 0.3, 0.9)),
            late_push_chance=rng.choice((0.0, 0.2, 0.7)),
            pad_chance=rng.choice((0.0, 0.2, 0.6)),
            reuse_chance=rng.choice((0.2, 0.5, 0.8)),
            long_chance=rng.choice((0.0, 0.0, 0.02, 0.1)),
            most_elems=rng.choice((1, 4, 1 << 16, 1 << 16, 1 << 16)),
            pipeline=rng.random() < 0.4,
        )
        self.tokens = [0, 0, 0, 0]
        if rng.random() < 0.15:
            self.tokens = [rng.choice((0, 0, 1, 2, 3)) for _ in range(4)]
        self.order = Order(self.tokens)
        self.layout: DramLayout = random_layout(
            cfg,
            rng,
            data_bytes=rng.choice((1024, 4096)),
            uop_words=16 + 8 * self.budget,
            insn_count=16 * self.budget + 2 * TOKEN_MAX,
        )
        self.uop_words: list[int | None] = [None] * cfg.uop_depth
        self.uop_sets: list[Run] = []
        self.uop_at = rng.randrange(4)
        self.uop_placed: list[Run] = []
        self.defined_acc = 0
        self.defined: dict[MemoryType, list[Run]] = {
            MemoryType.INP: [],
            MemoryType.WGT: [],
            MemoryType.ACC: [],
        }
        self.blocks = {
            m: self._choose_blocks(m) for m in (MemoryType.INP, MemoryType.WGT, MemoryType.ACC)
        }

    # ---- the whole program -----------------------------------------------------------------
    def program(self, meta: dict) -> Program:
        try:
            if self.mood.pipeline:
                self._pipeline()
            else:
                self._anything()
        except _FullError:
            pass
        self._finish()
        return self._assemble(meta)

    def _anything(self) -> None:
        actions = {
            self.load_input: 4,
            self.load_acc: 2,
            self.gemm: 4,
            self.alu: 4,
            self.store: 3,
            self.reload_uops: 1,
            self.carrier: 1,
        }
        weights = [w * self.rng.choice((1, 1, 1, 2, 8)) for w in actions.values()]
        while self.budget > 0:
            self.rng.choices(tuple(actions), weights)[0](None)

    def _pipeline(self) -> None:
        """Two or three threads that take turns, each with its part of every scratchpad."""
        rng = self.rng
        turn = 0
        threads = rng.randrange(2, 4)
        work = [self.load_input, self.load_input, self.gemm, self.alu, self.store]
        if rng.random() < 0.5:
            work.insert(2, self.load_acc)
        while self.budget > 0:
            for action in work:
                action(turn % threads)
                if rng.random() < 0.1:
                    self.alu(turn % threads)
            turn += 1

    def _finish(self) -> None:
        """FINISH, now and then after the tokens that are left, as in compiled programs."""
        for queue in self.order.inputs(Unit.COMPUTE):
            if len(self.order.pending[queue]) < 8 and self.rng.random() < 0.3:
                while len(self.order.pending[queue]) > 1:
                    self._place(self._carrier_step(Unit.COMPUTE), [queue])
        self._emit(Step(opcode=Opcode.FINISH, fields={}, unit=Unit.COMPUTE))
        for _ in range(self.rng.choice((0, 0, 0, 0, 0, 0, 0, 1, 2))):
            self._emit(self._carrier_step(self.rng.choice(tuple(Unit))))

    def _assemble(self, meta: dict) -> Program:
        stream = self.order.stream
        for step in stream:
            for queue in step.pops:
                step.fields[POP_FLAG[queue]] = 1
            for queue in step.pushes:
                step.fields[PUSH_FLAG[queue]] = 1
        insn = b"".join(
            self.isa.by_opcode[step.opcode].encode({"opcode": int(step.opcode), **step.fields})
            for step in stream
        )
        assert len(insn) <= self.layout.insn_room_bytes
        regions = [*self.layout.regions, self.layout.uops]
        regions.sort(key=lambda region: region.addr)
        return Program(
            config=self.cfg,
            insn=np.frombuffer(insn, np.uint8).reshape(-1, INSN_BYTES),
            insn_addr=self.layout.insn_addr,
            base_ptrs=tuple(self.layout.base_ptrs),
            region_addrs=tuple(region.addr for region in regions),
            regions=tuple(np.frombuffer(bytes(r.data), np.uint8) for r in regions),
            initial_tokens=tuple(self.tokens),
            meta=meta,
        )

    # ---- order -----------------------------------------------------------------------------
    def _emit(self, step: Step) -> None:
        """Place an instruction after everything that it must not overlap."""
        order, unit = self.order, step.unit
        if len(order.stream) > self.layout.insn_room_bytes // INSN_BYTES - TOKEN_MAX:
            if step.opcode != Opcode.FINISH:
                raise _FullError
        need = [0, 0, 0]
        for other in Unit:
            if other != unit:
                known = order.clock(unit)[other]
                need[other] = first_conflict(order.units[other], known, step)
        pops = self._wait(unit, need)
        for queue in order.inputs(unit):
            if queue not in pops and order.pending[queue]:
                if self.rng.random() < self.mood.pop_chance:
                    pops.append(queue)
        self._place(step, pops)

    def _place(self, step: Step, pops: Sequence[int]) -> None:
        self.order.append(step, pops)
        if self.mood.push_chance:
            for queue in self.order.outputs(step.unit):
                if self.rng.random() < self.mood.push_chance:
                    if self.order.push_total[queue] < TOKEN_MAX - 8:
                        self.order.push(step, queue)

    def _wait(self, unit: Unit, need: list[int]) -> list[int]:
        """Queues that the next instruction of a unit must pop so that `need` are complete.

        Carriers that pop what lies before the right token are placed.
        """
        order = self.order
        if unit != Unit.COMPUTE:
            far = Unit.STORE if unit == Unit.LOAD else Unit.LOAD
            if need[far] > order.clock(unit)[far]:
                need[Unit.COMPUTE] = max(need[Unit.COMPUTE], self._relay(far, need[far]))
        pops = []
        for other in Unit:
            if other == unit or need[other] <= order.clock(unit)[other]:
                continue
            if (other, unit) not in QUEUE_OF:
                continue
            queue = QUEUE_OF[other, unit]
            for _ in range(self._token(queue, other, need[other])):
                self._place(self._carrier_step(unit), [queue])
            pops.append(queue)
        return pops

    def _relay(self, far: Unit, need: int) -> int:
        """An instruction of compute that starts after `need` of load or store are complete."""
        for step in self.order.units[Unit.COMPUTE]:
            if step.clock[far] >= need:
                return step.index + 1
        wanted = [0, 0, 0]
        wanted[far] = need
        step = self._carrier_step(Unit.COMPUTE)
        self._place(step, self._wait(Unit.COMPUTE, wanted))
        return step.index + 1

    def _token(self, queue: int, producer: Unit, need: int) -> int:
        """Tokens in front of the first that stands for `need` instructions; there is one after."""
        order = self.order
        for ahead, token in enumerate(order.pending[queue]):
            if token[producer] >= need:
                return ahead
        if order.push_total[queue] >= TOKEN_MAX:
            raise _FullError
        steps = order.units[producer]
        first = max(need - 1, order.last_pusher(queue) + 1)
        if self.rng.random() < self.mood.late_push_chance:
            first = self.rng.randrange(first, len(steps))
        order.push(steps[first], queue)
        return len(order.pending[queue]) - 1

    def _carrier_step(self, unit: Unit) -> Step:
        """An instruction that does nothing, in one of the many ways to do so."""
        rng = self.rng
        if unit == Unit.COMPUTE and rng.random() < 0.6:
            opcode = rng.choice((Opcode.GEMM, Opcode.ALU))
            fields = {"iter_out": rng.randrange(3), "iter_in": rng.randrange(3), "uop_end": 1}
            empty = rng.choice(("iter_out", "iter_in", "uop_end"))
            fields[empty] = 0
            if empty == "uop_end" and rng.random() < 0.5:
                fields["uop_end"] = rng.randrange(self.cfg.uop_depth)
                fields["uop_bgn"] = rng.randrange(fields["uop_end"], self.cfg.uop_depth)
            return Step(opcode=opcode, fields=fields, unit=unit)
        kinds = {
            Unit.LOAD: (MemoryType.INP, MemoryType.WGT),
            Unit.COMPUTE: (MemoryType.UOP, MemoryType.ACC, MemoryType.ACC_8BIT),
            Unit.STORE: (MemoryType.OUT,),
        }[unit]
        fields = {
            "memory_type": int(rng.choice(kinds)),
            "x_size": rng.randrange(5),
            "y_size": rng.randrange(5),
            "x_stride": rng.randrange(5),
        }
        fields[rng.choice(("x_size", "y_size"))] = 0
        if rng.random() < 0.3:  # nothing of these is looked at
            fields["sram_base"] = rng.randrange(1 << 16)
            fields["dram_base"] = rng.randrange(1 << 32)
        if unit != Unit.STORE and rng.random() < 0.3:
            for name in ("y_pad_0", "y_pad_1", "x_pad_0", "x_pad_1"):
                fields[name] = rng.randrange(MAX_PAD + 1)
        opcode = Opcode.STORE if unit == Unit.STORE else Opcode.LOAD
        return Step(opcode=opcode, fields=fields, unit=unit)

    # ---- scratchpads -----------------------------------------------------------------------
    def _choose_blocks(self, memory_type: MemoryType) -> list[Run]:
        """Up to three parts of a scratchpad that the program works on; both halves of acc."""
        rng = self.rng
        depth = self.isa.depth(memory_type)
        most = max(4, min(32, BLOCK_BYTES // self.elem_bytes[memory_type]))
        count = min(most * rng.choice((1, 1, 1, 2)), max(1, depth // 2))
        if depth <= 8:
            return [(0, depth // 2), (depth // 2, depth - depth // 2), (0, depth)]
        low = rng.randrange(depth // 2 - count + 1)
        high = depth - count if rng.random() < 0.5 else rng.randrange(depth // 2, depth - count + 1)
        middle = min(max(0, depth // 2 - rng.randrange(1, count + 1)), depth - count)
        blocks = [(low, count), (high, count), (middle, count)]
        rng.shuffle(blocks)
        return blocks

    def _block(self, memory_type: MemoryType, thread: int | None) -> Run:
        blocks = self.blocks[memory_type]
        return self.rng.choice(blocks) if thread is None else blocks[thread % len(blocks)]

    def _defined_run(self, memory_type: MemoryType, thread: int | None) -> Run | None:
        """Consecutive elements that were written, of a thread's part if there are such."""
        found = self.defined[memory_type]
        if not found:
            return None
        if thread is not None:
            base, count = self._block(memory_type, thread)
            inside = [r for r in found if base <= r[0] and r[0] + r[1] <= base + count]
            found = inside or found
        return self.rng.choice(found[-6:])

    def _define(self, memory_type: MemoryType, mask: int) -> None:
        if memory_type == MemoryType.ACC:
            self.defined_acc |= mask
        self.defined[memory_type].extend(runs(mask, 4))

    # ---- LOAD, STORE -----------------------------------------------------------------------
    def load_input(self, thread: int | None) -> None:
        """LOAD of inp or wgt."""
        memory_type = self.rng.choice((MemoryType.INP, MemoryType.WGT))
        for kind in (MemoryType.INP, MemoryType.WGT):
            if not self.defined[kind]:
                memory_type = kind
        self._load(memory_type, memory_type, thread)

    def load_acc(self, thread: int | None) -> None:
        """LOAD of acc from either format."""
        memory_type = self.rng.choice((MemoryType.ACC, MemoryType.ACC_8BIT))
        self._load(memory_type, MemoryType.ACC, thread)

    def _load(self, memory_type: MemoryType, scratchpad: MemoryType, thread: int | None) -> None:
        rng = self.rng
        base, room = self._block(scratchpad, thread)
        writable = [r for r in self.layout.regions if r.writable]
        readable = [r for r in self.layout.regions if not r.writable]
        region = rng.choice(writable if rng.random() < 0.25 else readable)
        elems = self.layout.elems(region, memory_type, self.elem_bytes[memory_type])
        fields = self._shape(min(room, 4 * len(elems)), len(elems))
        block = _block_elems(fields)
        fields["sram_base"] = base + rng.randrange(room - block + 1)
        fields["memory_type"] = int(memory_type)
        reads = self._dram_rows(fields, region, elems, memory_type)
        if self.cfg.has("pad_min") and rng.random() < 0.5:
            fields["pad_min"] = 1
        mask = interval(fields["sram_base"], block)
        unit = Unit.COMPUTE if scratchpad == MemoryType.ACC else Unit.LOAD
        step = Step(opcode=Opcode.LOAD, fields=fields, unit=unit, reads_dram=reads)
        if unit == Unit.COMPUTE:
            step.right = mask
        else:
            step.left = mask << (self.cfg.inp_depth if memory_type == MemoryType.WGT else 0)
        self._emit(step)
        self._define(scratchpad, mask)
        self.budget -= 1

    def _shape(self, room: int, available: int) -> dict[str, int]:
        """Sizes and padding of a block of at most `room` elements, `available` of them in DRAM."""
        rng = self.rng
        fields = {"x_size": 1, "y_size": 1}
        room = min(room, self.mood.most_elems)
        most = min(room, available)
        if rng.random() < self.mood.pad_chance:
            width = rng.randrange(1, room + 1)
            height = rng.randrange(1, room // width + 1)
            if rng.random() < 0.3:
                width, height = height, width
            for axis, total in (("x", width), ("y", height)):
                first = rng.randrange(min(MAX_PAD, total - 1) + 1)
                last = rng.randrange(min(MAX_PAD, total - 1 - first) + 1)
                fields[f"{axis}_pad_0"], fields[f"{axis}_pad_1"] = first, last
                fields[f"{axis}_size"] = total - first - last
            while fields["x_size"] * fields["y_size"] > most:
                axis = "x_size" if fields["x_size"] > 1 else "y_size"
                fields[axis] = (fields[axis] + 1) // 2
        elif rng.random() < 0.5:
            fields["x_size"] = rng.randrange(1, most + 1)
        else:
            fields["y_size"] = rng.randrange(1, min(most, 8) + 1)
            fields["x_size"] = rng.randrange(1, most // fields["y_size"] + 1)
        return fields

    def _dram_rows(
        self, fields: dict[str, int], region: DramRegion, elems: range, memory_type: MemoryType
    ) -> int:
        """Choose `x_stride` and `dram_base`; return the granules."""
        rng = self.rng
        y_size, x_size = fields["y_size"], fields["x_size"]
        stride = x_size
        if y_size > 1:
            most = (len(elems) - x_size) // (y_size - 1)
            kind = rng.random()
            if kind < 0.4 and most >= x_size:
                stride = rng.randrange(x_size, min(most, x_size + 8) + 1)
            elif kind < 0.6:
                stride = rng.randrange(min(most, x_size) + 1)
            stride = min(stride, most)
        elif rng.random() < 0.5:
            stride = rng.randrange(1 << 16)
        span = (y_size - 1) * stride + x_size
        first = rng.randrange(len(elems) - span + 1)
        fields["x_stride"] = stride
        fields["dram_base"] = elems[first]
        size = self.elem_bytes[memory_type]
        addr = self.layout.base_ptrs[memory_type] + elems[first] * size
        unit = size // GRANULE_BYTES
        return rows(self.layout.granules(region, addr), y_size, x_size * unit, stride * unit)

    def store(self, thread: int | None) -> None:
        """STORE of accumulators that were written."""
        rng = self.rng
        run = self._defined_run(MemoryType.ACC, thread)
        if run is None:
            return self.load_acc(thread)
        region = rng.choice([r for r in self.layout.regions if r.writable])
        elems = self.layout.elems(region, MemoryType.OUT, self.elem_bytes[MemoryType.OUT])
        most = min(run[1], len(elems), self.mood.most_elems)
        y_size = rng.randrange(1, min(most, 8) + 1) if rng.random() < 0.5 else 1
        x_size = rng.randrange(1, most // y_size + 1)
        base = run[0] + rng.randrange(run[1] - y_size * x_size + 1)
        fields = {
            "memory_type": int(MemoryType.OUT),
            "sram_base": base,
            "y_size": y_size,
            "x_size": x_size,
        }
        writes = self._dram_rows(fields, region, elems, MemoryType.OUT)
        self._emit(
            Step(
                opcode=Opcode.STORE,
                fields=fields,
                unit=Unit.STORE,
                right=interval(base, y_size * x_size),
                writes_dram=writes,
            )
        )
        self.budget -= 1
        return None

    def carrier(self, thread: int | None) -> None:
        """An instruction that does nothing but carry tokens."""
        self._emit(self._carrier_step(self.rng.choice(tuple(Unit))))
        self.budget -= 1

    # ---- micro-ops -------------------------------------------------------------------------
    def _load_uops(self, words: Sequence[int]) -> Run:
        """Put micro-ops into DRAM and load them; return where they are in the scratchpad."""
        rng, layout = self.rng, self.layout
        count = len(words)
        depth = self.cfg.uop_depth
        room = len(layout.uops) // GRANULE_BYTES
        start = self.uop_at + (rng.randrange(4) if rng.random() < 0.5 else 0)
        fields = {"y_size": 1, "x_size": count, "x_stride": rng.randrange(8)}
        before = after = 0
        divisors = [d for d in (2, 3, 4) if count % d == 0]
        if divisors and rng.random() < 0.3:
            y_size = rng.choice(divisors)
            fields = {"y_size": y_size, "x_size": count // y_size}
            fields["x_stride"] = fields["x_size"] + rng.randrange(4)
        elif rng.random() < self.mood.pad_chance and depth >= 4 * count:
            fields["x_pad_0"] = rng.randrange(min(MAX_PAD, depth - count) + 1)
            fields["x_pad_1"] = rng.randrange(min(MAX_PAD, depth - count - fields["x_pad_0"]) + 1)
            before, after = fields["x_pad_0"], fields["x_pad_1"]
            width = before + count + after
            if 3 * width <= depth:
                fields["y_pad_0"], fields["y_pad_1"] = rng.randrange(2), rng.randrange(2)
                before += width * fields["y_pad_0"]
                after += width * fields["y_pad_1"]
        x_size, y_size, stride = fields["x_size"], fields["y_size"], fields["x_stride"]
        span = (y_size - 1) * stride + x_size
        if start + span > room:
            raise _FullError
        for y in range(y_size):
            at = GRANULE_BYTES * (start + y * stride)
            for k, word in enumerate(words[y * x_size : (y + 1) * x_size]):
                layout.uops.data[at + 4 * k : at + 4 * k + 4] = word.to_bytes(4, "little")
        self.uop_at = start + span
        if y_size == 1:
            self.uop_placed.append((start, x_size))
        base = rng.randrange(depth - before - count - after + 1)
        if rng.random() < 0.5:  # over what is there
            base = min(rng.randrange(8), base)
        self._emit_uop_load(fields, start, base)
        for k in range(before + count + after):
            self.uop_words[base + k] = 0
        self.uop_words[base + before : base + before + count] = list(words)
        self.uop_sets.append((base + before, count))
        return base + before, count

    def _emit_uop_load(self, fields: dict[str, int], word: int, base: int) -> None:
        addr = self.layout.uops.addr + GRANULE_BYTES * word - self.layout.base_ptrs[MemoryType.UOP]
        assert addr % GRANULE_BYTES == 0
        fields |= {
            "memory_type": int(MemoryType.UOP),
            "sram_base": base,
            "dram_base": addr // GRANULE_BYTES,
        }
        if self.cfg.has("pad_min") and self.rng.random() < 0.2:
            fields["pad_min"] = 1  # micro-ops are unsigned: still zero
        self._emit(Step(opcode=Opcode.LOAD, fields=fields, unit=Unit.COMPUTE))
        self.budget -= 1

    def reload_uops(self, thread: int | None) -> None:
        """LOAD micro-ops again, somewhere else."""
        if not self.uop_placed:
            return
        start, count = self.rng.choice(self.uop_placed)
        first = self.rng.randrange(count)
        count = self.rng.randrange(1, count - first + 1)
        base = self.rng.randrange(min(self.cfg.uop_depth - count, 16) + 1)
        self._emit_uop_load({"y_size": 1, "x_size": count}, start + first, base)
        data = self.layout.uops.data
        for k in range(count):
            at = GRANULE_BYTES * (start + first + k)
            self.uop_words[base + k] = int.from_bytes(data[at : at + 4], "little")
        self.uop_sets.append((base, count))

    def _fields_of(self, run: Run) -> tuple[int, int, int] | None:
        """dst, src and wgt sets of micro-ops in the scratchpad; None if one was never written."""
        cfg = self.cfg
        a, s = cfg.log2_acc_depth, cfg.log2_src_depth
        dst = src = wgt = 0
        for word in self.uop_words[run[0] : run[0] + run[1]]:
            if word is None:
                return None
            dst |= 1 << (word & ((1 << a) - 1))
            src |= 1 << ((word >> a) & ((1 << s) - 1))
            wgt |= 1 << ((word >> (a + s)) & ((1 << cfg.log2_wgt_depth) - 1))
        return dst, src, wgt

    # ---- GEMM, ALU -------------------------------------------------------------------------
    def _trip_counts(self) -> tuple[int, int, int]:
        """Micro-ops, iter_out, iter_in."""
        rng = self.rng
        most_uops = max(1, self.cfg.uop_depth // 2)
        if rng.random() < self.mood.long_chance:
            return min(rng.randrange(1, 33), most_uops), rng.randrange(1, 17), rng.randrange(1, 17)
        count = rng.choice((1, 1, 2, 3, 4, 4, 5, 6, 8, 12))
        return min(count, most_uops), rng.choice((1, 1, 2, 3)), rng.choice((1, 1, 2, 4))

    def _operand(self, run: Run, trips: tuple[int, int, int]) -> tuple[list[int], int, int]:
        """Micro-op fields and factors that stay inside consecutive elements."""
        rng = self.rng
        base, room = run
        count, iter_out, iter_in = trips
        factor_out = factor_in = 0
        if iter_out > 1 and rng.random() < 0.7:
            factor_out = rng.randrange((room - 1) // (iter_out - 1) + 1)
        room -= (iter_out - 1) * factor_out
        if iter_in > 1 and rng.random() < 0.7:
            factor_in = rng.randrange((room - 1) // (iter_in - 1) + 1)
        room -= (iter_in - 1) * factor_in
        if iter_out == 1 and rng.random() < 0.5:  # a factor that nothing is multiplied with
            factor_out = rng.randrange(4)
        kind = rng.random()
        if kind < 0.4:  # again after 1 to 4 micro-ops
            period = [rng.randrange(room) for _ in range(rng.randrange(1, 5))]
            values = [period[k % len(period)] for k in range(count)]
        elif kind < 0.6:
            first, step = rng.randrange(room), rng.choice((1, 1, -1, 2))
            values = [(first + step * k) % room for k in range(count)]
        elif kind < 0.75:  # each for 1 to 4 micro-ops
            turns = rng.randrange(1, 5)
            few = [rng.randrange(room) for _ in range(count)]
            values = [few[k // turns] for k in range(count)]
        else:
            values = [rng.randrange(room) for _ in range(count)]
        return [base + v for v in values], factor_out, factor_in

    def _loop_step(self, opcode: Opcode, fields: dict[str, int], uops: Run) -> Step | None:
        """The instruction with what it touches; None if it is not legal now."""
        cfg = self.cfg
        sets = self._fields_of(uops)
        if sets is None:
            return None
        trips = fields["iter_out"], fields["iter_in"]

        def touched(mask: int, name: str) -> int:
            factors = fields.get(f"{name}_factor_out", 0), fields.get(f"{name}_factor_in", 0)
            return loop_offsets(mask, *trips, *factors)

        dst = touched(sets[0], "dst")
        left = 0
        reads_acc = dst
        if opcode == Opcode.GEMM:
            if fields["reset"]:
                reads_acc = 0
            else:
                inp, wgt = touched(sets[1], "src"), touched(sets[2], "wgt")
                if inp & ~self._defined_mask(MemoryType.INP):
                    return None
                if wgt & ~self._defined_mask(MemoryType.WGT):
                    return None
                left = inp | wgt << cfg.inp_depth
        elif not fields["use_imm"]:
            reads_acc |= touched(sets[1], "src")
        if reads_acc & ~self.defined_acc or dst >> cfg.acc_depth:
            return None
        fields["uop_bgn"], fields["uop_end"] = uops[0], uops[0] + uops[1]
        return Step(opcode=opcode, fields=fields, unit=Unit.COMPUTE, left=left, right=dst)

    def _defined_mask(self, memory_type: MemoryType) -> int:
        mask = 0
        for base, count in self.defined[memory_type]:
            mask |= interval(base, count)
        return mask

    def _reuse(self, opcode: Opcode, fields: dict[str, int]) -> bool:
        """Run micro-ops that are there already, if that is legal."""
        if not self.uop_sets or self.rng.random() >= self.mood.reuse_chance:
            return False
        base, count = self.rng.choice(self.uop_sets[-4:])
        first = self.rng.randrange(count) if self.rng.random() < 0.3 else 0
        fields = fields | {
            "iter_out": self.rng.randrange(1, 4),
            "iter_in": self.rng.randrange(1, 4),
        }
        if self.rng.random() < 0.5:
            fields["dst_factor_in"] = fields["src_factor_in"] = 1
        step = self._loop_step(opcode, fields, (base + first, count - first))
        if step is None:
            return False
        self._emit_loop(step)
        return True

    def _emit_loop(self, step: Step) -> None:
        self._emit(step)
        if step.right & ~self.defined_acc:
            self._define(MemoryType.ACC, step.right)
        self.budget -= 1

    def gemm(self, thread: int | None) -> None:
        """GEMM, with reset where nothing was written yet."""
        rng = self.rng
        run = self._defined_run(MemoryType.ACC, thread)
        inp = self._defined_run(MemoryType.INP, thread)
        wgt = self._defined_run(MemoryType.WGT, thread)
        if inp is None or wgt is None:
            return self.load_input(thread)
        reset = int(run is None or rng.random() < 0.2)
        if self._reuse(Opcode.GEMM, {"reset": reset}):
            return None
        if reset:
            run = self._block(MemoryType.ACC, thread)
        assert run is not None
        trips = self._trip_counts()
        names = ("dst", "src", "wgt")
        operands: dict[str, tuple[list[int], int, int]] = dict(
            zip(names, (self._operand(r, trips) for r in (run, inp, wgt)), strict=True)
        )
        if reset and rng.random() < 0.5:  # reset looks at dst alone
            src_depth = 1 << self.cfg.log2_src_depth
            values = [rng.randrange(src_depth) for _ in range(trips[0])]
            operands["src"] = (values, rng.randrange(self.cfg.inp_depth), 0)
        self._new_loop(Opcode.GEMM, {"reset": reset}, trips, operands)
        return None

    def alu(self, thread: int | None) -> None:
        """ALU of any opcode, immediate or with two operands."""
        rng = self.rng
        run = self._defined_run(MemoryType.ACC, thread)
        if run is None:
            return self.load_acc(thread)
        fields = {"alu_opcode": rng.choice(sorted(self.isa.alu_ops)), "use_imm": rng.randrange(2)}
        fields["imm"] = self._immediate()
        if fields["alu_opcode"] == AluOp.RQT and rng.random() < 0.7:
            fields["imm"] = rng.randrange(1 << 7)  # shift, rounding, clip from zero on
        if rng.random() < 0.05:
            fields["reset"] = 1  # has no meaning here
        if self._reuse(Opcode.ALU, dict(fields)):
            return None
        trips = self._trip_counts()
        dst = self._operand(run, trips)
        other = run if rng.random() < 0.6 else self._defined_run(MemoryType.ACC, None)
        assert other is not None
        src = self._operand(other, trips)
        if rng.random() < 0.3:
            src = self._chain(dst, run)
        self._new_loop(Opcode.ALU, fields, trips, {"dst": dst, "src": src})
        return None

    def _immediate(self) -> int:
        rng = self.rng
        kind = rng.random()
        if kind < 0.5:
            return rng.choice(IMMEDIATES)
        if kind < 0.65:
            return rng.choice(IMMEDIATE_EXTREMES)
        return rng.randrange(-(1 << 15), 1 << 15)

    def _chain(self, dst: tuple[list[int], int, int], run: Run) -> tuple[list[int], int, int]:
        """Sources that are what micro-ops shortly before have written."""
        values, factor_out, factor_in = dst
        distance = self.rng.randrange(4)
        return [values[max(0, k - distance)] for k in range(len(values))], factor_out, factor_in

    def _new_loop(
        self,
        opcode: Opcode,
        fields: dict[str, int],
        trips: tuple[int, int, int],
        operands: dict[str, tuple[list[int], int, int]],
    ) -> None:
        """Load new micro-ops, then the instruction over them."""
        cfg = self.cfg
        fields["iter_out"], fields["iter_in"] = trips[1:]
        for name, (_, factor_out, factor_in) in operands.items():
            fields[f"{name}_factor_out"], fields[f"{name}_factor_in"] = factor_out, factor_in
        a, s = cfg.log2_acc_depth, cfg.log2_src_depth
        values = [operand[0] for operand in operands.values()]
        if len(values) == 2:  # ALU does not look at wgt
            values.append([self.rng.randrange(cfg.wgt_depth) for _ in range(trips[0])])
        words = [d | x << a | w << (a + s) for d, x, w in zip(*values, strict=True)]
        step = self._loop_step(opcode, fields, self._load_uops(words))
        assert step is not None
        self._emit_loop(step)


def _block_elems(fields: dict[str, int]) -> int:
    """Scratchpad elements that a LOAD writes."""
    height = fields.get("y_pad_0", 0) + fields["y_size"] + fields.get("y_pad_1", 0)
    width = fields.get("x_pad_0", 0) + fields["x_size"] + fields.get("x_pad_1", 0)
    return height * width
