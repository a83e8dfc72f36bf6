"""Augmentation, stored images to the network's input: one thread per element of y."""

from __future__ import annotations

from typing import Any

from numpy import float32

from tinyalex.gpu.device import Array, empty, inline, split
from tinyalex.gpu.launch import Bytes, Floats, Ints, kernel


@inline
def pixel(
    images: Bytes,
    mean: Floats,
    corner: Ints,
    flip: Bytes,
    shift: Floats,
    scale: float,
    n: int,
    row: int,
    column: int,
    c: int,
    side: int,
    size: int,
) -> Any:
    """y[n, row, column, c] of `augment`; side is S."""
    if flip[n]:
        column = size - 1 - column
    at = ((corner[2 * n] + row) * side + corner[2 * n + 1] + column) * 3 + c
    return (float32(images[n * side * side * 3 + at]) - mean[at] + shift[3 * n + c]) * scale


@kernel
def augment_kernel(
    i: int,
    images: Bytes,
    mean: Floats,
    corner: Ints,
    flip: Bytes,
    shift: Floats,
    y: Floats,
    scale: float,
    side: int,
    size: int,
) -> None:
    t, c = split(i, 3)
    t, column = split(t, size)
    n, row = split(t, size)
    y[i] = pixel(images, mean, corner, flip, shift, scale, n, row, column, c, side, size)


def augment(
    images: Array, mean: Array, corner: Array, flip: Array, shift: Array, size: int, scale: float
) -> tuple[Array, None]:
    """y = scale * (flip(crop(images - mean)) + shift). Section 4.1 of the paper.

    images: uint8 (N, S, S, 3). mean: (S, S, 3), on the scale 0 to 255. corner: int32 (N, 2), top
    and left of the crop, which lies inside the image. flip: uint8 (N,), 1 mirrors left and right.
    shift: (N, 3). size: side of the crop. y: (N, size, size, 3). Nothing is cached.
    """
    check_views(images, mean, corner, flip, shift, size)
    y = empty((len(images), size, size, 3))
    augment_kernel(y.size, images, mean, corner, flip, shift, y, scale, images.shape[1], size)
    return y, None


def check_views(
    images: Array, mean: Array, corner: Array, flip: Array, shift: Array, size: int
) -> None:
    """Raise ValueError unless the arguments of `augment` fit each other.

    Where the corners lie stays unseen: looking would mean to wait for the device.
    """
    N, side = images.shape[:2]
    shapes = [a.shape for a in (images, mean, corner, flip, shift)]
    if shapes != [(N, side, side, 3), (side, side, 3), (N, 2), (N,), (N, 3)] or size > side:
        raise ValueError(f"images, mean, corner, flip, shift {shapes} and size {size} do not fit")
