"""How many cycles the RTL simulates in a CPU second: one long GEMM on a machine under Verilator."""

from __future__ import annotations

import argparse
import time

import numpy as np

from covta.hw.isa import MemoryType, Opcode, isa
from covta.hw.params import Config, load_config
from covta.sim.bench.build import build_library
from covta.sim.bench.launch import Launch
from covta.sim.bench.memory import extents_of
from covta.sim.bench.model import RtlModel
from covta.sim.dram import DEFAULT_DRAM

INSN_ADDR, UOP_ADDR = 0x1000, 0x2000
UOPS = 16


def stream(cfg: Config, cycles: int) -> bytes:
    """Load micro-ops, then GEMM for about so many cycles."""
    encode = isa(cfg).encode
    side = 128
    loop = {
        "uop_bgn": 0,
        "uop_end": UOPS,
        "iter_out": side,
        "iter_in": side,
    }
    load = encode(
        Opcode.LOAD,
        memory_type=MemoryType.UOP,
        dram_base=UOP_ADDR // cfg.uop_elem_bytes,
        y_size=1,
        x_size=UOPS,
        x_stride=UOPS,
    )
    gemm = encode(Opcode.GEMM, **loop)
    count = max(1, round(cycles / (UOPS * side * side)))
    return load + gemm * count + encode(Opcode.FINISH)


def measure(cfg: Config, cycles: int, *, tuned: bool = False) -> tuple[int, float]:
    """Cycles run and CPU seconds they took, building not counted."""
    insn = np.frombuffer(stream(cfg, cycles), np.uint8)
    uop = isa(cfg).uop
    words = [
        uop.encode(dst=k % cfg.acc_depth, src=k % cfg.inp_depth, wgt=k % cfg.wgt_depth)
        for k in range(UOPS)
    ]
    uops = np.frombuffer(np.array(words, np.uint32).tobytes(), np.uint8)
    extents = extents_of([(INSN_ADDR, insn), (UOP_ADDR, uops)], cfg.bus_bytes)
    with RtlModel(cfg, library=build_library(cfg, tuned=tuned)) as model:
        model.set_dram(DEFAULT_DRAM)
        model.set_memory(extents)
        launch = Launch(
            insn_addr=INSN_ADDR,
            insn_count=len(insn) // 16,
            window_base=0,
            window_last=extents[-1].end - 1,
        )
        began = time.process_time()
        outcome = launch.run(model)
        return outcome.cycles, time.process_time() - began


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("configs", nargs="*", default=["edge"], help="machines, by name or file")
    parser.add_argument("--cycles", type=int, default=1_000_000)
    parser.add_argument(
        "--tuned", action="store_true", help="compile by a profile, as COVTA_RTL_TUNED=1 does"
    )
    arguments = parser.parse_args()
    for name in arguments.configs:
        cfg = load_config(name)
        cycles, seconds = measure(cfg, arguments.cycles, tuned=arguments.tuned)
        print(f"{cfg.name}: {cycles:,} cycles in {seconds:.2f} s: {cycles / seconds:,.0f} a second")


if __name__ == "__main__":
    main()
