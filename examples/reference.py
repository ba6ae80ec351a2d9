"""What the kernels must compute, in plain NumPy."""

from __future__ import annotations

import numpy as np

__all__ = ["conv2d", "matmul", "requantize"]


def requantize(
    acc: np.ndarray, shift: int, *, bits: int = 8, relu: bool = False, rounding: bool = False
) -> np.ndarray:
    """Shift right arithmetically and clip to `bits`.

    Parameters
    ----------
    acc : np.ndarray
        int64 sums that fit 32 bits.
    shift : int
        0 or more.
    relu : bool
        Clip below at 0.
    rounding : bool
        Add half of the last place first.
    """
    if rounding and shift:
        acc = acc + (1 << (shift - 1))
    low = 0 if relu else -(1 << (bits - 1))
    return np.clip(acc >> shift, low, (1 << (bits - 1)) - 1)


def matmul(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """``(M, K) @ (N, K).T`` as int64. Exact: float64 holds sums of int8 products."""
    return np.rint(a.astype(np.float64) @ b.astype(np.float64).T).astype(np.int64)


def conv2d(x: np.ndarray, w: np.ndarray, *, stride: int = 1, pad: int = 0) -> np.ndarray:
    """``(N, C, H, W)`` with ``(O, C, KH, KW)``: ``(N, O, OH, OW)`` int64."""
    n, _, height, width = x.shape
    outputs, _, kh, kw = w.shape
    oh, ow = (height + 2 * pad - kh) // stride + 1, (width + 2 * pad - kw) // stride + 1
    padded = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    y = np.zeros((n, oh, ow, outputs), np.int64)
    for ky in range(kh):
        for kx in range(kw):
            patch = padded[:, :, ky : ky + oh * stride : stride, kx : kx + ow * stride : stride]
            rows = patch.transpose(0, 2, 3, 1).reshape(-1, x.shape[1])
            y += matmul(rows, w[:, :, ky, kx]).reshape(y.shape)
    return y.transpose(0, 3, 1, 2)
