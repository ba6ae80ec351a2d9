"""Random operators on random machines against NumPy.

    python -m covta.compiler.ops.fuzz --instances N --seed S [--on functional|cycle|rtl]
        [--config NAME ...] [--kind NAME] [--first K]

Each instance depends on seed and number only. Programs are also given to the static verifier: no
errors, and no store that may truncate. On the RTL, cycles must be those of the cycle simulator.
"""

from __future__ import annotations

import argparse
import collections
import sys
import time
import traceback
from dataclasses import dataclass

import numpy as np

from covta.compiler.ops.compile import compile_operator
from covta.compiler.ops.operator import Operator, OperatorError
from covta.compiler.ops.random_operators import KINDS, pieces, random_knobs, random_operator
from covta.compiler.verify import verify_program
from covta.hw.params import load_config
from covta.runtime.device import open_device

__all__ = ["MACHINES", "RTL_MACHINES", "Instance", "check", "main", "make_instance"]

MACHINES = (
    "batch2", "batch2_in8_out4", "batch4", "block16", "block16_bus32", "block8", "bus256",
    "extended", "in16_out4", "in4_out16", "in4_out8", "in8_out4", "long_bursts", "mul_all",
    "mul_one", "packed", "packed_batch2", "pad_min", "requantize", "short_bursts",
    "single_beats", "tiny", "wide_address",
)  # fmt: skip
"""Small machines of int8 operands and int32 sums."""

RTL_MACHINES = ("tiny", "block8", "in8_out4", "batch2", "block16", "in4_out16")
"""Few enough to be built."""


@dataclass(frozen=True, kw_only=True)
class Instance:
    """An operator on a machine with knobs."""

    config: str
    operator: Operator
    knobs: object

    def __str__(self) -> str:
        return f"{self.config}: {self.operator}, {self.knobs}"


MAX_PIECES = 120


def make_instance(
    seed: int, number: int, machines: tuple[str, ...] = MACHINES, kind: str | None = None
) -> Instance:
    """The instance of a seed and a number: one that fits its machine."""
    rng = np.random.default_rng([seed, number])
    while True:
        name = machines[int(rng.integers(len(machines)))]
        operator, cfg = random_operator(rng, kind), load_config(name)
        try:
            knobs = random_knobs(rng, cfg, operator)
        except OperatorError:
            continue
        if pieces(cfg, operator, knobs) <= MAX_PIECES:
            return Instance(config=name, operator=operator, knobs=knobs)


def check(instance: Instance, device: str = "functional", seed: int = 0) -> str | None:
    """What is wrong with an instance, None if nothing."""
    cfg, operator = load_config(instance.config), instance.operator
    arrays = operator.random_inputs(seed)
    try:
        compiled = compile_operator(cfg, operator, instance.knobs, arrays=arrays)
    except Exception:  # every setting must compile, whatever is raised
        return traceback.format_exc(limit=-3)
    report = verify_program(compiled.program)
    bad = [f for f in report.findings if f.severity == "error" or f.rule == "truncation"]
    if bad:
        return f"verifier: {bad[0]} (and {len(bad) - 1} more)"
    run = open_device(device).run(compiled.program)
    if run.fault is not None:
        return f"{device}: fault {run.fault}"
    wrong = compiled.result(run) != operator.reference(arrays)
    if wrong.any():
        return f"{device}: {int(wrong.sum())} of {wrong.size} elements differ"
    if device == "rtl":
        other = open_device("cycle").run(compiled.program)
        if other.cycles != run.cycles:
            return f"rtl: {run.cycles} cycles, the cycle simulator says {other.cycles}"
    return None


def main(argv: list[str] | None = None) -> int:
    """Run instances; 1 if any fails."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--instances", type=int, default=100)
    parser.add_argument("--first", type=int, default=0, help="number of the first instance")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--on", default="functional", choices=("functional", "cycle", "rtl"))
    parser.add_argument("--config", action="append", choices=MACHINES, help="may repeat")
    parser.add_argument("--kind", choices=tuple(KINDS))
    options = parser.parse_args(argv)
    default = RTL_MACHINES if options.on == "rtl" else MACHINES
    machines = tuple(options.config or default)
    begin, failed = time.monotonic(), 0
    kinds: collections.Counter[str] = collections.Counter()
    for number in range(options.first, options.first + options.instances):
        instance = make_instance(options.seed, number, machines, options.kind)
        kinds[instance.operator.name] += 1
        trouble = check(instance, options.on, number)
        if trouble is not None:
            failed += 1
            print(f"{number}: {instance}\n    {trouble}", flush=True)
    spent = time.monotonic() - begin
    print(f"{options.instances} instances on {options.on}, seed {options.seed}: {failed} failed,"
          f" {spent:.0f} s")  # fmt: skip
    print(", ".join(f"{k} {n}" for k, n in sorted(kinds.items())))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
