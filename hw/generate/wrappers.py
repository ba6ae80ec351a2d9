"""Wrappers that show the machine to block-design tools.

Xilinx' IP integrator reads interfaces from `X_INTERFACE` attributes; Intel's Platform Designer from
a `_hw.tcl` file. Both wrappers turn the tool's reset into the shell's: synchronous, active high.
"""

from __future__ import annotations

from covta.hw.params import Config
from covta.hw.ports import ShellPort, shell_ports

__all__ = ["intel_hw_tcl", "intel_wrapper", "xilinx_wrapper"]


def _declaration(port: ShellPort) -> str:
    kind = "output" if port.is_output else "input "
    width = f" [{port.width_bits - 1}:0]" if port.width_bits > 1 else ""
    return f"{kind} wire{width} {port.name}"


def _instance(cfg: Config, clock: str) -> str:
    lines = [f"    .clk({clock})", "    .rst(reset_sync[1])"]
    lines += [f"    .{port.name}({port.name})" for port in shell_ports(cfg)]
    return "  vta vta (\n" + ",\n".join(lines) + "\n  );\n"


def _reset(clock: str, condition: str) -> str:
    return (
        "  reg [1:0] reset_sync;\n"
        "  initial reset_sync = 2'b11;\n"
        f"  always @(posedge {clock})\n"
        f"    reset_sync <= {{reset_sync[0], {condition}}};\n\n"
    )


def xilinx_wrapper(cfg: Config, *, clock_mhz: float) -> str:
    """Verilog module `vta_xilinx` for a Vivado block design.

    Parameters
    ----------
    cfg : Config
    clock_mhz : float
        Written into the clock's `FREQ_HZ`.
    """
    bus = cfg.bus
    parameters = {
        "m_axi": (
            f"PROTOCOL AXI4, DATA_WIDTH {bus.data_bits}, ADDR_WIDTH {bus.addr_bits}, ID_WIDTH 1,"
            f" MAX_BURST_LENGTH {bus.max_burst_beats}, NUM_READ_OUTSTANDING {bus.max_outstanding},"
            f" NUM_WRITE_OUTSTANDING {bus.max_outstanding}, SUPPORTS_NARROW_BURST 0,"
            " READ_WRITE_MODE READ_WRITE"
        ),
        "s_axi": "PROTOCOL AXI4LITE, DATA_WIDTH 32, HAS_BURST 0, HAS_LOCK 0, HAS_CACHE 0",
    }
    aclk = (
        '  (* X_INTERFACE_INFO = "xilinx.com:signal:clock:1.0 aclk CLK",\n'
        '     X_INTERFACE_PARAMETER = "XIL_INTERFACENAME aclk,'
        " ASSOCIATED_BUSIF m_axi:s_axi, ASSOCIATED_RESET aresetn,"
        f' FREQ_HZ {round(clock_mhz * 1e6)}" *)\n'
        "  input  wire aclk"
    )
    aresetn = (
        '  (* X_INTERFACE_INFO = "xilinx.com:signal:reset:1.0 aresetn RST",\n'
        '     X_INTERFACE_PARAMETER = "XIL_INTERFACENAME aresetn, POLARITY ACTIVE_LOW" *)\n'
        "  input  wire aresetn"
    )
    ports = [aclk, aresetn]
    for port in shell_ports(cfg):
        ports.append(_xilinx_attribute(port, parameters) + f"  {_declaration(port)}")
    return (
        "module vta_xilinx (\n" + ",\n".join(ports) + "\n);\n"
        + _reset("aclk", "!aresetn")
        + _instance(cfg, "aclk")
        + "endmodule\n"
    )  # fmt: skip


def _xilinx_attribute(port: ShellPort, parameters: dict[str, str]) -> str:
    interface, _, signal = port.name.rpartition("_")
    if interface in ("m_axi", "s_axi"):
        info = f"xilinx.com:interface:aximm:1.0 {interface} {signal.upper()}"
        parameter = parameters.pop(interface, None)
        if parameter:
            return (
                f'  (* X_INTERFACE_INFO = "{info}",\n'
                f'     X_INTERFACE_PARAMETER = "XIL_INTERFACENAME {interface}, {parameter}" *)\n'
            )
        return f'  (* X_INTERFACE_INFO = "{info}" *)\n'
    if port.name == "irq":
        return (
            '  (* X_INTERFACE_INFO = "xilinx.com:signal:interrupt:1.0 irq INTERRUPT",\n'
            '     X_INTERFACE_PARAMETER = "XIL_INTERFACENAME irq, SENSITIVITY LEVEL_HIGH" *)\n'
        )
    return ""


def intel_wrapper(cfg: Config) -> str:
    """Verilog module `vta_intel` for Platform Designer, described by `intel_hw_tcl`."""
    ports = ["  input  wire clk", "  input  wire reset"]
    ports += [f"  {_declaration(port)}" for port in shell_ports(cfg)]
    return (
        "module vta_intel (\n" + ",\n".join(ports) + "\n);\n"
        + _reset("clk", "reset")
        + _instance(cfg, "clk")
        + "endmodule\n"
    )  # fmt: skip


def intel_hw_tcl(cfg: Config, *, version: str, sources: list[str]) -> str:
    """Component description `vta_hw.tcl`.

    Parameters
    ----------
    cfg : Config
    version : str
        Of the component.
    sources : list of str
        Verilog files, relative to the description, the wrapper last.
    """
    outstanding = cfg.bus.max_outstanding
    lines = [
        "package require -exact qsys 16.1",
        "",
        "set_module_property NAME vta",
        f'set_module_property DISPLAY_NAME "VTA ({cfg.name})"',
        f"set_module_property VERSION {version}",
        'set_module_property GROUP "Accelerators"',
        "set_module_property EDITABLE false",
        "",
    ]
    for fileset in ("QUARTUS_SYNTH", "SIM_VERILOG"):
        lines += [
            f'add_fileset {fileset} {fileset} "" ""',
            f"set_fileset_property {fileset} TOP_LEVEL vta_intel",
            *(f"add_fileset_file {path} VERILOG PATH {path}" for path in sources),
            "",
        ]
    lines += [
        "add_interface clock clock end",
        "add_interface_port clock clk clk Input 1",
        "",
        "add_interface reset reset end",
        "set_interface_property reset associatedClock clock",
        "set_interface_property reset synchronousEdges BOTH",
        "add_interface_port reset reset reset Input 1",
        "",
        *_intel_interface(cfg, "m_axi", "axi4 start"),
        f"set_interface_property m_axi readIssuingCapability {outstanding}",
        f"set_interface_property m_axi writeIssuingCapability {outstanding}",
        f"set_interface_property m_axi combinedIssuingCapability {2 * outstanding}",
        "",
        *_intel_interface(cfg, "s_axi", "axi4lite end"),
        "",
        "add_interface irq interrupt end",
        "set_interface_property irq associatedAddressablePoint s_axi",
        "set_interface_property irq associatedClock clock",
        "set_interface_property irq associatedReset reset",
        "add_interface_port irq irq irq Output 1",
        "",
        "add_interface running conduit end",
        "set_interface_property running associatedClock clock",
        "add_interface_port running running running Output 1",
    ]
    return "\n".join(lines) + "\n"


def _intel_interface(cfg: Config, name: str, kind: str) -> list[str]:
    lines = [
        f"add_interface {name} {kind}",
        f"set_interface_property {name} associatedClock clock",
        f"set_interface_property {name} associatedReset reset",
    ]
    for port in shell_ports(cfg):
        interface, _, signal = port.name.rpartition("_")
        if interface == name:
            direction = "Output" if port.is_output else "Input"
            lines.append(
                f"add_interface_port {name} {port.name} {signal} {direction} {port.width_bits}"
            )
    return lines
