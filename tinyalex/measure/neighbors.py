"""Nearest training images: in the last hidden layer, as in Figure 4 of the paper, and in pixels."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tinyalex.data.batches import batches
from tinyalex.data.dataset import Dataset, Indices, Pixels, Split
from tinyalex.errors import DataError
from tinyalex.net.layers import Augment
from tinyalex.net.network import Network, outputs
from tinyalex.system.arrays import Array

NEAREST = 6  # the columns of the paper's Figure 4
QUERIES, POINTS = 500, 5000  # validation images that are asked for, training images among which
BATCH = 64
THUMBNAIL = 32  # pixels a side are enough to tell which images are alike pixel by pixel
LAYER, PIXELS = "last hidden layer", "pixels"


@dataclass(frozen=True)
class Neighbors:
    """queries: int64 (n,), validation images. points: int64 (m,), training images.

    nearest: by LAYER and by PIXELS, int64 (n, NEAREST): which training images, the nearest first.
    """

    queries: Indices
    points: Indices
    nearest: dict[str, Indices]

    def same_class(self, dataset: Dataset, space: str) -> Array:
        """True if each neighbour is of its query's class: bool (n, NEAREST)."""
        own = dataset.require_val().labels[self.queries]
        return np.asarray(dataset.train.labels[self.nearest[space]] == own[:, None])

    def chance(self, dataset: Dataset) -> float:
        """Frequency with which a training image drawn blindly has the query's class."""
        shares = np.bincount(dataset.train.labels[self.points], minlength=len(dataset.classes))
        return float(shares[dataset.require_val().labels[self.queries]].mean() / len(self.points))


def check(dataset: Dataset) -> None:
    """Raise DataError without validation images, or with too few training images."""
    dataset.require_val()
    if len(dataset.train.labels) < NEAREST:
        raise DataError(
            f"{dataset.name} has {len(dataset.train.labels)} training images, and {NEAREST} are "
            "needed for the nearest of them. Give --data with more."
        )


def neighbors(
    network: Network,
    dataset: Dataset,
    workers: int,
    after_batch: Callable[[int], object] = lambda images: None,
) -> Neighbors:
    """The training images nearest to validation images, by Euclidean distance.

    Of many images a sample is taken, always the same; after_batch hears how many were done. Raises
    DataError, see `check`.
    """
    check(dataset)
    queries = sample(len(dataset.require_val().labels), QUERIES)
    points = sample(len(dataset.train.labels), POINTS)
    asked = features(network, dataset.require_val(), queries, workers, after_batch)
    known = features(network, dataset.train, points, workers, after_batch)
    near = {space: points[nearest(asked[space], known[space])] for space in asked}
    return Neighbors(queries, points, near)


def sample(count: int, limit: int) -> Indices:
    """Draw at most `limit` of `count` images, whatever their order, and return them in order."""
    return np.sort(np.random.default_rng(0).permutation(count)[:limit])


def features(
    network: Network,
    split: Split,
    indices: Indices,
    workers: int,
    after_batch: Callable[[int], object] = lambda images: None,
) -> dict[str, Array]:
    """The last hidden layer (what the last row reads) and the pixels of images, float64 (n, F).

    The layer is that of evaluation, where dropout at most scales it; images are seen through the
    centre crop.
    """
    data, below = network.architecture.data, network.architecture.rows[-2].name
    layer, pixels = [], []
    for batch in batches(split, indices, BATCH, workers=workers):
        n = len(batch.images)
        _, output = next(outputs(network, batch.images, [below]))
        layer.append(output.reshape(n, -1).astype(np.float64))
        pixels.append(thumbnails(batch.images, data).reshape(n, -1))
        after_batch(n)
    return {LAYER: np.concatenate(layer), PIXELS: np.concatenate(pixels)}


def thumbnails(images: Pixels, data: Augment) -> Array:
    """The centre crop, averaged over squares of equal size to at most 63 pixels a side.

    images: uint8 (n, image_size, image_size, 3). Returns float64 (n, t, t, 3).
    """
    n, border = len(images), (data.image_size - data.size) // 2
    square = max(1, data.size // THUMBNAIL)
    t = data.size // square
    end = border + t * square
    crop = images[:, border:end, border:end].reshape(n, t, square, t, square, 3)
    return np.asarray(crop.mean((2, 4), dtype=np.float64))


def nearest(queries: Array, points: Array) -> Indices:
    """The NEAREST rows of `points` (m, F) to each of `queries` (n, F), the nearest first.

    Of equally distant ones the lower row comes first. |q - p|^2 = |q|^2 - 2 q p + |p|^2, of which
    |q|^2 is the same for all p.
    """
    distance = np.square(points).sum(1) - 2 * queries @ points.T
    return np.argsort(distance, axis=1, kind="stable")[:, :NEAREST]
