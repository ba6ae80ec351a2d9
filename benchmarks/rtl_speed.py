"""Speed of the RTL under Verilator on layers of ResNet-18, one core.

    python benchmarks/rtl_speed.py [edge ...] [--layers C2,C8,C11] [--repeat 3] [--json FILE]

Times are CPU seconds of the best of several runs, from reset to the bytes read back; building the
model is not included. `CXX=clang++` builds it with another compiler."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "examples"))

from conv2d import LAYERS, build_layer
from rich.console import Console
from rich.table import Table

from covta.hw.params import load_config
from covta.runtime.device import open_device
from covta.runtime.report import verdict


def main() -> int:
    """Command line; exit code 1 if a result is wrong."""
    parser = argparse.ArgumentParser(description="Speed of the RTL under Verilator.")
    parser.add_argument("configs", nargs="*", default=["edge"], help="machines, by name or file")
    parser.add_argument("--layers", default="C2,C8,C11")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    table = Table(title="RTL under Verilator")
    for column in ("machine", "layer", "cycles", "CPU seconds", "million cycles a second"):
        table.add_column(column, justify="right")
    figures, right = [], True
    device = open_device("rtl")
    for config in options.configs:
        cfg = load_config(config)
        for layer in options.layers.split(","):
            program = build_layer(cfg, LAYERS[layer], name=layer, skip_padding=False)
            device.run(program)  # builds the model
            seconds = []
            for _ in range(options.repeat):
                begin = time.process_time()
                result = device.run(program)
                seconds.append(time.process_time() - begin)
            right = right and verdict(program, result) == "match"
            rate = result.cycles / min(seconds)
            table.add_row(
                cfg.name, layer, f"{result.cycles:,}", f"{min(seconds):.3f}", f"{rate / 1e6:.2f}"
            )
            figures.append(
                {
                    "machine": cfg.name,
                    "layer": layer,
                    "cycles": result.cycles,
                    "seconds": min(seconds),
                    "rate": rate,
                }
            )
    Console().print(table)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
