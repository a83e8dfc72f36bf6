"""Convolution in groups: columns unfolded by a kernel, products by cuBLAS.

Forward, one thread per (output pixel, channel) walks the taps of the kernel and writes the columns;
for images, whose three channels would leave most of a warp idle, one thread per element. Behind the
taps of a group stands a one, and in a copy of the weights the bias, so that one product makes y
with its bias, already (N, Ho, Wo, O) whatever the groups; zeros fill up to a multiple of four,
which cuBLAS reads at once. Backward, the saved columns give dw and db in one product, another gives
the columns of dx, and one thread per element of dx gathers from them. A ReLU below is part of the
unfolding and of the gathering.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from numpy import float32

from tinyalex.gpu.augment import augment, check_views, pixel
from tinyalex.gpu.bias import rectified
from tinyalex.gpu.device import Array, check_gradient, empty, inline, span, split
from tinyalex.gpu.gemm import (
    column_gradient,
    rows_by_filters,
    weight_gradient,
    window_weight_gradients,
    windows_by_filters,
)
from tinyalex.gpu.launch import Bytes, Floats, Ints, Sizes, kernel
from tinyalex.net.windows import conv_size


class ConvSizes(NamedTuple):
    """Sizes that a layer's kernels are compiled for.

    Cg: channels of one group. width: elements of its columns: its taps, a one, and zeros.
    """

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
    width: int


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
    width = (kh * kw * Cg + 4) // 4 * 4
    return ConvSizes(H, W, groups, Cg, Ho, Wo, kh, kw, stride, pad, width)


Cache = tuple[Array | None, Array, Array, ConvSizes]
"""x if there is a ReLU below, the columns, the weights, the sizes."""


@inline
def fill_up(col: Floats, group: int, c: int, Cg: int, taps: int, width: int) -> None:
    """Write what stands behind the taps of a group, shared out among its channels."""
    e = taps + c
    while e < width:
        col[group * width + e] = float32(1) if e == taps else float32(0)
        e += Cg


@inline
def place(at: int, Ho: int, Wo: int) -> tuple[int, int, int]:
    """Image, row and column of a pixel."""
    t, column = split(at, Wo)
    n, row = split(t, Ho)
    return n, row, column


@inline
def tap(x: Floats, n: int, h: int, v: int, c: int, relu: int, H: int, W: int, C: int) -> Any:
    """x[n,h,v,c], 0 beyond the border; read before it is known whether it is wanted."""
    at = (n * H + min(max(h, 0), H - 1)) * W + min(max(v, 0), W - 1)
    value = x[at * C + c]
    if relu:
        value = rectified(value)
    return value if 0 <= h < H and 0 <= v < W else float32(0)


@kernel
def im2col_kernel(i: int, x: Floats, col: Floats, relu: int, sizes: Sizes) -> None:
    H, W, G, Cg, Ho, Wo, kh, kw, stride, pad, width = sizes
    output, channel = split(i, G * Cg)
    n, row, column = place(output, Ho, Wo)
    g, c = split(channel, Cg)
    top, left = row * stride - pad, column * stride - pad
    to = (output * G + g) * width + c
    for h in span(top, top + kh):
        for s in range(0, kw, 3):
            # Three are read before the first is written: a store would hold up the next load.
            v = left + s
            first = tap(x, n, h, v, channel, relu, H, W, G * Cg)
            second = tap(x, n, h, v + 1, channel, relu, H, W, G * Cg)
            third = tap(x, n, h, v + 2, channel, relu, H, W, G * Cg)
            col[to] = first
            if s + 1 < kw:
                col[to + Cg] = second
            if s + 2 < kw:
                col[to + 2 * Cg] = third
            to += min(3, kw - s) * Cg
    fill_up(col, output * G + g, c, Cg, kh * kw * Cg, width)


def im2col(x: Array, sizes: ConvSizes, relu: bool = False) -> Array:
    """col[(n,i,j), (g,r,s,c)] = x[n, i stride+r-pad, j stride+s-pad, (g,c)], 0 beyond the border.

    x: (N, H, W, C), of which relu takes max(x, 0). col: (N Ho Wo, G width), a row per output pixel,
    its groups side by side.
    """
    N, _, _, C = x.shape
    col = _empty_columns(N, sizes)
    im2col_kernel(len(col) * C, x, col, int(relu), sizes)
    return col


def _empty_columns(N: int, sizes: ConvSizes) -> Array:
    return empty((N * sizes.Ho * sizes.Wo, sizes.G * sizes.width))


@kernel
def widen_kernel(i: int, w: Floats, b: Floats, wide: Floats, taps: int, width: int) -> None:
    o, e = split(i, width)
    if e < taps:
        wide[i] = w[o * taps + e]
    else:
        wide[i] = b[o] if e == taps else float32(0)


@kernel
def narrow_kernel(i: int, wide: Floats, dw: Floats, db: Floats, taps: int, width: int) -> None:
    o, e = split(i, taps + 1)
    value = wide[o * width + e]
    if e < taps:
        dw[o * taps + e] = value
    else:
        db[o] = value


@inline
def covering(p: int, size: int, stride: int, out: int) -> tuple[int, int]:
    """The windows that cover position p: first, and one past the last."""
    first = 0 if p < size else split(p - size, stride)[0] + 1
    return first, min(out, split(p, stride)[0] + 1)


@inline
def gathered(i: int, dcol: Floats, sizes: Sizes) -> float:
    """dx[i] of col2im."""
    H, W, G, Cg, Ho, Wo, kh, kw, stride, pad, _ = sizes
    at, channel = split(i, G * Cg)
    n, h, v = place(at, H, W)
    g, c = split(channel, Cg)
    first_row, last_row = covering(h + pad, kh, stride, Ho)
    first_column, last_column = covering(v + pad, kw, stride, Wo)
    total = float32(0)
    for row in span(first_row, last_row):
        r, s = h + pad - row * stride, v + pad - first_column * stride
        output = (n * Ho + row) * Wo + first_column
        at = (((output * G + g) * kh + r) * kw + s) * Cg + c
        for _ in span(first_column, last_column):  # a row of dcol on, and `stride` taps back
            total += dcol[at]
            at += (G * kh * kw - stride) * Cg
    return total


@kernel
def col2im_kernel(i: int, dcol: Floats, dx: Floats, sizes: Sizes) -> None:
    dx[i] = gathered(i, dcol, sizes)


@kernel
def relu_col2im_kernel(i: int, dcol: Floats, x: Floats, dx: Floats, sizes: Sizes) -> None:
    dx[i] = gathered(i, dcol, sizes) if x[i] > float32(0) else float32(0)


def col2im(dcol: Array, x: Array | None, sizes: ConvSizes) -> Array:
    """dx[n,h,v,c]: the sum of all elements of dcol whose like in im2col was a copy of x[n,h,v,c].

    dcol: (N Ho Wo, G kh kw C/G). dx: (N, H, W, C). With x, that of a ReLU, 0 where x <= 0.
    """
    H, W, G, Cg, Ho, Wo, *_ = sizes
    dx = empty((len(dcol) // (Ho * Wo), H, W, G * Cg))
    if x is None:
        col2im_kernel(dx.size, dcol, dx, sizes)
    else:
        relu_col2im_kernel(dx.size, dcol, x, dx, sizes)
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
    return _product(None, im2col(x, sizes), w, b, sizes)


def relu_conv2d(
    x: Array, w: Array, b: Array, stride: int, pad: int, groups: int, ceil: bool
) -> tuple[Array, Cache]:
    """y = conv2d(relu(x), ...). The cache has x too, whose sign masks dx."""
    sizes = sizes_of(x.shape, w, b, stride, pad, groups, ceil)
    return _product(x, im2col(x, sizes, relu=True), w, b, sizes)


def _product(
    x: Array | None, col: Array, w: Array, b: Array, sizes: ConvSizes
) -> tuple[Array, Cache]:
    """y = col w^T + b, and the cache."""
    y, taps = empty(_output(col, w, sizes)), w.size // len(w)
    wide = empty((len(w), sizes.width))
    widen_kernel(wide.size, w, b, wide, taps, sizes.width)
    rows_by_filters(col, wide, y, sizes.G)
    return y, (x, col, w, sizes)


def _output(col: Array, w: Array, sizes: ConvSizes) -> tuple[int, int, int, int]:
    """The shape of y."""
    return len(col) // (sizes.Ho * sizes.Wo), sizes.Ho, sizes.Wo, len(w)


def conv2d_backward(
    dy: Array, cache: Cache, need_dx: bool = True
) -> tuple[Array | None, Array, Array]:
    """dx = col2im(dy w), dw = dy^T col, db = sum of dy over images and pixels.

    dx is None unless needed, and 0 where a ReLU below let nothing through.
    """
    x, col, w, sizes = cache
    check_gradient(dy, _output(col, w, sizes))
    taps = w.size // len(w)
    wide, dw, db = empty((len(w), sizes.width)), empty(w.shape), empty((len(w),))
    weight_gradient(col, dy, wide, sizes.G)
    narrow_kernel(len(w) * (taps + 1), wide, dw, db, taps, sizes.width)
    if not need_dx:
        return None, dw, db
    dcol = empty((len(col), sizes.G * taps))
    column_gradient(dy, w.reshape(len(w), -1), dcol, sizes.G)
    return col2im(dcol, x, sizes), dw, db


relu_conv2d_backward = conv2d_backward


def strip_of(sizes: ConvSizes) -> tuple[int, int]:
    """Pixel columns of a strip, and elements that a product reads for a window.

    A pixel column has kh pixels and a one. The elements are a multiple of four, as is the length of
    a strip, since cuBLAS reads four at once; so there is a pixel column behind the last window.
    """
    _, _, _, _, _, Wo, kh, kw, stride, _, _ = sizes
    unit, columns = 3 * kh + 1, (Wo - 1) * stride + kw + 1
    while columns * unit % 4:
        columns += 1
    return columns, (kw * unit + 3) // 4 * 4


@kernel
def augment_strips_kernel(
    i: int,
    images: Bytes,
    mean: Floats,
    corner: Ints,
    flip: Bytes,
    shift: Floats,
    strips: Floats,
    scale: float,
    side: int,
    size: int,
    Ho: int,
    kh: int,
    stride: int,
    pad: int,
    columns: int,
) -> None:
    t, e = split(i, 3 * kh + 1)
    t, column = split(t, columns)
    n, row = split(t, Ho)
    r, c = split(e, 3)
    h, v = row * stride - pad + r, column - pad
    if r == kh:
        strips[i] = float32(1)
    elif 0 <= h < size and 0 <= v < size:
        strips[i] = pixel(images, mean, corner, flip, shift, scale, n, h, v, c, side, size)
    else:
        strips[i] = float32(0)


@kernel
def widen_strips_kernel(
    i: int, w: Floats, b: Floats, wide: Floats, kh: int, kw: int, width: int
) -> None:
    o, at = split(i, width)
    s, e = split(at, 3 * kh + 1)
    r, c = split(e, 3)
    if s < kw and r < kh:
        wide[i] = w[((o * kh + r) * kw + s) * 3 + c]
    else:
        wide[i] = b[o] if at == 3 * kh else float32(0)  # the first of a window's ones


@kernel
def narrow_strips_kernel(
    i: int,
    parts: Floats,
    dw: Floats,
    db: Floats,
    count: int,
    filters: int,
    kh: int,
    kw: int,
    width: int,
) -> None:
    o, e = split(i, kh * kw * 3 + 1)
    t, c = split(e, 3)
    r, s = split(t, kw)
    # Of a filter's last index, that of the bias, this finds the first of the window's ones.
    at = s * (3 * kh + 1) + r * 3 + c
    total = float32(0)
    for part in span(0, count):
        total += parts[(part * filters + o) * width + at]
    if r < kh:
        dw[o * kh * kw * 3 + e] = total
    else:
        db[o] = total


StripCache = tuple[Array, Array, ConvSizes] | Cache


def augment_conv2d(
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
) -> tuple[Array, StripCache]:
    """y = conv2d(augment(images, ...), ...), from strips in place of columns.

    A strip has the rows that the windows of a row of y read, side by side for each pixel column, so
    that a window is a run of it, and lies `stride` pixel columns behind the one before. It has each
    pixel kh / stride times, where columns have it kh kw / stride^2 times: 0.22 GB in place of 0.56
    for 128 images of AlexNet's. A product for each column of y reads the windows where they lie.
    """
    sizes = sizes_of((len(images), size, size, 3), w, b, stride, pad, groups, ceil)
    drawn = images, mean, corner, flip, shift
    check_views(*drawn, size)
    if groups > 1:
        x, _ = augment(*drawn, size, scale)
        return conv2d(x, w, b, stride, pad, groups, ceil)
    (_, _, _, _, Ho, Wo, kh, kw, *_), (columns, width) = sizes, strip_of(sizes)
    strips = empty((len(images) * Ho, columns * (3 * kh + 1)))
    baked = images.shape[1], size, Ho, kh, stride, pad, columns
    augment_strips_kernel(strips.size, *drawn, strips, scale, *baked)
    y, wide = empty((len(images), Ho, Wo, len(w))), empty((len(w), width))
    widen_strips_kernel(wide.size, w, b, wide, kh, kw, width)
    windows_by_filters(strips, wide, y, stride * (3 * kh + 1))
    return y, (strips, w, sizes)


def augment_conv2d_backward(dy: Array, cache: StripCache) -> tuple[None, Array, Array]:
    """dw and db as in conv2d_backward; images have no gradient."""
    if len(cache) == 4:
        _, dw, db = conv2d_backward(dy, cache, need_dx=False)
        return None, dw, db
    strips, w, sizes = cache
    _, _, _, _, Ho, Wo, kh, kw, stride, *_ = sizes
    check_gradient(dy, (len(strips) // Ho, Ho, Wo, len(w)))
    parts = empty((Wo, len(w), strip_of(sizes)[1]))
    window_weight_gradients(strips, dy, parts, stride * (3 * kh + 1))
    dw, db = empty(w.shape), empty((len(w),))
    narrow_strips_kernel(w.size + len(w), parts, dw, db, *parts.shape[:2], kh, kw, parts.shape[2])
    return None, dw, db
