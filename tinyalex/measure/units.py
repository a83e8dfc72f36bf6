"""Single units of a network: the pixels that they see, and the images that excite them.

A unit is one channel of a convolution, the same everywhere in an image.
"""

from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np

from tinyalex.data.batches import batches
from tinyalex.data.dataset import Indices, Pixels, Split
from tinyalex.net.layers import LRN, Augment, Conv2d, Row
from tinyalex.net.network import Network, outputs
from tinyalex.system.arrays import Array

BATCH = 64
PATCHES = 8  # of a unit
OUTSIDE = 235  # the grey level of what lies beyond the border


class Field(NamedTuple):
    """The receptive field of a layer's units: the square of the network's input that one sees.

    size: its side in pixels. stride: pixels from one unit to the next in its map. start: where the
    field of the first one begins, below 0 if padding is part of it.
    """

    size: int
    stride: int
    start: int


def receptive_field(rows: Sequence[Row], name: str) -> Field:
    """Receptive field of the units of row `name`, which lies below the first Linear."""
    size, stride, start = 1, 1, 0
    for row in rows:
        window, step, before = row.window
        size, start, stride = size + (window - 1) * stride, start - before * stride, stride * step
        if row.name == name:
            return Field(size, stride, start)
    raise ValueError(f"the network has no row {name!r}")


def patch(image: Pixels, data: Augment, field: Field, row: int, column: int) -> Pixels:
    """Patch of an image that the unit in this row and column of its map sees: uint8 (n, n, 3).

    image: uint8 (image_size, image_size, 3), seen through the centre crop. n: the field's side, and
    beyond the crop there is grey; of a field as large as the crop all of the crop is shown.
    """
    border = (data.image_size - data.size) // 2
    crop = image[border : border + data.size, border : border + data.size]
    if field.size >= data.size:
        return crop
    wide = np.pad(crop, ((field.size,) * 2, (field.size,) * 2, (0, 0)), constant_values=OUTSIDE)
    top, left = (field.start + field.stride * place + field.size for place in (row, column))
    return wide[top : top + field.size, left : left + field.size]


class Strip(NamedTuple):
    """A unit, its number, and the patches that excite it, the strongest first."""

    unit: int
    patches: Sequence[Pixels]


class Responses(NamedTuple):
    """The strongest response of each unit to each image, and where in the map it is.

    value: float32 (images, units), before the activation function, which keeps the order; a unit is
    excited if it is above 0. row, column: int64 (images, units).
    """

    value: Array
    row: Array
    column: Array


def responses(
    network: Network, split: Split, indices: Indices, names: Collection[str], workers: int
) -> dict[str, Responses]:
    """Responses of the convolutions `names` to the images `indices` of a split."""
    chunks: dict[str, list[tuple[Array, Array, Array]]] = {name: [] for name in names}
    for batch in batches(split, indices, BATCH, workers=workers):
        for name, output in outputs(network, batch.images, names):
            n, _, width, units = output.shape
            y = output.reshape(n, -1, units)
            place = y.argmax(1)  # (n, units)
            value = np.take_along_axis(y, place[:, None], 1)[:, 0]
            chunks[name].append((value, *np.divmod(place, width)))
    return {
        name: Responses(*(np.concatenate(parts) for parts in zip(*of_batches, strict=True)))
        for name, of_batches in chunks.items()
    }


def towers(network: Network) -> int:
    """Number of towers, 1 or 2: the largest number of groups."""
    rows = network.architecture.rows
    return max((row.groups for row in rows if isinstance(row, Conv2d | LRN)), default=1)


def most_excited(responses: Responses, towers: int, count: int) -> list[list[int]]:
    """The `count` units of each tower with the strongest responses, the strongest first.

    Units that no image excites are left out.
    """
    strongest = responses.value.max(0)
    per_tower = len(strongest) // towers
    return [
        [
            first + int(unit)
            for unit in np.argsort(-strongest[first : first + per_tower], kind="stable")[:count]
            if strongest[first + unit] > 0
        ]
        for first in range(0, towers * per_tower, per_tower)
    ]


def strongest_images(responses: Responses, unit: int) -> Indices:
    """Up to PATCHES rows of `responses`, the images that excite the unit most, strongest first."""
    value = responses.value[:, unit]
    order = np.argsort(-value, kind="stable")[:PATCHES]
    return order[value[order] > 0]


def strip(
    unit: int, responses: Responses, field: Field, data: Augment, split: Split, indices: Indices
) -> Strip:
    """The unit's patches, at most one an image. responses: to the images `indices` of `split`."""
    patches = []
    for i in strongest_images(responses, unit):
        row, column = int(responses.row[i, unit]), int(responses.column[i, unit])
        patches.append(patch(split.read(int(indices[i])), data, field, row, column))
    return Strip(unit, patches)


def excited(responses: Responses) -> Array:
    """Share of the images that excites each unit."""
    return np.asarray((responses.value > 0).mean(0))


def purity(responses: Responses, labels: Array) -> float | None:
    """Share of a unit's PATCHES strongest images that is of one class, as a mean over units.

    Units that fewer images excite do not count; None if none is left. labels: of all the images.
    """
    strongest = (strongest_images(responses, unit) for unit in range(responses.value.shape[1]))
    shares = [_largest_share(labels[at]) for at in strongest if len(at) == PATCHES]
    return sum(shares) / len(shares) if shares else None


def purity_by_chance(labels: Array) -> float:
    """Purity for images drawn blindly, as a mean over a thousand draws."""
    rng = np.random.default_rng(0)
    draws = (rng.permutation(labels)[:PATCHES] for _ in range(1000))
    return sum(map(_largest_share, draws)) / 1000


def _largest_share(labels: Array) -> float:
    return int(np.bincount(labels).max()) / len(labels)


def colour_specificity(weight: Array) -> Array:
    """Share of colour in each first-layer kernel, 0 to 1; float64 (O,).

    weight: (O, kh, kw, 3). Of each kernel w with the channels r, g and b, and their mean m,

        1 - 3 sum(m^2) / sum(w^2)    (sums over the kernel's pixels, and in w^2 over r, g, b too)

    is the share of its energy that the three channels do not have in common. It is 0 for a grey
    kernel (r = g = b), 1 for one that no grey image excites (r + g + b = 0), and on average 2/3 for
    random weights, since grey is one direction of three. A kernel of zeros has 0.
    """
    w = weight.astype(np.float64)
    energy = np.square(w).sum((1, 2, 3))
    grey = 3 * np.square(w.mean(3)).sum((1, 2))
    # Rounding may leave a grey kernel a hair above its own energy.
    return np.asarray(np.maximum(1 - grey / np.where(energy > 0, energy, 1), 0) * (energy > 0))
