"""LOAD instructions from DRAM into scratchpads, with many bursts in flight across instructions."""

from __future__ import annotations

from collections.abc import Sequence

from amaranth.hdl import Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from covta.hw.isa import MemoryType, isa
from covta.hw.microarchitecture import LOADER_DEPTH as IN_FLIGHT
from covta.hw.params import Config, log2_exact
from covta.hw.rtl.burst_generator import (
    SIZE_BITS,
    BurstGenerator,
    block_layout,
    dram_address,
    select,
)
from covta.hw.rtl.interfaces import (
    FAULT_LAYOUT,
    INDEX_BITS,
    MEMORY_TYPES,
    ReadClient,
    transfer_layout,
)
from covta.hw.rtl.receiver import Receiver, descriptor_layout, write_ports

SLOT_BITS = (IN_FLIGHT - 1).bit_length()
"""What names a transfer in flight inside the Loader; its index in the stream is kept once."""


class Loader(wiring.Component):
    """Executes checked LOADs in order: addresses run ahead of data by up to `IN_FLIGHT` transfers.

    Timing of a transfer accepted in cycle ``t``:

    - `i.ready` is high while fewer than `IN_FLIGHT` transfers are in flight; one counts from the
      cycle after it was accepted up to and including the cycle of its `done`.
    - Its first burst is presented to the client in ``t + 3`` at the earliest: non-empty transfers
      wait in a queue and enter the BurstGenerator's row stage from ``t + 1`` on, as soon as that is
      empty. An empty transfer (``x_size`` or ``y_size`` 0) takes no cycle of it.
    - Its first step in the Receiver (see there) is possible in ``t + 2`` or the cycle after the
      last step of the transfer before it, whichever is later; so nothing is written before
      ``t + 3``.
    - `done` is high in the cycle after its last step, in which its last element is presented to the
      memory. An empty transfer is one step that writes nothing.

    `busy` is high while a transfer is in flight in that sense. When both halves report a fault in
    one cycle, the Receiver's wins: its transfer is the older one. Base pointers are multiples of a
    beat.

    Parameters
    ----------
    cfg : Config
    memory_types : sequence of MemoryType
        INP and WGT, or UOP, ACC and ACC_8BIT.

    Members
    -------
    i : ``In(stream(transfer_layout))``; its memory type is one of `memory_types`
    base_ptr, window_base, window_last : configuration
    client : ``Out(ReadClient)``
    inp, wgt, uop, acc : write ports of those scratchpads that the memory types name
    done : ``Out(1)``, strobe, one a transfer, in order
    done_index : ``Out(24)``, index of the transfer that `done` is about, unless there is a fault
    busy : ``Out(1)``
    fault : ``Out(FAULT_LAYOUT)``, holds until reset
    halt : ``In(1)``
    """

    def __init__(self, cfg: Config, memory_types: Sequence[MemoryType]) -> None:
        self.cfg = cfg
        self.memory_types = tuple(memory_types)
        self._ports = write_ports(cfg, memory_types)
        super().__init__(
            {
                "i": In(stream.Signature(transfer_layout(cfg))),
                "base_ptr": In(data.ArrayLayout(cfg.bus.addr_bits, MEMORY_TYPES)),
                "window_base": In(cfg.bus.addr_bits),
                "window_last": In(cfg.bus.addr_bits),
                "client": Out(ReadClient(cfg)),
                **self._ports,
                "done": Out(1),
                "done_index": Out(INDEX_BITS),
                "busy": Out(1),
                "fault": Out(FAULT_LAYOUT),
                "halt": In(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        self._empty = Signal()
        self._accepted = Signal()
        i = self.i
        m.d.comb += [
            self._empty.eq((i.p.x_size == 0) | (i.p.y_size == 0)),
            self._accepted.eq(i.valid & i.ready),
        ]
        self._slot = Signal(SLOT_BITS)
        m.d.sync += self._slot.eq(self._slot + self._accepted)
        generator = self._generate(m)
        receiver = self._receive(m)
        in_flight = Signal(range(IN_FLIGHT + 1))
        m.d.sync += in_flight.eq(in_flight + self._accepted - self.done)
        m.d.comb += [
            i.ready.eq(in_flight != IN_FLIGHT),
            self.busy.eq(in_flight != 0),
            self.done.eq(receiver.done),
        ]
        self._report(m, generator, receiver)
        return m

    def _report(self, m: Module, generator: BurstGenerator, receiver: Receiver) -> None:
        """Faults, and the index of whom they or `done` are about."""
        m.submodules.indices = indices = Memory(shape=INDEX_BITS, depth=IN_FLIGHT, init=[])
        write, read = indices.write_port(), indices.read_port(domain="comb")
        done_slot = Signal(SLOT_BITS)
        m.d.sync += done_slot.eq(done_slot + self.done)
        m.d.comb += [
            write.addr.eq(self._slot),
            write.data.eq(self.i.p.index),
            write.en.eq(self._accepted),
            read.addr.eq(done_slot),
            self.done_index.eq(read.data),
            self.fault.eq(generator.fault),
            self.fault.index.eq(read.data),
        ]
        with m.If(receiver.fault.valid):
            m.d.comb += [
                self.fault.valid.eq(1),
                self.fault.cause.eq(receiver.fault.cause),
                read.addr.eq(receiver.fault.index),
            ]
        with m.Elif(generator.fault.valid):
            m.d.comb += read.addr.eq(generator.fault.index)

    def _generate(self, m: Module) -> BurstGenerator:
        cfg = self.cfg
        elem_bytes = {t: isa(cfg).elem_bytes(t) for t in self.memory_types}
        log2_bytes = {t: log2_exact(n) for t, n in elem_bytes.items()}
        size_bits = SIZE_BITS + max(log2_bytes.values())
        m.submodules.generator = generator = BurstGenerator(
            cfg,
            size_bits=size_bits,
            granule_bytes=min(cfg.bus_bytes, *elem_bytes.values()),
            index_bits=SLOT_BITS,
        )
        layout = data.StructLayout(
            {
                "memory_type": 3,
                "dram_base": 32,
                "y_size": SIZE_BITS,
                "x_size": SIZE_BITS,
                "x_stride": SIZE_BITS,
                "index": SLOT_BITS,
            }
        )
        m.submodules.ahead = ahead = SyncFIFO(width=layout.size, depth=IN_FLIGHT)
        new = Signal(layout)
        head = data.View(layout, ahead.r_data)
        m.d.comb += [new[name].eq(self.i.p[name]) for name in layout.members]
        m.d.comb += new.index.eq(self._slot)

        def to_bytes(elems: Signal) -> Signal:
            choices = {t: elems << shift for t, shift in log2_bytes.items()}
            return select(m, head.memory_type, choices)

        block = Signal(block_layout(cfg, size_bits, SLOT_BITS))
        m.d.comb += [
            ahead.w_data.eq(new),
            ahead.w_en.eq(self._accepted & ~self._empty),
            block.addr.eq(
                dram_address(m, cfg, self.base_ptr, head.memory_type, head.dram_base, log2_bytes)
            ),
            block.rows.eq(head.y_size),
            block.row_bytes.eq(to_bytes(head.x_size)),
            block.stride_bytes.eq(to_bytes(head.x_stride)),
            block.index.eq(head.index),
            generator.i.valid.eq(ahead.r_rdy),
            generator.i.payload.eq(block),
            ahead.r_en.eq(generator.i.ready),
            generator.window_base.eq(self.window_base),
            generator.window_last.eq(self.window_last),
            generator.halt.eq(self.halt),
        ]
        wiring.connect(m, generator.o, wiring.flipped(self.client.request))
        return generator

    def _receive(self, m: Module) -> Receiver:
        m.submodules.receiver = receiver = Receiver(
            self.cfg, self.memory_types, index_bits=SLOT_BITS
        )
        layout = descriptor_layout(self.cfg, SLOT_BITS)
        m.submodules.descriptors = queue = SyncFIFO(width=layout.size, depth=IN_FLIGHT)
        new = Signal(layout)
        p = self.i.p
        m.d.comb += [new[name].eq(p[name]) for name in layout.members if name in p.shape().members]
        m.d.comb += [
            new.index.eq(self._slot),
            new.empty.eq(self._empty),
            new.x_total.eq(p.x_pad_0 + p.x_size + p.x_pad_1),
            queue.w_data.eq(new),
            queue.w_en.eq(self._accepted),
            receiver.i.valid.eq(queue.r_rdy),
            receiver.i.payload.eq(queue.r_data),
            queue.r_en.eq(receiver.i.ready),
            receiver.halt.eq(self.halt),
        ]
        if MemoryType.UOP in self.memory_types:
            m.d.comb += [new.word_offset.eq(p.dram_base), new.word_stride.eq(p.x_stride)]
        wiring.connect(m, wiring.flipped(self.client.beat), receiver.beat)
        for name in self._ports:
            wiring.connect(m, getattr(receiver, name), wiring.flipped(getattr(self, name)))
        return receiver
