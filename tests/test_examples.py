"""The examples compute what NumPy does, on several machines, and keep the array busy."""

import subprocess
import sys
from pathlib import Path

import pytest

from covta.hw.params import Config, load_config
from covta.runtime.builder import BuildError
from covta.runtime.device import open_device
from covta.runtime.report import verdict

EXAMPLES = Path(__file__).parent.parent / "examples"
sys.path.insert(0, str(EXAMPLES))

from conv2d import LAYERS, Epilogue, Layer, Tiling, build_layer  # noqa: E402
from matmul import build_matmul  # noqa: E402
from vector_add import build_vector_add  # noqa: E402

MACHINES = ("edge", "block8", "batch2", "in16_out4", "int4", "tiny")


def check(program, device: str = "functional"):
    result = open_device(device).run(program)
    assert result.fault is None
    assert verdict(program, result) == "match"
    return result


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("elems", [1, 7, 100])
def test_vector_add(machine, elems):
    check(build_vector_add(load_config(machine), elems, chunk=4))


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("shape", [(1, 1, 1), (20, 30, 40), (65, 33, 100)])
def test_matmul(machine, shape):
    check(build_matmul(load_config(machine), *shape, shift=4))


SMALL_BUFFERS = {"uop": 1024, "inp": 4096, "wgt": 16384, "acc": 16384}
CONV_MACHINES = {
    "edge": {},
    "blocks_of_8": {"block_in": 8, "block_out": 8, "buffers": SMALL_BUFFERS},
    "in16_out8": {"block_in": 16, "block_out": 8, "buffers": SMALL_BUFFERS},
    "batch2": {"batch": 2, "block_in": 8, "block_out": 8, "buffers": SMALL_BUFFERS},
    "int4": {"inp_bits": 4, "wgt_bits": 4, "buffers": SMALL_BUFFERS},
}

SMALL = Layer(size=6, inputs=40, outputs=24)


@pytest.mark.parametrize("machine", CONV_MACHINES)
@pytest.mark.parametrize("skip_padding", [True, False], ids=["skip", "dense"])
@pytest.mark.parametrize(
    "layer",
    [
        SMALL,
        Layer(size=7, inputs=16, outputs=16, kernel=1, pad=0),
        Layer(size=9, inputs=20, outputs=36, kernel=3, stride=2),
        Layer(size=8, inputs=16, outputs=32, kernel=1, stride=2, pad=0),
        Layer(size=8, inputs=3, outputs=8, kernel=5, pad=2),
    ],
    ids=["3x3", "1x1", "3x3s2", "1x1s2", "5x5"],
)
def test_conv2d(machine, layer, skip_padding):
    cfg = Config.from_dict(CONV_MACHINES[machine])
    check(build_layer(cfg, layer, skip_padding=skip_padding))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("rounding", [True, False])
@pytest.mark.parametrize("use_rqt", [True, False])
def test_conv2d_epilogues(bias, relu, rounding, use_rqt):
    epilogue = Epilogue(shift=9, relu=relu, rounding=rounding, use_rqt=use_rqt)
    cfg = Config(extensions=("requantize",) if use_rqt else ())
    check(build_layer(cfg, SMALL, epilogue=epilogue, bias=bias))


@pytest.mark.parametrize("tiling", [(1, 1, 1), (2, 1, 2), (3, 2, 1), (6, 2, 3)])
def test_conv2d_tilings(tiling):
    rows, co, ci = tiling
    check(build_layer(load_config("edge"), SMALL, tiling=Tiling(rows=rows, co=co, ci=ci)))


def test_conv2d_of_several_images():
    check(build_layer(Config.from_dict(CONV_MACHINES["batch2"]), SMALL, images=4))


def test_conv2d_refuses_a_machine_whose_scratchpads_are_too_small():
    wide = Layer(size=56, inputs=40, outputs=24)
    with pytest.raises(BuildError, match="a tile of one row must fit the scratchpads of tiny, got"):
        build_layer(load_config("tiny"), wide)


@pytest.mark.parametrize("name", ["C2", "C8", "C11"])
def test_resnet_layers_keep_the_array_98_percent_busy(name):
    cfg = load_config("edge")
    result = check(build_layer(cfg, LAYERS[name], skip_padding=False), "cycle")
    assert result.cycles <= 451_584 / 0.98


def test_skipping_padding_beats_the_dense_ideal():
    result = check(build_layer(load_config("edge"), LAYERS["C8"]), "cycle")
    assert result.cycles < 0.93 * 451_584


@pytest.mark.parametrize("arguments", [["vector_add.py"], ["matmul.py"], ["conv2d.py", "C8"]])
def test_examples_run_as_scripts(arguments):
    script, *options = arguments
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / script), *options, "--on", "functional"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "right, on the functional device" in done.stdout
