"""Images whose class is known by their SHA-256, to be laid out in every way that people have."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from trees import encoded

from tinyalex.data.decode import Decoder
from tinyalex.data.layout import Files, Layout
from tinyalex.data.mounts import open_storage
from tinyalex.data.opening import recognise

WORDS = {
    "n01440764": "tench, Tinca tinca",
    "n01443537": "goldfish, Carassius auratus",
    "n01484850": "great white shark, white shark",
    "n02012849": "crane",
    "n03126707": "crane, lifting machine",
    "n03710637": "maillot",
    "n03710721": "maillot, tank suit",
    "n04487081": "trolleybus, trolley coach",
}
WNIDS = sorted(WORDS)
RANK = {wnid: rank for rank, wnid in enumerate(WNIDS)}


def _photo(number: int) -> bytes:
    pixels = np.random.default_rng(number).integers(0, 256, (12, 16, 3), np.uint8)
    return encoded(Image.fromarray(pixels), "JPEG")


# (WordNet id, its own number) -> the file: 6 images of each class to train on and 2 to validate.
TRAIN = {(w, i): _photo(100 * rank + i) for rank, w in enumerate(WNIDS) for i in range(6)}
VAL = {(w, i): _photo(100 * rank + 50 + i) for rank, w in enumerate(WNIDS) for i in range(2)}
TEST = [_photo(5000 + i) for i in range(5)]
TRUTH = {
    hashlib.sha256(data).hexdigest(): wnid for (wnid, _), data in [*TRAIN.items(), *VAL.items()]
}
# The validation images are numbered in an order that has nothing to do with their classes.
VAL_ORDER = [key for _, key in sorted(enumerate(VAL), key=lambda pair: pair[0] * 7 % len(VAL))]
VAL_NAME = {key: f"ILSVRC2012_val_{n:08}" for n, key in enumerate(VAL_ORDER, start=1)}


def train_tree() -> dict[str, bytes]:
    """<wnid>/<wnid>_<number>.JPEG"""
    return {f"{w}/{w}_{i}.JPEG": data for (w, i), data in TRAIN.items()}


def val_tree() -> dict[str, bytes]:
    """<wnid>/ILSVRC2012_val_<number>.JPEG"""
    return {f"{key[0]}/{VAL_NAME[key]}.JPEG": data for key, data in VAL.items()}


def flat_val() -> dict[str, bytes]:
    """ILSVRC2012_val_<number>.JPEG"""
    return {f"{VAL_NAME[key]}.JPEG": data for key, data in VAL.items()}


def layout_of(path: Path, classes_at: int | None = None) -> tuple[Layout, list[str]]:
    """How `path` is read, and the notes on it."""
    notes: list[str] = []
    return recognise(open_storage(path), Decoder(8), classes_at, notes), notes


def taken_for(layout: Layout) -> Iterator[tuple[str, str, str]]:
    """The split, the class and the SHA-256 of each image."""
    source = layout.source
    assert isinstance(source, Files)
    for split, groups in (("train", layout.train), ("val", layout.val or {})):
        for label, names in groups.items():
            for name in names:
                yield split, label, hashlib.sha256(source.fetch(name)).hexdigest()


def wrong(layout: Layout, names: dict[str, str] | None = None) -> list[tuple[str, str]]:
    """Of each image that has not its true class the class that it has, and the true one.

    names: what the layout calls a class, by WordNet id.
    """
    return [
        (label, TRUTH.get(sha256, "none"))
        for _, label, sha256 in taken_for(layout)
        if sha256 not in TRUTH or label != (names or {}).get(TRUTH[sha256], TRUTH[sha256])
    ]
