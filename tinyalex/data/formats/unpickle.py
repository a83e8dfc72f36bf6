"""Read pickles of plain values and NumPy arrays, such as CIFAR-10's, without running any code.

A pickle names functions to be called when it is loaded. Here only the three names that NumPy writes
are known, and each stands for a class of ours that keeps what it is given; every other is refused.
"""

import io
from typing import Any

import numpy as np

from tinyalex.system.unpickling import Refused, Unpickler


class _Array:
    """Stand-in for a NumPy array until its state is known."""

    def __init__(self, *arguments: object) -> None:
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Type(_Array):
    """Stand-in for a dtype. code: such as u1."""

    def __init__(self, code: Any, *rest: object) -> None:
        super().__init__()
        self.code = code


_KNOWN = {
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Type,
}


def unpickled(data: bytes) -> dict[bytes, Any]:
    """The dictionary in a pickle of Python 2; arrays in it must be of uint8.

    Raises ValueError for whatever else it holds, or if it is damaged.
    """
    try:
        values = Unpickler(io.BytesIO(data), _KNOWN, encoding="bytes").load()
        return {key: _value(value) for key, value in values.items()}
    except Refused as refused:
        raise ValueError(f"it asks for {refused}, which no data needs") from None
    except ValueError:
        raise
    except Exception as cause:  # damaged bytes surface from pickle as almost anything
        raise ValueError(f"damaged ({type(cause).__name__})") from cause


def _value(value: Any) -> Any:
    if not isinstance(value, _Array):
        return value
    _, shape, kind, _, content = value.state
    if kind.code not in (b"u1", "u1"):
        raise ValueError(f"its numbers are {kind.code!r}, not uint8")
    return np.frombuffer(content, np.uint8).reshape(shape)
