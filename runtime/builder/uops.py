"""Micro-ops: sequences shared by instructions, brought into their scratchpad when they are needed.

An instruction names a run ``uop_bgn ... uop_end - 1`` of the uop scratchpad. Equal sequences are
kept once. The scratchpad is filled as a ring: a sequence that is not there is loaded in front of
the first instruction that needs it (the first of all in front of all else), together with what the
instructions behind it will need (up to `BATCH_UOPS`), because a load costs a latency whatever its
size, and the machine does not look at later micro-ops while one is under way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from covta.hw.isa import MemoryType, Opcode, Unit, isa
from covta.hw.params import Config
from covta.runtime.builder.errors import require
from covta.runtime.builder.insn import Insn

__all__ = ["BATCH_UOPS", "FIRST_BATCH_UOPS", "PlacedUops", "place_uops"]

FIRST_BATCH_UOPS = 256
"""Micro-ops of the first LOAD UOP, which nothing hides: it begins the program."""

BATCH_UOPS = 1024
"""Micro-ops of every other, unless a single sequence is longer."""

Sequence_ = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, kw_only=True)
class PlacedUops:
    """A program with its micro-ops in place.

    Parameters
    ----------
    insns : tuple of Insn
        With the LOADs of micro-ops among them; their `dram_base` counts from the start of `words`.
    words : np.ndarray
        ``(n,) uint32``, what the LOADs bring.
    """

    insns: tuple[Insn, ...]
    words: np.ndarray


class _Ring:
    """Which sequences the uop scratchpad holds, and where."""

    def __init__(self, depth: int, align: int) -> None:
        self.depth = depth
        self.align = align
        self.base_of: dict[Sequence_, int] = {}
        self._next = 0

    def put(self, sequences: Sequence[Sequence_]) -> int:
        """Place sequences side by side; those they overwrite are gone."""
        size = sum(len(s) for s in sequences)
        size += -size % self.align
        if self._next + size > self.depth:
            self._next = 0
        base, end = self._next, self._next + size
        self.base_of = {s: b for s, b in self.base_of.items() if b + len(s) <= base or end <= b}
        at = base
        for sequence in sequences:
            self.base_of[sequence] = at
            at += len(sequence)
        self._next = end
        return base


def place_uops(cfg: Config, insns: Sequence[Insn], *, batch_uops: int = BATCH_UOPS) -> PlacedUops:
    """Give every GEMM and ALU instruction its `uop_bgn` and `uop_end`, and insert the LOADs."""
    align = cfg.bus.data_bits // cfg.uop_bits
    ring = _Ring(cfg.uop_depth, align)
    batch_uops = min(batch_uops, cfg.uop_depth // 2)
    encode = isa(cfg).uop.encode
    users = [insn for insn in insns if insn.uops]
    position = {id(insn): k for k, insn in enumerate(users)}
    placed: list[Insn] = []
    words: list[int] = []

    def bring(first: int, limit: int) -> None:
        batch = _missing(ring, users, first, limit)
        placed.append(_load(cfg, ring.put(batch), batch, len(words), len(placed)))
        words.extend(encode(dst=d, src=s, wgt=w) for q in batch for d, s, w in q)
        words.extend([0] * (-len(words) % align))

    if users:
        bring(0, min(batch_uops, FIRST_BATCH_UOPS))
    for insn in insns:
        if insn.uops:
            if insn.uops not in ring.base_of:
                bring(position[id(insn)], batch_uops)
            base = ring.base_of[insn.uops]
            insn.fields["uop_bgn"], insn.fields["uop_end"] = base, base + len(insn.uops)
        placed.append(insn)
    return PlacedUops(insns=tuple(placed), words=np.array(words, np.uint32))


def _missing(ring: _Ring, users: Sequence[Insn], first: int, batch_uops: int) -> list[Sequence_]:
    batch: dict[Sequence_, None] = {}
    size = 0
    for insn in users[first:]:
        assert insn.uops
        if insn.uops in ring.base_of or insn.uops in batch:
            continue
        if batch and size + len(insn.uops) > batch_uops:
            break
        batch[insn.uops] = None
        size += len(insn.uops)
    require(
        size <= ring.depth,
        f"{users[first].name}: its micro-ops must fit buffers.uop of {ring.depth}, got {size}",
    )
    return list(batch)


def _load(cfg: Config, base: int, batch: Sequence[Sequence_], offset: int, position: int) -> Insn:
    size = sum(len(s) for s in batch)
    return Insn(
        Opcode.LOAD,
        Unit.COMPUTE,
        f"load uop #{position}",
        -1,
        {
            "memory_type": int(MemoryType.UOP),
            "sram_base": base,
            "dram_base": offset,
            "y_size": 1,
            "x_size": size,
            "x_stride": size,
        },
    )
