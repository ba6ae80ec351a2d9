"""The instruction set: one table of fields from which everything else derives.

Encoder, decoder, assembler, Amaranth layouts and documentation all read the formats built here.
Source: ISA document, section *Instruction word*.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property, lru_cache

from covta.hw.params import Config

__all__ = [
    "INSN_BYTES",
    "AluOp",
    "EncodeError",
    "Field",
    "Format",
    "Isa",
    "MemoryType",
    "Opcode",
    "Unit",
    "isa",
]

INSN_BYTES = 16
INSN_WORD_BITS = 64


class EncodeError(ValueError):
    """A value that its field cannot hold."""


class Opcode(IntEnum):
    """Instruction opcodes."""

    LOAD = 0
    STORE = 1
    GEMM = 2
    FINISH = 3
    ALU = 4


class MemoryType(IntEnum):
    """Memory types of LOAD and STORE."""

    UOP = 0
    WGT = 1
    INP = 2
    ACC = 3
    OUT = 4
    ACC_8BIT = 5


class AluOp(IntEnum):
    """ALU opcodes; `RQT` is the *requantize* extension."""

    MIN = 0
    MAX = 1
    ADD = 2
    SHR = 3
    MUL = 4
    RQT = 5


class Unit(IntEnum):
    """The units that execute instructions, in the order of their queues."""

    LOAD = 0
    COMPUTE = 1
    STORE = 2


@dataclass(frozen=True, kw_only=True)
class Field:
    """One bit field.

    Parameters
    ----------
    name : str
        Unique in its format.
    width_bits : int
        At least 1.
    signed : bool
        Two's complement.
    lsb : int
        Position, if it does not follow the field before it.
    """

    name: str
    width_bits: int
    signed: bool = False
    lsb: int | None = None

    @property
    def minimum(self) -> int:
        """Least value that fits."""
        return -(1 << (self.width_bits - 1)) if self.signed else 0

    @property
    def maximum(self) -> int:
        """Greatest value that fits."""
        return (1 << (self.width_bits - self.signed)) - 1


def _f(name: str, width_bits: int, *, signed: bool = False, lsb: int | None = None) -> Field:
    return Field(name=name, width_bits=width_bits, signed=signed, lsb=lsb)


@dataclass(frozen=True)
class Format:
    """A word of packed fields, from bit 0 upwards; unnamed bits are zero.

    Parameters
    ----------
    name : str
        As messages and documentation print it, e.g. ``gemm.0``.
    width_bits : int
        Of the whole word.
    fields : tuple of Field
        In order of position.
    """

    name: str
    width_bits: int
    fields: tuple[Field, ...]

    @cached_property
    def positions(self) -> dict[str, tuple[int, Field]]:
        """Least significant bit and field, by name."""
        table: dict[str, tuple[int, Field]] = {}
        lsb = 0
        for field in self.fields:
            if field.lsb is not None:
                assert field.lsb >= lsb, f"{self.name}.{field.name} overlaps"
                lsb = field.lsb
            assert field.name not in table, f"{self.name}.{field.name} repeats"
            table[field.name] = (lsb, field)
            lsb += field.width_bits
        assert lsb <= self.width_bits, f"{self.name} needs {lsb} of {self.width_bits} bits"
        return table

    @cached_property
    def used_mask(self) -> int:
        """Bits that belong to a field."""
        mask = 0
        for lsb, field in self.positions.values():
            mask |= ((1 << field.width_bits) - 1) << lsb
        return mask

    def encode(self, **values: int) -> int:
        """Pack fields; those not given are zero.

        Raises
        ------
        EncodeError
            If a value does not fit, or there is no such field.
        """
        word = 0
        for name, value in values.items():
            if name not in self.positions:
                raise EncodeError(f"{self.name} has no field {name!r}")
            lsb, field = self.positions[name]
            if not field.minimum <= value <= field.maximum:
                sign = " signed" if field.signed else ""
                raise EncodeError(
                    f"{self.name}.{name}={value} does not fit in {field.width_bits}{sign} bits"
                )
            word |= (int(value) & ((1 << field.width_bits) - 1)) << lsb
        return word

    def decode(self, word: int) -> dict[str, int]:
        """Unpack every field; unnamed bits are ignored."""
        values = {}
        for name, (lsb, field) in self.positions.items():
            value = (word >> lsb) & ((1 << field.width_bits) - 1)
            if field.signed and value >> (field.width_bits - 1):
                value -= 1 << field.width_bits
            values[name] = value
        return values


@dataclass(frozen=True)
class InsnFormat:
    """The two words of one kind of instruction."""

    name: str
    words: tuple[Format, Format]

    @cached_property
    def fields(self) -> dict[str, tuple[int, int, Field]]:
        """Word index, least significant bit and field, by name."""
        return {
            name: (index, lsb, field)
            for index, word in enumerate(self.words)
            for name, (lsb, field) in word.positions.items()
        }

    def encode(self, values: Mapping[str, int]) -> bytes:
        """Pack into the 16 bytes of an instruction."""
        for name in values:
            if name not in self.fields:
                raise EncodeError(f"{self.name} has no field {name!r}")
        return b"".join(
            word.encode(**{n: v for n, v in values.items() if n in word.positions}).to_bytes(
                8, "little"
            )
            for word in self.words
        )

    def decode(self, insn: bytes) -> dict[str, int]:
        """Unpack the 16 bytes of an instruction."""
        assert len(insn) == INSN_BYTES
        values: dict[str, int] = {}
        for index, word in enumerate(self.words):
            values |= word.decode(int.from_bytes(insn[8 * index : 8 * index + 8], "little"))
        return values

    def stray_bits(self, insn: bytes) -> int:
        """Set bits that belong to no field, as a 128-bit mask."""
        value = int.from_bytes(insn, "little")
        used = self.words[0].used_mask | self.words[1].used_mask << INSN_WORD_BITS
        return value & ~used


OPCODE = _f("opcode", 3)
DEPENDENCE = (_f("pop_prev", 1), _f("pop_next", 1), _f("push_prev", 1), _f("push_next", 1))
DEPENDENCE_NAMES = tuple(field.name for field in DEPENDENCE)


class Isa:
    """The formats of one machine.

    Parameters
    ----------
    cfg : Config
        Index widths follow its scratchpad depths.
    """

    def __init__(self, cfg: Config) -> None:
        self.cfg = cfg
        self._elem_bytes: dict[int, int] = {
            MemoryType.UOP: cfg.uop_elem_bytes,
            MemoryType.WGT: cfg.wgt_elem_bytes,
            MemoryType.INP: cfg.inp_elem_bytes,
            MemoryType.ACC: cfg.acc_elem_bytes,
            MemoryType.OUT: cfg.out_elem_bytes,
            MemoryType.ACC_8BIT: cfg.acc8_elem_bytes,
        }
        self._depths: dict[int, int] = {
            MemoryType.UOP: cfg.uop_depth,
            MemoryType.WGT: cfg.wgt_depth,
            MemoryType.INP: cfg.inp_depth,
            MemoryType.ACC: cfg.acc_depth,
            MemoryType.OUT: cfg.acc_depth,
            MemoryType.ACC_8BIT: cfg.acc_depth,
        }
        u, a, i, w = (
            cfg.log2_uop_depth,
            cfg.log2_acc_depth,
            cfg.log2_inp_depth,
            cfg.log2_wgt_depth,
        )
        head = (OPCODE, *DEPENDENCE)
        transfer0 = (*head, _f("memory_type", 3), _f("sram_base", 16), _f("dram_base", 32))
        load0 = transfer0 + ((_f("pad_min", 1),) if cfg.has("pad_min") else ())
        sizes = (_f("y_size", 16), _f("x_size", 16), _f("x_stride", 16))
        pads = tuple(_f(n, 4) for n in ("y_pad_0", "y_pad_1", "x_pad_0", "x_pad_1"))
        loop0 = (
            *head,
            _f("reset", 1),
            _f("uop_bgn", u),
            _f("uop_end", u + 1),
            _f("iter_out", 14),
            _f("iter_in", 14),
        )
        self.load = InsnFormat(
            "load", (Format("load.0", 64, load0), Format("load.1", 64, sizes + pads))
        )
        self.store = InsnFormat(
            "store", (Format("store.0", 64, transfer0), Format("store.1", 64, sizes + pads))
        )
        self.gemm = InsnFormat(
            "gemm",
            (
                Format("gemm.0", 64, loop0),
                Format(
                    "gemm.1",
                    64,
                    (
                        _f("dst_factor_out", a),
                        _f("dst_factor_in", a),
                        _f("src_factor_out", i),
                        _f("src_factor_in", i),
                        _f("wgt_factor_out", w),
                        _f("wgt_factor_in", w),
                    ),
                ),
            ),
        )
        self.alu = InsnFormat(
            "alu",
            (
                Format("alu.0", 64, loop0),
                Format(
                    "alu.1",
                    64,
                    (
                        _f("dst_factor_out", a),
                        _f("dst_factor_in", a),
                        _f("src_factor_out", a),
                        _f("src_factor_in", a),
                        _f("alu_opcode", 3),
                        _f("use_imm", 1),
                        _f("imm", 16, signed=True),
                    ),
                ),
            ),
        )
        self.finish = InsnFormat(
            "finish", (Format("finish.0", 64, head), Format("finish.1", 64, ()))
        )
        self.uop = Format(
            "uop",
            cfg.uop_bits,
            (_f("dst", a), _f("src", cfg.log2_src_depth), _f("wgt", w)),
        )
        self.by_opcode: dict[int, InsnFormat] = {
            Opcode.LOAD: self.load,
            Opcode.STORE: self.store,
            Opcode.GEMM: self.gemm,
            Opcode.FINISH: self.finish,
            Opcode.ALU: self.alu,
        }
        self.alu_ops: frozenset[int] = frozenset(
            op for op in AluOp if op != AluOp.RQT or cfg.has("requantize")
        )

    def formats(self) -> Iterable[InsnFormat]:
        """Instruction formats in order of opcode."""
        return self.by_opcode.values()

    def encode(self, opcode: Opcode, /, **values: int) -> bytes:
        """Encode one instruction.

        Raises
        ------
        EncodeError
            If a value does not fit its field, or the instruction has no such field.
        """
        return self.by_opcode[opcode].encode({"opcode": int(opcode), **values})

    def elem_bytes(self, memory_type: int) -> int:
        """DRAM bytes of one element of a memory type."""
        return self._elem_bytes[memory_type]

    def depth(self, memory_type: int) -> int:
        """Elements of the scratchpad behind a memory type."""
        return self._depths[memory_type]


@lru_cache(maxsize=64)
def isa(cfg: Config) -> Isa:
    """The instruction set of a machine, built once."""
    return Isa(cfg)
