"""``vta ops`` and ``vta lower``."""

import numpy as np
import pytest
from typer.testing import CliRunner

from covta.cli.vta import app
from covta.compiler.verify import verify_program
from covta.runtime.device import open_device
from covta.runtime.program import Program

LAYER = ["conv2d", "in_channels=16", "out_channels=32", "height=6", "width=6", "padding=1"]


def vta(*words, code=0):
    result = CliRunner().invoke(app, list(words))
    assert result.exit_code == code, result.output
    return result.output


def test_ops_lists_operators_then_parameters_then_knobs():
    assert "conv2d" in vta("ops")
    assert "out_channels" in vta("ops", "conv2d")
    assert "skip_padding" in vta("ops", *LAYER)


def test_lower_shows_any_stage():
    table = vta("lower", *LAYER)
    for stage in ("expression", "nest", "clean", "trace", "order", "program"):
        assert stage in table
    assert "w: int8[" in vta("lower", *LAYER, "--stage", "expression")
    assert "vta.gemm.update(" in vta("lower", *LAYER, "--stage", "clean")
    assert "---- order" in vta("lower", *LAYER, "--stage", "all")


def test_knobs_change_the_program():
    text = vta("lower", *LAYER, "--knob", "rows=2", "--stage", "clean")
    assert text != vta("lower", *LAYER, "--stage", "clean")


def test_the_program_is_written_and_right(tmp_path):
    path = tmp_path / "conv.npz"
    vta("lower", *LAYER, "-o", str(path))
    program = Program.load(path)
    assert not verify_program(program).errors
    result = open_device("functional").run(program)
    expected = program.expected
    assert sum(e is not None for e in expected) == 1
    for got, want in zip(result.memory, expected, strict=True):
        assert want is None or np.array_equal(got, want)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["lower", "conv3d"], "operator must be among"),
        (["lower", "conv2"], "did you mean conv2d?"),
        (["lower", "conv2d", "in_chanels=3"], "did you mean in_channels?"),
        (["lower", "conv2d", "in_channels=3"], "needs out_channels=..., height=..., width=..."),
        (["lower", "conv2d", "in_channels"], "'in_channels' must read key=value"),
        (["lower", *LAYER, "stride=0"], "stride must be at least 1, got (0, 0)"),
        (["lower", *LAYER, "requantize.shft=3"], "did you mean shift?"),
        (["lower", *LAYER, "--knob", "row=3"], "did you mean rows?"),
        (["lower", *LAYER, "--knob", "stages=999"], "stages=999: stages must be among 0, 1, 2,"),
        (["lower", *LAYER, "--knob", "banks=7"], "banks=7: banks must be among 2, 1"),
        (["lower", *LAYER, "--knob", "rows=abc"], "rows=abc: rows must be among 1, 2, 3, 6"),
        (["lower", *LAYER, "--knob", "rows=6", "--knob", "stages=64"], "needs"),
        (["lower", *LAYER, "batch=1.5"], "conv2d.batch must be an integer, got 1.5"),
        (["lower", *LAYER, "kernel=true"], "conv2d.kernel must be one or two integers, got True"),
        (["lower", *LAYER, "stride=1.5"], "conv2d.stride must be one or two integers, got 1.5"),
        (["lower", *LAYER, "gather=7"], "conv2d.gather must be true or false or none, got 7"),
        (["lower", *LAYER, "requantize.shift=x"], "requantize.shift must be an integer, got 'x'"),
        (["lower", *LAYER, "requantize.bias=3"], "requantize.bias must be true or false, got 3"),
        (["ops", "dense", "in_features=1.5", "out_features=2"], "dense.in_features must be an"),
        (["lower", *LAYER, "--stage", "magic"], "--stage must be all or among expression"),
        (["lower", *LAYER, "--config", "nothing"], "nothing"),
        (["lower", *LAYER, "-o", "no/such/folder/x.npz"], "no such folder"),
        (["ops", "conv3d"], "operator must be among"),
    ],
)
def test_bad_input_is_one_message(words, message):
    text = vta(*words, code=2)
    assert text.startswith("vta: ")
    assert message in text
    assert "Traceback" not in text
