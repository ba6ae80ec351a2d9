"""The compute unit: scan, dispatch to GEMM, ALU and Loader, retirement in program order."""

from __future__ import annotations

from amaranth.hdl import Cat, DomainRenamer, Module, Mux, Signal
from amaranth.lib import data, enum, stream, wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out

from covta.hw.faults import FaultCause
from covta.hw.isa import MemoryType, Opcode, isa
from covta.hw.microarchitecture import COMPUTE_RETIRE_DEPTH as RETIRE_DEPTH
from covta.hw.microarchitecture import GEMM_DRAIN_CYCLES, SCANNED_DEPTH
from covta.hw.params import Config
from covta.hw.rtl.alu import AluEngine
from covta.hw.rtl.clocks import COMPUTE_CLOCKS
from covta.hw.rtl.gemm import GemmEngine
from covta.hw.rtl.interfaces import (
    FAULT_LAYOUT,
    INDEX_BITS,
    INSN_LAYOUT,
    MEMORY_TYPES,
    ReadClient,
    layout_of,
)
from covta.hw.rtl.loader import Loader
from covta.hw.rtl.scan import Scan, verdict_layout
from covta.hw.rtl.scratchpads import AccScratchpad, UopScratchpad


class Engine(enum.Enum, shape=2):
    """Where an instruction executes."""

    NONE = 0
    GEMM = 1
    ALU = 2
    LOADER = 3


class ComputeUnit(wiring.Component):
    """Executes the compute queue.

    Dispatch is combinational on the head of the scanned queue; an instruction dispatched in
    cycle ``d`` starts its engine in ``d + 1``. Tokens are popped in ``d``. Pushes happen in the
    cycle in which the instruction retires: the cycle after its engine's `done` at the earliest,
    one a cycle, in program order; an instruction without work retires in ``d + 1`` at the
    earliest.

    Members
    -------
    insn : ``In(stream(INSN_LAYOUT))``
    base_ptr, window_base, window_last : configuration
    client : ``Out(ReadClient)``
    inp_addr, inp_data, wgt_addr, wgt_data : the load unit's scratchpads
    out_addr, out_en, out_data : the store unit's port of the out scratchpad
    pop_prev_ready, pop_next_ready, pop_prev, pop_next, push_prev, push_next, push_index : tokens
    finished : strobe, a FINISH retires
    fault, halt, idle
    head_valid, head_index : the oldest instruction not dispatched (watchdog report)
    progress, gemm_busy, alu_busy, loader_busy, token_stall, hazard_stall : counters
    clock_request : see `covta.hw.rtl.clocks`
    """

    def __init__(self, cfg: Config) -> None:
        self.cfg = cfg
        flags = dict.fromkeys(
            (
                "pop_prev",
                "pop_next",
                "push_prev",
                "push_next",
                "finished",
                "idle",
                "head_valid",
                "progress",
                "gemm_busy",
                "alu_busy",
                "loader_busy",
                "token_stall",
                "hazard_stall",
            ),
            Out(1),
        )
        addr_bits = cfg.bus.addr_bits
        super().__init__(
            {
                "insn": In(stream.Signature(INSN_LAYOUT)),
                "base_ptr": In(data.ArrayLayout(addr_bits, MEMORY_TYPES)),
                "window_base": In(addr_bits),
                "window_last": In(addr_bits),
                "client": Out(ReadClient(cfg)),
                "inp_addr": Out(cfg.log2_inp_depth),
                "inp_data": In(cfg.inp_elem_bits),
                "wgt_addr": Out(cfg.log2_wgt_depth),
                "wgt_data": In(cfg.wgt_elem_bits),
                "out_en": In(1),
                "out_addr": In(cfg.log2_acc_depth),
                "out_data": Out(cfg.out_elem_bits),
                "pop_prev_ready": In(1),
                "pop_next_ready": In(1),
                "push_index": Out(INDEX_BITS),
                "fault": Out(FAULT_LAYOUT),
                "halt": In(1),
                "head_index": Out(INDEX_BITS),
                "clock_request": Out(data.StructLayout(dict.fromkeys(COMPUTE_CLOCKS, 1))),
                **flags,
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        cfg = self.cfg
        self._scan = Scan(cfg)
        # Scanned instructions, and what was found out about them; the verdict comes later.
        self._insns = SyncFIFO(width=INSN_LAYOUT.size, depth=SCANNED_DEPTH)
        self._verdicts = SyncFIFO(width=verdict_layout(cfg).size, depth=SCANNED_DEPTH)
        m.submodules.scan = DomainRenamer("scan")(self._scan)
        m.submodules.scanned_insns = DomainRenamer("scan")(self._insns)
        m.submodules.verdicts = DomainRenamer("scan")(self._verdicts)
        m.submodules.gemm = self._gemm = GemmEngine(cfg)
        self._alu = AluEngine(cfg)
        m.submodules.alu = DomainRenamer("alu")(self._alu)
        self._loader = Loader(cfg, (MemoryType.UOP, MemoryType.ACC, MemoryType.ACC_8BIT))
        m.submodules.loader = DomainRenamer("loader")(self._loader)
        m.submodules.uops = self._uops = UopScratchpad(cfg)
        m.submodules.acc = self._acc = AccScratchpad(cfg)
        m.submodules.retire = self._retire = SyncFIFO(width=5 + INDEX_BITS, depth=RETIRE_DEPTH)
        self._connect_memories(m)
        self._connect_scan(m)
        self._classify_head(m)
        self._track_banks(m)
        self._dispatch(m)
        self._start_engines(m)
        self._retire_in_order(m)
        return m

    # ---- wiring ----------------------------------------------------------------------------
    def _connect_memories(self, m: Module) -> None:
        gemm, alu, loader, acc, uops, scan = (
            self._gemm,
            self._alu,
            self._loader,
            self._acc,
            self._uops,
            self._scan,
        )
        wiring.connect(m, wiring.flipped(self.client), loader.client)
        wiring.connect(m, loader.uop, uops.write)
        wiring.connect(m, loader.acc, acc.load)
        m.d.comb += [
            uops.a_addr.eq(gemm.uop_addr),
            gemm.uop_data.eq(uops.a_data),
            uops.b_en.eq(Mux(alu.uop_hold, alu.uop_en, scan.uop_en)),
            uops.b_addr.eq(Mux(alu.uop_hold, alu.uop_addr, scan.uop_addr)),
            alu.uop_data.eq(uops.b_data),
            scan.uop_data.eq(uops.b_data),
            scan.hold.eq(alu.uop_hold),
            self.inp_addr.eq(gemm.inp_addr),
            gemm.inp_data.eq(self.inp_data),
            self.wgt_addr.eq(gemm.wgt_addr),
            gemm.wgt_data.eq(self.wgt_data),
            acc.out_en.eq(self.out_en),
            acc.out_addr.eq(self.out_addr),
            self.out_data.eq(acc.out_data),
            acc.alu_imm_en.eq(alu.imm_en),
            acc.alu_imm.eq(alu.imm),
            loader.base_ptr.eq(self.base_ptr),
            loader.window_base.eq(self.window_base),
            loader.window_last.eq(self.window_last),
            loader.halt.eq(self.halt),
        ]
        m.d.comb += [
            acc.gemm_rd_en.eq(gemm.rd_en),
            acc.gemm_out_en.eq(gemm.out_en),
            acc.gemm_out_addr.eq(gemm.out_addr),
            acc.gemm_out_data.eq(gemm.out_data),
        ]
        for engine, port in (("gemm", gemm), ("alu", alu)):
            m.d.comb += [
                getattr(acc, f"{engine}_rd_addr").eq(port.rd_addr),
                port.rd_data.eq(getattr(acc, f"{engine}_rd_data")),
                getattr(acc, f"{engine}_wr_en").eq(port.wr_en),
                getattr(acc, f"{engine}_wr_addr").eq(port.wr_addr),
                getattr(acc, f"{engine}_wr_data").eq(port.wr_data),
            ]

    def _connect_scan(self, m: Module) -> None:
        scan, insns, verdicts = self._scan, self._insns, self._verdicts
        wiring.connect(m, wiring.flipped(self.insn), scan.i)
        m.d.comb += [
            insns.w_data.eq(scan.insn.payload),
            insns.w_en.eq(scan.insn.valid),
            scan.insn.ready.eq(insns.w_rdy),
            verdicts.w_data.eq(scan.verdict.payload),
            verdicts.w_en.eq(scan.verdict.valid),
            scan.halt.eq(self.halt),
        ]
        # LOAD UOP between scan and completion: later micro-ops must not be read yet.
        pending = Signal(range(SCANNED_DEPTH + RETIRE_DEPTH + 3))
        self._uop_done = Signal()
        m.d.sync += pending.eq(pending + scan.uop_load - self._uop_done)
        m.d.comb += scan.uop_pending.eq(pending != 0)

    # ---- the head of the scanned queue -----------------------------------------------------
    def _classify_head(self, m: Module) -> None:
        x = isa(self.cfg)
        self._head = head = Signal(INSN_LAYOUT)
        self._verdict = verdict = Signal(verdict_layout(self.cfg))
        m.d.comb += [head.eq(self._insns.r_data), verdict.eq(self._verdicts.r_data)]
        self._load = [data.View(layout_of(x.load.words[k]), head.word[k]) for k in range(2)]
        self._gemm_words = [data.View(layout_of(x.gemm.words[k]), head.word[k]) for k in range(2)]
        self._alu_words = [data.View(layout_of(x.alu.words[k]), head.word[k]) for k in range(2)]
        opcode = head.word[0][:3]
        self._engine = engine = Signal(Engine)
        with m.If(verdict.empty | (opcode == Opcode.FINISH)):
            m.d.comb += engine.eq(Engine.NONE)
        with m.Elif(opcode == Opcode.GEMM):
            m.d.comb += engine.eq(Engine.GEMM)
        with m.Elif(opcode == Opcode.ALU):
            m.d.comb += engine.eq(Engine.ALU)
        with m.Else():
            m.d.comb += engine.eq(Engine.LOADER)
        self._is_uop_load = Signal()
        m.d.comb += self._is_uop_load.eq(
            (engine == Engine.LOADER) & (self._load[0].memory_type == MemoryType.UOP)
        )
        m.d.comb += [self.head_valid.eq(self._verdicts.r_rdy), self.head_index.eq(head.index)]

    def _track_banks(self, m: Module) -> None:
        """Banks that each engine still works on."""
        gemm, alu = self._gemm, self._alu
        self._go = {e: Signal(name=f"go_{e.name.lower()}") for e in Engine}
        banks = self._verdict.banks
        # GEMM: the instruction that issues, and those that drain.
        issuing = Signal(2)
        draining = Signal(2)
        timer = Signal(range(GEMM_DRAIN_CYCLES + 1))
        with m.If(self._go[Engine.GEMM]):
            m.d.sync += issuing.eq(banks)
        with m.Elif(gemm.last):
            m.d.sync += issuing.eq(0)
        with m.If(gemm.last):
            m.d.sync += timer.eq(GEMM_DRAIN_CYCLES)
            m.d.sync += draining.eq(issuing | Mux(timer > 1, draining, 0))
        with m.Elif(timer != 0):
            m.d.sync += timer.eq(timer - 1)
            with m.If(timer == 1):
                m.d.sync += draining.eq(0)
        # ALU: the instruction that came last, and those before it until all of them are done.
        newest = Signal(2)
        older = Signal(2)
        started, left = (Signal(range(RETIRE_DEPTH + 1), name=n) for n in ("started", "left"))
        m.d.comb += left.eq(started - alu.done)
        m.d.sync += started.eq(left + self._go[Engine.ALU])
        with m.If(self._go[Engine.ALU]):
            m.d.sync += [
                newest.eq(banks),
                older.eq(Mux(left != 0, newest, 0) | Mux(left > 1, older, 0)),
            ]
        with m.Else():
            with m.If(left == 0):
                m.d.sync += newest.eq(0)
            with m.If(left <= 1):
                m.d.sync += older.eq(0)
        # Loader: all since it last had nothing in flight.
        in_flight = Signal(range(RETIRE_DEPTH + 1))
        loader_banks = Signal(2)
        done = self._loader.done
        go = self._go[Engine.LOADER]
        m.d.sync += in_flight.eq(in_flight + go - done)
        none_left = (in_flight == 0) | ((in_flight == 1) & done)
        with m.If(go):
            m.d.sync += loader_banks.eq(Mux(none_left, 0, loader_banks) | banks)
        with m.Elif(none_left):
            m.d.sync += loader_banks.eq(0)
        m.submodules.load_kinds = kinds = SyncFIFO(width=1, depth=RETIRE_DEPTH)
        m.d.comb += [
            kinds.w_data.eq(self._is_uop_load),
            kinds.w_en.eq(go),
            kinds.r_en.eq(done),
            self._uop_done.eq(done & kinds.r_data),
        ]
        self._taken = {
            Engine.GEMM: issuing | draining,
            Engine.ALU: newest | older,
            Engine.LOADER: loader_banks,
        }

    # ---- dispatch --------------------------------------------------------------------------
    def _dispatch(self, m: Module) -> None:
        head, verdict, gemm, alu = self._head, self._verdict, self._gemm, self._alu
        flags = self._load[0]
        tokens = Signal()
        engine_ready = Signal()
        hazard = Signal()
        m.d.comb += tokens.eq(
            (~flags.pop_prev | self.pop_prev_ready) & (~flags.pop_next | self.pop_next_ready)
        )
        overlap = (gemm.uop_bgn < verdict.uop_end) & (self._load[0].sram_base < gemm.uop_end)
        with m.Switch(self._engine):
            with m.Case(Engine.NONE):
                m.d.comb += engine_ready.eq(1)
            with m.Case(Engine.GEMM):
                m.d.comb += engine_ready.eq(gemm.start.ready)
                busy = self._taken[Engine.ALU] | self._taken[Engine.LOADER]
                m.d.comb += hazard.eq((verdict.banks & busy).any())
            with m.Case(Engine.ALU):
                m.d.comb += engine_ready.eq(alu.start.ready)
                busy = self._taken[Engine.GEMM] | self._taken[Engine.LOADER]
                m.d.comb += hazard.eq((verdict.banks & busy).any())
            with m.Case(Engine.LOADER):
                m.d.comb += engine_ready.eq(self._loader.i.ready)
                busy = self._taken[Engine.GEMM] | self._taken[Engine.ALU]
                uop_hazard = alu.busy | (gemm.active & overlap)
                m.d.comb += hazard.eq(
                    (verdict.banks & busy).any() | (self._is_uop_load & uop_hazard)
                )
        valid = Signal()
        faulty = verdict.cause != FaultCause.NONE
        go = Signal()
        m.d.comb += [
            valid.eq(self._verdicts.r_rdy & ~self.halt & self._retire.w_rdy),
            go.eq(valid & ~faulty & tokens & engine_ready & ~hazard),
            self._insns.r_en.eq(go),
            self._verdicts.r_en.eq(go),
            self.pop_prev.eq(go & flags.pop_prev),
            self.pop_next.eq(go & flags.pop_next),
            self.token_stall.eq(valid & ~faulty & ~tokens),
            self.hazard_stall.eq(valid & ~faulty & tokens & engine_ready & hazard),
            self._retire.w_en.eq(go),
            self._retire.w_data.eq(
                Cat(
                    self._engine.as_value(),
                    flags.push_prev,
                    flags.push_next,
                    flags.opcode == Opcode.FINISH,
                    head.index,
                )
            ),
        ]
        for e in Engine:
            m.d.comb += self._go[e].eq(go & (self._engine == e))
        loader_fault = self._loader.fault
        scan_fault = valid & faulty & tokens & ~self._retire.r_rdy
        m.d.comb += [
            self.fault.valid.eq(scan_fault | loader_fault.valid),
            self.fault.cause.eq(Mux(loader_fault.valid, loader_fault.cause, verdict.cause)),
            self.fault.index.eq(Mux(loader_fault.valid, loader_fault.index, head.index)),
        ]
        self._dispatched = go

    def _start_engines(self, m: Module) -> None:
        gemm, alu, loader = self._gemm, self._alu, self._loader
        m.d.comb += [
            gemm.start.valid.eq(self._go[Engine.GEMM]),
            alu.start.valid.eq(self._go[Engine.ALU]),
            loader.i.valid.eq(self._go[Engine.LOADER]),
            loader.i.p.index.eq(self._head.index),
        ]
        x = isa(self.cfg)
        for fmt, words, payload in (
            (x.gemm, self._gemm_words, gemm.start.p),
            (x.alu, self._alu_words, alu.start.p),
            (x.load, self._load, loader.i.p),
        ):
            for field in payload.shape().members:
                if field in fmt.fields:
                    m.d.comb += payload[field].eq(words[fmt.fields[field][0]][field])

    # ---- retirement ------------------------------------------------------------------------
    def _retire_in_order(self, m: Module) -> None:
        retire = self._retire
        strobes = {
            Engine.GEMM: self._gemm.done,
            Engine.ALU: self._alu.done,
            Engine.LOADER: self._loader.done,
        }
        engine = Signal(Engine)
        push_prev = Signal()
        push_next = Signal()
        finish = Signal()
        m.d.comb += Cat(engine.as_value(), push_prev, push_next, finish, self.push_index).eq(
            retire.r_data
        )
        complete = Signal()
        now = Signal()
        with m.Switch(engine):
            with m.Case(Engine.NONE):
                m.d.comb += complete.eq(1)
            for e, strobe in strobes.items():
                done = Signal(range(RETIRE_DEPTH + 1), name=f"done_{e.name.lower()}")
                with m.Case(e):
                    m.d.comb += complete.eq(done != 0)
                taken = Signal(name=f"taken_{e.name.lower()}")
                m.d.comb += taken.eq(now & (engine == e))
                m.d.sync += done.eq(done + strobe - taken)
        m.d.comb += [
            now.eq(retire.r_rdy & complete & ~self.halt),
            retire.r_en.eq(now),
            self.push_prev.eq(now & push_prev),
            self.push_next.eq(now & push_next),
            self.finished.eq(now & finish),
            self.idle.eq(self._scan.idle & ~self._verdicts.r_rdy & ~retire.r_rdy),
            self.gemm_busy.eq(self._gemm.active),
            self.alu_busy.eq(self._alu.busy),
            self.loader_busy.eq(self._loader.busy),
        ]
        request, loader = self.clock_request, self._loader
        m.d.comb += [
            request.scan.eq(self._scan.clock_request | self._dispatched),
            request.loader.eq(loader.i.valid | loader.busy),
            request.alu.eq(self._alu.clock_request),
            request.acc.eq(request.loader | request.alu),
        ]
        # A cycle late: the watchdog can wait, and this is the end of long paths.
        m.d.sync += self.progress.eq(self._dispatched | now | self._gemm.active | self._alu.issue)
