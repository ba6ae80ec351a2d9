"""Programs as text: instructions, and the micro-ops that they load; and back.

A program's other memory (tensors) is not text: `program_like` takes it from a program.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from covta.hw.assembler import (
    AssemblerError,
    UopRun,
    assemble,
    assemble_uops,
    disassemble,
    disassemble_uops,
)
from covta.hw.isa import MemoryType, Opcode
from covta.hw.params import Config
from covta.runtime.program import Program
from covta.sim.decode import column, decode

__all__ = ["program_from_text", "program_like", "program_text", "uop_runs"]


def program_text(program: Program) -> str:
    """Instructions, then the micro-ops that they load from the program's regions."""
    cfg = program.config
    return disassemble(cfg, program.insn) + disassemble_uops(cfg, uop_runs(program))


def program_from_text(
    cfg: Config, text: str, source: str = "text", *, insn_addr: int = 0
) -> Program:
    """A program of a text alone: each run of micro-ops is a region of memory.

    Raises
    ------
    AssemblerError, ProgramError
    """
    insn = assemble(cfg, text, source)
    bare = Program(config=cfg, insn=insn, insn_addr=insn_addr)
    return _with_uops(bare, assemble_uops(cfg, text, source))


def program_like(base: Program, text: str, source: str = "text") -> Program:
    """A text's instructions and micro-ops in another program's memory.

    The region that held another stream is dropped. Micro-ops overwrite what lies in their place.

    Raises
    ------
    AssemblerError, ProgramError
    """
    insn = assemble(base.config, text, source)
    uops = assemble_uops(base.config, text, source)
    return _with_uops(_with_stream(base, insn), uops)


# ---- where micro-ops are -----------------------------------------------------------------------
def uop_runs(program: Program) -> list[UopRun]:
    """Micro-ops that the program's LOADs read, in runs by address, each whole in one region.

    What lies in no region, or in the stream itself, is left out.
    """
    size = program.config.uop_elem_bytes
    begins, ends = _loaded(program)
    runs = []
    for addr, data in sorted(zip(program.region_addrs, program.regions, strict=True), key=_address):
        first = -(-addr // size)
        count = max((addr + len(data)) // size - first, 0)
        skip = first * size - addr
        words = data[skip : skip + count * size].view(f"<u{size}")
        read = np.zeros(count + 1, np.int64)
        np.add.at(read, np.clip(begins - first, 0, count), 1)
        np.add.at(read, np.clip(ends - first, 0, count), -1)
        is_read = np.cumsum(read)[:count] > 0
        stream = program.insn_addr // size - first
        is_read[max(stream, 0) : max(stream + program.insn.size // size, 0)] = False
        edges = np.flatnonzero(np.diff(is_read, prepend=False, append=False))
        runs += [
            UopRun(addr=(first + begin) * size, words=words[begin:end])
            for begin, end in edges.reshape(-1, 2).tolist()
        ]
    return runs


def _address(region: tuple[int, np.ndarray]) -> int:
    return region[0]


def _loaded(program: Program) -> tuple[np.ndarray, np.ndarray]:
    """First and end of every row that a LOAD of micro-ops reads, in micro-ops from address 0."""
    table = decode(program.config, program.insn)
    loads = table[
        (table[:, column("opcode")] == Opcode.LOAD)
        & (table[:, column("memory_type")] == MemoryType.UOP)
        & (table[:, column("x_size")] > 0)
    ]
    base = program.base_ptrs[MemoryType.UOP] // program.config.uop_elem_bytes
    names = ("dram_base", "x_stride", "x_size", "y_size")
    dram_base, stride, width, height = (loads[:, column(n)].astype(np.int64) for n in names)
    # Row k of load n, all in one array; the last index of each load's rows says where k restarts.
    load = np.repeat(np.arange(len(loads)), height)
    row = np.arange(len(load)) - np.repeat(np.cumsum(height) - height, height)
    begins = base + dram_base[load] + row * stride[load]
    return begins, begins + width[load]


# ---- putting them back -------------------------------------------------------------------------
def _with_stream(base: Program, insn: np.ndarray) -> Program:
    """Another stream in a program's memory: the region that held the old one is dropped."""
    if np.array_equal(insn, base.insn):
        return base
    keep = [
        k
        for k, (addr, data) in enumerate(zip(base.region_addrs, base.regions, strict=True))
        if not addr <= base.insn_addr < addr + len(data)
    ]
    return replace(
        base,
        insn=insn,
        region_addrs=tuple(base.region_addrs[k] for k in keep),
        regions=tuple(base.regions[k] for k in keep),
        expected=tuple(base.expected[k] for k in keep) if base.expected else (),
    )


def _with_uops(base: Program, uops: Iterable[UopRun]) -> Program:
    """Micro-ops written over the region that holds them, or as regions of their own."""
    regions = [
        _Region(addr, data, expected)
        for addr, data, expected in zip(
            base.region_addrs,
            base.regions,
            base.expected or (None,) * len(base.regions),
            strict=True,
        )
    ]
    stream = range(base.insn_addr, base.insn_addr + base.insn.size)
    written: list[tuple[range, str]] = []
    for run in sorted(uops, key=lambda run: run.addr):
        data = run.words.astype("<u4").view(np.uint8)
        span = range(run.addr, run.addr + len(data))
        _require_apart(run, span, stream, "the instructions")
        for other, where in written[-1:]:
            _require_apart(run, span, other, f"those of {where}")
        written.append((span, run.where))
        held = [r for r in regions if _overlap(span, r.span)]
        if not held:
            regions.append(_Region(run.addr, data, None))
        elif held[0].span.start <= span.start and span.stop <= held[0].span.stop:
            held[0].write(span, data)
        else:
            raise AssemblerError(
                f"{run.where}: micro-ops must lie in one region or in none, got"
                f" {_hex(span)} beside the region {_hex(held[0].span)}"
            )
    known = any(r.expected is not None for r in regions)
    return replace(
        base,
        region_addrs=tuple(r.addr for r in regions),
        regions=tuple(r.data for r in regions),
        expected=tuple(r.expected for r in regions) if known else (),
    )


class _Region:
    """A region that micro-ops are written to; the program's own arrays stay as they are."""

    def __init__(self, addr: int, data: np.ndarray, expected: np.ndarray | None) -> None:
        self.addr, self.data, self.expected = addr, data, expected
        self.span = range(addr, addr + len(data))

    def write(self, span: range, data: np.ndarray) -> None:
        """Replace bytes; where the program is not to change them, also those that are expected."""
        part = slice(span.start - self.addr, span.stop - self.addr)
        before, self.data = self.data, self.data.copy()
        self.data[part] = data
        if self.expected is not None:
            self.expected = self.expected.copy()
            kept = self.expected[part] == before[part]
            self.expected[part] = np.where(kept, data, self.expected[part])


def _overlap(a: range, b: range) -> bool:
    return a.start < b.stop and b.start < a.stop


def _hex(span: range) -> str:
    return f"{span.start:#x} to {span.stop - 1:#x}"


def _require_apart(run: UopRun, span: range, other: range, what: str) -> None:
    if _overlap(span, other):
        raise AssemblerError(
            f"{run.where}: micro-ops at {_hex(span)} must not overlap {what} at {_hex(other)}"
        )
