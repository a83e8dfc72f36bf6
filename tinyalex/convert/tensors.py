"""Contents of another program's file, before its numbers are read."""

import math
import mmap
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tinyalex.net.layers import Row
from tinyalex.system.arrays import Array

BFLOAT16 = "bfloat16"  # the upper half of a float32, which NumPy has no dtype for


class NotAChain(Exception):
    """A layer, or a node of a graph, that has no row. where: of which file this is said."""

    where = "describes a network"


@dataclass(frozen=True)
class Tensor:
    """A tensor in a file.

    shape: as it is there. numbers: reads it, an array of any real dtype and of this shape.
    """

    shape: tuple[int, ...]
    numbers: Callable[[], Array]


@dataclass(frozen=True)
class Contents:
    """A file as its reader understands it.

    tensors: by the file's names; where there are `rows`,
    `NAME.weight` and `NAME.bias` of each row, a weight of ndim 2 as (outputs, inputs).
    rows: the network, where the file describes it, `Augment` first; else empty.
    mean, scale: what the network itself subtracts from its input, (H, W, 3), and multiplies it by,
    (3,), channels in the order of its input.
    metadata: what tinyalex wrote beside the numbers. notes: what the user should know.
    """

    tensors: Mapping[str, Tensor]
    rows: tuple[Row, ...] = ()
    mean: Array | None = None
    scale: Array | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def mapped(path: Path) -> memoryview:
    """The bytes of a file, read when they are looked at."""
    with open(path, "rb") as file:
        if not file.seek(0, 2):
            raise ValueError("it is empty")
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def stored(data: memoryview, dtype: str, shape: tuple[int, ...]) -> Tensor:
    """A tensor whose numbers lie in `data`, in C order and of a little-endian dtype.

    Raises ValueError unless `data` has as many bytes as that takes.
    """
    if min((0, *shape)) < 0 or itemsize(dtype) * math.prod(shape) != len(data):
        raise ValueError(f"{len(data):,} bytes are no {dtype} tensor of shape {shape}")
    return Tensor(shape, lambda: numbers(data, dtype).reshape(shape))


def itemsize(dtype: str) -> int:
    """Bytes of a number."""
    return 2 if dtype == BFLOAT16 else np.dtype(dtype).itemsize


def numbers(data: memoryview | bytes, dtype: str) -> Array:
    """The numbers in `data`, flat."""
    if dtype == BFLOAT16:
        return (np.frombuffer(data, "<u2").astype("<u4") << 16).view("<f4")
    return np.frombuffer(data, dtype)
