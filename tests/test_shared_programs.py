"""Programs made and proven elsewhere, from a folder beside the repository or `COVTA_SHARED`."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from covta.runtime.device import open_device
from covta.runtime.program import Program
from covta.runtime.report import verdict

SHARED = Path(os.environ.get("COVTA_SHARED", Path(__file__).parents[2] / "shared")) / "programs"
PATHS = sorted(SHARED.glob("*.npz"))

CYCLES = {"matmul_128": 14_539, "resnet18_c5": 479_134}
"""At the default DRAM; the RTL takes as many."""

pytestmark = pytest.mark.skipif(not PATHS, reason=f"no program files in {SHARED}")


@pytest.mark.parametrize("path", PATHS or [SHARED / "none"], ids=lambda path: path.stem)
@pytest.mark.parametrize("device", ["functional", "cycle"])
def test_every_shared_program_gives_the_expected_bytes(device, path):
    program = Program.load(path)
    result = open_device(device).run(program)
    assert result.fault is None
    assert verdict(program, result) == "match"
    if device == "cycle" and path.stem in CYCLES:
        assert result.cycles == CYCLES[path.stem]


@pytest.mark.parametrize("path", PATHS or [SHARED / "none"], ids=lambda path: path.stem)
def test_every_shared_program_survives_saving(path, tmp_path):
    program = Program.load(path)
    program.save(tmp_path / "again.npz")
    again = Program.load(tmp_path / "again.npz")
    np.testing.assert_array_equal(again.insn, program.insn)
    for one, other in zip(again.regions, program.regions, strict=True):
        np.testing.assert_array_equal(one, other)
    assert (again.config, again.meta) == (program.config, program.meta)
