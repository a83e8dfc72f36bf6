"""From stored images to the network's input."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tinyalex.reference.pieces import in_pieces

Array = npt.NDArray[Any]


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
    pixel = np.dtype((np.void, 3 * y.itemsize))  # moved as one item: NumPy is slow on rows of 3

    def work(piece: slice) -> None:
        for n in range(piece.start, piece.stop):
            top, left = corner[n]
            window = np.s_[top : top + size, left : left + size]
            np.subtract(images[n][window], mean[window], out=y[n])
            if flip[n]:
                pixels = y[n].view(pixel)
                pixels[...] = pixels[:, ::-1]
            lines = y[n].reshape(size, -1)
            lines += np.tile(shift[n], size)
            lines *= scale

    in_pieces(work, len(images), y.nbytes)
    return y, None
