"""Speed of the two simulators on ResNet-18's C2, results computed, one core.

    python benchmarks/cycle_speed.py [--layer C2] [--repeat 20] [--json FILE]

Times are CPU seconds of the best of several runs; setting up scratchpads and memory is included,
reading the file and compiling kernels are not."""

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
    parser = argparse.ArgumentParser(description="Speed of the simulators.")
    parser.add_argument("--config", default="edge")
    parser.add_argument("--layer", default="C2", choices=list(LAYERS))
    parser.add_argument("--repeat", type=int, default=20)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    cfg = load_config(options.config)
    program = build_layer(cfg, LAYERS[options.layer], name=options.layer, skip_padding=False)
    table = Table(title=f"{options.layer} on {cfg.name}")
    for column in ("device", "CPU seconds", "what", "million a second"):
        table.add_column(column, justify="right")
    figures, right = [], True
    for name in ("functional", "cycle"):
        device = open_device(name)
        result = device.run(program)
        right = right and verdict(program, result) == "match"
        seconds = []
        for _ in range(options.repeat):
            begin = time.process_time()
            result = device.run(program)
            seconds.append(time.process_time() - begin)
        what = "cycles" if result.cycles else "micro-ops"
        count = result.cycles or result.counters["compute.gemm.uops"]
        rate = count / min(seconds)
        table.add_row(name, f"{min(seconds):.4f}", f"{count:,} {what}", f"{rate / 1e6:.1f}")
        figures.append({"device": name, "seconds": min(seconds), what: count, "rate": rate})
    Console().print(table)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
