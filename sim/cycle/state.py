"""What the cycle simulator keeps: records whose fields kernels read and write by name.

Times are cycles since the launch. ``NEVER`` is a time that is not known to come. A field that ends
in ``_at`` or ``_last`` is a time, one in ``_in`` or ``_out`` counts entries put into or taken from
a ring.
"""

from __future__ import annotations

import numpy as np

__all__ = ["BEAT_RING", "GENERATOR", "LOADER", "NEVER", "PARAMETERS", "RING", "RUN"]

NEVER = 1 << 60

RING = 128
"""Entries of a ring of bursts, transfers or instructions: more than are ever in flight."""

BEAT_RING = 1 << 14
"""Beats of the bursts that may be in flight: 64 of 256."""


def _record(names: str) -> np.dtype:
    return np.dtype([(name, np.int64) for name in names.split()])


PARAMETERS = _record(
    """bus_bytes bus_shift max_burst port_limit dram_limit queue_depth
    uop_depth inp_depth wgt_depth acc_depth mul_cycles has_pad_min
    fetch_buffer fetch_burst insns_per_beat beats_per_insn first_slot
    insn_count insn_addr window_first window_last watchdog
    out_beats latency rate seed threshold regions load_ahead"""
)
"""Constants of one run."""

GENERATOR = _record(
    """row_valid row_addr rows_left row_bytes stride row_insn
    valid addr beats insn"""
)
"""A burst generator: its row stage and its burst stage (addresses in bytes)."""

LOADER = _record(
    """accepted done ahead_out
    started rows_left row_beats room step_at insn rank
    busy_cycles read_beats"""
)
"""A Loader: transfers accepted, done and given to its generator; its Receiver."""

RUN = _record(
    """now
    read_grants read_beats ar_free_at ahead_in ahead_out ahead_sum
    r_free_at r_credit r_credit_at
    write_grants aw_last w_last b_last
    w_free_at w_credit w_credit_at
    f_left f_asked f_addr f_free f_request f_request_addr f_request_beats
    f_beats_in f_beats_out f_full f_error f_part f_slot f_index
    s_insn s_taken_at s_left s_counted_at s_leaves_at s_judge_cycles j_insn j_offers_at
    s_cause s_banks s_empty s_uop_end uop_pending
    q_in q_out r_in r_out
    m_start m_last m_banks m_drain_last m_drain_banks m_uop_bgn m_uop_end m_done_in m_done_out
    a_g a_f a_gap a_count
    a_ready_at a_busy_last a_banks a_older_last a_older_banks
    a_hold_from a_hold_last a_done_in a_done_out
    loader_banks l_retired retired_at
    st_counted st_checked st_generating st_dispatched st_retired st_answered
    st_staged st_written st_written_bytes
    st_elems st_part st_elem_at st_read_last st_leave_last
    finished last_progress fault_at fault_cause fault_insn fault_rank
    gemm_busy alu_busy fetch_beats compute_token_stall compute_hazard_stall
    load_token_stall store_token_stall store_busy write_beats"""
)
"""Everything else."""
