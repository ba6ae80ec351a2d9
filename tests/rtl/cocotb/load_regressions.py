"""What cocotb runs on the load unit behind its AXI port; `test_cocotb.py` starts it."""

from __future__ import annotations

import os

import cocotb
import numpy as np
from unit_bench import UnitBench

from covta.hw.faults import FaultCause
from covta.hw.isa import MemoryType, Opcode, isa
from covta.hw.params import load_config

CFG = load_config(os.environ["COVTA_TEST_CONFIG"])
DEPTH = {MemoryType.INP: CFG.inp_depth, MemoryType.WGT: CFG.wgt_depth}
SIZE = {MemoryType.INP: CFG.inp_elem_bytes, MemoryType.WGT: CFG.wgt_elem_bytes}
BASE_ADDR, BYTES = 0x2000, 0x6000
INSNS = 40


class LoadBench(UnitBench):
    """Keeps what is written to inp and wgt."""

    def __init__(self, dut, cfg, side) -> None:
        super().__init__(dut, cfg, side)
        self.pads = {
            kind: np.zeros((DEPTH[kind], SIZE[kind]), np.uint8)
            for kind in (MemoryType.INP, MemoryType.WGT)
        }

    def sample(self) -> None:
        """Take the writes of a cycle."""
        for kind, pad in self.pads.items():
            prefix = kind.name.lower()
            names = ("en", "addr", "slice", "whole", "data")
            port = {name: getattr(self.dut, f"{prefix}__{name}", None) for name in names}
            if not port["en"].value:
                continue
            value = {name: int(p.value) if p is not None else 0 for name, p in port.items()}
            slices = pad[value["addr"]].reshape(-1, CFG.bus_bytes)
            which = slice(None) if value["whole"] else value["slice"]
            slices[which] = np.frombuffer(value["data"].to_bytes(CFG.bus_bytes, "little"), np.uint8)


def draw(rng: np.random.Generator) -> dict[str, int]:
    """A LOAD that stays in its scratchpad and in memory."""
    kind = MemoryType(rng.choice([MemoryType.INP, MemoryType.WGT]))
    pads = {f"{a}_pad_{k}": int(rng.choice([0, 0, 1, 3])) for a in "xy" for k in (0, 1)}
    while True:
        x, y = int(rng.choice([0, 1, 2, 5, 9])), int(rng.choice([0, 1, 1, 2, 4]))
        total = (pads["y_pad_0"] + y + pads["y_pad_1"]) * (pads["x_pad_0"] + x + pads["x_pad_1"])
        if total <= DEPTH[kind]:
            break
        pads = dict.fromkeys(pads, 0)
    stride = x + int(rng.integers(0, 4))
    last = BYTES // SIZE[kind] - (y * stride + x) - 1
    return {
        "memory_type": kind, "sram_base": int(rng.integers(0, DEPTH[kind] - total + 1)),
        "dram_base": int(rng.integers(0, last)), "x_size": x, "y_size": y, "x_stride": stride,
        "pop_next": int(rng.integers(2)), "push_next": int(rng.integers(2)), **pads,
    }  # fmt: skip


def golden(load: dict[str, int], dram: np.ndarray, pad: np.ndarray) -> None:
    """Do a LOAD, as the instruction set says."""
    if not load["x_size"] or not load["y_size"]:
        return
    size = pad.shape[1]
    rows = np.arange(load["y_size"])[:, None] * load["x_stride"] + np.arange(load["x_size"])
    block = dram[: dram.size // size * size].reshape(-1, size)[load["dram_base"] + rows]
    widths = [(load[f"{axis}_pad_0"], load[f"{axis}_pad_1"]) for axis in "yx"]
    block = np.pad(block, [*widths, (0, 0)]).reshape(-1, size)
    pad[load["sram_base"] : load["sram_base"] + len(block)] = block


async def started(dut, seed: int | None) -> tuple[LoadBench, np.random.Generator, np.ndarray]:
    """A bench whose memory holds random bytes."""
    bench = await LoadBench.start(
        dut, CFG, "read", seed=seed, insn__valid=0, insn__payload=0, pop_next_ready=0,
        base_ptr=sum(BASE_ADDR << kind * CFG.bus.addr_bits for kind in DEPTH),
    )  # fmt: skip
    rng = np.random.default_rng(seed)
    dram = rng.integers(0, 256, BYTES, np.uint8)
    bench.memory.place(BASE_ADDR, dram)
    return bench, rng, dram


@cocotb.test()
@cocotb.parametrize(seed=[None, 1, 2, 3])
async def loads_leave_what_the_instruction_set_says(dut, seed):
    bench, rng, dram = await started(dut, seed)
    loads = [draw(rng) for _ in range(INSNS)]
    insns = [isa(CFG).encode(Opcode.LOAD, **load) for load in loads]
    assert await bench.run(insns, "pop_next", "push_next", seed=seed) is None
    for kind, pad in bench.pads.items():
        want = np.zeros_like(pad)
        for load in loads:
            if load["memory_type"] == kind:
                golden(load, dram, want)
        assert np.array_equal(pad, want), f"{kind.name} differs"


@cocotb.test()
@cocotb.parametrize(seed=[None, 4, 5], at=[0, 3, 7])
async def an_error_response_is_a_fault_of_its_load(dut, seed, at):
    bench, _, _ = await started(dut, seed)
    loads = [
        {"memory_type": MemoryType.INP, "dram_base": 16 * k, "x_size": 3, "y_size": 2,
         "x_stride": 4}
        for k in range(8)
    ]  # fmt: skip
    first = BASE_ADDR + loads[at]["dram_base"] * SIZE[MemoryType.INP]
    bench.memory.broken = range(first, first + 1)
    insns = [isa(CFG).encode(Opcode.LOAD, **load) for load in loads]
    assert await bench.run(insns, "pop_next", "push_next", seed=seed) == (FaultCause.BUS_ERROR, at)
