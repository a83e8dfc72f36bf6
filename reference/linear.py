"""The fully connected layer."""

import numpy as np

from tinyalex.reference.threads import in_pieces
from tinyalex.system.arrays import Array

Cache = tuple[Array, Array]


def linear(x: Array, w: Array, b: Array) -> tuple[Array, Cache]:
    """y = x w^T + b, one product in pieces of neurons.

    x: (N, H, W, C) or (N, I), read flat, so that there is no flatten layer. w: (O, I). b: (O,).
    y: (N, O). The cache is x and w.
    """
    flat = x.reshape(len(x), -1)
    if flat.shape[1:] != w.shape[1:] or b.shape != w.shape[:1]:
        raise ValueError(f"x {x.shape}, w {w.shape} and b {b.shape} do not fit")
    y = np.empty((len(x), len(w)), x.dtype)

    def work(piece: slice) -> None:
        np.matmul(flat, w[piece].T, out=y[:, piece])
        y[:, piece] += b[piece]

    in_pieces(work, len(w), w.nbytes)
    return y, (x, w)


def linear_backward(dy: Array, cache: Cache) -> tuple[Array, Array, Array]:
    """dx = dy w, dw = dy^T x, db = sum of dy over the images. dx has the shape of x."""
    x, w = cache
    flat = x.reshape(len(x), -1)
    dx, dw = np.empty_like(flat), np.empty_like(w)

    def neurons(piece: slice) -> None:
        np.matmul(dy[:, piece].T, flat, out=dw[piece])

    def inputs(piece: slice) -> None:
        np.matmul(dy, w[:, piece], out=dx[:, piece])

    in_pieces(neurons, len(w), w.nbytes)
    in_pieces(inputs, flat.shape[1], w.nbytes)
    return dx.reshape(x.shape), dw, dy.sum(0)
