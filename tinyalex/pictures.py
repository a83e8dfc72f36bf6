"""The pictures of a run: what is taken from where. How they are drawn: `tinyalex.show`."""

from __future__ import annotations

import tomllib
from pathlib import Path

import numpy as np

from tinyalex import show
from tinyalex.data.dataset import Dataset
from tinyalex.evaluate import probabilities
from tinyalex.network import Network
from tinyalex.rows import LRN, Conv2d
from tinyalex.run import RunFolder

EXAMPLES = 8  # the paper's Figure 4 shows so many


def curves(folder: RunFolder, path: Path) -> None:
    """Loss and errors over the epochs."""
    config = tomllib.loads((folder.path / "config.toml").read_text(encoding="utf-8"))
    images = Path(config["data"]).name if "data" in config else "shapes"
    show.save(show.curves(folder.records(), f"{config['arch']} on {images}"), path)


def filters(network: Network, path: Path) -> None:
    """The first layer's kernels, tower a above tower b."""
    rows = network.architecture.rows
    first = next(row for row in rows if isinstance(row, Conv2d))
    towers = max(row.groups for row in rows if isinstance(row, Conv2d | LRN))
    weight = network.ops.to_numpy(network.parameters[f"{first.name}.weight"])
    title = f"{first.name} of {network.architecture.name}: {len(weight)} kernels"
    show.save(show.filters(weight, towers, title), path)


def predictions(network: Network, dataset: Dataset, path: Path) -> None:
    """Answers on images spread evenly over the validation split, or the training split."""
    split, which = (
        (dataset.train, "training") if dataset.val is None else (dataset.val, "validation")
    )
    chosen = np.linspace(0, len(split.labels) - 1, min(EXAMPLES, len(split.labels))).astype(int)
    images = np.stack([split.read(i) for i in chosen])
    title = f"{network.architecture.name} on {which} images of {dataset.name}"
    show.save(
        show.predictions(
            images, probabilities([network], images), split.labels[chosen], dataset.titles, title
        ),
        path,
    )


def draw_all(folder: RunFolder, network: Network, dataset: Dataset) -> None:
    """curves.png, filters.png and predictions.png in the run's folder."""
    curves(folder, folder.path / "curves.png")
    filters(network, folder.path / "filters.png")
    predictions(network, dataset, folder.path / "predictions.png")
