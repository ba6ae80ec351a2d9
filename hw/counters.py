"""The performance counters: one table of dotted names for RTL, simulators and reports."""

from __future__ import annotations

__all__ = ["COUNTERS", "COUNTER_BITS", "saturate"]

COUNTER_BITS = 32
"""Width of a counter; it stays at its maximum when it is reached."""

COUNTERS: dict[str, str] = {
    "fetch.insns": "instructions handed to the queues of their units",
    "fetch.read_beats": "beats read by fetch",
    "load.busy_cycles": "cycles with a load instruction under way",
    "load.token_stall_cycles": "cycles in which the next load waits for nothing but a token",
    "load.read_beats": "beats read by the load unit",
    "compute.gemm.busy_cycles": "cycles in which GEMM works on micro-ops",
    "compute.alu.busy_cycles": "cycles in which the ALU works on micro-ops",
    "compute.load.busy_cycles": "cycles with a compute-queue LOAD under way",
    "compute.load.read_beats": "beats read for micro-ops and accumulators",
    "compute.token_stall_cycles": "cycles in which the next compute instruction waits for a token",
    "compute.hazard_stall_cycles": "cycles in which it waits for a bank or micro-ops in use",
    "store.busy_cycles": "cycles with a store instruction under way",
    "store.token_stall_cycles": "cycles in which the next store waits for nothing but a token",
    "store.write_beats": "beats written",
}
"""Meaning of every counter by its name, in the order of the control registers."""


def saturate(count: int) -> int:
    """The value that a counter register shows after `count` events."""
    return min(count, (1 << COUNTER_BITS) - 1)
