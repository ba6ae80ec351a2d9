"""Two-dimensional DRAM transfers as bursts: one a cycle, across rows and transfers."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from covta.hw.faults import FaultCause
from covta.hw.microarchitecture import PAGE_BYTES
from covta.hw.params import Config, log2_exact
from covta.hw.rtl.interfaces import FAULT_LAYOUT, INDEX_BITS, burst_layout

SIZE_BITS = 16
"""Bits of `x_size`, `y_size` and `x_stride`, in elements."""


def block_layout(cfg: Config, size_bits: int, index_bits: int = INDEX_BITS) -> data.StructLayout:
    """A transfer for :class:`BurstGenerator`.

    `addr` is the byte address of the first element with one bit more than the bus has: set if the
    address overflowed. `rows` and `row_bytes` are at least 1. `index` names it in a fault.
    """
    return data.StructLayout(
        {
            "addr": cfg.bus.addr_bits + 1,
            "rows": SIZE_BITS,
            "row_bytes": size_bits,
            "stride_bytes": size_bits,
            "index": index_bits,
        }
    )


def saturate(value: Value, addr_bits: int) -> Value:
    """Any sum as an address with an overflow bit on top (``addr_bits + 1`` bits)."""
    value = Value.cast(value)
    return Cat(value[:addr_bits], value[addr_bits:].any())


def dram_address(
    m: Module,
    cfg: Config,
    base_ptr: data.View,
    memory_type: Value,
    dram_base: Value,
    log2_bytes: dict,
) -> Value:
    """``base_ptr[memory_type] + dram_base * elem_bytes``, saturated.

    Parameters
    ----------
    log2_bytes : dict of int to int
        Logarithm of the DRAM bytes of an element by the memory types that can occur.
    """
    (base, offset) = (
        select(m, memory_type, {k: base_ptr[k] for k in log2_bytes}),
        select(m, memory_type, {k: dram_base << shift for k, shift in log2_bytes.items()}),
    )
    return saturate(base + offset, cfg.bus.addr_bits)


def select(m: Module, key: Value, choices: dict) -> Value:
    """The choice whose key matches; the last choice stands for all other keys."""
    values = {k: Value.cast(v) for k, v in choices.items()}
    result = Signal(max(len(v) for v in values.values()))
    *first, last = values.items()
    with m.Switch(key):
        for k, value in first:
            with m.Case(k):
                m.d.comb += result.eq(value)
        with m.Default():
            m.d.comb += result.eq(last[1])
    return result


class BurstGenerator(wiring.Component):
    """Cuts the rows of a transfer into bursts.

    Row ``y`` begins at ``addr + y * stride_bytes``; its bursts are whole beats, at most
    ``cfg.bus.max_burst_beats`` long, as long as possible, and cross no 4 KiB boundary. A row that
    does not begin or end on a beat is widened to whole beats.

    Timing: a row stage, which reads the transfer where it is offered, and a burst stage. A transfer
    offered from ``u`` on, while the row stage is empty, presents its first burst in ``u + 2`` or,
    if bursts before it still wait then, in the cycle after the last of them is accepted. The burst
    stage takes a row when it is empty or its row's last burst is accepted; with the transfer's last
    row `i.ready` is high, and the row stage is empty in the next cycle. While `o.ready` a burst
    leaves every cycle, also from row to row and, if the last row has two bursts or more, from
    transfer to transfer; else there is one cycle without.

    A burst not inside the window is not presented: `fault` is valid instead, from the cycle in
    which it would have been presented, and the generator stands still until reset. Nothing is
    presented while `halt`.

    Parameters
    ----------
    cfg : Config
    size_bits : int
        Width of `row_bytes` and `stride_bytes`.
    granule_bytes : int
        Every address, size and stride is a multiple of this; at most a beat, which is the default.
    index_bits : int
        Width of `index`.

    Members
    -------
    i : ``In(stream(block_layout))``, which holds its payload until it is taken
    window_base, window_last : ``In(addr_bits)``, first and last byte address allowed
    o : ``Out(stream(burst_layout))``
    fault : ``Out(FAULT_LAYOUT)``, DRAM_WINDOW
    halt : ``In(1)``
    idle : ``Out(1)``, no burst left to present
    """

    def __init__(
        self,
        cfg: Config,
        *,
        size_bits: int,
        granule_bytes: int | None = None,
        index_bits: int = INDEX_BITS,
    ) -> None:
        self.cfg = cfg
        self.index_bits = index_bits
        self.size_bits = size_bits
        self.granule_bytes = granule_bytes or cfg.bus_bytes
        assert self.granule_bytes <= cfg.bus_bytes
        super().__init__(
            {
                "i": In(stream.Signature(block_layout(cfg, size_bits, index_bits))),
                "window_base": In(cfg.bus.addr_bits),
                "window_last": In(cfg.bus.addr_bits),
                "o": Out(stream.Signature(burst_layout(cfg))),
                "fault": Out(FAULT_LAYOUT),
                "halt": In(1),
                "idle": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        self._row_valid = Signal()
        self._row_taken = Signal()
        self._rows(m)
        self._bursts(m)
        m.d.comb += self.idle.eq(~self._row_valid & ~self._burst_valid)
        return m

    def _rows(self, m: Module) -> None:
        """Row stage: address of the next row; addresses and sizes in granules."""
        shift = log2_exact(self.granule_bytes)
        addr_bits = self.cfg.bus.addr_bits
        self._row_addr = addr = Signal(addr_bits + 1 - shift)
        self._row_units_m1 = units_m1 = Signal(self.size_bits - shift)
        rows_m1 = Signal(SIZE_BITS)
        last = Signal()
        i = self.i
        m.d.comb += [last.eq(rows_m1 == 0), i.ready.eq(self._row_taken & last)]
        with m.If(~self._row_valid):
            m.d.sync += [
                self._row_valid.eq(i.valid),
                addr.eq(i.p.addr[shift:]),
                units_m1.eq(i.p.row_bytes[shift:] - 1),
                rows_m1.eq(i.p.rows - 1),
            ]
        with m.Elif(self._row_taken):
            m.d.sync += [
                self._row_valid.eq(~last),
                addr.eq(saturate(addr + i.p.stride_bytes[shift:], addr_bits - shift)),
                rows_m1.eq(rows_m1 - 1),
            ]

    def _bursts(self, m: Module) -> None:
        """Burst stage: beats left of one row, and the length of its next burst."""
        cfg = self.cfg
        beat_shift = log2_exact(cfg.bus_bytes)
        split = beat_shift - log2_exact(self.granule_bytes)
        page_bits = log2_exact(PAGE_BYTES) - beat_shift
        length_bits = min(log2_exact(cfg.bus.max_burst_beats), page_bits)

        self._burst_valid = valid = Signal()
        addr = Signal(cfg.bus.addr_bits + 1 - beat_shift)
        beats_m1 = Signal(len(self._row_units_m1) - split + 1)
        length_m1 = Signal(length_bits)
        row_last = Signal()
        index = Signal(self.index_bits)
        accepted = Signal()
        m.d.comb += self._row_taken.eq(self._row_valid & (~valid | (accepted & row_last)))

        # What follows: the next burst of the row, or the next row's first. Which of them does not
        # depend on whether the burst is accepted.
        begin = ~valid | row_last
        next_addr = Signal.like(addr)
        rest = Signal.like(beats_m1)
        with m.If(begin):
            offset = self._row_addr[:split]
            m.d.comb += [
                next_addr.eq(self._row_addr[split:]),
                rest.eq((self._row_units_m1 + offset)[split:]),
            ]
        with m.Else():
            m.d.comb += [
                next_addr.eq((Cat(1, addr) + Cat(1, length_m1))[1:]),  # one more than their sum
                rest.eq(beats_m1 - length_m1 - 1),
            ]
        # Its length is the shortest of the rest of the row, of the page, and of the longest burst.
        page = Signal(length_bits)
        row = Signal(length_bits)
        row_ends = Signal()
        to_page_m1 = ~next_addr[:page_bits]
        row_long = rest[length_bits:].any()
        m.d.comb += [
            page.eq(to_page_m1[:length_bits] | _all(to_page_m1[length_bits:].any(), length_bits)),
            row.eq(rest[:length_bits] | _all(row_long, length_bits)),
            row_ends.eq(row <= page),
        ]
        # It lies in one page; if that is the window's last, it is to end with the window or before.
        window_beat = self.window_last[beat_shift:]
        window_ends_beat = self.window_last[:beat_shift].all()
        room_m1 = Signal(page_bits)
        has_room = Signal()
        next_inside = Signal()
        page_addr = next_addr[page_bits:]
        m.d.comb += [
            Cat(room_m1, has_room).eq(window_beat[:page_bits] + to_page_m1 + window_ends_beat),
            next_inside.eq(
                (Cat(Const(0, beat_shift), next_addr) >= self.window_base)
                & (page_addr <= window_beat[page_bits:])
                & (
                    (page_addr != window_beat[page_bits:])
                    | (has_room & ((row <= room_m1) | (page <= room_m1)))
                )
            ),
        ]
        self._burst_inside = inside = Signal()
        with m.If(~valid | accepted):
            m.d.sync += [
                valid.eq(self._row_valid | ~begin),
                addr.eq(next_addr),
                beats_m1.eq(rest),
                length_m1.eq(Mux(row_ends, row, page)),
                row_last.eq(~row_long & row_ends),
                inside.eq(next_inside),
            ]
        with m.If(self._row_taken):
            m.d.sync += index.eq(self.i.p.index)
        m.d.comb += [
            accepted.eq(self.o.valid & self.o.ready),
            self.o.valid.eq(valid & inside & ~self.halt),
            self.o.p.addr.eq(Cat(Const(0, beat_shift), addr)),
            self.o.p.beats_m1.eq(length_m1),
            self.fault.valid.eq(valid & ~inside),
            self.fault.cause.eq(FaultCause.DRAM_WINDOW),
            self.fault.index.eq(index),
        ]


def _all(bit: Value, width: int) -> Value:
    return bit.replicate(width)
