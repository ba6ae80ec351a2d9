"""What follows the sums: requantise, store, zero for the next; all in the array's shadow."""

from __future__ import annotations

from convolution.epilogue import Epilogue
from convolution.geometry import Tile
from convolution.shadow import Shadow
from covta.hw.isa import AluOp
from covta.runtime.builder import Buffer, Builder, Loop

__all__ = ["Requantise"]

STORE_LATENCY_CYCLES = 160
"""What a store may take beside its beats, as the schedule assumes."""

LOAD_LATENCY_CYCLES = 1200
"""What the compute unit's load may wait for bursts of the load unit that were asked for before."""

ALU_START_CYCLES = 8
"""What an ALU instruction takes beside its operations, as the schedule assumes."""


class Requantise:
    """Queues a tile's way from its sums in one half of acc to DRAM.

    Parameters
    ----------
    b : Builder
    y : Buffer
        OUT, ``(N/batch, O/block_out, OH, OW)`` elements.
    bias : Buffer or None
        ACC, ``(O/block_out,)`` elements; they lie at the start of each half.
    epilogue : Epilogue
    shadow : Shadow
    """

    def __init__(
        self, b: Builder, y: Buffer, bias: Buffer | None, *, epilogue: Epilogue, shadow: Shadow
    ) -> None:
        self.b, self.y, self.bias = b, y, bias
        self.epilogue, self.shadow = epilogue, shadow
        self.cfg = b.cfg
        self.co_blocks, self.out = y.shape[1], y.shape[2]
        halves = b.acc.halves()
        self.bias_at = [half.base for half in halves]
        self.sums_at = [half.base + (self.co_blocks if bias else 0) for half in halves]
        self.clean = [0, 0]  # elements of each half that hold clipped values
        self.stored_at = [0, 0]

    def finish(self, tile: Tile, half: int, following: Tile | None, *, load_bias: bool) -> None:
        """Queue it for a tile, and zero the sums of the tile after the next."""
        b, e, shadow = self.b, self.epilogue, self.shadow
        elems = tile.rows * self.out * tile.cos
        sums = b.acc.at(self.sums_at[half], elems)
        now = shadow.clock + ALU_START_CYCLES

        def alu(op: AluOp, imm: int) -> None:
            shadow.add(
                lambda: b.alu(op, sums, imm=imm),
                cost=elems + ALU_START_CYCLES,
                half=half,
                ready_at=lambda: now,
            )

        if self.bias is not None:
            self._bias(tile, half, now, load=load_bias)
        elif e.rounding and e.shift and not e.use_rqt:
            alu(AluOp.ADD, 1 << (e.shift - 1))
        high = (1 << (self.cfg.out_bits - 1)) - 1
        if e.use_rqt:
            alu(AluOp.RQT, e.rqt_imm)
        else:
            if e.shift:
                alu(AluOp.SHR, e.shift)
            alu(AluOp.MAX, 0 if e.relu else -high - 1)
            alu(AluOp.MIN, high)
        shadow.add(lambda: self._store(tile, sums.base, half), cost=0, half=half)
        self.clean[half] = max(self.clean[half], elems)
        if following is not None:
            self.zero(half, following)

    def _bias(self, tile: Tile, half: int, now: int, *, load: bool) -> None:
        """Add each channel's bias, brought into the half once."""
        b, pixels = self.b, tile.rows * self.out
        at = self.bias_at[half]
        if load:
            assert self.bias is not None
            beats = self.co_blocks * self.cfg.acc_elem_bytes // self.cfg.bus_bytes
            bias, count = self.bias, self.co_blocks
            self.shadow.add(
                lambda: b.load(at, bias, x_size=count),
                cost=beats + LOAD_LATENCY_CYCLES,
                half=half,
                ready_at=lambda: now,
            )
        self.shadow.add(
            lambda: b.alu(
                AluOp.ADD,
                [self.sums_at[half]],
                [at + tile.co],
                outer=Loop(count=tile.cos, dst=pixels, src=1),
                inner=Loop(count=pixels, dst=1),
            ),
            cost=(pixels + 1) * tile.cos + ALU_START_CYCLES,
            half=half,
            ready_at=lambda: now,
        )

    def _store(self, tile: Tile, base: int, half: int) -> None:
        # The token for it comes once everything before it in the compute queue is complete.
        begin = max(self.shadow.free_at, self.shadow.clock)
        beats = tile.rows * self.out * tile.cos * self.cfg.out_elem_bytes // self.cfg.bus_bytes
        self.stored_at[half] = begin + beats + STORE_LATENCY_CYCLES
        self.b.store(
            base,
            self.y,
            self.y.index(tile.image, tile.co, tile.row, 0),
            y_size=tile.cos,
            x_size=tile.rows * self.out,
            x_stride=self.out * self.out,
        )

    def zero(self, half: int, tile: Tile) -> None:
        """Two operations zero anything: the lesser of it and 0, then the greater. One will do
        where nothing is negative, as after ReLU."""
        elems = tile.rows * self.out * tile.cos
        sums = self.b.acc.at(self.sums_at[half], elems)
        ops = [AluOp.MIN, AluOp.MAX]
        if self.epilogue.relu and elems <= self.clean[half]:
            ops = [AluOp.MIN]
        for op in ops:
            self.shadow.add(
                lambda op=op: self.b.alu(op, sums, imm=0),
                cost=elems + ALU_START_CYCLES,
                half=half,
                ready_at=lambda: self.stored_at[half],
            )
