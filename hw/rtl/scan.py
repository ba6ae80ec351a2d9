"""Scan: checks compute instructions ahead of time and finds out which acc banks they touch."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from covta.hw.faults import FaultCause
from covta.hw.isa import AluOp, InsnFormat, MemoryType, Opcode, isa
from covta.hw.params import Config
from covta.hw.rtl.interfaces import CAUSE_BITS, INDEX_BITS, INSN_LAYOUT, layout_of


def scanned_layout(cfg: Config) -> data.StructLayout:
    """A scanned instruction.

    `banks` of acc that it touches, whether it is `empty`, `uop_end` of the micro-ops that a LOAD
    UOP writes (exclusive), the fault `cause` that it carries.
    """
    return data.StructLayout(
        {
            "word": data.ArrayLayout(64, 2),
            "index": INDEX_BITS,
            "banks": 2,
            "empty": 1,
            "uop_end": cfg.log2_uop_depth + 1,
            "cause": CAUSE_BITS,
        }
    )


def stray_bits(fmt: InsnFormat, insn: data.View) -> object:
    """Expression: a bit outside every field of the format is set."""
    stray = [insn.word[k] & (~fmt.words[k].used_mask & (1 << 64) - 1) for k in range(2)]
    return (stray[0] | stray[1]) != 0


class Scan(wiring.Component):
    """Takes instructions in order, gives them back with their acc banks or their fault.

    Timing, from the cycle ``t`` in which an instruction is taken: it is offered in ``v + 1``,
    where the verdict cycle ``v`` is ``t + 1`` for an illegal or empty instruction, FINISH, or
    ``uop_end`` beyond the scratchpad; ``t + 2`` for another LOAD; for a loop over ``n``
    micro-ops ``max(t + 1 + P, g + 3)`` with ``P`` = 6 products (GEMM) or 4 (ALU) and ``g`` the
    cycle in which its last micro-op is read: one a cycle from ``t + 1`` on, except while `hold`
    (the ALU owns the port) or `uop_pending`. The next instruction is taken at the earliest in
    the cycle in which the offer is accepted.

    Members
    -------
    i : ``In(stream(INSN_LAYOUT))``
    o : ``Out(stream(scanned_layout))``
    uop_addr, uop_en, uop_data : port B of the uop scratchpad
    hold : ``In(1)``, the port belongs to the ALU
    uop_pending : ``In(1)``, a LOAD UOP that went before is not complete
    halt, idle
    """

    MULTIPLY_CYCLES = 6

    def __init__(self, cfg: Config) -> None:
        self.cfg = cfg
        super().__init__(
            {
                "i": In(stream.Signature(INSN_LAYOUT)),
                "o": Out(stream.Signature(scanned_layout(cfg))),
                "uop_addr": Out(cfg.log2_uop_depth),
                "uop_en": Out(1),
                "uop_data": In(cfg.uop_bits),
                "hold": In(1),
                "uop_pending": In(1),
                "halt": In(1),
                "idle": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        self._taken = Signal(INSN_LAYOUT)
        self._decode(m)
        self._read_uops(m)
        self._multiply(m)
        self._check(m)
        self._sequence(m)
        return m

    # ---- the instruction being scanned -----------------------------------------------------
    def _decode(self, m: Module) -> None:
        """Fields and the faults that need nothing else, of the taken instruction."""
        cfg, x, insn = self.cfg, isa(self.cfg), self._taken
        formats = {"load": x.load, "gemm": x.gemm, "alu": x.alu, "finish": x.finish}
        views = {
            name: [data.View(layout_of(fmt.words[k]), insn.word[k]) for k in range(2)]
            for name, fmt in formats.items()
        }
        self._load, self._gemm, self._alu = views["load"], views["gemm"], views["alu"]
        opcode = insn.word[0][:3]
        self._is_load, self._is_gemm, self._is_alu, self._is_finish = (
            Signal(name=f"is_{n}") for n in ("load", "gemm", "alu", "finish")
        )
        m.d.comb += [
            self._is_load.eq(opcode == Opcode.LOAD),
            self._is_gemm.eq(opcode == Opcode.GEMM),
            self._is_alu.eq(opcode == Opcode.ALU),
            self._is_finish.eq(opcode == Opcode.FINISH),
        ]
        illegal = Signal()
        memory_type = self._load[0].memory_type
        self._is_uop_load = Signal()
        m.d.comb += self._is_uop_load.eq(self._is_load & (memory_type == MemoryType.UOP))
        bad_type = (
            (memory_type != MemoryType.UOP)
            & (memory_type != MemoryType.ACC)
            & (memory_type != MemoryType.ACC_8BIT)
        )
        alu_opcode = self._alu[1].alu_opcode
        bad_alu = alu_opcode > max(x.alu_ops)
        with m.If(self._is_load):
            m.d.comb += illegal.eq(stray_bits(x.load, insn) | bad_type)
        with m.Elif(self._is_gemm):
            m.d.comb += illegal.eq(stray_bits(x.gemm, insn))
        with m.Elif(self._is_alu):
            # the ALU's reset bit is part of the common word 0 and has no meaning
            m.d.comb += illegal.eq(stray_bits(x.alu, insn) | bad_alu)
        with m.Elif(self._is_finish):
            m.d.comb += illegal.eq(stray_bits(x.finish, insn))
        with m.Else():
            m.d.comb += illegal.eq(1)
        assert sorted(x.alu_ops) == list(range(max(x.alu_ops) + 1)), AluOp
        self._illegal = illegal
        loop = self._gemm[0]
        self._loop = loop
        self._empty = Signal()
        loops = self._is_gemm | self._is_alu
        self._loops = loops
        with m.If(self._is_load):
            m.d.comb += self._empty.eq((self._load[1].x_size == 0) | (self._load[1].y_size == 0))
        with m.Elif(loops):
            m.d.comb += self._empty.eq(
                (loop.iter_out == 0) | (loop.iter_in == 0) | (loop.uop_end <= loop.uop_bgn)
            )
        with m.Else():
            m.d.comb += self._empty.eq(1)
        self._uop_overrun = Signal()
        m.d.comb += self._uop_overrun.eq(loops & (loop.uop_end > cfg.uop_depth))
        self._simple = Signal()
        m.d.comb += self._simple.eq(illegal | self._empty | self._uop_overrun)

    # ---- greatest and least micro-op fields ------------------------------------------------
    def _read_uops(self, m: Module) -> None:
        cfg = self.cfg
        uop = data.View(layout_of(isa(cfg).uop), self.uop_data)
        self._begin = Signal()
        self._reading = Signal()
        current, final = Signal(cfg.log2_uop_depth), Signal(cfg.log2_uop_depth)
        grant, last = Signal(), Signal()
        m.d.comb += [
            grant.eq(self._reading & ~self.hold & ~self.uop_pending),
            last.eq(current == final),
            self.uop_addr.eq(current),
            self.uop_en.eq(grant),
        ]
        arrives, arrives_last = Signal(2), Signal(2)
        m.d.sync += [
            arrives.eq(Cat(grant, arrives[0])),
            arrives_last.eq(Cat(grant & last, arrives_last[0])),
        ]
        self._uops_done = Signal()
        self._max = {n: Signal(b, name=f"max_{n}") for n, b in self._uop_fields().items()}
        self._min = {n: Signal(b, name=f"min_{n}") for n, b in self._uop_fields().items()}
        with m.If(grant):
            m.d.sync += current.eq(current + 1)
            with m.If(last):
                m.d.sync += self._reading.eq(0)
        with m.If(arrives[1]):
            for n in self._max:
                field = uop[n]
                with m.If(field > self._max[n]):
                    m.d.sync += self._max[n].eq(field)
                with m.If(field < self._min[n]):
                    m.d.sync += self._min[n].eq(field)
        with m.If(arrives_last[1]):
            m.d.sync += self._uops_done.eq(1)
        with m.If(self._begin):
            taken = data.View(layout_of(isa(cfg).gemm.words[0]), self.i.p.word[0])
            loop_op = (taken.opcode == Opcode.GEMM) | (taken.opcode == Opcode.ALU)
            runs = (
                loop_op
                & (taken.iter_out != 0)
                & (taken.iter_in != 0)
                & (taken.uop_end > taken.uop_bgn)
                & (taken.uop_end <= cfg.uop_depth)
            )
            m.d.sync += [
                self._reading.eq(runs),
                self._uops_done.eq(~loop_op),
                current.eq(taken.uop_bgn),
                final.eq(taken.uop_end - 1),
            ]
            for n in self._max:
                m.d.sync += [self._max[n].eq(0), self._min[n].eq(~0)]

    def _uop_fields(self) -> dict[str, int]:
        cfg = self.cfg
        return {"dst": cfg.log2_acc_depth, "src": cfg.log2_src_depth, "wgt": cfg.log2_wgt_depth}

    # ---- what the loops add ----------------------------------------------------------------
    def _multiply(self, m: Module) -> None:
        """One multiplier, six turns: two for each of dst, src, wgt; a LOAD's height times width."""
        cfg = self.cfg
        depth_bits = max(
            cfg.log2_uop_depth, cfg.log2_acc_depth, cfg.log2_inp_depth, cfg.log2_wgt_depth
        )
        bits = max(14, depth_bits + 1)
        self._operand_bits = bits
        load1, gemm1, alu1 = self._load[1], self._gemm[1], self._alu[1]
        self._height, self._width = Signal(17), Signal(17)
        m.d.comb += [
            self._height.eq(load1.y_size + load1.y_pad_0 + load1.y_pad_1),
            self._width.eq(load1.x_size + load1.x_pad_0 + load1.x_pad_1),
        ]
        self._turn = turn = Signal(3)
        a, b = Signal(bits), Signal(bits)
        out_m1, in_m1 = Signal(14), Signal(14)
        m.d.comb += [out_m1.eq(self._loop.iter_out - 1), in_m1.eq(self._loop.iter_in - 1)]
        with m.If(self._is_load):
            m.d.comb += [a.eq(self._height), b.eq(self._width)]
        with m.Else():
            m.d.comb += a.eq(Mux(turn[0], in_m1, out_m1))
            with m.Switch(turn):
                for k, name in enumerate(
                    (
                        "dst_factor_out",
                        "dst_factor_in",
                        "src_factor_out",
                        "src_factor_in",
                        "wgt_factor_out",
                        "wgt_factor_in",
                    )
                ):
                    with m.Case(k):
                        gemm_field = gemm1[name]
                        if name.startswith("wgt"):
                            m.d.comb += b.eq(gemm_field)
                        else:
                            m.d.comb += b.eq(Mux(self._is_alu, alu1[name], gemm_field))
        # An explicit sum of shifted rows: no DSP is spent on it.
        product = Signal(2 * bits)
        rows = [Mux(b[k], a, 0) << k for k in range(bits)]
        while len(rows) > 1:
            rows = [sum(rows[k : k + 2][1:], rows[k]) for k in range(0, len(rows), 2)]
        m.d.comb += product.eq(rows[0])
        self._offset = {n: Signal(2 * bits + 1, name=f"offset_{n}") for n in ("dst", "src", "wgt")}
        with m.If(self._begin):
            m.d.sync += turn.eq(0)
            for offset in self._offset.values():
                m.d.sync += offset.eq(0)
        with m.Elif(turn != self.MULTIPLY_CYCLES):
            m.d.sync += turn.eq(turn + 1)
            for k, offset in enumerate(self._offset.values()):
                with m.If((turn[1:] == k) & ~(self._is_load & (turn != 0))):
                    m.d.sync += offset.eq(offset + product)

    # ---- the verdict -----------------------------------------------------------------------
    def _check(self, m: Module) -> None:
        cfg = self.cfg
        bits = self._operand_bits
        beyond = Signal()
        banks = Signal(2)
        half = cfg.acc_depth // 2
        top: dict[str, Signal] = {}
        for n in ("dst", "src", "wgt"):
            top[n] = Signal(2 * bits + 2, name=f"top_{n}")
            m.d.comb += top[n].eq(self._max[n] + self._offset[n])
        sram_base = self._load[0].sram_base
        end = Signal(2 * bits + 2)
        m.d.comb += end.eq(sram_base + self._offset["dst"])
        depth = Mux(self._is_uop_load, cfg.uop_depth, cfg.acc_depth)
        huge = (self._height >> bits).any() | (self._width >> bits).any()
        with m.If(self._is_load):
            m.d.comb += beyond.eq(huge | (end > depth))
            with m.If(~self._is_uop_load):
                m.d.comb += banks.eq(Cat(sram_base < half, end > half))
        with m.Elif(self._is_gemm):
            operands = (top["src"] >= cfg.inp_depth) | (top["wgt"] >= cfg.wgt_depth)
            m.d.comb += beyond.eq((top["dst"] >= cfg.acc_depth) | (~self._loop.reset & operands))
            m.d.comb += banks.eq(Cat(self._min["dst"] < half, top["dst"] >= half))
        with m.Else():
            reads = ~self._alu[1].use_imm
            m.d.comb += beyond.eq(
                (top["dst"] >= cfg.acc_depth) | (reads & (top["src"] >= cfg.acc_depth))
            )
            m.d.comb += banks.eq(
                Cat(self._min["dst"] < half, top["dst"] >= half)
                | Mux(reads, Cat(self._min["src"] < half, top["src"] >= half), 0)
            )
        cause = Signal(CAUSE_BITS)
        with m.If(self._illegal):
            m.d.comb += cause.eq(FaultCause.ILLEGAL_INSTRUCTION)
        with m.Elif(~self._empty & (self._uop_overrun | beyond)):
            m.d.comb += cause.eq(FaultCause.SCRATCHPAD)
        out = self.o.p
        self._verdict = Signal()
        with m.If(self._verdict):
            m.d.sync += [
                out.word.eq(self._taken.word),
                out.index.eq(self._taken.index),
                out.banks.eq(Mux(self._empty, 0, banks)),
                out.empty.eq(self._empty),
                out.uop_end.eq(end),
                out.cause.eq(cause),
            ]

    def _sequence(self, m: Module) -> None:
        ready = Signal()
        turns = Mux(self._is_load, 1, Mux(self._is_alu, 4, self.MULTIPLY_CYCLES))
        m.d.comb += [
            ready.eq(self._simple | ((self._turn >= turns) & (self._uops_done | self._is_load))),
            self._begin.eq(self.i.valid & self.i.ready),
        ]
        with m.FSM(name="scan"):
            with m.State("TAKE"):
                m.d.comb += [self.i.ready.eq(~self.halt), self.idle.eq(~self.i.valid)]
                with m.If(self._begin):
                    m.next = "SCAN"
            with m.State("SCAN"):
                m.d.comb += self._verdict.eq(ready)
                with m.If(ready):
                    m.d.sync += self.o.valid.eq(1)
                    m.next = "OFFER"
            with m.State("OFFER"):
                m.d.comb += self.i.ready.eq(self.o.ready & ~self.halt)
                with m.If(self.o.ready):
                    m.d.sync += self.o.valid.eq(0)
                    m.next = "TAKE"
                with m.If(self._begin):
                    m.next = "SCAN"
        with m.If(self._begin):
            m.d.sync += self._taken.eq(self.i.payload)
