"""Effect of each difference between the networks by itself: in alexnet, on one set of weights."""

from collections.abc import Callable
from typing import Any

import numpy as np

from tinyalex.backend import Backend
from tinyalex.measure.image_signal import built_in
from tinyalex.net.draws import initial_parameters
from tinyalex.net.layers import LRN, Dropout, MaxPool
from tinyalex.net.network import Network, outputs
from tinyalex.net.presets import Architecture, get_architecture
from tinyalex.net.variants import Rows, drop, each

IMAGES = 16


def pool_first(rows: Rows) -> Rows:
    """Each normalisation behind its pool, as in CaffeNet."""
    turned = list(rows)
    for i in range(len(turned) - 1):
        if isinstance(turned[i], LRN) and isinstance(turned[i + 1], MaxPool):
            turned[i], turned[i + 1] = turned[i + 1], turned[i]
    return tuple(turned)


CHANGES: dict[str, Callable[[Rows], Rows]] = {
    "k 1, not 2": each(LRN, k=1.0),
    "alpha / 5": each(LRN, alpha=1e-4 / 5),
    "across both towers": each(LRN, groups=1),
    "all three, as Caffe": each(LRN, k=1.0, alpha=1e-4 / 5, groups=1),
    "pool before norm": pool_first,
    "no normalisation": drop(LRN),
    "dropout inverted": each(Dropout, scale_at="train"),
}


def weighed(ops: Backend) -> dict[str, dict[str, float | None]]:
    """Measure how far each change moves alexnet, as seed 0 draws it, on built-in images.

    norm1: mean output of the first normalisation over the paper's; None if it is not there. logits:
    relative L2 of what tells the images apart in them.
    """
    alexnet = get_architecture("alexnet")
    images, mean = built_in(alexnet.data.image_size, IMAGES)
    parameters = initial_parameters(alexnet, seed=0)

    def answers(rows: Rows) -> dict[str, Any]:
        network = Network(Architecture("", "", rows, alexnet.recipe), ops, parameters, mean)
        return dict(outputs(network, images, {"norm1", "fc8"}))

    paper = answers(alexnet.rows)
    apart = paper["fc8"] - paper["fc8"].mean(0)
    found: dict[str, dict[str, float | None]] = {}
    for name, change in CHANGES.items():
        changed = answers(change(alexnet.rows))
        moved = changed["fc8"] - changed["fc8"].mean(0) - apart
        ratio, norm1 = None, changed.get("norm1")
        if norm1 is not None and norm1.shape == paper["norm1"].shape:
            ratio = float(norm1.mean() / paper["norm1"].mean())
        found[name] = {
            "norm1": ratio,
            "logits": float(np.linalg.norm(moved) / np.linalg.norm(apart)),
        }
    return found
