"""A stream of instructions as one integer table, decoded once for every simulator.

The layouts come from `covta.hw.isa`; nothing of them is repeated here.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from covta.hw.isa import INSN_BYTES, InsnFormat, Isa, MemoryType, Opcode, Unit, isa
from covta.hw.params import Config

__all__ = ["COLUMNS", "COLUMN_COUNT", "column", "decode"]

COLUMNS: tuple[str, ...] = (
    "opcode",
    "unit",
    "illegal",
    "pop_prev",
    "pop_next",
    "push_prev",
    "push_next",
    # LOAD, STORE
    "memory_type",
    "sram_base",
    "dram_base",
    "y_size",
    "x_size",
    "x_stride",
    "y_pad_0",
    "y_pad_1",
    "x_pad_0",
    "x_pad_1",
    "pad_min",
    # GEMM, ALU
    "reset",
    "uop_bgn",
    "uop_end",
    "iter_out",
    "iter_in",
    "dst_factor_out",
    "dst_factor_in",
    "src_factor_out",
    "src_factor_in",
    "wgt_factor_out",
    "wgt_factor_in",
    "alu_opcode",
    "use_imm",
    "imm",
)
"""Columns of the table: every field of the instruction set, the `unit` that executes the
instruction (-1: none), and whether it is `illegal`."""

COLUMN_COUNT = len(COLUMNS)


@cache
def column(name: str) -> int:
    """Index of a column."""
    return COLUMNS.index(name)


def _words(insn: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(insn, np.uint8).view("<u8")


def _fields(table: np.ndarray, words: np.ndarray, rows: np.ndarray, fmt: InsnFormat) -> None:
    """Unpack the fields of one format, and mark stray bits as illegal."""
    for name, (word, lsb, field) in fmt.fields.items():
        value = (words[rows, word] >> np.uint64(lsb)) & np.uint64((1 << field.width_bits) - 1)
        value = value.astype(np.int64)
        if field.signed:
            value -= (value >> (field.width_bits - 1)) << field.width_bits
        table[rows, column(name)] = value
    for word in range(2):
        unused = np.uint64(~fmt.words[word].used_mask & ((1 << 64) - 1))
        table[rows, column("illegal")] |= (words[rows, word] & unused) != 0


def _illegal(table: np.ndarray, x: Isa) -> np.ndarray:
    """Rules beyond the layout: memory types, ALU opcodes, STORE padding, flags without use."""

    def col(name: str) -> np.ndarray:
        return table[:, column(name)]

    opcode, unit, memory_type = col("opcode"), col("unit"), col("memory_type")
    loads, stores = opcode == Opcode.LOAD, opcode == Opcode.STORE
    pads = col("y_pad_0") | col("y_pad_1") | col("x_pad_0") | col("x_pad_1")
    readable = [m for m in MemoryType if m != MemoryType.OUT]
    return (
        (loads & ~np.isin(memory_type, readable))
        | (stores & ((memory_type != MemoryType.OUT) | (pads != 0)))
        | ((opcode == Opcode.ALU) & ~np.isin(col("alu_opcode"), sorted(x.alu_ops)))
        | ((unit == Unit.LOAD) & ((col("pop_prev") | col("push_prev")) != 0))
        | ((unit == Unit.STORE) & ((col("pop_next") | col("push_next")) != 0))
    )


def decode(cfg: Config, insn: np.ndarray) -> np.ndarray:
    """Decode a stream.

    Parameters
    ----------
    cfg : Config
        The machine that will run it.
    insn : ndarray
        ``(n, 16) uint8``.

    Returns
    -------
    ndarray
        ``(n, len(COLUMNS)) int64``. An unknown opcode has unit -1 and is illegal.
    """
    assert insn.ndim == 2
    assert insn.shape[1] == INSN_BYTES
    x = isa(cfg)
    words = _words(insn)
    table = np.zeros((len(insn), COLUMN_COUNT), np.int64)
    opcodes = (words[:, 0] & np.uint64(7)).astype(np.int64)
    for opcode, fmt in x.by_opcode.items():
        _fields(table, words, np.flatnonzero(opcodes == opcode), fmt)
    table[:, column("opcode")] = opcodes

    unit = np.full(len(insn), int(Unit.COMPUTE), np.int64)
    to_load = np.isin(table[:, column("memory_type")], (MemoryType.INP, MemoryType.WGT))
    unit[(opcodes == Opcode.LOAD) & to_load] = Unit.LOAD
    unit[opcodes == Opcode.STORE] = Unit.STORE
    unknown = ~np.isin(opcodes, list(x.by_opcode))
    unit[unknown] = -1
    table[:, column("unit")] = unit
    table[:, column("illegal")] |= unknown | _illegal(table, x)
    return table
