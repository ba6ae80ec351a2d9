"""Operators with schedule templates: what to compute, the knobs of how, and a default for them.

>>> from covta.compiler.ops import Conv2d, compile_operator
>>> layer = Conv2d(in_channels=64, out_channels=64, height=56, width=56, kernel=3, padding=1)
>>> compiled = compile_operator(load_config("edge"), layer)
"""

from covta.compiler.ops.compile import Compiled, compile_operator
from covta.compiler.ops.conv2d import Conv2d, Conv2dKnobs
from covta.compiler.ops.operator import Operator, OperatorError, Scheduled
from covta.compiler.ops.requantize import Requantize
from covta.compiler.ops.space import Space

__all__ = [
    "Compiled",
    "Conv2d",
    "Conv2dKnobs",
    "Operator",
    "OperatorError",
    "Requantize",
    "Scheduled",
    "Space",
    "compile_operator",
]
