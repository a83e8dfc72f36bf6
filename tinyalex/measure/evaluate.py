"""Top-1 and top-5 error: one view or ten, one network or several averaged."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from tinyalex.data.batches import batches
from tinyalex.data.dataset import Dataset, Split
from tinyalex.errors import DataError, DivergedError
from tinyalex.net.draws import Draws, centre_draws, ten_views
from tinyalex.net.network import Network
from tinyalex.system.arrays import Array


def measured_on(dataset: Dataset) -> tuple[Split, str]:
    """The validation images, or where there are none all that there are, and which these are.

    Raises DataError if none of them could be read.
    """
    split, which = (dataset.train, "all") if dataset.val is None else (dataset.val, "validation")
    check_not_empty(split)
    return split, which


def check_not_empty(split: Split) -> None:
    """Raise DataError if a split has no image."""
    if not len(split.labels):
        raise DataError("There is no image to measure the error on: none could be read.")


@dataclass(frozen=True)
class Scores:
    """loss: mean of -log of the true class's probability. Errors are fractions of `images`.

    per_class: int64 (3, classes): its images, those right at first guess, and all answers of it.
    """

    images: int
    loss: float
    top1_error: float
    top5_error: float
    per_class: Array = field(
        default_factory=lambda: np.zeros((3, 0), np.int64), repr=False, compare=False
    )


def probabilities(networks: Sequence[Network], images: Array, crops: int = 1) -> Array:
    """Class probabilities, float64 (N, classes): softmax averaged over views and networks.

    images: uint8 (N, image_size, image_size, 3). crops: 1, the centre, or the paper's 10.
    """
    answers = [
        softmax(network.ops.to_numpy(network.logits(images, view)))
        for network in networks
        for view in views(network, len(images), crops)
    ]
    return np.asarray(sum(answers) / len(answers))


def views(network: Network, count: int, crops: int) -> list[Draws]:
    """The draws of 1 view or 10, of `count` images, as large as this network's crops are."""
    data = network.architecture.data
    return [centre_draws(data, count)] if crops == 1 else ten_views(data, count)


def softmax(logits: Array) -> Array:
    """exp(logits) over its sum, float64, row by row. Raises DivergedError if one is not finite."""
    if not np.isfinite(logits).all():
        raise DivergedError(
            "The network answers with numbers that are not finite: its weights have diverged. "
            "Train it again with a lower --lr."
        )
    e = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
    return np.asarray(e / e.sum(1, keepdims=True))


def rank_of_label(scores: Array, labels: Array) -> Array:
    """Rank of the true class, from 0; of equal scores the lower index stands first."""
    own = scores[np.arange(len(labels)), labels][:, None]
    tied_before = (scores == own) & (np.arange(scores.shape[1]) < labels[:, None])
    return np.asarray(((scores > own) | tied_before).sum(1))


def evaluate(
    networks: Sequence[Network],
    split: Split,
    batch_size: int,
    *,
    crops: int = 1,
    workers: int,
    after_batch: Callable[[Array, Array], None] = lambda labels, probs: None,
) -> Scores:
    """Scores on every image of a split, each counted once. Raises DataError if there are none.

    after_batch: is given the labels of each batch, in the split's order, and its `probabilities`.
    """
    check_not_empty(split)
    count, loss, wrong5 = len(split.labels), 0.0, 0
    per_class = np.zeros((3, networks[0].architecture.classes), np.int64)
    own = networks[0].own
    for batch in batches(split, np.arange(count), batch_size, workers=workers, own=own):
        probs = probabilities(networks, batch.images, crops)
        of_label = probs[np.arange(len(batch.labels)), batch.labels]
        loss -= float(np.log(np.maximum(of_label, np.finfo(np.float64).tiny)).sum())
        rank = rank_of_label(probs, batch.labels)
        for row, labels in enumerate((batch.labels, batch.labels[rank < 1], probs.argmax(1))):
            per_class[row] += np.bincount(labels, minlength=per_class.shape[1])
        wrong5 += int((rank >= 5).sum())
        after_batch(batch.labels, probs)
    wrong1 = count - int(per_class[1].sum())
    return Scores(count, loss / count, wrong1 / count, wrong5 / count, per_class)


def confusion(networks: Sequence[Network], split: Split, batch_size: int, workers: int) -> Array:
    """Count images by class (rows) and answer (columns): int64, one view."""
    classes = networks[0].architecture.classes
    counts = np.zeros((classes, classes), np.int64)
    for batch in batches(split, np.arange(len(split.labels)), batch_size, workers=workers):
        answers = probabilities(networks, batch.images).argmax(1)
        np.add.at(counts, (batch.labels, answers), 1)
    return counts


FEW = 100  # images, on which an error is hardly known


def has_top5(classes: int) -> bool:
    """True if a top-5 error tells anything: the five are not all classes."""
    return classes > 5


def interval_in_words(error: float, images: int) -> str:
    """'95 % interval 15.53 to 25.37 %' of an error."""
    low, high = interval(error, images)
    return f"95 % interval {100 * low:.2f} to {100 * high:.2f} %"


def interval(error: float, images: int) -> tuple[float, float]:
    """Wilson's 95 % confidence interval for an error rate measured on so many images."""
    z2 = 1.959964**2
    centre = (error + z2 / (2 * images)) / (1 + z2 / images)
    half = math.sqrt(z2 * (error * (1 - error) / images + z2 / (4 * images**2))) / (1 + z2 / images)
    return max(centre - half, 0.0), min(centre + half, 1.0)
