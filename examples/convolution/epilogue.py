"""What happens to a convolution's sums."""

from __future__ import annotations

from dataclasses import dataclass

from covta.runtime.builder import BuildError

__all__ = ["Epilogue"]


@dataclass(frozen=True, kw_only=True)
class Epilogue:
    """What happens to the sums: ``clip((acc + bias) >> shift)``.

    Parameters
    ----------
    shift : int
    relu : bool
        Clip below at 0.
    rounding : bool
        Add half of the last place before the shift.
    use_rqt : bool
        One RQT instruction (extension *requantize*) for rounding, shift and clip.
    """

    shift: int = 8
    relu: bool = True
    rounding: bool = False
    use_rqt: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.shift <= 31:
            raise BuildError(f"shift must be from 0 to 31, got {self.shift}")

    @property
    def rqt_imm(self) -> int:
        """Operand of RQT: shift in bits 4:0, rounding in bit 5, ReLU in bit 6."""
        return self.shift | self.rounding << 5 | self.relu << 6
