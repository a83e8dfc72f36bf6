"""The definition: every layer forward and backward in NumPy, each beside its formula.

Activations are (N, H, W, C), weights (O, kh, kw, C/groups). Each function follows the dtype of its
input, so that float64 gives the truth and float32 what a run computes.
`tinyalex.backend.Backend` is the contract that this module satisfies.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from tinyalex.reference.activation import (
    dropout,
    dropout_backward,
    relu,
    relu_backward,
    tanh,
    tanh_backward,
)
from tinyalex.reference.augment import augment
from tinyalex.reference.conv import conv2d, conv2d_backward
from tinyalex.reference.linear import linear, linear_backward
from tinyalex.reference.loss import softmax_cross_entropy, softmax_cross_entropy_backward
from tinyalex.reference.lrn import lrn, lrn_backward, lrn_map, lrn_map_backward
from tinyalex.reference.pool import avg_pool, avg_pool_backward, max_pool, max_pool_backward
from tinyalex.reference.sgd import sgd_update
from tinyalex.system.arrays import Array

name = "reference"
fusions: dict[tuple[str, ...], tuple[object, object]] = {}
to_numpy = upload = np.asarray
host_empty = np.empty


def asarray(a: npt.ArrayLike, role: str = "both") -> Array:
    """The array itself, in rows, so that sgd_update can see it flat. All is on one device."""
    return np.ascontiguousarray(a)


def download(*arrays: Array) -> Callable[[], tuple[Array, ...]]:
    """The arrays, which are here already."""
    return lambda: arrays


def synchronize() -> None:
    """NumPy has finished when it returns."""
