"""Tables of `docs/isa.md`, rendered from the one table of fields.

The document's prose is written by hand; what stands between ``<!-- begin NAME -->`` and
``<!-- end NAME -->`` comes from here. To bring it up to date:
``python -m covta.hw.isa_docs docs/isa.md``.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from covta.hw.faults import FAULT_TEXT
from covta.hw.isa import AluOp, Format, Isa, MemoryType, Opcode
from covta.hw.params import EXTENSIONS, Config

__all__ = ["TABLES", "update"]

_BASE = Config(name="edge")
_EXTENDED = Config(name="edge", extensions=tuple(EXTENSIONS))

_ALU_MEANING = {
    AluOp.MIN: "`min(a, b)`",
    AluOp.MAX: "`max(a, b)`",
    AluOp.ADD: "`a + b`, wrapping",
    AluOp.SHR: "`a >> b` arithmetic; `a << -b` for negative `b`",
    AluOp.MUL: "`a * b`, low bits",
    AluOp.RQT: "rounding shift right by `b`, then clip to OUT_W (*requantize*)",
}


def _table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    head = list(head)
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def _bits(lsb: int, width_bits: int) -> str:
    return str(lsb) if width_bits == 1 else f"{lsb + width_bits - 1}:{lsb}"


def _format(fmt: Format) -> str:
    rows = []
    for name, (lsb, field) in fmt.positions.items():
        note = "signed" if field.signed else ""
        if name == "pad_min":
            note = "extension *pad_min*"
        rows.append((_bits(lsb, field.width_bits), f"`{name}`", field.width_bits, note))
    free = fmt.width_bits - fmt.used_mask.bit_count()
    table = _table(("bits", "field", "width", ""), rows)
    return f"{table}\n\nFree bits: {free}." if free else table


def _insn(name: str) -> str:
    fmt = getattr(Isa(_EXTENDED), name)
    return "\n\n".join(f"`{word.name}`\n\n{_format(word)}" for word in fmt.words if word.positions)


def _opcodes() -> str:
    return _table(("opcode", "instruction"), ((int(op), op.name) for op in Opcode))


def _memory_types() -> str:
    table = Isa(_BASE)
    return _table(
        ("type", "memory", "bytes of one element", "elements"),
        ((int(kind), kind.name, table.elem_bytes(kind), table.depth(kind)) for kind in MemoryType),
    )


def _alu_opcodes() -> str:
    return _table(
        ("opcode", "name", "result"), ((int(op), op.name, _ALU_MEANING[op]) for op in AluOp)
    )


def _faults() -> str:
    return _table(
        ("code", "cause", "when"),
        ((int(cause), f"`{cause.text}`", text) for cause, text in FAULT_TEXT.items()),
    )


def _extensions() -> str:
    return _table(("name", "adds"), ((f"`{name}`", text) for name, text in EXTENSIONS.items()))


TABLES: dict[str, Callable[[], str]] = {
    "opcodes": _opcodes,
    "memory-types": _memory_types,
    "load": lambda: _insn("load"),
    "store": lambda: _insn("store"),
    "gemm": lambda: _insn("gemm"),
    "alu": lambda: _insn("alu"),
    "alu-opcodes": _alu_opcodes,
    "uop": lambda: _format(Isa(_EXTENDED).uop),
    "faults": _faults,
    "extensions": _extensions,
}
"""Renderers by the name that the document's markers use."""


def update(text: str) -> str:
    """Replace what stands between the markers of a document.

    Raises
    ------
    ValueError
        If a table has no markers, or markers name no table.
    """
    found = re.findall(r"<!-- begin (\S+) -->", text)
    if sorted(found) != sorted(TABLES):
        raise ValueError(f"markers and tables differ: {sorted({*found} ^ {*TABLES}) or found}")
    for name, render in TABLES.items():
        pattern = rf"(<!-- begin {name} -->\n).*?(<!-- end {name} -->)"
        content = f"\n{render()}\n\n"
        text = re.sub(
            pattern, lambda match, c=content: match[1] + c + match[2], text, flags=re.DOTALL
        )
    return text


def main() -> None:
    """Bring the documents named on the command line up to date."""
    for name in sys.argv[1:]:
        path = Path(name)
        path.write_text(update(path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
