"""Speed of compiled host code beside NumPy's and onnxruntime's.

    pip install -e '.[bench]'
    python benchmarks/cpu_backend.py [--threads 1,2] [--repeat N] [--only TEXT] [--json FILE]

int8 convolutions of ResNet-18 (summed in int32, and requantised to int8) and float32 matrix
products. Weights are constants: onnxruntime and this compiler bring them into order beforehand,
NumPy does not. Each runs many times, in rounds, and the best time counts. With one thread a time is
what the thread spent on its processor, so that other work on the machine does not count; with more
it is the time that passed. Results are compared."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from covta.compiler import te
from covta.compiler.llvm import Options, build
from covta.compiler.llvm.schedules import Kernel, conv2d_int8, dense_float32

CONVOLUTIONS = {"C2": (56, 64), "C5": (28, 128), "C8": (14, 256), "C11": (7, 512)}
"""Height and width, channels in and out; all 3x3, stride 1, padded by 1."""

PRODUCTS = (512, 768, 1024)
SHIFT_BITS = 10
LIMIT = 1.5
"""Times as slow as the fastest other one that is accepted."""
ROUNDS = 4
PAUSE_S = 0.2

Runs = dict[str, Callable[[], Any]]


def measure(runs: Runs, repeat: int, clock: Callable[[], float]) -> dict[str, float]:
    """Best time of each, in seconds."""
    best = dict.fromkeys(runs, float("inf"))
    for _ in range(ROUNDS):
        for name, run in runs.items():
            # Idle threads of the one before look for work for a while, on a processor.
            time.sleep(PAUSE_S)
            run()
            for _ in range(max(1, repeat // ROUNDS)):
                begin = clock()
                run()
                best[name] = min(best[name], clock() - begin)
    return best


def onnx_session(op: str, inputs: dict, constants: dict, output: np.dtype, threads: int, **attrs):
    """An onnxruntime session of one node; None if the package is missing."""
    if find_spec("onnxruntime") is None or find_spec("onnx") is None:
        return None
    import onnxruntime as ort
    from onnx import helper, numpy_helper

    def kind(dtype):
        return helper.np_dtype_to_tensor_dtype(np.dtype(dtype))

    names = attrs.pop("order")
    graph = helper.make_graph(
        [helper.make_node(op, names, ["y"], **attrs)],
        "bench",
        [helper.make_tensor_value_info(n, kind(a.dtype), a.shape) for n, a in inputs.items()],
        [helper.make_tensor_value_info("y", kind(output), None)],
        [numpy_helper.from_array(np.asarray(a), n) for n, a in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    text = model.SerializeToString()
    session = ort.InferenceSession(text, options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, inputs)[0]


def requantise(total, _channel):
    """Shift right and saturate to int8, as the machine does."""
    return te.clip(te.shift(total, SHIFT_BITS), -128, 127).astype("int8")


def convolution(name: str, threads: int, repeat: int, clock) -> list[dict[str, Any]]:
    """int8, with int32 results and with requantised ones."""
    size, channels = CONVOLUTIONS[name]
    rng = np.random.default_rng(0)
    x = rng.integers(-128, 128, (size, size, channels)).astype(np.int8)
    w = rng.integers(-127, 128, (channels, channels, 3, 3)).astype(np.int8)
    unsigned = np.ascontiguousarray((x.transpose(2, 0, 1)[None].astype(int) + 128).astype(np.uint8))
    zero, one = np.uint8(128), np.float32(1)
    common = {"x": unsigned}
    integer = onnx_session(
        "ConvInteger", common, {"w": w, "xz": zero}, np.dtype("i4"), threads,
        order=["x", "w", "xz"], pads=[1] * 4,
    )  # fmt: skip
    scales = {"xs": one, "xz": zero, "w": w, "ws": one, "wz": np.int8(0)}
    scales |= {"ys": np.float32(1 << SHIFT_BITS), "yz": zero}
    quantised = onnx_session(
        "QLinearConv", common, scales, np.dtype("u1"), threads,
        order=["x", "xs", "xz", "w", "ws", "wz", "ys", "yz"], pads=[1] * 4,
    )  # fmt: skip
    rows = []
    for title, epilogue, dtype in (("int32", None, np.int32), ("int8", requantise, np.int8)):
        kernel = conv2d_int8((size, size, channels), channels, padding=1, epilogue=epilogue)
        code = build(kernel.function, threads=threads)
        constants, y = kernel.pack(w), np.zeros((size, size, channels), dtype)
        runs: Runs = {"covta": lambda c=code, k=constants, o=y: c(x, *k, o)}
        if integer is not None and quantised is not None:
            runs |= {"ConvInteger": integer, "QLinearConv": quantised}
        row = _row(f"conv2d {name} int8 -> {title}", kernel, runs, threads, repeat, clock)
        if integer is not None and quantised is not None:
            want = integer()[0].transpose(1, 2, 0)
            if epilogue is None:
                row["equal"] = bool(np.array_equal(want, y))
            else:
                shifted = np.clip(want >> SHIFT_BITS, -128, 127).astype(np.int8)
                row["equal"] = bool(np.array_equal(shifted, y))
        rows.append(row)
    return rows


def product(size: int, threads: int, repeat: int, clock) -> list[dict[str, Any]]:
    """A square float32 matrix product."""
    rng = np.random.default_rng(0)
    a, b = (rng.random((size, size), np.float32) for _ in range(2))
    kernel = dense_float32(size, size, size)
    code = build(kernel.function, threads=threads, options=Options(contract=True))
    constants, y, z = kernel.pack(b), np.zeros_like(a), np.zeros_like(a)
    runs: Runs = {"covta": lambda: code(a, *constants, y), "NumPy": lambda: np.matmul(a, b, out=z)}
    session = onnx_session("MatMul", {"a": a}, {"b": b}, np.dtype("f4"), threads, order=["a", "b"])
    if session is not None:
        runs["onnxruntime"] = session
    row = _row(f"matmul {size}^3 float32", kernel, runs, threads, repeat, clock)
    row["equal"] = bool(np.allclose(y, z, rtol=1e-4))
    return [row]


def _row(
    title: str, kernel: Kernel, runs: Runs, threads: int, repeat: int, clock
) -> dict[str, Any]:
    times = measure(runs, repeat, clock)
    own = times.pop("covta")
    fastest = min(times, key=lambda n: times[n], default=None)
    return {
        "kernel": title,
        "threads": threads,
        "clock": "processor" if threads == 1 else "wall",
        "ms": round(1e3 * own, 4),
        "giga_macs_per_s": round(kernel.macs / own / 1e9, 1),
        "others_ms": {n: round(1e3 * t, 4) for n, t in times.items()},
        "fastest_other": fastest,
        "ratio": None if fastest is None else round(own / times[fastest], 3),
        "equal": None,
    }


def worker(threads: int, repeat: int, only: str) -> list[dict[str, Any]]:
    """All figures for one number of threads, which NumPy's library reads when it starts."""
    clock = time.thread_time if threads == 1 else time.perf_counter
    rows: list[dict[str, Any]] = []
    for name in CONVOLUTIONS:
        if only in f"conv2d {name}":
            rows += convolution(name, threads, repeat, clock)
    for size in PRODUCTS:
        if only in f"matmul {size}":
            rows += product(size, threads, max(8, repeat // 2), clock)
    return rows


def main() -> int:
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--repeat", type=int, default=60)
    parser.add_argument("--only", default="", help="kernels whose name contains this")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(json.dumps(worker(options.worker, options.repeat, options.only)))
        return 0
    rows: list[dict[str, Any]] = []
    for threads in options.threads.split(","):
        environment = os.environ | {"OPENBLAS_NUM_THREADS": threads, "OMP_NUM_THREADS": threads}
        command = [sys.executable, __file__, "--worker", threads]
        command += ["--repeat", str(options.repeat), "--only", options.only]
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
        rows += json.loads(done.stdout)
    table = Table(title="host code, best of many runs")
    for column in ("kernel", "threads", "ms", "GMAC/s", "fastest other", "ms", "ratio", "equal"):
        table.add_column(
            column, justify="left" if column in ("kernel", "fastest other") else "right"
        )
    for r in rows:
        other = r["fastest_other"]
        table.add_row(
            r["kernel"],
            str(r["threads"]),
            f"{r['ms']:.3f}",
            f"{r['giga_macs_per_s']:.0f}",
            other or "none: pip install -e '.[bench]'",
            f"{r['others_ms'][other]:.3f}" if other else "",
            f"{r['ratio']:.2f}" if other else "",
            {None: "", True: "yes", False: "NO"}[r["equal"]],
        )
    Console(width=110).print(table)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    good = all(r["equal"] is not False and (r["ratio"] or 0) <= LIMIT for r in rows)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
