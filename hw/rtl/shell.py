"""The top module: the machine behind ports with their standard AXI names."""

from __future__ import annotations

from amaranth.hdl import ClockDomain, DomainRenamer, Module, ResetSignal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from covta.hw.params import Config
from covta.hw.ports import shell_ports
from covta.hw.rtl.clocks import UNIT_CLOCKS
from covta.hw.rtl.machine import Machine

__all__ = ["Shell"]


class Shell(wiring.Component):
    """`Machine` with flat ports, no logic of its own.

    Reset is synchronous and active high. Read and write IDs are always 0, and what comes back on
    `rid` and `bid` is not looked at.

    Parameters
    ----------
    cfg : Config
    unit_clocks : bool
        Each unit's clock is a port of its own.

    Members
    -------
    m_axi_* : AXI4 master, memory
    s_axi_* : AXI4-Lite slave, control registers
    irq : done or fault, until acknowledged
    running : a run is under way

    All as listed by `shell_ports`. With `unit_clocks` also, see `covta.hw.rtl.clocks`:

    clk_* : clock of a unit, one for each of `UNIT_CLOCKS`
    clock_request : a bit for each
    """

    def __init__(self, cfg: Config, *, unit_clocks: bool = False) -> None:
        self.cfg = cfg
        self.unit_clocks = unit_clocks
        members = {
            port.name: (Out if port.is_output else In)(port.width_bits) for port in shell_ports(cfg)
        }
        if unit_clocks:
            members |= {f"clk_{name}": In(1) for name in UNIT_CLOCKS}
            members["clock_request"] = Out(len(UNIT_CLOCKS))
        super().__init__(members)

    def elaborate(self, platform: object) -> Module:
        """Name the wires."""
        m = Module()
        machine = Machine(self.cfg)
        if self.unit_clocks:
            m.submodules.machine = machine
            self._clocks(m, machine)
        else:
            m.submodules.machine = DomainRenamer(dict.fromkeys(UNIT_CLOCKS, "sync"))(machine)
        m.d.comb += [
            getattr(self, port.name).eq(port.constant)
            for port in shell_ports(self.cfg)
            if port.constant is not None
        ]
        m.d.comb += [self.irq.eq(machine.irq), self.running.eq(machine.running)]
        self._master(m, machine)
        self._lite(m, machine)
        return m

    def _clocks(self, m: Module, machine: Machine) -> None:
        for name in UNIT_CLOCKS:
            domain = ClockDomain(name)
            domain.clk = getattr(self, f"clk_{name}")
            m.domains += domain
            m.d.comb += domain.rst.eq(ResetSignal())
        m.d.comb += self.clock_request.eq(machine.clock_request)

    def _master(self, m: Module, machine: Machine) -> None:
        read, write = machine.axi_read, machine.axi_write
        m.d.comb += [
            self.m_axi_araddr.eq(read.ar.p.addr),
            self.m_axi_arlen.eq(read.ar.p.beats_m1),
            self.m_axi_arvalid.eq(read.ar.valid),
            read.ar.ready.eq(self.m_axi_arready),
            read.r.p.data.eq(self.m_axi_rdata),
            read.r.p.resp.eq(self.m_axi_rresp),
            read.r.p.last.eq(self.m_axi_rlast),
            read.r.valid.eq(self.m_axi_rvalid),
            self.m_axi_rready.eq(read.r.ready),
            self.m_axi_awaddr.eq(write.aw.p.addr),
            self.m_axi_awlen.eq(write.aw.p.beats_m1),
            self.m_axi_awvalid.eq(write.aw.valid),
            write.aw.ready.eq(self.m_axi_awready),
            self.m_axi_wdata.eq(write.w.p.data),
            self.m_axi_wlast.eq(write.w.p.last),
            self.m_axi_wvalid.eq(write.w.valid),
            write.w.ready.eq(self.m_axi_wready),
            write.b.p.resp.eq(self.m_axi_bresp),
            write.b.valid.eq(self.m_axi_bvalid),
            self.m_axi_bready.eq(write.b.ready),
        ]

    def _lite(self, m: Module, machine: Machine) -> None:
        axil = machine.axil
        m.d.comb += [
            axil.aw.p.addr.eq(self.s_axi_awaddr),
            axil.aw.valid.eq(self.s_axi_awvalid),
            self.s_axi_awready.eq(axil.aw.ready),
            axil.w.p.data.eq(self.s_axi_wdata),
            axil.w.p.strb.eq(self.s_axi_wstrb),
            axil.w.valid.eq(self.s_axi_wvalid),
            self.s_axi_wready.eq(axil.w.ready),
            self.s_axi_bresp.eq(axil.b.p.resp),
            self.s_axi_bvalid.eq(axil.b.valid),
            axil.b.ready.eq(self.s_axi_bready),
            axil.ar.p.addr.eq(self.s_axi_araddr),
            axil.ar.valid.eq(self.s_axi_arvalid),
            self.s_axi_arready.eq(axil.ar.ready),
            self.s_axi_rdata.eq(axil.r.p.data),
            self.s_axi_rresp.eq(axil.r.p.resp),
            self.s_axi_rvalid.eq(axil.r.valid),
            axil.r.ready.eq(self.s_axi_rready),
        ]
