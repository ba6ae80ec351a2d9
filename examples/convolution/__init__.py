"""A 2-D convolution at the speed of the multiplier array: what it is cut into, and in which order.

Read `kernel` first: it emits the instructions. `layer` and `epilogue` say what is computed,
`geometry` which rows of the image that needs, `tiling` how it is cut, `ring` what the scratchpads
hold, `shadow` and `requantise` what happens beside the multiplications.
"""

from convolution.epilogue import Epilogue
from convolution.kernel import Conv2d
from convolution.layer import LAYERS, Layer
from convolution.tiling import Tiling

__all__ = ["LAYERS", "Conv2d", "Epilogue", "Layer", "Tiling"]
