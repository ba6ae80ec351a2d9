"""The tables of the ISA document say what `hw/isa.py` says."""

from pathlib import Path

import pytest

from covta.hw.isa_docs import update

ISA_DOCUMENT = Path(__file__).parents[2] / "docs" / "isa.md"


def test_tables_are_up_to_date():
    text = ISA_DOCUMENT.read_text(encoding="utf-8")
    assert update(text) == text, "run python -m covta.hw.isa_docs docs/isa.md"


def test_extension_opcode_and_flag_are_listed():
    text = ISA_DOCUMENT.read_text(encoding="utf-8")
    assert "| 5 | RQT |" in text
    assert "| 58 | `pad_min` | 1 |" in text


def test_missing_markers_are_named():
    with pytest.raises(ValueError, match="markers and tables differ"):
        update("<!-- begin opcodes -->\n<!-- end opcodes -->\n")
