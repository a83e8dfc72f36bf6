"""Local response normalisation: across the channels of a tower, and within a channel's map."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tinyalex.reference.pieces import in_cache, in_pieces

Array = npt.NDArray[Any]


def lrn(
    x: Array, n: int, k: float, alpha: float, beta: float, groups: int = 1
) -> tuple[Array, tuple[Any, ...]]:
    """y_i = x_i scale_i^-beta, scale_i = k + alpha * sum of x_j^2 over the n channels j around i.

    Section 3.3 of the paper: k = 2, n = 5, alpha = 1e-4, beta = .75. alpha multiplies the plain sum
    (Caffe and PyTorch divide it by n). The window starts at i - floor(n/2) and is clipped to i's
    tower, one of `groups` runs of channels. x, y: (N, H, W, C). The cache keeps x and scale.
    """
    if x.shape[3] % groups:
        raise ValueError(f"{x.shape[3]} channels cannot be cut into {groups} groups")
    window = band(x.shape[3] // groups, n, x.dtype)
    y, scale = np.empty_like(x), np.empty_like(x)

    def work(piece: slice) -> None:
        for i in in_cache(piece, x[:1].nbytes):
            scale[i] = k + alpha * sum_over(window, x[i] * x[i])
            y[i] = x[i] * scale[i] ** -beta

    in_pieces(work, len(x), x.nbytes)
    return y, (x, scale, alpha, beta, window)


def lrn_backward(dy: Array, cache: tuple[Any, ...]) -> Array:
    """dx_i = dy_i scale_i^-beta - 2 alpha beta x_i * sum over j of dy_j x_j scale_j^(-beta-1).

    The sum is over the channels j in whose window i lies: the forward's window mirrored.
    """
    x, scale, alpha, beta, window = cache
    dx = np.empty_like(x)

    def work(piece: slice) -> None:
        for i in in_cache(piece, x[:1].nbytes):
            dx[i] = dy[i] * scale[i] ** -beta
            through_scale = sum_over(window.T, dx[i] * x[i] / scale[i])
            dx[i] -= 2 * alpha * beta * x[i] * through_scale

    in_pieces(work, len(x), x.nbytes)
    return dx


def band(channels: int, n: int, dtype: npt.DTypeLike) -> Array:
    """window[j, i] = 1 where channel j lies in the window of n around channel i, else 0."""
    j, i = np.indices((channels, channels))
    return ((i - n // 2 <= j) & (j < i - n // 2 + n)).astype(dtype)


def sum_over(window: Array, v: Array) -> Array:
    """v summed over the window around each channel, tower by tower: a product with the band."""
    return (v.reshape(-1, len(window)) @ window).reshape(v.shape)


def lrn_map(x: Array, n: int, k: float, alpha: float, beta: float) -> tuple[Array, tuple[Any, ...]]:
    """y_p = x_p scale_p^-beta, scale_p = k + alpha * sum of x_q^2 over the n x n pixels q around p.

    As lrn, but over neighbours in the same channel's map (cuda-convnet's `rnorm`, used by the
    CIFAR-10 nets and by the second normalisation of the 2012 code). The window starts at
    p - floor(n/2) in both directions and is clipped at the border. x, y: (N, H, W, C).
    """
    y, scale = np.empty_like(x), np.empty_like(x)

    def work(piece: slice) -> None:
        for i in in_cache(piece, x[:1].nbytes):
            scale[i] = k + alpha * box_sum(x[i] * x[i], n, n // 2)
            y[i] = x[i] * scale[i] ** -beta

    in_pieces(work, len(x), x.nbytes)
    return y, (x, scale, n, alpha, beta)


def lrn_map_backward(dy: Array, cache: tuple[Any, ...]) -> Array:
    """dx_p = dy_p scale_p^-beta - 2 alpha beta x_p * sum over q of dy_q x_q scale_q^(-beta-1).

    The sum is over the pixels q in whose window p lies: the forward's window mirrored.
    """
    x, scale, n, alpha, beta = cache
    dx = np.empty_like(x)

    def work(piece: slice) -> None:
        for i in in_cache(piece, x[:1].nbytes):
            dx[i] = dy[i] * scale[i] ** -beta
            through_scale = box_sum(dx[i] * x[i] / scale[i], n, n - 1 - n // 2)
            dx[i] -= 2 * alpha * beta * x[i] * through_scale

    in_pieces(work, len(x), x.nbytes)
    return dx


def box_sum(v: Array, n: int, before: int) -> Array:
    """Sum of v over n x n pixels, beginning `before` pixels up and left; zero beyond the border."""
    for axis in (1, 2):
        total = np.zeros_like(v)
        source, target, length = np.moveaxis(v, axis, 0), np.moveaxis(total, axis, 0), v.shape[axis]
        for offset in range(-before, n - before):
            first, last = max(0, -offset), min(length, length - offset)
            if first < last:
                target[first:last] += source[first + offset : last + offset]
        v = total
    return v
