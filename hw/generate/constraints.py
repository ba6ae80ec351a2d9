"""Timing constraints: one clock, and the ports that timing does not matter for."""

from __future__ import annotations

__all__ = ["sdc", "xdc"]

IO_DELAY_SHARE = 0.2
"""Share of the period that the world outside takes at a port."""


def _period_ns(clock_mhz: float) -> float:
    return 1000.0 / clock_mhz


def xdc(*, clock_mhz: float) -> str:
    """Constraints of `vta_xilinx` for an out-of-context run in Vivado."""
    return (
        f"create_clock -name aclk -period {_period_ns(clock_mhz):.3f} [get_ports aclk]\n"
        "set_property HD.CLK_SRC BUFGCTRL_X0Y0 [get_ports aclk]\n"
    )


def sdc(*, clock_mhz: float) -> str:
    """Constraints of `vta` for Quartus, OpenSTA and other readers of SDC."""
    period_ns = _period_ns(clock_mhz)
    delay_ns = period_ns * IO_DELAY_SHARE
    return (
        f"create_clock -name clk -period {period_ns:.3f} [get_ports clk]\n"
        "set_false_path -from [get_ports rst]\n"
        f"set_input_delay {delay_ns:.3f} -clock clk"
        " [get_ports {m_axi_*ready m_axi_r* m_axi_b* s_axi_*valid s_axi_*addr s_axi_w*}]\n"
        f"set_output_delay {delay_ns:.3f} -clock clk [all_outputs]\n"
    )
