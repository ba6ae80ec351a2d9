"""How fast the functional simulator is, in micro-ops a second on one core.

Each case is one GEMM or ALU instruction many times over, run through the compiled kernels on the
default machine (or the one that ``--config`` names). The time is the best of several runs, without
compilation. Prints a table; ``--json`` writes the numbers.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from covta.hw.isa import AluOp, Opcode, isa
from covta.hw.params import Config, load_config
from covta.sim.functional.machine import execute
from covta.sim.state import make_dram, make_state

REPEATS = 5

UOPS = 5_000_000
"""Micro-ops a run, at least: the start of a run (under a millisecond) shall not count."""


def loop(uops: int, out: int, inner: int, **factors: int) -> dict[str, int]:
    """Fields of a loop nest."""
    return {"uop_end": uops, "iter_out": out, "iter_in": inner, **factors}


def cases(cfg: Config) -> dict[str, tuple[Opcode, dict[str, int]]]:
    """Named instructions; sizes follow the scratchpads."""
    n = min(cfg.acc_depth, cfg.inp_depth) // 2
    w = min(cfg.wgt_depth, n) // 2
    rows = {"dst_factor_in": 1, "src_factor_in": 1}
    return {
        "GEMM, weight shared by many rows": (Opcode.GEMM, loop(36, 4, n, **rows)),
        "GEMM, weight shared by 14 rows": (Opcode.GEMM, loop(36, 64, 14, **rows)),
        "GEMM, a weight for every micro-op": (
            Opcode.GEMM,
            loop(36, 16, w, dst_factor_in=1, wgt_factor_in=1),
        ),
        "GEMM, one accumulator": (Opcode.GEMM, loop(36, 4, n, src_factor_in=1)),
        "ALU, ADD immediate": (
            Opcode.ALU,
            loop(1, 64, n, dst_factor_in=1, alu_opcode=AluOp.ADD, use_imm=1, imm=3),
        ),
        "ALU, MAX of two": (Opcode.ALU, loop(1, 64, n, alu_opcode=AluOp.MAX, **rows)),
        "ALU, SHR immediate": (
            Opcode.ALU,
            loop(1, 64, n, dst_factor_in=1, alu_opcode=AluOp.SHR, use_imm=1, imm=1),
        ),
    }


def best_seconds(run: Callable[[], object]) -> float:
    """Shortest of several runs, the first (compilation) left out."""
    run()
    times = []
    for _ in range(REPEATS):
        begin = time.perf_counter()
        run()
        times.append(time.perf_counter() - begin)
    return min(times)


def measure(cfg: Config) -> dict[str, float]:
    """Micro-ops a second, by case."""
    rng = np.random.default_rng(0)
    state = make_state(cfg)
    state.inp[:] = rng.integers(-128, 128, state.inp.shape)
    state.wgt[:] = rng.integers(-128, 128, state.wgt.shape)
    state.uop[:36, 2] = np.arange(36) % max(cfg.wgt_depth // 2, 1)
    memory = make_dram([], (0,) * 6, bus_bytes=cfg.bus_bytes)
    rates = {}
    for name, (opcode, fields) in cases(cfg).items():
        x = isa(cfg)
        once = fields["uop_end"] * fields["iter_out"] * fields["iter_in"]
        data = x.encode(opcode, **fields) * -(-UOPS // once) + x.encode(Opcode.FINISH)
        insn = np.frombuffer(data, np.uint8).reshape(-1, 16)
        outcome = execute(cfg, insn, state, memory)
        count = outcome.counters["compute.gemm.uops"] + outcome.counters["compute.alu.uops"]
        assert outcome.cause == 0, f"{name}: {outcome}"
        assert count, name
        rates[name] = count / best_seconds(lambda insn=insn: execute(cfg, insn, state, memory))
    return rates


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="edge")
    parser.add_argument("--json", type=Path, help="write the numbers here")
    args = parser.parse_args()
    cfg = load_config(args.config)
    rates = measure(cfg)
    table = Table(title=f"functional simulator, {cfg.name}, {cfg.macs} products a micro-op")
    table.add_column("instruction")
    table.add_column("million micro-ops a second", justify="right")
    for name, rate in rates.items():
        table.add_row(name, f"{rate / 1e6:,.1f}")
    Console().print(table)
    if args.json is not None:
        report = {"config": cfg.name, "uops_per_second": {k: round(v) for k, v in rates.items()}}
        args.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
