"""Convolution in groups, as matrix products over unfolded columns."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from tinyalex.reference.pieces import in_cache, in_pieces
from tinyalex.shapes import conv_size

Array = npt.NDArray[Any]
Cache = tuple[Array, Array, int, int, int]


def conv2d(
    x: Array, w: Array, b: Array, stride: int = 1, pad: int = 0, groups: int = 1
) -> tuple[Array, Cache]:
    """y[n,i,j,o] = b[o] + sum over r,s,c of w[o,r,s,c] x[n, i stride+r-pad, j stride+s-pad, c].

    x: (N, H, W, C), zero beyond its border. w: (O, kh, kw, C/groups). b: (O,). y: (N, Ho, Wo, O).
    Filters come in `groups` runs of O/groups; those of run g see the g-th run of channels only, so
    that two groups are the two towers of Figure 2. The cache keeps x and w: columns are unfolded
    again in the backward pass, which costs less than the memory to keep them.
    """
    if x.shape[3] != groups * w.shape[3] or len(w) % groups or b.shape != w.shape[:1]:
        raise ValueError(f"x {x.shape}, w {w.shape}, b {b.shape} and {groups} groups do not fit")
    (N, H, W, _), (O, kh, kw, _) = x.shape, w.shape
    Ho, Wo = conv_size(H, kh, stride, pad), conv_size(W, kw, stride, pad)
    y = np.empty((N, Ho, Wo, O), x.dtype)

    def work(piece: slice) -> None:
        for images, col in columns(x, piece, w, stride, pad, groups):
            np.matmul(col, filters(w, groups).transpose(0, 2, 1), out=pixels(y[images], groups))
            y[images] += b

    in_pieces(work, N, N * column_bytes(y, w, groups))
    return y, (x, w, stride, pad, groups)


def conv2d_backward(
    dy: Array, cache: Cache, need_dx: bool = True
) -> tuple[Array | None, Array, Array]:
    """dx, dw, db of conv2d: the sum of the forward, read for each of its three factors.

    dw[o,r,s,c] = sum over n,i,j of dy[n,i,j,o] x[n, i stride+r-pad, j stride+s-pad, c]
    dx[n, i stride+r-pad, j stride+s-pad, c] += sum over o of dy[n,i,j,o] w[o,r,s,c]
    db[o] = sum over n,i,j of dy[n,i,j,o]. dx is None unless needed: images are not trained.
    """
    x, w, stride, pad, groups = cache
    dx = np.empty_like(x) if need_dx else None

    def work(piece: slice) -> tuple[Array, Array]:
        dw, db = np.zeros_like(filters(w, groups)), np.zeros_like(dy[0, 0, 0])
        for images, col in columns(x, piece, w, stride, pad, groups):
            dw += pixels(dy[images], groups).transpose(0, 2, 1) @ col
            db += dy[images].sum((0, 1, 2))
        if dx is not None:
            for images in in_cache(piece, x[:1].nbytes + dy[:1].nbytes):
                dx[images] = input_gradient(dy[images], w, x[images].shape, stride, pad, groups)
        return dw, db

    parts = in_pieces(work, len(x), len(x) * column_bytes(dy, w, groups))
    dws, dbs = zip(*parts, strict=True)
    return dx, sum(dws[1:], dws[0]).reshape(w.shape), sum(dbs[1:], dbs[0])


def input_gradient(
    dy: Array, w: Array, shape: tuple[int, ...], stride: int, pad: int, groups: int
) -> Array:
    """The dx of conv2d_backward: for each tap (r, s) one product, added where the tap looked."""
    N, H, W, _ = shape
    _, Ho, Wo, _ = dy.shape
    _, kh, kw, Cg = w.shape
    dx = np.zeros((N, H + 2 * pad, W + 2 * pad, groups, Cg), dy.dtype)
    taps = filters(w, groups).reshape(groups, -1, kh, kw, Cg)
    for r in range(kh):
        for s in range(kw):
            tap = pixels(dy, groups) @ taps[:, :, r, s]  # (G, N Ho Wo, C/G)
            tap = tap.reshape(groups, N, Ho, Wo, Cg).transpose(1, 2, 3, 0, 4)
            dx[:, r : r + stride * Ho : stride, s : s + stride * Wo : stride] += tap
    return dx[:, pad : pad + H, pad : pad + W].reshape(shape)


def columns(
    x: Array, piece: slice, w: Array, stride: int, pad: int, groups: int
) -> Iterator[tuple[slice, Array]]:
    """Unfolds x a few images at a time: (images, col), (G, images Ho Wo, kh kw C/G).

    col[g, (n,i,j), (r,s,c)] = x[n, i stride+r-pad, j stride+s-pad, c of group g]. It is one buffer,
    used again for the next images, that stays in the core's cache.
    """
    _, H, W, C = x.shape
    _, kh, kw, Cg = w.shape
    Ho, Wo = conv_size(H, kh, stride, pad), conv_size(W, kw, stride, pad)
    runs = list(in_cache(piece, groups * Ho * Wo * w[0].nbytes))
    longest = runs[0].stop - runs[0].start
    padded = np.zeros((longest, H + 2 * pad, W + 2 * pad, C), x.dtype)
    windows = sliding_window_view(padded, (kh, kw), (1, 2))[:, ::stride, ::stride]
    windows = windows.reshape(longest, Ho, Wo, groups, Cg, kh, kw).transpose(3, 0, 1, 2, 5, 6, 4)
    col = np.empty(windows.shape, x.dtype)
    for images in runs:
        n = images.stop - images.start
        padded[:n, pad : pad + H, pad : pad + W] = x[images]
        col[:, :n] = windows[:, :n]
        yield images, col[:, :n].reshape(groups, n * Ho * Wo, kh * kw * Cg)


def column_bytes(y: Array, w: Array, groups: int) -> int:
    """The memory that the columns of one image would take, given the output y."""
    return int(y[0, :, :, 0].size * groups * w[0].nbytes)


def pixels(y: Array, groups: int) -> Array:
    """(N, Ho, Wo, O) seen as (G, N Ho Wo, O/G): a row per pixel, a matrix per group."""
    return y.reshape(-1, groups, y.shape[3] // groups).transpose(1, 0, 2)


def filters(w: Array, groups: int) -> Array:
    """(O, kh, kw, C/G) seen as (G, O/G, kh kw C/G): a row per filter, a matrix per group."""
    return w.reshape(groups, len(w) // groups, -1)
