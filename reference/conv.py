"""Convolution in groups, as matrix products over unfolded columns."""

from collections.abc import Iterator

import numpy as np

from tinyalex.net.windows import conv_size
from tinyalex.reference.threads import in_pieces, in_runs
from tinyalex.system.arrays import Array

Cache = tuple[Array, Array, int, int, int]


def conv2d(
    x: Array, w: Array, b: Array, stride: int = 1, pad: int = 0, groups: int = 1, ceil: bool = False
) -> tuple[Array, Cache]:
    """y[n,i,j,o] = b[o] + sum over r,s,c of w[o,r,s,c] x[n, i stride+r-pad, j stride+s-pad, c].

    x: (N, H, W, C), zero beyond its border. w: (O, kh, kw, C/groups). b: (O,). y: (N, Ho, Wo, O) by
    `windows.conv_size`; with `ceil` the last windows may reach beyond the padded border. Filters
    come in `groups` runs of O/groups; those of run g see the g-th run of channels only, so that two
    groups are the two towers of Figure 2. The cache keeps x and w: columns are unfolded again in
    the backward pass, which costs less than the memory to keep them.
    """
    if x.shape[3] != groups * w.shape[3] or len(w) % groups or b.shape != w.shape[:1]:
        raise ValueError(f"x {x.shape}, w {w.shape}, b {b.shape} and {groups} groups do not fit")
    (N, H, W, _), (O, kh, kw, _) = x.shape, w.shape
    Ho, Wo = conv_size(H, kh, stride, pad, ceil), conv_size(W, kw, stride, pad, ceil)
    y = np.empty((N, Ho, Wo, O), x.dtype)
    inside, starts = places(x, y, stride, pad)
    bias = np.tile(b, Wo)  # of a whole row of pixels: NumPy adds long rows faster

    def work(piece: slice) -> None:
        for images, col in im2col(x, piece, w.shape[1:3], inside, starts, groups):
            np.matmul(col, filters(w, groups).transpose(0, 2, 1), out=pixels(y[images], groups))
        lines = y[piece].reshape(-1, Wo * O)
        lines += bias

    in_pieces(work, N, N * column_bytes(y, w, groups))
    return y, (x, w, stride, pad, groups)


def conv2d_backward(
    dy: Array, cache: Cache, need_dx: bool = True
) -> tuple[Array | None, Array, Array]:
    """dx, dw, db of conv2d: the sum of the forward, read for each of its three factors.

    dw[o,r,s,c] = sum over n,i,j of dy[n,i,j,o] x[n, i stride+r-pad, j stride+s-pad, c]
    dx[n,h,v,c] = sum over o,r,s of dy[n,i,j,o] w[o,r,s,c], i stride+r-pad = h, j stride+s-pad = v
    db[o] = sum over n,i,j of dy[n,i,j,o]. dx is None unless needed: images are not trained.
    As r grows i falls, so dx is a convolution too: the filters, turned round, slide over a dy whose
    pixels lie `stride` apart.
    """
    x, w, stride, pad, groups = cache
    kernel = w.shape[1:3]
    dx = np.empty(x.shape, x.dtype) if need_dx else None
    inside, starts = places(x, dy, stride, pad)
    apart = [slice(k - 1, k - 1 + s.stop, stride) for k, s in zip(kernel, starts, strict=True)]
    back = turned(w, groups)

    def work(piece: slice) -> tuple[Array, Array]:
        dw = np.zeros_like(filters(w, groups))
        for images, col in im2col(x, piece, kernel, inside, starts, groups):
            dw += pixels(dy[images], groups).transpose(0, 2, 1) @ col
        db = dy[piece].sum((0, 1)).sum(0)  # long rows first: three times as fast
        if dx is not None:
            # dx is a convolution of dy, `apart` pixels apart: its windows begin where x lay inside.
            for images, col in im2col(dy, piece, kernel, apart, inside, groups):
                np.matmul(col, back, out=pixels(dx[images], groups))
        return dw, db

    parts = in_pieces(work, len(x), len(x) * column_bytes(dy, w, groups))
    dws, dbs = zip(*parts, strict=True)
    return dx, sum(dws[1:], dws[0]).reshape(w.shape), sum(dbs[1:], dbs[0])


def places(x: Array, y: Array, stride: int, pad: int) -> tuple[list[slice], list[slice]]:
    """Rows and columns of a frame of zeros: those where x lies, those where its windows start."""
    inside = [slice(pad, pad + n, 1) for n in x.shape[1:3]]
    return inside, [slice(0, stride * n, stride) for n in y.shape[1:3]]


def im2col(
    x: Array,
    piece: slice,
    kernel: tuple[int, int],
    inside: list[slice],
    starts: list[slice],
    groups: int,
) -> Iterator[tuple[slice, Array]]:
    """Unfold a piece of x, a few images at a time: which ones, and their columns.

    x: (N, H, W, C), of which `piece` names images. It lies `inside` a frame of zeros, and Ho x Wo
    windows as large as the kernel, (kh, kw), start at `starts`. col: (G, n Ho Wo, kh kw C/G),
    col[g, (n,i,j), (r,s,c)] = frame[g, n, starts_i + r, starts_j + s, c]. It is one buffer, used
    again for the next images. The frame holds each group by itself, so that a row of a window is
    one piece of memory.
    """
    kh, kw = kernel
    C = x.shape[3]
    height, width = (
        max(i.stop, s.stop + k - 1) for i, s, k in zip(inside, starts, kernel, strict=True)
    )
    Ho, Wo = ((s.stop - s.start) // s.step for s in starts)
    runs = list(in_runs(piece, Ho * Wo * kh * kw * C * x.itemsize))
    frame = np.zeros((groups, piece.stop - piece.start, height, width, C // groups), x.dtype)
    target = frame[:, :, inside[0], inside[1]]
    target[...] = pixels(x[piece], groups).reshape(target.shape)
    group, image, line, pixel, _ = frame.strides
    row = np.dtype((np.void, kw * pixel))  # of a window, in one item: copied up to twice as fast
    windows = np.ndarray(
        (*frame.shape[:2], Ho, Wo, kh),
        row,
        frame,
        starts[0].start * line + starts[1].start * pixel,
        (group, image, starts[0].step * line, starts[1].step * pixel, line),
    )
    col = np.empty((groups, runs[0].stop - runs[0].start, *windows.shape[2:]), row)
    for images in runs:
        n = images.stop - images.start
        first = images.start - piece.start
        col[:, :n] = windows[:, first : first + n]
        yield images, col[:, :n].view(x.dtype).reshape(groups, n * Ho * Wo, -1)


def column_bytes(y: Array, w: Array, groups: int) -> int:
    """The memory that the columns of one image would take, given the output y."""
    return int(y[0, :, :, 0].size * groups * w[0].nbytes)


def pixels(y: Array, groups: int) -> Array:
    """(N, Ho, Wo, O) seen as (G, N Ho Wo, O/G): a row per pixel, a matrix per group."""
    return y.reshape(-1, groups, y.shape[3] // groups).transpose(1, 0, 2)


def filters(w: Array, groups: int) -> Array:
    """(O, kh, kw, C/G) seen as (G, O/G, kh kw C/G): a row per filter, a matrix per group."""
    return w.reshape(groups, len(w) // groups, -1)


def turned(w: Array, groups: int) -> Array:
    """w as (G, kh kw O/G, C/G): the filters turned round, for each tap and output a row."""
    _, kh, kw, Cg = w.shape
    taps = w[:, ::-1, ::-1].reshape(groups, -1, kh, kw, Cg).transpose(0, 2, 3, 1, 4)
    return taps.reshape(groups, -1, Cg)
