"""Other contents for the buffers of a program."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from covta.hw.isa import MemoryType
from covta.runtime.builder.errors import require
from covta.runtime.builder.memory import encode
from covta.runtime.program import Program

__all__ = ["with_contents"]


def with_contents(
    program: Program,
    values: Mapping[str, np.ndarray] | None = None,
    expect: Mapping[str, np.ndarray] | None = None,
) -> Program:
    """The same instructions on other data.

    Parameters
    ----------
    program : Program
        Of a `Builder`, or of the compiler: its meta names the buffers.
    values : mapping of str to np.ndarray, optional
        Contents of buffers before the run, ``shape + element shape``; others keep theirs.
    expect : mapping of str to np.ndarray, optional
        Right contents after the run; other buffers are not compared.

    Raises
    ------
    BuildError
        If there is no such buffer, or it is of another size.
    """
    buffers = {b["name"]: (k, b) for k, b in enumerate(program.meta.get("buffers", ()))}

    def encoded(what: str, name: str, array: np.ndarray) -> tuple[int, np.ndarray]:
        require(name in buffers, f"{what} must name buffers ({', '.join(buffers)}), got {name!r}")
        k, buffer = buffers[name]
        data = encode(name, program.config, MemoryType[buffer["memory"]], array)
        size = len(program.regions[k])
        require(len(data) == size, f"{what} {name}: must be {size} bytes, got {len(data)}")
        return k, data

    regions = list(program.regions)
    for name, array in (values or {}).items():
        k, data = encoded("values", name, array)
        regions[k] = data
    expected: list[np.ndarray | None] = [None] * len(regions) if expect else []
    for name, array in (expect or {}).items():
        k, data = encoded("expect", name, array)
        expected[k] = data
    return replace(
        program, regions=tuple(regions), expected=tuple(expected), meta=dict(program.meta)
    )
