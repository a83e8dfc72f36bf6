"""Overlapping pooling: maximum and mean."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from tinyalex.reference.pieces import in_cache, in_pieces
from tinyalex.shapes import pool_size

Array = npt.NDArray[Any]


def max_pool(x: Array, size: int, stride: int, ceil: bool = False) -> tuple[Array, tuple[Any, ...]]:
    """y[n,i,j,c] = maximum of x[n, i stride + r, j stride + s, c] over 0 <= r, s < size.

    Section 3.4 of the paper: size 3, stride 2, windows overlap. x: (N, H, W, C), y: (N, Ho, Wo, C)
    by `shapes.pool_size`; with `ceil` the last windows end at the border. The cache is x and y.
    """
    N, H, W, C = x.shape
    Ho, Wo = pool_size(H, size, stride, ceil), pool_size(W, size, stride, ceil)
    y = np.empty((N, Ho, Wo, C), x.dtype)

    def work(piece: slice) -> None:
        for n in in_cache(piece, x[:1].nbytes):
            y[n] = -np.inf
            for inside, window in taps(H, W, Ho, Wo, size, stride):
                np.maximum(y[n][inside], x[n][window], out=y[n][inside])

    in_pieces(work, N, x.nbytes)
    return y, (x, y, size, stride)


def max_pool_backward(dy: Array, cache: tuple[Any, ...]) -> Array:
    """Each dy goes to the first maximum of its window in row-major order.

    The taps are visited in that order; whoever equals the maximum takes what is left of dy.
    """
    x, y, size, stride = cache
    (_, H, W, _), (_, Ho, Wo, _) = x.shape, y.shape
    dx = np.zeros_like(x)

    def work(piece: slice) -> None:
        for n in in_cache(piece, x[:1].nbytes):
            left = dy[n].copy()
            for inside, window in taps(H, W, Ho, Wo, size, stride):
                taken = left[inside] * (x[n][window] == y[n][inside])
                dx[n][window] += taken
                left[inside] -= taken

    in_pieces(work, len(x), x.nbytes)
    return dx


def avg_pool(x: Array, size: int, stride: int, ceil: bool = False) -> tuple[Array, tuple[Any, ...]]:
    """y[n,i,j,c] = mean of x[n, i stride + r, j stride + s, c] over 0 <= r, s < size.

    A window that the border cuts off (`ceil`) averages the pixels inside. Shapes as max_pool.
    """
    N, H, W, C = x.shape
    Ho, Wo = pool_size(H, size, stride, ceil), pool_size(W, size, stride, ceil)
    y, pixels = np.zeros((N, Ho, Wo, C), x.dtype), np.zeros((1, Ho, Wo, 1), x.dtype)
    for inside, _ in taps(H, W, Ho, Wo, size, stride):
        pixels[inside] += 1

    def work(piece: slice) -> None:
        for n in in_cache(piece, x[:1].nbytes):
            for inside, window in taps(H, W, Ho, Wo, size, stride):
                y[n][inside] += x[n][window]
            y[n] /= pixels

    in_pieces(work, N, x.nbytes)
    return y, (x.shape, pixels, size, stride)


def avg_pool_backward(dy: Array, cache: tuple[Any, ...]) -> Array:
    """Each dy is shared equally among the pixels of its window."""
    shape, pixels, size, stride = cache
    (_, H, W, _), (_, Ho, Wo, _) = shape, dy.shape
    dx = np.zeros(shape, dy.dtype)

    def work(piece: slice) -> None:
        for n in in_cache(piece, dx[:1].nbytes):
            share = dy[n] / pixels
            for inside, window in taps(H, W, Ho, Wo, size, stride):
                dx[n][window] += share[inside]

    in_pieces(work, len(dy), dx.nbytes)
    return dx


Slices = tuple[slice, slice, slice]


def taps(
    H: int, W: int, Ho: int, Wo: int, size: int, stride: int
) -> Iterator[tuple[Slices, Slices]]:
    """For each place (r, s) in the window: the outputs that have it inside x, and those pixels."""
    for r in range(size):
        rows = max(0, min(Ho, -(-(H - r) // stride)))
        for s in range(size):
            columns = max(0, min(Wo, -(-(W - s) // stride)))
            pixels = slice(r, r + stride * rows, stride), slice(s, s + stride * columns, stride)
            yield (slice(None), slice(rows), slice(columns)), (slice(None), *pixels)
