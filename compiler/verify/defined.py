"""Reads of scratchpad elements that nothing in the program has written.

Only warnings: an earlier launch may have left something there.
"""

from __future__ import annotations

import numpy as np

from covta.compiler.verify.addresses import READ, WRITE, Accesses
from covta.compiler.verify.report import Rule
from covta.compiler.verify.stream import Findings, Stream
from covta.compiler.verify.tokens import Execution
from covta.sim.jit import jit

__all__ = ["check_defined"]

N_MEMORIES = 3


@jit
def _scan(order, first, runs, bases, defined, missing):
    """Fill `missing`, (n, 3, 2): by instruction and memory ``[elements, the first of them]``.

    `defined` has a byte an element: 1 once written, 2 once reported.
    """
    for i in order:
        for r in range(first[i], first[i + 1]):
            if runs[r, 2] & READ:
                memory = 0
                while runs[r, 0] >= bases[memory + 1]:
                    memory += 1
                for e in range(runs[r, 0], runs[r, 1]):
                    if defined[e] == 0:
                        defined[e] = 2
                        if missing[i, memory, 0] == 0 or e < missing[i, memory, 1]:
                            missing[i, memory, 1] = e
                        missing[i, memory, 0] += 1
        for r in range(first[i], first[i + 1]):
            if runs[r, 2] & WRITE:
                defined[runs[r, 0] : runs[r, 1]] = 1


def check_defined(
    stream: Stream, execution: Execution, accesses: Accesses, findings: Findings
) -> None:
    """Warn of every instruction that is the first to read elements never written before."""
    bases = np.array([0, accesses.wgt_base, accesses.acc_base, accesses.total])
    missing = np.zeros((len(stream), N_MEMORIES, 2), np.int64)
    defined = np.zeros(accesses.total, np.uint8)
    _scan(execution.order, accesses.first, accesses.runs, bases, defined, missing)
    for index, memory in np.argwhere(missing[:, :, 0] > 0):
        count, element = (int(v) for v in missing[index, memory])
        name = ("inp", "wgt", "acc")[memory]
        findings.warning(
            Rule.UNDEFINED,
            index,
            f"reads {name}[{element - bases[memory]}], which nothing before it writes"
            f" ({count} such elements)",
        )
