"""Shift and clip become one operation where the machine has it, and only where it is the same."""

import dataclasses

import numpy as np
import pytest

from covta.compiler.backend.ops import Alu, DramTensor, Loop, Point, Tile, Trace
from covta.compiler.backend.requantize import fuse_requantize
from covta.compiler.ops import Conv2d, Requantize, compile_operator
from covta.hw.isa import AluOp, MemoryType
from covta.hw.params import load_config
from covta.runtime.device import open_device

EDGE = load_config("edge")
EXTENDED = EDGE.model_copy(update={"extensions": ("requantize",)})
TILE = Tile(name="t", scope="acc", elems=64, pool="t", instance=0)


FOUR = (Loop(count=4, dst=1),)


def ops(shift=8, low=0, high=127, *, order=("SHR", "MAX", "MIN"), loops=FOUR):
    imm = {"SHR": shift, "MAX": low, "MIN": high}
    return tuple(
        Alu(op=AluOp[o], dst=TILE, points=(Point(0),), loops=loops, imm=imm[o]) for o in order
    )


def fused(*stream, cfg=EXTENDED):
    y = DramTensor(name="y", memory=MemoryType.OUT, shape=(64,))
    trace = fuse_requantize(cfg, Trace(name="t", ops=stream, tensors=(y,)))
    return [(op.op.name, op.imm) for op in trace.ops]


def test_shift_and_clip_are_one_operation():
    assert fused(*ops()) == [("RQT", 8 | 64)]
    assert fused(*ops(low=-128)) == [("RQT", 8)]


@pytest.mark.parametrize(
    "stream",
    [
        ops(low=-5), ops(high=126), ops(shift=-1), ops(order=("SHR", "MIN", "MAX")),
        ops(loops=(Loop(count=4, dst=1), Loop(count=2, dst=2))),
        (*ops()[:2], dataclasses.replace(ops()[2], points=(Point(1),))),
    ],
)  # fmt: skip
def test_what_is_not_the_same_stays(stream):
    assert len(fused(*stream)) == 3


def test_a_machine_without_it_is_left_alone():
    assert len(fused(*ops(), cfg=EDGE)) == 3


@pytest.mark.parametrize("low", [0, -128])
def test_a_convolution_is_the_same_and_quicker(low):
    layer = Conv2d(
        in_channels=16, out_channels=32, height=6, width=6, kernel=1,
        requantize=Requantize(shift=7, low=low),
    )  # fmt: skip
    arrays, cycles = layer.random_inputs(), {}
    for cfg in (EDGE, EXTENDED):
        compiled = compile_operator(cfg, layer, arrays=arrays)
        run = open_device("cycle").run(compiled.program)
        np.testing.assert_array_equal(compiled.result(run), layer.reference(arrays))
        cycles[cfg.extensions] = run.cycles
    assert cycles["requantize",] < cycles[()]
