"""Elementwise operators: scaled addition, products, extrema, activations, requantisation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from covta.compiler import te
from covta.compiler.intrin import MachineIntrinsics
from covta.compiler.ops.average import _Average, unit_weights
from covta.compiler.ops.operator import Scheduled, require, require_sizes
from covta.compiler.ops.pointwise import Footprint, PointwiseKnobs, PointwiseOperator
from covta.compiler.ops.requantize import Requantize
from covta.compiler.ops.window import requantize_cycles
from covta.compiler.schedule import create_schedule
from covta.compiler.te import Expr, Tensor
from covta.hw.params import Config

__all__ = ["Elementwise", "LeakyRelu", "Requantization", "ResidualAdd"]

OPS = ("add", "multiply", "min", "max")


def _plain(**changes: Any) -> Requantize:
    return Requantize(**{"bias": False, "shift": 0, **changes})


class _Elementwise(PointwiseOperator):
    requantize: Requantize

    def _check(self) -> None:
        require_sizes(self, "batch", "channels", "height", "width")
        require(
            not self.requantize.bias and not self.requantize.per_channel,
            f"{self.name}: requantize must have no vectors per channel; batch_norm has",
        )

    @property
    def operands(self) -> tuple[str, ...]:
        """Names of the natural inputs."""
        return ("a", "b")

    @property
    def sums(self) -> int:
        """Accumulators of an element."""
        return 2

    def inputs(self) -> dict[str, tuple[tuple[int, ...], str]]:
        """``a``, ``b`` (N, C, H, W)."""
        return dict.fromkeys(self.operands, self.image())

    def extra_alu(self, cfg: Config) -> int:
        """ALU cycles of an element, other than for requantising."""
        return 2

    def footprint(self, cfg: Config, knobs: PointwiseKnobs) -> Footprint:
        """What one full tile takes."""
        z = self.window(cfg)
        pixels = knobs.rows * knobs.columns * knobs.groups
        outputs = pixels * z.outputs
        return Footprint(
            inp=pixels * z.inputs * len(self.operands),
            acc=outputs * self.sums,
            wgt=z.inputs * z.outputs * len(self.factors()),
            array=outputs * z.inputs * 2,
            resets=outputs * self.sums,
            alu=outputs
            * (requantize_cycles(cfg, self.requantize, self.within) + self.extra_alu(cfg)),
        )

    @property
    def within(self) -> tuple[int, int]:
        """Least and greatest value before requantising."""
        return -128, 127

    def factors(self) -> tuple[int, ...]:
        """Of the unit matrices that inputs are multiplied by."""
        return (1,)

    def matrices(self, cfg: Config) -> np.ndarray:
        """One multiple of the unit matrix per factor."""
        return np.stack([unit_weights(cfg, f)[0, :, :, 0, 0] for f in self.factors()])

    def padding_value(self) -> int:
        """What zero inputs become."""
        return int(self.requantize.reference(np.zeros((1, 1), np.int32), {})[0, 0])

    def accumulated(
        self, cfg: Config, images: list[Tensor], w: Tensor
    ) -> tuple[list[Tensor], list[Tensor], Tensor]:
        """Sums in acc, further stages of the ALU, and the last of them, before requantising."""
        sums = [self.copied(cfg, x, w, 0, f"sum{k}") for k, x in enumerate(images)]
        result = te.compute(
            sums[0].shape, lambda *i: self.combine(sums[0][i], sums[1][i]), name="combined"
        )
        return sums, [result], result

    def copied(self, cfg: Config, x: Tensor, w: Tensor, factor: int, name: str) -> Tensor:
        """An input times a multiple of the unit matrix, in acc."""
        z = self.window(cfg)
        rc = te.reduce_axis((0, z.inputs), name="c")
        ri = te.reduce_axis((0, cfg.block_in), name="i")
        k = te.const(factor)
        return te.compute(
            (z.images, z.groups, z.outputs, self.height, self.width, cfg.batch, cfg.block_out),
            lambda n, g, c, y, x_, r, o: te.sum(
                x[n, g, rc, y, x_, r, ri].astype("int32") * w[k, c, rc, o, ri].astype("int32"),
                axis=[rc, ri],
            ),
            name=name,
        )

    def combine(self, a: Expr, b: Expr) -> Expr:
        """Of two elements."""
        raise NotImplementedError

    def schedule(self, cfg: Config, knobs: PointwiseKnobs) -> Scheduled:
        """Expression and schedule in the machine's layout."""
        z = self.window(cfg)
        shape = (z.images, z.groups, z.inputs, self.height, self.width, cfg.batch, cfg.block_in)
        images = [te.placeholder(shape, "int8", name=n) for n in self.operands]
        w = te.placeholder(
            (len(self.factors()), z.outputs, z.inputs, cfg.block_out, cfg.block_in), "int8", "w"
        )
        sums, work, last = self.accumulated(cfg, images, w)
        result = te.compute(
            last.shape,
            lambda *i: self.requantize.expression(last[i], None, None, self.within),
            name="requantized",
        )
        y = te.compute(result.shape, lambda *i: result[i].astype("int8"), name="y")
        s = create_schedule(y)
        tile = self.frame(cfg, knobs, s, y)
        machine = MachineIntrinsics(cfg)
        work = [*work, result]
        for tensor in (*sums, *work):
            s[tensor].set_scope("acc")
            s[tensor].compute_at(s[y], tile)
        for tensor in work:
            s[tensor].pragma(s[tensor].axes[0], "alu")
        for tensor in sums:
            stage = s[tensor]
            rc, ri = stage.reduce_axes
            stage.reorder(rc, *stage.axes, ri)
            pair = len(sums) < self.sums or len(stage.reads()) > 2
            stage.tensorize(stage.axes[5], machine.gemm_pair if pair else machine.gemm)
        for source, scope in ((w, "wgt"), *((x, "inp") for x in images)):
            near = s.cache_read(source, scope, [t for t in sums if source in s[t].reads()])
            s[near].compute_at(s[y], tile)
            s[near].pragma(s[near].axes[3 if scope == "inp" else 0], "dma_copy")
            if knobs.stages and scope == "inp":
                s[near].double_buffer(knobs.stages)
        return Scheduled(schedule=s, args=(*images, w, y))


@dataclass(frozen=True, kw_only=True)
class ResidualAdd(_Elementwise):
    """``y = requantize(a * scale_a + b * scale_b)``: both operands are rescaled.

    The array does it in two micro-ops an element.

    Parameters
    ----------
    batch, channels, height, width : int
    scale_a, scale_b : int
        int8.
    requantize : Requantize
        Without bias and factors per channel.
    """

    channels: int
    height: int
    width: int
    scale_a: int = 64
    scale_b: int = 64
    batch: int = 1
    requantize: Requantize = field(default_factory=lambda: _plain(shift=6))

    def __post_init__(self) -> None:
        self._check()
        for name in ("scale_a", "scale_b"):
            value = getattr(self, name)
            require(-128 <= value <= 127, f"{self.name}.{name} must fit int8, got {value}")

    @property
    def name(self) -> str:
        """``residual_add``."""
        return "residual_add"

    @property
    def sums(self) -> int:
        """Accumulators of an element."""
        return 1

    def extra_alu(self, cfg: Config) -> int:
        """None."""
        return 0

    @property
    def within(self) -> tuple[int, int]:
        """Least and greatest sum."""
        ends = [(-128 * s, 127 * s) for s in (self.scale_a, self.scale_b)]
        return sum(map(min, ends)), sum(map(max, ends))

    def factors(self) -> tuple[int, ...]:
        """One per operand."""
        return (self.scale_a, self.scale_b)

    def accumulated(
        self, cfg: Config, images: list[Tensor], w: Tensor
    ) -> tuple[list[Tensor], list[Tensor], Tensor]:
        """One sum of both."""
        z = self.window(cfg)
        rc = te.reduce_axis((0, z.inputs), name="c")
        ri = te.reduce_axis((0, cfg.block_in), name="i")
        a, b = images
        first, second = te.const(0), te.const(1)
        total = te.compute(
            (z.images, z.groups, z.outputs, self.height, self.width, cfg.batch, cfg.block_out),
            lambda n, g, c, y, x, r, o: te.sum(
                a[n, g, rc, y, x, r, ri].astype("int32") * w[first, c, rc, o, ri].astype("int32")
                + b[n, g, rc, y, x, r, ri].astype("int32")
                * w[second, c, rc, o, ri].astype("int32"),
                axis=[rc, ri],
            ),
            name="sums",
        )
        return [total], [], total

    def reference(self, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        """By NumPy."""
        a, b = (arrays[n].astype(np.int64) for n in "ab")
        return self.requantize.reference(a * self.scale_a + b * self.scale_b, {})


@dataclass(frozen=True, kw_only=True)
class Elementwise(_Elementwise):
    """``y = requantize(a op b)``; op is add, multiply, min or max.

    Parameters
    ----------
    batch, channels, height, width : int
    op : str
    requantize : Requantize
        Without bias and factors per channel.
    """

    channels: int
    height: int
    width: int
    op: str = "multiply"
    batch: int = 1
    requantize: Requantize = field(default_factory=_plain)

    def __post_init__(self) -> None:
        self._check()
        require(self.op in OPS, f"{self.name}.op must be among {', '.join(OPS)}, got {self.op!r}")

    @property
    def name(self) -> str:
        """``elementwise``."""
        return "elementwise"

    def extra_alu(self, cfg: Config) -> int:
        """Of the operator itself."""
        return max(2, cfg.mul_cycles) if self.op == "multiply" else 2

    @property
    def within(self) -> tuple[int, int]:
        """Least and greatest result."""
        return {"add": (-256, 254), "multiply": (-16256, 16384)}.get(self.op, (-128, 127))

    def combine(self, a: Expr, b: Expr) -> Expr:
        """Of two elements."""
        if self.op == "add":
            return a + b
        if self.op == "multiply":
            return a * b
        return te.minimum(a, b) if self.op == "min" else te.maximum(a, b)

    def reference(self, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        """By NumPy."""
        a, b = (arrays[n].astype(np.int64) for n in "ab")
        how = {"add": np.add, "multiply": np.multiply, "min": np.minimum, "max": np.maximum}
        return self.requantize.reference(how[self.op](a, b), {})


@dataclass(frozen=True, kw_only=True)
class LeakyRelu(_Elementwise):
    """``y = max(x, (x * slope) >> slope_shift)``.

    Parameters
    ----------
    batch, channels, height, width : int
    slope : int
        0 to 127.
    slope_shift : int
        ``slope / 2**slope_shift`` is at most 1.
    """

    channels: int
    height: int
    width: int
    slope: int = 13
    slope_shift: int = 7
    batch: int = 1

    def __post_init__(self) -> None:
        self._check()
        require(
            0 <= self.slope_shift <= 7 and 0 <= self.slope <= min(127, 1 << self.slope_shift),
            f"{self.name}: slope / 2**slope_shift must be from 0 to 1, slope_shift at most 7, got"
            f" {self.slope} / 2**{self.slope_shift}",
        )

    @property
    def name(self) -> str:
        """``leaky_relu``."""
        return "leaky_relu"

    @property
    def requantize(self) -> Requantize:  # type: ignore[override]
        """Nothing but saturation."""
        return _plain()

    @property
    def operands(self) -> tuple[str, ...]:
        """One."""
        return ("x",)

    def factors(self) -> tuple[int, ...]:
        """For both parts."""
        return (1, self.slope)

    def extra_alu(self, cfg: Config) -> int:
        """Shift and maximum."""
        return 3

    def accumulated(
        self, cfg: Config, images: list[Tensor], w: Tensor
    ) -> tuple[list[Tensor], list[Tensor], Tensor]:
        """The input, and the input times the slope."""
        whole, part = (self.copied(cfg, images[0], w, k, f"sum{k}") for k in (0, 1))
        shifted = te.compute(part.shape, lambda *i: part[i] >> self.slope_shift, name="slope")
        result = te.compute(whole.shape, lambda *i: te.maximum(whole[i], shifted[i]), name="leaky")
        return [whole, part], [shifted, result], result

    def reference(self, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        """By NumPy."""
        x = arrays["x"].astype(np.int64)
        return np.maximum(x, (x * self.slope) >> self.slope_shift).astype(np.int8)


@dataclass(frozen=True, kw_only=True)
class Requantization(_Average):
    """``y = requantize(x)``: another scale, per tensor or channel; ReLU and its kin by clipping.

    Parameters
    ----------
    batch, channels, height, width : int
    requantize : Requantize
        ``low = 0`` is ReLU, ``high`` the 6 of ReLU6 in its scale.
    """

    channels: int
    height: int
    width: int
    batch: int = 1
    requantize: Requantize = field(default_factory=lambda: _plain(low=0))

    kernel = stride = (1, 1)
    padding = (0, 0)

    def __post_init__(self) -> None:
        require_sizes(self, "batch", "channels", "height", "width")

    @property
    def name(self) -> str:
        """``requantization``."""
        return "requantization"
