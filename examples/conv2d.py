"""A 2-D convolution written for the machine by hand, at the speed of its multiplier array.

``y = clip((conv(x, w) + bias) >> shift)`` in int8, with int32 sums. The work is cut into *tiles*
(some rows of some output channels), whose sums lie in one half of acc each, in turn; the other half
is meanwhile requantised, stored and zeroed, in the shadow of the multiplications. A tile is summed
in *stages*, each over some input channels, whose inputs and weights are loaded ahead into two
scratchpads used as rings. What is still there is not loaded again.

Three things keep the array from waiting:

- *A short start.* The first tile needs few weights, and its first stage is loaded piece by piece.
- *ALU instructions only where they cannot block.* The compute unit starts instructions in order,
  so one that has to wait holds up the GEMM behind it. `Shadow` releases an ALU instruction only
  behind a GEMM long enough.
- *A short end.* The last tiles get smaller and smaller: only what follows the last GEMM costs time.

With `skip_padding` a kernel tap is applied only where it meets the image, so multiplications by
padding are not done at all, and no padding is stored in inp. Without, all of them are, as on other
machines.

The schedule stands in `convolution/`; here a layer is given data and run.

Run it: ``python examples/conv2d.py C8 --on cycle``.
"""

from __future__ import annotations

import argparse
import math
import sys

import numpy as np
from common import run_example
from convolution import LAYERS, Conv2d, Epilogue, Layer, Tiling
from reference import conv2d, requantize

from covta.hw.isa import MemoryType
from covta.hw.params import Config
from covta.runtime.builder import Builder, BuildError
from covta.runtime.layout import tile_activation, tile_bias, tile_kernel
from covta.runtime.program import Program

__all__ = ["LAYERS", "Conv2d", "Epilogue", "Layer", "Tiling", "build_conv", "build_layer"]


def build_layer(
    cfg: Config,
    layer: Layer,
    *,
    name: str = "conv2d",
    images: int | None = None,
    epilogue: Epilogue | None = None,
    bias: bool = True,
    tiling: Tiling | None = None,
    skip_padding: bool = True,
    seed: int = 0,
) -> Program:
    """A layer on random data, with NumPy's result as what to expect.

    Parameters
    ----------
    images : int, optional
        One batch if absent.
    epilogue : Epilogue, optional
        By default a shift that leaves int8 well used, and ReLU.
    """
    rng = np.random.default_rng(seed)
    images = images or cfg.batch
    if images % cfg.batch:
        raise BuildError(f"images must be a multiple of batch = {cfg.batch}, got {images}")
    top = (1 << (cfg.inp_bits - 1)) - 1, (1 << (cfg.wgt_bits - 1)) - 1
    x = rng.integers(-top[0] - 1, top[0] + 1, (images, layer.inputs, layer.size, layer.size))
    w = rng.integers(-top[1] - 1, top[1] + 1, (layer.outputs, layer.inputs, *[layer.kernel] * 2))
    offsets = rng.integers(-(1 << 12), 1 << 12, layer.outputs) if bias else None
    if epilogue is None:
        spread = top[0] * top[1] / 3 * math.sqrt(layer.inputs * layer.kernel**2)
        epilogue = Epilogue(shift=max(0, math.ceil(math.log2(2 * spread / top[0]))))
    return build_conv(
        cfg, layer, x, w, offsets,
        name=name, epilogue=epilogue, tiling=tiling, skip_padding=skip_padding,
    )  # fmt: skip


def build_conv(
    cfg: Config,
    layer: Layer,
    x: np.ndarray,
    w: np.ndarray,
    offsets: np.ndarray | None,
    *,
    name: str,
    epilogue: Epilogue,
    tiling: Tiling | None = None,
    skip_padding: bool = True,
) -> Program:
    """A layer on given data, with NumPy's result as what to expect.

    Parameters
    ----------
    x : np.ndarray
        ``(N, C, H, W)`` integers of ``inp_bits``; ``N`` a multiple of ``cfg.batch``.
    w : np.ndarray
        ``(O, C, KH, KW)`` integers of ``wgt_bits``.
    offsets : np.ndarray or None
        ``(O,)`` bias, added to the sums.
    """
    sums = conv2d(x, w, stride=layer.stride, pad=layer.pad)
    if offsets is not None:
        sums += offsets[None, :, None, None]
    result = requantize(
        sums, epilogue.shift, bits=cfg.out_bits, relu=epilogue.relu, rounding=epilogue.rounding
    )

    b = Builder(cfg, name=name)
    kernel = tile_kernel(w, cfg.block_out, cfg.block_in)
    kernel = kernel.reshape(*kernel.shape[:2], -1, *kernel.shape[4:])
    xb = b.buffer("x", MemoryType.INP, tile_activation(x, cfg.batch, cfg.block_in))
    wb = b.buffer("w", MemoryType.WGT, kernel)
    expected = tile_activation(result, cfg.batch, cfg.block_out)
    yb = b.buffer("y", MemoryType.OUT, shape=expected.shape[:4])
    bb = None
    if offsets is not None:
        if epilogue.rounding and epilogue.shift and not epilogue.use_rqt:
            offsets = offsets + (1 << (epilogue.shift - 1))
        bb = b.buffer("bias", MemoryType.ACC, tile_bias(offsets, cfg.batch, cfg.block_out))
    tiling = tiling or Tiling.choose(
        cfg, layer, bias=offsets is not None, skip_padding=skip_padding
    )
    Conv2d(
        b, xb, wb, yb, bb,
        layer=layer, epilogue=epilogue, tiling=tiling, skip_padding=skip_padding,
    ).emit()  # fmt: skip
    return b.build({"y": expected}, meta={"macs": layer.macs(len(x))})


def main() -> int:
    """Build the layer named on the command line, run it, compare."""

    def arguments(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("layer", nargs="?", default="C8", choices=list(LAYERS))
        parser.add_argument("--dense", action="store_true", help="multiply padding too")
        parser.add_argument("--no-bias", action="store_true", help="no bias")
        parser.add_argument("--rqt", action="store_true", help="use the extension requantize")

    def build(cfg: Config, options: argparse.Namespace) -> Program:
        if options.rqt and not cfg.has("requantize"):
            cfg = cfg.model_copy(update={"extensions": (*cfg.extensions, "requantize")})
        return build_layer(
            cfg,
            LAYERS[options.layer],
            name=options.layer,
            epilogue=Epilogue(shift=11, use_rqt=options.rqt),
            bias=not options.no_bias,
            skip_padding=not options.dense,
        )

    return run_example(__doc__, build, arguments)


if __name__ == "__main__":
    sys.exit(main())
