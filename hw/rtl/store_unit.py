"""The store unit: elements of the out scratchpad to DRAM, in order, many bursts in flight."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from covta.hw.faults import FaultCause
from covta.hw.isa import MemoryType, Opcode, isa
from covta.hw.microarchitecture import STORE_ELEM_DEPTH as ELEM_DEPTH
from covta.hw.microarchitecture import STORE_OUT_LATENCY_CYCLES as OUT_LATENCY_CYCLES
from covta.hw.microarchitecture import STORE_RETIRE_DEPTH as RETIRE_DEPTH
from covta.hw.params import Config, log2_exact
from covta.hw.rtl.burst_generator import SIZE_BITS, BurstGenerator, saturate
from covta.hw.rtl.interfaces import (
    FAULT_LAYOUT,
    INDEX_BITS,
    INSN_LAYOUT,
    MEMORY_TYPES,
    burst_layout,
    layout_of,
)
from covta.hw.rtl.product import product
from covta.hw.rtl.write_engine import write_beat_layout

SLOT_BITS = (RETIRE_DEPTH - 1).bit_length()
"""What names one of them inside the unit; its index in the stream is kept once."""


def checked_layout(cfg: Config) -> data.StructLayout:
    """An instruction that went through the check stage.

    `elems` is at most ``acc_depth`` unless `beyond`: an index reaches the depth. `empty` moves
    nothing; `addr` has the overflow bit on top.
    """
    size_bits = _size_bits(cfg)
    return data.StructLayout(
        {
            "pop_prev": 1,
            "push_prev": 1,
            "illegal": 1,
            "beyond": 1,
            "empty": 1,
            "sram_base": cfg.log2_acc_depth,
            "elems_m1": cfg.log2_acc_depth,
            "addr": cfg.bus.addr_bits + 1,
            "rows": SIZE_BITS,
            "row_bytes": size_bits,
            "stride_bytes": size_bits,
            "index": INDEX_BITS,
        }
    )


def _size_bits(cfg: Config) -> int:
    return SIZE_BITS + log2_exact(cfg.out_elem_bytes)


class StoreUnit(wiring.Component):
    """Executes the store queue.

    Timing:

    - *Check.* Two cycles in front of dispatch. An instruction at the head of the queue in ``q``
      (and the one before it taken in an earlier cycle) can be taken from ``q + 1`` on, when the
      check register is empty or left. One taken in ``q + 1`` can be dispatched from ``q + 2`` on.
    - *Dispatch* in ``d``: legal, token there (taken in ``d``), fewer than `RETIRE_DEPTH`
      instructions in flight; not `halt`. In flight: dispatched in an earlier cycle and not retired
      in one. It leaves the check register in ``d`` if it is empty, else in the cycle in which the
      burst generator takes its last row.
    - *Bursts*: offered to `BurstGenerator` from ``d`` on; its bursts go to `request`.
    - *Read*: elements of all instructions in order, one a cycle, from ``d + 1`` on, while fewer
      than `ELEM_DEPTH` are held; an element is held from the cycle after its address is given
      (``r``) up to and including the cycle in which its last beat leaves. Its first beat can leave
      in ``r + 3``.
    - *Beats* leave through `data`, in order, one a cycle, when the burst they belong to was
      accepted at `request` in an earlier cycle. So a beat leaves in ``d + 4`` at the earliest.
    - *Retire*, in order, one a cycle: an empty instruction from ``d + 1`` on; another from the
      cycle after the response to its last burst on; not while `halt`. The token is pushed in that
      cycle.

    Faults, valid from the cycle after the check until reset, in this order if they coincide:
    BUS_ERROR at a response with error; DRAM_WINDOW from the burst generator; ILLEGAL_INSTRUCTION or
    SCRATCHPAD when an instruction reaches dispatch, its token is there and nothing is in flight.
    A faulty instruction is not dispatched and takes no token.

    Under `halt` the beats of every burst accepted at `request` still leave.

    Members
    -------
    insn : ``In(stream(INSN_LAYOUT))``
    base_ptr, window_base, window_last : configuration
    out_addr, out_en, out_data : read port of the out scratchpad, latency 2
    request, data, response, error : the write engine's client port
    pop_prev_ready, pop_prev, push_prev, push_index : tokens
    busy : ``Out(1)``, an instruction is in flight
    token_stall : ``Out(1)``, the next instruction is legal and has room in flight, but no token
    retired : ``Out(1)``, strobe
    head_index : ``Out(24)``, the oldest instruction in flight or checked, 0 if there is none; any
        with a fault
    fault : ``Out(FAULT_LAYOUT)``
    halt : ``In(1)``
    idle : ``Out(1)``, nothing checked or in flight (`insn` may offer more)
    clock_request : ``Out(1)``, see `covta.hw.rtl.clocks`
    """

    def __init__(self, cfg: Config) -> None:
        self.cfg = cfg
        addr_bits = cfg.bus.addr_bits
        flags = ("pop_prev", "push_prev", "busy", "token_stall", "retired", "idle", "clock_request")
        super().__init__(
            {
                "insn": In(stream.Signature(INSN_LAYOUT)),
                "base_ptr": In(data.ArrayLayout(addr_bits, MEMORY_TYPES)),
                "window_base": In(addr_bits),
                "window_last": In(addr_bits),
                "out_addr": Out(cfg.log2_acc_depth),
                "out_en": Out(1),
                "out_data": In(cfg.out_elem_bits),
                "request": Out(stream.Signature(burst_layout(cfg))),
                "data": Out(stream.Signature(write_beat_layout(cfg))),
                "response": In(1),
                "error": In(1),
                "pop_prev_ready": In(1),
                "push_index": Out(INDEX_BITS),
                "head_index": Out(INDEX_BITS),
                "fault": Out(FAULT_LAYOUT),
                "halt": In(1),
                **dict.fromkeys(flags, Out(1)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        cfg = self.cfg
        m.submodules.bursts = self._bursts = BurstGenerator(
            cfg,
            size_bits=_size_bits(cfg),
            granule_bytes=cfg.bus_bytes,
            index_bits=SLOT_BITS,
        )
        m.submodules.reads = self._reads = SyncFIFO(
            width=2 * cfg.log2_acc_depth, depth=RETIRE_DEPTH
        )
        m.submodules.elems = self._elems = SyncFIFO(width=cfg.out_elem_bits + 1, depth=ELEM_DEPTH)
        m.submodules.lengths = self._lengths = SyncFIFO(width=8, depth=cfg.bus.max_outstanding)
        m.submodules.answers = self._answers = SyncFIFO(width=1, depth=cfg.bus.max_outstanding)
        m.submodules.answering = self._answering = SyncFIFO(width=SLOT_BITS, depth=RETIRE_DEPTH)
        m.submodules.retire = self._retire = SyncFIFO(width=2, depth=RETIRE_DEPTH)
        self._check(m)
        self._dispatch(m)
        self._read(m)
        self._send(m)
        self._answer(m)
        self._report(m)
        return m

    # ---- check -----------------------------------------------------------------------------
    def _check(self, m: Module) -> None:
        """The head's number of elements, then all that dispatch needs of it."""
        cfg = self.cfg
        fmt = isa(cfg).store
        insn = self.insn
        self._checked_valid = Signal()
        self._leaves = Signal()
        self._checked = checked = Signal(checked_layout(cfg))
        word0, word1 = (data.View(layout_of(fmt.words[k]), insn.p.word[k]) for k in range(2))

        # Sizes above the depth are told by themselves: as many rows fewer in the product, of which
        # each half takes a register.
        depth_bits = cfg.log2_acc_depth
        width, height = (word1[n][: depth_bits + 1] for n in ("x_size", "y_size"))
        cut = len(height) // 2
        counted = Signal()
        huge = Signal()
        halves = []
        for name, rows in (("low", height[:cut]), ("high", height[cut:])):
            half = Signal(len(width) + len(rows), name=f"{name}_count", reset_less=True)
            m.d.sync += half.eq(product(m, f"count_{name}", width, rows))
            halves.append(half)
        elems = Signal(2 * depth_bits + 2)
        many = Signal()
        m.d.sync += huge.eq((word1.x_size > cfg.acc_depth) | (word1.y_size > cfg.acc_depth))
        m.d.comb += [
            elems.eq(halves[0] + (halves[1] << cut)),
            many.eq(huge | elems[depth_bits + 1 :].any()),
        ]
        m.d.comb += insn.ready.eq(counted & (~self._checked_valid | self._leaves) & ~self.halt)
        with m.If(insn.ready):
            m.d.sync += counted.eq(0)
        with m.Elif(insn.valid):
            m.d.sync += counted.eq(1)

        stray = [insn.p.word[k] & (~fmt.words[k].used_mask & (1 << 64) - 1) for k in range(2)]
        pads = Cat(word1[n] for n in ("y_pad_0", "y_pad_1", "x_pad_0", "x_pad_1"))
        illegal = (
            (stray[0] | stray[1]).any()
            | (word0.opcode != Opcode.STORE)
            | (word0.memory_type != MemoryType.OUT)
            | word0.pop_next
            | word0.push_next
            | pads.any()
        )
        log2_bytes = log2_exact(cfg.out_elem_bytes)
        with m.If(insn.ready):
            m.d.sync += [
                self._checked_valid.eq(1),
                checked.pop_prev.eq(word0.pop_prev),
                checked.push_prev.eq(word0.push_prev),
                checked.illegal.eq(illegal),
                checked.beyond.eq(
                    many | (word0.sram_base + elems[: depth_bits + 1] > cfg.acc_depth)
                ),
                checked.empty.eq((word1.x_size == 0) | (word1.y_size == 0)),
                checked.sram_base.eq(word0.sram_base),
                checked.elems_m1.eq(elems - 1),
                checked.addr.eq(
                    saturate(
                        self.base_ptr[MemoryType.OUT] + (word0.dram_base << log2_bytes),
                        cfg.bus.addr_bits,
                    )
                ),
                checked.rows.eq(word1.y_size),
                checked.row_bytes.eq(word1.x_size << log2_bytes),
                checked.stride_bytes.eq(word1.x_stride << log2_bytes),
                checked.index.eq(insn.p.index),
            ]
        with m.Elif(self._leaves):
            m.d.sync += self._checked_valid.eq(0)
        m.d.comb += [
            self.idle.eq(~self._checked_valid & ~self._retire.r_rdy),
            # It stands still with all of them settled: nothing in flight, what is checked waits
            # for its token, what comes next is counted.
            self.clock_request.eq(
                self._retire.r_rdy
                | (self._checked_valid & ~self.token_stall)
                | (insn.valid & ~counted)
                | insn.ready
            ),
        ]

    # ---- dispatch --------------------------------------------------------------------------
    def _dispatch(self, m: Module) -> None:
        checked, bursts, retire = self._checked, self._bursts, self._retire
        faulty = Signal()
        token = Signal()
        candidate = Signal()
        go = Signal()
        dispatched = Signal()
        self._slot = Signal(SLOT_BITS)
        m.d.comb += [
            faulty.eq(checked.illegal | (checked.beyond & ~checked.empty)),
            token.eq(~checked.pop_prev | self.pop_prev_ready),
            candidate.eq(self._checked_valid & ~dispatched & ~faulty & retire.w_rdy & ~self.halt),
            go.eq(candidate & token),
            self._leaves.eq(Mux(dispatched, bursts.i.ready, go & checked.empty)),
            self.pop_prev.eq(go & checked.pop_prev),
            self.token_stall.eq(candidate & ~token),
            bursts.i.valid.eq(dispatched | (go & ~checked.empty)),
            bursts.window_base.eq(self.window_base),
            bursts.window_last.eq(self.window_last),
            bursts.halt.eq(self.halt),
            retire.w_en.eq(go),
            retire.w_data.eq(Cat(checked.push_prev, checked.empty)),
            self._reads.w_en.eq(go & ~checked.empty),
            self._reads.w_data.eq(Cat(checked.sram_base, checked.elems_m1)),
            self._answering.w_en.eq(go & ~checked.empty),
            self._answering.w_data.eq(self._slot),
        ]
        with m.If(dispatched):
            m.d.sync += dispatched.eq(~bursts.i.ready)
        with m.Else():
            m.d.sync += dispatched.eq(go & ~checked.empty)
        for name in ("addr", "rows", "row_bytes", "stride_bytes"):
            m.d.comb += bursts.i.p[name].eq(checked[name])
        # The generator reads its transfer after its dispatch.
        m.d.comb += bursts.i.p.index.eq(self._slot - 1)
        m.d.sync += self._slot.eq(self._slot + go)
        self._faulty = Signal()
        m.d.comb += self._faulty.eq(
            self._checked_valid & faulty & token & ~retire.r_rdy & ~self.halt
        )

    # ---- elements --------------------------------------------------------------------------
    def _read(self, m: Module) -> None:
        reads, elems = self._reads, self._elems
        base, elems_m1, offset = (
            Signal(self.cfg.log2_acc_depth, name=n) for n in ("base", "elems_m1", "offset")
        )
        room = Signal(range(ELEM_DEPTH + 1), init=ELEM_DEPTH)
        last = Signal()
        m.d.comb += [
            Cat(base, elems_m1).eq(reads.r_data),
            last.eq(offset == elems_m1),
            self.out_en.eq(reads.r_rdy & (room != 0)),
            self.out_addr.eq(base + offset),
            reads.r_en.eq(self.out_en & last),
        ]
        with m.If(self.out_en):
            m.d.sync += offset.eq(Mux(last, 0, offset + 1))
        self._elem_sent = Signal()
        m.d.sync += room.eq(room - self.out_en + self._elem_sent)
        arrives = Signal(OUT_LATENCY_CYCLES)
        arrives_last = Signal(OUT_LATENCY_CYCLES)
        m.d.sync += [
            arrives.eq(Cat(self.out_en, arrives)),
            arrives_last.eq(Cat(last, arrives_last)),
        ]
        m.d.comb += [
            elems.w_en.eq(arrives[-1]),
            elems.w_data.eq(Cat(self.out_data, arrives_last[-1])),
        ]

    # ---- bursts and beats ------------------------------------------------------------------
    def _send(self, m: Module) -> None:
        cfg = self.cfg
        bursts, lengths, elems, answers = self._bursts, self._lengths, self._elems, self._answers
        wiring.connect(m, bursts.o, wiring.flipped(self.request))
        m.d.comb += [
            lengths.w_en.eq(self.request.valid & self.request.ready),
            lengths.w_data.eq(self.request.p.beats_m1),
        ]
        beats = cfg.out_elem_bits // cfg.bus.data_bits
        beat = Signal(8)
        sent = Signal()
        elem_done = Signal()
        burst_done = Signal()
        if beats > 1:
            part = Signal(range(beats))
            with m.If(sent):
                m.d.sync += part.eq(part + 1)
            m.d.comb += elem_done.eq(part.all())
            word = elems.r_data[: cfg.out_elem_bits].word_select(part, cfg.bus.data_bits)
        else:
            m.d.comb += elem_done.eq(1)
            word = elems.r_data[: cfg.out_elem_bits]
        m.d.comb += [
            burst_done.eq(beat == lengths.r_data),
            self.data.valid.eq(elems.r_rdy & lengths.r_rdy),
            self.data.p.data.eq(word),
            self.data.p.last.eq(burst_done),
            sent.eq(self.data.valid & self.data.ready),
            self._elem_sent.eq(sent & elem_done),
            elems.r_en.eq(sent & elem_done),
            lengths.r_en.eq(sent & burst_done),
            answers.w_en.eq(sent & burst_done),
            answers.w_data.eq(elem_done & elems.r_data[-1]),
        ]
        with m.If(sent):
            m.d.sync += beat.eq(Mux(burst_done, 0, beat + 1))

    # ---- responses and retirement ----------------------------------------------------------
    def _answer(self, m: Module) -> None:
        answers, answering, retire = self._answers, self._answering, self._retire
        insn_done = Signal()
        now = Signal()
        complete = Signal(range(RETIRE_DEPTH + 1))
        push = Signal()
        empty = Signal()
        m.d.comb += [
            answers.r_en.eq(self.response),
            insn_done.eq(self.response & answers.r_data[0]),
            answering.r_en.eq(insn_done),
            Cat(push, empty).eq(retire.r_data),
            now.eq(retire.r_rdy & (empty | (complete != 0)) & ~self.halt),
            retire.r_en.eq(now),
            self.push_prev.eq(now & push),
            self.retired.eq(now),
            self.busy.eq(retire.r_rdy),
        ]
        m.d.sync += complete.eq(complete + insn_done - (now & ~empty))

    # ---- faults ----------------------------------------------------------------------------
    def _report(self, m: Module) -> None:
        """Faults, and the indices of whom they, `push_prev` and `head_index` are about."""
        checked, bursts, retire = self._checked, self._bursts, self._retire
        m.submodules.indices = indices = Memory(shape=INDEX_BITS, depth=RETIRE_DEPTH, init=[])
        write, read = indices.write_port(), indices.read_port(domain="comb")
        oldest = Signal(SLOT_BITS)
        fault_slot = Signal(SLOT_BITS)
        in_flight = Signal()
        m.d.sync += oldest.eq(oldest + self.retired)
        m.d.comb += [
            write.addr.eq(self._slot),
            write.data.eq(checked.index),
            write.en.eq(retire.w_en),
            read.addr.eq(Mux(self.fault.valid, fault_slot, oldest)),
            self.push_index.eq(read.data),
            self.fault.index.eq(Mux(in_flight, read.data, checked.index)),
        ]
        with m.If(retire.r_rdy):
            m.d.comb += self.head_index.eq(read.data)
        with m.Elif(self._checked_valid):
            m.d.comb += self.head_index.eq(checked.index)

        def report(cause: Value | FaultCause, slot: Value | None) -> None:
            m.d.sync += [self.fault.valid.eq(1), self.fault.cause.eq(cause)]
            if slot is not None:
                m.d.sync += [in_flight.eq(1), fault_slot.eq(slot)]

        with m.If(~self.fault.valid):
            with m.If(self.response & self.error):
                report(FaultCause.BUS_ERROR, self._answering.r_data)
            with m.Elif(bursts.fault.valid):
                report(FaultCause.DRAM_WINDOW, bursts.fault.index)
            with m.Elif(self._faulty):
                causes = FaultCause.ILLEGAL_INSTRUCTION, FaultCause.SCRATCHPAD
                report(Mux(checked.illegal, *causes), None)
