"""The whole machine: fetch, load, compute, store, memory engines, tokens, control."""

from __future__ import annotations

from amaranth.hdl import Cat, DomainRenamer, Module, Mux, ResetInserter, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from covta.hw.counters import COUNTERS
from covta.hw.faults import FaultCause
from covta.hw.params import Config
from covta.hw.rtl.clocks import CLOCK_REQUEST_LAYOUT, COMPUTE_CLOCKS, UNIT_CLOCKS
from covta.hw.rtl.compute import ComputeUnit
from covta.hw.rtl.fetch import Fetch
from covta.hw.rtl.interfaces import FAULT_LAYOUT, INDEX_BITS, AxiRead, AxiWrite
from covta.hw.rtl.load_unit import LoadUnit
from covta.hw.rtl.mac_array import wgt_inverted_bits
from covta.hw.rtl.read_engine import ReadEngine
from covta.hw.rtl.registers import ControlRegisters
from covta.hw.rtl.scratchpads import SliceScratchpad
from covta.hw.rtl.store_unit import StoreUnit
from covta.hw.rtl.tokens import TokenCounter
from covta.hw.rtl.write_engine import WriteEngine

FETCH_CLIENT, COMPUTE_CLIENT, LOAD_CLIENT = range(3)
"""Clients of the read engine in order of priority."""


class Core(wiring.Component):
    """Everything that a reset command clears.

    Members
    -------
    axi_read, axi_write : memory
    start : strobe, with the launch parameters stable until the next
    halt : stop issuing; `drained` rises when nothing is in flight on the bus
    fault : a fault, this cycle's first by rank
    done : all instructions complete
    finished : strobe, a FINISH retired
    waiting_index : oldest instruction that waits
    progress : something moved
    counter : strobes, by dotted name
    clock_request : see `covta.hw.rtl.clocks`; all but `lite`
    """

    def __init__(self, cfg: Config) -> None:
        self.cfg = cfg
        addr_bits = cfg.bus.addr_bits
        super().__init__(
            {
                "axi_read": Out(AxiRead(cfg)),
                "axi_write": Out(AxiWrite(cfg)),
                "start": In(1),
                "insn_addr": In(addr_bits),
                "insn_count": In(INDEX_BITS),
                "base_ptr": In(data.ArrayLayout(addr_bits, 6)),
                "window_base": In(addr_bits),
                "window_last": In(addr_bits),
                "halt": In(1),
                "drained": Out(1),
                "fault": Out(FAULT_LAYOUT),
                "done": Out(1),
                "finished": Out(1),
                "waiting_index": Out(INDEX_BITS),
                "progress": Out(1),
                "counter": Out(data.StructLayout({n.replace(".", "_"): 1 for n in COUNTERS})),
                "clock_request": Out(CLOCK_REQUEST_LAYOUT),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        cfg = self.cfg
        m.submodules.read_engine = self._reads = ReadEngine(cfg, clients=3)
        self._writes, self._fetch = WriteEngine(cfg), Fetch(cfg)
        self._load, self._store = LoadUnit(cfg), StoreUnit(cfg)
        m.submodules.write_engine = DomainRenamer("store")(self._writes)
        m.submodules.fetch = DomainRenamer("fetch")(self._fetch)
        m.submodules.load = DomainRenamer("load")(self._load)
        m.submodules.compute = self._compute = ComputeUnit(cfg)
        m.submodules.store = DomainRenamer("store")(self._store)
        m.submodules.inp = inp = SliceScratchpad(
            cfg, elem_bits=cfg.inp_elem_bits, depth=cfg.inp_depth, write_domain="load"
        )
        m.submodules.wgt = wgt = SliceScratchpad(
            cfg,
            elem_bits=cfg.wgt_elem_bits,
            depth=cfg.wgt_depth,
            inverted_bits=wgt_inverted_bits(cfg),
            write_domain="load",
        )
        wiring.connect(m, self._load.inp, inp.write)
        wiring.connect(m, self._load.wgt, wgt.write)
        compute = self._compute
        m.d.comb += [
            inp.rd_addr.eq(compute.inp_addr),
            compute.inp_data.eq(inp.rd_data),
            wgt.rd_addr.eq(compute.wgt_addr),
            compute.wgt_data.eq(wgt.rd_data),
            compute.out_en.eq(self._store.out_en),
            compute.out_addr.eq(self._store.out_addr),
            self._store.out_data.eq(compute.out_data),
        ]
        self._connect_bus(m)
        self._connect_tokens(m)
        self._merge_faults(m)
        self._status(m)
        return m

    def _connect_bus(self, m: Module) -> None:
        reads, writes, fetch = self._reads, self._writes, self._fetch
        units = (fetch, self._load, self._compute, self._store)
        wiring.connect(m, reads.axi, wiring.flipped(self.axi_read))
        wiring.connect(m, writes.axi, wiring.flipped(self.axi_write))
        wiring.connect(m, fetch.client, reads.clients[FETCH_CLIENT])
        wiring.connect(m, self._compute.client, reads.clients[COMPUTE_CLIENT])
        wiring.connect(m, self._load.client, reads.clients[LOAD_CLIENT])
        wiring.connect(m, fetch.load, self._load.insn)
        wiring.connect(m, fetch.compute, self._compute.insn)
        wiring.connect(m, fetch.store, self._store.insn)
        m.d.comb += [
            fetch.start.eq(self.start),
            fetch.insn_addr.eq(self.insn_addr),
            fetch.insn_count.eq(self.insn_count),
            reads.halt.eq(self.halt),
            writes.halt.eq(self.halt),
        ]
        for unit in units:
            m.d.comb += [
                unit.window_base.eq(self.window_base),
                unit.window_last.eq(self.window_last),
                unit.halt.eq(self.halt),
            ]
            if unit is not fetch:
                m.d.comb += unit.base_ptr.eq(self.base_ptr)
        wiring.connect(m, self._store.request, writes.request)
        wiring.connect(m, self._store.data, writes.data)
        m.d.comb += [
            self._store.response.eq(writes.response),
            self._store.error.eq(writes.error),
        ]

    def _connect_tokens(self, m: Module) -> None:
        load, compute, store = self._load, self._compute, self._store
        queues = {
            "load_to_compute": (load.push_next, compute.pop_prev, load.push_index),
            "compute_to_load": (compute.push_prev, load.pop_next, compute.push_index),
            "compute_to_store": (compute.push_next, store.pop_prev, compute.push_index),
            "store_to_compute": (store.push_prev, compute.pop_next, store.push_index),
        }
        ready = {}
        self._overflow = []
        for name, (push, pop, index) in queues.items():
            m.submodules[name] = counter = TokenCounter()
            m.d.comb += [counter.push.eq(push), counter.pop.eq(pop)]
            ready[name] = counter.ready
            self._overflow.append((counter.overflow, index))
        m.d.comb += [
            compute.pop_prev_ready.eq(ready["load_to_compute"]),
            load.pop_next_ready.eq(ready["compute_to_load"]),
            store.pop_prev_ready.eq(ready["compute_to_store"]),
            compute.pop_next_ready.eq(ready["store_to_compute"]),
        ]

    def _merge_faults(self, m: Module) -> None:
        reports = [
            (unit.fault.valid, unit.fault.cause, unit.fault.index)
            for unit in (self._fetch, self._load, self._compute, self._store)
        ]
        reports += [(o, FaultCause.TOKEN_OVERFLOW, i) for o, i in self._overflow]
        for valid, cause, index in reversed(reports):
            with m.If(valid):
                m.d.comb += [
                    self.fault.valid.eq(1),
                    self.fault.cause.eq(cause),
                    self.fault.index.eq(index),
                ]

    def _status(self, m: Module) -> None:
        reads, writes, fetch = self._reads, self._writes, self._fetch
        load, compute, store = self._load, self._compute, self._store
        r, w = self.axi_read.r, self.axi_write.w
        read_beat, write_beat = r.valid & r.ready, w.valid & w.ready
        m.d.comb += [
            self.drained.eq(reads.idle & writes.idle),
            self.done.eq(fetch.idle & load.idle & compute.idle & store.idle),
            self.finished.eq(compute.finished),
            self.progress.eq(
                compute.progress
                | read_beat
                | write_beat
                | writes.response
                | load.retired
                | store.retired
            ),
            self.waiting_index.eq(
                Mux(
                    load.insn.valid,
                    load.insn.p.index,
                    Mux(compute.head_valid, compute.head_index, store.head_index),
                )
            ),
        ]

        m.d.comb += [
            self.clock_request.fetch.eq(fetch.clock_request),
            self.clock_request.load.eq(load.clock_request),
            self.clock_request.store.eq(store.clock_request | ~writes.idle),
            *(self.clock_request[name].eq(compute.clock_request[name]) for name in COMPUTE_CLOCKS),
        ]

        def beat(client: object) -> object:
            return client.beat.valid & client.beat.ready  # type: ignore[attr-defined]

        strobes = {
            "fetch.insns": fetch.insn_strobe,
            "fetch.read_beats": beat(fetch.client),
            "load.busy_cycles": load.busy,
            "load.token_stall_cycles": load.token_stall,
            "load.read_beats": beat(load.client),
            "compute.gemm.busy_cycles": compute.gemm_busy,
            "compute.alu.busy_cycles": compute.alu_busy,
            "compute.load.busy_cycles": compute.loader_busy,
            "compute.load.read_beats": beat(compute.client),
            "compute.token_stall_cycles": compute.token_stall,
            "compute.hazard_stall_cycles": compute.hazard_stall,
            "store.busy_cycles": store.busy,
            "store.token_stall_cycles": store.token_stall,
            "store.write_beats": write_beat,
        }
        for name in COUNTERS:
            m.d.comb += self.counter[name.replace(".", "_")].eq(strobes[name])


class Machine(wiring.Component):
    """The accelerator: `Core` behind its control registers.

    A launch command makes `running` rise in the next cycle. The run ends when everything is
    complete (status *done*) or with a fault, after which only a reset command leads on. A reset
    command while running stops the machine, waits for the bus to drain, then clears everything
    but written registers.

    Members
    -------
    axi_read, axi_write : AXI4 memory master
    axil : AXI4-Lite slave of the control registers
    irq : done or fault, until acknowledged
    running : a run is under way
    clock_request : see `covta.hw.rtl.clocks`; without a run, every unit's

    Clock domains: `sync`, and one for each of `UNIT_CLOCKS`.
    """

    def __init__(self, cfg: Config) -> None:
        self.cfg = cfg
        self.control = ControlRegisters(cfg, counting_domain="counting")
        super().__init__(
            {
                "axi_read": Out(AxiRead(cfg)),
                "axi_write": Out(AxiWrite(cfg)),
                "axil": self.control.signature.members["axil"],
                "irq": Out(1),
                "running": Out(1),
                "clock_request": Out(CLOCK_REQUEST_LAYOUT),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        cfg, control = self.cfg, self.control
        clear = Signal()
        m.submodules.control = DomainRenamer({"sync": "lite", "counting": "sync"})(control)
        core = Core(cfg)
        m.submodules.core = ResetInserter(dict.fromkeys(("sync", *UNIT_CLOCKS), clear))(core)
        wiring.connect(m, core.axi_read, wiring.flipped(self.axi_read))
        wiring.connect(m, core.axi_write, wiring.flipped(self.axi_write))
        wiring.connect(m, wiring.flipped(self.axil), control.axil)
        m.d.comb += [
            self.irq.eq(control.irq),
            core.insn_addr.eq(control.insn_addr),
            core.insn_count.eq(control.insn_count),
            core.base_ptr.eq(control.base_ptr),
            core.window_base.eq(control.window_base),
            core.window_last.eq(control.window_last),
            control.counter.eq(Mux(self.running, core.counter.as_value(), 0)),
            control.running.eq(self.running),
            self.clock_request.eq(
                core.clock_request.as_value() | (~self.running).replicate(len(UNIT_CLOCKS))
            ),
        ]
        with m.If(control.clock_request):
            m.d.comb += self.clock_request.lite.eq(1)
        self._sequence(m, core, clear)
        return m

    def _sequence(self, m: Module, core: Core, clear: Signal) -> None:
        control = self.control
        finish_seen = Signal()
        quiet_cycles = Signal(32)
        fault = Signal(FAULT_LAYOUT)
        reset_wanted = Signal()
        bus_mask = self.cfg.bus_bytes - 1
        misaligned = (control.insn_addr & 15).any() | Cat(
            (control.base_ptr[k] & bus_mask).any() for k in range(6)
        ).any()
        m.d.comb += [control.fault_cause.eq(fault.cause), control.fault_insn.eq(fault.index)]
        with m.If(control.reset):
            m.d.sync += reset_wanted.eq(1)
        with m.FSM(name="state"):
            for state in ("IDLE", "DONE"):
                with m.State(state):
                    m.d.comb += [control.idle.eq(1), control.done.eq(state == "DONE")]
                    m.d.comb += core.halt.eq(reset_wanted)
                    with m.If(reset_wanted):
                        m.next = "DRAIN"
                    with m.Elif(control.launch):
                        m.d.sync += [
                            finish_seen.eq(0),
                            quiet_cycles.eq(0),
                            fault.cause.eq(FaultCause.NONE),
                            fault.index.eq(0),
                        ]
                        m.d.comb += control.clear_counters.eq(1)
                        with m.If(misaligned):
                            m.d.sync += fault.cause.eq(FaultCause.MISALIGNED)
                            m.next = "FAULT"
                        with m.Else():
                            m.d.comb += core.start.eq(1)
                            m.next = "RUN"
            with m.State("RUN"):
                m.d.comb += self.running.eq(1)
                with m.If(core.finished):
                    m.d.sync += finish_seen.eq(1)
                m.d.sync += quiet_cycles.eq(Mux(core.progress, 0, quiet_cycles + 1))
                with m.If(reset_wanted):
                    m.next = "DRAIN"
                with m.Elif(core.fault.valid):
                    m.d.sync += [fault.cause.eq(core.fault.cause), fault.index.eq(core.fault.index)]
                    m.next = "DRAIN"
                with m.Elif(core.done):
                    with m.If(finish_seen | core.finished):
                        m.next = "DONE"
                    with m.Else():
                        m.d.sync += fault.cause.eq(FaultCause.NO_FINISH)
                        m.d.sync += fault.index.eq(control.insn_count)
                        m.next = "DRAIN"
                with m.Elif(~core.progress & (quiet_cycles >= control.watchdog)):
                    m.d.sync += [
                        fault.cause.eq(FaultCause.WATCHDOG),
                        fault.index.eq(core.waiting_index),
                    ]
                    m.next = "DRAIN"
            with m.State("DRAIN"):
                m.d.comb += [core.halt.eq(1), control.draining.eq(1)]
                with m.If(core.drained):
                    with m.If(reset_wanted):
                        m.next = "CLEAR"
                    with m.Else():
                        m.next = "FAULT"
            with m.State("FAULT"):
                m.d.comb += [core.halt.eq(1), control.fault.eq(1)]
                with m.If(reset_wanted):
                    m.next = "CLEAR"
            with m.State("CLEAR"):
                m.d.comb += [core.halt.eq(1), clear.eq(1), control.draining.eq(1)]
                m.d.sync += [reset_wanted.eq(0), fault.cause.eq(FaultCause.NONE)]
                m.next = "IDLE"
