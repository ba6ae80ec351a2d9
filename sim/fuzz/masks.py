"""Sets of scratchpad elements as bits of one integer: bit ``k`` is element ``k``.

Python's integers make union, intersection and translation of such sets one operation each.
"""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["interval", "loop_offsets", "repeat", "rows", "runs", "spread"]


def interval(base: int, count: int) -> int:
    """Elements ``base .. base + count - 1``."""
    return ((1 << count) - 1) << base if count > 0 else 0


def repeat(mask: int, times: int, step: int) -> int:
    """Union of `mask` moved by ``0, step, .., (times - 1) * step``, by doubling."""
    if times <= 0:
        return 0
    if step == 0:
        return mask
    covered = 1
    while covered < times:
        take = min(covered, times - covered)
        mask |= mask << take * step
        covered += take
    return mask


def rows(base: int, y_size: int, x_size: int, stride: int) -> int:
    """Elements of `y_size` rows of `x_size`, whose first elements are `stride` apart."""
    return repeat(interval(base, x_size), y_size, stride)


def spread(indices: Iterable[int]) -> int:
    """Set of the indices."""
    mask = 0
    for index in indices:
        mask |= 1 << index
    return mask


def loop_offsets(mask: int, iter_out: int, iter_in: int, factor_out: int, factor_in: int) -> int:
    """What a GEMM or ALU touches whose micro-ops name the elements of `mask`."""
    return repeat(repeat(mask, iter_in, factor_in), iter_out, factor_out)


def runs(mask: int, limit: int) -> list[tuple[int, int]]:
    """The first `limit` maximal intervals of a set, as (base, count)."""
    found = []
    offset = 0
    while mask and len(found) < limit:
        low = (mask & -mask).bit_length() - 1
        mask >>= low
        count = (~mask & (mask + 1)).bit_length() - 1
        found.append((offset + low, count))
        mask >>= count
        offset += low + count
    return found
