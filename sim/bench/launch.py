"""One launch of the machine through its control registers, as a driver does it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from covta.hw.counters import COUNTERS
from covta.hw.faults import FaultCause
from covta.hw.isa import MemoryType, Opcode, isa
from covta.hw.microarchitecture import TOKEN_MAX
from covta.hw.params import Config
from covta.hw.registers import REGISTER_BY_NAME, counter_register
from covta.sim.bench.memory import Extent
from covta.sim.bench.model import NO_LIMIT, BenchError, RtlModel

__all__ = ["DEFAULT_WATCHDOG_CYCLES", "Launch", "Outcome", "push_tokens", "token_stream"]

DEFAULT_WATCHDOG_CYCLES = 1 << 20
"""More than any memory of `covta.sim.dram` keeps a burst waiting."""

SETTLE_CYCLES = 4
"""Counters are final two cycles after `running` falls."""

DRAIN_POLLS = 1_000_000

_WORD_MASK = (1 << 32) - 1


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What the registers say after a run.

    Parameters
    ----------
    cycles : int
        Cycles with `running` high.
    counters : dict of str to int
        By dotted name.
    cause : FaultCause
        `NONE` after a good run.
    insn : int
        Index of the instruction at fault, or 0.
    """

    cycles: int
    counters: dict[str, int]
    cause: FaultCause
    insn: int


@dataclass(frozen=True, kw_only=True)
class Launch:
    """What a driver writes before it starts the machine.

    Parameters
    ----------
    insn_addr, insn_count : int
        The stream in memory.
    base_ptrs : sequence of int
        Byte address of element 0 by memory type.
    window_base, window_last : int
        First and last byte address that the machine may touch.
    watchdog_cycles : int
        Cycles without progress after which it faults.
    """

    insn_addr: int
    insn_count: int
    base_ptrs: Sequence[int] = (0,) * len(MemoryType)
    window_base: int
    window_last: int
    watchdog_cycles: int = DEFAULT_WATCHDOG_CYCLES

    def run(self, model: RtlModel, *, max_cycles: int = NO_LIMIT) -> Outcome:
        """Launch, wait for the end and read back.

        Raises
        ------
        LimitError
            After `max_cycles`.
        BenchError
            If the machine breaks a protocol, or its registers contradict its pins.
        """
        self._program(model)
        model.arm()
        _write(model, "CONTROL", REGISTER_BY_NAME["CONTROL"].encode(launch=1))
        model.run(max_cycles)
        status = _await_end(model)
        model.idle(SETTLE_CYCLES)
        cycles = _read_wide(model, "CYCLES")
        if cycles != model.running_cycles:
            raise BenchError(
                f"the cycle register says {cycles}, running was high for {model.running_cycles}"
            )
        return Outcome(
            cycles=cycles,
            counters={name: _read(model, counter_register(name)) for name in COUNTERS},
            cause=FaultCause(_read(model, "FAULT_CAUSE")) if status["fault"] else FaultCause.NONE,
            insn=_read(model, "FAULT_INSN") if status["fault"] else 0,
        )

    def _program(self, model: RtlModel) -> None:
        _write(model, "INSN_COUNT", self.insn_count)
        _write(model, "WATCHDOG", self.watchdog_cycles)
        _write_wide(model, "INSN_ADDR", self.insn_addr)
        _write_wide(model, "WINDOW_BASE", self.window_base)
        _write_wide(model, "WINDOW_LAST", self.window_last)
        for k, base in enumerate(self.base_ptrs):
            _write_wide(model, f"BASE_PTR_{k}", base)


def _await_end(model: RtlModel) -> dict[str, int]:
    for _ in range(DRAIN_POLLS):
        status = REGISTER_BY_NAME["STATUS"].decode(_read(model, "STATUS"))
        if status["done"] or status["fault"]:
            return status
    raise BenchError(f"neither done nor fault after the run: status {status}")


def token_stream(cfg: Config, tokens: Sequence[int]) -> bytes:
    """Instructions that push tokens and move nothing; they stay there for the next launch.

    The machine has no register for tokens, so a run that begins with some is launched behind this.

    Parameters
    ----------
    cfg : Config
    tokens : sequence of int
        load→compute, compute→load, compute→store, store→compute.
    """
    load, store = Opcode.LOAD, Opcode.STORE
    pushes = (
        (load, MemoryType.INP, "push_next"),
        (load, MemoryType.UOP, "push_prev"),
        (load, MemoryType.UOP, "push_next"),
        (store, MemoryType.OUT, "push_prev"),
    )
    encode = isa(cfg).encode
    stream = b""
    for count, (opcode, memory, flag) in zip(tokens, pushes, strict=True):
        assert 0 <= count <= TOKEN_MAX, f"{count} tokens"
        stream += encode(opcode, memory_type=memory, **{flag: 1}) * int(count)
    return stream + encode(Opcode.FINISH)


def push_tokens(model: RtlModel, tokens: Sequence[int]) -> None:
    """Leave tokens in the machine, by a launch of its own; replaces the model's memory."""
    stream = token_stream(model.cfg, tokens)
    beat = model.cfg.bus_bytes
    data = np.zeros(-(-len(stream) // beat) * beat, np.uint8)
    data[: len(stream)] = np.frombuffer(stream, np.uint8)
    model.set_memory([Extent(base=0, data=data)])
    launch = Launch(
        insn_addr=0, insn_count=len(stream) // 16, window_base=0, window_last=len(data) - 1
    )
    outcome = launch.run(model)
    if outcome.cause is not FaultCause.NONE:
        raise BenchError(f"pushing tokens: {outcome.cause.text} at instruction {outcome.insn}")


# ---- registers -----------------------------------------------------------------------------
def _write(model: RtlModel, name: str, value: int) -> None:
    model.write(REGISTER_BY_NAME[name].offset, value)


def _read(model: RtlModel, name: str) -> int:
    return model.read(REGISTER_BY_NAME[name].offset)


def _write_wide(model: RtlModel, name: str, value: int) -> None:
    _write(model, f"{name}_LO", value & _WORD_MASK)
    _write(model, f"{name}_HI", value >> 32)


def _read_wide(model: RtlModel, name: str) -> int:
    low = _read(model, f"{name}_LO")
    return low | _read(model, f"{name}_HI") << 32
