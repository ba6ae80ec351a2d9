"""Units that meet in a scratchpad: every two accesses, one of them a write, need a token between.

============ ===================================== =================================
memory       who writes                            who reads
============ ===================================== =================================
inp, wgt     load                                  compute
acc, out     compute                               compute, store
uop          compute                               compute
============ ===================================== =================================

What one unit does to itself is in order (the compute unit's engines wait for each other's acc
banks). Of another unit, a table holds the last reader and writer of every element; since units
are in order, an instruction whose clock covers that one is ordered after all before it.
"""

from __future__ import annotations

import numpy as np

from covta.compiler.verify.addresses import READ, WRITE, Accesses
from covta.compiler.verify.report import Rule
from covta.compiler.verify.stream import Findings, Stream
from covta.compiler.verify.tokens import Execution
from covta.hw.isa import Unit
from covta.sim.jit import jit

__all__ = ["check_hazards"]

LOAD, COMPUTE, STORE = (int(u) for u in Unit)
N_UNITS = len(Unit)
AFTER_WRITE, AFTER_READ = 0, 1


@jit
def _scan(order, unit, ordinal, clocks, first, runs, acc_base, last_write, last_read, worst):
    """Fill `worst`, (n, 3, 3): by instruction and other unit ``[place + 1, element, kind]``.

    `last_write` and `last_read` are (3, elements): place in its queue, plus 1, of a unit's last
    access.
    """
    for i in order:
        u = unit[i]
        for r in range(first[i], first[i + 1]):
            begin, end, flags = runs[r, 0], runs[r, 1], runs[r, 2]
            if begin < acc_base:
                other = COMPUTE if u == LOAD else LOAD
            else:
                other = STORE if u == COMPUTE else COMPUTE
            known = clocks[i, other]
            for e in range(begin, end):
                if last_write[other, e] > max(known, worst[i, other, 0]):
                    worst[i, other, 0] = last_write[other, e]
                    worst[i, other, 1] = e
                    worst[i, other, 2] = AFTER_WRITE
                if flags & WRITE and last_read[other, e] > max(known, worst[i, other, 0]):
                    worst[i, other, 0] = last_read[other, e]
                    worst[i, other, 1] = e
                    worst[i, other, 2] = AFTER_READ
        for r in range(first[i], first[i + 1]):
            begin, end, flags = runs[r, 0], runs[r, 1], runs[r, 2]
            if flags & WRITE:
                last_write[u, begin:end] = ordinal[i] + 1
            if flags & READ:
                last_read[u, begin:end] = ordinal[i] + 1


def check_hazards(
    stream: Stream, execution: Execution, accesses: Accesses, findings: Findings
) -> None:
    """Report every instruction that may overlap one of another unit, with the latest such one."""
    worst = np.zeros((len(stream), N_UNITS, 3), np.int64)
    tables = np.zeros((2, N_UNITS, accesses.total), np.int32)
    _scan(
        execution.order,
        stream["unit"].copy(),
        stream.ordinals,
        execution.clocks,
        accesses.first,
        accesses.runs,
        accesses.acc_base,
        tables[0],
        tables[1],
        worst,
    )
    for index, unit in np.argwhere(worst[:, :, 0] > 0):
        place, element, kind = (int(v) for v in worst[index, unit])
        other = int(stream.queues[unit][place - 1])
        did = "writes" if kind == AFTER_WRITE else "reads"
        findings.error(
            Rule.HAZARD,
            index,
            f"no token orders it after {stream.name(other)} of the {Unit(unit).name.lower()} unit,"
            f" which {did} {_element(accesses, element)}",
        )


def _element(accesses: Accesses, element: int) -> str:
    if element >= accesses.acc_base:
        return f"acc[{element - accesses.acc_base}]"
    if element >= accesses.wgt_base:
        return f"wgt[{element - accesses.wgt_base}]"
    return f"inp[{element}]"
