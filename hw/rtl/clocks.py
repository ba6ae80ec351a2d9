"""Clocks of units, each of which may stand still while its unit has nothing to do.

Every unit but the array's and the bus's lies in a clock domain of its own. In the Verilog that is
shipped all of them are the one clock (`Shell`). A model that runs long programs drives each alone:
what stands still costs no time. Gates of an ASIC could stand in the same places.

The contract: a clock has an edge in every cycle in which its bit of `clock_request` is set, and for
`LINGER_CYCLES` cycles after; any other edge may be missing.
"""

from amaranth.lib import data

__all__ = ["CLOCK_REQUEST_LAYOUT", "COMPUTE_CLOCKS", "LINGER_CYCLES", "UNIT_CLOCKS"]

COMPUTE_CLOCKS = ("scan", "loader", "alu", "acc")
"""Of the compute unit: its scan, its Loader, its ALU, and the port of acc that both write."""

UNIT_CLOCKS = ("fetch", "load", "store", "lite", *COMPUTE_CLOCKS)
"""Names of the domains; `lite` is the control registers without the counters."""

LINGER_CYCLES = 16
"""Edges after the last request: more than any pipeline behind a unit's busy signals is long."""

CLOCK_REQUEST_LAYOUT = data.StructLayout(dict.fromkeys(UNIT_CLOCKS, 1))
