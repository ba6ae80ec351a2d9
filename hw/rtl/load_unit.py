"""The load unit: LOADs of inp and wgt, their checks and their tokens."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out

from covta.hw.faults import FaultCause
from covta.hw.isa import MemoryType, Opcode, isa
from covta.hw.params import Config
from covta.hw.rtl.interfaces import (
    FAULT_LAYOUT,
    INDEX_BITS,
    INSN_LAYOUT,
    MEMORY_TYPES,
    ReadClient,
    layout_of,
)
from covta.hw.rtl.loader import IN_FLIGHT, Loader
from covta.hw.rtl.receiver import write_ports

LOAD_UNIT_TYPES = (MemoryType.INP, MemoryType.WGT)


class LoadUnit(wiring.Component):
    """Executes the load queue in order.

    An instruction at the head of the queue enters the Loader in cycle ``t`` if it is legal, the
    Loader takes it, the token that it pops is there (`pop_next` strobes in ``t``), and not `halt`:
    one a cycle at best. It is complete in the Loader's `done` cycle; then `retired` strobes and, if
    it pushes, `push_next`. An instruction of size 0 goes the same way.

    An illegal instruction (no LOAD of inp or wgt, a bit outside every field, a flag naming the
    neighbour *prev*) is reported when it is at the head and nothing is in flight in the Loader.

    Members
    -------
    insn : ``In(stream(INSN_LAYOUT))``
    base_ptr, window_base, window_last : configuration
    client : ``Out(ReadClient)``
    inp, wgt : ``Out(SliceWrite)``
    pop_next_ready, pop_next : ``In(1)``, ``Out(1)``, tokens from compute
    push_next, push_index : ``Out(1)``, ``Out(24)``, tokens to compute and whose
    fault, halt, idle
    busy : something is in flight in the Loader
    token_stall : a legal instruction at the head waits for nothing but its token
    retired : strobe
    clock_request : see `covta.hw.rtl.clocks`
    """

    def __init__(self, cfg: Config) -> None:
        self.cfg = cfg
        self._ports = write_ports(cfg, LOAD_UNIT_TYPES)
        addr_bits = cfg.bus.addr_bits
        super().__init__(
            {
                "insn": In(stream.Signature(INSN_LAYOUT)),
                "base_ptr": In(data.ArrayLayout(addr_bits, MEMORY_TYPES)),
                "window_base": In(addr_bits),
                "window_last": In(addr_bits),
                "client": Out(ReadClient(cfg)),
                **self._ports,
                "pop_next_ready": In(1),
                "pop_next": Out(1),
                "push_next": Out(1),
                "push_index": Out(INDEX_BITS),
                "fault": Out(FAULT_LAYOUT),
                "halt": In(1),
                "idle": Out(1),
                "busy": Out(1),
                "token_stall": Out(1),
                "retired": Out(1),
                "clock_request": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.loader = loader = Loader(self.cfg, LOAD_UNIT_TYPES)
        wiring.connect(m, loader.client, wiring.flipped(self.client))
        for name in self._ports:
            wiring.connect(m, getattr(loader, name), wiring.flipped(getattr(self, name)))
        m.d.comb += [
            loader.base_ptr.eq(self.base_ptr),
            loader.window_base.eq(self.window_base),
            loader.window_last.eq(self.window_last),
            loader.halt.eq(self.halt),
            self.busy.eq(loader.busy),
            self.idle.eq(~self.insn.valid & ~loader.busy),
            self.clock_request.eq(loader.busy | (self.insn.valid & ~self.token_stall)),
        ]
        self._enter(m, loader)
        self._complete(m, loader)
        return m

    def _enter(self, m: Module, loader: Loader) -> None:
        insn = self.insn
        fmt = isa(self.cfg).load
        words = [data.View(layout_of(fmt.words[k]), insn.p.word[k]) for k in range(2)]
        head = self._head = words[0]
        stray = Cat(
            insn.p.word[k] & (~fmt.words[k].used_mask & (1 << fmt.words[k].width_bits) - 1)
            for k in range(2)
        ).any()
        legal = Signal()
        may_enter = Signal()
        token = Signal()
        m.d.comb += [
            legal.eq(
                (head.opcode == Opcode.LOAD)
                & ((head.memory_type == MemoryType.INP) | (head.memory_type == MemoryType.WGT))
                & ~head.pop_prev
                & ~head.push_prev
                & ~stray
            ),
            may_enter.eq(insn.valid & legal & loader.i.ready & ~self.halt),
            token.eq(~head.pop_next | self.pop_next_ready),
            loader.i.valid.eq(may_enter & token),
            insn.ready.eq(may_enter & token),
            self.pop_next.eq(may_enter & token & head.pop_next),
            self.token_stall.eq(may_enter & ~token),
            loader.i.p.index.eq(insn.p.index),
        ]
        for name in loader.i.p.shape().members:
            if name in fmt.fields:
                m.d.comb += loader.i.p[name].eq(words[fmt.fields[name][0]][name])
        illegal = Signal()
        m.d.comb += [
            illegal.eq(insn.valid & ~legal & ~loader.busy & ~self.halt),
            self.fault.valid.eq(loader.fault.valid | illegal),
            self.fault.cause.eq(
                Mux(loader.fault.valid, loader.fault.cause, FaultCause.ILLEGAL_INSTRUCTION)
            ),
            self.fault.index.eq(Mux(loader.fault.valid, loader.fault.index, insn.p.index)),
        ]

    def _complete(self, m: Module, loader: Loader) -> None:
        m.submodules.pushes = pushes = SyncFIFO(width=1, depth=IN_FLIGHT)
        m.d.comb += [
            pushes.w_en.eq(self.insn.valid & self.insn.ready),
            pushes.w_data.eq(self._head.push_next),
            pushes.r_en.eq(loader.done),
            self.push_next.eq(loader.done & pushes.r_data),
            self.push_index.eq(loader.done_index),
            self.retired.eq(loader.done),
        ]
