"""Text for programs' instructions: one a line, ``OPCODE field=value …``, and back.

Fields that are zero are left out. Dependence flags are written by their names alone, memory types
and ALU opcodes by name. ``#`` begins a comment. Assembling what was disassembled gives the same
bytes, for legal and illegal instructions alike: words that are no instruction become ``.word``.

Micro-ops lie in DRAM, in runs: ``.org ADDRESS`` says where one begins, each ``.uop field=value …``
behind it is the next word. A word with bits outside every field is written as a number.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from covta.hw.isa import (
    DEPENDENCE_NAMES,
    INSN_BYTES,
    AluOp,
    EncodeError,
    MemoryType,
    Opcode,
    isa,
)
from covta.hw.params import Config

__all__ = [
    "AssemblerError",
    "UopRun",
    "assemble",
    "assemble_uops",
    "disassemble",
    "disassemble_uops",
]

_ENUMS = {"memory_type": MemoryType, "alu_opcode": AluOp}
_WORD = ".word"
_ORG, _UOP = ".org", ".uop"


class AssemblerError(ValueError):
    """A line that is no instruction; the message names line, rule and value."""


@dataclass(frozen=True, kw_only=True)
class UopRun:
    """Micro-ops side by side in DRAM.

    Parameters
    ----------
    addr : int
        Byte address of the first, a multiple of its size.
    words : np.ndarray
        ``(n,) uint32``.
    where : str
        ``source:line`` of the text that it came from.
    """

    addr: int
    words: np.ndarray
    where: str = ""


def _value_text(name: str, value: int) -> str:
    kind = _ENUMS.get(name)
    if kind is not None and value in set(kind):
        return kind(value).name
    return str(value)


def disassemble_insn(cfg: Config, insn: bytes) -> str:
    """One instruction as text."""
    formats = isa(cfg).by_opcode
    opcode = insn[0] & 7
    if opcode not in formats or formats[opcode].stray_bits(insn):
        low, high = (int.from_bytes(insn[k : k + 8], "little") for k in (0, 8))
        return f"{_WORD} {low:#018x} {high:#018x}"
    values = formats[opcode].decode(insn)
    parts = [Opcode(opcode).name]
    shown = {"memory_type", "alu_opcode"} & values.keys()
    for name, value in values.items():
        if name == "opcode" or (value == 0 and name not in shown):
            continue
        if name in DEPENDENCE_NAMES:
            parts.append(name)
        else:
            parts.append(f"{name}={_value_text(name, value)}")
    return " ".join(parts)


def disassemble(cfg: Config, insn: np.ndarray) -> str:
    """A stream, ``(n, 16) uint8``, as text with the index of every instruction in a comment."""
    lines = [disassemble_insn(cfg, row.tobytes()) for row in insn]
    width = max((len(line) for line in lines), default=0)
    return "".join(f"{line:<{width}}  # {k}\n" for k, line in enumerate(lines))


def disassemble_uops(cfg: Config, runs: Iterable[UopRun]) -> str:
    """Micro-ops as ``.org`` and ``.uop`` lines, each with its index in its run in a comment."""
    fmt = isa(cfg).uop
    lines = []
    for run in runs:
        lines.append(f"{_ORG} {run.addr:#x}\n")
        for k, word in enumerate(run.words.tolist()):
            if word & ~fmt.used_mask:
                text = f"{_UOP} {word:#010x}"
            else:
                fields = (f"{n}={v}" for n, v in fmt.decode(word).items() if v)
                text = " ".join((_UOP, *fields))
            lines.append(f"{text}  # {k}\n")
    return "".join(lines)


def _integer(text: str, where: str) -> int:
    try:
        return int(text, 0)
    except ValueError:
        raise AssemblerError(f"{where}: {text!r} is no integer") from None


def _field(name: str, text: str, where: str) -> int:
    kind = _ENUMS.get(name)
    if kind is not None and text.upper() in kind.__members__:
        return int(kind[text.upper()])
    return _integer(text, where)


def _fields(
    parts: list[str], known: set[str], flags: tuple[str, ...], where: str
) -> dict[str, int]:
    values: dict[str, int] = {}
    for part in parts:
        name, equals, text = part.partition("=")
        if name not in known:
            raise AssemblerError(
                f"{where}: no field {name!r}; there are {', '.join(sorted(known))}"
            )
        if name in values:
            raise AssemblerError(f"{where}: the field {name} stands twice")
        if not equals and name not in flags:
            raise AssemblerError(f"{where}: the field {name} needs a value, {name}=…")
        values[name] = _field(name, text, where) if equals else 1
    return values


def _line(cfg: Config, line: str, where: str) -> bytes:
    keyword, *parts = line.split()
    if keyword == _WORD:
        if len(parts) != 2:
            raise AssemblerError(f"{where}: .word needs two 64-bit words, got {len(parts)}")
        words = [_integer(p, where) for p in parts]
        for word in words:
            if not 0 <= word < 1 << 64:
                raise AssemblerError(f"{where}: a word must fit 64 bits, got {word:#x}")
        return b"".join(w.to_bytes(8, "little") for w in words)
    if keyword.upper() not in Opcode.__members__:
        raise AssemblerError(
            f"{where}: no instruction {keyword!r}; there are {', '.join(Opcode.__members__)}"
        )
    opcode = Opcode[keyword.upper()]
    fmt = isa(cfg).by_opcode[opcode]
    values = _fields(parts, set(fmt.fields) - {"opcode"}, DEPENDENCE_NAMES, where)
    try:
        return fmt.encode({"opcode": int(opcode), **values})
    except EncodeError as error:
        raise AssemblerError(f"{where}: {error}") from None


def _lines(text: str, source: str) -> list[tuple[str, str]]:
    stripped = [re.sub(r"#.*", "", line).strip() for line in text.split("\n")]
    return [(line, f"{source}:{n}") for n, line in enumerate(stripped, 1) if line]


def assemble(cfg: Config, text: str, source: str = "text") -> np.ndarray:
    """Instructions of a text, ``(n, 16) uint8``; what `assemble_uops` reads is passed over.

    Raises
    ------
    AssemblerError
        With `source`, line, field, rule and value.
    """
    rows = [
        _line(cfg, line, where)
        for line, where in _lines(text, source)
        if line.split()[0] not in (_ORG, _UOP)
    ]
    return np.frombuffer(b"".join(rows), np.uint8).reshape(-1, INSN_BYTES)


def assemble_uops(cfg: Config, text: str, source: str = "text") -> list[UopRun]:
    """Micro-ops of a text's ``.org`` and ``.uop`` lines; empty runs are left out.

    Raises
    ------
    AssemblerError
        With `source`, line, field, rule and value.
    """
    found: list[tuple[int, str, list[int]]] = []
    for line, where in _lines(text, source):
        keyword, *parts = line.split()
        if keyword == _ORG:
            found.append((_origin(cfg, parts, where), where, []))
        elif keyword == _UOP:
            if not found:
                raise AssemblerError(f"{where}: a .uop needs an address; put .org before the first")
            found[-1][2].append(_uop(cfg, parts, where))
    return [
        UopRun(addr=addr, words=np.array(words, np.uint32), where=where)
        for addr, where, words in found
        if words
    ]


def _origin(cfg: Config, parts: list[str], where: str) -> int:
    if len(parts) != 1:
        raise AssemblerError(f"{where}: .org needs one byte address, got {len(parts)}")
    addr, size = _integer(parts[0], where), cfg.uop_elem_bytes
    if addr < 0 or addr % size:
        raise AssemblerError(
            f"{where}: the address of a micro-op must be a multiple of {size}, got {addr:#x}"
        )
    return addr


def _uop(cfg: Config, parts: list[str], where: str) -> int:
    fmt = isa(cfg).uop
    if len(parts) == 1 and parts[0][:1].isdigit():
        word = _integer(parts[0], where)
        if word >> cfg.uop_bits:
            raise AssemblerError(f"{where}: a micro-op must fit {cfg.uop_bits} bits, got {word:#x}")
        return word
    values = _fields(parts, set(fmt.positions), (), where)
    try:
        return fmt.encode(**values)
    except EncodeError as error:
        raise AssemblerError(f"{where}: {error}") from None
