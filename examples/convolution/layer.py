"""What a convolution is given: its layer, and ResNet-18's."""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["LAYERS", "Layer"]


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A square convolution: image size, channels, kernel, stride, padding.

    `times` is how often ResNet-18 has it.
    """

    size: int
    inputs: int
    outputs: int
    kernel: int = 3
    stride: int = 1
    pad: int = 1
    times: int = 1

    @property
    def out_size(self) -> int:
        """Rows and columns of the output."""
        return (self.size + 2 * self.pad - self.kernel) // self.stride + 1

    @property
    def row_step(self) -> int:
        """Rows of the image from one that is needed to the next: a 1x1 kernel skips some."""
        return self.stride if self.kernel == 1 and not self.pad else 1

    @property
    def rows(self) -> int:
        """Rows of the image that are needed."""
        return math.ceil(self.size / self.row_step)

    @property
    def row_stride(self) -> int:
        """Needed rows from one output row to the next."""
        return self.stride // self.row_step

    def macs(self, images: int = 1) -> int:
        """Multiply-accumulates, those with padding among them."""
        return images * self.out_size**2 * self.outputs * self.inputs * self.kernel**2


LAYERS = {
    "C2": Layer(size=56, inputs=64, outputs=64, times=4),
    "C3": Layer(size=56, inputs=64, outputs=128, stride=2),
    "C4": Layer(size=56, inputs=64, outputs=128, kernel=1, stride=2, pad=0),
    "C5": Layer(size=28, inputs=128, outputs=128, times=3),
    "C6": Layer(size=28, inputs=128, outputs=256, stride=2),
    "C7": Layer(size=28, inputs=128, outputs=256, kernel=1, stride=2, pad=0),
    "C8": Layer(size=14, inputs=256, outputs=256, times=3),
    "C9": Layer(size=14, inputs=256, outputs=512, stride=2),
    "C10": Layer(size=14, inputs=256, outputs=512, kernel=1, stride=2, pad=0),
    "C11": Layer(size=7, inputs=512, outputs=512, times=3),
}
"""ResNet-18's convolutions but the first, whose 3 input channels do not fill the lanes."""
