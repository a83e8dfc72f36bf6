"""The fully connected layer: products by cuBLAS, then one thread per element of y."""

from __future__ import annotations

from numpy import float32

from tinyalex.gpu.bias import (
    add_bias,
    add_bias_relu,
    bias_gradient,
    rectified,
    relu_bias_gradient,
)
from tinyalex.gpu.device import Array, check_gradient, empty, split
from tinyalex.gpu.gemm import column_gradient, rows_by_filters, weight_gradient
from tinyalex.gpu.launch import Bytes, Floats, kernel

Cache = tuple[Array, Array]


def linear(x: Array, w: Array, b: Array) -> tuple[Array, Cache]:
    """y = x w^T + b.

    x: (N, H, W, C) or (N, I), read flat. w: (O, I). b: (O,). y: (N, O). The cache is x and w.
    """
    y = _product(x, w, b)
    add_bias(y, b)
    return y, (x, w)


def _product(x: Array, w: Array, b: Array) -> Array:
    """y = x w^T, without the bias."""
    flat = x.reshape(len(x), -1)
    if flat.shape[1] != w.shape[1] or b.shape != w.shape[:1]:
        raise ValueError(f"input {x.shape}, weights {w.shape} and bias {b.shape} do not fit")
    y = empty((len(x), len(w)))
    rows_by_filters(flat, w, y, groups=1)
    return y


def linear_backward(dy: Array, cache: Cache) -> tuple[Array, Array, Array]:
    """dx = dy w, dw = dy^T x, db = sum of dy over the images. dx has the shape of x."""
    dx, dw = _gradients(dy, cache)
    return dx, dw, bias_gradient(dy)


def _gradients(dy: Array, cache: Cache) -> tuple[Array, Array]:
    x, w = cache
    check_gradient(dy, (len(x), len(w)))
    dx, dw = empty(x.shape), empty(w.shape)
    weight_gradient(x.reshape(len(x), -1), dy, dw, groups=1)
    column_gradient(dy, w, dx.reshape(len(x), -1), groups=1)
    return dx, dw


DropoutCache = tuple[Array, float, Cache]


@kernel
def bias_relu_dropout_kernel(
    i: int, y: Floats, b: Floats, keep: Bytes, scale: float, outputs: int
) -> None:
    v = scale * rectified(y[i] + b[split(i, outputs)[1]])
    y[i] = v if keep[i] else float32(0)


def linear_relu_dropout(
    x: Array, w: Array, b: Array, keep: Array | None, scale: float
) -> tuple[Array, DropoutCache]:
    """y = dropout(relu(linear(x, w, b)), keep, scale): all after the product in one pass.

    keep: uint8 0 or 1, as many as y has elements; None keeps all (evaluation). The cache has y:
    it is positive where both ReLU and dropout let the gradient through.
    """
    y = _product(x, w, b)
    if keep is None:
        add_bias_relu(y, b, scale)
    elif keep.size != y.size:
        raise ValueError(f"mask {keep.shape} and output {y.shape} do not fit")
    else:
        bias_relu_dropout_kernel(y.size, y, b, keep, scale, len(w))
    return y, (y, scale, (x, w))


def linear_relu_dropout_backward(dy: Array, cache: DropoutCache) -> tuple[Array, Array, Array]:
    """dx, dw, db of linear for dz = scale * dy where y > 0, else 0."""
    y, scale, linear_cache = cache
    dz, db = relu_bias_gradient(dy, y, scale)
    dx, dw = _gradients(dz, linear_cache)
    return dx, dw, db
