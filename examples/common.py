"""What every example does around its kernel: options, a device, the comparison, figures."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from covta.hw.isa import AluOp, MemoryType, Opcode, isa
from covta.hw.params import Config, ConfigError, load_config
from covta.runtime.builder import BuildError
from covta.runtime.device import DEVICES, DeviceError, open_device
from covta.runtime.program import Program
from covta.runtime.report import first_difference
from covta.sim.decode import column, decode
from covta.sim.dram import DramModel

__all__ = ["Estimate", "run_example"]


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """How long a program must take at least, by what could bound it, in cycles.

    Parameters
    ----------
    array : int
        GEMM micro-ops, one a cycle.
    alu : int
        ALU operations, 1 each, and 1 for each change of operand 2; `mul_cycles` for MUL.
    read, write : int
        Beats of the bus, one a cycle each; reads include instructions and micro-ops.
    """

    array: int
    alu: int
    read: int
    write: int

    @classmethod
    def of(cls, program: Program) -> Estimate:
        """Count what a program's instructions do."""
        cfg = program.config
        table = {name: col for name, col in _columns(program).items()}
        opcode = table["opcode"]
        loops = (
            np.maximum(table["uop_end"] - table["uop_bgn"], 0)
            * table["iter_out"]
            * table["iter_in"]
        )
        mul = table["alu_opcode"] == AluOp.MUL
        inner = np.where(table["src_factor_in"] != 0, table["iter_in"], 1)
        changes = np.where(
            (table["src_factor_in"] != 0) | (table["src_factor_out"] != 0),
            inner * table["iter_out"],
            1,
        )
        alu = np.where(
            mul, cfg.mul_cycles * loops, loops + np.where(table["use_imm"] == 1, 0, changes)
        )
        elem_bytes = np.array([isa(cfg).elem_bytes(m) for m in MemoryType])
        size_bytes = (
            table["x_size"]
            * table["y_size"]
            * elem_bytes[np.minimum(table["memory_type"], len(elem_bytes) - 1)]
        )
        beats = -(-size_bytes // cfg.bus_bytes)

        def total(values: np.ndarray, which: Opcode) -> int:
            return int(values[opcode == which].sum())

        return cls(
            array=total(loops, Opcode.GEMM),
            alu=total(alu, Opcode.ALU),
            read=total(beats, Opcode.LOAD) + program.insn.size // cfg.bus_bytes,
            write=total(beats, Opcode.STORE),
        )

    @property
    def cycles(self) -> int:
        """The greatest of them."""
        return max(self.array, self.alu, self.read, self.write)

    @property
    def bound(self) -> str:
        """Its name."""
        return max(("array", "alu", "read", "write"), key=lambda name: getattr(self, name))


def _columns(program: Program) -> dict[str, np.ndarray]:
    table = decode(program.config, program.insn)
    names = (
        *("opcode", "uop_bgn", "uop_end", "iter_out", "iter_in", "alu_opcode", "use_imm"),
        *("src_factor_out", "src_factor_in", "memory_type", "x_size", "y_size"),
    )
    return {name: table[:, column(name)] for name in names}


def run_example(
    description: str | None,
    build: Callable[[Config, argparse.Namespace], Program],
    arguments: Callable[[argparse.ArgumentParser], None] | None = None,
) -> int:
    """Read the command line, build, run and compare.

    Returns
    -------
    int
        Exit code: 0 right, 1 wrong bytes, 2 bad options, 3 a fault.
    """
    parser = argparse.ArgumentParser(
        description=(description or "").split("\n", 1)[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    if arguments:
        arguments(parser)
    parser.add_argument("--config", default="edge", help="a machine's name or YAML file")
    parser.add_argument("--on", default="functional", choices=list(DEVICES), help="device")
    parser.add_argument("--latency", type=int, default=32, help="of memory, in cycles")
    parser.add_argument("--save", type=Path, help="write the program here, for vta run")
    options = parser.parse_args()
    try:
        program = build(load_config(options.config), options)
        dram = DramModel(latency_cycles=options.latency)
        if options.save:
            program.save(options.save)
        result = open_device(options.on).run(program, dram)
    except (ConfigError, BuildError, DeviceError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2

    estimate = Estimate.of(program)
    print(f"{program.meta['name']}: {len(program.insn):,} instructions on {program.config.name}")
    print(
        f"at least {estimate.cycles:,} cycles, bound by {estimate.bound}"
        f" (array {estimate.array:,}, alu {estimate.alu:,}, read {estimate.read:,},"
        f" write {estimate.write:,})"
    )
    if result.cycles is not None:
        print(f"took {result.cycles:,} cycles: {100 * estimate.cycles / result.cycles:.2f} %")
        if "macs" in program.meta:
            ideal = program.meta["macs"] // program.config.macs
            print(
                f"dense ideal {ideal:,} cycles: {100 * ideal / result.cycles:.2f} %; array busy"
                f" {100 * estimate.array / result.cycles:.2f} %"
            )
    if result.fault:
        print(f"fault: {result.fault.cause.text} at instruction {result.fault.insn}")
        return 3
    difference = first_difference(program, result)
    print(difference or f"right, on the {result.device} device")
    return 1 if difference else 0
