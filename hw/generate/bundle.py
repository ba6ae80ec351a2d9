"""The set of files that one configuration becomes, and how it is put in place."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from covta.hw.generate.cells import cell_models
from covta.hw.generate.constraints import sdc, xdc
from covta.hw.generate.fusesoc import fusesoc_core
from covta.hw.generate.verilog import VerilogDesign, to_verilog
from covta.hw.generate.wrappers import intel_hw_tcl, intel_wrapper, xilinx_wrapper
from covta.hw.params import Config, ConfigError
from covta.hw.registers import render_c_header
from covta.hw.rtl.shell import Shell

__all__ = ["LINT_WAIVERS", "MANIFEST", "BundleError", "BundleFile", "build_bundle", "write_bundle"]

MANIFEST = "manifest.json"

LINT_WAIVERS: dict[str, str] = {
    "UNUSEDSIGNAL": "named copies of signals, kept so that waveforms read well",
    "WIDTHEXPAND": "every width was worked out; Verilog's own extension is the right one",
    "WIDTHTRUNC": "`!` and `&&` of a number of several bits, as Verilog defines them",
    "CASEINCOMPLETE": "what a case assigns has a value before it",
    "CASEOVERLAP": "a chain of conditions: the first that holds wins, in Verilog too",
    "CMPCONST": "a comparison that this configuration decides",
    "UNSIGNED": "a comparison that this configuration decides",
    "DECLFILENAME": "one file may hold every module",
}
"""Verilator's warnings that do not matter here, and why."""


class BundleError(RuntimeError):
    """Files cannot be put where they were asked for."""


@dataclass(frozen=True, kw_only=True)
class BundleFile:
    """One generated file."""

    path: str
    text: str
    purpose: str


def build_bundle(
    cfg: Config, *, clock_mhz: float = 100.0, split: bool = False
) -> tuple[BundleFile, ...]:
    """Generate every file of a machine, in memory.

    The same arguments give the same bytes on every machine.

    Parameters
    ----------
    cfg : Config
    clock_mhz : float
        Clock for the constraints.
    split : bool
        A Verilog file for each module, in ``rtl/``, rather than one ``vta.v``.

    Returns
    -------
    tuple of BundleFile
        The manifest last.
    """
    if not 1.0 <= clock_mhz <= 2000.0:
        raise BundleError(f"clock_mhz must lie between 1 and 2000, got {clock_mhz:g}")
    release = version("covta")
    rtl = _rtl_files(cfg, to_verilog(Shell(cfg), "vta"), split=split)
    sources = [file.path for file in rtl]

    def add(path: str, text: str, purpose: str) -> BundleFile:
        return BundleFile(path=path, text=text, purpose=purpose)

    def verilog(path: str, text: str, purpose: str) -> BundleFile:
        return add(path, _banner(cfg) + text, purpose)

    models = [
        add(f"models/{cell}.v", text, "a vendor's cell, for simulators")
        for cell, text in cell_models(cfg).items()
    ]
    files = [
        *rtl,
        *models,
        verilog(
            "vta_xilinx.v", xilinx_wrapper(cfg, clock_mhz=clock_mhz), "Vivado block design wrapper"
        ),
        verilog("vta_intel.v", intel_wrapper(cfg), "Platform Designer wrapper"),
        add(
            "vta_hw.tcl",
            intel_hw_tcl(cfg, version=release, sources=[*sources, "vta_intel.v"]),
            "Platform Designer component",
        ),
        add("vta.xdc", xdc(clock_mhz=clock_mhz), "timing constraints, Vivado"),
        add("vta.sdc", sdc(clock_mhz=clock_mhz), "timing constraints, Quartus and OpenSTA"),
        add(
            "vta.core",
            fusesoc_core(
                cfg, version=release, sources=sources, models=[file.path for file in models]
            ),
            "FuseSoC core",
        ),
        add("vta.h", render_c_header(cfg), "control registers for C drivers"),
        add("config.yaml", cfg.to_yaml(), "the configuration, resolved"),
    ]
    try:
        files.append(add("vta_config.json", cfg.to_official_json(), "official parameters"))
    except ConfigError:
        pass  # the official keys cannot say it; the manifest lists what there is
    files.append(add(MANIFEST, _manifest(cfg, files, release, clock_mhz), "what is here"))
    return tuple(files)


def _banner(cfg: Config) -> str:
    return (
        f"// VTA, configuration {cfg.name}. Written by vta-gen:"
        " change the configuration, not this file.\n"
    )


def _rtl_files(cfg: Config, design: VerilogDesign, *, split: bool) -> list[BundleFile]:
    head = f"{_banner(cfg)}\n{_waivers()}\n"
    if not split:
        return [BundleFile(path="vta.v", text=head + design.text, purpose="the machine")]
    return [
        BundleFile(path=f"rtl/{name}.v", text=head + text, purpose=f"module {name}")
        for name, text in design.modules.items()
    ]


def _waivers() -> str:
    width = max(map(len, LINT_WAIVERS))
    return "".join(
        f"// verilator lint_off {rule:<{width}} // {reason}\n"
        for rule, reason in LINT_WAIVERS.items()
    )


def _manifest(cfg: Config, files: list[BundleFile], release: str, clock_mhz: float) -> str:
    table = {
        "generator": f"covta {release}",
        "configuration": cfg.name,
        "top": "vta",
        "clock_mhz": clock_mhz,
        "files": [
            {
                "path": file.path,
                "purpose": file.purpose,
                "bytes": len(file.text.encode()),
                "sha256": hashlib.sha256(file.text.encode()).hexdigest(),
            }
            for file in files
        ],
    }
    return json.dumps(table, indent=2) + "\n"


def write_bundle(files: tuple[BundleFile, ...], folder: Path) -> None:
    """Put a bundle in place as a whole: a reader sees the old files or the new ones.

    Raises
    ------
    BundleError
        If the folder holds something that is no earlier bundle, or cannot be written.
    """
    folder = folder.absolute()
    if folder.exists() and not folder.is_dir():
        raise BundleError(f"{folder}: is a file, not a folder")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / MANIFEST).is_file():
        raise BundleError(
            f"{folder}: is not empty and holds no {MANIFEST} of an earlier run; name another folder"
        )
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as name:
            fresh, old = Path(name) / "fresh", Path(name) / "old"
            for file in files:
                path = fresh / file.path
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(file.text, encoding="utf-8", newline="\n")
            if folder.exists():
                folder.rename(old)
            try:
                fresh.rename(folder)
            except OSError:
                if old.exists():
                    shutil.move(old, folder)
                raise
    except OSError as error:
        raise BundleError(f"{folder}: cannot be written: {error.strerror}") from None
