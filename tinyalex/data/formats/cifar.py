"""CIFAR-10 as the binary batches in which it is published: data_batch_1.bin and so on."""

from __future__ import annotations

import re

import numpy as np
from PIL import Image

from tinyalex.data.decode import centre_square
from tinyalex.data.layout import Files, Groups, Layout, Pixels
from tinyalex.data.storage import Storage
from tinyalex.errors import DataError


def cifar(storage: Storage, size: int, notes: list[str]) -> Layout | None:
    """The binary batches, kept in memory: records of a label and 32 x 32 pixels, planes R, G, B."""
    if "data_batch_1" in storage.files:
        raise DataError(
            f"{storage.path} is CIFAR-10 as Python pickles. They could run any code when loaded, "
            "and so are not read. Get the binary version, cifar-10-binary.tar.gz."
        )
    batches = [
        name for name in storage.files if re.fullmatch(r"(data_batch_[1-5]|test_batch)\.bin", name)
    ]
    if not batches:
        return None
    if "batches.meta.txt" not in storage.files:
        raise DataError(
            f"{storage.path} lacks batches.meta.txt, which names the classes of CIFAR-10. Fetch it "
            "again (cifar-10-binary.tar.gz)."
        )
    classes = storage.text("batches.meta.txt").split()
    records = {name: _records(storage, name, len(classes)) for name in batches}
    train: Groups = {}
    test: Groups = {}
    for batch in batches:
        groups = test if batch == "test_batch.bin" else train
        for number, label in enumerate(records[batch][:, 0]):
            groups.setdefault(classes[label], []).append(f"{batch}/{number:05}")
    if train and len(batches) - bool(test) < 5:
        notes.append("Some of the five training batches are not there.")

    def fetch(name: str) -> bytes:
        batch, _, number = name.partition("/")
        record: bytes = records[batch][int(number)].tobytes()
        return record

    def decode(record: bytes, name: str) -> Pixels:
        planes = np.frombuffer(record, np.uint8)[1:].reshape(3, 32, 32)
        return centre_square(Image.fromarray(planes.transpose(1, 2, 0).copy()), size)

    source = Files(fetch, decode)
    return Layout("CIFAR-10", dict(sorted(train.items())), test or None, {}, source)


def _records(storage: Storage, name: str, classes: int) -> Pixels:
    data = np.frombuffer(storage.read(name), np.uint8)
    if data.size == 0 or data.size % 3073 or data[::3073].max() >= classes:
        raise DataError(
            f"{storage.path / name} ({data.size:,} bytes) is not a batch of CIFAR-10: records of "
            f"3073 bytes that begin with a label below {classes}. Fetch it again."
        )
    return data.reshape(-1, 3073)
