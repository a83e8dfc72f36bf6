"""Overlapping pooling: maximum and mean."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from tinyalex.net.windows import pool_size
from tinyalex.reference.threads import in_pieces, in_runs
from tinyalex.system.arrays import Array


def max_pool(x: Array, size: int, stride: int, ceil: bool = False) -> tuple[Array, tuple[Any, ...]]:
    """y[n,i,j,c] = maximum of x[n, i stride + r, j stride + s, c] over 0 <= r, s < size.

    Section 3.4 of the paper: size 3, stride 2, windows overlap. x: (N, H, W, C), y: (N, Ho, Wo, C)
    by `windows.pool_size`; with `ceil` the last windows end at the border. The cache is x and y.
    """
    N, H, W, C = x.shape
    Ho, Wo = pool_size(H, size, stride, ceil), pool_size(W, size, stride, ceil)
    y = np.empty((N, Ho, Wo, C), x.dtype)

    def work(piece: slice) -> None:
        for n in in_runs(piece, x[:1].nbytes):
            combine(np.maximum, x[n], size, stride, y[n])

    in_pieces(work, N, x.nbytes)
    return y, (x, y, size, stride)


def max_pool_backward(dy: Array, cache: tuple[Any, ...]) -> Array:
    """dx: each dy goes to the first maximum of its window in row-major order.

    `count` is how many taps of a window come before its first maximum, whose place it so gives.
    Pixels `stride` apart are gathered side by side for that: NumPy is twice as fast on long rows.
    """
    x, y, size, stride = cache
    (_, H, W, C), (_, Ho, Wo, _) = x.shape, y.shape
    dx = np.empty(x.shape, x.dtype)
    r, s = np.indices((size, size)).reshape(2, -1)
    tap_at = np.append((r * W + s) * C, 0)  # from the window's first; a NaN comes behind all taps

    def work(piece: slice) -> None:
        runs = list(in_runs(piece, x[:1].nbytes))
        image, row, column, channel = np.ogrid[: runs[0].stop - runs[0].start, :Ho, :Wo, :C]
        window_at = ((image * H + row * stride) * W + column * stride) * C + channel
        for n in runs:
            apart = [np.ascontiguousarray(x[n, :, phase::stride]) for phase in range(stride)]
            ahead = np.ones(y[n].shape, bool)
            count = np.zeros(y[n].shape, np.min_scalar_type(size * size))
            for i, h in taps(H, Ho, size, stride):
                for j, v in taps(W, Wo, size, stride):
                    first, phase = divmod(v.start, stride)
                    tap = apart[phase][:, h, first : first + j.stop]
                    ahead[:, i, j] &= tap != y[n, i, j]
                    count += ahead
            at = tap_at.take(count)
            at += window_at[: len(at)]
            dx[n] = 0
            np.add.at(dx[n].reshape(-1), at.reshape(-1), dy[n].reshape(-1))

    in_pieces(work, len(x), x.nbytes)
    return dx


def avg_pool(x: Array, size: int, stride: int, ceil: bool = False) -> tuple[Array, tuple[Any, ...]]:
    """y[n,i,j,c] = mean of x[n, i stride + r, j stride + s, c] over 0 <= r, s < size.

    A window that the border cuts off (`ceil`) averages the pixels inside. Shapes as max_pool.
    """
    N, H, W, C = x.shape
    Ho, Wo = pool_size(H, size, stride, ceil), pool_size(W, size, stride, ceil)
    y, pixels = np.empty((N, Ho, Wo, C), x.dtype), np.empty((1, Ho, Wo, 1), x.dtype)
    combine(np.add, np.ones((1, H, W, 1), x.dtype), size, stride, pixels)

    def work(piece: slice) -> None:
        for n in in_runs(piece, x[:1].nbytes):
            combine(np.add, x[n], size, stride, y[n])
            y[n] /= pixels

    in_pieces(work, N, x.nbytes)
    return y, (x.shape, pixels, size, stride)


def avg_pool_backward(dy: Array, cache: tuple[Any, ...]) -> Array:
    """dx: each dy is shared equally among the pixels of its window."""
    shape, pixels, size, stride = cache
    (_, H, W, _), (_, Ho, Wo, _) = shape, dy.shape
    dx = np.empty(shape, dy.dtype)

    def work(piece: slice) -> None:
        for n in in_runs(piece, dx[:1].nbytes):
            share = dy[n] / pixels
            rows = np.zeros((len(share), Ho, *dx.shape[2:]), dy.dtype)
            for j, v in taps(W, Wo, size, stride):
                rows[:, :, v] += share[:, :, j]
            dx[n] = 0
            for i, h in taps(H, Ho, size, stride):
                dx[n, h] += rows[:, i]

    in_pieces(work, len(dy), dx.nbytes)
    return dx


def combine(ufunc: np.ufunc, x: Array, size: int, stride: int, y: Array) -> None:
    """Write sums (np.add) or maxima (np.maximum) of the windows of x into y.

    First down the columns of pixels, then along the rows: 2 size steps instead of size^2. Every
    window has its first pixel, also where the border cuts it off.
    """
    (N, H, W, C), (_, Ho, Wo, _) = x.shape, y.shape
    rows = np.empty((N, Ho, W, C), x.dtype)
    (_, first), *others = taps(H, Ho, size, stride)
    rows[...] = x[:, first]
    for i, h in others:
        ufunc(rows[:, i], x[:, h], out=rows[:, i])
    (_, first), *others = taps(W, Wo, size, stride)
    y[...] = rows[:, :, first]
    for j, v in others:
        ufunc(y[:, :, j], rows[:, :, v], out=y[:, :, j])


def taps(n: int, out: int, size: int, stride: int) -> Iterator[tuple[slice, slice]]:
    """Outputs with a pixel at a place of their window, and the pixels: by place, along one axis."""
    for r in range(size):
        count = max(0, min(out, -(-(n - r) // stride)))
        yield slice(count), slice(r, r + stride * count, stride)
