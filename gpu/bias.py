"""Bias after the product of a linear layer, with or without a ReLU.

Forward, one thread per element of y, in place, once the product is there. Backward, one thread per
(run of 128 rows, channel) leaves a partial sum, and again over the partial sums, until one row is
left. Nothing is added atomically, so a run repeats bit for bit.
"""

from __future__ import annotations

from typing import Any

from numpy import float32

from tinyalex.gpu.device import Array, check_gradient, empty, inline, span, split
from tinyalex.gpu.launch import Count, Floats, kernel

RUN = 128  # rows that one thread adds up: a batch as in 2012, in one pass


@kernel
def bias_kernel(i: int, y: Floats, b: Floats, channels: int) -> None:
    y[i] += b[split(i, channels)[1]]


def add_bias(y: Array, b: Array) -> None:
    """y += b, in place. y: (..., O). b: (O,)."""
    bias_kernel(y.size, y, b, y.shape[-1])


@kernel
def sums_kernel(i: int, x: Floats, sums: Floats, rows: Count, channels: int) -> None:
    run, c = split(i, channels)
    total = float32(0)
    for row in span(run * RUN, min(rows, run * RUN + RUN)):
        total += x[row * channels + c]
    sums[i] = total


def bias_gradient(dy: Array) -> Array:
    """db = sum of dy over all but its last axis. dy: (..., O). db: (O,)."""
    sums = _empty_sums(dy)
    sums_kernel(sums.size, dy, sums, dy.size // dy.shape[-1], dy.shape[-1])
    return sums[0] if len(sums) == 1 else bias_gradient(sums)


def _empty_sums(x: Array) -> Array:
    """Memory for the sums of x: a row for each run of rows."""
    channels = x.shape[-1]
    return empty((-(-x.size // (channels * RUN)), channels))


@inline
def rectified(x: Any) -> Any:
    """max(x, 0), but NaN stays NaN, as in NumPy; a GPU's maximum would hide it."""
    return float32(0) if x < float32(0) else x


@kernel
def bias_relu_kernel(i: int, y: Floats, b: Floats, scale: float, channels: int) -> None:
    y[i] = scale * rectified(y[i] + b[split(i, channels)[1]])


def add_bias_relu(y: Array, b: Array, scale: float = 1.0) -> None:
    """y = scale * max(y + b, 0), in place. y: (..., O). b: (O,)."""
    bias_relu_kernel(y.size, y, b, scale, y.shape[-1])


@kernel
def relu_sums_kernel(
    i: int,
    dy: Floats,
    y: Floats,
    dz: Floats,
    sums: Floats,
    scale: float,
    rows: Count,
    channels: int,
) -> None:
    run, c = split(i, channels)
    total = float32(0)
    for row in span(run * RUN, min(rows, run * RUN + RUN)):
        at = row * channels + c
        d = scale * dy[at] if y[at] > float32(0) else float32(0)
        dz[at] = d
        total += d
    sums[i] = total


def relu_bias_gradient(dy: Array, y: Array, scale: float = 1.0) -> tuple[Array, Array]:
    """dz = scale * dy where y > 0, else 0, and db = sum of dz over all but its last axis.

    dy, y, dz: (..., O). db: (O,). y is what add_bias_relu made; where dropout then zeroed it, that
    is seen as well.
    """
    check_gradient(dy, y.shape)
    dz, sums = empty(dy.shape), _empty_sums(dy)
    rows, channels = dy.size // dy.shape[-1], dy.shape[-1]
    relu_sums_kernel(sums.size, dy, y, dz, sums, scale, rows, channels)
    return dz, sums[0] if len(sums) == 1 else bias_gradient(sums)
