"""The static verifier: what can be proved about a program without running it.

=================  =================================================================================
`legality`         every word is an instruction of the machine; FINISH
`addresses`        scratchpad indices, micro-ops, DRAM rows
`tokens`           deadlock, overflow and left-over tokens; what is known to happen before what
`hazards`          units that meet in a scratchpad without a token between them
`dram_hazards`     the same in DRAM
`defined`          reads of what nothing has written
`ranges`           sums that may wrap, stores that may truncate
=================  =================================================================================
"""

from __future__ import annotations

from covta.compiler.verify.report import Finding, Report, Rule, Severity, VerifyError
from covta.compiler.verify.verifier import verify_program

__all__ = ["Finding", "Report", "Rule", "Severity", "VerifyError", "verify_program"]
