"""How busy hand-written kernels keep the multiplier array on ResNet-18's convolutions.

    python benchmarks/resnet_layers.py [--on cycle|rtl] [--layers C2,C8,C11] [--json FILE]

Every layer runs twice: *dense*, where each multiplication by padding is done, as the ideal counts
it, and *skip*, where they are left out. Requantisation (bias, shift, ReLU, clip to int8) is
included, results are compared with NumPy's."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "examples"))

from conv2d import LAYERS, build_layer

from covta.hw.params import load_config
from covta.runtime.device import open_device
from covta.runtime.report import verdict
from covta.sim.dram import DramModel

REPORTED = ("C2", "C8", "C11")
LATENCIES_CYCLES = (32, 100)


def measure(
    config: str, device: str, layer: str, latency_cycles: int, *, skip: bool
) -> dict[str, Any]:
    """Build and run one layer."""
    cfg = load_config(config)
    program = build_layer(cfg, LAYERS[layer], name=layer, skip_padding=skip)
    result = open_device(device).run(program, DramModel(latency_cycles=latency_cycles))
    if result.cycles is None:
        raise SystemExit(f"device {device!r} knows no time; use cycle or rtl")
    busy = result.counters["compute.gemm.busy_cycles"]
    ideal = program.meta["macs"] // cfg.macs
    return {
        "layer": layer,
        "times": LAYERS[layer].times,
        "device": device,
        "padding": "skip" if skip else "dense",
        "latency_cycles": latency_cycles,
        "cycles": result.cycles,
        "ideal_cycles": ideal,
        "ideal_percent": round(100 * ideal / result.cycles, 2),
        "busy_percent": round(100 * busy / result.cycles, 2),
        "expected": "fault" if result.fault else verdict(program, result),
        "instructions": len(program.insn),
    }


def main() -> int:
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--config", default="edge")
    parser.add_argument("--on", default="cycle", help="cycle or rtl")
    parser.add_argument("--layers", default=",".join(REPORTED), help="or all")
    parser.add_argument("--latency", type=int, action="append", help="may repeat; default 32, 100")
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    names = list(LAYERS) if options.layers == "all" else options.layers.split(",")
    unknown = [name for name in names if name not in LAYERS]
    if unknown:
        parser.error(f"layers must be among {', '.join(LAYERS)}, got {unknown[0]!r}")
    rows = []
    print("layer padding latency     cycles      ideal  ideal %   busy %  result")
    for name in names:
        for skip in (False, True):
            for latency in options.latency or LATENCIES_CYCLES:
                r = measure(options.config, options.on, name, latency, skip=skip)
                rows.append(r)
                print(
                    f"{name:5} {r['padding']:7} {latency:7} {r['cycles']:10,}"
                    f" {r['ideal_cycles']:10,}"
                    f" {r['ideal_percent']:8.2f} {r['busy_percent']:8.2f}  {r['expected']}",
                    flush=True,
                )
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    if options.layers == "all":
        _print_totals(rows)
    return 0 if all(r["expected"] == "match" for r in rows) else 1


def _print_totals(rows: list[dict[str, Any]]) -> None:
    """Sum over the network, each layer as often as it occurs."""
    for key in sorted({(r["padding"], r["latency_cycles"]) for r in rows}):
        mine = [r for r in rows if (r["padding"], r["latency_cycles"]) == key]
        cycles = sum(r["times"] * r["cycles"] for r in mine)
        ideal = sum(r["times"] * r["ideal_cycles"] for r in mine)
        print(
            f"C2-C11 with repeats, {key[0]}, latency {key[1]}: {cycles:,} cycles, ideal {ideal:,}:"
            f" {100 * ideal / cycles:.2f} %"
        )


if __name__ == "__main__":
    sys.exit(main())
