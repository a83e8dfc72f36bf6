"""Pictures of what a trained network has made of images: patches, neighbours, confusions.

Places and lengths are in pixels, from the top left corner. See `tinyalex.figures.canvas`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageColor

from tinyalex.figures.canvas import (
    BLUE,
    FOOTER,
    HEADER,
    HOW,
    MARGIN,
    OCHRE,
    PALE,
    TEXT,
    add_axes,
    new_figure,
    shortened,
    write,
)
from tinyalex.measure.units import Strip

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Pixels = npt.NDArray[np.uint8]

NAMED = 20  # classes whose names and numbers still fit a matrix
MATRIX = 640  # the side of a matrix without them
WORST = 12  # pairs of classes beside it


@dataclass(frozen=True)
class Block:
    """A layer: its name, the side of its units' field, and the strips of each tower."""

    name: str
    field: int
    towers: Sequence[Sequence[Strip]]


def patches(blocks: Sequence[Block], title: str, how: str) -> Figure:
    """Of each layer some units, a row of patches each; of two towers one beside the other.

    Patches are printed at the same size, whatever the field.
    """
    side, gap, number, label, between = 64, 4, 44, 100, 32
    columns = [_two_columns(block.towers) for block in blocks]
    longest = max((len(s.patches) for both in columns for ss in both for s in ss), default=0)
    across = number + longest * (side + gap)
    heights = [max(1, *map(len, both)) * (side + gap) + between for both in columns]
    two = len(blocks[0].towers) == 2
    top = HEADER + HOW + (32 if two else 0)
    width = max(label + 2 * across + between + 2 * MARGIN, 1000)
    height = top + sum(heights) - between + FOOTER
    canvas = np.full((height - top - FOOTER, width - 2 * MARGIN, 3), 255, np.uint8)

    figure = new_figure(width, height, title, how)
    y = 0
    for block, both, tall in zip(blocks, columns, heights, strict=True):
        write(figure, MARGIN, top + y + 28, block.name, 11)
        write(figure, MARGIN, top + y + 50, f"{block.field} x {block.field}", 9, color=PALE)
        for column, strips in enumerate(both):
            x = label + column * (across + between)
            if two and y == 0:
                write(figure, MARGIN + x + number, top - 12, f"tower {'ab'[column]}", 10)
            for row, strip in enumerate(strips):
                down = y + row * (side + gap)
                place = MARGIN + x + number - 10, top + down + side // 2 + 5
                write(figure, *place, f"{strip.unit}", 8.5, color=PALE, ha="right")
                for i, pixels in enumerate(strip.patches):
                    left = x + number + i * (side + gap)
                    canvas[down : down + side, left : left + side] = _printed(pixels, side)
        y += tall
    figure.figimage(canvas, MARGIN, FOOTER, origin="upper")
    note = (
        "A row is a unit, with its number, and the images that excite it most. Below a layer's "
        "name: the pixels that a unit sees; pale grey is beyond the image."
    )
    write(figure, MARGIN, height - 24, shortened(note, 9, width - 2 * MARGIN), 9, color=PALE)
    return figure


def neighbors(
    queries: Pixels,
    nearest: Pixels,
    names: Sequence[str],
    nearest_names: Sequence[Sequence[str]],
    title: str,
    how: str,
) -> Figure:
    """Figure 4, right: in each row an image, and the training images nearest to it.

    queries: uint8 (n, S, S, 3). nearest: uint8 (n, k, S, S, 3). names: their classes.
    """
    side, gap, apart, name_height = 132, 16, 56, 44
    n, k = nearest.shape[:2]
    width = side + apart + k * (side + gap) - gap + 2 * MARGIN
    top = HEADER + HOW + 32
    height = top + n * (side + name_height) + FOOTER - 16
    figure = new_figure(width, height, title, how)
    canvas = np.full((height - top - FOOTER, width - 2 * MARGIN, 3), 255, np.uint8)
    first = side + apart
    write(figure, MARGIN, top - 12, "validation", 10)
    write(figure, MARGIN + first, top - 12, "nearest training images, the nearest first", 10)
    for row in range(n):
        y = row * (side + name_height)
        images = [(0, queries[row], names[row])]
        images += [
            (first + i * (side + gap), nearest[row, i], nearest_names[row][i]) for i in range(k)
        ]
        for x, image, name in images:
            canvas[y : y + side, x : x + side] = _printed(image, side)
            other = {} if name == names[row] else {"color": OCHRE, "style": "italic"}
            text = shortened(name, 9, side)
            write(figure, MARGIN + x, top + y + side + 20, text, 9, **other)
    figure.figimage(canvas, MARGIN, FOOTER, origin="upper")
    write(figure, MARGIN, height - 24, "In italics: images of another class.", 9, color=PALE)
    return figure


def confusion(counts: npt.NDArray[np.int64], titles: Sequence[str], title: str, how: str) -> Figure:
    """Which classes are taken for which: the darker, the larger a share of the row's images.

    counts: (classes, classes), images of the row's class that were answered with the column's.
    Of few classes names and numbers are written; the worst pairs stand beside the matrix.
    """
    classes = len(counts)
    named = classes <= NAMED
    together = math.ceil(classes / MATRIX)  # classes that share a pixel
    cell = max(44, min(140, 560 // classes)) if named else max(1, MATRIX // classes)
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    dark = np.sqrt(_blocks(share, together))  # the root, so that small shares can be seen
    pixels = np.rint(255 + dark[..., None] * (np.array(ImageColor.getrgb(BLUE)) - 255)).astype(
        np.uint8
    )
    pixels = pixels.repeat(cell, 0).repeat(cell, 1)
    extent = len(pixels)

    left, top = (MARGIN + 130, HEADER + HOW + 130) if named else (MARGIN + 32, HEADER + HOW + 32)
    beside = left + extent + 56
    width, height = beside + 440 + MARGIN, top + extent + FOOTER
    figure = new_figure(width, height, title, how)
    figure.figimage(pixels, left, FOOTER, origin="upper")
    frame = add_axes(figure, left - 1, top - 1, extent + 2, extent + 2)
    frame.patch.set_visible(False)
    frame.set(xticks=[], yticks=[])
    frame.spines[:].set_color(PALE)
    if named:
        for c, name in enumerate(titles):
            middle = round((c + 0.5) * cell)
            text = shortened(name, 9, 120)
            write(figure, left - 10, top + middle + 5, text, 9, ha="right")
            write(figure, left + middle + 5, top - 10, text, 9, rotation=90, ha="center")
            for other, number in enumerate(counts[c]):
                if number:
                    x, color = (
                        left + (other + 0.5) * cell,
                        "white" if dark[c, other] > 0.6 else TEXT,
                    )
                    write(figure, x, top + middle + 5, f"{number:,}", 8, ha="center", color=color)
    else:
        write(figure, left, top - 12, "answered, the classes in order of their labels", 9)
        write(figure, left - 12, top, "true", 9, rotation=90, va="top", ha="center")

    write(figure, beside, top + 10, "Most often taken for another", 10)
    y = top + 38
    for true, answered in worst(counts, WORST):
        number = f"{counts[true, answered]:,} of {counts[true].sum():,}"
        write(figure, beside, y, shortened(titles[true], 9, 150), 9)
        write(figure, beside + 165, y, shortened(f"for {titles[answered]}", 9, 165), 9)
        write(figure, beside + 440, y, number, 9, ha="right")
        y += 26
    note = "A row: images of one class. A column: images that were taken for it. "
    note += "Darker: a larger share of the row."
    write(figure, MARGIN, height - 24, note, 9, color=PALE)
    return figure


def worst(counts: npt.NDArray[np.int64], most: int) -> list[tuple[int, int]]:
    """Up to `most` pairs (true, answered) of different classes that were mixed up.

    Those come first in which the largest share of the images of the true class went wrong.
    """
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    np.fill_diagonal(share, 0)
    order = np.argsort(-share, axis=None, kind="stable")[:most]
    pairs = (divmod(int(i), len(counts)) for i in order)
    return [(true, answered) for true, answered in pairs if share[true, answered] > 0]


def _two_columns(towers: Sequence[Sequence[Strip]]) -> Sequence[Sequence[Strip]]:
    """The two towers, or the two halves of a single one."""
    if len(towers) == 2:
        return towers
    (strips,) = towers
    half = (len(strips) + 1) // 2
    return strips[:half], strips[half:]


def _printed(pixels: Pixels, side: int) -> Pixels:
    """At another size: enlarged by repeating pixels, reduced by averaging them."""
    how = Image.Resampling.NEAREST if len(pixels) <= side else Image.Resampling.BOX
    return np.asarray(Image.fromarray(pixels).resize((side, side), how))


def _blocks(share: npt.NDArray[np.float64], size: int) -> npt.NDArray[np.float64]:
    """The largest of each block of size x size, the last ones filled up with zeros."""
    side = math.ceil(len(share) / size)
    filled = np.zeros((side * size, side * size))
    filled[: len(share), : len(share)] = share
    return np.asarray(filled.reshape(side, size, side, size).max((1, 3)))
