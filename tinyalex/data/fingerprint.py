"""Fingerprint of a run's images, so that it does not go on with others unnoticed."""

import hashlib
from typing import Any

import numpy as np

from tinyalex.data.dataset import Dataset, Split

SHOWN = 5  # differences; more would only hide the first


def contents(dataset: Dataset) -> dict[str, Any]:
    """Count the images of each split and class, and digest their names in order.

    {"train": {"n01440764": [1300, "5e0c..."], ...}, "val": ...}, as JSON keeps it. A digest is 16
    hexadecimal digits of SHA-256. Files whose content changes under the same name are not noticed
    here: that takes reading all of them, as `tinyalex data check` does with a pack.
    """
    return {
        "train": _by_class(dataset.train, dataset.classes),
        "val": {} if dataset.val is None else _by_class(dataset.val, dataset.classes),
    }


def _by_class(split: Split, classes: tuple[str, ...]) -> dict[str, list[Any]]:
    order = np.argsort(split.labels, kind="stable")
    ends = np.cumsum(np.bincount(split.labels, minlength=len(classes)))
    by_class = {}
    for name, images in zip(classes, np.split(order, ends[:-1]), strict=True):
        names = "\0".join([split.names[i] for i in images.tolist()])  # no file name has a zero byte
        by_class[name] = [len(images), hashlib.sha256(names.encode()).hexdigest()[:16]]
    return by_class


def differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Describe how `now` differs. `before` is {} of a run from before contents were kept."""
    changes, none = [], (0, "")
    for split in before and now:
        was, there = before.get(split, {}), now[split]
        for name in was | there:
            (count, digest), (new_count, new_digest) = was.get(name, none), there.get(name, none)
            if count != new_count:
                changes.append(f"{split}: class {name} had {count} images, now {new_count}")
            elif digest != new_digest:
                changes.append(f"{split}: class {name} has {count} images of other names")
    rest = len(changes) - SHOWN
    return [*changes[:SHOWN], f"and {rest} more classes"] if rest > 0 else changes
