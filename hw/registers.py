"""The control registers: one table from which slave, drivers, C header and documentation derive.

Imports no Amaranth. The slave itself is `covta.hw.rtl.registers`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum

from covta.hw.counters import COUNTERS
from covta.hw.faults import FAULT_TEXT, FaultCause
from covta.hw.isa import AluOp, MemoryType, Opcode
from covta.hw.params import EXTENSIONS, Config, log2_exact

__all__ = [
    "ADDR_BITS",
    "ID",
    "REGISTERS",
    "REGISTER_BY_NAME",
    "VERSION",
    "Access",
    "Register",
    "RegisterField",
    "counter_register",
    "implemented_mask",
    "param_hash",
    "render_c_header",
    "render_markdown",
    "reset_value",
]

ADDR_BITS = 12
"""Byte-address bits of the register window (4 KiB)."""

REGISTER_BYTES = 4

ID = int.from_bytes(b"covt", "big")
"""What the ID register reads."""

VERSION = (0, 1, 0)
"""Major, minor, patch of this register map and the machine behind it."""

WATCHDOG_RESET_CYCLES = 65536

_WORD_MASK = (1 << 32) - 1


class Access(StrEnum):
    """What the bus may do with a register."""

    READ = "RO"
    WRITE = "RW"
    STROBE = "W1"


@dataclass(frozen=True, kw_only=True)
class RegisterField:
    """Bits of a register.

    Parameters
    ----------
    name : str
        Lower case, unique in its register.
    lsb, width_bits : int
        Place; fields do not overlap.
    description : str
        A phrase.
    """

    name: str
    lsb: int
    width_bits: int
    description: str

    @property
    def mask(self) -> int:
        """The bits of the field, in place."""
        return ((1 << self.width_bits) - 1) << self.lsb


@dataclass(frozen=True, kw_only=True)
class Register:
    """One 32-bit register.

    Parameters
    ----------
    name : str
        Upper case.
    offset : int
        Byte offset, a multiple of 4.
    access : Access
    width_bits : int
        Implemented bits from bit 0; an `is_address` register ends with the machine's addresses.
    reset : int
        Value after power-up, before it is cut to the implemented bits.
    description : str
    fields : tuple of RegisterField
        Empty if the register is one number.
    value : str
        Number that the register shows or holds, as simulators and the RTL call it.
    value_lsb : int
        Bit of that number at bit 0 (32 for a high half).
    is_address : bool
        Part of a byte address of `bus.addr_bits` bits.
    of_config : callable or None
        For read-backs of parameters: the value on a machine.
    """

    name: str
    offset: int
    access: Access
    description: str
    width_bits: int = 32
    reset: int = 0
    fields: tuple[RegisterField, ...] = ()
    value: str = ""
    value_lsb: int = 0
    is_address: bool = False
    of_config: Callable[[Config], int] | None = None

    def __post_init__(self) -> None:
        assert self.offset % REGISTER_BYTES == 0, self.name
        assert 0 <= self.offset < 1 << ADDR_BITS, self.name
        taken = 0
        for field in self.fields:
            assert not taken & field.mask, f"{self.name}.{field.name} overlaps"
            assert field.mask >> self.width_bits == 0, f"{self.name}.{field.name} sticks out"
            taken |= field.mask

    def field(self, name: str) -> RegisterField:
        """The field of a name.

        Raises
        ------
        KeyError
            If there is none.
        """
        for field in self.fields:
            if field.name == name:
                return field
        raise KeyError(f"{self.name} has no field {name!r}")

    def encode(self, **values: int) -> int:
        """Pack fields; those not given are zero.

        Raises
        ------
        ValueError
            If a value does not fit.
        """
        word = 0
        for name, value in values.items():
            field = self.field(name)
            if value < 0 or value >> field.width_bits:
                raise ValueError(
                    f"{self.name}.{name}={value} does not fit in {field.width_bits} bits"
                )
            word |= value << field.lsb
        return word

    def decode(self, word: int) -> dict[str, int]:
        """Unpack every field."""
        return {f.name: (word & f.mask) >> f.lsb for f in self.fields}


def _fields(*rows: tuple[str, int, int, str]) -> tuple[RegisterField, ...]:
    return tuple(
        RegisterField(name=name, lsb=lsb, width_bits=width, description=description)
        for name, lsb, width, description in rows
    )


def param_hash(cfg: Config) -> int:
    """The first 32 bits of SHA-256 over the resolved parameters, without name and description."""
    parameters = {k: v for k, v in cfg.to_dict().items() if k not in {"name", "description"}}
    parameters["extensions"] = sorted(parameters["extensions"])
    text = json.dumps(parameters, sort_keys=True, separators=(",", ":"))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


def _extension_mask(cfg: Config) -> int:
    return sum(1 << k for k, name in enumerate(EXTENSIONS) if cfg.has(name))


def _control() -> Iterable[Register]:
    yield Register(
        name="ID",
        offset=0x000,
        access=Access.READ,
        reset=ID,
        description="Identifies the device: the letters covt, first letter in the high byte.",
    )
    major, minor, patch = VERSION
    yield Register(
        name="VERSION",
        offset=0x004,
        access=Access.READ,
        reset=major << 16 | minor << 8 | patch,
        description="Version of this register map and the machine behind it.",
        fields=_fields(
            ("patch", 0, 8, "no change to interfaces"),
            ("minor", 8, 8, "additions"),
            ("major", 16, 8, "incompatible changes"),
        ),
    )
    yield Register(
        name="CONTROL",
        offset=0x008,
        access=Access.STROBE,
        description="Commands.",
        fields=_fields(
            ("launch", 0, 1, "start the run that the registers describe; heeded when idle or done"),
            ("reset", 1, 1, "stop, drain the bus, clear the machine but not the registers written"),
            ("irq_ack", 2, 1, "lower the interrupt"),
        ),
    )
    yield Register(
        name="STATUS",
        offset=0x00C,
        access=Access.READ,
        reset=1,
        description="State of the machine.",
        fields=_fields(
            ("idle", 0, 1, "a launch is possible"),
            ("running", 1, 1, "a run is under way"),
            ("done", 2, 1, "the last run ended well; falls at the next launch"),
            ("fault", 3, 1, "stopped by a fault; only a reset command leads on"),
            ("draining", 4, 1, "waiting for transfers in flight after a fault or a reset command"),
        ),
    )
    yield Register(
        name="IRQ_ENABLE",
        offset=0x010,
        access=Access.WRITE,
        width_bits=1,
        value="irq_enable",
        description="Interrupt at the end of a run.",
        fields=_fields(("enable", 0, 1, "let done or fault raise the interrupt line")),
    )
    yield Register(
        name="FAULT_CAUSE",
        offset=0x014,
        access=Access.READ,
        width_bits=max(FaultCause).bit_length(),
        value="fault_cause",
        description="Cause of the first fault; 0: none.",
    )
    yield Register(
        name="FAULT_INSN",
        offset=0x018,
        access=Access.READ,
        width_bits=24,
        value="fault_insn",
        description="Index in the stream of the instruction that caused it.",
    )
    yield Register(
        name="INSN_COUNT",
        offset=0x01C,
        access=Access.WRITE,
        width_bits=24,
        value="insn_count",
        description="Instructions in the stream.",
    )
    yield from _wide(
        0x020, "INSN_ADDR", Access.WRITE, "Byte address of the stream; a multiple of 16."
    )
    yield Register(
        name="WATCHDOG",
        offset=0x028,
        access=Access.WRITE,
        reset=WATCHDOG_RESET_CYCLES,
        value="watchdog",
        description="Cycles without progress after which a run faults.",
    )
    yield from _wide(
        0x030, "WINDOW_BASE", Access.WRITE, "First byte address that the machine may touch."
    )
    yield from _wide(
        0x038,
        "WINDOW_LAST",
        Access.WRITE,
        "Last byte address that the machine may touch.",
        reset=_WORD_MASK,
    )
    for memory in MemoryType:
        yield from _wide(
            0x040 + 8 * memory,
            f"BASE_PTR_{int(memory)}",
            Access.WRITE,
            f"Byte address of element 0 of memory type {memory.name}; a multiple of a beat.",
        )


def _wide(
    offset: int, name: str, access: Access, description: str, *, reset: int = 0
) -> Iterable[Register]:
    """An address in two registers."""
    for part, lsb in (("LO", 0), ("HI", 32)):
        yield Register(
            name=f"{name}_{part}",
            offset=offset + lsb // 8,
            access=access,
            reset=reset,
            value=name.lower(),
            value_lsb=lsb,
            is_address=True,
            description=description if part == "LO" else f"Bits 32 and up of {name}.",
        )


def _parameters() -> Iterable[Register]:
    rows: tuple[tuple[str, str, tuple[RegisterField, ...], Callable[[Config], int]], ...] = (
        (
            "PARAM_SHAPE",
            "Tensor shapes.",
            _fields(
                ("batch", 0, 8, "rows of inp, acc and out tensors"),
                ("block_in", 8, 8, "lanes of an inp tensor"),
                ("block_out", 16, 8, "lanes of an acc or out tensor"),
            ),
            lambda c: c.batch | c.block_in << 8 | c.block_out << 16,
        ),
        (
            "PARAM_WIDTHS",
            "Bits of one element.",
            _fields(
                ("inp_bits", 0, 8, "inp and out element"),
                ("wgt_bits", 8, 8, "wgt element"),
                ("acc_bits", 16, 8, "acc element"),
                ("uop_bits", 24, 8, "micro-op"),
            ),
            lambda c: c.inp_bits | c.wgt_bits << 8 | c.acc_bits << 16 | c.uop_bits << 24,
        ),
        (
            "PARAM_DEPTHS",
            "Logarithms of the scratchpads' depths in elements.",
            _fields(
                ("log2_uop_depth", 0, 8, "micro-ops"),
                ("log2_inp_depth", 8, 8, "inp tensors"),
                ("log2_wgt_depth", 16, 8, "wgt tensors"),
                ("log2_acc_depth", 24, 8, "acc and out tensors"),
            ),
            lambda c: (
                c.log2_uop_depth
                | c.log2_inp_depth << 8
                | c.log2_wgt_depth << 16
                | c.log2_acc_depth << 24
            ),
        ),
        (
            "PARAM_BUS",
            "The memory port.",
            _fields(
                ("data_bits", 0, 16, "bits of a beat"),
                ("addr_bits", 16, 8, "bits of a byte address"),
                ("log2_max_burst_beats", 24, 4, "logarithm of beats in the longest burst"),
                ("log2_max_outstanding", 28, 4, "logarithm of bursts in flight"),
            ),
            lambda c: (
                c.bus.data_bits
                | c.bus.addr_bits << 16
                | log2_exact(c.bus.max_burst_beats) << 24
                | log2_exact(c.bus.max_outstanding) << 28
            ),
        ),
        (
            "PARAM_CORE",
            "Sizes that change timing, not results.",
            _fields(
                ("insn_queue_depth", 0, 8, "instructions that wait in front of each unit"),
                ("alu_mul_lanes", 8, 16, "lanes that the ALU multiplies a cycle"),
                ("dsp_pack", 24, 1, "two products share a multiplier"),
            ),
            lambda c: c.insn_queue_depth | c.alu_mul_lanes << 8 | c.dsp_pack << 24,
        ),
        (
            "PARAM_EXTENSIONS",
            "Extensions of the instruction set that are present.",
            _fields(*((name, k, 1, text) for k, (name, text) in enumerate(EXTENSIONS.items()))),
            _extension_mask,
        ),
        (
            "PARAM_HASH",
            "First 32 bits of SHA-256 over the resolved parameters, without name and description.",
            (),
            param_hash,
        ),
    )
    for k, (name, description, fields, of_config) in enumerate(rows):
        yield Register(
            name=name,
            offset=0x080 + REGISTER_BYTES * k,
            access=Access.READ,
            description=description,
            fields=fields,
            of_config=of_config,
        )


def counter_register(counter: str) -> str:
    """Name of the register of a counter: ``fetch.insns`` is ``FETCH_INSNS``."""
    assert counter in COUNTERS, counter
    return counter.replace(".", "_").upper()


def _counters() -> Iterable[Register]:
    for part, lsb in (("LO", 0), ("HI", 32)):
        yield Register(
            name=f"CYCLES_{part}",
            offset=0x100 + lsb // 8,
            access=Access.READ,
            value="cycles",
            value_lsb=lsb,
            description=(
                "Cycles with STATUS.running in the last or current run, low half."
                if part == "LO"
                else "High half, as it was when CYCLES_LO was last read."
            ),
        )
    for k, (name, meaning) in enumerate(COUNTERS.items()):
        yield Register(
            name=counter_register(name),
            offset=0x110 + REGISTER_BYTES * k,
            access=Access.READ,
            value=name,
            description=f"{meaning[0].upper()}{meaning[1:]}.",
        )


REGISTERS: tuple[Register, ...] = (*_control(), *_parameters(), *_counters())
"""Every register, by offset."""

REGISTER_BY_NAME: dict[str, Register] = {register.name: register for register in REGISTERS}


def implemented_mask(register: Register, cfg: Config) -> int:
    """The bits of a register that exist on a machine; the others read as zero."""
    if register.fields:
        return sum(field.mask for field in register.fields)
    if register.is_address:
        return (((1 << cfg.bus.addr_bits) - 1) >> register.value_lsb) & _WORD_MASK
    return (1 << register.width_bits) - 1


def reset_value(register: Register, cfg: Config) -> int:
    """What a register reads after power-up."""
    value = register.reset if register.of_config is None else register.of_config(cfg)
    return value & implemented_mask(register, cfg)


# ---- C header ------------------------------------------------------------------------------
def render_c_header(cfg: Config) -> str:
    """A C99 header for drivers: registers, fields, parameters, fault causes, opcodes.

    Parameters
    ----------
    cfg : Config
        Its parameters appear as constants and can be compared with the PARAM registers.
    """
    title = f'Control registers and parameters of the VTA machine "{cfg.name}"'
    lines: list[str] = [
        f"/* {title}. Generated; do not edit. */",
        "#ifndef COVTA_VTA_H",
        "#define COVTA_VTA_H",
        "",
        "/* Registers: byte offsets, and the bits of their fields. */",
    ]
    for register in REGISTERS:
        lines += [
            f"/* {register.access.value}  {register.description} */",
            f"#define VTA_REG_{register.name} 0x{register.offset:03X}u",
        ]
        for field in register.fields:
            stem = f"VTA_{register.name}_{field.name.upper()}"
            lines += [
                f"#define {stem}_SHIFT {field.lsb}",
                f"#define {stem}_MASK 0x{field.mask:08X}u /* {field.description} */",
            ]
    lines += ["", "/* Parameters of this machine. */"]
    lines += [f"#define VTA_{name} {value}u" for name, value in _c_parameters(cfg)]
    for title, stem, members in (
        ("Fault causes.", "fault", FaultCause),
        ("Opcodes.", "opcode", Opcode),
        ("Memory types of LOAD and STORE.", "memory", MemoryType),
        ("ALU opcodes.", "alu", AluOp),
    ):
        lines += ["", f"/* {title} */", f"enum vta_{stem} {{"]
        for member in members:
            text = f" /* {FAULT_TEXT[member]} */" if isinstance(member, FaultCause) else ""
            lines.append(f"    VTA_{stem.upper()}_{member.name} = {int(member)},{text}")
        lines.append("};")
    return "\n".join([*lines, "", "#endif", ""])


def _c_parameters(cfg: Config) -> Iterable[tuple[str, str]]:
    yield "ID", f"0x{ID:08X}"
    for register in REGISTERS:
        if register.of_config is None:
            continue
        word = register.of_config(cfg)
        yield f"{register.name}_VALUE", f"0x{word:08X}"
        if register.name == "PARAM_EXTENSIONS":
            continue
        for name, value in register.decode(word).items():
            yield name.upper(), str(value)
    for name in ("inp", "wgt", "acc", "out", "acc8", "uop"):
        yield f"{name.upper()}_ELEM_BYTES", str(getattr(cfg, f"{name}_elem_bytes"))
    for name in EXTENSIONS:
        yield f"HAS_{name.upper()}", str(int(cfg.has(name)))


# ---- documentation -------------------------------------------------------------------------
_INTRODUCTION = """\
# Control registers

Written by `covta.hw.registers.render_markdown` from the table in `hw/registers.py`; a test holds
the two equal.

The window of 4 KiB answers on AXI4-Lite with 32-bit data. Rules:

- RO: read only. RW: read and write. W1: writing a 1 acts once; reads as zero.
- Byte strobes are heeded; a byte without its strobe is left as it is.
- SLVERR, and nothing changes: an access to an offset without a register, a write to a read-only
  register, a write that sets a bit which the register lacks, a write to an RW register other than
  IRQ_ENABLE while STATUS.running.
- Registers of addresses end with the machine's last address bit; bits above read as zero.
- The interrupt line is IRQ_ENABLE.enable and a flag which rises with STATUS.done or STATUS.fault
  and falls when it is acknowledged.
- A launch clears CYCLES and the counters; a reset command leaves them to be read. A counter stays
  at its maximum. Values are final two cycles after STATUS.running falls.
- After a reset command wait for STATUS.idle before the next launch.

| offset | name | access | reset | description |
|---|---|---|---|---|
"""


def render_markdown() -> str:
    """The page ``docs/registers.md``."""
    lines: list[str] = [*_INTRODUCTION.splitlines()]
    for r in REGISTERS:
        reset = "parameter" if r.of_config else f"0x{r.reset:X}" if r.reset else "0"
        lines.append(
            f"| 0x{r.offset:03X} | {r.name} | {r.access.value} | {reset} | {r.description} |"
        )
    lines += ["", "## Fields", ""]
    lines += ["| register | bits | field | meaning |", "|---|---|---|---|"]
    for r in REGISTERS:
        for f in r.fields:
            top = f.lsb + f.width_bits - 1
            bits = str(f.lsb) if top == f.lsb else f"{top}:{f.lsb}"
            lines.append(f"| {r.name} | {bits} | {f.name} | {f.description} |")
    lines += ["", "## Fault causes", "", "| value | name | meaning |", "|---|---|---|"]
    lines += [f"| {int(c)} | {c.text} | {FAULT_TEXT[c]} |" for c in FaultCause]
    return "\n".join([*lines, ""])
