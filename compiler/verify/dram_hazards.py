"""Units that meet in DRAM: a STORE, and a LOAD of any byte that it writes.

A token of the store unit is pushed once its writes are acknowledged. Two stores are in order. Only
bytes that some STORE writes are looked at, in words of 4 bytes: every transfer begins and ends at
one, since base pointers and elements are multiples of it.
"""

from __future__ import annotations

import numpy as np

from covta.compiler.verify.addresses import Rows
from covta.compiler.verify.report import Rule
from covta.compiler.verify.stream import Findings, Stream
from covta.compiler.verify.tokens import Execution
from covta.hw.isa import Unit
from covta.sim.jit import jit

__all__ = ["check_dram_hazards"]

WORD_BYTES = 4
N_UNITS = len(Unit)
STORE = int(Unit.STORE)


@jit
def _scan(
    order, unit, ordinal, clocks, valid, addr, size, stride, count, begin, end, offset, last, worst
):
    """Fill `worst`, (n, 3, 2): by instruction and other unit ``[place + 1, address]``.

    `last` is (3, words): place, plus 1, of each unit's last access to a stored word; load and
    compute only read, store only writes.
    """
    for i in order:
        if not valid[i]:
            continue
        u = unit[i]
        for y in range(count[i]):
            low = addr[i] + y * stride[i]
            high = low + size[i]
            k = np.searchsorted(end, low, side="right")
            while k < len(begin) and begin[k] < high:
                first = offset[k] + (max(low, begin[k]) - begin[k]) // WORD_BYTES
                stop = offset[k] + (min(high, end[k]) - begin[k]) // WORD_BYTES
                for other in range(N_UNITS):
                    if (u == STORE) == (other == STORE):
                        continue
                    known = max(clocks[i, other], worst[i, other, 0])
                    for word in range(first, stop):
                        if last[other, word] > known:
                            known = last[other, word]
                            worst[i, other, 0] = known
                            worst[i, other, 1] = begin[k] + (word - offset[k]) * WORD_BYTES
                last[u, first:stop] = ordinal[i] + 1
                k += 1


def check_dram_hazards(
    stream: Stream, execution: Execution, rows: Rows, findings: Findings
) -> None:
    """Report every instruction that may overlap one of another unit, with the latest such one."""
    stored = rows.stored
    if not len(stored.begin):
        return
    words = (stored.end - stored.begin) // WORD_BYTES
    worst = np.zeros((len(stream), N_UNITS, 2), np.int64)
    _scan(
        execution.order,
        stream["unit"].copy(),
        stream.ordinals,
        execution.clocks,
        rows.valid,
        rows.addr,
        rows.size,
        rows.stride,
        rows.count,
        stored.begin,
        stored.end,
        np.cumsum(words) - words,
        np.zeros((N_UNITS, int(words.sum())), np.int32),
        worst,
    )
    for index, unit in np.argwhere(worst[:, :, 0] > 0):
        place, address = (int(v) for v in worst[index, unit])
        other = int(stream.queues[unit][place - 1])
        did = "writes" if unit == STORE else "reads"
        findings.error(
            Rule.DRAM_HAZARD,
            index,
            f"no token orders it after {stream.name(other)} of the {Unit(unit).name.lower()} unit,"
            f" which {did} DRAM address {address:#x}",
        )
