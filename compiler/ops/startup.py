"""What a windowed sum loses at least at its start, while little of what it needs is loaded.

A product needs its input and its weight, a result all the weights of its channel and the inputs
below its window. So what can be done by any moment is bounded by what the bus can have brought by
then, and the rest still has to be done after it: however a program is ordered, the array (or the
store) is idle for the difference. As in `covta.compiler.ops.traffic`, sums never leave acc before
they are complete.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["Start", "array_idle_cycles", "write_idle_cycles"]

MOMENTS = 512
"""Moments at which the bound is taken; the best of them counts, and each by itself holds."""

SHARES = 512
"""Intervals for the least that is done of an input block, shorter where that is little."""


@dataclass(frozen=True, kw_only=True)
class Start:
    """Sizes that a bound depends on.

    Parameters
    ----------
    inputs, outputs : int
        Channel blocks.
    places, out_places : int
        Elements of the input, and of the output, of one channel block, all images together.
    taps : int
        Weights from one channel block to another.
    most_taps, least_taps : int
        Of an output, that meet the image.
    common_tap : bool
        Whether a tap meets the image at every place, so that every place needs an input of its own.
    products : float
        That have to be done: cycles of the array.
    input_beats, weight_beats, vector_beats, output_beats : float
        Cycles of the bus for an element; of vectors, all those of an output channel block.
    acc_depth : int
        Elements of acc.
    """

    inputs: int
    outputs: int
    places: int
    out_places: int
    taps: int
    most_taps: int
    least_taps: int
    common_tap: bool
    products: float
    input_beats: float
    weight_beats: float
    vector_beats: float
    output_beats: float
    acc_depth: int


def _load_cycles(s: Start, products: np.ndarray) -> np.ndarray:
    """Cycles to load what so many products of one input block need at least.

    Of `v` weights and `u` inputs there are at most `v * u` products; what is in short supply is
    loaded whole.
    """
    a, b = s.weight_beats, s.input_beats
    most_v, most_u = s.outputs * s.taps, s.places
    v = np.clip(np.sqrt(b * products / a), products / most_u, most_v)
    return np.where(products > 0, a * v + b * products / np.maximum(v, 1e-300), 0.0)


def _loaded_products(s: Start, cycles: np.ndarray) -> np.ndarray:
    """Most products of one input block whose needs load in so many cycles; not more than exist."""
    a, b = s.weight_beats, s.input_beats
    most_v, most_u = s.outputs * s.taps, s.places
    v = np.clip(cycles / (2 * a), 0, most_v)  # half of the cycles for weights
    u = (cycles - a * v) / b
    u = np.minimum(u, most_u)
    v = np.minimum((cycles - b * u) / a, most_v)
    return np.minimum(v * u, s.products / s.inputs)


def _moments(last: float) -> np.ndarray:
    """Moments up to the last, more of them where little has been loaded."""
    return np.geomspace(min(1.0, last), last, MOMENTS)


def _most_idle(moments: np.ndarray, done: np.ndarray, whole: float) -> float:
    """Greatest difference of moments and what can be done by then, as long as work is left."""
    idle = np.where(done < whole * (1 - 1e-9), moments - done, 0.0)
    return float(idle.max(initial=0.0))


def array_idle_cycles(s: Start) -> float:
    """Cycles in which the array has nothing to do, whatever the order of the work.

    Let ``m`` be the least number of products done of any input block by cycle ``t``. At most
    ``m / least_taps`` outputs are complete, the others have their sums in acc; so of each input
    block at most ``most_taps * (acc_depth + m / least_taps)`` products are done. What has to be
    loaded is concave in the products of a block, so the least to load for a number of products lies
    where all blocks but one are at ``m`` or at that limit.
    """
    n, whole = s.inputs, s.products / s.inputs
    if not whole:
        return 0.0
    shares = np.concatenate(([0.0], np.geomspace(min(1.0, whole), whole, SHARES)))
    low, high = shares[:-1], shares[1:]  # m is between them: costs by the one, limits by the other
    limit = np.full(SHARES, whole)
    if s.least_taps:
        limit = np.minimum(whole, s.most_taps * (s.acc_depth + high / s.least_taps))
    limit = np.maximum(limit, low)
    low_cycles, high_cycles = _load_cycles(s, low), _load_cycles(s, limit)
    everything = n * float(_load_cycles(s, np.array([whole]))[0])
    moments = _moments(everything)
    spare = moments[:, None] - n * low_cycles
    step = np.maximum(high_cycles - low_cycles, 1e-9)
    blocks = np.clip(np.floor(spare / step), 0, n)
    rest = np.clip(_loaded_products(s, low_cycles + spare - blocks * step), low, limit)
    done = blocks * limit + np.maximum(0, n - blocks - 1) * low + np.where(blocks < n, rest, 0)
    most = np.where(spare >= 0, done, 0).max(axis=1)
    return _most_idle(moments, most, s.products)


def write_idle_cycles(s: Start) -> float:
    """Cycles in which nothing can be stored, for no result is there yet, whatever the order.

    Results of ``c`` channel blocks at ``p`` places need all weights of those channels that meet the
    image, their vectors, and an input block of its own for each place.
    """
    channel = s.inputs * s.least_taps * s.weight_beats + s.vector_beats
    place = s.inputs * s.input_beats
    if not s.common_tap or not channel:
        return 0.0
    moments = _moments(s.outputs * channel + s.out_places * place)
    channels = np.clip(moments / (2 * channel), 0, s.outputs)
    places = np.minimum((moments - channels * channel) / place, s.out_places)
    channels = np.minimum((moments - places * place) / channel, s.outputs)
    results = s.outputs * s.out_places
    return _most_idle(moments, channels * places * s.output_beats, results * s.output_beats)
