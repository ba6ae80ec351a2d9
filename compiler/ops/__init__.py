"""Operators with schedule templates: what to compute, the knobs of how, and a default for them.

>>> from covta.compiler.ops import Conv2d, compile_operator
>>> layer = Conv2d(in_channels=64, out_channels=64, height=56, width=56, kernel=3, padding=1)
>>> compiled = compile_operator(load_config("edge"), layer)
"""

from covta.compiler.ops.average import AveragePool2d, GlobalAveragePool2d
from covta.compiler.ops.compile import Compiled, compile_operator
from covta.compiler.ops.conv2d import Conv2d, Conv2dKnobs
from covta.compiler.ops.elementwise import Elementwise, LeakyRelu, Requantization, ResidualAdd
from covta.compiler.ops.grouped import BatchNorm, DepthwiseConv2d, GroupedConv2d
from covta.compiler.ops.matmul import BatchMatmul, Dense
from covta.compiler.ops.maxpool import MaxPool2d
from covta.compiler.ops.operator import Operator, OperatorError, Scheduled
from covta.compiler.ops.requantize import Requantize
from covta.compiler.ops.space import Space
from covta.compiler.ops.transposed import TransposedConv2d

__all__ = [
    "AveragePool2d",
    "BatchMatmul",
    "BatchNorm",
    "Compiled",
    "Conv2d",
    "Conv2dKnobs",
    "Dense",
    "DepthwiseConv2d",
    "Elementwise",
    "GlobalAveragePool2d",
    "GroupedConv2d",
    "LeakyRelu",
    "MaxPool2d",
    "Operator",
    "OperatorError",
    "Requantization",
    "Requantize",
    "ResidualAdd",
    "Scheduled",
    "Space",
    "TransposedConv2d",
    "compile_operator",
]
