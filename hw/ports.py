"""Ports of the top module: one list from which shell, wrappers and descriptions derive."""

from __future__ import annotations

from dataclasses import dataclass

from covta.hw.params import Config
from covta.hw.registers import ADDR_BITS

__all__ = ["LITE_DATA_BITS", "ShellPort", "memory_read_ports", "memory_write_ports", "shell_ports"]

LITE_DATA_BITS = 32


@dataclass(frozen=True, kw_only=True)
class ShellPort:
    """A port of the top module.

    Parameters
    ----------
    name : str
    width_bits : int
    is_output : bool
    constant : int, optional
        What an output always shows.
    """

    name: str
    width_bits: int
    is_output: bool
    constant: int | None = None


def _out(name: str, width_bits: int = 1, constant: int | None = None) -> ShellPort:
    return ShellPort(name=name, width_bits=width_bits, is_output=True, constant=constant)


def _in(name: str, width_bits: int = 1) -> ShellPort:
    return ShellPort(name=name, width_bits=width_bits, is_output=False)


def shell_ports(cfg: Config) -> tuple[ShellPort, ...]:
    """Every port beside `clk` and `rst`, in the order in which they are listed."""
    memory = (*memory_write_ports(cfg), *memory_read_ports(cfg))
    return (*memory, *_lite(), _out("irq"), _out("running"))


def _address_channel(cfg: Config, channel: str) -> tuple[ShellPort, ...]:
    """AR or AW: whole beats, incrementing, normal memory that may be buffered, one ID."""
    prefix = f"m_axi_{channel}"
    log2_beat_bytes = cfg.bus_bytes.bit_length() - 1
    return (
        _out(f"{prefix}id", 1, constant=0),
        _out(f"{prefix}addr", cfg.bus.addr_bits),
        _out(f"{prefix}len", 8),
        _out(f"{prefix}size", 3, constant=log2_beat_bytes),
        _out(f"{prefix}burst", 2, constant=0b01),
        _out(f"{prefix}lock", 1, constant=0),
        _out(f"{prefix}cache", 4, constant=0b0011),
        _out(f"{prefix}prot", 3, constant=0),
        _out(f"{prefix}qos", 4, constant=0),
        _out(f"{prefix}valid"),
        _in(f"{prefix}ready"),
    )


def memory_write_ports(cfg: Config) -> tuple[ShellPort, ...]:
    """AW, W and B."""
    return (
        *_address_channel(cfg, "aw"),
        _out("m_axi_wdata", cfg.bus.data_bits),
        _out("m_axi_wstrb", cfg.bus_bytes, constant=(1 << cfg.bus_bytes) - 1),
        _out("m_axi_wlast"),
        _out("m_axi_wvalid"),
        _in("m_axi_wready"),
        _in("m_axi_bid"),
        _in("m_axi_bresp", 2),
        _in("m_axi_bvalid"),
        _out("m_axi_bready"),
    )


def memory_read_ports(cfg: Config) -> tuple[ShellPort, ...]:
    """AR and R."""
    return (
        *_address_channel(cfg, "ar"),
        _in("m_axi_rid"),
        _in("m_axi_rdata", cfg.bus.data_bits),
        _in("m_axi_rresp", 2),
        _in("m_axi_rlast"),
        _in("m_axi_rvalid"),
        _out("m_axi_rready"),
    )


def _lite() -> tuple[ShellPort, ...]:
    return (
        _in("s_axi_awaddr", ADDR_BITS),
        _in("s_axi_awprot", 3),
        _in("s_axi_awvalid"),
        _out("s_axi_awready"),
        _in("s_axi_wdata", LITE_DATA_BITS),
        _in("s_axi_wstrb", LITE_DATA_BITS // 8),
        _in("s_axi_wvalid"),
        _out("s_axi_wready"),
        _out("s_axi_bresp", 2),
        _out("s_axi_bvalid"),
        _in("s_axi_bready"),
        _in("s_axi_araddr", ADDR_BITS),
        _in("s_axi_arprot", 3),
        _in("s_axi_arvalid"),
        _out("s_axi_arready"),
        _out("s_axi_rdata", LITE_DATA_BITS),
        _out("s_axi_rresp", 2),
        _out("s_axi_rvalid"),
        _in("s_axi_rready"),
    )
