"""The pictures of a run: what is taken from where.

How they are drawn: `tinyalex.figures.run_figures` and `tinyalex.figures.unit_figures`.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tinyalex.data.batches import read_images
from tinyalex.data.dataset import Dataset, Indices, Pixels, Split
from tinyalex.errors import UsageError, printable
from tinyalex.figures import canvas, run_figures, unit_figures
from tinyalex.measure.evaluate import confusion as count_confusions
from tinyalex.measure.evaluate import interval_in_words, measured_on, probabilities
from tinyalex.measure.neighbors import LAYER, NEAREST, PIXELS, Neighbors
from tinyalex.measure.neighbors import neighbors as find_neighbors
from tinyalex.measure.units import towers
from tinyalex.net.draws import initial_parameters
from tinyalex.net.layers import Conv2d
from tinyalex.net.network import Network
from tinyalex.net.presets import Architecture
from tinyalex.runs.config import Config, from_file
from tinyalex.runs.folder import RunFolder
from tinyalex.runs.progress import Progress, watched
from tinyalex.system.arrays import Array

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EXAMPLES, QUERIES = 8, 5  # of the paper's Figure 4, left and right
BATCH = 128
SOME, SEEN = 64, 512  # images among which mistakes are looked for: at once, and at most
NOISE = 0.8  # correlation with their initial values from which kernels show little else
TOWERS = ("tower a: GPU 1 in the paper", "tower b: GPU 2 in the paper")


def origin(folder: RunFolder, progress: Progress) -> str:
    """Say of which run and epoch a picture is."""
    name = printable(folder.path.resolve().name)
    if not progress.step:
        return f"{name}: weights that were not trained here"
    running = f", step {progress.step:,}" if progress.batch else ""
    return f"run {name}, epoch {progress.epoch}{running}"


def curves(folder: RunFolder, images: int) -> tuple[list[dict[str, Any]], str, str]:
    """The records of a run, and the title and subtitle of their curves.

    images: for validation, or 0 where that is not known. Raises UsageError if the folder does not
    hold them.
    """
    for needed in (folder.path / "config.toml", folder.metrics):
        if not needed.exists():
            raise UsageError(
                f"There is no {needed}, which the curves are drawn from. Name the folder that the "
                "run was trained in, or copy the file from there."
            )
    config, records = from_file(folder.path / "config.toml", Config()), folder.records()
    shown = printable(Path(config.data).name) if config.data else "shapes"
    epochs = run_figures.latest(records, "epoch")
    subtitle = (
        f"run {printable(folder.path.resolve().name)}, {len(epochs)} of {config.epochs} epochs"
    )
    best = min(map(dict, epochs), key=watched, default={})
    if "val_top1_error" in best:
        error = best["val_top1_error"]
        subtitle += f"; best: epoch {best['epoch']}, validation top-1 error {100 * error:.2f} %"
        subtitle += f" ({interval_in_words(error, images)})" if images else ""
    return records, f"{config.arch} on {shown}", subtitle


def filters(network: Network, made: str, initial: Array | None) -> Figure:
    """The first layer's kernels, tower a above tower b.

    made, initial: as `origin` and `initial_kernels` give them.
    """
    name, weight = first_kernels(network)
    title = f"{name} of {network.architecture.name}: {len(weight)} kernels, {made}"
    count = towers(network)
    labels = TOWERS if count == 2 else ()
    return run_figures.filters(weight, count, title, moved_in_words(weight, initial), labels)


def first_kernels(network: Network) -> tuple[str, Array]:
    """The first convolution's name and weights, float32 (O, kh, kw, 3)."""
    first = next(row for row in network.architecture.rows if isinstance(row, Conv2d))
    return first.name, network.ops.to_numpy(network.parameters[f"{first.name}.weight"])


def initial_kernels(architecture: Architecture, config: Config, progress: Progress) -> Array | None:
    """The first convolution's weights before training, or None where other weights came first."""
    if config.weights or not progress.step:
        return None
    rows = architecture.rows
    first = next(i for i, row in enumerate(rows) if isinstance(row, Conv2d))
    below = replace(architecture, rows=rows[: first + 1])  # all of alexnet's takes a second
    return initial_parameters(below, config.seed)[f"{rows[first].name}.weight"]


def moved_in_words(weight: Array, initial: Array | None) -> str:
    """Say how far training has taken kernels from their initial values, where these are known."""
    if initial is None:
        return ""
    likeness = float(np.corrcoef(weight.ravel(), initial.ravel())[0, 1])
    noise = ": still mostly the noise they began as" if likeness > NOISE else ""
    return f"Correlation with their initial values {likeness:.2f}{noise}."


def predictions(network: Network, dataset: Dataset, workers: int, made: str) -> Figure:
    """Answers on images that errors are measured on, drawn at random: mistakes and right ones."""
    split, which = measured_on(dataset)
    chosen, probs, seen, wrong = mixed(network, split, workers)
    title = f"{network.architecture.name} on {which} images of {dataset.name}"
    subtitle = f"{made}; among {seen:,} images drawn at random, {wrong:,} wrong"
    images, labels = read_images(split, chosen, workers), split.labels[chosen]
    return run_figures.predictions(images, probs, labels, dataset.titles, title, subtitle)


def mixed(network: Network, split: Split, workers: int) -> tuple[Indices, Array, int, int]:
    """Images of which half are mistakes, if there are so many, and their probabilities.

    Also how many images were looked at, at most `SEEN`, and how many of them are mistakes.
    """
    order = np.random.default_rng(0).permutation(len(split.labels))[:SEEN]
    probs, wrong = np.empty((0, network.architecture.classes)), np.empty(0, np.int64)
    while len(probs) < len(order) and len(wrong) < EXAMPLES // 2:
        some = order[len(probs) : len(probs) + SOME]
        probs = np.append(probs, probabilities([network], read_images(split, some, workers)), 0)
        wrong = np.flatnonzero(probs.argmax(1) != split.labels[order[: len(probs)]])
    right = np.setdiff1d(np.arange(len(probs)), wrong)
    shown = wrong[: max(EXAMPLES // 2, EXAMPLES - len(right))]
    shown = np.append(shown, right[: EXAMPLES - len(shown)])
    return order[shown], probs[shown], len(probs), len(wrong)


def examples(dataset: Dataset) -> Indices:
    """Examples of the images that errors are measured on, spread evenly over them."""
    count = len(measured_on(dataset)[0].labels)
    return np.linspace(0, count - 1, min(EXAMPLES, count)).astype(np.int64)


def neighbors(network: Network, dataset: Dataset, workers: int, made: str) -> Figure:
    """Validation images and the training images nearest to them in the last hidden layer."""
    near = find_neighbors(network, dataset, workers)
    title = f"{network.architecture.name} on {dataset.name}, {made}"
    return neighbors_figure(near, dataset, title, likeness_in_words(near, dataset))


def likeness_in_words(near: Neighbors, dataset: Dataset) -> str:
    """Say how many of the nearest training images are of the same class."""
    layer, pixels = (100 * near.same_class(dataset, s).mean() for s in (LAYER, PIXELS))
    return (
        f"Of the {NEAREST} nearest of {len(near.points):,} training images, {layer:.1f} % are of "
        f"the same class; of the nearest in pixels {pixels:.1f} %; by chance "
        f"{100 * near.chance(dataset):.1f} %"
    )


def neighbors_figure(near: Neighbors, dataset: Dataset, title: str, subtitle: str) -> Figure:
    """The first validation image of each of up to five classes, and its neighbours."""
    return unit_figures.neighbors(*neighbors_shown(near, dataset), title, subtitle)


def neighbors_shown(
    near: Neighbors, dataset: Dataset
) -> tuple[list[list[Pixels]], list[list[str]]]:
    """The first validation image of each of up to five classes, before its neighbours; names."""
    train, val = dataset.train, dataset.require_val()
    labels = val.labels[near.queries]
    classes, first = np.unique(labels, return_index=True)
    chosen = first[np.linspace(0, len(classes) - 1, min(QUERIES, len(classes))).astype(int)]
    rows, names = [], []
    for query in chosen:
        nearest = near.nearest[LAYER][query]
        rows.append([val.read(int(near.queries[query])), *(train.read(int(i)) for i in nearest)])
        names.append([dataset.titles[i] for i in (labels[query], *train.labels[nearest])])
    return rows, names


def confusion(network: Network, dataset: Dataset, workers: int, made: str) -> Figure:
    """Confusion of classes, on the images that errors are measured on."""
    split, which = measured_on(dataset)
    counts = count_confusions([network], split, BATCH, workers)
    total, wrong = counts.sum(), counts.sum() - np.trace(counts)
    title = f"{network.architecture.name} on {which} images of {dataset.name}, {made}"
    subtitle = f"{wrong:,} of {total:,} images wrong: top-1 error {100 * wrong / total:.2f} %"
    return unit_figures.confusion(counts, dataset.titles, title, subtitle)


def draw_all(
    folder: RunFolder, network: Network, dataset: Dataset, config: Config, progress: Progress
) -> None:
    """curves.png, filters.png and predictions.png in the run's folder."""
    made = origin(folder, progress)
    initial = initial_kernels(network.architecture, config, progress)
    images = 0 if dataset.val is None else len(dataset.val.labels)
    for name, figure in (
        ("curves", run_figures.curves(*curves(folder, images))),
        ("filters", filters(network, made, initial)),
        ("predictions", predictions(network, dataset, config.workers, made)),
    ):
        canvas.save(figure, folder.path / f"{name}.png")
