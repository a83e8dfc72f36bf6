"""bvlc_alexnet.npy: a pickled dictionary of layers in NumPy's file, as caffe-tensorflow wrote it.

{"conv1": [weights, bias], ...}, by Python 2 or 3. The same unpickler as for PyTorch's files reads
it, with NumPy's names in place of PyTorch's.
"""

import io
from pathlib import Path
from typing import Any

import numpy as np

from tinyalex.convert.tensors import Contents, Tensor
from tinyalex.errors import CheckpointError
from tinyalex.system.arrays import Array
from tinyalex.system.unpickling import Refused, Unpickler

MAGIC = b"\x93NUMPY"
FILE_BYTES = 2**31  # the numbers stand in the pickle, so that all of it is in memory at once


class Dtype:
    """numpy.dtype, of which only numbers are let through."""

    def __init__(self, code: str, *rest: Any) -> None:
        self.code = code

    def __setstate__(self, state: Any) -> None:
        self.order = state[1] if state[1] in ("<", ">") else "|"

    @property
    def dtype(self) -> np.dtype[Any]:
        if self.code not in ("f2", "f4", "f8"):
            raise ValueError(f"it has an array of {self.code}, where numbers are expected")
        return np.dtype(self.order + self.code)


class Pickled:
    """numpy.ndarray: either numbers, or the one object that the dictionary is."""

    def __setstate__(self, state: Any) -> None:
        _, self.shape, self.dtype, self.fortran, self.raw = state

    def tensor(self) -> Tensor:
        return Tensor(self.shape, self._numbers)

    def _numbers(self) -> Array:
        raw = self.raw if isinstance(self.raw, bytes) else self.raw.encode("latin1")
        flat = np.frombuffer(raw, self.dtype.dtype)
        return flat.reshape(self.shape[::-1]).T if self.fortran else flat.reshape(self.shape)


KNOWN = {
    **{
        (f"numpy.{core}.multiarray", "_reconstruct"): lambda *arguments: Pickled()
        for core in ("core", "_core")
    },
    ("numpy", "ndarray"): Pickled,
    ("numpy", "dtype"): Dtype,
    ("_codecs", "encode"): lambda text, encoding: text.encode("latin1"),
}


def read(path: Path) -> Contents:
    """The layers of a file. Raises CheckpointError if it is no dictionary of arrays; else whatever
    damaged bytes come to.
    """
    if path.stat().st_size > FILE_BYTES:
        raise ValueError(f"it is larger than {FILE_BYTES:,} bytes")
    file = io.BytesIO(path.read_bytes())
    np.lib.format.read_magic(file)
    _, _, dtype = np.lib.format.read_array_header_1_0(file)
    if not dtype.hasobject:
        raise CheckpointError(
            f"{path} holds one array, {dtype}, and no network. If it is a mean image, give it with "
            "--mean."
        )
    try:
        outside = Unpickler(file, KNOWN).load()
    except Refused as error:
        raise CheckpointError(
            f"{path} holds more than arrays, {error}, and is not read: unpickling it could run any "
            'code. Save a dictionary of arrays, {"conv1": [weights, bias], ...}, with numpy.save.'
        ) from None
    (layers,) = outside.raw
    tensors: dict[str, Tensor] = {}
    for name, (weight, bias) in layers.items():
        tensors |= {f"{name}.weight": weight.tensor(), f"{name}.bias": bias.tensor()}
    return Contents(tensors)
