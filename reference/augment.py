"""Augmentation: stored images to the network's input."""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from tinyalex.reference.threads import in_pieces, in_runs
from tinyalex.system.arrays import Array


def augment(
    images: Array, mean: Array, corner: Array, flip: Array, shift: Array, size: int, scale: float
) -> tuple[Array, None]:
    """y = scale * (flip(crop(images - mean)) + shift). Section 4.1 of the paper.

    images: uint8 (N, S, S, 3). mean: (S, S, 3), on the scale 0 to 255; y follows its dtype.
    corner: int (N, 2), top and left of the crop, which the mean moves with. flip: (N,), 1 mirrors
    left and right. shift: (N, 3), added to the colour of all pixels. size: side of the crop.
    y: (N, size, size, 3). Nothing is cached and there is no backward: images are not trained.
    """
    if corner.min() < 0 or corner.max() + size > images.shape[1]:
        raise ValueError(f"a crop of {size} reaches beyond images of {images.shape[1]} pixels")
    y = np.empty((len(images), size, size, 3), mean.dtype)
    pixels = y.view(np.dtype((np.void, 3 * y.itemsize)))  # as one item: NumPy is slow on rows of 3
    lines = y.reshape(len(y), size, -1)
    of_images, of_mean = crops(images, size), crops(mean[np.newaxis], size)[0]

    def work(piece: slice) -> None:
        for run in in_runs(piece, y[:1].nbytes):
            n = np.arange(run.start, run.stop)
            top, left = corner[run].T
            np.subtract(of_images[n, top, left], of_mean[top, left], out=lines[run])
            mirrored = n[flip[run] != 0]
            pixels[mirrored] = pixels[mirrored][:, :, ::-1]
            lines[run] += np.tile(shift[run], size)[:, np.newaxis]
            lines[run] *= scale

    in_pieces(work, len(images), y.nbytes)
    return y, None


def crops(images: Array, size: int) -> Array:
    """All crops of each image, a view: at [image, top, left] the crop's lines, (size, 3 size)."""
    lines = images.reshape(*images.shape[:2], -1)
    return sliding_window_view(lines, (size, 3 * size), (1, 2))[:, :, ::3]
