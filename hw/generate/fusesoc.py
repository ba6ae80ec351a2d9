"""Core description for FuseSoC (CAPI2)."""

from __future__ import annotations

import yaml

from covta.hw.params import Config

__all__ = ["fusesoc_core"]


def fusesoc_core(cfg: Config, *, version: str, sources: list[str], models: list[str]) -> str:
    """Text of the `.core` file.

    Parameters
    ----------
    cfg : Config
    version : str
        Of the core.
    sources : list of str
        Verilog files of the machine, without wrappers.
    models : list of str
        Verilog files of vendors' cells, for simulators and linters alone.
    """
    simulated = ["rtl", *(["models"] if models else [])]
    core = {
        "name": f"covta:accelerator:vta_{cfg.name}:{version}",
        "description": f"VTA, configuration {cfg.name}",
        "filesets": {
            "rtl": {"files": sources, "file_type": "verilogSource"},
            **({"models": {"files": models, "file_type": "verilogSource"}} if models else {}),
            "xilinx": {
                "files": ["vta_xilinx.v", {"vta.xdc": {"file_type": "xdc"}}],
                "file_type": "verilogSource",
            },
            "intel": {
                "files": ["vta_intel.v", {"vta.sdc": {"file_type": "SDC"}}],
                "file_type": "verilogSource",
            },
        },
        "targets": {
            "default": {"filesets": ["rtl"], "toplevel": "vta"},
            "lint": {
                "default_tool": "verilator",
                "filesets": simulated,
                "toplevel": "vta",
                "tools": {"verilator": {"mode": "lint-only", "verilator_options": ["-Wall"]}},
            },
            "xilinx": {
                "default_tool": "vivado",
                "filesets": ["rtl", "xilinx"],
                "toplevel": "vta_xilinx",
            },
            "intel": {
                "default_tool": "quartus",
                "filesets": ["rtl", "intel"],
                "toplevel": "vta_intel",
            },
        },
    }
    return "CAPI=2:\n" + yaml.safe_dump(core, sort_keys=False)
