"""Writing kernels by hand: buffers, instructions, micro-ops and tokens become a program."""

from covta.runtime.builder.builder import Builder
from covta.runtime.builder.contents import with_contents
from covta.runtime.builder.errors import BuildError
from covta.runtime.builder.insn import Insn, Loop, Token
from covta.runtime.builder.memory import Buffer, Range

__all__ = ["Buffer", "BuildError", "Builder", "Insn", "Loop", "Range", "Token", "with_contents"]
