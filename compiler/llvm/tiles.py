"""Sizes of tiles for a processor, from its registers and caches; nothing is measured.

A register tile of ``R`` rows and ``V`` vectors keeps ``R * V`` accumulators, the ``V`` vectors of
weights that all rows use, and one broadcast element. A step of the reduction is ``R * V``
multiply-additions and ``R + V`` loads.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from covta.compiler.llvm.target import Target

__all__ = ["Caches", "RegisterTile", "block_rows", "host_caches", "register_tile"]

LATENCY_STEPS = 8
"""Accumulators below which multiply-additions wait for one another: 4 cycles on 2 units."""

MAX_ROWS = 16

BLOCKS = 12
"""Parts that rows are shared out in."""


@dataclass(frozen=True, kw_only=True)
class Caches:
    """Sizes that tiles are made for.

    Parameters
    ----------
    l1_bytes, l2_bytes : int
        Of one core's data.
    """

    l1_bytes: int = 32 << 10
    l2_bytes: int = 256 << 10


@cache
def host_caches() -> Caches:
    """This processor's, or usual ones where the system does not say."""
    sizes = {}
    for entry in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        try:
            level, kind, size = (
                (entry / f).read_text(encoding="ascii").strip() for f in ("level", "type", "size")
            )
            if kind != "Instruction" and size.endswith("K"):
                sizes[int(level)] = int(size[:-1]) << 10
        except (OSError, ValueError):
            continue
    usual = Caches()
    return Caches(l1_bytes=sizes.get(1, usual.l1_bytes), l2_bytes=sizes.get(2, usual.l2_bytes))


@dataclass(frozen=True, kw_only=True)
class RegisterTile:
    """Rows and vectors of results that stay in registers.

    Parameters
    ----------
    rows, vectors : int
    lanes : int
        Of a vector, of 32-bit elements.
    """

    rows: int
    vectors: int
    lanes: int

    @property
    def columns(self) -> int:
        """Results in a row."""
        return self.vectors * self.lanes


def registers(target: Target) -> int:
    """Vector registers."""
    return 32 if target.vector_bits == 512 or target.triple.startswith("aarch64") else 16


def register_tile(rows: int, columns: int, target: Target, spare: int = 0) -> RegisterTile:
    """The tile that does ``rows x columns`` results in the fewest steps.

    `spare` registers are left for what a step needs beside its operands.

    A step costs what the busier of two kinds of units takes, multiply-adders or load ports. Of
    tiles that cost the same, the one is taken that reads weights least often, since a panel of
    them lies in the second cache, then the one that reads activations least often.
    """
    lanes = target.vector_bits // 32
    best: tuple[tuple[float, int, int], RegisterTile] | None = None
    for vectors in (1, 2, 4):
        if vectors > 1 and (vectors - 1) * lanes >= columns:
            continue
        for r in range(1, min(rows, MAX_ROWS) + 1):
            if r * vectors + vectors + 1 > registers(target) - spare:
                break
            across = -(-columns // (vectors * lanes))
            full, rest = divmod(rows, r)
            steps = full * _step(r, vectors) + (_step(rest, vectors) if rest else 0.0)
            weights = across * vectors * -(-rows // r)
            cost = (across * steps, weights, across * rows)
            if best is None or cost < best[0]:
                best = cost, RegisterTile(rows=r, vectors=vectors, lanes=lanes)
    assert best is not None
    return best[1]


def _step(rows: int, vectors: int) -> float:
    return max(rows * vectors, LATENCY_STEPS, rows + vectors) / 2


def block_rows(rows: int, tile: RegisterTile, row_bytes: int, caches: Caches) -> int:
    """Rows whose operands fill half of the second cache, in whole tiles; at least `BLOCKS` blocks
    where there are rows enough, so that threads that are held up can be helped."""
    fit = max(1, caches.l2_bytes // 2 // max(1, row_bytes * tile.rows))
    share = max(1, rows // (BLOCKS * tile.rows))
    return tile.rows * min(fit, share)
