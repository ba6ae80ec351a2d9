"""A program as fuzzing handles it, and its file: the program container of every device."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from covta.hw.isa import INSN_BYTES, MemoryType
from covta.hw.params import Config

__all__ = ["Program"]


@dataclass(frozen=True, kw_only=True)
class Program:
    """A stream, the DRAM around it, and tokens at the start.

    Parameters
    ----------
    config : Config
    insn : ndarray
        ``(n, 16) uint8``; lies in DRAM at `insn_addr`, in none of the regions.
    insn_addr : int
    region_addrs : tuple of int
        Byte addresses, ascending.
    regions : tuple of ndarray
        ``(size,) uint8`` each, before the run; nobody writes to them.
    base_ptrs : tuple of int
        By memory type.
    initial_tokens : tuple of int
        load→compute, compute→load, compute→store, store→compute.
    meta : dict
        Plain data.
    """

    config: Config
    insn: np.ndarray
    insn_addr: int
    region_addrs: tuple[int, ...]
    regions: tuple[np.ndarray, ...]
    base_ptrs: tuple[int, ...] = (0,) * len(MemoryType)
    initial_tokens: tuple[int, ...] = (0, 0, 0, 0)
    meta: dict[str, Any] = field(default_factory=dict)

    def memory(self) -> list[tuple[int, np.ndarray]]:
        """Address and bytes of every region, that of the stream last; copies."""
        regions = zip(self.region_addrs, self.regions, strict=True)
        stream = np.ascontiguousarray(self.insn).reshape(-1).copy()
        return [*((addr, data.copy()) for addr, data in regions), (self.insn_addr, stream)]

    def save(self, path: Path | str) -> None:
        """Write the container; the stream is a region of its own."""
        addrs, regions = zip(*self.memory(), strict=True)
        np.savez_compressed(
            path,
            config=np.array(self.config.to_yaml()),
            insn=self.insn,
            insn_addr=np.uint64(self.insn_addr),
            base_ptrs=np.array(self.base_ptrs, np.uint64),
            region_addr=np.array(addrs, np.uint64),
            initial_tokens=np.array(self.initial_tokens, np.uint32),
            meta=np.array(json.dumps(self.meta)),
            **{f"region_{k}": data for k, data in enumerate(regions)},
        )

    @classmethod
    def load(cls, path: Path | str) -> Program:
        """Read what `save` wrote."""
        with np.load(path, allow_pickle=False) as file:
            insn = file["insn"].reshape(-1, INSN_BYTES)
            addrs = [int(a) for a in file["region_addr"]]
            regions = [file[f"region_{k}"] for k in range(len(addrs) - 1)]
            return cls(
                config=Config.from_text(str(file["config"]), str(path)),
                insn=insn,
                insn_addr=int(file["insn_addr"]),
                region_addrs=tuple(addrs[:-1]),
                regions=tuple(regions),
                base_ptrs=tuple(int(p) for p in file["base_ptrs"]),
                initial_tokens=tuple(int(t) for t in file["initial_tokens"]),
                meta=json.loads(str(file["meta"])),
            )
