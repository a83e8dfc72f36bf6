"""Elementwise layers: ReLU, tanh and dropout."""

import numpy as np

from tinyalex.reference.threads import in_pieces, in_runs
from tinyalex.system.arrays import Array


def relu(x: Array) -> tuple[Array, Array]:
    """y = max(x, 0). Section 3.1 of the paper.

    x, y: any shape, images first. The cache is y: its sign is all that the gradient needs.
    """
    y = np.empty_like(x)

    def work(piece: slice) -> None:
        np.maximum(x[piece], 0, out=y[piece])

    in_pieces(work, len(x), x.nbytes)
    return y, y


def relu_backward(dy: Array, cache: Array) -> Array:
    """dx = dy where y > 0, else 0: the derivative at 0 is 0."""
    y = cache
    dx = np.empty_like(dy)

    def work(piece: slice) -> None:
        for run in in_runs(piece, dy[:1].nbytes):
            np.multiply(dy[run], y[run] > 0, out=dx[run])  # ten times as fast as a choice

    in_pieces(work, len(y), y.nbytes)
    return dx


def tanh(x: Array) -> tuple[Array, Array]:
    """y = tanh(x), the unit that ReLU is compared with. The cache is y."""
    y = np.tanh(x)
    return y, y


def tanh_backward(dy: Array, cache: Array) -> Array:
    """dx = dy (1 - y^2)."""
    y = cache
    return dy * (1 - y * y)


DropoutCache = tuple[Array | None, float]


def dropout(x: Array, keep: Array | None, scale: float) -> tuple[Array, DropoutCache]:
    """y = scale * x where keep, else 0. Section 4.2 of the paper.

    x: images first. keep: uint8 0 or 1, as many as x has elements; None keeps all (evaluation).
    scale: the paper has 1 in training and 1 - rate in evaluation.
    """
    return dropout_backward(x, (keep, scale)), (keep, scale)


def dropout_backward(dy: Array, cache: DropoutCache) -> Array:
    """dx = scale * dy where keep, else 0: the layer is its own adjoint."""
    keep, scale = cache
    return dy * scale if keep is None else dy * keep.reshape(dy.shape) * scale
