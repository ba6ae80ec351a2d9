"""What cocotb runs on the store unit behind its AXI port; `test_cocotb.py` starts it."""

from __future__ import annotations

import os

import cocotb
import numpy as np
from unit_bench import UnitBench
from units import out_contents

from covta.hw.faults import FaultCause
from covta.hw.isa import MemoryType, Opcode, isa
from covta.hw.params import load_config

CFG = load_config(os.environ["COVTA_TEST_CONFIG"])
SIZE = CFG.out_elem_bytes
BASE_ADDR, BYTES = 0x3000, 0x4000
INSNS = 40


def draw(rng: np.random.Generator) -> dict[str, int]:
    """A STORE that stays in its scratchpad and in memory."""
    x, y = int(rng.choice([0, 1, 1, 2, 5, 9])), int(rng.choice([0, 1, 1, 2, 3]))
    stride = x + int(rng.integers(0, 4))
    return {
        "memory_type": MemoryType.OUT, "x_size": x, "y_size": y, "x_stride": stride,
        "sram_base": int(rng.integers(0, CFG.acc_depth - x * y + 1)),
        "dram_base": int(rng.integers(0, BYTES // SIZE - y * stride - x)),
        "pop_prev": int(rng.integers(2)), "push_prev": int(rng.integers(2)),
    }  # fmt: skip


def golden(store: dict[str, int], dram: np.ndarray) -> None:
    """Do a STORE, as the instruction set says."""
    out = np.frombuffer(
        b"".join(elem.to_bytes(SIZE, "little") for elem in out_contents(CFG)), np.uint8
    ).reshape(-1, SIZE)
    for y in range(store["y_size"]):
        to = store["dram_base"] + y * store["x_stride"]
        first = store["sram_base"] + y * store["x_size"]
        dram.reshape(-1, SIZE)[to : to + store["x_size"]] = out[first : first + store["x_size"]]


async def started(dut, seed: int | None) -> UnitBench:
    """A bench whose memory holds zeros."""
    bench = await UnitBench.start(
        dut, CFG, "write", seed=seed, insn__valid=0, insn__payload=0, pop_prev_ready=0,
        base_ptr=BASE_ADDR << MemoryType.OUT * CFG.bus.addr_bits,
    )  # fmt: skip
    bench.memory.place(BASE_ADDR, np.zeros(BYTES, np.uint8))
    return bench


@cocotb.test()
@cocotb.parametrize(seed=[None, 1, 2, 3])
async def stores_leave_what_the_instruction_set_says(dut, seed):
    bench = await started(dut, seed)
    rng = np.random.default_rng(seed)
    stores = [draw(rng) for _ in range(INSNS)]
    insns = [isa(CFG).encode(Opcode.STORE, **store) for store in stores]
    assert await bench.run(insns, "pop_prev", "push_prev", seed=seed) is None
    want = np.zeros(BYTES, np.uint8)
    for store in stores:
        golden(store, want)
    assert np.array_equal(bench.memory.bytes_at(BASE_ADDR, BYTES), want)


@cocotb.test()
@cocotb.parametrize(seed=[None, 4, 5], at=[0, 3, 7])
async def an_error_response_is_a_fault_of_its_store(dut, seed, at):
    bench = await started(dut, seed)
    stores = [
        {"memory_type": MemoryType.OUT, "dram_base": 16 * k, "x_size": 3, "y_size": 2,
         "x_stride": 4}
        for k in range(8)
    ]  # fmt: skip
    first = BASE_ADDR + stores[at]["dram_base"] * SIZE
    bench.memory.broken = range(first, first + 1)
    insns = [isa(CFG).encode(Opcode.STORE, **store) for store in stores]
    got = await bench.run(insns, "pop_prev", "push_prev", seed=seed)
    assert got == (FaultCause.BUS_ERROR, at)
