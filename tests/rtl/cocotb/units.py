"""Units with the memory port of the shell: what the regressions of a unit drive.

Each is the unit and its half of the memory engine. A fault stops both, as it does in the machine.
"""

from __future__ import annotations

from amaranth.hdl import Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from covta.hw.params import Config
from covta.hw.ports import memory_read_ports, memory_write_ports
from covta.hw.rtl.fetch import Fetch
from covta.hw.rtl.interfaces import FAULT_LAYOUT, INDEX_BITS, INSN_LAYOUT, MEMORY_TYPES
from covta.hw.rtl.load_unit import LOAD_UNIT_TYPES, LoadUnit
from covta.hw.rtl.read_engine import ReadEngine
from covta.hw.rtl.receiver import write_ports
from covta.hw.rtl.shell import connect_read, connect_write, port_members
from covta.hw.rtl.store_unit import StoreUnit
from covta.hw.rtl.write_engine import WriteEngine

QUEUES = ("load", "compute", "store")


def _stop(m: Module, unit: wiring.Component, *others: wiring.Component) -> None:
    """After a fault of the unit, halt all, as the machine does."""
    halt = Signal()
    with m.If(unit.fault.valid):
        m.d.sync += halt.eq(1)
    m.d.comb += [u.halt.eq(halt) for u in (unit, *others)]


def _same(m: Module, top: wiring.Component, unit: wiring.Component, *names: str) -> None:
    """Join members of the same name."""
    for name in names:
        inner, outer = getattr(unit, name), getattr(top, name)
        is_output = unit.signature.members[name].flow == Out
        m.d.comb += outer.eq(inner) if is_output else inner.eq(outer)


class FetchUnit(wiring.Component):
    """Fetch and the read engine; the queues lead out."""

    def __init__(self, cfg: Config) -> None:
        self.cfg = cfg
        super().__init__(
            {
                **port_members(memory_read_ports(cfg)),
                "start": In(1),
                "insn_addr": In(cfg.bus.addr_bits),
                "insn_count": In(INDEX_BITS),
                **{name: Out(stream.Signature(INSN_LAYOUT)) for name in QUEUES},
                "fault": Out(FAULT_LAYOUT),
                "idle": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Join them."""
        m = Module()
        m.submodules.fetch = fetch = Fetch(self.cfg)
        m.submodules.engine = engine = ReadEngine(self.cfg, clients=1)
        wiring.connect(m, fetch.client, engine.clients[0])
        connect_read(m, self, engine.axi)
        _same(m, self, fetch, "start", "insn_addr", "insn_count", "fault", "idle")
        for name in QUEUES:
            wiring.connect(m, getattr(fetch, name), wiring.flipped(getattr(self, name)))
        m.d.comb += fetch.window_last.eq((1 << self.cfg.bus.addr_bits) - 1)
        _stop(m, fetch, engine)
        return m


class LoadPath(wiring.Component):
    """The load unit and the read engine; writes of the scratchpads lead out."""

    def __init__(self, cfg: Config) -> None:
        self.cfg = cfg
        super().__init__(
            {
                **port_members(memory_read_ports(cfg)),
                "insn": In(stream.Signature(INSN_LAYOUT)),
                "base_ptr": In(data.ArrayLayout(cfg.bus.addr_bits, MEMORY_TYPES)),
                **write_ports(cfg, LOAD_UNIT_TYPES),
                "pop_next_ready": In(1),
                "pop_next": Out(1),
                "push_next": Out(1),
                "retired": Out(1),
                "fault": Out(FAULT_LAYOUT),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Join them."""
        m = Module()
        m.submodules.unit = unit = LoadUnit(self.cfg)
        m.submodules.engine = engine = ReadEngine(self.cfg, clients=1)
        wiring.connect(m, unit.client, engine.clients[0])
        wiring.connect(m, wiring.flipped(self.insn), unit.insn)
        for name in write_ports(self.cfg, LOAD_UNIT_TYPES):
            wiring.connect(m, getattr(unit, name), wiring.flipped(getattr(self, name)))
        connect_read(m, self, engine.axi)
        _same(m, self, unit, "base_ptr", "pop_next_ready", "pop_next", "push_next", "retired")
        _same(m, self, unit, "fault")
        m.d.comb += unit.window_last.eq((1 << self.cfg.bus.addr_bits) - 1)
        _stop(m, unit, engine)
        return m


def out_contents(cfg: Config) -> list[int]:
    """What lies in the out scratchpad: every byte differs from those around it."""
    size = cfg.out_elem_bytes
    return [
        int.from_bytes(bytes((7 * (k * size + b) + k // 32) % 256 for b in range(size)), "little")
        for k in range(cfg.acc_depth)
    ]


class StorePath(wiring.Component):
    """The store unit, the write engine and an out scratchpad that holds `out_contents`."""

    def __init__(self, cfg: Config) -> None:
        self.cfg = cfg
        super().__init__(
            {
                **port_members(memory_write_ports(cfg)),
                "insn": In(stream.Signature(INSN_LAYOUT)),
                "base_ptr": In(data.ArrayLayout(cfg.bus.addr_bits, MEMORY_TYPES)),
                "pop_prev_ready": In(1),
                "pop_prev": Out(1),
                "push_prev": Out(1),
                "retired": Out(1),
                "fault": Out(FAULT_LAYOUT),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Join them."""
        m = Module()
        cfg = self.cfg
        m.submodules.unit = unit = StoreUnit(cfg)
        m.submodules.engine = engine = WriteEngine(cfg)
        m.submodules.out = out = Memory(
            shape=cfg.out_elem_bits, depth=cfg.acc_depth, init=out_contents(cfg)
        )
        port = out.read_port(domain="sync")
        wiring.connect(m, wiring.flipped(self.insn), unit.insn)
        wiring.connect(m, unit.request, engine.request)
        wiring.connect(m, unit.data, engine.data)
        connect_write(m, self, engine.axi)
        _same(m, self, unit, "base_ptr", "pop_prev_ready", "pop_prev", "push_prev", "retired")
        _same(m, self, unit, "fault")
        m.d.comb += [
            port.addr.eq(unit.out_addr),
            port.en.eq(unit.out_en),
            unit.response.eq(engine.response),
            unit.error.eq(engine.error),
            unit.window_last.eq((1 << cfg.bus.addr_bits) - 1),
        ]
        _stop(m, unit, engine)
        m.d.sync += unit.out_data.eq(port.data)
        return m


UNITS = {"fetch": FetchUnit, "load": LoadPath, "store": StorePath}
