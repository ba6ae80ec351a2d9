"""Scan: checks compute instructions ahead of time and finds out which acc banks they touch."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from covta.hw.faults import FaultCause
from covta.hw.isa import AluOp, InsnFormat, MemoryType, Opcode, isa
from covta.hw.microarchitecture import (
    SCAN_ALU_CYCLES,
    SCAN_GEMM_CYCLES,
    SCAN_LOAD_JUDGE_CYCLES,
    SCAN_LOOP_JUDGE_CYCLES,
)
from covta.hw.params import Config
from covta.hw.rtl.interfaces import CAUSE_BITS, INSN_LAYOUT, layout_of
from covta.hw.rtl.product import product


def verdict_layout(cfg: Config) -> data.StructLayout:
    """What is found out about an instruction.

    `banks` of acc that it touches, whether it is `empty`, `uop_end` of the micro-ops that a LOAD
    UOP writes (exclusive), the fault `cause` that it carries.
    """
    return data.StructLayout(
        {
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
    """Takes instructions in order, gives each on, and later its acc banks or its fault.

    Two stages, an instruction in each. The first reads the micro-ops and puts operands into the
    multipliers; the second waits for the last of both and judges. It has only what it judges by:
    who takes the instructions keeps them until their verdicts come.

    **Timing.** An instruction taken in cycle ``t`` leaves the first stage in ``x``, the cycle in
    which `insn` is taken and the next one may be, and its verdict is valid in ``x + 4`` if it is a
    loop that runs (not empty, `uop_end` within the scratchpad), ``x + 3`` if it is a LOAD that is
    not empty, else ``x + 2``. ``x`` is the first cycle with

    - ``x > t``; for a loop that runs ``x >= t + TURNS`` and not before its last micro-op is read:
      one a cycle from ``t + 1`` on, except while `hold` (the ALU owns the port) or `uop_pending`;
    - ``insn.ready``, and the verdict before valid in ``x`` or earlier.

    Members
    -------
    i : ``In(stream(INSN_LAYOUT))``
    insn : ``Out(stream(INSN_LAYOUT))``
    verdict : ``Out(stream(verdict_layout))``, of each of them in order, always accepted
    uop_addr, uop_en, uop_data : port B of the uop scratchpad
    hold : ``In(1)``, the port belongs to the ALU
    uop_pending : ``In(1)``, a LOAD UOP that left the first stage is not complete
    uop_load : ``Out(1)``, strobe, a LOAD UOP leaves the first stage
    halt, idle
    clock_request : ``Out(1)``, see `covta.hw.rtl.clocks`
    """

    GEMM_TURNS, ALU_TURNS = SCAN_GEMM_CYCLES, SCAN_ALU_CYCLES
    LOOP_JUDGE_CYCLES, LOAD_JUDGE_CYCLES = SCAN_LOOP_JUDGE_CYCLES, SCAN_LOAD_JUDGE_CYCLES

    def __init__(self, cfg: Config) -> None:
        self.cfg = cfg
        super().__init__(
            {
                "i": In(stream.Signature(INSN_LAYOUT)),
                "insn": Out(stream.Signature(INSN_LAYOUT)),
                "verdict": Out(stream.Signature(verdict_layout(cfg), always_ready=True)),
                "uop_addr": Out(cfg.log2_uop_depth),
                "uop_en": Out(1),
                "uop_data": In(cfg.uop_bits),
                "hold": In(1),
                "uop_pending": In(1),
                "uop_load": Out(1),
                "halt": In(1),
                "idle": Out(1),
                "clock_request": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        self._taken = Signal(INSN_LAYOUT, reset_less=True)
        self._begin = Signal()
        self._leave = Signal()
        self._decode(m)
        self._read_uops(m)
        self._multiply(m)
        self._sequence(m)
        self._check(m)
        return m

    def _words(self, insn: data.View) -> dict[str, list[data.View]]:
        """The instruction as each format reads it."""
        x = isa(self.cfg)
        formats = {"load": x.load, "gemm": x.gemm, "alu": x.alu}
        return {
            name: [data.View(layout_of(fmt.words[k]), insn.word[k]) for k in range(2)]
            for name, fmt in formats.items()
        }

    # ---- first stage -----------------------------------------------------------------------
    def _decode(self, m: Module) -> None:
        """Faults that need nothing else, and whether there is work."""
        cfg, x, insn = self.cfg, isa(self.cfg), self._taken
        views = self._words(insn)
        self._load, self._gemm, self._alu = views["load"], views["gemm"], views["alu"]
        opcode = insn.word[0][:3]
        self._is_load, self._is_gemm, self._is_alu, is_finish = (
            Signal(name=f"is_{n}") for n in ("load", "gemm", "alu", "finish")
        )
        m.d.comb += [
            self._is_load.eq(opcode == Opcode.LOAD),
            self._is_gemm.eq(opcode == Opcode.GEMM),
            self._is_alu.eq(opcode == Opcode.ALU),
            is_finish.eq(opcode == Opcode.FINISH),
        ]
        self._illegal = Signal()
        self._empty = Signal()
        self._overrun = Signal()
        memory_type = self._load[0].memory_type
        self._is_uop_load = Signal()
        m.d.comb += self._is_uop_load.eq(self._is_load & (memory_type == MemoryType.UOP))
        bad_type = (
            (memory_type != MemoryType.UOP)
            & (memory_type != MemoryType.ACC)
            & (memory_type != MemoryType.ACC_8BIT)
        )
        assert sorted(x.alu_ops) == list(range(max(x.alu_ops) + 1)), AluOp
        bad_alu = self._alu[1].alu_opcode > max(x.alu_ops)
        loop = self._loop = self._gemm[0]
        with m.If(self._is_load):
            m.d.comb += [
                self._illegal.eq(stray_bits(x.load, insn) | bad_type),
                self._empty.eq((self._load[1].x_size == 0) | (self._load[1].y_size == 0)),
            ]
        with m.Elif(self._is_gemm | self._is_alu):
            # the ALU's reset bit is part of the common word 0 and has no meaning
            stray = Mux(self._is_gemm, stray_bits(x.gemm, insn), stray_bits(x.alu, insn) | bad_alu)
            m.d.comb += [
                self._illegal.eq(stray),
                self._empty.eq(
                    (loop.iter_out == 0) | (loop.iter_in == 0) | (loop.uop_end <= loop.uop_bgn)
                ),
                self._overrun.eq(loop.uop_end > cfg.uop_depth),
            ]
        with m.Else():
            m.d.comb += [self._illegal.eq(~is_finish | stray_bits(x.finish, insn))]
            m.d.comb += self._empty.eq(1)

    def _read_uops(self, m: Module) -> None:
        """Greatest fields of the micro-ops, and whether one lies in the lower acc bank."""
        cfg = self.cfg
        uop = data.View(layout_of(isa(cfg).uop), self.uop_data)
        self._runs = Signal()
        reading = Signal()
        current, final = (
            Signal(cfg.log2_uop_depth, name=n, reset_less=True) for n in ("current", "final")
        )
        grant = Signal()
        last = Signal()
        first = Signal(reset_less=True)
        self._read = Signal()
        m.d.comb += [
            grant.eq(reading & ~self.hold & ~self.uop_pending),
            last.eq(current == final),
            self.uop_addr.eq(current),
            self.uop_en.eq(grant),
            self._read.eq(~reading | (grant & last)),
        ]
        arrives = Signal(2)
        arrives_first = Signal(2)
        m.d.sync += [
            arrives.eq(Cat(grant, arrives[0])),
            arrives_first.eq(Cat(first, arrives_first[0])),
        ]
        fields = {"dst": cfg.log2_acc_depth, "src": cfg.log2_src_depth, "wgt": cfg.log2_wgt_depth}
        self._max = {n: Signal(b, name=f"max_{n}", reset_less=True) for n, b in fields.items()}
        self._low = {n: Signal(name=f"low_{n}", reset_less=True) for n in ("dst", "src")}
        with m.If(arrives[1]):
            for n, greatest in self._max.items():
                with m.If(arrives_first[1] | (uop[n] > greatest)):
                    m.d.sync += greatest.eq(uop[n])
            for n, low in self._low.items():
                in_low = (uop[n] >> (cfg.log2_acc_depth - 1)) == 0
                m.d.sync += low.eq(in_low | (low & ~arrives_first[1]))
        with m.If(grant):
            m.d.sync += [current.eq(current + 1), first.eq(0)]
            with m.If(last):
                m.d.sync += reading.eq(0)
        with m.If(self._begin):
            taken = data.View(layout_of(isa(cfg).gemm.words[0]), self.i.p.word[0])
            runs = (
                ((taken.opcode == Opcode.GEMM) | (taken.opcode == Opcode.ALU))
                & (taken.iter_out != 0)
                & (taken.iter_in != 0)
                & (taken.uop_end > taken.uop_bgn)
                & (taken.uop_end <= cfg.uop_depth)
            )
            m.d.sync += [
                self._runs.eq(runs),
                reading.eq(runs),
                first.eq(1),
                current.eq(taken.uop_bgn),
                final.eq(taken.uop_end - 1),
            ]

    def _multiply(self, m: Module) -> None:
        """What the loops add to dst, src and wgt, in turns; a LOAD's height times width.

        Two multipliers, with registers for operands and products; in logic where the array has been
        fitted to a family, since the parts for it have just enough multipliers for that. Of a sum,
        as many bits are kept as the greatest scratchpad needs, and whether it is beyond that.
        """
        cfg = self.cfg
        depth_bits = max(
            cfg.log2_uop_depth, cfg.log2_acc_depth, cfg.log2_inp_depth, cfg.log2_wgt_depth
        )
        bits = max(14, depth_bits + 1)
        load1, gemm1, alu1 = self._load[1], self._gemm[1], self._alu[1]
        height = Signal(17)
        width = Signal(17)
        self._huge = Signal()
        m.d.comb += [
            height.eq(load1.y_size + load1.y_pad_0 + load1.y_pad_1),
            width.eq(load1.x_size + load1.x_pad_0 + load1.x_pad_1),
            self._huge.eq((height >> bits).any() | (width >> bits).any()),
        ]
        turn = self._turn = Signal(2, init=self.GEMM_TURNS)
        with m.If(self._begin):
            m.d.sync += turn.eq(0)
        with m.Elif(turn != self.GEMM_TURNS):
            m.d.sync += turn.eq(turn + 1)
        in_logic = cfg.dsp_pack or cfg.dsp_cell != "generic"
        products = []
        for level in ("out", "in"):
            a, b, value = (
                Signal(n, name=f"{name}_{level}", reset_less=True)
                for name, n in (("a", bits), ("b", bits), ("product", 2 * bits))
            )
            m.d.sync += [
                a.eq(self._loop[f"iter_{level}"] - 1),
                value.eq(product(m, f"product_{level}", a, b) if in_logic else a * b),
            ]
            factor = f"factor_{level}"
            with m.Switch(turn):
                for k, name in enumerate(("dst", "src")):
                    with m.Case(k):
                        field = f"{name}_{factor}"
                        m.d.sync += b.eq(Mux(self._is_alu, alu1[field], gemm1[field]))
                with m.Default():
                    m.d.sync += b.eq(gemm1[f"wgt_{factor}"])
            with m.If(self._is_load):
                if level == "out":
                    m.d.sync += [a.eq(height), b.eq(width)]
                else:
                    m.d.sync += b.eq(0)
            products.append(value)
        self._area = products[0]
        total = Signal(2 * bits + 1)
        m.d.comb += total.eq(products[0] + products[1])
        arrives = turn
        for k in range(2):
            following = Signal(2, name=f"turn_{k + 1}", init=self.GEMM_TURNS)
            m.d.sync += following.eq(arrives)
            arrives = following
        self._offset, self._over = {}, {}
        for k, n in enumerate(("dst", "src", "wgt")):
            self._offset[n] = Signal(depth_bits + 1, name=f"offset_{n}", reset_less=True)
            self._over[n] = Signal(name=f"over_{n}", reset_less=True)
            with m.If(arrives == k):
                m.d.sync += [
                    self._offset[n].eq(total),
                    self._over[n].eq((total >> len(self._offset[n])).any()),
                ]

    def _sequence(self, m: Module) -> None:
        """Take, leave the first stage, count down to the verdict, offer."""
        valid = Signal()
        judge = Signal(range(self.LOOP_JUDGE_CYCLES + 1))
        turns = Mux(self._is_gemm, self.GEMM_TURNS, self.ALU_TURNS)
        ready = ~self._runs | (self._read & (self._turn >= turns - 1))
        self._judge = Signal()
        load_cycles = Mux(self._is_load & ~self._empty, self.LOAD_JUDGE_CYCLES, 1)
        m.d.comb += [
            self.insn.valid.eq(valid & ready & (judge == 0)),
            self.insn.payload.eq(self._taken),
            self._leave.eq(self.insn.valid & self.insn.ready),
            self.i.ready.eq(~self.halt & (~valid | self._leave)),
            self._begin.eq(self.i.valid & self.i.ready),
            self._judge.eq(judge == 1),
            self.idle.eq(~valid & (judge == 0) & ~self.verdict.valid & ~self.i.valid),
            self.uop_load.eq(self._leave & self._is_uop_load & ~self._empty),
            # It stands still when empty, and when the first stage is ready and waits to be taken.
            self.clock_request.eq(
                self._begin | self._leave | (valid & ~ready) | (judge != 0) | self.verdict.valid
            ),
        ]
        with m.If(self._leave):
            m.d.sync += [
                valid.eq(0),
                judge.eq(Mux(self._runs, self.LOOP_JUDGE_CYCLES, load_cycles)),
            ]
        with m.Elif(judge != 0):
            m.d.sync += judge.eq(judge - 1)
        m.d.sync += self.verdict.valid.eq(self._judge)
        with m.If(self._begin):
            m.d.sync += [valid.eq(1), self._taken.eq(self.i.payload)]

    # ---- second stage ----------------------------------------------------------------------
    def _check(self, m: Module) -> None:
        """The verdict."""
        cfg = self.cfg
        out = self.verdict.p
        illegal, overrun, huge, is_load, is_gemm, is_uop_load, reads = (
            Signal(name=f"judged_{n}", reset_less=True)
            for n in ("illegal", "overrun", "huge", "is_load", "is_gemm", "is_uop_load", "reads")
        )
        sram_base = Signal.like(self._load[0].sram_base, name="judged_base", reset_less=True)
        with m.If(self._leave):
            m.d.sync += [
                out.empty.eq(self._empty),
                illegal.eq(self._illegal),
                overrun.eq(self._overrun),
                huge.eq(self._huge),
                is_load.eq(self._is_load),
                is_gemm.eq(self._is_gemm),
                is_uop_load.eq(self._is_uop_load),
                # operands besides dst
                reads.eq(Mux(self._is_gemm, ~self._gemm[0].reset, ~self._alu[1].use_imm)),
                sram_base.eq(self._load[0].sram_base),
            ]
        beyond = Signal()
        banks = Signal(2)
        half = cfg.acc_depth // 2

        def top(n: str, depth: int) -> tuple[object, object]:
            """The greatest index of an operand is beyond the scratchpad; is in its upper half."""
            total = Signal(len(self._offset[n]) + 1, name=f"top_{n}_{depth}")
            m.d.comb += total.eq(self._max[n] + self._offset[n])
            log2_depth = depth.bit_length() - 1
            return self._over[n] | (total >> log2_depth).any(), total[log2_depth - 1]

        dst_beyond, dst_high = top("dst", cfg.acc_depth)
        inp_beyond, _ = top("src", cfg.inp_depth)
        src_beyond, src_high = top("src", cfg.acc_depth)
        wgt_beyond, _ = top("wgt", cfg.wgt_depth)
        kept_bits = max(len(sram_base), cfg.log2_uop_depth + 1)
        end = Signal(kept_bits + 1)
        m.d.comb += end.eq(sram_base + self._area[:kept_bits])
        with m.If(is_load):
            depth = Mux(is_uop_load, cfg.uop_depth, cfg.acc_depth)
            m.d.comb += beyond.eq(huge | (self._area >> kept_bits).any() | (end > depth))
            with m.If(~is_uop_load):
                m.d.comb += banks.eq(Cat(sram_base < half, end > half))
        with m.Elif(is_gemm):
            m.d.comb += beyond.eq(dst_beyond | (reads & (inp_beyond | wgt_beyond)))
            m.d.comb += banks.eq(Cat(self._low["dst"], dst_high))
        with m.Else():
            m.d.comb += beyond.eq(dst_beyond | (reads & src_beyond))
            m.d.comb += banks.eq(
                Cat(self._low["dst"], dst_high) | Mux(reads, Cat(self._low["src"], src_high), 0)
            )
        cause = Signal(CAUSE_BITS)
        with m.If(illegal):
            m.d.comb += cause.eq(FaultCause.ILLEGAL_INSTRUCTION)
        with m.Elif(~out.empty & (overrun | beyond)):
            m.d.comb += cause.eq(FaultCause.SCRATCHPAD)
        with m.If(self._judge):
            m.d.sync += [
                out.banks.eq(Mux(out.empty, 0, banks)),
                out.uop_end.eq(end),
                out.cause.eq(cause),
            ]
