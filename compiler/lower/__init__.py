"""From a schedule to loops over buffers, transfers and intrinsics, pass by pass.

=================== ==================================================================
pass                does
=================== ==================================================================
`nest.build`        schedule -> loops, regions, allocations, intrinsics, transfers
`guards.tighten`    conditions on loop variables become loop bounds
`threads.inject`    virtual threads are interleaved, their buffers set apart
`clean.clean`       loops of one turn go, indices are simplified
`unroll.unroll`     outer loops are run; what is left is a `Trace` over tiles
=================== ==================================================================

Each takes and returns IR that `covta.compiler.ir.verify` accepts, and prints.
"""

from covta.compiler.lower.driver import lower

__all__ = ["lower"]
