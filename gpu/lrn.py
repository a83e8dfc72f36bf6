"""Local response normalisation: one thread per element, forward and backward.

Before a max pool, as always in `alexnet`, `pool.lrn_max_pool` runs instead.

Each thread sums over its own window. Neighbouring threads read the same few elements, which stay in
the first-level cache, so that no shared memory is needed. The backward gathers: a thread sums over
all elements whose windows hold its own.
"""

from __future__ import annotations

from typing import Any

from numpy import float32

from tinyalex.gpu.bias import rectified
from tinyalex.gpu.device import Array, check_gradient, empty, inline, power, span, split
from tinyalex.gpu.launch import Floats, Sizes, kernel


@inline
def window(c: int, length: int, n: int) -> tuple[int, int]:
    """The window of n around place c of `length`, as offsets from c: first, one past the last."""
    return -min(c, n // 2), min(length - c, n - n // 2)


@inline
def mirrored(c: int, length: int, n: int) -> tuple[int, int]:
    """The places in whose windows c lies, likewise."""
    return -min(c, n - 1 - n // 2), min(length - c, n // 2 + 1)


@inline
def loaded(x: Floats, i: int, relu: int) -> Any:
    """x[i], or max(x[i], 0) where a ReLU lies below."""
    return rectified(x[i]) if relu else x[i]


@inline
def lrn_scale(
    x: Floats, i: int, c: int, tower: int, n: int, k: float, alpha: float, relu: int
) -> float:
    """scale_i of `lrn`, where x[i] is channel c of its tower."""
    first, last = window(c, tower, n)
    total = float32(0)
    for j in span(i + first, i + last):
        value = loaded(x, j, relu)
        total += value * value
    return k + alpha * total


@kernel
def lrn_kernel(
    i: int, x: Floats, y: Floats, scale: Floats, k: float, alpha: float, beta: float, sizes: Sizes
) -> None:
    tower, n = sizes
    c = split(i, tower)[1]
    scale[i] = lrn_scale(x, i, c, tower, n, k, alpha, 0)
    y[i] = x[i] * power(scale[i], -beta)


Cache = tuple[Array, Array, float, float, Sizes]


def lrn(
    x: Array, n: int, k: float, alpha: float, beta: float, groups: int = 1
) -> tuple[Array, Cache]:
    """y_i = x_i scale_i^-beta, scale_i = k + alpha * sum of x_j^2 over the n channels j around i.

    x, y: (N, H, W, C). The window starts at i - floor(n/2) and is clipped to i's tower, one of
    `groups` runs of channels. The cache keeps x and scale.
    """
    sizes = tower_of(x, groups), n
    y, scale = empty(x.shape), empty(x.shape)
    lrn_kernel(x.size, x, y, scale, k, alpha, beta, sizes)
    return y, (x, scale, alpha, beta, sizes)


def tower_of(x: Array, groups: int) -> int:
    """Channels of a tower. Raises ValueError if the towers would not be equal."""
    if x.shape[3] % groups:
        raise ValueError(f"{x.shape[3]} channels cannot be cut into {groups} groups")
    return x.shape[3] // groups


@kernel
def lrn_backward_kernel(
    i: int,
    dy: Floats,
    x: Floats,
    scale: Floats,
    dx: Floats,
    alpha: float,
    beta: float,
    sizes: Sizes,
) -> None:
    tower, n = sizes
    first, last = mirrored(split(i, tower)[1], tower, n)
    total = float32(0)
    for j in span(i + first, i + last):
        total += dy[j] * x[j] * power(scale[j], -beta - float32(1))
    dx[i] = dy[i] * power(scale[i], -beta) - float32(2) * alpha * beta * x[i] * total


def lrn_backward(dy: Array, cache: Cache) -> Array:
    """dx_i = dy_i scale_i^-beta - 2 alpha beta x_i * sum over j of dy_j x_j scale_j^(-beta-1).

    The sum is over the channels j in whose window i lies: the forward's window mirrored.
    """
    x, scale, alpha, beta, sizes = cache
    check_gradient(dy, x.shape)
    dx = empty(x.shape)
    lrn_backward_kernel(x.size, dy, x, scale, dx, alpha, beta, sizes)
    return dx


@kernel
def lrn_map_kernel(
    i: int, x: Floats, y: Floats, scale: Floats, k: float, alpha: float, beta: float, sizes: Sizes
) -> None:
    H, W, C, n = sizes
    t, column = split(split(i, C)[0], W)
    row = split(t, H)[1]
    top, bottom = window(row, H, n)
    left, right = window(column, W, n)
    total = float32(0)
    for down in span(top, bottom):
        for across in span(left, right):
            j = i + (down * W + across) * C
            total += x[j] * x[j]
    scale[i] = k + alpha * total
    y[i] = x[i] * power(scale[i], -beta)


def lrn_map(x: Array, n: int, k: float, alpha: float, beta: float) -> tuple[Array, Cache]:
    """y_p = x_p scale_p^-beta, scale_p = k + alpha * sum of x_q^2 over the n x n pixels q around p.

    As lrn, but over neighbours in the same channel's map, clipped at its border. The window starts
    at p - floor(n/2) in both directions. x, y: (N, H, W, C). The cache keeps x and scale.
    """
    sizes = *x.shape[1:], n
    y, scale = empty(x.shape), empty(x.shape)
    lrn_map_kernel(x.size, x, y, scale, k, alpha, beta, sizes)
    return y, (x, scale, alpha, beta, sizes)


@kernel
def lrn_map_backward_kernel(
    i: int,
    dy: Floats,
    x: Floats,
    scale: Floats,
    dx: Floats,
    alpha: float,
    beta: float,
    sizes: Sizes,
) -> None:
    H, W, C, n = sizes
    t, column = split(split(i, C)[0], W)
    row = split(t, H)[1]
    top, bottom = mirrored(row, H, n)
    left, right = mirrored(column, W, n)
    total = float32(0)
    for down in span(top, bottom):
        for across in span(left, right):
            j = i + (down * W + across) * C
            total += dy[j] * x[j] * power(scale[j], -beta - float32(1))
    dx[i] = dy[i] * power(scale[i], -beta) - float32(2) * alpha * beta * x[i] * total


def lrn_map_backward(dy: Array, cache: Cache) -> Array:
    """dx_p = dy_p scale_p^-beta - 2 alpha beta x_p * sum over q of dy_q x_q scale_q^(-beta-1).

    The sum is over the pixels q in whose window p lies: the forward's window mirrored.
    """
    x, scale, alpha, beta, sizes = cache
    check_gradient(dy, x.shape)
    dx = empty(x.shape)
    lrn_map_backward_kernel(x.size, dy, x, scale, dx, alpha, beta, sizes)
    return dx
