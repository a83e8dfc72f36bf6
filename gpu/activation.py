"""Elementwise layers: ReLU, tanh and dropout. One thread per element, forward and backward."""

from __future__ import annotations

import math

from numpy import float32

from tinyalex.gpu.bias import rectified
from tinyalex.gpu.device import Array, check_gradient, empty
from tinyalex.gpu.launch import Bytes, Floats, kernel


@kernel
def relu_kernel(i: int, x: Floats, y: Floats) -> None:
    y[i] = rectified(x[i])


def relu(x: Array) -> tuple[Array, Array]:
    """y = max(x, 0). x, y: any shape. The cache is y: its sign is all that the gradient needs."""
    y = empty(x.shape)
    relu_kernel(y.size, x, y)
    return y, y


@kernel
def relu_backward_kernel(i: int, dy: Floats, y: Floats, dx: Floats) -> None:
    dx[i] = dy[i] if y[i] > float32(0) else float32(0)


def relu_backward(dy: Array, cache: Array) -> Array:
    """dx = dy where y > 0, else 0: the derivative at 0 is 0."""
    check_gradient(dy, cache.shape)
    dx = empty(cache.shape)
    relu_backward_kernel(dx.size, dy, cache, dx)
    return dx


@kernel
def tanh_kernel(i: int, x: Floats, y: Floats) -> None:
    y[i] = math.tanh(x[i])


def tanh(x: Array) -> tuple[Array, Array]:
    """y = tanh(x). x, y: any shape. The cache is y."""
    y = empty(x.shape)
    tanh_kernel(y.size, x, y)
    return y, y


@kernel
def tanh_backward_kernel(i: int, dy: Floats, y: Floats, dx: Floats) -> None:
    dx[i] = dy[i] * (float32(1) - y[i] * y[i])


def tanh_backward(dy: Array, cache: Array) -> Array:
    """dx = dy (1 - y^2)."""
    check_gradient(dy, cache.shape)
    dx = empty(cache.shape)
    tanh_backward_kernel(dx.size, dy, cache, dx)
    return dx


DropoutCache = tuple[Array | None, float]


@kernel
def scale_kernel(i: int, x: Floats, y: Floats, scale: float) -> None:
    y[i] = scale * x[i]


@kernel
def dropout_kernel(i: int, x: Floats, keep: Bytes, y: Floats, scale: float) -> None:
    y[i] = scale * x[i] if keep[i] else float32(0)


def dropout(x: Array, keep: Array | None, scale: float) -> tuple[Array, DropoutCache]:
    """y = scale * x where keep, else 0.

    x, y: any shape. keep: uint8 0 or 1, as many as x has elements; None keeps all (evaluation).
    """
    return dropout_backward(x, (keep, scale)), (keep, scale)


def dropout_backward(dy: Array, cache: DropoutCache) -> Array:
    """dx = scale * dy where keep, else 0: the layer is its own adjoint."""
    keep, scale = cache
    dx = empty(dy.shape)
    if keep is None:
        scale_kernel(dx.size, dy, dx, scale)
    elif keep.size != dy.size:
        raise ValueError(f"mask {keep.shape} and input {dy.shape} do not fit")
    else:
        dropout_kernel(dx.size, dy, keep, dx, scale)
    return dx
