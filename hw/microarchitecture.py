"""Depths and latencies of the units, which the RTL and the cycle simulator share.

How they act together stands in ``docs/microarchitecture.md``. What a configuration sets is in
`covta.hw.params`.
"""

from __future__ import annotations

from covta.hw.params import Config

__all__ = [
    "ALU_GENERATE_TO_READ_CYCLES",
    "ALU_QUEUE_DEPTH",
    "ALU_READ_TO_WRITE_CYCLES",
    "ALU_START_TO_GENERATE_CYCLES",
    "COMPUTE_RETIRE_DEPTH",
    "GEMM_DRAIN_CYCLES",
    "GEMM_RESULT_CYCLES",
    "LOADER_DEPTH",
    "MUL_LATENCY_CYCLES",
    "PAGE_BYTES",
    "SCANNED_DEPTH",
    "SCAN_ALU_CYCLES",
    "SCAN_GEMM_CYCLES",
    "SCAN_LOAD_JUDGE_CYCLES",
    "SCAN_LOOP_JUDGE_CYCLES",
    "STORE_ELEM_DEPTH",
    "STORE_OUT_LATENCY_CYCLES",
    "STORE_RETIRE_DEPTH",
    "TOKEN_BITS",
    "TOKEN_MAX",
    "fetch_buffer_beats",
    "fetch_burst_beats",
]

# ---- bursts ------------------------------------------------------------------------------------
PAGE_BYTES = 4096
"""No AXI4 burst crosses a multiple of this."""

LOADER_DEPTH = 4
"""Transfers that a Loader has accepted and not done."""

FETCH_BUFFER_BEATS, FETCH_BUFFER_BYTES = 64, 2048

FETCH_BUFFER_BURSTS = 4
"""Longest bursts that the fetch buffer holds: short, so that loads wait little behind fetch."""


def fetch_buffer_beats(cfg: Config) -> int:
    """Beats of the fetch buffer: 64, or as many as make 2 KiB."""
    return min(FETCH_BUFFER_BEATS, FETCH_BUFFER_BYTES // cfg.bus_bytes)


def fetch_burst_beats(cfg: Config) -> int:
    """Beats of the longest burst of fetch: a quarter of the buffer or `max_burst_beats`."""
    return min(cfg.bus.max_burst_beats, fetch_buffer_beats(cfg) // FETCH_BUFFER_BURSTS)


# ---- tokens ------------------------------------------------------------------------------------
TOKEN_BITS = 8
TOKEN_MAX = (1 << TOKEN_BITS) - 1
"""What a token counter holds at most."""

# ---- compute unit ------------------------------------------------------------------------------
SCANNED_DEPTH = 8
"""Instructions scanned and not yet dispatched."""

COMPUTE_RETIRE_DEPTH = 8
"""Instructions dispatched and not yet retired."""

SCAN_GEMM_CYCLES, SCAN_ALU_CYCLES = 3, 2
"""Least cycles of a GEMM or ALU instruction in scan's first stage, which its multipliers take."""

SCAN_LOOP_JUDGE_CYCLES, SCAN_LOAD_JUDGE_CYCLES = 3, 2
"""Cycles in scan's second stage; one that does nothing takes a single cycle."""

GEMM_DRAIN_CYCLES = 5
"""Cycles after the last issue of a GEMM in which its banks still count as taken."""

GEMM_RESULT_CYCLES = 9
"""From the issue of a GEMM's micro-op to its write."""

ALU_QUEUE_DEPTH = 8
"""ALU operations whose addresses are generated and that are not yet read."""

ALU_START_TO_GENERATE_CYCLES = 1
ALU_GENERATE_TO_READ_CYCLES = 3
ALU_READ_TO_WRITE_CYCLES = 4
"""From an ALU instruction's start over an operation's last read to its write."""

MUL_LATENCY_CYCLES = 3
"""From operands to product in a lane; other operations take 1."""

# ---- store unit --------------------------------------------------------------------------------
STORE_RETIRE_DEPTH = 16
"""Instructions dispatched and not yet retired."""

STORE_ELEM_DEPTH = 8
"""Elements read or being read and not yet on their way to W."""

STORE_OUT_LATENCY_CYCLES = 2
"""From an address at the out scratchpad to its data."""
