"""Local response normalisation: across the channels of a tower, and within a channel's map."""

from collections.abc import Callable
from functools import partial

import numpy as np
import numpy.typing as npt

from tinyalex.reference.threads import in_pieces, in_runs
from tinyalex.system.arrays import Array

Sum = Callable[[Array], Array]
Cache = tuple[Array, Array, float, float, Sum]


def lrn(
    x: Array, n: int, k: float, alpha: float, beta: float, groups: int = 1
) -> tuple[Array, Cache]:
    """y_i = x_i scale_i^-beta, scale_i = k + alpha * sum of x_j^2 over the n channels j around i.

    Section 3.3 of the paper: k = 2, n = 5, alpha = 1e-4, beta = .75. alpha multiplies the plain sum
    (Caffe and PyTorch divide it by n). The window starts at i - floor(n/2) and is clipped to i's
    tower, one of `groups` runs of channels. x, y: (N, H, W, C).
    """
    if x.shape[3] % groups:
        raise ValueError(f"{x.shape[3]} channels cannot be cut into {groups} groups")
    window = band(x.shape[3] // groups, n, x.dtype)
    window_sum = partial(channel_sum, window=window)
    mirrored_sum = partial(channel_sum, window=window.T)
    return normalise(x, k, alpha, beta, window_sum, mirrored_sum)


def lrn_map(x: Array, n: int, k: float, alpha: float, beta: float) -> tuple[Array, Cache]:
    """y_p = x_p scale_p^-beta, scale_p = k + alpha * sum of x_q^2 over the n x n pixels q around p.

    As lrn, but over neighbours in the same channel's map (cuda-convnet's `rnorm`, used by the
    CIFAR-10 nets and by the second normalisation of the 2012 code). The window starts at
    p - floor(n/2) in both directions and is clipped at the border. x, y: (N, H, W, C).
    """
    before, after = n // 2, n - 1 - n // 2
    window_sum = partial(pixel_sum, before=before, after=after)
    mirrored_sum = partial(pixel_sum, before=after, after=before)
    return normalise(x, k, alpha, beta, window_sum, mirrored_sum)


def normalise(
    x: Array, k: float, alpha: float, beta: float, window_sum: Sum, mirrored_sum: Sum
) -> tuple[Array, Cache]:
    """y = x scale^-beta, scale = k + alpha * window_sum(x^2). The cache keeps x and scale.

    mirrored_sum: over the places in whose windows a place lies; the backward needs it.
    """
    y, scale = np.empty_like(x), np.empty_like(x)

    def work(piece: slice) -> None:
        for i in in_runs(piece, x[:1].nbytes):
            np.add(k, alpha * window_sum(x[i] * x[i]), out=scale[i])
            np.divide(x[i], power(scale[i], beta), out=y[i])

    in_pieces(work, len(x), 4 * x.nbytes)  # x, its squares, their sums, y
    return y, (x, scale, alpha, beta, mirrored_sum)


def lrn_backward(dy: Array, cache: Cache) -> Array:
    """dx_i = dy_i scale_i^-beta - 2 alpha beta x_i * sum over j of dy_j x_j scale_j^(-beta-1).

    The sum is over the places j in whose window i lies: the forward's window mirrored.
    """
    x, scale, alpha, beta, mirrored_sum = cache
    dx = np.empty_like(x)

    def work(piece: slice) -> None:
        for i in in_runs(piece, x[:1].nbytes):
            np.divide(dy[i], power(scale[i], beta), out=dx[i])
            dx[i] -= 2 * alpha * beta * x[i] * mirrored_sum(dx[i] * x[i] / scale[i])

    in_pieces(work, len(x), 4 * x.nbytes)  # x, scale, dy, dx
    return dx


lrn_map_backward = lrn_backward  # the same formula; only the places summed over differ


def power(scale: Array, beta: float) -> Array:
    """scale^beta, elementwise; for the paper's 3/4 by square roots, up to ten times as fast."""
    if beta == 0.75:
        root = np.sqrt(scale)
        return root * np.sqrt(root)
    return scale**beta


def band(channels: int, n: int, dtype: npt.DTypeLike) -> Array:
    """window[j, i] = 1 where channel j lies in the window of n around channel i, else 0."""
    j, i = np.indices((channels, channels))
    return ((i - n // 2 <= j) & (j < i - n // 2 + n)).astype(dtype)


def channel_sum(v: Array, window: Array) -> Array:
    """v summed over the window around each channel, tower by tower: a product with the band.

    v: (N, H, W, C). window: `band` of the channels of a tower.
    """
    return (v.reshape(-1, len(window)) @ window).reshape(v.shape)


def pixel_sum(v: Array, before: int, after: int) -> Array:
    """v summed from `before` pixels up and left to `after` down and right; zero beyond the border.

    v: (N, H, W, C). First down each column of pixels, then along each row.
    """
    (N, H, W, C), beyond = v.shape, before + after
    frame = np.zeros((N, H + beyond, W + beyond, C), v.dtype)
    frame[:, before : before + H, before : before + W] = v
    rows = frame[:, :H].copy()
    for i in range(1, beyond + 1):
        rows += frame[:, i : i + H]
    total = rows[:, :, :W].copy()
    for j in range(1, beyond + 1):
        total += rows[:, :, j : j + W]
    return total
