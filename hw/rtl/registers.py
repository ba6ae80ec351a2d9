"""The control registers' AXI4-Lite slave, with the performance counters behind it."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, DomainRenamer, Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from covta.hw.counters import COUNTERS
from covta.hw.params import Config
from covta.hw.registers import (
    ADDR_BITS,
    REGISTER_BY_NAME,
    REGISTERS,
    Access,
    Register,
    implemented_mask,
    reset_value,
)
from covta.hw.rtl.event_counters import CYCLES_LOW, EventCounters
from covta.hw.rtl.interfaces import CAUSE_BITS, INDEX_BITS, MEMORY_TYPES

DATA_BITS = 32

RESP_OKAY = 0
RESP_SLVERR = 2

STATUS_FLAGS = ("idle", "running", "done", "fault", "draining")

LIVE_REGISTERS = ("STATUS", "FAULT_CAUSE", "FAULT_INSN")
"""Registers, beside counters, that show what is held elsewhere."""


class AxiLite(wiring.Signature):
    """AXI4-Lite, master side, as five streams; protection bits are left out.

    Members
    -------
    aw, ar : ``Out(stream({addr: 12}))``
    w : ``Out(stream({data: 32, strb: 4}))``
    b : ``In(stream({resp: 2}))``
    r : ``In(stream({data: 32, resp: 2}))``
    """

    def __init__(self) -> None:
        address = data.StructLayout({"addr": ADDR_BITS})
        super().__init__(
            {
                "aw": Out(stream.Signature(address)),
                "w": Out(
                    stream.Signature(data.StructLayout({"data": DATA_BITS, "strb": DATA_BITS // 8}))
                ),
                "b": In(stream.Signature(data.StructLayout({"resp": 2}))),
                "ar": Out(stream.Signature(address)),
                "r": In(stream.Signature(data.StructLayout({"data": DATA_BITS, "resp": 2}))),
            }
        )


class ControlRegisters(wiring.Component):
    """Answers the bus, holds what is written, counts.

    Each of AW, W and AR has a register of one entry, B and R an output register; no output of the
    bus depends on an input in the same cycle. With address and data both held in cycle ``e`` and B
    free, the write acts: B is valid, a command's strobe is high and a register has its new value in
    ``e + 1``. A read held in ``e`` with R free answers in ``e + 1``; a counter's waits for the
    counter's turn, at most 15 cycles (see `EventCounters`). What is refused:
    ``docs/registers.md``.

    A counter's strobe in cycle ``t`` shows in an answer in ``t + 3`` or later, as does `running` in
    the cycle counter; strobes up to and including the cycle of `clear_counters` are forgotten.

    Members
    -------
    axil : ``In(AxiLite)``
    irq : ``Out(1)``
    launch, reset : ``Out(1)``, strobes
    insn_addr, insn_count, base_ptr, window_base, window_last, watchdog : ``Out``, values
    idle, running, done, fault, draining : ``In(1)``, what STATUS shows
    fault_cause, fault_insn : ``In``
    counter : ``In(n)``, one strobe a counter, in the order of `COUNTERS`
    clear_counters : ``In(1)``, strobe
    clock_request : ``Out(1)``, see `covta.hw.rtl.clocks`; not raised by `running` falling
    """

    def __init__(self, cfg: Config, *, counting_domain: str = "sync") -> None:
        self.cfg = cfg
        self.counting_domain = counting_domain
        addr_bits = cfg.bus.addr_bits
        super().__init__(
            {
                "axil": In(AxiLite()),
                "irq": Out(1),
                "launch": Out(1),
                "reset": Out(1),
                "insn_addr": Out(addr_bits),
                "insn_count": Out(INDEX_BITS),
                "base_ptr": Out(data.ArrayLayout(addr_bits, MEMORY_TYPES)),
                "window_base": Out(addr_bits),
                "window_last": Out(addr_bits),
                "watchdog": Out(32),
                "fault_cause": In(CAUSE_BITS),
                "fault_insn": In(INDEX_BITS),
                "counter": In(len(COUNTERS)),
                "clear_counters": In(1),
                "clock_request": Out(1),
                **dict.fromkeys(STATUS_FLAGS, In(1)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        # Bits that are not implemented are not held: an address may have no high half at all.
        self._written = {
            r.name: Signal(
                implemented_mask(r, self.cfg).bit_length(),
                name=r.name.lower(),
                init=reset_value(r, self.cfg),
            )
            for r in REGISTERS
            if r.access is Access.WRITE
        }
        self._irq_ack = Signal()
        self._count(m)
        self._write(m)
        self._read(m)
        self._outputs(m)
        return m

    # ---- counting --------------------------------------------------------------------------
    def _count(self, m: Module) -> None:
        self._counters = counters = EventCounters()
        m.submodules.counters = DomainRenamer(self.counting_domain)(counters)
        m.d.comb += [
            counters.strobe.eq(self.counter),
            counters.running.eq(self.running),
            counters.clear.eq(self.clear_counters),
        ]

    # ---- writing ---------------------------------------------------------------------------
    def _write(self, m: Module) -> None:
        aw, w, b = self.axil.aw, self.axil.w, self.axil.b
        have_addr = Signal()
        have_data = Signal()
        self._writing = aw.valid | w.valid | have_addr | have_data | b.valid
        addr = Signal(ADDR_BITS)
        word = Signal(DATA_BITS)
        strobes = Signal(DATA_BITS // 8)
        act = Signal()
        okay = Signal()
        m.d.comb += [
            aw.ready.eq(~have_addr),
            w.ready.eq(~have_data),
            act.eq(have_addr & have_data & ~b.valid),
        ]
        with m.If(aw.valid & aw.ready):
            m.d.sync += [have_addr.eq(1), addr.eq(aw.p.addr)]
        with m.If(w.valid & w.ready):
            m.d.sync += [have_data.eq(1), word.eq(w.p.data), strobes.eq(w.p.strb)]
        mask = Cat(strobe.replicate(8) for strobe in strobes)
        masked = Signal(DATA_BITS)
        m.d.comb += masked.eq(word & mask)
        commands = Signal(3)
        with m.Switch(addr[2:]):
            for r in REGISTERS:
                if r.access is Access.READ:
                    continue
                with m.Case(r.offset >> 2):
                    fits = (masked & ~Const(implemented_mask(r, self.cfg), DATA_BITS)) == 0
                    locked = r.access is Access.WRITE and r.name != "IRQ_ENABLE"
                    m.d.comb += okay.eq(fits & ~self.running if locked else fits)
                    with m.If(act & okay):
                        if r.access is Access.STROBE:
                            m.d.comb += commands.eq(masked)
                        else:
                            self._store(m, self._written[r.name], word, strobes)
        control = REGISTER_BY_NAME["CONTROL"]
        for name, signal in (
            ("launch", self.launch),
            ("reset", self.reset),
            ("irq_ack", self._irq_ack),
        ):
            m.d.sync += signal.eq(commands[control.field(name).lsb])
        with m.If(act):
            m.d.sync += [
                have_addr.eq(0),
                have_data.eq(0),
                b.valid.eq(1),
                b.p.resp.eq(Mux(okay, RESP_OKAY, RESP_SLVERR)),
            ]
        with m.Elif(b.ready):
            m.d.sync += b.valid.eq(0)

    def _store(self, m: Module, held: Signal, word: Signal, strobes: Signal) -> None:
        """The bytes that are strobed."""
        for k, strobe in enumerate(strobes):
            part = slice(8 * k, min(8 * k + 8, len(held)))
            if part.start < part.stop:
                with m.If(strobe):
                    m.d.sync += held[part].eq(word[part])

    # ---- reading ---------------------------------------------------------------------------
    def _shown(self, r: Register) -> Value:
        """What a register that is no counter reads."""
        if r.name in self._written:
            return self._written[r.name]
        if r.name == "STATUS":
            return Cat(getattr(self, field.name) for field in r.fields)
        if r.value:
            return getattr(self, r.value)
        return Const(reset_value(r, self.cfg), DATA_BITS)

    def _read(self, m: Module) -> None:
        ar, r, counters = self.axil.ar, self.axil.r, self._counters
        have_addr = Signal()
        addr = Signal(ADDR_BITS)
        act = Signal()
        found = Signal()
        word = Signal(DATA_BITS)
        turn = Signal.like(counters.turn)
        is_counter = Signal()
        at_turn = Signal()
        cycles_high = Signal(DATA_BITS)
        low_taken = Signal()
        m.d.comb += [
            ar.ready.eq(~have_addr),
            at_turn.eq(counters.turn == turn),
            act.eq(have_addr & ~r.valid & (at_turn | ~is_counter)),
        ]
        with m.If(ar.valid & ar.ready):
            m.d.sync += [have_addr.eq(1), addr.eq(ar.p.addr)]
        words = {name: k for k, name in enumerate(COUNTERS)} | {"cycles": CYCLES_LOW}
        # What is held here, then over it what changes by itself.
        held = Signal(DATA_BITS)
        live = {name: Signal(name=f"is_{name.lower()}") for name in LIVE_REGISTERS}
        m.d.comb += word.eq(held)
        with m.Switch(addr[2:]):
            for register in REGISTERS:
                with m.Case(register.offset >> 2):
                    m.d.comb += found.eq(1)
                    if register.name == "CYCLES_HI":
                        m.d.comb += held.eq(cycles_high)
                    elif register.value in words:
                        m.d.comb += [is_counter.eq(1), turn.eq(words[register.value])]
                    elif register.name in live:
                        m.d.comb += live[register.name].eq(1)
                    else:
                        m.d.comb += held.eq(self._shown(register))
        with m.If(is_counter):
            m.d.comb += word.eq(counters.value)
        for name, chosen in live.items():
            with m.If(chosen):
                m.d.comb += word.eq(self._shown(REGISTER_BY_NAME[name]))
        m.d.comb += self.clock_request.eq(self._writing | ar.valid | have_addr | r.valid)
        # The high half has its turn right after the low half.
        m.d.sync += low_taken.eq(act & is_counter & (turn == CYCLES_LOW))
        with m.If(low_taken):
            m.d.sync += cycles_high.eq(counters.value)
        with m.If(act):
            m.d.sync += [
                have_addr.eq(0),
                r.valid.eq(1),
                r.p.data.eq(word),
                r.p.resp.eq(Mux(found, RESP_OKAY, RESP_SLVERR)),
            ]
        with m.Elif(r.ready):
            m.d.sync += r.valid.eq(0)

    # ---- values ----------------------------------------------------------------------------
    def _outputs(self, m: Module) -> None:
        for name, held in self._written.items():
            r = REGISTER_BY_NAME[name]
            if name == "IRQ_ENABLE":
                continue
            if r.value.startswith("base_ptr_"):
                whole = Value.cast(self.base_ptr[int(r.value.removeprefix("base_ptr_"))])
            else:
                whole = getattr(self, r.value)
            part = whole[r.value_lsb : r.value_lsb + DATA_BITS]
            m.d.comb += part.eq(held)
        done = Signal()
        fault = Signal()
        pending = Signal()
        m.d.sync += [done.eq(self.done), fault.eq(self.fault)]
        with m.If((self.done & ~done) | (self.fault & ~fault)):
            m.d.sync += pending.eq(1)
        with m.Elif(self._irq_ack):
            m.d.sync += pending.eq(0)
        m.d.comb += self.irq.eq(pending & self._written["IRQ_ENABLE"][0])
