"""Tensor intrinsics: what the hardware does in one go, declared by its owner.

`decl_tensor_intrin` takes the behaviour as a tensor expression and a rule that lowers it; the
machine's own are in `machine`, made from its configuration.
"""

from covta.compiler.intrin.machine import MachineIntrinsics
from covta.compiler.intrin.tensor_intrin import (
    IntrinCall,
    TensorIntrin,
    decl_tensor_intrin,
    intrin_call,
)

__all__ = [
    "IntrinCall",
    "MachineIntrinsics",
    "TensorIntrin",
    "decl_tensor_intrin",
    "intrin_call",
]
