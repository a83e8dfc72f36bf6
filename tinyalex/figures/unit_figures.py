"""Pictures of what a trained network has made of images: patches, neighbours, confusions.

Places and lengths are in pixels, from the top left corner. See `tinyalex.figures.canvas`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageColor

from tinyalex.data.dataset import Pixels
from tinyalex.figures.canvas import (
    BLUE,
    FOOTER,
    HEADER,
    MARGIN,
    OCHRE,
    PALE,
    SUBTITLE,
    TEXT,
    add_axes,
    new_figure,
    paste,
    shortened,
    write,
)
from tinyalex.measure.units import Strip
from tinyalex.system.arrays import Array

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TOP = HEADER + SUBTITLE
NAMED = 20  # classes whose names and numbers still fit a matrix
MATRIX = 640  # the side of a matrix without them
WORST = 12  # pairs of classes beside it


@dataclass(frozen=True)
class Block:
    """A layer: its name, the side of its units' field, and the strips of each tower."""

    name: str
    field: int
    towers: Sequence[Sequence[Strip]]


def patches(blocks: Sequence[Block], title: str, subtitle: str) -> Figure:
    """A few units of each layer, a row of patches each; of two towers one beside the other.

    Patches are printed at the same size, whatever the field.
    """
    side, gap, number, label, between = 64, 4, 44, 100, 32
    columns = [_two_columns(block.towers) for block in blocks]
    longest = max((len(s.patches) for both in columns for ss in both for s in ss), default=0)
    across = number + longest * (side + gap)
    heights = [max(1, *map(len, both)) * (side + gap) + between for both in columns]
    two = len(blocks[0].towers) == 2
    top = TOP + (32 if two else 0)
    width = max(label + 2 * across + between + 2 * MARGIN, 1000)
    note = (
        "A row is a unit, with its number, and the images that excite it most. Below a layer's "
        "name: the pixels that a unit sees; pale grey is beyond the image."
    )
    figure = new_figure(width, top + sum(heights) - between + FOOTER, title, subtitle, note)
    y = top
    for block, both, tall in zip(blocks, columns, heights, strict=True):
        write(figure, MARGIN, y + 28, block.name, 11)
        write(figure, MARGIN, y + 50, f"{block.field} x {block.field}", 9, color=PALE)
        for column, strips in enumerate(both):
            x = MARGIN + label + column * (across + between) + number
            if two and y == top:
                write(figure, x, top - 12, f"tower {'ab'[column]}", 10)
            for row, strip in enumerate(strips):
                down = y + row * (side + gap)
                middle = down + side // 2 + 5
                write(figure, x - 10, middle, f"{strip.unit}", 8.5, color=PALE, ha="right")
                for i, pixels in enumerate(strip.patches):
                    paste(figure, x + i * (side + gap), down, _printed(pixels, side))
        y += tall
    return figure


def neighbors(
    rows: Sequence[Sequence[Pixels]], names: Sequence[Sequence[str]], title: str, subtitle: str
) -> Figure:
    """Figure 4, right: in each row an image, and the training images nearest to it.

    rows: uint8 (S, S, 3) each. names: of their classes.
    """
    side, gap, apart, name_height = 132, 16, 56, 44
    nearest = range(len(rows[0]) - 1)
    columns = [MARGIN, *(MARGIN + side + apart + i * (side + gap) for i in nearest)]
    top, width = TOP + 32, columns[-1] + side + MARGIN
    height = top + len(rows) * (side + name_height) + FOOTER - 16
    note = "In italics: images of another class."
    figure = new_figure(width, height, title, subtitle, note)
    write(figure, columns[0], top - 12, "validation", 10)
    write(figure, columns[1], top - 12, "nearest training images, the nearest first", 10)
    for row, (images, classes) in enumerate(zip(rows, names, strict=True)):
        y = top + row * (side + name_height)
        for x, image, name in zip(columns, images, classes, strict=True):
            paste(figure, x, y, _printed(image, side))
            other = {} if name == classes[0] else {"color": OCHRE, "style": "italic"}
            write(figure, x, y + side + 20, shortened(name, 9, side), 9, **other)
    return figure


def confusion(counts: Array, titles: Sequence[str], title: str, subtitle: str) -> Figure:
    """Matrix of classes taken for others: the darker, the larger a share of the row's images.

    counts: int64 (classes, classes), images of the row's class answered with the column's. Of few
    classes names and numbers are written; the worst pairs stand beside the matrix.
    """
    classes = len(counts)
    named = classes <= NAMED
    together = math.ceil(classes / MATRIX)  # classes that share a pixel
    cell = max(44, min(140, 560 // classes)) if named else max(1, MATRIX // classes)
    dark = np.sqrt(_blocks(_shares(counts), together))  # the root, so that small ones can be seen
    color = 255 + dark[..., None] * (np.array(ImageColor.getrgb(BLUE)) - 255)
    pixels = np.rint(color).astype(np.uint8).repeat(cell, 0).repeat(cell, 1)
    extent = len(pixels)

    names = 154 if named else 32  # the room for them, left and above
    left, top = MARGIN + names, TOP + names
    beside = left + extent + 56
    note = (
        "A row: images of one class. A column: images that were taken for it. "
        "Darker: a larger share of the row."
    )
    width, height = beside + 440 + MARGIN, top + extent + FOOTER
    figure = new_figure(width, height, title, subtitle, note)
    paste(figure, left, top, pixels)
    frame = add_axes(figure, left - 1, top - 1, extent + 2, extent + 2)
    frame.patch.set_visible(False)
    frame.set(xticks=[], yticks=[])
    frame.spines[:].set_color(PALE)
    order = "" if named else ", the classes in order of their labels"
    write(figure, left, TOP + 12 if named else top - 12, f"predicted{order}", 9, color=PALE)
    write(figure, MARGIN + 12, top, "true", 9, color=PALE, rotation=90, va="top", ha="center")
    if named:
        middles = [round((c + 0.5) * cell) for c in range(classes)]
        for name, middle in zip(titles, middles, strict=True):
            text = shortened(name, 9, 120)
            write(figure, left - 10, top + middle + 5, text, 9, ha="right")
            write(figure, left + middle + 5, top - 10, text, 9, rotation=90, ha="center")
        for true, answered in np.argwhere(counts):
            x, y = left + (answered + 0.5) * cell, top + middles[true] + 5
            style = {"ha": "center", "color": "white" if dark[true, answered] > 0.6 else TEXT}
            write(figure, x, y, f"{counts[true, answered]:,}", 8, **style)

    write(figure, beside, top + 10, "Most often taken for another", 10)
    for row, (true, answered) in enumerate(worst(counts, WORST)):
        y, number = top + 38 + 26 * row, f"{counts[true, answered]:,} of {counts[true].sum():,}"
        write(figure, beside, y, shortened(titles[true], 9, 150), 9)
        write(figure, beside + 165, y, shortened(f"for {titles[answered]}", 9, 165), 9)
        write(figure, beside + 440, y, number, 9, ha="right")
    return figure


def worst(counts: Array, most: int) -> list[tuple[int, int]]:
    """Up to `most` pairs (true, answered) of different classes that were mixed up.

    Those come first in which the largest share of the images of the true class went wrong.
    """
    share = _shares(counts)
    np.fill_diagonal(share, 0)
    order = np.argsort(-share, axis=None, kind="stable")[:most]
    pairs = (divmod(int(i), len(counts)) for i in order)
    return [(true, answered) for true, answered in pairs if share[true, answered] > 0]


def _shares(counts: Array) -> Array:
    """Counts as fractions of their row."""
    return np.asarray(counts / np.maximum(counts.sum(1, keepdims=True), 1))


def _two_columns(towers: Sequence[Sequence[Strip]]) -> Sequence[Sequence[Strip]]:
    """The two towers, or the two halves of a single one."""
    if len(towers) == 2:
        return towers
    (strips,) = towers
    half = (len(strips) + 1) // 2
    return strips[:half], strips[half:]


def _printed(pixels: Pixels, side: int) -> Pixels:
    """Pixels at another size: enlarged by repeating them, reduced by averaging them."""
    method = Image.Resampling.NEAREST if len(pixels) <= side else Image.Resampling.BOX
    return np.asarray(Image.fromarray(pixels).resize((side, side), method))


def _blocks(share: Array, size: int) -> Array:
    """The largest of each block of size x size, the last ones filled up with zeros."""
    side = math.ceil(len(share) / size)
    filled = np.zeros((side * size, side * size))
    filled[: len(share), : len(share)] = share
    return np.asarray(filled.reshape(side, size, side, size).max((1, 3)))
