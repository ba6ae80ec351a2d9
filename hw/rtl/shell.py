"""The top module: the machine behind ports with their standard AXI names."""

from __future__ import annotations

from collections.abc import Iterable

from amaranth.hdl import ClockDomain, DomainRenamer, Module, ResetSignal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from covta.hw.params import Config
from covta.hw.ports import ShellPort, memory_read_ports, memory_write_ports, shell_ports
from covta.hw.rtl.clocks import UNIT_CLOCKS
from covta.hw.rtl.machine import Machine

__all__ = ["Shell", "connect_read", "connect_write", "port_members"]


def port_members(ports: Iterable[ShellPort]) -> dict[str, wiring.Member]:
    """A component's members for some ports."""
    return {port.name: (Out if port.is_output else In)(port.width_bits) for port in ports}


def connect_read(m: Module, top: wiring.Component, read: wiring.PureInterface) -> None:
    """Join an `AxiRead` to the `memory_read_ports` of `top`."""
    m.d.comb += [
        *_constants(top, memory_read_ports(top.cfg)),
        top.m_axi_araddr.eq(read.ar.p.addr),
        top.m_axi_arlen.eq(read.ar.p.beats_m1),
        top.m_axi_arvalid.eq(read.ar.valid),
        read.ar.ready.eq(top.m_axi_arready),
        read.r.p.data.eq(top.m_axi_rdata),
        read.r.p.resp.eq(top.m_axi_rresp),
        read.r.p.last.eq(top.m_axi_rlast),
        read.r.valid.eq(top.m_axi_rvalid),
        top.m_axi_rready.eq(read.r.ready),
    ]


def connect_write(m: Module, top: wiring.Component, write: wiring.PureInterface) -> None:
    """Join an `AxiWrite` to the `memory_write_ports` of `top`."""
    m.d.comb += [
        *_constants(top, memory_write_ports(top.cfg)),
        top.m_axi_awaddr.eq(write.aw.p.addr),
        top.m_axi_awlen.eq(write.aw.p.beats_m1),
        top.m_axi_awvalid.eq(write.aw.valid),
        write.aw.ready.eq(top.m_axi_awready),
        top.m_axi_wdata.eq(write.w.p.data),
        top.m_axi_wlast.eq(write.w.p.last),
        top.m_axi_wvalid.eq(write.w.valid),
        write.w.ready.eq(top.m_axi_wready),
        write.b.p.resp.eq(top.m_axi_bresp),
        write.b.valid.eq(top.m_axi_bvalid),
        top.m_axi_bready.eq(write.b.ready),
    ]


def _constants(top: wiring.Component, ports: Iterable[ShellPort]) -> list:
    return [
        getattr(top, port.name).eq(port.constant) for port in ports if port.constant is not None
    ]


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
        members = port_members(shell_ports(cfg))
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
        m.d.comb += [self.irq.eq(machine.irq), self.running.eq(machine.running)]
        connect_read(m, self, machine.axi_read)
        connect_write(m, self, machine.axi_write)
        self._lite(m, machine)
        return m

    def _clocks(self, m: Module, machine: Machine) -> None:
        for name in UNIT_CLOCKS:
            domain = ClockDomain(name)
            domain.clk = getattr(self, f"clk_{name}")
            m.domains += domain
            m.d.comb += domain.rst.eq(ResetSignal())
        m.d.comb += self.clock_request.eq(machine.clock_request)

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
