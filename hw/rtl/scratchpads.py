"""On-chip memories, shaped so that synthesis maps them to block RAM.

A read takes one cycle (the memory's own register) where logic follows that can take data from
there, else two: an output register stands behind the choice of a bank. A write presented in cycle
``w`` is seen by reads presented in ``w + 1`` or later. What a read presented in ``w`` itself sees
matters to no program whose hazards have tokens: in simulation it is the old word, while synthesis
is told by ``no_rw_check`` (an attribute of Yosys) that it need not see to that. Block RAM of ECP5
cannot, and would get registers and multiplexers around it.
"""

from __future__ import annotations

from amaranth.hdl import Array, Cat, Module, Mux, Signal, Value, signed
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from covta.hw.params import Config
from covta.hw.rtl.interfaces import AccWrite, SliceWrite, UopWrite, uop_banks

ACC_BANKS = 2
"""Banks of acc and out, by the top bit of the address."""


def _block_ram(*, bits: int, depth: int) -> memory.Memory:
    return memory.Memory(shape=bits, depth=depth, init=[], attrs={"no_rw_check": 1})


class SliceScratchpad(wiring.Component):
    """The inp or wgt scratchpad: written a bus-wide slice at a time, read an element at a time.

    Latency 1 cycle from `rd_addr` to `rd_data`; one read and one write a cycle.

    Parameters
    ----------
    cfg : Config
    elem_bits : int
        Width of one element, a multiple of ``cfg.bus.data_bits``.
    depth : int
        Elements.
    inverted_bits : int
        Mask of an element's bits that are kept, and read, inverted.
    write_domain : str
        Clock domain of `write`.

    Members
    -------
    write : ``In(SliceWrite)``
    rd_addr, rd_data : ``In(log2 depth)``, ``Out(elem_bits)``
    """

    def __init__(
        self,
        cfg: Config,
        *,
        elem_bits: int,
        depth: int,
        inverted_bits: int = 0,
        write_domain: str = "sync",
    ) -> None:
        self.cfg = cfg
        self.write_domain = write_domain
        self.depth = depth
        self.inverted_bits = inverted_bits
        self.elem_bits = elem_bits
        addr_bits = depth.bit_length() - 1
        super().__init__(
            {
                "write": In(SliceWrite(cfg, addr_bits=addr_bits, elem_bits=elem_bits)),
                "rd_addr": In(addr_bits),
                "rd_data": Out(elem_bits),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        bus_bits = self.cfg.bus.data_bits
        slices = self.elem_bits // bus_bits
        m.submodules.mem = mem = _block_ram(bits=self.elem_bits, depth=self.depth)
        wr = mem.write_port(domain=self.write_domain, granularity=bus_bits)
        rd = mem.read_port(domain="sync")
        m.d.comb += [
            wr.addr.eq(self.write.addr),
            wr.data.eq(self.write.data.replicate(slices) ^ self.inverted_bits),
            wr.en.eq(
                Cat(
                    self.write.en & (self.write.whole | (self.write.slice == k))
                    for k in range(slices)
                )
            ),
            rd.addr.eq(self.rd_addr),
            rd.en.eq(1),
            self.rd_data.eq(rd.data),
        ]
        return m


class UopScratchpad(wiring.Component):
    """The micro-op scratchpad: port A reads for GEMM; port B reads for ALU and scan, or is written.

    ``bus.data_bits / 32`` interleaved banks take a whole beat of micro-ops a cycle.
    `b_data` holds its value until the second cycle after the next `b_en`.

    Members
    -------
    a_addr, a_data : GEMM's read port
    b_addr, b_en, b_data : ALU's and scan's read port; must not be enabled while `write.en`
    write : ``In(UopWrite)``
    """

    def __init__(self, cfg: Config) -> None:
        self.cfg = cfg
        super().__init__(
            {
                "a_addr": In(cfg.log2_uop_depth),
                "a_data": Out(cfg.uop_bits),
                "b_addr": In(cfg.log2_uop_depth),
                "b_en": In(1),
                "b_data": Out(cfg.uop_bits),
                "write": In(UopWrite(cfg)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        cfg = self.cfg
        banks = uop_banks(cfg)
        bank_bits = banks.bit_length() - 1
        a_rows, b_rows = [], []
        for k in range(banks):
            mem = _block_ram(bits=cfg.uop_bits, depth=cfg.uop_depth // banks)
            m.submodules[f"bank{k}"] = mem
            wr = mem.write_port()
            rd_a = mem.read_port(domain="sync")
            rd_b = mem.read_port(domain="sync")
            row_b = Signal(cfg.log2_uop_depth - bank_bits, name=f"row_b{k}")
            m.d.comb += [
                row_b.eq(Mux(self.write.en[k], self.write.row[k], self.b_addr[bank_bits:])),
                wr.addr.eq(row_b),
                wr.data.eq(self.write.data[k]),
                wr.en.eq(self.write.en[k]),
                rd_a.addr.eq(self.a_addr[bank_bits:]),
                rd_a.en.eq(1),
                rd_b.addr.eq(row_b),
                rd_b.en.eq(self.b_en & ~self.write.en[k]),
            ]
            a_rows.append(rd_a.data)
            b_rows.append(rd_b.data)
        b_en_d = Signal()
        m.d.sync += b_en_d.eq(self.b_en)
        a_word, b_word = a_rows[0], b_rows[0]
        if banks > 1:
            a_bank = Signal(bank_bits)
            b_bank = Signal(bank_bits)
            m.d.sync += a_bank.eq(self.a_addr[:bank_bits])
            with m.If(self.b_en):
                m.d.sync += b_bank.eq(self.b_addr[:bank_bits])
            a_word, b_word = Array(a_rows)[a_bank], Array(b_rows)[b_bank]
        m.d.sync += self.a_data.eq(a_word)
        with m.If(b_en_d):
            m.d.sync += self.b_data.eq(b_word)
        return m


class AccScratchpad(wiring.Component):
    """The acc and out scratchpads: two banks by the top address bit, each with two ports.

    GEMM, ALU and the Loader never touch one bank at the same time: dispatch sees to it. So no
    data is chosen from among all three: of each bank's ports, the first is read by GEMM and written
    by ALU and Loader, the second is read by ALU and written by GEMM. Every write to acc also writes
    the low ``out_bits`` of each lane to out; for GEMM, whose sums come late in their cycle, that is
    a port of its own.

    Members
    -------
    gemm_rd_en, gemm_rd_addr, gemm_rd_data
        Latency 1; data of each bank, of which only the one that was read has a meaning.
    alu_rd_addr, alu_rd_data
        Latency 2: the address is registered, for the data are more.
    alu_imm_en, alu_imm
        `alu_rd_data` is `alu_imm` in every lane, in the cycle after `alu_imm_en`.
    gemm_wr_en, gemm_wr_addr, gemm_wr_data and the same for alu
        Whole elements; of GEMM those of acc only.
    gemm_out_en, gemm_out_addr, gemm_out_data
        Whole elements, of which out takes its bits.
    load : ``In(AccWrite)``
        A beat; it reaches the memory one cycle after it is presented here.
    out_addr, out_en, out_data
        The store unit's read of out, latency 2 in the same way; `out_data` holds while `out_en`
        was low.

    Clock domains: what comes from the Loader `loader`, its and ALU's writes `acc`, ALU's reads
    `alu`, the store unit's `store`, the rest `sync`.
    """

    def __init__(self, cfg: Config) -> None:
        self.cfg = cfg
        a, bits = cfg.log2_acc_depth, cfg.acc_elem_bits
        members: dict[str, object] = {}
        for engine in ("gemm", "alu"):
            members |= {
                f"{engine}_rd_addr": In(a),
                f"{engine}_wr_en": In(1),
                f"{engine}_wr_addr": In(a),
                f"{engine}_wr_data": In(bits),
            }
        members |= {
            "gemm_out_en": In(1),
            "gemm_out_addr": In(a),
            "gemm_out_data": In(bits),
            "alu_imm_en": In(1),
            "alu_imm": In(signed(16)),
            "gemm_rd_en": In(1),
            "gemm_rd_data": Out(data.ArrayLayout(bits, ACC_BANKS)),
            "alu_rd_data": Out(bits),
            "load": In(AccWrite(cfg)),
            "out_en": In(1),
            "out_addr": In(a),
            "out_data": Out(cfg.out_elem_bits),
        }
        super().__init__(members)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        self._beat(m)
        self._alu_rd_addr = Signal.like(self.alu_rd_addr, reset_less=True)
        self._out_rd_addr = Signal.like(self.out_addr, reset_less=True)
        self._out_rd_en = Signal()
        m.d.alu += self._alu_rd_addr.eq(self.alu_rd_addr)
        m.d.store += [self._out_rd_addr.eq(self.out_addr), self._out_rd_en.eq(self.out_en)]
        alu_data, out_data = [], []
        for b in range(ACC_BANKS):
            self._choose_writes(m, b)
            alu_data.append(self._acc_bank(m, b))
            out_data.append(self._out_bank(m, b))
        alu_bank = Signal()
        alu_imm_en = Signal()
        m.d.alu += [alu_bank.eq(self._alu_rd_addr[-1]), alu_imm_en.eq(self.alu_imm_en)]
        m.d.comb += self.alu_rd_data.eq(Mux(alu_bank, *reversed(alu_data)))
        with m.If(alu_imm_en):
            imm = Signal(signed(self.cfg.acc_bits))
            m.d.comb += imm.eq(self.alu_imm)
            m.d.comb += self.alu_rd_data.eq(imm.replicate(self.cfg.lanes))
        out_bank = Signal()
        with m.If(self._out_rd_en):
            m.d.store += out_bank.eq(self._out_rd_addr[-1])
        m.d.comb += self.out_data.eq(Mux(out_bank, *reversed(out_data)))
        return m

    def _beat(self, m: Module) -> None:
        """The Loader's beat one cycle on: address, mask, and a repeating pattern of lanes.

        Lane ``l`` of an element takes lane ``l % bus_bytes`` of the pattern: the int8 lanes
        widened, or the beat's lanes repeated. Padding is a beat that begins each lane with its
        sign, or 0.
        """
        cfg, load = self.cfg, self.load
        self._load_addr = addr = Signal(cfg.log2_acc_depth, reset_less=True)
        self._load_mask = mask = Signal(cfg.acc_elem_bits // cfg.bus.data_bits)
        beat = Signal(cfg.bus.data_bits, reset_less=True)
        narrow = Signal(reset_less=True)
        m.d.loader += [
            addr.eq(load.addr),
            mask.eq(Mux(load.en, load.mask, 0)),
            narrow.eq(load.narrow),
            beat.eq(load.data),
        ]
        with m.If(load.pad):
            m.d.loader += beat.eq(Mux(load.pad_min, _signs(cfg, load.narrow), 0))
        per_beat = cfg.bus.data_bits // cfg.acc_bits
        self._pattern = Signal(cfg.bus_bytes * cfg.acc_bits)
        for k in range(cfg.bus_bytes):
            int8 = beat.word_select(k, 8).as_signed()
            whole = beat.word_select(k % per_beat, cfg.acc_bits).as_signed()
            lane = self._pattern.word_select(k, cfg.acc_bits)
            m.d.comb += lane.eq(Mux(narrow, int8, whole))

    def _choose_writes(self, m: Module, b: int) -> None:
        """Who writes bank `b`: GEMM, or else (row, mask and word) ALU or Loader."""
        cfg = self.cfg
        row_bits = cfg.log2_acc_depth - 1
        self._gemm_writes, alu = Signal(name=f"gemm_wr{b}"), Signal(name=f"alu_wr{b}")
        self._row = Signal(row_bits, name=f"row{b}")
        self._mask = Signal.like(self._load_mask, name=f"mask{b}")
        m.d.comb += [
            self._gemm_writes.eq(self.gemm_wr_en & (self.gemm_wr_addr[-1] == b)),
            alu.eq(self.alu_wr_en & (self.alu_wr_addr[-1] == b)),
        ]
        self._word = Signal(cfg.acc_elem_bits, name=f"word{b}")
        with m.If(alu):
            m.d.comb += self._row.eq(self.alu_wr_addr)
            m.d.comb += self._mask.eq(~0)
            m.d.comb += self._word.eq(self.alu_wr_data)
        with m.Else():
            m.d.comb += self._row.eq(self._load_addr)
            patterns = -(-len(self._word) // len(self._pattern))
            m.d.comb += self._word.eq(self._pattern.replicate(patterns))
            m.d.comb += self._mask.eq(Mux(self._load_addr[-1] == b, self._load_mask, 0))

    def _acc_bank(self, m: Module, b: int) -> Value:
        """One bank of acc; returns what ALU reads, one cycle after the address.

        No engine reads a row while it is written: each port either reads or writes, and a bank
        belongs to one engine at a time.
        """
        cfg = self.cfg
        acc = _block_ram(bits=cfg.acc_elem_bits, depth=cfg.acc_depth // ACC_BANKS)
        m.submodules[f"acc{b}"] = acc
        first = acc.write_port(domain="acc", granularity=cfg.bus.data_bits)
        first_read = acc.read_port()
        second = acc.write_port()
        second_read = acc.read_port(domain="alu")
        gemm_reads = Signal(name=f"gemm_rd{b}")
        row = Signal.like(self._row, name=f"first_row{b}")
        other_row = Signal.like(self._row, name=f"second_row{b}")
        m.d.comb += [
            gemm_reads.eq(self.gemm_rd_en & (self.gemm_rd_addr[-1] == b)),
            row.eq(Mux(gemm_reads, self.gemm_rd_addr[:-1], self._row)),
            other_row.eq(Mux(self._gemm_writes, self.gemm_wr_addr[:-1], self._alu_rd_addr[:-1])),
            first.addr.eq(row),
            first.data.eq(self._word),
            first.en.eq(Mux(gemm_reads, 0, self._mask)),
            first_read.addr.eq(row),
            first_read.en.eq(gemm_reads),
            self.gemm_rd_data[b].eq(first_read.data),
            second.addr.eq(other_row),
            second.data.eq(self.gemm_wr_data),
            second.en.eq(self._gemm_writes),
            second_read.addr.eq(other_row),
            second_read.en.eq(~self._gemm_writes),
        ]
        return second_read.data

    def _out_bank(self, m: Module, b: int) -> Value:
        """One bank of out; returns its read data, one cycle after the address."""
        cfg = self.cfg
        lanes_per_slice = cfg.bus.data_bits // cfg.acc_bits
        out = _block_ram(bits=cfg.out_elem_bits, depth=cfg.acc_depth // ACC_BANKS)
        m.submodules[f"out{b}"] = out
        write = out.write_port(granularity=cfg.out_bits * lanes_per_slice)
        read = out.read_port(domain="store")
        gemm_writes = Signal(name=f"gemm_out{b}")
        word = Mux(gemm_writes, self.gemm_out_data, self._word)
        m.d.comb += [
            gemm_writes.eq(self.gemm_out_en & (self.gemm_out_addr[-1] == b)),
            write.addr.eq(Mux(gemm_writes, self.gemm_out_addr[:-1], self._row)),
            write.data.eq(
                Cat(word.word_select(k, cfg.acc_bits)[: cfg.out_bits] for k in range(cfg.lanes))
            ),
            write.en.eq(Mux(gemm_writes, ~0, self._mask)),
            read.addr.eq(self._out_rd_addr),
            read.en.eq(self._out_rd_en),
        ]
        return read.data


def _signs(cfg: Config, narrow: Value) -> Value:
    """A beat of the least int8, if `narrow`, or else of the least lanes of acc."""
    bits = cfg.bus.data_bits
    int8, whole = (sum(1 << k for k in range(n - 1, bits, n)) for n in (8, cfg.acc_bits))
    return Mux(narrow, int8, whole)
