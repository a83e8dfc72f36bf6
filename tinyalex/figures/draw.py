"""The pictures of a run: what is taken from where.

How they are drawn: `tinyalex.figures.run_figures` and `tinyalex.figures.unit_figures`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tinyalex.data.batches import read_images
from tinyalex.data.dataset import Dataset, Indices
from tinyalex.errors import UsageError, printable
from tinyalex.figures import canvas, run_figures, unit_figures
from tinyalex.measure.evaluate import confusion as count_confusions
from tinyalex.measure.evaluate import measured_on, probabilities
from tinyalex.measure.neighbors import LAYER, NEAREST, PIXELS, Neighbors
from tinyalex.measure.neighbors import neighbors as find_neighbors
from tinyalex.measure.units import towers
from tinyalex.net.layers import Conv2d
from tinyalex.net.network import Network
from tinyalex.runs.config import Config, from_file
from tinyalex.runs.folder import RunFolder
from tinyalex.system.arrays import Array

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EXAMPLES, QUERIES = 8, 5  # of the paper's Figure 4, left and right
BATCH = 128


def curves(folder: RunFolder) -> Figure:
    """Loss and errors over the epochs. Raises UsageError if the folder does not hold them."""
    for needed in (folder.path / "config.toml", folder.metrics):
        if not needed.exists():
            raise UsageError(
                f"There is no {needed}, which the curves are drawn from. Name the folder that the "
                "run was trained in, or copy the file from there."
            )
    config = from_file(folder.path / "config.toml", Config())
    images = printable(Path(config.data).name) if config.data else "shapes"
    return run_figures.curves(folder.records(), f"{config.arch} on {images}")


def filters(network: Network) -> Figure:
    """The first layer's kernels, tower a above tower b."""
    name, weight = first_kernels(network)
    title = f"{name} of {network.architecture.name}: {len(weight)} kernels"
    return run_figures.filters(weight, towers(network), title)


def first_kernels(network: Network) -> tuple[str, Array]:
    """The first convolution's name and weights, float32 (O, kh, kw, 3)."""
    first = next(row for row in network.architecture.rows if isinstance(row, Conv2d))
    return first.name, network.ops.to_numpy(network.parameters[f"{first.name}.weight"])


def predictions(network: Network, dataset: Dataset, workers: int) -> Figure:
    """Answers on images spread evenly over those that errors are measured on."""
    (split, which), chosen = measured_on(dataset), examples(dataset)
    images = read_images(split, chosen, workers)
    probs = probabilities([network], images)
    title = f"{network.architecture.name} on {which} images of {dataset.name}"
    return run_figures.predictions(images, probs, split.labels[chosen], dataset.titles, title)


def examples(dataset: Dataset) -> Indices:
    """Examples of the images that errors are measured on, spread evenly over them."""
    count = len(measured_on(dataset)[0].labels)
    return np.linspace(0, count - 1, min(EXAMPLES, count)).astype(np.int64)


def neighbors(network: Network, dataset: Dataset, workers: int) -> Figure:
    """Validation images and the training images nearest to them in the last hidden layer."""
    near = find_neighbors(network, dataset, workers)
    title = f"{network.architecture.name} on {dataset.name}: nearest training images"
    layer, pixels = (100 * near.same_class(dataset, s).mean() for s in (LAYER, PIXELS))
    subtitle = (
        f"Of the {NEAREST} nearest of {len(near.points):,} images, {layer:.1f} % are of the same "
        f"class; of the nearest in pixels {pixels:.1f} %; by chance "
        f"{100 * near.chance(dataset):.1f} %"
    )
    return neighbors_figure(near, dataset, title, subtitle)


def neighbors_figure(near: Neighbors, dataset: Dataset, title: str, subtitle: str) -> Figure:
    """The first validation image of each of up to five classes, and its neighbours."""
    train, val = dataset.train, dataset.require_val()
    labels = val.labels[near.queries]
    classes, first = np.unique(labels, return_index=True)
    chosen = first[np.linspace(0, len(classes) - 1, min(QUERIES, len(classes))).astype(int)]
    rows, names = [], []
    for query in chosen:
        nearest = near.nearest[LAYER][query]
        images = [val.read(int(near.queries[query])), *(train.read(int(i)) for i in nearest)]
        rows.append(images)
        names.append([dataset.titles[i] for i in (labels[query], *train.labels[nearest])])
    return unit_figures.neighbors(rows, names, title, subtitle)


def confusion(network: Network, dataset: Dataset, workers: int) -> Figure:
    """Confusion of classes, on the images that errors are measured on."""
    split, which = measured_on(dataset)
    counts = count_confusions([network], split, BATCH, workers)
    total, wrong = counts.sum(), counts.sum() - np.trace(counts)
    title = f"{network.architecture.name} on {which} images of {dataset.name}"
    subtitle = f"{wrong:,} of {total:,} images wrong: top-1 error {100 * wrong / total:.2f} %"
    return unit_figures.confusion(counts, dataset.titles, title, subtitle)


def draw_all(folder: RunFolder, network: Network, dataset: Dataset, workers: int) -> None:
    """curves.png, filters.png and predictions.png in the run's folder."""
    canvas.save(curves(folder), folder.path / "curves.png")
    canvas.save(filters(network), folder.path / "filters.png")
    canvas.save(predictions(network, dataset, workers), folder.path / "predictions.png")
