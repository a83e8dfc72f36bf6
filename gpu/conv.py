"""Convolution in groups: columns unfolded by a kernel, products by cuBLAS.

Forward, one thread per (output pixel, channel) walks the taps of the kernel and writes the columns;
for images, whose three channels would leave most of a warp idle, one thread per (output pixel,
element of a kernel row) walks the rows. One product makes y, already (N, Ho, Wo, O) whatever the
groups, and one pass adds the bias. Backward, the saved columns give dw, a product gives the columns
of dx, and one thread per element of dx gathers from them.
"""

from __future__ import annotations

from typing import NamedTuple

from numpy import float32

from tinyalex.gpu.augment import check_views, pixel
from tinyalex.gpu.bias import add_bias, add_bias_relu, bias_gradient, relu_bias_gradient
from tinyalex.gpu.device import Array, check_gradient, empty, inline, span, split
from tinyalex.gpu.gemm import column_gradient, rows_by_filters, weight_gradient
from tinyalex.gpu.launch import Bytes, Floats, Ints, Sizes, kernel
from tinyalex.net.windows import conv_size


class ConvSizes(NamedTuple):
    """Sizes that a layer's kernels are compiled for. Cg: channels of one group."""

    H: int
    W: int
    G: int
    Cg: int
    Ho: int
    Wo: int
    kh: int
    kw: int
    stride: int
    pad: int


def sizes_of(
    shape: tuple[int, ...], w: Array, b: Array, stride: int, pad: int, groups: int, ceil: bool
) -> ConvSizes:
    """Sizes by the shape of x. Raises ValueError if x, w, b and groups do not fit."""
    (_, H, W, C), (O, kh, kw, Cg) = shape, w.shape
    if groups * Cg != C or O % groups or b.shape != (O,):
        raise ValueError(
            f"input {shape}, weights {w.shape}, bias {b.shape} and {groups} groups do not fit"
        )
    Ho, Wo = conv_size(H, kh, stride, pad, ceil), conv_size(W, kw, stride, pad, ceil)
    return ConvSizes(H, W, groups, Cg, Ho, Wo, kh, kw, stride, pad)


Cache = tuple[Array, Array, ConvSizes]


@inline
def place(at: int, Ho: int, Wo: int) -> tuple[int, int, int]:
    """Image, row and column of a pixel."""
    t, column = split(at, Wo)
    n, row = split(t, Ho)
    return n, row, column


@kernel
def im2col_kernel(i: int, x: Floats, col: Floats, sizes: Sizes) -> None:
    H, W, G, Cg, Ho, Wo, kh, kw, stride, pad = sizes
    output, channel = split(i, G * Cg)
    n, row, column = place(output, Ho, Wo)
    g, c = split(channel, Cg)
    top, left = row * stride - pad, column * stride - pad
    to = (output * G + g) * kh * kw * Cg + c
    for h in span(top, top + kh):
        for v in span(left, left + kw):
            inside = 0 <= h < H and 0 <= v < W
            col[to] = x[((n * H + h) * W + v) * G * Cg + channel] if inside else float32(0)
            to += Cg


@kernel
def image_im2col_kernel(i: int, x: Floats, col: Floats, sizes: Sizes) -> None:
    H, W, G, Cg, Ho, Wo, kh, kw, stride, pad = sizes
    output, element = split(i, kw * G * Cg)
    n, row, column = place(output, Ho, Wo)
    s, channel = split(element, G * Cg)
    g, c = split(channel, Cg)
    top, v = row * stride - pad, column * stride - pad + s
    to = ((output * G + g) * kh * kw + s) * Cg + c
    for h in span(top, top + kh):
        inside = 0 <= h < H and 0 <= v < W
        col[to] = x[((n * H + h) * W + v) * G * Cg + channel] if inside else float32(0)
        to += kw * Cg


def im2col(x: Array, sizes: ConvSizes) -> Array:
    """col[(n,i,j), (g,r,s,c)] = x[n, i stride+r-pad, j stride+s-pad, (g,c)], 0 beyond the border.

    x: (N, H, W, C). col: (N Ho Wo, G kh kw C/G), a row per output pixel, its groups side by side.
    """
    N, _, _, C = x.shape
    col = _empty_columns(N, sizes)
    if C == 3:
        image_im2col_kernel(len(col) * sizes.kw * C, x, col, sizes)
    else:
        im2col_kernel(len(col) * C, x, col, sizes)
    return col


def _empty_columns(N: int, sizes: ConvSizes) -> Array:
    _, _, G, Cg, Ho, Wo, kh, kw, _, _ = sizes
    return empty((N * Ho * Wo, G * kh * kw * Cg))


@inline
def covering(p: int, size: int, stride: int, out: int) -> tuple[int, int]:
    """The windows that cover position p: first, and one past the last."""
    first = 0 if p < size else split(p - size, stride)[0] + 1
    return first, min(out, split(p, stride)[0] + 1)


@kernel
def col2im_kernel(i: int, dcol: Floats, dx: Floats, sizes: Sizes) -> None:
    H, W, G, Cg, Ho, Wo, kh, kw, stride, pad = sizes
    at, channel = split(i, G * Cg)
    n, h, v = place(at, H, W)
    g, c = split(channel, Cg)
    first_row, last_row = covering(h + pad, kh, stride, Ho)
    first_column, last_column = covering(v + pad, kw, stride, Wo)
    total = float32(0)
    for row in span(first_row, last_row):
        r = h + pad - row * stride
        for column in span(first_column, last_column):
            s = v + pad - column * stride
            output = (n * Ho + row) * Wo + column
            total += dcol[(((output * G + g) * kh + r) * kw + s) * Cg + c]
    dx[i] = total


def col2im(dcol: Array, sizes: ConvSizes) -> Array:
    """dx[n,h,v,c]: the sum of all elements of dcol whose like in im2col was a copy of x[n,h,v,c].

    dcol: (N Ho Wo, G kh kw C/G). dx: (N, H, W, C).
    """
    H, W, G, Cg, Ho, Wo, *_ = sizes
    dx = empty((len(dcol) // (Ho * Wo), H, W, G * Cg))
    col2im_kernel(dx.size, dcol, dx, sizes)
    return dx


def conv2d(
    x: Array, w: Array, b: Array, stride: int = 1, pad: int = 0, groups: int = 1, ceil: bool = False
) -> tuple[Array, Cache]:
    """y[n,i,j,o] = b[o] + sum over r,s,c of w[o,r,s,c] x[n, i stride+r-pad, j stride+s-pad, c].

    x: (N, H, W, C), zero beyond its border. w: (O, kh, kw, C/groups). b: (O,). y: (N, Ho, Wo, O) by
    `windows.conv_size`; with `ceil` the last windows may reach beyond the padded border.
    The cache keeps the columns, which dw needs and whose unfolding would cost more than reading.
    """
    sizes = sizes_of(x.shape, w, b, stride, pad, groups, ceil)
    col = im2col(x, sizes)
    y = _product(col, w, sizes)
    add_bias(y, b)
    return y, (col, w, sizes)


def _product(col: Array, w: Array, sizes: ConvSizes) -> Array:
    """y = col w^T, without the bias. y: (N, Ho, Wo, O)."""
    y = empty(_output(col, w, sizes))
    rows_by_filters(col, w.reshape(len(w), -1), y, sizes.G)
    return y


def _output(col: Array, w: Array, sizes: ConvSizes) -> tuple[int, int, int, int]:
    """The shape of y."""
    return len(col) // (sizes.Ho * sizes.Wo), sizes.Ho, sizes.Wo, len(w)


def conv2d_backward(
    dy: Array, cache: Cache, need_dx: bool = True
) -> tuple[Array | None, Array, Array]:
    """dx = col2im(dy w), dw = dy^T col, db = sum of dy over images and pixels.

    dx is None unless needed.
    """
    dx, dw = _gradients(dy, cache, need_dx)
    return dx, dw, bias_gradient(dy)


def _gradients(dy: Array, cache: Cache, need_dx: bool) -> tuple[Array | None, Array]:
    col, w, sizes = cache
    check_gradient(dy, _output(col, w, sizes))
    dw = empty(w.shape)
    weight_gradient(col, dy, dw.reshape(len(w), -1), sizes.G)
    if not need_dx:
        return None, dw
    dcol = empty(col.shape)
    column_gradient(dy, w.reshape(len(w), -1), dcol, sizes.G)
    return col2im(dcol, sizes), dw


ReLUCache = tuple[Array, Cache]


def conv2d_relu(
    x: Array, w: Array, b: Array, stride: int, pad: int, groups: int, ceil: bool
) -> tuple[Array, ReLUCache]:
    """y = relu(conv2d(x, ...)): bias and ReLU in one pass. The cache has y, whose sign masks dy."""
    sizes = sizes_of(x.shape, w, b, stride, pad, groups, ceil)
    return _relu(im2col(x, sizes), w, b, sizes)


def _relu(col: Array, w: Array, b: Array, sizes: ConvSizes) -> tuple[Array, ReLUCache]:
    y = _product(col, w, sizes)
    add_bias_relu(y, b)
    return y, (y, (col, w, sizes))


def conv2d_relu_backward(
    dy: Array, cache: ReLUCache, need_dx: bool = True
) -> tuple[Array | None, Array, Array]:
    """dx, dw, db of conv2d for dz = dy where y > 0, else 0."""
    y, conv_cache = cache
    dz, db = relu_bias_gradient(dy, y)
    dx, dw = _gradients(dz, conv_cache, need_dx)
    return dx, dw, db


@kernel
def augment_im2col_kernel(
    i: int,
    images: Bytes,
    mean: Floats,
    corner: Ints,
    flip: Bytes,
    shift: Floats,
    col: Floats,
    scale: float,
    side: int,
    sizes: Sizes,
) -> None:
    H, W, G, Cg, Ho, Wo, kh, kw, stride, pad = sizes
    output, element = split(i, kw * 3)
    n, row, column = place(output, Ho, Wo)
    s, channel = split(element, 3)
    g, c = split(channel, Cg)
    top, v = row * stride - pad, column * stride - pad + s
    to = ((output * G + g) * kh * kw + s) * Cg + c
    for h in span(top, top + kh):
        if 0 <= h < H and 0 <= v < W:
            col[to] = pixel(images, mean, corner, flip, shift, scale, n, h, v, channel, side, W)
        else:
            col[to] = float32(0)
        to += kw * Cg


def augment_conv2d_relu(
    images: Array,
    mean: Array,
    corner: Array,
    flip: Array,
    shift: Array,
    size: int,
    scale: float,
    w: Array,
    b: Array,
    stride: int,
    pad: int,
    groups: int,
    ceil: bool,
) -> tuple[Array, ReLUCache]:
    """y = relu(conv2d(augment(images, ...), ...)), its columns read straight from the bytes.

    Overlapping windows read a pixel of AlexNet's some eight times: bytes, which stay in the caches.
    """
    check_views(images, mean, corner, flip, shift, size)
    sizes = sizes_of((len(images), size, size, 3), w, b, stride, pad, groups, ceil)
    col, side = _empty_columns(len(images), sizes), images.shape[1]
    count = len(col) * sizes.kw * 3
    augment_im2col_kernel(count, images, mean, corner, flip, shift, col, scale, side, sizes)
    return _relu(col, w, b, sizes)


def augment_conv2d_relu_backward(dy: Array, cache: ReLUCache) -> tuple[None, Array, Array]:
    """dw and db as in conv2d_relu_backward; images have no gradient."""
    _, dw, db = conv2d_relu_backward(dy, cache, need_dx=False)
    return None, dw, db
