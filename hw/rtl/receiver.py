"""The half of a Loader that takes beats and padding and writes scratchpad elements."""

from __future__ import annotations

from collections.abc import Sequence

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import data, enum, stream, wiring
from amaranth.lib.wiring import In, Out

from covta.hw.faults import FaultCause
from covta.hw.isa import MemoryType, isa
from covta.hw.params import Config, log2_exact
from covta.hw.rtl.burst_generator import SIZE_BITS, select
from covta.hw.rtl.interfaces import (
    FAULT_LAYOUT,
    INDEX_BITS,
    AccWrite,
    SliceWrite,
    UopWrite,
    beat_layout,
    uop_banks,
)

X_TOTAL_BITS = SIZE_BITS + 1
ADDR_BITS = 17
"""Bits of an element's index: `sram_base` and one more, to see an index beyond every depth."""


class Phase(enum.Enum, shape=2):
    """Part of a row."""

    LEFT = 0
    DATA = 1
    RIGHT = 2


class Stage(enum.Enum, shape=2):
    """Part of a block."""

    TOP = 0
    DATA = 1
    BOTTOM = 2


def descriptor_layout(cfg: Config, index_bits: int = INDEX_BITS) -> data.StructLayout:
    """What the Receiver must know of a transfer.

    `x_total` is ``x_pad_0 + x_size + x_pad_1``; `word_offset` the place of the first micro-op in
    its beat and `word_stride` what each row adds to it, modulo the micro-ops of a beat.
    """
    word_bits = log2_exact(uop_banks(cfg))
    return data.StructLayout(
        {
            "memory_type": 3,
            "empty": 1,
            "sram_base": 16,
            "y_size": SIZE_BITS,
            "x_size": SIZE_BITS,
            "x_total": X_TOTAL_BITS,
            "y_pad_0": 4,
            "y_pad_1": 4,
            "x_pad_0": 4,
            "x_pad_1": 4,
            "pad_min": 1,
            "word_offset": word_bits,
            "word_stride": word_bits,
            "index": index_bits,
        }
    )


def write_ports(cfg: Config, memory_types: Sequence[MemoryType]) -> dict[str, wiring.Member]:
    """Members that write the scratchpads of some memory types."""
    ports = {}
    for name, depth_bits, elem_bits in (
        ("inp", cfg.log2_inp_depth, cfg.inp_elem_bits),
        ("wgt", cfg.log2_wgt_depth, cfg.wgt_elem_bits),
    ):
        if MemoryType[name.upper()] in memory_types:
            ports[name] = Out(SliceWrite(cfg, addr_bits=depth_bits, elem_bits=elem_bits))
    if MemoryType.UOP in memory_types:
        ports["uop"] = Out(UopWrite(cfg))
    if MemoryType.ACC in memory_types:
        ports["acc"] = Out(AccWrite(cfg))
    return ports


class Receiver(wiring.Component):
    """Walks the blocks of transfers in order, one *step* a cycle.

    A step is one padding element, one beat taken, or one empty transfer. A descriptor offered in
    ``c`` is taken in ``c`` if no transfer is in work or the last step of the one before happens in
    ``c``; its first step is then possible in ``c + 1``. A padding step and an empty transfer's step
    happen at once, a data step when a beat is valid; `beat.ready` is high exactly while the next
    step is a data step. What a step writes is presented in the cycle after it, and so is `done`
    after a transfer's last step. A pad of micro-ops is one zero a step.

    A step that would write beyond the scratchpad (SCRATCHPAD), else takes a beat with an error
    (BUS_ERROR), writes nothing; `fault` is valid from the cycle after it and no step follows until
    reset. No step happens while `halt`.

    Parameters
    ----------
    cfg : Config
    memory_types : sequence of MemoryType
    index_bits : int
        Width of a descriptor's index, by which a fault names it.

    Members
    -------
    i : ``In(stream(descriptor_layout))``
    beat : ``In(stream(beat_layout))``
    inp, wgt, uop, acc : write ports of those scratchpads that the memory types name
    done : ``Out(1)``, strobe
    fault : ``Out(FAULT_LAYOUT)``
    halt : ``In(1)``
    """

    def __init__(
        self,
        cfg: Config,
        memory_types: Sequence[MemoryType],
        *,
        index_bits: int = INDEX_BITS,
    ) -> None:
        self.cfg = cfg
        self.index_bits = index_bits
        self.memory_types = tuple(memory_types)
        super().__init__(
            {
                "i": In(stream.Signature(descriptor_layout(cfg, index_bits))),
                "beat": In(stream.Signature(beat_layout(cfg))),
                **write_ports(cfg, memory_types),
                "done": Out(1),
                "fault": Out(FAULT_LAYOUT),
                "halt": In(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        self._has_uop = MemoryType.UOP in self.memory_types
        self._cur = Signal(descriptor_layout(self.cfg, self.index_bits))
        self._phase = Signal(Phase)
        self._stage = Signal(Stage)
        self._addr = Signal(ADDR_BITS)
        self._left = Signal(X_TOTAL_BITS)
        self._is_uop = Signal()
        if self._has_uop:
            m.d.comb += self._is_uop.eq(self._cur.memory_type == MemoryType.UOP)
        self._steps(m)
        self._words(m)
        self._walk(m)
        self._check(m)
        self._write(m)
        return m

    # ---- when ------------------------------------------------------------------------------
    def _steps(self, m: Module) -> None:
        active = Signal()
        may_step = Signal()
        self._is_data = Signal()
        self._step = Signal()
        self._last = Signal()
        self._take = Signal()
        finish = self._step & self._last
        m.d.comb += [
            may_step.eq(active & ~self.halt & ~self.fault.valid),
            self._is_data.eq((self._phase == Phase.DATA) & ~self._cur.empty),
            self.beat.ready.eq(may_step & self._is_data),
            self._step.eq(may_step & (~self._is_data | self.beat.valid)),
            self.i.ready.eq(~active | finish),
            self._take.eq(self.i.valid & self.i.ready),
        ]
        with m.If(self.i.ready):
            m.d.sync += active.eq(self.i.valid)

    # ---- how many elements a step moves ----------------------------------------------------
    def _words(self, m: Module) -> None:
        """`_room`: elements that the step can move at most; `_moved`: those that it does.

        A step of slices moves one element, with its last slice; a beat of micro-ops moves those
        from `_offset` to the end of the beat or of the row.
        """
        banks = uop_banks(self.cfg)
        bits = log2_exact(banks)
        slices = {
            t: (1 if t == MemoryType.UOP else isa(self.cfg).elem_bytes(t) // self.cfg.bus_bytes)
            for t in self.memory_types
        }
        self._slice = Signal(max(1, (max(slices.values()) - 1).bit_length()))
        slices_m1 = select(m, self._cur.memory_type, {t: n - 1 for t, n in slices.items()})
        elem_last = Signal()
        self._segment_last = Signal()
        self._room = Signal(bits + 1)
        self._count = Signal(bits + 1)
        self._moved = Signal(bits + 1)
        self._offset = offset = Signal(bits)
        m.d.comb += elem_last.eq(~self._is_data | (self._slice == slices_m1))
        with m.If(self._step & self._is_data):
            m.d.sync += self._slice.eq(Mux(elem_last, 0, self._slice + 1))

        uop_beat = self._is_uop & self._is_data
        fits = Signal()
        m.d.comb += [
            self._room.eq(Mux(uop_beat, banks - offset, 1)),
            fits.eq(self._left <= self._room),
            self._segment_last.eq(elem_last & fits),
            self._count.eq(Mux(fits, self._left, self._room)),
            self._moved.eq(Mux(elem_last, self._count, 0)),
        ]
        if not (self._has_uop and bits):
            return
        # The place of the first micro-op in a row's first beat; later beats begin at 0.
        row_offset = Signal(bits)
        next_offset = (row_offset + self._cur.word_stride)[:bits]
        with m.If(self._take):
            m.d.sync += [row_offset.eq(self.i.p.word_offset), offset.eq(self.i.p.word_offset)]
        with m.Elif(self._step & self._is_data):
            m.d.sync += offset.eq(Mux(self._segment_last, next_offset, 0))
            with m.If(self._segment_last):
                m.d.sync += row_offset.eq(next_offset)

    # ---- where -----------------------------------------------------------------------------
    def _walk(self, m: Module) -> None:
        cur, left = self._cur, self._left
        rows = Signal(SIZE_BITS)
        row_done = Signal()
        stage_done = Signal()
        block_done = Signal()
        m.d.comb += [
            row_done.eq(
                (self._phase == Phase.RIGHT) | ((self._phase == Phase.DATA) & (cur.x_pad_1 == 0))
            ),
            stage_done.eq(rows == 1),
            block_done.eq(
                (self._stage == Stage.BOTTOM) | ((self._stage == Stage.DATA) & (cur.y_pad_1 == 0))
            ),
            self._last.eq(cur.empty | (self._segment_last & row_done & stage_done & block_done)),
        ]

        def begin_row(source: data.View, padding: Value, x_total: Value) -> None:
            with m.If(padding):
                m.d.sync += [self._phase.eq(Phase.RIGHT), left.eq(x_total)]
            with m.Elif(source.x_pad_0 != 0):
                m.d.sync += [self._phase.eq(Phase.LEFT), left.eq(source.x_pad_0)]
            with m.Else():
                m.d.sync += [self._phase.eq(Phase.DATA), left.eq(source.x_size)]

        # Added up again, which costs less than to keep it.
        x_total = Signal(X_TOTAL_BITS)
        m.d.comb += x_total.eq(cur.x_size + (cur.x_pad_0 + cur.x_pad_1))
        with m.If(self._take):
            new = self.i.p
            has_top = new.y_pad_0 != 0
            m.d.sync += [
                cur.eq(new),
                self._addr.eq(new.sram_base),
                self._stage.eq(Mux(has_top, Stage.TOP, Stage.DATA)),
                rows.eq(Mux(has_top, new.y_pad_0, new.y_size)),
            ]
            begin_row(new, has_top, new.x_total)
        with m.Elif(self._step):
            m.d.sync += [self._addr.eq(self._addr + self._moved), left.eq(left - self._moved)]
            with m.If(self._segment_last):
                with m.If(~row_done):
                    with m.If(self._phase == Phase.LEFT):
                        m.d.sync += [self._phase.eq(Phase.DATA), left.eq(cur.x_size)]
                    with m.Else():
                        m.d.sync += [self._phase.eq(Phase.RIGHT), left.eq(cur.x_pad_1)]
                with m.Elif(~stage_done):
                    m.d.sync += rows.eq(rows - 1)
                    begin_row(cur, self._stage != Stage.DATA, x_total)
                with m.Else():
                    to_data = self._stage == Stage.TOP
                    m.d.sync += [
                        self._stage.eq(Mux(to_data, Stage.DATA, Stage.BOTTOM)),
                        rows.eq(Mux(to_data, cur.y_size, cur.y_pad_1)),
                    ]
                    begin_row(cur, ~to_data, x_total)

    # ---- faults and completion -------------------------------------------------------------
    def _check(self, m: Module) -> None:
        final = Signal(ADDR_BITS)
        beyond = Signal()
        error = Signal()
        self._writes = Signal()
        x = isa(self.cfg)
        m.d.comb += [
            final.eq(self._addr + self._count - 1),
            beyond.eq(
                select(
                    m,
                    self._cur.memory_type,
                    {t: final[log2_exact(x.depth(t)) :].any() for t in self.memory_types},
                )
                & ~self._cur.empty
            ),
            error.eq(self._is_data & self.beat.p.error),
            self._writes.eq(self._step & ~self._cur.empty & ~beyond & ~error),
        ]
        m.d.sync += self.done.eq(self._step & self._last & ~beyond & ~error)
        with m.If(self._step & (beyond | error)):
            m.d.sync += [
                self.fault.valid.eq(1),
                self.fault.cause.eq(Mux(beyond, FaultCause.SCRATCHPAD, FaultCause.BUS_ERROR)),
                self.fault.index.eq(self._cur.index),
            ]

    # ---- write ports -----------------------------------------------------------------------
    def _write(self, m: Module) -> None:
        bus_bits = self.cfg.bus.data_bits
        word = Signal(bus_bits)
        register = Signal(bus_bits)
        m.d.comb += word.eq(self.beat.p.data)
        m.d.sync += register.eq(word)
        with m.If(~self._is_data):
            m.d.sync += register.eq(self._pad_word(m))
        for name in ("inp", "wgt"):
            if MemoryType[name.upper()] in self.memory_types:
                self._write_slices(m, name, register)
        if MemoryType.ACC in self.memory_types:
            self._write_acc(m, register)
        if self._has_uop:
            self._write_uops(m, word, register)

    def _pad_word(self, m: Module) -> Value:
        """A bus word of padding; AccWrite makes its own."""
        cfg = self.cfg
        if self._has_uop or not cfg.has("pad_min"):
            return Cat()
        widths = {MemoryType.INP: cfg.inp_bits, MemoryType.WGT: cfg.wgt_bits}
        least = {
            t: sum(1 << k for k in range(widths[t] - 1, cfg.bus.data_bits, widths[t]))
            for t in self.memory_types
        }
        return Mux(self._cur.pad_min, select(m, self._cur.memory_type, least), 0)

    def _write_slices(self, m: Module, name: str, register: Signal) -> None:
        port = getattr(self, name)
        m.d.sync += [
            port.en.eq(self._writes & (self._cur.memory_type == MemoryType[name.upper()])),
            port.addr.eq(self._addr),
            port.slice.eq(self._slice),
            port.whole.eq(~self._is_data),
        ]
        m.d.comb += port.data.eq(register)

    def _write_acc(self, m: Module, register: Signal) -> None:
        acc = self.acc
        narrow = self._cur.memory_type == MemoryType.ACC_8BIT
        ratio = self.cfg.acc_bits // 8
        mask = Cat(self._slice == Mux(narrow, k // ratio, k) for k in range(len(acc.mask)))
        m.d.sync += [
            acc.en.eq(self._writes & ~self._is_uop),
            acc.addr.eq(self._addr),
            acc.mask.eq(Mux(self._is_data, mask, ~0)),
            acc.narrow.eq(narrow),
            acc.pad.eq(~self._is_data),
            acc.pad_min.eq(self._cur.pad_min),
        ]
        m.d.comb += acc.data.eq(register)

    def _write_uops(self, m: Module, word: Signal, register: Signal) -> None:
        """Bank ``b`` takes word ``b - (addr - offset)`` of the beat; others are not rotated."""
        uop, cfg = self.uop, self.cfg
        banks = uop_banks(cfg)
        bits = log2_exact(banks)
        low, row = self._addr[:bits], self._addr[bits : cfg.log2_uop_depth]
        next_row = Signal(len(row))
        rotation = Signal(bits)
        m.d.comb += [
            next_row.eq(row + 1),
            rotation.eq(Mux(self._is_uop, low - self._offset, 0)),
            word.eq(_rotate_left(self.beat.p.data, rotation, cfg.uop_bits)),
        ]
        for b in range(banks):
            place = Signal(bits, name=f"place{b}")
            m.d.comb += place.eq(b - low)
            m.d.sync += [
                uop.en[b].eq(self._writes & self._is_uop & (place < self._count)),
                uop.row[b].eq(Mux(b < low, next_row, row)),
            ]
            m.d.comb += uop.data[b].eq(register.word_select(b, cfg.uop_bits))


def _rotate_left(value: Value, amount: Value, word_bits: int) -> Value:
    """Rotate by `amount` words, in logarithmic stages."""
    for k in range(len(amount)):
        value = Mux(amount[k], value.rotate_left(word_bits << k), value)
    return value
