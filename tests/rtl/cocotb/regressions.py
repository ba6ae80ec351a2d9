"""What cocotb runs on the whole machine; `test_cocotb.py` builds the simulation and starts it."""

from __future__ import annotations

import os

import cocotb
from bench import Bench
from cocotb.triggers import ClockCycles, RisingEdge
from matmul import INP_ADDR, INSN_ADDR, INSNS, OUT_ADDR, UOP_ADDR, WGT_ADDR, matmul

from covta.hw.faults import FaultCause
from covta.hw.params import load_config
from covta.hw.registers import ID, REGISTER_BY_NAME, REGISTERS, Access, param_hash, reset_value

CFG = load_config(os.environ["COVTA_TEST_CONFIG"])
OKAY, SLVERR = 0, 2


@cocotb.test()
async def registers_answer_as_the_table_says(dut):
    bench = await Bench.start(dut, CFG)
    bench.pause_randomly(1)
    assert await bench.read("ID") == ID
    assert await bench.read("PARAM_HASH") == param_hash(CFG)
    for register in REGISTERS:
        if register.access is not Access.STROBE:
            assert await bench.read(register.name) == reset_value(register, CFG), register.name
    assert await bench.write("ID", 0) == SLVERR
    assert await bench.write("INSN_COUNT", 1 << 24) == SLVERR
    assert int((await bench.host.read(0xFFC, 4)).resp) == SLVERR
    assert await bench.write("WATCHDOG", 0x01020304) == OKAY
    await bench.host.write(REGISTER_BY_NAME["WATCHDOG"].offset + 1, b"\xaa")
    assert await bench.read("WATCHDOG") == 0x0102AA04


@cocotb.test()
@cocotb.parametrize(seed=[None, 2, 3, 4, 5])
async def a_program_runs_under_pauses(dut, seed):
    bench = await Bench.start(dut, CFG)
    if seed is not None:
        bench.pause_randomly(seed)
    await bench.run_well(matmul(CFG, seed or 1))
    assert await bench.read("FETCH_INSNS") == len(INSNS)
    assert await bench.read("CYCLES_LO") > 0


@cocotb.test()
async def runs_follow_each_other_without_reset(dut):
    bench = await Bench.start(dut, CFG)
    bench.pause_randomly(6)
    for seed in (6, 7):
        await bench.run_well(matmul(CFG, seed))


@cocotb.test()
@cocotb.parametrize(
    place=[
        (UOP_ADDR, "uop"),
        (INP_ADDR + 4 * CFG.inp_elem_bytes, "inp"),
        (WGT_ADDR + CFG.wgt_elem_bytes, "wgt"),
        (OUT_ADDR + CFG.out_elem_bytes, "store"),
        (INSN_ADDR + 16 * INSNS.index("gemm"), "gemm"),
    ]
)
async def a_bus_error_is_a_fault_and_reset_leads_on(dut, place):
    addr, insn = place
    bench = await Bench.start(dut, CFG)
    bench.pause_randomly(addr)
    bench.memory.broken = range(addr, addr + CFG.bus_bytes)
    await bench.run_into(matmul(CFG, 8), FaultCause.BUS_ERROR, INSNS.index(insn))
    # Without a reset command, a launch does nothing.
    await bench.command("launch")
    await ClockCycles(dut.clk, 20)
    assert not dut.running.value
    bench.memory.broken = range(0)
    await bench.reset_command()
    await bench.run_well(matmul(CFG, 9))


@cocotb.test()
async def the_window_guards_memory(dut):
    bench = await Bench.start(dut, CFG)
    await bench.write("WINDOW_LAST_LO", 0xFFFF)
    await bench.write("WINDOW_BASE_LO", UOP_ADDR + 0x1000)
    await bench.run_into(matmul(CFG, 10), FaultCause.DRAM_WINDOW, INSNS.index("uop"))
    await bench.reset_command()
    await bench.write("WINDOW_BASE_LO", 0)
    await bench.run_well(matmul(CFG, 10))


@cocotb.test()
async def the_watchdog_ends_a_run_that_waits_for_ever(dut):
    bench = await Bench.start(dut, CFG)
    await bench.write("WATCHDOG", 200)
    program = matmul(CFG, 11)
    finish_only = program.regions[INSN_ADDR][-16:]
    for k in range(len(INSNS)):  # Every FINISH waits for a token that no store pushes.
        program.regions[INSN_ADDR] = program.regions[INSN_ADDR].copy()
        program.regions[INSN_ADDR][16 * k : 16 * k + 16] = finish_only
    await bench.run_into(program, FaultCause.WATCHDOG, 0)
    await bench.reset_command()
    await bench.run_well(matmul(CFG, 11))


@cocotb.test()
@cocotb.parametrize(cycles=[1, 20, 60, 120, 200])
async def a_reset_command_stops_a_run_at_any_time(dut, cycles):
    bench = await Bench.start(dut, CFG)
    bench.pause_randomly(cycles)
    await bench.launch(matmul(CFG, 12))
    while not dut.running.value:
        await RisingEdge(dut.clk)
    await ClockCycles(dut.clk, cycles)
    await bench.reset_command()
    assert not dut.m_axi_arvalid.value
    assert not dut.m_axi_awvalid.value
    assert not dut.m_axi_wvalid.value
    await bench.run_well(matmul(CFG, 13))
