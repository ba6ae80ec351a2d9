"""The whole road once: a YAML file to Verilog, a photo through a trained layer, on three devices.

The first convolution of EfficientNet-Lite0 (trained on ImageNet, 3 to 32 channels, 3x3, stride 2,
batch normalisation folded in, int8) runs on a photograph: on the functional simulator, on the cycle
simulator and on the RTL that was generated. Bytes and cycles must agree, else the exit code is 1.
It leaves pictures: the feature maps beside the input, and a timeline of the run.

Run it: ``make demo``, or ``python examples/demo.py --config pynq``.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import matplotlib
import numpy as np
from conv2d import Epilogue, Layer, build_conv
from PIL import Image
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from weights import WeightsError, load_weights

from covta.hw.generate.bundle import BundleError, build_bundle, write_bundle
from covta.hw.generate.tools import ToolError
from covta.hw.params import Config, ConfigError, load_config
from covta.runtime.builder import BuildError
from covta.runtime.device import DeviceError, RunResult, open_device
from covta.runtime.layout import from_bytes, untile_activation
from covta.runtime.picture import draw_timelines
from covta.runtime.program import Program
from covta.runtime.report import first_difference
from covta.sim.timeline import write_timeline

SIZE = 224
LAYER = Layer(size=SIZE, inputs=3, outputs=32, stride=2)
INPUT_ZERO, INPUT_LOG2_SCALE = 127, 7
"""The network takes ``(rgb - 127) / 128``."""

OUTPUT_LOG2_SCALE = 4
"""int8 holds 0 to 7.9, so ReLU6's values fit."""

BN_EPSILON = 1e-3
DEVICE_NAMES = ("functional", "cycle", "rtl")


def load_photo() -> np.ndarray:
    """The photograph that matplotlib ships (Grace Hopper): ``(224, 224, 3) uint8``."""
    path = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
    image = Image.open(path).convert("RGB")
    side = min(image.size)
    left = (image.width - side) // 2
    return np.asarray(image.crop((left, 0, left + side, side)).resize((SIZE, SIZE), Image.LANCZOS))


def folded_layer() -> tuple[np.ndarray, np.ndarray]:
    """Kernel ``(32, 3, 3, 3)`` and bias ``(32,)`` with batch normalisation folded in, float64."""
    weights = load_weights()
    scale = weights["_bn0.weight"] / np.sqrt(weights["_bn0.running_var"] + BN_EPSILON)
    kernel = weights["_conv_stem.weight"] * scale[:, None, None, None]
    bias = weights["_bn0.bias"] - weights["_bn0.running_mean"] * scale
    return kernel.astype(np.float64), bias.astype(np.float64)


def quantise(
    photo: np.ndarray, kernel: np.ndarray, bias: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Integers of the layer with power-of-two scales: input, kernel, bias, shift."""
    x = np.clip(photo.astype(np.int64) - INPUT_ZERO, -128, 127).transpose(2, 0, 1)[None]
    log2_scale = int(np.floor(np.log2(127 / np.abs(kernel).max())))
    w = np.clip(np.rint(kernel * 2.0**log2_scale), -128, 127).astype(np.int64)
    acc_log2_scale = log2_scale + INPUT_LOG2_SCALE
    offsets = np.rint(bias * 2.0**acc_log2_scale).astype(np.int64)
    return x, w, offsets, acc_log2_scale - OUTPUT_LOG2_SCALE


def float_reference(photo: np.ndarray, kernel: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """The layer in float64: ``(32, 112, 112)``, after ReLU."""
    x = (photo.astype(np.float64) - INPUT_ZERO) / (1 << INPUT_LOG2_SCALE)
    x = np.pad(x.transpose(2, 0, 1), ((0, 0), (1, 1), (1, 1)))
    out = np.zeros((LAYER.outputs, LAYER.out_size, LAYER.out_size))
    for ky in range(3):
        for kx in range(3):
            patch = x[:, ky : ky + SIZE : 2, kx : kx + SIZE : 2]
            out += np.einsum("oc,chw->ohw", kernel[:, :, ky, kx], patch)
    return np.maximum(out + bias[:, None, None], 0)


def output_of(program: Program, result: RunResult) -> np.ndarray:
    """Feature maps ``(32, 112, 112)`` out of a run's memory."""
    cfg = program.config
    index = next(k for k, expected in enumerate(program.expected) if expected is not None)
    blocks = -(-LAYER.outputs // cfg.block_out)
    shape = (1, blocks, LAYER.out_size, LAYER.out_size, cfg.batch, cfg.block_out)
    tiles = from_bytes(result.memory[index], cfg.out_bits, shape)
    return untile_activation(tiles, 1, LAYER.outputs)[0]


def run_everywhere(
    program: Program, console: Console
) -> tuple[dict[str, RunResult], dict[str, float]]:
    """Run on every device, one after the other; results and seconds."""
    results: dict[str, RunResult] = {}
    seconds: dict[str, float] = {}
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        for name in DEVICE_NAMES:
            hint = " (builds the RTL model the first time: a minute or two)" * (name == "rtl")
            task = progress.add_task(f"running on {name}{hint}")
            device = open_device(name)
            device.run(program)  # builds or loads what is compiled
            begin = time.perf_counter()
            results[name] = device.run(program)
            seconds[name] = time.perf_counter() - begin
            progress.remove_task(task)
    return results, seconds


def agree(program: Program, results: dict[str, RunResult], console: Console) -> bool:
    """Whether all devices did the same, and the right thing; says what is wrong."""
    right = True
    for name, result in results.items():
        wrong = None if result.fault is None else f"fault {result.fault.cause.text}"
        wrong = wrong or first_difference(program, result)
        if wrong:
            console.print(f"[red]{name}: {wrong}")
            right = False
    cycle, rtl = results["cycle"], results["rtl"]
    if (cycle.cycles, cycle.counters) != (rtl.cycles, rtl.counters):
        console.print(f"[red]cycle simulator {cycle.cycles}, RTL {rtl.cycles} cycles")
        right = False
    return right


def draw_features(photo: np.ndarray, maps: np.ndarray, path: Path) -> None:
    """The input and all feature maps in one picture."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 5), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(1, 1.75))
    axis = left.subplots()
    axis.imshow(photo)
    axis.set_axis_off()
    axis.set_title("input, 224 x 224")
    right.suptitle("32 feature maps, 112 x 112, as the machine stored them")
    for axis, feature in zip(right.subplots(4, 8).ravel(), maps, strict=True):
        axis.imshow(feature, cmap="magma", vmin=0, vmax=max(1, np.percentile(feature, 99.5)))
        axis.set_axis_off()
    figure.savefig(path, dpi=110)


def report(
    program: Program, results: dict[str, RunResult], seconds: dict[str, float], console: Console
) -> None:
    """A table of the devices."""
    table = Table(title=f"{program.meta['name']} on {program.config.name}")
    for column in ("device", "cycles", "array busy", "seconds", "cycles a second", "bytes"):
        table.add_column(column, justify="left" if column in ("device", "bytes") else "right")
    for name, result in results.items():
        same = "equal to NumPy" if first_difference(program, result) is None else "differ"
        cycles = result.cycles
        busy = result.counters.get("compute.gemm.busy_cycles", 0)
        table.add_row(
            name,
            "-" if cycles is None else f"{cycles:,}",
            "-" if cycles is None else f"{100 * busy / cycles:.1f} %",
            f"{seconds[name]:.3f}",
            "-" if cycles is None else f"{cycles / seconds[name] / 1e6:.2f} M",
            same,
        )
    console.print(table)


def demo(cfg: Config, folder: Path, console: Console) -> bool:
    """Everything; true if all devices agree."""
    folder.mkdir(parents=True, exist_ok=True)
    console.print(f"[bold]1[/] Verilog of [bold]{cfg.name}[/] …")
    files = build_bundle(cfg)
    write_bundle(files, folder / cfg.name)
    console.print(f"  {len(files)} files in {folder / cfg.name}")

    console.print("[bold]2[/] photo, trained layer, int8, program …")
    photo = load_photo()
    kernel, bias = folded_layer()
    x, w, offsets, shift = quantise(photo, kernel, bias)
    x = np.repeat(x, cfg.batch, axis=0)
    program = build_conv(
        cfg, LAYER, x, w, offsets,
        name="efficientnet_lite0_stem", epilogue=Epilogue(shift=shift, rounding=True),
    )  # fmt: skip
    program.save(folder / "stem.npz")
    console.print(f"  {len(program.insn)} instructions in {folder / 'stem.npz'}")

    console.print("[bold]3[/] functional simulator, cycle simulator, RTL …")
    results, seconds = run_everywhere(program, console)
    report(program, results, seconds, console)
    right = agree(program, results, console)

    maps = output_of(program, results["rtl"])
    exact = np.minimum(float_reference(photo, kernel, bias), 127 / (1 << OUTPUT_LOG2_SCALE))
    error = exact - maps / (1 << OUTPUT_LOG2_SCALE)
    snr_db = 10 * np.log10((exact**2).sum() / (error**2).sum())
    console.print(f"  signal to noise of int8 against float64: {snr_db:.1f} dB")
    draw_features(photo, maps, folder / "features.png")
    title = f"{program.meta['name']} on {cfg.name}"
    draw_timelines({title: (program, results["cycle"])}, folder / "timeline.png")
    trace = results["cycle"].trace
    assert trace is not None
    write_timeline(cfg, program.insn, trace, folder / "timeline.json")
    console.print(
        f"[bold]4[/] {folder / 'features.png'}, {folder / 'timeline.png'},"
        f" {folder / 'timeline.json'} (for ui.perfetto.dev)"
    )
    if right:
        console.print("[green]bytes agree on all three devices, cycles and counters on two[/]")
    return right


def main() -> int:
    """Command line; exit code 0, 1 (devices disagree) or 2 (bad input)."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--config", default="edge", help="a machine's name or YAML file")
    parser.add_argument("-o", "--output", type=Path, default=Path("build/demo"), help="folder")
    options = parser.parse_args()
    try:
        return 0 if demo(load_config(options.config), options.output, Console()) else 1
    except (
        BuildError, BundleError, ConfigError, DeviceError, ToolError, WeightsError, OSError
    ) as error:  # fmt: skip
        print(f"demo: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
