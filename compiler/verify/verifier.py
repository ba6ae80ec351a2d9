"""All rules, one after the other."""

from __future__ import annotations

from collections.abc import Sequence

from covta.compiler.verify.addresses import check_addresses
from covta.compiler.verify.defined import check_defined
from covta.compiler.verify.dram_hazards import check_dram_hazards
from covta.compiler.verify.hazards import check_hazards
from covta.compiler.verify.legality import check_legality
from covta.compiler.verify.memory import Memory
from covta.compiler.verify.ranges import check_ranges
from covta.compiler.verify.report import Report
from covta.compiler.verify.stream import Findings, ProgramLike, Stream
from covta.compiler.verify.tokens import check_tokens

__all__ = ["verify_program"]


def verify_program(
    program: ProgramLike, *, inputs: Sequence[str | int] | None = None, ranges: bool = True
) -> Report:
    """Prove what can be proved of a program without running it.

    Without errors the program faults on no device, and the bytes it leaves depend on no timing.
    Where it deadlocks, rules about effects look at what runs until then.

    Parameters
    ----------
    program : Program
    inputs : sequence of str or int, optional
        Regions whose bytes vary from launch to launch, by name (``meta["buffers"]``) or number;
        for what is loaded from them, `ranges` assume every value of the type. If absent,
        ``meta["inputs"]``; if that is absent too, everything that is loaded to inp varies and what
        is loaded to wgt and acc is what the regions hold. What the program itself stores always
        varies.
    ranges : bool
        Look for sums that may wrap and stores that may truncate.

    Returns
    -------
    Report

    Raises
    ------
    ValueError
        If `inputs` names no region.
    """
    stream = Stream(program)
    findings = Findings(stream)
    memory = Memory.of(program)
    check_legality(stream, findings)
    rows, accesses = check_addresses(stream, memory, findings)
    execution, bounds = check_tokens(stream, findings)
    check_hazards(stream, execution, accesses, findings)
    check_dram_hazards(stream, execution, rows, findings)
    check_defined(stream, execution, accesses, findings)
    if ranges:
        check_ranges(stream, memory, rows, accesses, execution, findings, inputs=inputs)
    return findings.report(bounds)
