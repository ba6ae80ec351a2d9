"""How near the compiler's operators come to what bounds them.

    python benchmarks/operators.py [--on cycle|rtl] [--config edge ...] [--set resnet ...]
        [--latency 32 ...] [--tune TRIES] [--json FILE]

`--config random:7` is a machine drawn with seed 7. For every layer: cycles, how long each unit was
busy, the array's share, the bound of each part of the machine and the share of the tightest one
that was reached; what has to be read is the least for scratchpads of that size. *With start*: the
most that a part needs together with what it idles at least while little is loaded. With `--tune`,
the quickest of so many settings on the cycle simulator is taken, else the default.
ResNet-18's convolutions run twice: with padding skipped, and *dense*, where each multiplication
by padding is done, as the ideal counts it. Results are compared with NumPy's."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from covta.compiler.ops import (
    AveragePool2d,
    BatchMatmul,
    BatchNorm,
    Conv2d,
    Dense,
    DepthwiseConv2d,
    Elementwise,
    GlobalAveragePool2d,
    GroupedConv2d,
    LeakyRelu,
    MaxPool2d,
    Requantization,
    Requantize,
    ResidualAdd,
    TransposedConv2d,
    compile_operator,
)
from covta.compiler.ops.model import Machine
from covta.compiler.ops.tiles import even
from covta.compiler.ops.tune import tune
from covta.hw.params import Config, ConfigError, load_config
from covta.runtime.device import open_device
from covta.sim.dram import DramModel

RELU = Requantize(low=0)

RESNET = {  # size, inputs, outputs, kernel, stride, times
    "C2": (56, 64, 64, 3, 1, 4), "C3": (56, 64, 128, 3, 2, 1), "C4": (56, 64, 128, 1, 2, 1),
    "C5": (28, 128, 128, 3, 1, 3), "C6": (28, 128, 256, 3, 2, 1), "C7": (28, 128, 256, 1, 2, 1),
    "C8": (14, 256, 256, 3, 1, 3), "C9": (14, 256, 512, 3, 2, 1), "C10": (14, 256, 512, 1, 2, 1),
    "C11": (7, 512, 512, 3, 1, 3),
}  # fmt: skip

MOBILENET = {  # version, channels, size, stride
    "v1": ((32, 112, 1), (64, 112, 2), (128, 56, 1), (128, 56, 2), (256, 28, 1), (256, 28, 2),
           (512, 14, 1), (512, 14, 2), (1024, 7, 1)),
    "v2": ((96, 112, 2), (144, 56, 1), (192, 28, 1), (384, 14, 1), (576, 14, 1), (960, 7, 1)),
}  # fmt: skip


def layers(which: str) -> Iterator[tuple[str, Any, int]]:
    """Name, operator and occurrences of the layers of a set."""
    if which == "resnet":
        yield (
            "C1",
            Conv2d(
                in_channels=3, out_channels=64, height=224, width=224, kernel=7, stride=2,
                padding=3, requantize=RELU,
            ),
            1,
        )  # fmt: skip
        for name, (size, inputs, outputs, kernel, stride, times) in RESNET.items():
            yield (
                name,
                Conv2d(
                    in_channels=inputs, out_channels=outputs, height=size, width=size,
                    kernel=kernel, stride=stride, padding=kernel // 2, requantize=RELU,
                ),
                times,
            )  # fmt: skip
    elif which == "depthwise":
        for version, shapes in MOBILENET.items():
            for c, size, stride in shapes:
                op = DepthwiseConv2d(
                    channels=c, height=size, width=size, stride=stride, padding=1, requantize=RELU
                )
                yield f"{version} {c}x{size} /{stride}", op, 1
    elif which == "pool":
        yield (
            "max 64x112 3/2",
            MaxPool2d(channels=64, height=112, width=112, kernel=3, stride=2, padding=1),
            1,
        )
        yield "max 64x56 2/2", MaxPool2d(channels=64, height=56, width=56), 1
        yield (
            "max 256x13 5/1",
            MaxPool2d(channels=256, height=13, width=13, kernel=5, stride=1, padding=2),
            1,
        )
        yield "average 64x56 2/2", AveragePool2d(channels=64, height=56, width=56), 1
        yield (
            "average 192x28 3/1",
            AveragePool2d(channels=192, height=28, width=28, kernel=3, stride=1, padding=1),
            1,
        )
        for c in (512, 1280):
            yield f"global {c}x7", GlobalAveragePool2d(channels=c, height=7, width=7), 1
    elif which == "residual":
        for c, size in ((64, 56), (128, 28), (256, 14), (512, 7)):
            how = Requantize(bias=False, shift=6, low=0)
            op = ResidualAdd(
                channels=c, height=size, width=size, scale_a=45, scale_b=64, requantize=how
            )
            yield f"add {c}x{size}", op, 1
    elif which == "dense":
        yield "512 -> 1000", Dense(in_features=512, out_features=1000), 1
        yield "128 x 768 -> 768", Dense(in_features=768, out_features=768, batch=128), 1
        yield "128 x 768 -> 3072", Dense(in_features=768, out_features=3072, batch=128), 1
        op = BatchMatmul(items=12, rows=128, in_features=64, out_features=128)
        yield "12 x 128x64x128", op, 1
    elif which == "other":
        size = {"channels": 128, "height": 28, "width": 28}
        how = Requantize(bias=False, shift=7)
        yield "multiply", Elementwise(op="multiply", requantize=how, **size), 1
        yield "max", Elementwise(op="max", **size), 1
        yield "leaky relu", LeakyRelu(**size), 1
        yield "relu", Requantization(**size), 1
        how = Requantize(bias=False, per_channel=True, shift=10)
        yield "requantize, per channel", Requantization(requantize=how, **size), 1
        yield "batch norm", BatchNorm(**size), 1
        op = GroupedConv2d(
            in_channels=128, out_channels=128, groups=32, height=56, width=56, padding=1
        )
        yield "grouped 128x56 /32", op, 1
        op = TransposedConv2d(in_channels=256, out_channels=128, height=14, width=14)
        yield "transposed 256x14 4/2", op, 1


SETS = ("resnet", "depthwise", "pool", "residual", "dense", "other")


def machine(name: str) -> Config:
    """A configuration by name, or one drawn at random."""
    if not name.startswith("random:"):
        return load_config(name)
    seed = int(name.removeprefix("random:"))
    rng = np.random.default_rng(seed)
    while True:
        pick = lambda *c: c[int(rng.integers(len(c)))]  # noqa: E731
        try:
            return Config.from_dict(
                {
                    "name": f"random{seed}",
                    "batch": pick(1, 1, 2, 4), "block_in": pick(8, 16, 32),
                    "block_out": pick(8, 16, 32),
                    "buffers": {
                        "uop": 1 << pick(14, 15), "inp": 1 << pick(14, 15, 16),
                        "wgt": 1 << pick(17, 18, 19), "acc": 1 << pick(16, 17, 18),
                    },
                    "bus": {"data_bits": pick(64, 128, 256), "max_outstanding": pick(16, 32)},
                    "alu_mul_lanes": pick(2, 4, 8),
                }
            )  # fmt: skip
        except ConfigError:
            continue


def describe(cfg: Config) -> str:
    """A machine's main parameters, on one line."""
    return (
        f"{cfg.name}: batch {cfg.batch}, block {cfg.block_in}x{cfg.block_out}, elements of inp"
        f" {cfg.inp_depth}, wgt {cfg.wgt_depth}, acc {cfg.acc_depth}, bus {cfg.bus_bytes} bytes,"
        f" {cfg.bus.max_outstanding} bursts in flight, {cfg.alu_mul_lanes} multipliers of the ALU,"
        f" extensions {', '.join(cfg.extensions) or 'none'}"
    )


def dense_knobs(cfg: Config, operator: Conv2d) -> Any:
    """The default, but with padding stored and multiplied; None where a LOAD cannot pad so."""
    knobs = operator.default(cfg)
    if knobs.lines:  # which only tiles without padding can be
        machine, window = Machine(cfg), operator.window(cfg)
        knobs = min(operator.candidates(cfg), key=lambda k: operator.estimate(machine, window, k))
    knobs = dataclasses.replace(knobs, skip_padding=False)
    while not operator.legal(cfg, knobs) and knobs.rows > 1:
        knobs = dataclasses.replace(
            knobs, rows=even(operator.window(cfg).out_shape[0], knobs.rows - 1)
        )
    return knobs if operator.legal(cfg, knobs) else None


def measure(
    cfg: Config, device: str, which: str, name: str, operator: Any, times: int,
    latency_cycles: int, *, dense: bool = False, tries: int = 1,
) -> dict[str, Any] | None:  # fmt: skip
    """Compile and run one layer."""
    begin = time.perf_counter()
    if dense:
        knobs = dense_knobs(cfg, operator)
    elif tries > 1:
        knobs, _ = tune(cfg, operator, tries=tries, latency_cycles=latency_cycles)
    else:
        knobs = None
    picked = time.perf_counter()
    if dense and knobs is None:
        return None
    arrays = operator.random_inputs()
    program = compile_operator(cfg, operator, knobs, arrays=arrays)
    compiled = time.perf_counter()
    for again in range(1, times):  # the same layer elsewhere in the network
        compile_operator(cfg, operator, knobs, arrays=operator.random_inputs(again))
    repeated = time.perf_counter()
    run = open_device(device).run(program.program, DramModel(latency_cycles=latency_cycles))
    if run.cycles is None:
        raise SystemExit(f"device {device!r} knows no time; use cycle or rtl")
    right = run.fault is None and bool((program.result(run) == operator.reference(arrays)).all())
    bounds = {k: round(v) for k, v in operator.bounds(cfg, skip_padding=not dense).items()}
    tightest = max(bounds, key=lambda k: bounds[k])
    idle = {} if dense else operator.start_up(cfg)
    started = round(max([bounds[tightest], *(bounds[k] + n for k, n in idle.items())]))
    c = run.counters
    return {
        "machine": cfg.name, "set": which, "layer": name, "times": times, "device": device,
        "padding": "dense" if dense else "skip", "latency_cycles": latency_cycles,
        "cycles": run.cycles,
        "array_cycles": c["compute.gemm.busy_cycles"], "alu_cycles": c["compute.alu.busy_cycles"],
        "read_beats": sum(n for k, n in c.items() if k.endswith("read_beats")),
        "load_cycles": c["load.busy_cycles"], "store_cycles": c["store.busy_cycles"],
        "bounds": bounds, "bound": tightest, "bound_with_start": started,
        "array_percent": round(100 * bounds["array"] / run.cycles, 2)
        if "array" in bounds
        else None,
        "percent": round(100 * bounds[tightest] / run.cycles, 2),
        "percent_with_start": round(100 * started / run.cycles, 2),
        "right": right, "knobs": str(program.knobs), "instructions": len(program.program.insn),
        "default_seconds": round(picked - begin, 3), "compile_seconds": round(compiled - picked, 2),
        "repeat_seconds": round(repeated - compiled, 2),
    }  # fmt: skip


def show(console: Console, rows: list[dict[str, Any]], title: str) -> None:
    """One table."""
    table = Table(
        "layer", "cycles", "array %", "array", "ALU", "load", "store", "bounded by", "bound", "%",
        "with start", "%", "compiled in s", "", title=title,
    )  # fmt: skip
    for r in rows:
        numbers = [r[f"{k}_cycles"] for k in ("array", "alu", "load", "store")]
        table.add_row(
            r["layer"] + (" dense" if r["padding"] == "dense" else ""), f"{r['cycles']:,}",
            "" if r["array_percent"] is None else f"{r['array_percent']:.1f}",
            *(f"{n:,}" for n in numbers), r["bound"], f"{r['bounds'][r['bound']]:,}",
            f"{r['percent']:.1f}", f"{r['bound_with_start']:,}", f"{r['percent_with_start']:.1f}",
            f"{r['default_seconds'] + r['compile_seconds']:.2f}",
            "" if r["right"] else "WRONG",
        )  # fmt: skip
    for column in table.columns[1:13]:
        column.justify = "right"
    console.print(table)


def main() -> int:
    """Measure, print tables, write JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--config", action="append", help="may repeat; default edge")
    parser.add_argument("--on", default="cycle", help="cycle or rtl")
    parser.add_argument("--set", action="append", choices=SETS, help="may repeat; default all")
    parser.add_argument("--latency", type=int, action="append", help="may repeat; default 32")
    parser.add_argument("--no-dense", action="store_true", help="ResNet with padding skipped only")
    parser.add_argument("--tune", type=int, default=1, help="settings to try of each layer")
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    console = Console(width=160)
    everything = []
    for config in options.config or ["edge"]:
        cfg = machine(config)
        console.print(describe(cfg))
        for latency in options.latency or [32]:
            for which in options.set or SETS:
                rows = []
                for name, operator, times in layers(which):
                    padded = which == "resnet" and name != "C1" and not options.no_dense
                    for dense in (False, True) if padded else (False,):
                        row = measure(
                            cfg,
                            options.on,
                            which,
                            name,
                            operator,
                            times,
                            latency,
                            dense=dense,
                            tries=options.tune,
                        )
                        if row is not None:
                            rows.append(row)
                show(console, rows, f"{which} on {cfg.name}, {options.on}, latency {latency}")
                if which == "resnet":
                    for padding in ("skip", "dense"):
                        mine = [r for r in rows if r["padding"] == padding and r["layer"] != "C1"]
                        if mine:
                            total = sum(r["times"] * r["cycles"] for r in mine)
                            kinds = ("default", "compile", "repeat")
                            spent = sum(r[f"{kind}_seconds"] for r in mine for kind in kinds)
                            console.print(
                                f"C2-C11 with repeats, {padding}: {total:,} cycles,"
                                f" compiled in {spent:.1f} s"
                            )
                everything += rows
    if options.json:
        options.json.write_text(json.dumps(everything, indent=2) + "\n", encoding="utf-8")
    return 0 if all(r["right"] for r in everything) else 1


if __name__ == "__main__":
    sys.exit(main())
