"""The program container: one ``.npz`` file that any device runs.

Keys, types and shapes: architecture document, section *A program*.
"""

from __future__ import annotations

import io
import json
import os
import re
import tempfile
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from covta.hw.isa import INSN_BYTES, MemoryType
from covta.hw.microarchitecture import TOKEN_MAX
from covta.hw.params import Config, ConfigError

__all__ = ["Program", "ProgramError", "write_npz"]

MAX_INSNS = 1 << 24
MAX_ADDR_BITS = 62
EPOCH = (1980, 1, 1, 0, 0, 0)


class ProgramError(ValueError):
    """A file or a set of arrays that is no program; the message names the key and the rule."""


@dataclass(frozen=True, kw_only=True)
class Program:
    """An instruction stream with the memory around it.

    Parameters
    ----------
    config : Config
        The machine it was made for.
    insn : np.ndarray
        ``(n, 16) uint8``.
    insn_addr : int
        Byte address of the stream in DRAM, a multiple of 16.
    region_addrs : tuple of int
        Byte address of each DRAM region.
    regions : tuple of np.ndarray
        ``(size,) uint8``, their bytes before the run.
    expected : tuple of np.ndarray or None
        Their bytes after a right run; None where unknown. Empty: nothing is known.
    base_ptrs : tuple of int
        Base pointers of memory types 0 to 5, each a multiple of a beat.
    initial_tokens : tuple of int
        load→compute, compute→load, compute→store, store→compute.
    meta : dict
        Names, shapes, layouts, scales.
    """

    config: Config
    insn: np.ndarray
    insn_addr: int
    region_addrs: tuple[int, ...] = ()
    regions: tuple[np.ndarray, ...] = ()
    expected: tuple[np.ndarray | None, ...] = ()
    base_ptrs: tuple[int, ...] = (0,) * len(MemoryType)
    initial_tokens: tuple[int, ...] = (0, 0, 0, 0)
    meta: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._check_stream()
        self._check_regions()
        if len(self.base_ptrs) != len(MemoryType):
            raise ProgramError(f"base_ptrs: must be {len(MemoryType)}, got {len(self.base_ptrs)}")
        limit = self.address_limit
        for kind, base in zip(MemoryType, self.base_ptrs, strict=True):
            if base % self.config.bus_bytes or not 0 <= base < limit:
                raise ProgramError(
                    f"base_ptrs[{kind.name}]: must be a multiple of {self.config.bus_bytes} below"
                    f" {limit:#x}, got {base:#x}"
                )
        if len(self.initial_tokens) != 4 or not all(
            0 <= t <= TOKEN_MAX for t in self.initial_tokens
        ):
            raise ProgramError(
                f"initial_tokens: must be four counts from 0 to {TOKEN_MAX}, got"
                f" {tuple(int(t) for t in self.initial_tokens)}"
            )

    @property
    def address_limit(self) -> int:
        """What every address lies below: as the bus is wide, at most 62 bits (simulators)."""
        return 1 << min(self.config.bus.addr_bits, MAX_ADDR_BITS)

    def _check_stream(self) -> None:
        insn = self.insn
        if insn.ndim != 2 or insn.shape[1] != INSN_BYTES or insn.dtype != np.uint8:
            raise ProgramError(
                f"insn: must be uint8 (n, {INSN_BYTES}), got {insn.dtype} {insn.shape}"
            )
        if not 0 < len(insn) < MAX_INSNS:
            raise ProgramError(
                f"insn: must hold 1 to {MAX_INSNS - 1} instructions, got {len(insn)}"
            )
        if self.insn_addr % INSN_BYTES:
            raise ProgramError(
                f"insn_addr: must be a multiple of {INSN_BYTES}, got {self.insn_addr:#x}"
            )
        limit = self.address_limit
        if not 0 <= self.insn_addr <= limit - insn.size:
            raise ProgramError(
                f"insn_addr: the stream must end below {limit:#x} ({self.config.bus.addr_bits}"
                f" address bits), got {self.insn_addr:#x} + {insn.size:#x}"
            )

    def _check_regions(self) -> None:
        if len(self.region_addrs) != len(self.regions):
            raise ProgramError(
                f"region_addr: must be one a region, got {len(self.region_addrs)} for"
                f" {len(self.regions)} regions"
            )
        if self.expected and len(self.expected) != len(self.regions):
            raise ProgramError(
                f"expect: must be one a region, got {len(self.expected)} for {len(self.regions)}"
            )
        limit = self.address_limit
        spans = []
        for k, (addr, data) in enumerate(zip(self.region_addrs, self.regions, strict=True)):
            if data.ndim != 1 or data.dtype != np.uint8:
                raise ProgramError(
                    f"region_{k}: must be uint8 (size,), got {data.dtype} {data.shape}"
                )
            if addr + len(data) > limit:
                raise ProgramError(
                    f"region_{k}: must end below {limit:#x} ({self.config.bus.addr_bits} address"
                    f" bits), got {addr:#x} + {len(data):#x}"
                )
            spans.append((addr, addr + len(data), k))
        spans.sort()
        for (_, end, a), (begin, _, b) in pairwise(spans):
            if begin < end:
                raise ProgramError(f"region_{b}: must not overlap region_{a}, begins at {begin:#x}")
        for k, expected in enumerate(self.expected):
            if expected is None:
                continue
            if expected.ndim != 1 or expected.dtype != np.uint8:
                raise ProgramError(
                    f"expect_{k}: must be uint8 (size,), got {expected.dtype} {expected.shape}"
                )
            if expected.shape != self.regions[k].shape:
                raise ProgramError(
                    f"expect_{k}: must have the size of region_{k}, {len(self.regions[k])}, got"
                    f" {expected.shape}"
                )
        self._check_stream_in_regions()

    def _check_stream_in_regions(self) -> None:
        begin, size = self.insn_addr, self.insn.size
        for k, (addr, data) in enumerate(zip(self.region_addrs, self.regions, strict=True)):
            if addr < begin + size and begin < addr + len(data):
                inside = addr <= begin and begin + size <= addr + len(data)
                if not inside or not np.array_equal(
                    data[begin - addr : begin - addr + size], self.insn.ravel()
                ):
                    raise ProgramError(
                        f"insn_addr: the stream at {begin:#x} must lie whole in region_{k} and"
                        " equal its bytes"
                    )

    # ---- memory ----------------------------------------------------------------------------
    def memory(self) -> list[tuple[int, np.ndarray]]:
        """Regions as (address, bytes), with one for the stream if no region holds it."""
        pairs = list(zip(self.region_addrs, self.regions, strict=True))
        begin = self.insn_addr
        if not any(addr <= begin < addr + len(data) for addr, data in pairs):
            pairs.append((begin, self.insn.ravel()))
        return pairs

    # ---- files -----------------------------------------------------------------------------
    def save(self, path: str | Path) -> None:
        """Write the file, whole or not at all; equal programs give equal bytes."""
        arrays: dict[str, np.ndarray] = {
            "config": np.array(self.config.to_yaml()),
            "insn": self.insn,
            "insn_addr": np.uint64(self.insn_addr),  # type: ignore[dict-item]
            "base_ptrs": np.array(self.base_ptrs, np.uint64),
            "region_addr": np.array(self.region_addrs, np.uint64),
            "initial_tokens": np.array(self.initial_tokens, np.uint32),
            "meta": np.array(json.dumps(self.meta, sort_keys=True)),
        }
        for k, data in enumerate(self.regions):
            arrays[f"region_{k}"] = data
        for k, data in enumerate(self.expected):
            if data is not None:
                arrays[f"expect_{k}"] = data
        write_npz(path, arrays)

    @classmethod
    def load(cls, path: str | Path) -> Program:
        """Read a file.

        Raises
        ------
        ProgramError
            If it is missing, truncated, foreign or contradictory.
        """
        try:
            return cls._from_arrays(_read_npz(Path(path)))
        except (ProgramError, ConfigError) as error:
            raise ProgramError(f"{path}: {error}") from None
        except RecursionError:
            raise ProgramError(f"{path}: meta is nested too deeply") from None

    @classmethod
    def _from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Program:
        addrs = _integers(arrays, "region_addr", None)
        known = {
            "config",
            "insn",
            "insn_addr",
            "base_ptrs",
            "region_addr",
            "initial_tokens",
            "meta",
        }
        known |= {f"{kind}_{k}" for kind in ("region", "expect") for k in range(len(addrs))}
        for name in arrays:
            if name not in known:
                numbered = re.fullmatch(r"(region|expect)_(0|[1-9]\d*)", name)
                rule = f": region_addr has {len(addrs)} entries" if numbered else ""
                raise ProgramError(f"unknown key {name!r}{rule}")
        regions = tuple(_bytes(arrays, f"region_{k}") for k in range(len(addrs)))
        expected = tuple(
            _bytes(arrays, f"expect_{k}") if f"expect_{k}" in arrays else None
            for k in range(len(addrs))
        )
        try:
            meta = json.loads(_text(arrays, "meta")) if "meta" in arrays else {}
        except ValueError as error:
            raise ProgramError(f"meta: must be JSON: {error}") from None
        if not isinstance(meta, dict):
            raise ProgramError(f"meta: must be a JSON object, got {type(meta).__name__}")
        address = _integers(arrays, "insn_addr", 1)
        optional: dict[str, Any] = {}
        if "base_ptrs" in arrays:
            optional["base_ptrs"] = _integers(arrays, "base_ptrs", len(MemoryType))
        if "initial_tokens" in arrays:
            optional["initial_tokens"] = _integers(arrays, "initial_tokens", 4)
        if "insn" not in arrays:
            raise ProgramError("the key 'insn' is missing")
        return cls(
            config=Config.from_text(_text(arrays, "config"), "config"),
            insn=np.ascontiguousarray(arrays["insn"]),
            insn_addr=address[0],
            region_addrs=addrs,
            regions=regions,
            expected=expected if any(e is not None for e in expected) else (),
            meta=meta,
            **optional,
        )


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ProgramError(message)


_UNREADABLE = (
    OSError,
    EOFError,
    ValueError,
    KeyError,
    TypeError,
    IndexError,
    OverflowError,
    MemoryError,
    SyntaxError,
    NotImplementedError,
    RuntimeError,
    RecursionError,
    AttributeError,
    zipfile.BadZipFile,
    zlib.error,
)
"""What the zip and npy readers of the standard library and NumPy raise on foreign bytes."""


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    arrays: dict[str, np.ndarray] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                _require(
                    re.fullmatch(r"[a-z_0-9]+\.npy", info.filename) is not None,
                    f"unknown member {info.filename!r}",
                )
                key = info.filename.removesuffix(".npy")
                _require(key not in arrays, f"the key {key} repeats")
                arrays[key] = _read_npy(key, archive.read(info))
    except ProgramError:
        raise
    except FileNotFoundError:
        raise ProgramError("no such file") from None
    except _UNREADABLE as error:
        detail = " ".join(str(error).split()) or type(error).__name__
        raise ProgramError(f"not a program file: {detail}") from None
    return arrays


def _read_npy(key: str, data: bytes) -> np.ndarray:
    """Read one member; the header's size is checked before anything is allocated."""
    stream = io.BytesIO(data)
    version = np.lib.format.read_magic(stream)
    _require(version == (1, 0), f"{key}: npy version {version} is not supported")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    _require(not dtype.hasobject, f"{key} holds Python objects")
    count = 1
    for size in shape:
        count *= size
    body = data[stream.tell() :]
    _require(
        len(body) == count * dtype.itemsize,
        f"{key} must hold {count * dtype.itemsize} bytes, got {len(body)}",
    )
    array = np.frombuffer(body, dtype) if count and dtype.itemsize else np.zeros(count, dtype)
    return array.reshape(shape, order="F" if fortran else "C")


def _present(arrays: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    if name not in arrays:
        raise ProgramError(f"the key {name!r} is missing")
    return arrays[name]


def _text(arrays: Mapping[str, np.ndarray], name: str) -> str:
    value = _present(arrays, name)
    if value.dtype.kind not in "US" or value.ndim:
        raise ProgramError(f"{name}: must be text, got {value.dtype} {value.shape}")
    item = value.item()
    try:
        return item.decode() if isinstance(item, bytes) else item
    except UnicodeDecodeError as error:
        raise ProgramError(f"{name}: must be UTF-8: {error}") from None


def _integers(arrays: Mapping[str, np.ndarray], name: str, count: int | None) -> tuple[int, ...]:
    value = _present(arrays, name)
    if value.dtype.kind not in "iu" or value.ndim > 1:
        raise ProgramError(f"{name}: must be integers, got {value.dtype} {value.shape}")
    values = tuple(int(v) for v in value.reshape(-1))
    if count is not None and len(values) != count:
        raise ProgramError(f"{name}: must hold {count} values, got {len(values)}")
    if any(v < 0 for v in values):
        raise ProgramError(f"{name}: must not be negative, got {min(values)}")
    return values


def _bytes(arrays: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    return np.ascontiguousarray(_present(arrays, name))


def write_npz(path: str | Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write a deterministic ``.npz``: compressed, no times, whole or not at all."""
    path = Path(path)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file, zipfile.ZipFile(file, "w") as archive:
            for key, array in arrays.items():
                buffer = io.BytesIO()
                np.lib.format.write_array(buffer, np.asarray(array), allow_pickle=False)
                entry = zipfile.ZipInfo(f"{key}.npy", EPOCH)
                entry.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(entry, buffer.getvalue())
        umask = os.umask(0)
        os.umask(umask)
        Path(name).chmod(0o666 & ~umask)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
