"""Signatures and payload layouts that units share."""

from __future__ import annotations

from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from covta.hw.faults import FaultCause
from covta.hw.isa import Format
from covta.hw.params import Config, log2_exact

INDEX_BITS = 24
"""Bits of an instruction's index in the stream; longer streams are refused at launch."""

CAUSE_BITS = max(FaultCause).bit_length()

MEMORY_TYPES = 6


def layout_of(fmt: Format) -> data.Layout:
    """Amaranth layout of a word of the instruction set."""
    from amaranth import signed, unsigned

    return data.FlexibleLayout(
        fmt.width_bits,
        {
            name: data.Field(
                signed(field.width_bits) if field.signed else unsigned(field.width_bits), lsb
            )
            for name, (lsb, field) in fmt.positions.items()
        },
    )


INSN_LAYOUT = data.StructLayout({"word": data.ArrayLayout(64, 2), "index": INDEX_BITS})
"""Payload of the instruction queues: two 64-bit words and the index in the stream."""

FAULT_LAYOUT = data.StructLayout({"valid": 1, "cause": CAUSE_BITS, "index": INDEX_BITS})
"""A fault report: `valid` for one cycle or longer; the top level keeps the first."""


def burst_layout(cfg: Config) -> data.StructLayout:
    """A read or write burst: byte address of its first beat, beats minus 1."""
    return data.StructLayout({"addr": cfg.bus.addr_bits, "beats_m1": 8})


def beat_layout(cfg: Config) -> data.StructLayout:
    """A beat of read data; `error` is RRESP[1]; `last` ends its burst."""
    return data.StructLayout({"data": cfg.bus.data_bits, "error": 1, "last": 1})


class ReadClient(wiring.Signature):
    """A user of the read engine: asks for bursts, takes their beats in order.

    Members
    -------
    request : ``Out(stream of burst_layout)``
    beat : ``In(stream of beat_layout)``
    """

    def __init__(self, cfg: Config) -> None:
        super().__init__(
            {
                "request": Out(stream.Signature(burst_layout(cfg))),
                "beat": In(stream.Signature(beat_layout(cfg))),
            }
        )


class AxiRead(wiring.Signature):
    """AXI4 AR and R channels, master side; constants (size, burst, cache, prot) are added by the
    shell."""

    def __init__(self, cfg: Config) -> None:
        super().__init__(
            {
                "ar": Out(stream.Signature(burst_layout(cfg))),
                "r": In(
                    stream.Signature(
                        data.StructLayout({"data": cfg.bus.data_bits, "resp": 2, "last": 1})
                    )
                ),
            }
        )


class AxiWrite(wiring.Signature):
    """AXI4 AW, W and B channels, master side; every write strobe is set."""

    def __init__(self, cfg: Config) -> None:
        super().__init__(
            {
                "aw": Out(stream.Signature(burst_layout(cfg))),
                "w": Out(
                    stream.Signature(data.StructLayout({"data": cfg.bus.data_bits, "last": 1}))
                ),
                "b": In(stream.Signature(data.StructLayout({"resp": 2}))),
            }
        )


def transfer_layout(cfg: Config) -> data.StructLayout:
    """A LOAD or STORE that passed its checks, on its way into a Loader or the store path.

    `dram_base` is in elements of `memory_type`; the taker adds the base pointer.
    """
    return data.StructLayout(
        {
            "memory_type": 3,
            "sram_base": 16,
            "dram_base": 32,
            "y_size": 16,
            "x_size": 16,
            "x_stride": 16,
            "y_pad_0": 4,
            "y_pad_1": 4,
            "x_pad_0": 4,
            "x_pad_1": 4,
            "pad_min": 1,
            "index": INDEX_BITS,
        }
    )


class SliceWrite(wiring.Signature):
    """Writes one bus-wide slice, or (padding) every slice, of a scratchpad element.

    Members
    -------
    en : 1
    addr : element address
    slice : number of the slice of ``bus.data_bits``, where an element has more than one
    whole : every slice
    data : one beat, given to the slices that are written
    """

    def __init__(self, cfg: Config, *, addr_bits: int, elem_bits: int) -> None:
        super().__init__(
            {
                "en": Out(1),
                "addr": Out(addr_bits),
                "slice": Out(log2_exact(elem_bits // cfg.bus.data_bits)),
                "whole": Out(1),
                "data": Out(cfg.bus.data_bits),
            }
        )


class AccWrite(wiring.Signature):
    """Writes acc (and out): a beat as a slice, or (`narrow`) a beat of int8 widened to `acc_bits`.

    Members
    -------
    en, addr, data
        As in SliceWrite.
    mask
        One bit a ``bus.data_bits`` slice of the acc element. With `narrow`, the bits of all slices
        that the widened beat covers (``acc_bits / 8`` of them; beat ``k`` of an element covers
        slices ``k * acc_bits / 8`` onwards). Padding sets all.
    narrow
        The beat holds ``bus_bytes`` int8 lanes.
    pad
        `data` is ignored; every lane of the mask becomes 0, or with `pad_min` the least value (of
        int8 if `narrow`, else of ``acc_bits``).
    """

    def __init__(self, cfg: Config) -> None:
        super().__init__(
            {
                "en": Out(1),
                "addr": Out(cfg.log2_acc_depth),
                "mask": Out(cfg.acc_elem_bits // cfg.bus.data_bits),
                "data": Out(cfg.bus.data_bits),
                "narrow": Out(1),
                "pad": Out(1),
                "pad_min": Out(1),
            }
        )


class UopWrite(wiring.Signature):
    """Writes up to one beat of micro-ops; the scratchpad has ``bus.data_bits / 32`` interleaved
    banks.

    Micro-op address ``a`` lies in bank ``a % banks`` at row ``a // banks``. The writer rotates.

    Members
    -------
    en : one bit a bank
    row : row address, one a bank
    data : 32 bits, one a bank
    """

    def __init__(self, cfg: Config) -> None:
        banks = uop_banks(cfg)
        super().__init__(
            {
                "en": Out(banks),
                "row": Out(data.ArrayLayout(cfg.log2_uop_depth - (banks.bit_length() - 1), banks)),
                "data": Out(data.ArrayLayout(cfg.uop_bits, banks)),
            }
        )


def uop_banks(cfg: Config) -> int:
    """Interleaved banks of the uop scratchpad: micro-ops in a beat."""
    return cfg.bus.data_bits // cfg.uop_bits
