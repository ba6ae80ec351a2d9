"""Whether a program is legal, free of races, and reads nothing undefined.

Works on the bytes of a program, with nothing from the generator but the rules of `Order`, so that
it checks the generator as well as what the shrinker makes of its programs.
"""

from __future__ import annotations

import numpy as np

from covta.hw.isa import INSN_BYTES, MemoryType, Opcode, Unit, isa
from covta.hw.microarchitecture import TOKEN_MAX
from covta.sim.decode import COLUMNS, decode
from covta.sim.fuzz.layout import GRANULE_BYTES
from covta.sim.fuzz.masks import interval, loop_offsets, repeat
from covta.sim.fuzz.order import POP_FLAG, PUSH_FLAG, Order, Step, first_conflict
from covta.sim.fuzz.program import Program

__all__ = ["LegalityError", "check_program"]


class LegalityError(ValueError):
    """Something that no legal program without races does; the message names the instruction."""


def check_program(program: Program) -> Order:
    """Walk the stream in its order.

    Returns
    -------
    Order
        Every instruction with its clock.

    Raises
    ------
    LegalityError
        On the first thing wrong.
    """
    return _Checker(program).run()


class _Checker:
    def __init__(self, program: Program) -> None:
        self.program = program
        self.cfg = program.config
        self.isa = isa(self.cfg)
        self.order = Order(program.initial_tokens)
        self.uops: dict[int, int] = {}
        self.defined = {MemoryType.INP: 0, MemoryType.WGT: 0, MemoryType.ACC: 0}
        self.stored = 0
        self.granules: list[tuple[int, int, int]] = []
        first = 0
        for addr, data in zip(program.region_addrs, program.regions, strict=True):
            self.granules.append((addr, addr + len(data), first))
            first += -(-len(data) // GRANULE_BYTES) + 1

    def run(self) -> Order:
        table = decode(self.cfg, self.program.insn.reshape(-1, INSN_BYTES))
        finish = False
        for index, row in enumerate(table):
            fields = dict(zip(COLUMNS, map(int, row), strict=True))
            try:
                self._instruction(fields)
            except LegalityError as error:
                raise LegalityError(f"instruction {index}: {error}") from None
            finish |= fields["opcode"] == Opcode.FINISH
        if not finish:
            raise LegalityError("no FINISH")
        return self.order

    def _instruction(self, fields: dict[str, int]) -> None:
        if fields["illegal"]:
            raise LegalityError("illegal")
        opcode = Opcode(fields["opcode"])
        step = Step(opcode=opcode, fields=fields, unit=Unit(fields["unit"]))
        if opcode in (Opcode.LOAD, Opcode.STORE):
            if fields["x_size"] and fields["y_size"]:
                self._transfer(step)
        elif opcode in (Opcode.GEMM, Opcode.ALU):
            if fields["iter_out"] and fields["iter_in"] and fields["uop_bgn"] < fields["uop_end"]:
                self._loop(step)
        self._tokens(step)

    # ---- order -----------------------------------------------------------------------------
    def _tokens(self, step: Step) -> None:
        order, fields = self.order, step.fields
        pops = [q for q in order.inputs(step.unit) if fields[POP_FLAG[q]]]
        for queue in pops:
            if not order.pending[queue]:
                raise LegalityError(f"pops queue {queue}, to which nothing before it pushed")
        order.append(step, pops)
        for other in Unit:
            if other != step.unit:
                known = step.clock[other]
                need = first_conflict(order.units[other], known, step)
                if need > known:
                    raise LegalityError(
                        f"may overlap instruction {need - 1} of the {other.name.lower()} unit"
                    )
        for queue in order.outputs(step.unit):
            if fields[PUSH_FLAG[queue]]:
                order.push(step, queue)
                if order.push_total[queue] > TOKEN_MAX:
                    raise LegalityError(f"queue {queue} may overflow")

    # ---- LOAD, STORE -----------------------------------------------------------------------
    def _transfer(self, step: Step) -> None:
        fields = step.fields
        memory_type = MemoryType(fields["memory_type"])
        height = fields["y_pad_0"] + fields["y_size"] + fields["y_pad_1"]
        width = fields["x_pad_0"] + fields["x_size"] + fields["x_pad_1"]
        base, count = fields["sram_base"], height * width
        if base + count > self.isa.depth(memory_type):
            raise LegalityError("beyond the scratchpad")
        mask = interval(base, count)
        dram = self._dram(fields, memory_type)
        if step.opcode == Opcode.STORE:
            if mask & ~self.defined[MemoryType.ACC]:
                raise LegalityError("stores an accumulator that was never written")
            step.right, step.writes_dram = mask, dram
            self.stored |= dram
            return
        step.reads_dram = dram
        if memory_type == MemoryType.UOP:
            if dram & self.stored:
                raise LegalityError("loads micro-ops that were stored")
            self._uop_block(fields)
        elif memory_type in (MemoryType.ACC, MemoryType.ACC_8BIT):
            self.defined[MemoryType.ACC] |= mask
            step.right = mask
        else:
            self.defined[memory_type] |= mask
            step.left = mask << (self.cfg.inp_depth if memory_type == MemoryType.WGT else 0)

    def _dram(self, fields: dict[str, int], memory_type: MemoryType) -> int:
        """Granules of a transfer; every row in one region."""
        size = self.isa.elem_bytes(memory_type)
        first = self.program.base_ptrs[memory_type] + fields["dram_base"] * size
        row, stride = fields["x_size"] * size, fields["x_stride"] * size
        end = first + (fields["y_size"] - 1) * stride + row
        mask = 0
        for low, high, granule in self.granules:
            if low <= first and end <= high:
                at = granule + (first - low) // GRANULE_BYTES
                one = interval(at, row // GRANULE_BYTES)
                return repeat(one, fields["y_size"], stride // GRANULE_BYTES)
        for y in range(fields["y_size"]):
            addr = first + y * stride
            for low, high, granule in self.granules:
                if low <= addr and addr + row <= high:
                    at = granule + (addr - low) // GRANULE_BYTES
                    mask |= interval(at, row // GRANULE_BYTES)
                    break
            else:
                raise LegalityError(f"row {y} at 0x{addr:x} is in no region")
        return mask

    def _uop_block(self, fields: dict[str, int]) -> None:
        base_ptr = self.program.base_ptrs[MemoryType.UOP]
        at = fields["sram_base"]
        width = fields["x_pad_0"] + fields["x_size"] + fields["x_pad_1"]
        for y in range(-fields["y_pad_0"], fields["y_size"] + fields["y_pad_1"]):
            self.uops |= dict.fromkeys(range(at, at + width), 0)
            if 0 <= y < fields["y_size"]:
                elem = fields["dram_base"] + y * fields["x_stride"]
                words = self._words(base_ptr + 4 * elem, fields["x_size"])
                for x, word in enumerate(words):
                    self.uops[at + fields["x_pad_0"] + x] = int(word)
            at += width

    def _words(self, addr: int, count: int) -> np.ndarray:
        for base, data in zip(self.program.region_addrs, self.program.regions, strict=True):
            if base <= addr and addr + 4 * count <= base + len(data):
                return data[addr - base : addr - base + 4 * count].copy().view("<u4")
        raise AssertionError("checked before")

    # ---- GEMM, ALU -------------------------------------------------------------------------
    def _loop(self, step: Step) -> None:
        cfg, fields = self.cfg, step.fields
        if fields["uop_end"] > cfg.uop_depth:
            raise LegalityError("micro-ops beyond the scratchpad")
        sets = {"dst": 0, "src": 0, "wgt": 0}
        for u in range(fields["uop_bgn"], fields["uop_end"]):
            if u not in self.uops:
                raise LegalityError(f"micro-op {u} was never written")
            for name, value in self.isa.uop.decode(self.uops[u]).items():
                sets[name] |= 1 << value
        for name in sets:
            sets[name] = loop_offsets(
                sets[name],
                fields["iter_out"],
                fields["iter_in"],
                fields[f"{name}_factor_out"],
                fields[f"{name}_factor_in"],
            )
        if sets["dst"] >> cfg.acc_depth:
            raise LegalityError("dst beyond acc")
        reads_acc = sets["dst"]
        if step.opcode == Opcode.ALU:
            if not fields["use_imm"]:
                reads_acc |= sets["src"]
        elif fields["reset"]:
            reads_acc = 0
        else:
            self._require(MemoryType.INP, sets["src"])
            self._require(MemoryType.WGT, sets["wgt"])
            step.left = sets["src"] | sets["wgt"] << cfg.inp_depth
        self._require(MemoryType.ACC, reads_acc)
        step.right = sets["dst"]
        self.defined[MemoryType.ACC] |= sets["dst"]

    def _require(self, memory_type: MemoryType, mask: int) -> None:
        missing = mask & ~self.defined[memory_type]
        if missing:
            index = (missing & -missing).bit_length() - 1
            raise LegalityError(f"{memory_type.name.lower()} {index} was never written")
