"""Overlapping pooling, and local response normalisation with max pooling in one pass.

Forward, one thread per output. Backward, one thread per element of dx gathers from the windows that
cover it. Of a maximum the forward keeps one byte, its place in the window.

A ReLU below is part of them: forward, it is applied to what is read; backward, it masks what is
written. The outputs of AlexNet's two normalisations are among its largest activations. In one pass
with the pool they are never stored: forward, a thread normalises each tap of its window;
backward, it finds what the pool hands to each channel whose window holds its own, and normalises
anew.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy import float32

from tinyalex.gpu.conv import covering, place
from tinyalex.gpu.device import Array, check_gradient, empty, inline, power, span, split
from tinyalex.gpu.launch import Bytes, Floats, Sizes, kernel
from tinyalex.gpu.lrn import loaded, lrn_scale, mirrored, tower_of
from tinyalex.net.windows import pool_size

LARGEST = 15  # of a max pool's window: its places have to fit into a byte


def sizes_of(x: Array, size: int, stride: int, ceil: bool) -> Sizes:
    """H, W, C, Ho, Wo, size, stride: what the kernels are compiled for."""
    H, W, C = x.shape[1:]
    return H, W, C, pool_size(H, size, stride, ceil), pool_size(W, size, stride, ceil), size, stride


@kernel
def max_pool_kernel(i: int, x: Floats, y: Floats, winner: Bytes, relu: int, sizes: Sizes) -> None:
    H, W, C, Ho, Wo, size, stride = sizes
    output, c = split(i, C)
    n, row, column = place(output, Ho, Wo)
    best, best_tap = float32(-math.inf), 0
    for r in range(size):
        for s in range(size):
            h, v = row * stride + r, column * stride + s
            if h < H and v < W:
                value = loaded(x, ((n * H + h) * W + v) * C + c, relu)
                if value > best or math.isnan(value):
                    best, best_tap = value, r * size + s
    y[i] = best
    winner[i] = best_tap


MaxCache = tuple[Array, tuple[int, ...], Sizes]


def max_pool(x: Array, size: int, stride: int, ceil: bool = False) -> tuple[Array, MaxCache]:
    """y[n,i,j,c] = maximum of x[n, i stride + r, j stride + s, c] over 0 <= r, s < size.

    x: (N, H, W, C), y: (N, Ho, Wo, C) by `windows.pool_size`; with `ceil` the last windows end at
    the border. The cache has the winner: where in its window, row by row, the maximum was first.
    """
    y, winner, sizes = _max_pool(x, size, stride, ceil, relu=False)
    return y, (winner, x.shape, sizes)


def _max_pool(
    x: Array, size: int, stride: int, ceil: bool, relu: bool
) -> tuple[Array, Array, Sizes]:
    sizes = sizes_of(x, size, stride, ceil)
    y, winner = _empty_pooled(x, sizes)
    max_pool_kernel(y.size, x, y, winner, int(relu), sizes)
    return y, winner, sizes


def _empty_pooled(x: Array, sizes: Sizes) -> tuple[Array, Array]:
    """Memory for y and for the winners."""
    _, _, C, Ho, Wo, size, _ = sizes
    assert size <= LARGEST, f"the window of a max pool is at most {LARGEST} wide on the GPU"
    return empty((len(x), Ho, Wo, C)), empty((len(x), Ho, Wo, C), np.uint8)


@inline
def pooled(dy: Floats, winner: Bytes, n: int, h: int, v: int, c: int, sizes: Sizes) -> float:
    """Gradient that max_pool hands to x[n,h,v,c]: the dy of each window whose winner it is."""
    _, _, C, Ho, Wo, size, stride = sizes
    first_row, last_row = covering(h, size, stride, Ho)
    first_column, last_column = covering(v, size, stride, Wo)
    total = float32(0)
    for row in span(first_row, last_row):
        for column in span(first_column, last_column):
            output = ((n * Ho + row) * Wo + column) * C + c
            if winner[output] == (h - row * stride) * size + v - column * stride:
                total += dy[output]
    return total


@kernel
def max_pool_backward_kernel(i: int, dy: Floats, winner: Bytes, dx: Floats, sizes: Sizes) -> None:
    H, W, C = sizes[:3]
    at, c = split(i, C)
    n, h, v = place(at, H, W)
    dx[i] = pooled(dy, winner, n, h, v, c, sizes)


def max_pool_backward(dy: Array, cache: MaxCache) -> Array:
    """dx: each dy goes to the first maximum of its window in row-major order."""
    winner, shape, sizes = cache
    check_gradient(dy, winner.shape)
    dx = empty(shape)
    max_pool_backward_kernel(dx.size, dy, winner, dx, sizes)
    return dx


ReLUMaxCache = tuple[Array, Array, Sizes]


def relu_max_pool(x: Array, size: int, stride: int, ceil: bool) -> tuple[Array, ReLUMaxCache]:
    """y = max_pool(relu(x), size, stride, ceil). The cache has the winners and x."""
    y, winner, sizes = _max_pool(x, size, stride, ceil, relu=True)
    return y, (winner, x, sizes)


@kernel
def relu_max_pool_backward_kernel(
    i: int, dy: Floats, winner: Bytes, x: Floats, dx: Floats, sizes: Sizes
) -> None:
    H, W, C = sizes[:3]
    at, c = split(i, C)
    n, h, v = place(at, H, W)
    dx[i] = pooled(dy, winner, n, h, v, c, sizes) if x[i] > float32(0) else float32(0)


def relu_max_pool_backward(dy: Array, cache: ReLUMaxCache) -> Array:
    """dx = relu_backward(max_pool_backward(dy))."""
    winner, x, sizes = cache
    check_gradient(dy, winner.shape)
    dx = empty(x.shape)
    relu_max_pool_backward_kernel(dx.size, dy, winner, x, dx, sizes)
    return dx


@inline
def pixels(row: int, column: int, H: int, W: int, size: int, stride: int) -> float:
    """Number of the window's pixels inside the border."""
    return float32(min(size, H - row * stride) * min(size, W - column * stride))


@kernel
def avg_pool_kernel(i: int, x: Floats, y: Floats, sizes: Sizes) -> None:
    H, W, C, Ho, Wo, size, stride = sizes
    output, c = split(i, C)
    n, row, column = place(output, Ho, Wo)
    total = float32(0)
    for r in range(size):
        for s in range(size):
            h, v = row * stride + r, column * stride + s
            if h < H and v < W:
                total += x[((n * H + h) * W + v) * C + c]
    y[i] = total / pixels(row, column, H, W, size, stride)


AvgCache = tuple[tuple[int, ...], Sizes]


def avg_pool(x: Array, size: int, stride: int, ceil: bool = False) -> tuple[Array, AvgCache]:
    """y[n,i,j,c] = mean of x[n, i stride + r, j stride + s, c] over 0 <= r, s < size.

    A window that the border cuts off (`ceil`) averages the pixels inside. Shapes as max_pool.
    """
    sizes = sizes_of(x, size, stride, ceil)
    _, _, C, Ho, Wo, _, _ = sizes
    y = empty((len(x), Ho, Wo, C))
    avg_pool_kernel(y.size, x, y, sizes)
    return y, (x.shape, sizes)


@kernel
def avg_pool_backward_kernel(i: int, dy: Floats, dx: Floats, sizes: Sizes) -> None:
    H, W, C, Ho, Wo, size, stride = sizes
    at, c = split(i, C)
    n, h, v = place(at, H, W)
    first_row, last_row = covering(h, size, stride, Ho)
    first_column, last_column = covering(v, size, stride, Wo)
    total = float32(0)
    for row in span(first_row, last_row):
        for column in span(first_column, last_column):
            share = dy[((n * Ho + row) * Wo + column) * C + c]
            total += share / pixels(row, column, H, W, size, stride)
    dx[i] = total


def avg_pool_backward(dy: Array, cache: AvgCache) -> Array:
    """dx: each dy is shared equally among the pixels of its window."""
    shape, sizes = cache
    _, _, C, Ho, Wo, _, _ = sizes
    check_gradient(dy, (shape[0], Ho, Wo, C))
    dx = empty(shape)
    avg_pool_backward_kernel(dx.size, dy, dx, sizes)
    return dx


@kernel
def lrn_max_pool_kernel(
    i: int,
    x: Floats,
    y: Floats,
    winner: Bytes,
    k: float,
    alpha: float,
    beta: float,
    tower: int,
    n: int,
    relu: int,
    sizes: Sizes,
) -> None:
    H, W, C, Ho, Wo, size, stride = sizes
    output, c = split(i, C)
    image, row, column = place(output, Ho, Wo)
    best, best_tap = float32(-math.inf), 0
    for r in range(size):
        for s in range(size):
            h, v = row * stride + r, column * stride + s
            if h < H and v < W:
                at = ((image * H + h) * W + v) * C + c
                scale = lrn_scale(x, at, split(c, tower)[1], tower, n, k, alpha, relu)
                value = loaded(x, at, relu) * power(scale, -beta)
                if value > best or math.isnan(value):
                    best, best_tap = value, r * size + s
    y[i] = best
    winner[i] = best_tap


LRNMaxCache = tuple[Array, Array, tuple[Any, ...]]


def lrn_max_pool(
    x: Array,
    n: int,
    k: float,
    alpha: float,
    beta: float,
    groups: int,
    size: int,
    stride: int,
    ceil: bool,
) -> tuple[Array, LRNMaxCache]:
    """y = max_pool(lrn(x, n, k, alpha, beta, groups), size, stride, ceil).

    The cache has x and the winners, from which the backward finds all else.
    """
    return _lrn_max_pool(x, (k, alpha, beta, tower_of(x, groups), n, 0), size, stride, ceil)


def _lrn_max_pool(
    x: Array, numbers: tuple[Any, ...], size: int, stride: int, ceil: bool
) -> tuple[Array, LRNMaxCache]:
    sizes = sizes_of(x, size, stride, ceil)
    y, winner = _empty_pooled(x, sizes)
    lrn_max_pool_kernel(y.size, x, y, winner, *numbers, sizes)
    return y, (x, winner, (*numbers, sizes))


def relu_lrn_max_pool(
    x: Array,
    n: int,
    k: float,
    alpha: float,
    beta: float,
    groups: int,
    size: int,
    stride: int,
    ceil: bool,
) -> tuple[Array, LRNMaxCache]:
    """y = lrn_max_pool(relu(x), ...)."""
    return _lrn_max_pool(x, (k, alpha, beta, tower_of(x, groups), n, 1), size, stride, ceil)


@kernel
def lrn_max_pool_backward_kernel(
    i: int,
    dy: Floats,
    winner: Bytes,
    x: Floats,
    dx: Floats,
    k: float,
    alpha: float,
    beta: float,
    tower: int,
    n: int,
    relu: int,
    sizes: Sizes,
) -> None:
    H, W, C = sizes[:3]
    at, c = split(i, C)
    image, h, v = place(at, H, W)
    in_tower = split(c, tower)[1]
    first, last = mirrored(in_tower, tower, n)
    own, total = float32(0), float32(0)
    for o in span(first, last):
        dz = pooled(dy, winner, image, h, v, c + o, sizes)
        if dz != float32(0):  # most elements win no window
            scale = lrn_scale(x, i + o, in_tower + o, tower, n, k, alpha, relu)
            part = dz * power(scale, -beta - float32(1))
            total += part * loaded(x, i + o, relu)
            if o == 0:
                own = part * scale
    value = own - float32(2) * alpha * beta * x[i] * total
    dx[i] = value if not relu or x[i] > float32(0) else float32(0)


def lrn_max_pool_backward(dy: Array, cache: LRNMaxCache) -> Array:
    """dx = lrn_backward(dz), dz = max_pool_backward(dy); 0 where a ReLU below was shut."""
    x, winner, numbers = cache
    check_gradient(dy, winner.shape)
    dx = empty(x.shape)
    lrn_max_pool_backward_kernel(dx.size, dy, winner, x, dx, *numbers)
    return dx


relu_lrn_max_pool_backward = lrn_max_pool_backward
