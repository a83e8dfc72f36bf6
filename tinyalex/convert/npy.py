"""bvlc_alexnet.npy: a pickled dictionary of layers in NumPy's file, as caffe-tensorflow wrote it.

{"conv1": [weights, bias], ...}, by Python 2 or 3.
"""

import io
from pathlib import Path

import numpy as np

from tinyalex.convert.tensors import Contents, Tensor
from tinyalex.errors import CheckpointError
from tinyalex.system.arrays import Array
from tinyalex.system.unpickling import NUMPY, Pickled, Refused, Unpickler

MAGIC = b"\x93NUMPY"
FILE_BYTES = 2**31  # the numbers stand in the pickle, so that all of it is in memory at once


KNOWN = NUMPY | {("_codecs", "encode"): lambda text, encoding: text.encode("latin1")}


def _tensor(array: Pickled) -> Tensor:
    """The array that `array` stands in for; of a dtype that is no number's, reading it raises."""
    _, shape, dtype, fortran, raw = array.state

    def numbers() -> Array:
        code, order = dtype.arguments[0], dtype.state[1]
        if code not in ("f2", "f4", "f8"):
            raise ValueError(f"it has an array of {code}, where numbers are expected")
        data = raw if isinstance(raw, bytes) else raw.encode("latin1")
        flat = np.frombuffer(data, (order if order in ("<", ">") else "|") + code)
        return flat.reshape(shape[::-1]).T if fortran else flat.reshape(shape)

    return Tensor(shape, numbers)


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
    (layers,) = outside.state[-1]
    tensors: dict[str, Tensor] = {}
    for name, (weight, bias) in layers.items():
        tensors |= {f"{name}.weight": _tensor(weight), f"{name}.bias": _tensor(bias)}
    return Contents(tensors)
