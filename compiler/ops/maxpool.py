"""Max pooling on the ALU: first over rows, then over columns.

The array copies the image into the accumulator as *planes*, one per row and column modulo the
stride, so that every operand of a maximum is dense and results lie as the store wants them. The
first tap of a maximum is worked on in place; it needs a plane that nothing else reads.

Where windows overlap in all but a step and a tile is a whole image, there is one plane, and maxima
*slide*: of two neighbours, of two such pairs, and so on, each in place, a few operations for any
window.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from covta.compiler import te
from covta.compiler.intrin import MachineIntrinsics
from covta.compiler.ops.average import unit_weights
from covta.compiler.ops.operator import Scheduled, require, require_sizes
from covta.compiler.ops.pointwise import Footprint, PointwiseKnobs, PointwiseOperator
from covta.compiler.ops.window import Window, pair
from covta.compiler.schedule import create_schedule
from covta.compiler.te import Expr, Tensor
from covta.hw.params import Config

__all__ = ["MaxPool2d"]

LEAST = -(1 << 31)


def _small(plane: Tensor, axis: int, padding: int) -> Tensor:
    """The plane, in front of which there is what never wins."""
    most = te.const((1 << 31) - 1, "int32")

    def body(*i: Expr) -> Expr:
        return te.minimum(plane[i], te.select(i[axis] < padding, te.const(-128, "int32"), most))

    return te.compute(plane.shape, body, name=f"small.{'yx'[axis - 3]}")


def _slid(source: Tensor, axis: int, away: int, results: int) -> Tensor:
    """Of each element and the one so far behind it, if there is one, the greater."""
    have = source.shape[axis]
    shape = [*source.shape[:axis], results, *source.shape[axis + 1 :]]

    def body(*i: Expr) -> Expr:
        behind = i[axis] + away
        value = source[(*i[:axis], behind, *i[axis + 1 :])]
        if results - 1 + away >= have:
            value = te.select(behind < have, value, te.const(LEAST, "int32"))
        return te.maximum(source[i], value)

    return te.compute(shape, body, name=f"slid.{'yx'[axis - 3]}{away}")


@dataclass(frozen=True)
class _Axis:
    """Taps of a window along rows or columns.

    Parameters
    ----------
    size, out, kernel, stride, padding : int
    """

    size: int
    out: int
    kernel: int
    stride: int
    padding: int

    def tap(self, k: int) -> tuple[int, int]:
        """Plane of tap `k`, and where in it output 0 looks."""
        at = k - self.padding
        return at % self.stride, at // self.stride

    def length(self, plane: int) -> int:
        """Of a plane."""
        return -(-(self.size - plane) // self.stride) if plane < self.size else 0

    def taps(self) -> list[tuple[int, int]]:
        """Those that any output has, by `tap`."""
        found = []
        for k in range(self.kernel):
            plane, at = self.tap(k)
            if 0 < self.length(plane) > at and at + self.out > 0:
                found.append((plane, at))
        return found

    def inside(self, tap: tuple[int, int]) -> bool:
        """True if every output has this tap."""
        return tap[1] >= 0 and tap[1] + self.out <= self.length(tap[0])

    def base(self) -> tuple[tuple[int, int], bool]:
        """The tap to work on in place, and whether its plane is read by it alone."""
        taps = self.taps()
        planes = [p for p, _ in taps]
        whole = [t for t in taps if self.inside(t)]
        own = [t for t in whole if planes.count(t[0]) == 1]
        return ((own or whole or taps)[0], bool(own))

    def span(self, n: int, plane: int) -> int:
        """Of a plane, what `n` outputs look at."""
        at = [a for p, a in self.taps() if p == plane]
        return min(n + max(at) - min(at), self.length(plane)) if at else 0

    def operations(self) -> int:
        """Cycles of the ALU for all outputs, for each element across."""
        base, _ = self.base()
        taps = [t for t in self.taps() if not (self.inside(base) and t == base)]
        return sum(2 * (min(self.out, self.length(p) - a) - max(0, -a)) for p, a in taps)

    def extent(self, n: int) -> int:
        """Of the image, what `n` outputs look at, and what is copied to be made small."""
        at = [offset * self.stride + plane for plane, offset in self.taps()]
        base, _ = self.base()
        if not self.inside(base):
            at.append(base[0])
        return min((n - 1) * self.stride + max(at) - min(at) + 1, self.size)

    # ---- sliding, with a stride of one -----------------------------------------------------
    @property
    def slid(self) -> int:
        """Of the image with the padding in front of it, what all outputs look at."""
        return min(self.padding + self.size, self.out + self.kernel - 1)

    def steps(self) -> list[tuple[int, int]]:
        """Of each operation, how far away operand 2 lies, and of how many there are results."""
        taps, found = 1, []
        while taps < self.kernel:
            away = min(taps, self.kernel - taps)
            taps += away
            found.append((away, min(self.slid, self.out + self.kernel - taps)))
        return found

    def slid_operations(self) -> int:
        """As `operations`."""
        cycles, have = 0, self.slid
        for away, results in self.steps():
            cycles += 2 * min(results, have - away)
            have = results
        return cycles


@dataclass(frozen=True, kw_only=True)
class MaxPool2d(PointwiseOperator):
    """``y[n, c, y, x]``: the greatest of a window of ``x[n, c]``; padding never wins.

    Parameters
    ----------
    batch, channels, height, width : int
    kernel, stride, padding : int or (int, int)
        Rows, columns; `stride` is `kernel` by default, `padding` less than `kernel`.
    """

    channels: int
    height: int
    width: int
    kernel: Any = 2
    stride: Any = None
    padding: Any = 0
    batch: int = 1

    def __post_init__(self) -> None:
        require_sizes(self, "batch", "channels", "height", "width")
        stride: Any = self.stride
        object.__setattr__(self, "stride", self.kernel if stride is None else stride)
        for name, low in (("kernel", 1), ("stride", 1), ("padding", 0)):
            object.__setattr__(self, name, pair(self.name, name, getattr(self, name), low))
        require(
            min(self.out_shape) >= 1,
            f"{self.name}: the kernel {self.kernel} must fit the padded image"
            f" {self.height}x{self.width}, got an output of {self.out_shape}",
        )
        for d, n in enumerate((self.height, self.width)):
            k, s, p, o = self.kernel[d], self.stride[d], self.padding[d], self.out_shape[d]
            require(
                p < k and (o - 1) * s - p < n,
                f"{self.name}: every window must meet the image; padding {self.padding} and kernel"
                f" {self.kernel} leave some outside of {self.height}x{self.width}",
            )

    @property
    def name(self) -> str:
        """``max_pool2d``."""
        return "max_pool2d"

    @property
    def out_shape(self) -> tuple[int, int]:
        """Rows and columns of the output."""
        return Window(
            images=1, groups=1, inputs=1, outputs=1, height=self.height, width=self.width,
            kernel=self.kernel, stride=self.stride, padding=self.padding,
        ).out_shape  # fmt: skip

    def inputs(self) -> dict[str, tuple[tuple[int, ...], str]]:
        """``x`` (N, C, H, W)."""
        return {"x": self.image()}

    def _axes(self) -> tuple[_Axis, _Axis]:
        oh, ow = self.out_shape
        return (
            _Axis(self.height, oh, self.kernel[0], self.stride[0], self.padding[0]),
            _Axis(self.width, ow, self.kernel[1], self.stride[1], self.padding[1]),
        )

    def footprint(self, cfg: Config, knobs: PointwiseKnobs) -> Footprint:
        """What one full tile takes."""
        z = self.window(cfg)
        v, h = self._axes()
        if self._slides(knobs):
            blocks = knobs.groups * z.outputs
            return Footprint(
                inp=knobs.groups * z.inputs * self.height * self.width,
                acc=blocks * v.slid * h.slid,
                wgt=z.inputs * z.outputs,
                array=blocks * z.inputs * v.extent(v.out) * h.extent(h.out),
                resets=blocks * v.slid * h.slid,
                alu=blocks * self._slid_cycles(),
            )
        (_, own_row), (_, own_column) = v.base(), h.base()
        n, m = knobs.rows, knobs.columns
        sure = self._in_place()
        rows = sum(v.span(n, p) for p in {p for p, _ in v.taps()})
        row_base = 0 if own_row else n
        wide = sum(h.span(m, p) for p in {p for p, _ in h.taps()})
        extra = 0 if own_column else m  # columns of the base of the second maximum
        copies = rows * (wide if own_column else max(wide, extra)) + row_base * (wide + extra)
        if not own_column and (own_row or not sure):
            copies += n * extra
        extra *= sure
        ups = (len(v.taps()) - 1) * n * (wide + extra) + (len(h.taps()) - 1) * n * m
        if not v.inside(v.base()[0]):
            ups += 2 * n * (wide + extra)
        if not sure:
            ups += 2 * n * m
        blocks = knobs.groups * z.outputs
        return Footprint(
            inp=knobs.groups * z.inputs * v.extent(n) * h.extent(m),
            acc=blocks * copies,
            wgt=z.inputs * z.outputs,
            array=blocks * copies * z.inputs,
            resets=blocks * copies,
            alu=2 * blocks * ups,
        )

    def _slides(self, knobs: PointwiseKnobs) -> bool:
        """Whether a tile is a whole image whose windows overlap in all but a step."""
        whole = (knobs.rows, knobs.columns) == self.out_shape
        return whole and self.stride == (1, 1) and max(self.kernel) > 2

    def _slid_cycles(self) -> int:
        """Of the ALU for an image, with what makes the padding small."""
        v, h = self._axes()
        small = v.padding * h.slid + h.padding * v.slid
        return small + v.slid_operations() * h.slid + h.slid_operations() * v.out

    def spatial_axes(self, knobs: PointwiseKnobs) -> tuple[int, ...]:
        """None of a tile that has to stay whole."""
        return () if self._slides(knobs) else super().spatial_axes(knobs)

    def _in_place(self) -> bool:
        """Whether the second maximum works on one of its taps.

        Else on anything made small: sooner done than a tap, where that is a maximum of many.
        """
        v, h = self._axes()
        tap, own = h.base()
        return h.inside(tap) and (own or len(v.taps()) <= 2)

    def bounds(self, cfg: Config, *, skip_padding: bool = True) -> dict[str, float]:
        """As of other operators; each element is copied once, no maximum with padding counts."""
        bounds = super().bounds(cfg, skip_padding=skip_padding)
        z = self.window(cfg)
        v, h = self._axes()
        oh, ow = self.out_shape
        rows = sum(v.span(oh, p) for p in {p for p, _ in v.taps()})
        columns = sum(h.span(ow, p) for p in {p for p, _ in h.taps()})
        alu = v.operations() * columns + h.operations() * oh
        if self.stride == (1, 1):
            alu = min(alu, self._slid_cycles())
        blocks = z.images * z.groups * z.outputs
        array, resets = blocks * rows * columns * z.inputs, blocks * rows * columns
        alu *= blocks
        return bounds | {"array": array, "alu": alu, "both": (array + alu + resets) / 2}

    # ---- computation -----------------------------------------------------------------------
    def schedule(self, cfg: Config, knobs: PointwiseKnobs) -> Scheduled:
        """Expression and schedule in the machine's layout."""
        if self._slides(knobs):
            return self._sliding(cfg, knobs)
        z = self.window(cfg)
        v, h = self._axes()
        (sy, sx), b = self.stride, cfg.batch
        bi, bo = cfg.block_in, cfg.block_out
        image = (z.images, z.groups, z.inputs, self.height, self.width)
        x = te.placeholder((*image, b, bi), "int8", "x")
        w = te.placeholder((z.outputs, z.inputs, bo, bi), "int8", "w")
        lead = (z.images, z.groups, z.outputs)
        copies: list[Tensor] = []
        work: list[Tensor] = []

        def plane(py: int, px: int, name: str, rows: int = 0, columns: int = 0) -> Tensor:
            """A copy of every so many rows and columns; `rows`, `columns`: of another size."""
            rc = te.reduce_axis((0, z.inputs), name="c")
            ri = te.reduce_axis((0, bi), name="i")
            have = v.length(py), h.length(px)
            size = rows or have[0], columns or have[1]

            def body(n, g, c, y, x_, r, o):
                value = x[n, g, rc, y * sy + py, x_ * sx + px, r, ri]
                at = (y, x_)
                checks = [at[d] < have[d] for d in range(2) if size[d] > have[d]]
                if checks:
                    value = te.select(te.all_of(*checks), value, te.const(0, "int8"))
                product = value.astype("int32") * w[c, rc, o, ri].astype("int32")
                return te.sum(product, axis=[rc, ri])

            made = te.compute((*lead, *size, b, bo), body, name=f"{name}.{py}.{px}")
            copies.append(made)
            return made

        def greatest(
            axis: int, sources: dict[int, Tensor], first: Tensor, name: str, *, sure: bool
        ) -> Tensor:
            """Along rows (3) or columns (4); the base tap is read from `first` if `sure`."""
            taps = (v, h)[axis - 3]
            (bp, at), _ = taps.base()
            shape = list(first.shape)
            shape[axis] = taps.out

            def body(*i: Expr) -> Expr:
                def read(tensor: Tensor, offset: int) -> tuple[Expr, Expr]:
                    place = i[axis] + offset
                    value = tensor[(*i[:axis], place, *i[axis + 1 :])]
                    size = tensor.shape[axis]
                    checks = [place >= 0] if offset < 0 else []
                    checks += [place < size] if taps.out - 1 + offset >= size else []
                    if not checks:
                        return value, value
                    return value, te.select(te.all_of(*checks), value, te.const(LEAST, "int32"))

                if sure:
                    value = read(first, at)[0]
                else:  # whatever is there, made small
                    value = te.minimum(first[i], -128)
                for p, offset in taps.taps():
                    if not sure or (p, offset) != (bp, at):
                        value = te.maximum(value, read(sources[p], offset)[1])
                return value

            made = te.compute(shape, body, name=name)
            work.append(made)
            return made

        (row, at_row), own_row = v.base()
        (column, _), own_column = h.base()
        shared: dict[tuple[int, int], Tensor] = {}

        def down(px: int, name: str) -> Tensor:
            """Maximum over rows, of one plane of columns."""
            sure = v.inside((row, at_row))
            sources = {}
            for p in {p for p, _ in v.taps()} - ({row} if own_row else set()):
                if (p, px) not in shared:
                    shared[p, px] = plane(p, px, "copy")
                sources[p] = shared[p, px]
            first = plane(row, px, f"{name}.base", 0 if sure else v.out)
            return greatest(3, sources, first, f"{name}.{px}", sure=sure)

        sure = self._in_place()
        downs = {p: down(p, "rows") for p in {p for p, _ in h.taps()}
                 if not (own_column and p == column)}  # fmt: skip
        first = down(column, "first") if sure else plane(row, column, "first", v.out, h.out)
        result = greatest(4, downs, first, "greatest", sure=sure)
        y = te.compute(result.shape, lambda *i: result[i].astype("int8"), name="y")
        return self._scheduled(cfg, knobs, (x, w, y), copies, work)

    def _sliding(self, cfg: Config, knobs: PointwiseKnobs) -> Scheduled:
        """One plane, with the padding in front of it; every maximum in place."""
        z = self.window(cfg)
        v, h = self._axes()
        b, bi, bo = cfg.batch, cfg.block_in, cfg.block_out
        image = (z.images, z.groups, z.inputs, self.height, self.width)
        x = te.placeholder((*image, b, bi), "int8", "x")
        w = te.placeholder((z.outputs, z.inputs, bo, bi), "int8", "w")
        lead = (z.images, z.groups, z.outputs)
        rc = te.reduce_axis((0, z.inputs), name="c")
        ri = te.reduce_axis((0, bi), name="i")

        def copied(n, g, c, y, x_, r, o):
            value = x[n, g, rc, y - v.padding, x_ - h.padding, r, ri]
            checks = [at >= axis.padding for axis, at in ((v, y), (h, x_)) if axis.padding]
            if checks:
                value = te.select(te.all_of(*checks), value, te.const(0, "int8"))
            return te.sum(value.astype("int32") * w[c, rc, o, ri].astype("int32"), axis=[rc, ri])

        plane = te.compute((*lead, v.slid, h.slid, b, bo), copied, name="copy")
        work: list[Tensor] = []
        made = plane
        for axis, taps in ((3, v), (4, h)):
            if taps.padding:
                made = _small(made, axis, taps.padding)
                work.append(made)
        for axis, taps in ((3, v), (4, h)):
            for away, results in taps.steps():
                made = _slid(made, axis, away, results)
                work.append(made)
        y = te.compute(made.shape, lambda *i: made[i].astype("int8"), name="y")
        return self._scheduled(cfg, knobs, (x, w, y), [plane], work, rows=True)

    def _scheduled(
        self,
        cfg: Config,
        knobs: PointwiseKnobs,
        args: tuple[Tensor, Tensor, Tensor],
        copies: list[Tensor],
        work: list[Tensor],
        *,
        rows: bool = False,
    ) -> Scheduled:
        """`copies` on the array, `work` on the ALU; results are stored by `rows` or whole tiles."""
        x, w, y = args
        s = create_schedule(y)
        tile = self.frame(cfg, knobs, s, y, rows=rows)
        machine = MachineIntrinsics(cfg)
        for tensor in (*copies, *work):
            s[tensor].set_scope("acc")
            s[tensor].compute_at(s[y], tile)
        for tensor in work:
            s[tensor].pragma(s[tensor].axes[0], "alu")
        for tensor in copies:
            stage = s[tensor]
            rc, ri = stage.reduce_axes
            stage.reorder(rc, *stage.axes, ri)
            stage.tensorize(stage.axes[5], machine.gemm)
        for source, scope in ((x, "inp"), (w, "wgt")):
            near = s.cache_read(source, scope, copies)
            s[near].compute_at(s[y], tile)
            s[near].pragma(s[near].axes[3 if scope == "inp" else 0], "dma_copy")
            if knobs.stages and scope == "inp":
                s[near].double_buffer(knobs.stages)
        return Scheduled(schedule=s, args=args)

    # ---- data ------------------------------------------------------------------------------
    def matrices(self, cfg: Config) -> np.ndarray:
        """The unit matrix."""
        return unit_weights(cfg)[0, :, :, 0, 0]

    def reference(self, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        """By NumPy, one tap at a time."""
        (kh, kw), (sy, sx), (py, px) = self.kernel, self.stride, self.padding
        oh, ow = self.out_shape
        xp = np.pad(arrays["x"], ((0, 0), (0, 0), (py, py), (px, px)), constant_values=-128)
        taps = [
            xp[:, :, ky : ky + (oh - 1) * sy + 1 : sy, kx : kx + (ow - 1) * sx + 1 : sx]
            for ky in range(kh)
            for kx in range(kw)
        ]
        return np.max(taps, axis=0)
