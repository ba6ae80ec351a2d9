"""Fetch: reads the instruction stream and hands every instruction to the queue of its unit."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out

from covta.hw.faults import FaultCause
from covta.hw.isa import INSN_BYTES, MemoryType, Opcode, Unit, isa
from covta.hw.microarchitecture import PAGE_BYTES, fetch_buffer_beats, fetch_burst_beats
from covta.hw.params import Config, log2_exact
from covta.hw.rtl.interfaces import FAULT_LAYOUT, INDEX_BITS, INSN_LAYOUT, ReadClient, layout_of


class Fetch(wiring.Component):
    """Reads `insn_count` instructions from `insn_addr` and routes them, in order.

    Four stages: request, buffer, join, queues. A beat that holds the stream's first or last
    instruction is fetched whole. A burst is the least of: the beats left, `fetch_burst_beats`, the
    beats to the next 4 KiB boundary; it is generated when the buffer has that many free beats that
    no earlier burst reserved.

    Timing, with `start` in cycle ``s``:

    - The first burst is generated in ``s + 1``. A burst generated in ``g`` is offered on
      ``client.request`` from ``g + 1`` on; the next is generated at the earliest in the cycle in
      which the offer is accepted. So bursts go out one a cycle.
    - A beat taken in ``b`` (always at once: ``client.beat.ready`` is 1) can leave the buffer from
      ``b + 1`` on, one a cycle, into the join register, whenever that is not full or hands over its
      last instruction in that cycle. A beat that leaves in ``j`` frees its room for a burst
      generated in ``j + 1``.
    - The join register is full in the cycle after it took the last beat of an instruction (a bus of
      16 bytes or fewer) or a beat (a wider one). While full it hands one instruction a cycle to the
      queue of its unit, if that has room, from the first to the last in the beat that belong to
      the stream.
    - An instruction handed over in ``h`` is offered by its queue from ``h + 1`` on.

    Faults stop fetch; `fault` is valid from the cycle after the check until reset:

    - a burst outside the window, checked in the cycle in which it would be generated (room or not):
      DRAM_WINDOW, index of the first instruction of the burst;
    - BUS_ERROR when an instruction with a beat in error is first whole in the join register, and
      ILLEGAL_INSTRUCTION when one with an unknown opcode is, queue full or not; they win over the
      window's;
    - MISALIGNED, index 0, on `start` with an `insn_addr` that is no multiple of 16.

    `halt` stops generation and handing over in its cycle; an offered burst stays offered.

    Members
    -------
    start : ``In(1)``, strobe; not before the last stream is used up
    insn_addr, insn_count : ``In``, held from `start` until the stream is used up
    window_base, window_last : ``In``, first and last byte address allowed
    client : ``Out(ReadClient)``
    load, compute, store : ``Out(stream(INSN_LAYOUT))``, outputs of the queues
    insn_strobe : ``Out(1)``, an instruction is handed to its queue
    fault : ``Out(FAULT_LAYOUT)``
    halt : ``In(1)``
    idle : ``Out(1)``, every instruction handed over and taken from its queue
    clock_request : ``Out(1)``, see `covta.hw.rtl.clocks`
    """

    def __init__(self, cfg: Config) -> None:
        self.cfg = cfg
        addr_bits = cfg.bus.addr_bits
        super().__init__(
            {
                "start": In(1),
                "insn_addr": In(addr_bits),
                "insn_count": In(INDEX_BITS),
                "window_base": In(addr_bits),
                "window_last": In(addr_bits),
                "client": Out(ReadClient(cfg)),
                "load": Out(stream.Signature(INSN_LAYOUT)),
                "compute": Out(stream.Signature(INSN_LAYOUT)),
                "store": Out(stream.Signature(INSN_LAYOUT)),
                "insn_strobe": Out(1),
                "fault": Out(FAULT_LAYOUT),
                "halt": In(1),
                "idle": Out(1),
                "clock_request": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        self._stop = Signal()
        m.d.comb += self._stop.eq(self.halt | self.fault.valid)
        self._buffer(m)
        self._request(m)
        self._join(m)
        self._route(m)
        self._report(m)
        return m

    # ---- shape of the stream in beats ------------------------------------------------------
    @property
    def _log2_beats_per_insn(self) -> int:
        return max(log2_exact(INSN_BYTES) - log2_exact(self.cfg.bus_bytes), 0)

    @property
    def _log2_insns_per_beat(self) -> int:
        return max(log2_exact(self.cfg.bus_bytes) - log2_exact(INSN_BYTES), 0)

    def _first_slot(self) -> Value:
        """Place of the stream's first instruction in its beat, while `start`."""
        low = log2_exact(INSN_BYTES)
        return self.insn_addr[low : low + self._log2_insns_per_beat]

    # ---- buffer ----------------------------------------------------------------------------
    def _buffer(self, m: Module) -> None:
        depth = fetch_buffer_beats(self.cfg)
        beat = self.client.beat
        m.submodules.buffer = self._fifo = fifo = SyncFIFO(
            width=self.cfg.bus.data_bits + 1, depth=depth
        )
        self._beat_taken = Signal()
        m.d.comb += [
            beat.ready.eq(1),
            fifo.w_en.eq(beat.valid),
            fifo.w_data.eq(Cat(beat.p.data, beat.p.error)),
            fifo.r_en.eq(self._beat_taken),
        ]

    # ---- requests --------------------------------------------------------------------------
    def _request(self, m: Module) -> None:
        """Generates bursts; the length of each is in a register when its turn comes."""
        cfg = self.cfg
        beat_shift = log2_exact(cfg.bus_bytes)
        depth, longest = fetch_buffer_beats(cfg), fetch_burst_beats(cfg)
        byte_bits = log2_exact(PAGE_BYTES)
        page_bits = byte_bits - beat_shift
        length_bits = log2_exact(longest)

        more = Signal()
        last = Signal()
        addr = Signal(cfg.bus.addr_bits - beat_shift + 1)
        left_m1 = Signal(INDEX_BITS + self._log2_beats_per_insn)
        length_m1 = Signal(length_bits)
        free = Signal(range(depth + 1), init=depth)
        inside = Signal()
        wanted = Signal()
        generate = Signal()
        self._generate = generate

        # The next burst: the shortest of the rest, the page, the longest.
        next_addr = Signal.like(addr)
        rest_m1 = Signal.like(left_m1)
        step_m1 = Mux(self.start, 0, length_m1)
        whole = Mux(self.start, self.insn_addr[beat_shift:], addr)
        rest = Mux(self.start, self._beats(), left_m1)
        page = Signal(length_bits)
        row = Signal(length_bits)
        to_page_m1 = ~next_addr[:page_bits]
        row_long = rest_m1[length_bits:].any()
        row_ends = Signal()
        m.d.comb += [
            next_addr.eq((Cat(~self.start, whole) + Cat(1, step_m1))[1:]),
            rest_m1.eq(rest - step_m1 - 1),
            page.eq(
                to_page_m1[:length_bits] | to_page_m1[length_bits:].any().replicate(length_bits)
            ),
            row.eq(rest_m1[:length_bits] | row_long.replicate(length_bits)),
            row_ends.eq(row <= page),
        ]
        with m.If(self.start | generate):
            m.d.sync += [
                more.eq(Mux(self.start, self.insn_count != 0, ~last)),
                addr.eq(next_addr),
                left_m1.eq(rest_m1),
                length_m1.eq(Mux(row_ends, row, page)),
                last.eq(~row_long & row_ends),
            ]

        # A burst lies in one page, so that only its place there depends on its length.
        byte_first = Cat(Const(0, beat_shift), addr)
        end = Signal(page_bits)
        end_inside = Signal()
        request = self.client.request
        m.d.comb += [
            end.eq(addr[:page_bits] + length_m1),
            end_inside.eq(
                Cat(Const((1 << beat_shift) - 1, beat_shift), end) <= self.window_last[:byte_bits]
            ),
            inside.eq(
                (byte_first >= self.window_base)
                & (Cat(1, addr[page_bits:]) <= Cat(end_inside, self.window_last[byte_bits:]))
            ),
            wanted.eq(more & (~request.valid | request.ready) & ~self._stop),
            generate.eq(wanted & inside & (free > length_m1)),
        ]
        self._outside = Signal()
        m.d.comb += self._outside.eq(wanted & ~inside)
        m.d.sync += free.eq(free - Mux(generate, length_m1 + 1, 0) + self._beat_taken)
        with m.If(generate):
            m.d.sync += [
                request.valid.eq(1),
                request.p.addr.eq(byte_first),
                request.p.beats_m1.eq(length_m1),
            ]
        with m.Elif(request.ready):
            m.d.sync += request.valid.eq(0)

        # The first beat of the stream may begin before its first instruction.
        low = log2_exact(INSN_BYTES)
        ahead = Signal(INDEX_BITS + 1)
        self._asked_index = Signal(INDEX_BITS)
        m.d.comb += [
            ahead.eq(byte_first[low:] - self.insn_addr[low:]),
            self._asked_index.eq(Mux(ahead[-1], 0, ahead)),
        ]

    def _beats(self) -> Value:
        """Beats of the stream, if it is not empty."""
        down = self._log2_insns_per_beat
        if down:
            return ((self._first_slot() + self.insn_count - 1) >> down) + 1
        return self.insn_count << self._log2_beats_per_insn

    # ---- joining ---------------------------------------------------------------------------
    def _join(self, m: Module) -> None:
        """The join register, which holds an instruction or a beat, whichever is longer."""
        cfg, fifo = self.cfg, self._fifo
        bus_bits = cfg.bus.data_bits
        up, down = self._log2_beats_per_insn, self._log2_insns_per_beat
        self._full = Signal()
        self._error = Signal()
        self._handed = Signal()
        self._insn = Signal(data.ArrayLayout(64, 2))
        self._index = Signal(INDEX_BITS)
        held = Signal(max(bus_bits, 8 * INSN_BYTES))
        beat, beat_error = fifo.r_data[:bus_bits], fifo.r_data[bus_bits]
        emptied = Signal()
        m.d.comb += self._beat_taken.eq(fifo.r_rdy & (~self._full | emptied))

        if up:
            part = Signal(up)
            with m.If(self._beat_taken):
                m.d.sync += [
                    held.word_select(part, bus_bits).eq(beat),
                    part.eq(part + 1),
                    self._full.eq(part.all()),
                    self._error.eq(beat_error | (self._error & (part != 0))),
                ]
            with m.Elif(emptied):
                m.d.sync += self._full.eq(0)
        else:
            with m.If(self._beat_taken):
                m.d.sync += [held.eq(beat), self._full.eq(1), self._error.eq(beat_error)]
            with m.Elif(emptied):
                m.d.sync += self._full.eq(0)

        if down:
            slot = Signal(down)
            stream_last = self._index + 1 == self.insn_count
            m.d.comb += [
                self._insn.eq(held.word_select(slot, 8 * INSN_BYTES)),
                emptied.eq(self._handed & (slot.all() | stream_last)),
            ]
            with m.If(self.start):
                m.d.sync += slot.eq(self._first_slot())
            with m.Elif(self._handed):
                m.d.sync += slot.eq(slot + 1)
        else:
            m.d.comb += [self._insn.eq(held), emptied.eq(self._handed)]
        with m.If(self.start):
            m.d.sync += self._index.eq(0)
        with m.Elif(self._handed):
            m.d.sync += self._index.eq(self._index + 1)

    # ---- routing ---------------------------------------------------------------------------
    def _route(self, m: Module) -> None:
        head = data.View(layout_of(isa(self.cfg).load.words[0]), self._insn[0])
        unit = Signal(Unit)
        memory_type = head.memory_type
        self._unknown = Signal()
        with m.Switch(head.opcode):
            with m.Case(Opcode.LOAD):
                is_load = (memory_type == MemoryType.INP) | (memory_type == MemoryType.WGT)
                m.d.comb += unit.eq(Mux(is_load, Unit.LOAD, Unit.COMPUTE))
            with m.Case(Opcode.STORE):
                m.d.comb += unit.eq(Unit.STORE)
            with m.Case(Opcode.GEMM, Opcode.FINISH, Opcode.ALU):
                m.d.comb += unit.eq(Unit.COMPUTE)
            with m.Default():
                m.d.comb += self._unknown.eq(1)
        go = self._full & ~self._error & ~self._unknown & ~self._stop
        empty = []
        taken = []
        room = Signal()
        for u in Unit:
            output = getattr(self, u.name.lower())
            queue = SyncFIFO(width=INSN_LAYOUT.size, depth=self.cfg.insn_queue_depth)
            m.submodules[f"{u.name.lower()}_queue"] = queue
            mine = unit == u
            with m.If(mine):
                m.d.comb += room.eq(queue.w_rdy)
            m.d.comb += [
                queue.w_data.eq(Cat(self._insn, self._index)),
                queue.w_en.eq(go & mine),
                output.payload.eq(queue.r_data),
                output.valid.eq(queue.r_rdy),
                queue.r_en.eq(output.ready),
            ]
            empty.append(~queue.r_rdy)
            taken.append(output.valid & output.ready)
        m.d.comb += [
            self._handed.eq(go & room),
            self.insn_strobe.eq(self._handed),
            self.idle.eq((self._index == self.insn_count) & Cat(empty).all()),
        ]
        self._taken = Cat(taken).any()

    # ---- faults ----------------------------------------------------------------------------
    def _report(self, m: Module) -> None:
        def report(cause: FaultCause, index: Value | int) -> None:
            m.d.sync += [
                self.fault.valid.eq(1),
                self.fault.cause.eq(cause),
                self.fault.index.eq(index),
            ]

        faulty = (self._full & (self._error | self._unknown)) | self._outside
        request = self.client.request
        m.d.comb += self.clock_request.eq(
            self.start
            | self.client.beat.valid
            | self._beat_taken
            | self._generate
            | (request.valid & request.ready)
            | self._handed
            | self._taken
            | (faulty & ~self.fault.valid)
        )
        with m.If(~self.fault.valid):
            with m.If(self.start):
                with m.If(self.insn_addr[: log2_exact(INSN_BYTES)].any()):
                    report(FaultCause.MISALIGNED, 0)
            with m.Elif(~self._full | ~(self._error | self._unknown)):
                with m.If(self._outside):
                    report(FaultCause.DRAM_WINDOW, self._asked_index)
            with m.Elif(~self.halt):
                with m.If(self._error):
                    report(FaultCause.BUS_ERROR, self._index)
                with m.Else():
                    report(FaultCause.ILLEGAL_INSTRUCTION, self._index)
