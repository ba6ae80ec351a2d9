"""What is read by tiles whose inputs come row by row, and stay as far as there is room.

Tiles go down the image, strip by strip; so they share rows with the one before. The back end keeps
what is needed again soonest (`covta.compiler.backend.cache`).
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Lines", "overlap"]


def overlap(
    out: int, tile: int, size: int, kernel: int, stride: int, padding: int, dilation: int
) -> tuple[int, int]:
    """Rows (columns) that all tiles of one axis read together: each its own; those in the tile
    before only once."""
    total = once = end = 0
    for begin in range(0, out, tile):
        last = min(out, begin + tile) - 1
        low = max(0, begin * stride - padding)
        high = max(low, min(size, last * stride - padding + dilation * (kernel - 1) + 1))
        total += high - low
        once += high - max(low, min(high, end))
        end = high
    return total, once


@dataclass(frozen=True, kw_only=True)
class Lines:
    """Elements that a whole layer loads.

    Parameters
    ----------
    inputs, new_inputs : float
        Of one place, on the average: all of them, and those that the place before does not have.
    weights : float
        Of one channel tile.
    places, across : int
        Tiles of the image, and of the output channels.
    inp_room, wgt_room : float
        Elements that a scratchpad keeps while others are loaded.
    channels_first : bool
        Go through all channel tiles before the next place.
    """

    inputs: float
    new_inputs: float
    weights: float
    places: int
    across: int
    inp_room: float
    wgt_room: float
    channels_first: bool

    def loaded(self) -> tuple[float, float]:
        """Inputs and weights."""
        shared = min(self.inputs - self.new_inputs, self.inp_room)
        place = self.inputs - shared
        if self.channels_first:
            again = (self.across - 1) * max(0.0, self.inputs - self.inp_room)
            weights = self.across * self.weights
            return (
                self.places * (place + again),
                weights + (self.places - 1) * max(0.0, weights - self.wgt_room),
            )
        image = self.places * place
        again = (self.places - 1) * max(0.0, self.weights - self.wgt_room)
        return (
            image + (self.across - 1) * max(0.0, image - self.inp_room),
            self.across * (self.weights + again),
        )
