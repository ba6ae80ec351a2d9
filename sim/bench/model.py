"""The bench's shared library as a Python object."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from covta.hw.params import Config
from covta.sim.bench.build import build_library
from covta.sim.bench.memory import Extent

if TYPE_CHECKING:
    from covta.sim.dram import DramModel

__all__ = ["NO_LIMIT", "BenchError", "LimitError", "RtlModel"]

NO_LIMIT = (1 << 63) - 1
"""As `max_cycles`: run until the machine stops."""

START_CYCLES = 64
"""Cycles after a launch within which `running` rises, or the machine refused it."""

_ENDED, _LIMIT, _NOT_STARTED, _VIOLATION = range(4)

_u64, _u32, _int, _handle = ctypes.c_uint64, ctypes.c_uint32, ctypes.c_int, ctypes.c_void_p
_FUNCTIONS: dict[str, tuple[object, tuple[object, ...]]] = {
    "bench_new": (_handle, (ctypes.c_char_p,)),
    "bench_delete": (None, (_handle,)),
    "bench_reset": (None, (_handle,)),
    "bench_dram": (None, (_handle, _u64, _u64, _u64, _u64, _u64)),
    "bench_memory": (
        None,
        (
            _handle,
            _u64,
            ctypes.POINTER(_u64),
            ctypes.POINTER(_u64),
            ctypes.POINTER(ctypes.c_void_p),
        ),
    ),
    "bench_arm": (None, (_handle,)),
    "bench_run": (_int, (_handle, _u64, _u64)),
    "bench_idle": (None, (_handle, _u64)),
    "bench_lite_write": (_int, (_handle, _u32, _u32)),
    "bench_lite_read": (_int, (_handle, _u32, ctypes.POINTER(_u32))),
    "bench_irq": (_int, (_handle,)),
    "bench_running_cycles": (_u64, (_handle,)),
    "bench_clock_cycles": (_u64, (_handle,)),
    "bench_violation": (ctypes.c_char_p, (_handle,)),
}


class BenchError(RuntimeError):
    """The machine broke a protocol of its bus; a fault of the RTL, not of the program."""


class LimitError(RuntimeError):
    """The run took more cycles than allowed."""


@cache
def _load(path: Path) -> ctypes.CDLL:
    library = ctypes.CDLL(str(path))
    for name, (result, arguments) in _FUNCTIONS.items():
        function = getattr(library, name)
        function.restype = result
        function.argtypes = arguments
    return library


class RtlModel:
    """One machine under clock, with memory behind its AXI4 port.

    Every AXI4 handshake is checked: what waits holds still, bursts are legal and not too many,
    WLAST stands right. A breach raises `BenchError` from whatever call was under way.

    Parameters
    ----------
    cfg : Config
        The model is built if the cache lacks it.
    trace : Path or None
        Where to write a VCD waveform.
    library : Path or None
        Another model with the machine's ports.
    """

    def __init__(
        self, cfg: Config, *, trace: Path | None = None, library: Path | None = None
    ) -> None:
        self.cfg = cfg
        self._library = _load(library or build_library(cfg, trace=trace is not None))
        self._handle = self._library.bench_new(None if trace is None else bytes(trace))
        if not self._handle:
            raise OSError(f"{trace}: cannot be written")
        self._extents: Sequence[Extent] = ()
        self._library.bench_reset(self._handle)
        self._check()

    def close(self) -> None:
        """Finish the waveform and free the model."""
        if self._handle:
            self._library.bench_delete(self._handle)
            self._handle = None

    def __enter__(self) -> RtlModel:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def set_dram(self, dram: DramModel) -> None:
        """Latency, rate and stalls from now on."""
        self._library.bench_dram(
            self._handle,
            dram.latency_cycles,
            dram.max_outstanding,
            dram.rate,
            dram.stall_threshold,
            dram.stall_seed or 0,
        )

    def set_memory(self, extents: Sequence[Extent]) -> None:
        """What exists behind the bus; the machine writes into the extents' arrays."""
        count = len(extents)
        for extent in extents:
            assert extent.data.dtype == np.uint8
            assert extent.data.flags.c_contiguous
        self._extents = extents
        self._library.bench_memory(
            self._handle,
            count,
            (_u64 * count)(*(e.base for e in extents)),
            (_u64 * count)(*(len(e.data) for e in extents)),
            (ctypes.c_void_p * count)(*(e.data.ctypes.data for e in extents)),
        )

    def write(self, offset: int, value: int) -> None:
        """Write a control register over AXI-Lite."""
        response = self._library.bench_lite_write(self._handle, offset, value)
        self._check()
        self._check_lite("write", offset, response)

    def read(self, offset: int) -> int:
        """Read a control register over AXI-Lite."""
        value = _u32()
        response = self._library.bench_lite_read(self._handle, offset, ctypes.byref(value))
        self._check()
        self._check_lite("read", offset, response)
        return value.value

    def arm(self) -> None:
        """Time starts anew when `running` next rises; call before a launch."""
        self._library.bench_arm(self._handle)
        self._check()

    def run(self, max_cycles: int = NO_LIMIT) -> bool:
        """Clock until `running` falls.

        Returns
        -------
        bool
            False if `running` did not rise at all: the launch was refused.

        Raises
        ------
        LimitError
            After `max_cycles`.
        """
        result = self._library.bench_run(self._handle, max_cycles, START_CYCLES)
        self._check()
        if result == _LIMIT:
            raise LimitError(f"still running after {max_cycles} cycles")
        return result == _ENDED

    def idle(self, cycles: int) -> None:
        """Clock on."""
        self._library.bench_idle(self._handle, cycles)
        self._check()

    @property
    def irq(self) -> bool:
        """Level of the interrupt line."""
        return bool(self._library.bench_irq(self._handle))

    @property
    def running_cycles(self) -> int:
        """Cycles with `running` high since `arm`."""
        return self._library.bench_running_cycles(self._handle)

    @property
    def clock_cycles(self) -> int:
        """Cycles since the model was made."""
        return self._library.bench_clock_cycles(self._handle)

    def _check(self) -> None:
        message = self._library.bench_violation(self._handle)
        if message:
            raise BenchError(f"{self.cfg.name}: AXI4 protocol: {message.decode()}")

    def _check_lite(self, what: str, offset: int, response: int) -> None:
        if response:
            how = "no response" if response < 0 else f"response {response}"
            raise BenchError(f"{self.cfg.name}: AXI-Lite {what} at 0x{offset:03x}: {how}")
