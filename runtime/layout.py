"""Tensors as the machine's memory holds them: tiled into elements, packed into bytes.

Scratchpads and DRAM are addressed in *elements*, small tensors whose shapes the configuration
fixes. A matrix or an image is cut into such elements, zero-padded at its edges, and each element is
stored row-major, lowest lane first. Everything here is NumPy in, NumPy out; nothing knows of
instructions.

=============== ============================ =======================================
tensor          shape                        tiled shape
=============== ============================ =======================================
matrix          ``(R, C)``                   ``(R/r, C/c, r, c)``
activation      ``(N, C, H, W)``             ``(N/b, C/c, H, W, b, c)``
kernel          ``(O, I, KH, KW)``           ``(O/o, I/i, KH, KW, o, i)``
bias            ``(O,)``                     ``(O/o, b, o)``, repeated over the batch
=============== ============================ =======================================
"""

from __future__ import annotations

import numpy as np

__all__ = [
    "LayoutError",
    "from_bytes",
    "tile_activation",
    "tile_bias",
    "tile_kernel",
    "tile_matrix",
    "to_bytes",
    "untile_activation",
    "untile_matrix",
]


class LayoutError(ValueError):
    """A tensor that does not fit the layout asked for."""


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise LayoutError(message)


def _pad(array: np.ndarray, multiples: dict[int, int]) -> np.ndarray:
    """Append zeros until each named axis is a multiple of its number."""
    widths = [(0, -array.shape[axis] % multiples.get(axis, 1)) for axis in range(array.ndim)]
    return np.pad(array, widths) if any(after for _, after in widths) else array


def tile_matrix(matrix: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Cut ``(R, C)`` into ``(R/rows, C/columns, rows, columns)``, zero-padded."""
    _require(matrix.ndim == 2, f"matrix must have 2 axes, got shape {matrix.shape}")
    m = _pad(matrix, {0: rows, 1: columns})
    return (
        m.reshape(m.shape[0] // rows, rows, m.shape[1] // columns, columns)
        .transpose(0, 2, 1, 3)
        .copy()
    )


def untile_matrix(tiles: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Invert `tile_matrix`; `shape` cuts the padding off."""
    _require(tiles.ndim == 4, f"tiles must have 4 axes, got shape {tiles.shape}")
    a, b, rows, columns = tiles.shape
    _require(
        shape[0] <= a * rows and shape[1] <= b * columns,
        f"shape must fit {a * rows} x {b * columns}, got {shape[0]} x {shape[1]}",
    )
    whole = tiles.transpose(0, 2, 1, 3).reshape(a * rows, b * columns)
    return whole[: shape[0], : shape[1]].copy()


def tile_activation(x: np.ndarray, batch: int, channels: int) -> np.ndarray:
    """Cut ``(N, C, H, W)`` into ``(N/batch, C/channels, H, W, batch, channels)``, zero-padded."""
    _require(x.ndim == 4, f"activation must have 4 axes, got shape {x.shape}")
    x = _pad(x, {0: batch, 1: channels})
    n, c, h, w = x.shape
    return (
        x.reshape(n // batch, batch, c // channels, channels, h, w)
        .transpose(0, 2, 4, 5, 1, 3)
        .copy()
    )


def untile_activation(tiles: np.ndarray, images: int, channels: int) -> np.ndarray:
    """Invert `tile_activation`; `images` and `channels` cut the padding off."""
    _require(tiles.ndim == 6, f"tiles must have 6 axes, got shape {tiles.shape}")
    n, c, h, w, batch, block = tiles.shape
    _require(
        images <= n * batch and channels <= c * block,
        f"images, channels must fit {n * batch}, {c * block}, got {images}, {channels}",
    )
    whole = tiles.transpose(0, 4, 1, 5, 2, 3).reshape(n * batch, c * block, h, w)
    return whole[:images, :channels].copy()


def tile_kernel(w: np.ndarray, outputs: int, inputs: int) -> np.ndarray:
    """Cut ``(O, I, KH, KW)`` into ``(O/outputs, I/inputs, KH, KW, outputs, inputs)``,
    zero-padded."""
    _require(w.ndim == 4, f"kernel must have 4 axes, got shape {w.shape}")
    w = _pad(w, {0: outputs, 1: inputs})
    o, i, kh, kw = w.shape
    return (
        w.reshape(o // outputs, outputs, i // inputs, inputs, kh, kw)
        .transpose(0, 2, 4, 5, 1, 3)
        .copy()
    )


def tile_bias(bias: np.ndarray, batch: int, outputs: int) -> np.ndarray:
    """Cut ``(O,)`` into ``(O/outputs, batch, outputs)``: each accumulator row sees its own copy."""
    _require(bias.ndim == 1, f"bias must have 1 axis, got shape {bias.shape}")
    b = _pad(bias, {0: outputs}).reshape(-1, 1, outputs)
    return np.repeat(b, batch, axis=1)


def to_bytes(values: np.ndarray, bits: int) -> np.ndarray:
    """Pack two's complement integers of `bits` bits, lowest lane in the lowest bits.

    Parameters
    ----------
    values : np.ndarray
        Integers; their last axis packs to whole bytes.
    bits : int
        2, 4, 8, 16 or 32.

    Returns
    -------
    np.ndarray
        uint8, the last axis ``bits / 8`` times as long.

    Raises
    ------
    LayoutError
        If a value does not fit, or the last axis does not fill bytes.
    """
    _require(bits in (2, 4, 8, 16, 32), f"bits must be 2, 4, 8, 16 or 32, got {bits}")
    _require(
        np.issubdtype(values.dtype, np.integer), f"values must be integers, got {values.dtype}"
    )
    low, high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    if values.size:
        least, greatest = int(values.min()), int(values.max())
        _require(
            low <= least and greatest <= high,
            f"values must lie in {low} ... {high} ({bits} bits), got {least} ... {greatest}",
        )
    if bits >= 8:
        typed = np.ascontiguousarray(values, dtype=f"<i{bits // 8}")
        return typed.view(np.uint8)
    lanes = 8 // bits
    _require(
        values.shape[-1] % lanes == 0,
        f"the last axis must be a multiple of {lanes} at {bits} bits, got {values.shape[-1]}",
    )
    groups = (values.astype(np.int64) & ((1 << bits) - 1)).reshape(*values.shape[:-1], -1, lanes)
    return (groups << (np.arange(lanes) * bits)).sum(axis=-1).astype(np.uint8)


def from_bytes(data: np.ndarray, bits: int, shape: tuple[int, ...]) -> np.ndarray:
    """Invert `to_bytes`: sign-extended integers of `shape` (int8, int16 or int32)."""
    _require(bits in (2, 4, 8, 16, 32), f"bits must be 2, 4, 8, 16 or 32, got {bits}")
    size_bytes = int(np.prod(shape)) * bits // 8
    _require(
        data.size == size_bytes, f"{shape} of {bits} bits is {size_bytes} bytes, got {data.size}"
    )
    flat = np.ascontiguousarray(data, np.uint8).reshape(-1)
    if bits >= 8:
        return flat.view(f"<i{bits // 8}").reshape(shape).copy()
    lanes = 8 // bits
    values = (flat[:, None].astype(np.int16) >> (np.arange(lanes) * bits)) & ((1 << bits) - 1)
    sign = 1 << (bits - 1)
    return ((values ^ sign) - sign).astype(np.int8).reshape(shape)
