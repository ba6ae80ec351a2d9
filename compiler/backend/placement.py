"""Where tiles lie: what allocation decides, and later passes read."""

from __future__ import annotations

from dataclasses import dataclass, field

from covta.compiler.backend.ops import Load, Tile

__all__ = ["Placement"]


@dataclass(kw_only=True)
class Placement:
    """Addresses of tiles.

    Parameters
    ----------
    base : dict of Tile to int
        First element of each tile in its scratchpad.
    home : dict of Tile to Tile
        The tile that was loaded in place of one with the same key; of others, themselves.
    dropped : set of Load
        Loads of what is there already.
    after : dict of Tile to int
        By tile of inp and wgt, the last operation of the trace that reads what the tile overwrites;
        -1 if none does.
    resident : set of Tile
        Tiles of acc that are loaded once, whose room nothing else uses.
    bank_elems : int
        Elements of a bank of acc.
    """

    bank_elems: int
    base: dict[Tile, int] = field(default_factory=dict)
    home: dict[Tile, Tile] = field(default_factory=dict)
    dropped: set[Load] = field(default_factory=set)
    after: dict[Tile, int] = field(default_factory=dict)
    resident: set[Tile] = field(default_factory=set)

    def put(self, tile: Tile, base: int, *, home: Tile | None = None, after: int = -1) -> None:
        """Place a tile."""
        assert tile not in self.base, tile
        self.base[tile] = base
        self.home[tile] = home or tile
        self.after[tile] = after

    @property
    def loaded_elems(self) -> int:
        """Elements of the tiles that are not others'."""
        return sum(tile.elems for tile, home in self.home.items() if tile is home)

    def update(self, other: Placement) -> None:
        """Take over tiles that `other` places."""
        self.base |= other.base
        self.home |= other.home
        self.after |= other.after

    def banks(self, tile: Tile) -> int:
        """Mask of the banks of acc in which an acc tile lies."""
        begin = self.base[tile]
        end = begin + tile.elems
        return (begin < self.bank_elems) | (end > self.bank_elems) << 1

    def __str__(self) -> str:
        lines = []
        for tile, base in self.base.items():
            end = base + tile.elems
            shared = "" if self.home[tile] is tile else f"  as {self.home[tile]}"
            lines.append(f"{tile.scope}[{base}:{end}] {tile}{shared}")
        return "\n".join([*lines, f"{len(self.dropped)} loads dropped"])
