"""Matrix products: a dense layer, and a batch of products of two activations."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from covta.compiler.ops.operator import require_sizes
from covta.compiler.ops.requantize import Requantize
from covta.compiler.ops.window import Window, WindowOperator
from covta.hw.params import Config
from covta.runtime.layout import tile_bias

__all__ = ["BatchMatmul", "Dense"]


class _Product(WindowOperator):
    """``y[k, m, n] = requantize(sum x[k, m, i] * w[k, n, i])``.

    Rows of `x` are the columns of an image of height 1, its items super-blocks.
    """

    items: int
    rows: int
    in_features: int
    out_features: int

    def _check(self) -> None:
        require_sizes(self, "items", "rows", "in_features", "out_features")

    @property
    def images_total(self) -> int:
        """Rows of the product."""
        return self.rows

    @property
    def out_channels_total(self) -> int:
        """Columns of the product."""
        return self.out_features

    def window(self, cfg: Config) -> Window:
        """Sizes on a machine."""
        return Window(
            images=1,
            groups=self.items,
            inputs=math.ceil(self.in_features / cfg.block_in),
            outputs=math.ceil(self.out_features / cfg.block_out),
            height=1,
            width=math.ceil(self.rows / cfg.batch),
        )

    def macs(self) -> int:
        """Multiply-accumulates."""
        return self.items * self.rows * self.in_features * self.out_features

    def pack_data(self, cfg: Config, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        """``(1, items, inputs, 1, rows, batch, block_in)``."""
        z = self.window(cfg)
        x = _padded(arrays["x"].reshape(self.items, self.rows, -1), z.width, cfg.batch, z.inputs,
                    cfg.block_in)  # fmt: skip
        return x.transpose(0, 3, 1, 2, 4)[None, :, :, None].copy()

    def pack_weights(self, cfg: Config, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        """``(items, outputs, inputs, 1, 1, block_out, block_in)``."""
        z = self.window(cfg)
        w = arrays["w"].reshape(self.items, self.out_features, -1)
        w = _padded(w, z.outputs, cfg.block_out, z.inputs, cfg.block_in)
        return w.transpose(0, 1, 3, 2, 4)[:, :, :, None, None].copy()

    def pack(self, cfg: Config, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Tiled inputs."""
        packed = {"x": self.pack_data(cfg, arrays), "w": self.pack_weights(cfg, arrays)}
        for name in self.requantize.inputs(1):
            vector = arrays[name]
            if name == "bias":
                vector = self.requantize.packed_bias(vector)
            tiled = tile_bias(vector, cfg.batch, cfg.block_out)[None]
            packed[name] = np.repeat(tiled, self.items, axis=0)
        return packed

    def pack_output(self, cfg: Config, result: np.ndarray) -> np.ndarray:
        """Tiled output; lanes beyond the matrix are what zero sums become without bias."""
        z = self.window(cfg)
        width = z.outputs * cfg.block_out
        vectors = {name: np.zeros(width, np.int32) for name in self.requantize.inputs(1)}
        rest = self.requantize.reference(np.zeros((1, width), np.int32), vectors)
        full = np.broadcast_to(rest, (self.items, z.width * cfg.batch, width)).copy()
        full[:, : self.rows, : self.out_features] = result.reshape(self.items, self.rows, -1)
        y = full.reshape(self.items, z.width, cfg.batch, z.outputs, cfg.block_out)
        return y.transpose(0, 3, 1, 2, 4)[None, :, :, None].copy()

    def unpack(self, cfg: Config, result: np.ndarray) -> np.ndarray:
        """``(items, rows, out_features)`` int8."""
        y = result[0, :, :, 0].transpose(0, 2, 3, 1, 4)
        y = y.reshape(self.items, y.shape[1] * y.shape[2], -1)
        return y[:, : self.rows, : self.out_features].reshape(self._shape).copy()

    def reference(self, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        """By NumPy, in float64, which is exact here."""
        x = arrays["x"].astype(np.float64).reshape(self.items, self.rows, -1)
        w = arrays["w"].astype(np.float64).reshape(self.items, self.out_features, -1)
        sums = np.matmul(x, w.transpose(0, 2, 1)).astype(np.int64)
        return self.requantize.reference(sums, arrays, axis=2).reshape(self._shape)

    @property
    def _shape(self) -> tuple[int, ...]:
        return (self.items, self.rows, self.out_features)


@dataclass(frozen=True, kw_only=True)
class Dense(_Product):
    """``y[m, o] = requantize(sum x[m, i] * w[o, i])``.

    Parameters
    ----------
    batch, in_features, out_features : int
    requantize : Requantize
    """

    in_features: int
    out_features: int
    batch: int = 1
    requantize: Requantize = field(default_factory=Requantize)

    def __post_init__(self) -> None:
        self._check()

    @property
    def name(self) -> str:
        """``dense``."""
        return "dense"

    items = 1

    @property
    def rows(self) -> int:  # type: ignore[override]
        """Of the product."""
        return self.batch

    @property
    def _shape(self) -> tuple[int, ...]:
        return (self.batch, self.out_features)

    def inputs(self) -> dict[str, tuple[tuple[int, ...], str]]:
        """``x`` (M, I), ``w`` (O, I), and what requantisation needs."""
        return {
            "x": ((self.batch, self.in_features), "int8"),
            "w": ((self.out_features, self.in_features), "int8"),
            **self.requantize.inputs(self.out_features),
        }


@dataclass(frozen=True, kw_only=True)
class BatchMatmul(_Product):
    """``y[k, m, n] = requantize(sum x[k, m, i] * w[k, n, i])``: the second factor is transposed.

    Parameters
    ----------
    items, rows, in_features, out_features : int
    requantize : Requantize
    """

    items: int
    rows: int
    in_features: int
    out_features: int
    requantize: Requantize = field(default_factory=lambda: Requantize(bias=False))

    filled = ("rows", 1)

    def __post_init__(self) -> None:
        self._check()

    @property
    def name(self) -> str:
        """``batch_matmul``."""
        return "batch_matmul"

    def inputs(self) -> dict[str, tuple[tuple[int, ...], str]]:
        """``x`` (K, M, I), ``w`` (K, N, I), and what requantisation needs."""
        return {
            "x": ((self.items, self.rows, self.in_features), "int8"),
            "w": ((self.items, self.out_features, self.in_features), "int8"),
            **self.requantize.inputs(self.out_features),
        }


def _padded(a: np.ndarray, rows: int, by: int, columns: int, wide: int) -> np.ndarray:
    """``(K, R, C)`` filled up and cut into ``(K, rows, by, columns, wide)``."""
    widths = [(0, 0), (0, rows * by - a.shape[1]), (0, columns * wide - a.shape[2])]
    return np.pad(a, widths).reshape(a.shape[0], rows, by, columns, wide)
