"""CIFAR-10 as it is published: binary batches, data_batch_1.bin and so on, or Python's pickles."""

import io
import re
from typing import Any

import numpy as np
from PIL import Image

from tinyalex.data.dataset import Pixels
from tinyalex.data.decode import Decoder, centre_square
from tinyalex.data.layout import Files, Groups, Layout
from tinyalex.data.storage import Storage
from tinyalex.errors import DataError
from tinyalex.system.unpickling import NUMPY, Pickled, Refused, Unpickler

_BATCH = re.compile(r"(data_batch_[1-5]|test_batch)(\.bin)?")
_ARCHIVE, _PICKLES = "cifar-10-binary.tar.gz", "cifar-10-python.tar.gz"


def cifar(storage: Storage, decoder: Decoder, notes: list[str]) -> Layout | None:
    """The batches, kept in memory: records of a label and 32 x 32 pixels, planes R, G, B."""
    batches = [name for name in storage.others if _BATCH.fullmatch(name)]
    if not batches:
        return None
    binary = batches[0].endswith(".bin")
    table = "batches.meta.txt" if binary else "batches.meta"
    if table not in storage.files:
        raise DataError(
            f"{storage.path} lacks {table}, which names the classes of CIFAR-10. Fetch it again "
            f"({_ARCHIVE if binary else _PICKLES})."
        )
    if binary:
        classes = storage.text(table).split()
        records = {name: _records(storage, name, len(classes)) for name in batches}
    else:
        classes = [name.decode() for name in _unpickled(storage, table, b"label_names")[0]]
        records = {name: _from_pickle(storage, name, len(classes)) for name in batches}
    train: Groups = {}
    test: Groups = {}
    for batch in batches:
        groups = test if batch.startswith("test_batch") else train
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
        return centre_square(Image.fromarray(planes.transpose(1, 2, 0).copy()), decoder.size)

    source = Files(fetch, decode)
    return Layout("CIFAR-10", dict(sorted(train.items())), test or None, {}, source)


def _records(storage: Storage, name: str, classes: int) -> Pixels:
    data = np.frombuffer(storage.read(name), np.uint8)
    if data.size == 0 or data.size % 3073 or data[::3073].max() >= classes:
        raise DataError(
            f"{storage.path / name} ({data.size:,} bytes) is not a batch of CIFAR-10: records of "
            f"3073 bytes that begin with a label below {classes}. Fetch it again ({_ARCHIVE})."
        )
    return data.reshape(-1, 3073)


def _from_pickle(storage: Storage, name: str, classes: int) -> Pixels:
    """Read the records from a pickle."""
    labels, pixels = _unpickled(storage, name, b"labels", b"data")
    try:
        if not labels or not set(labels) <= set(range(classes)):
            raise ValueError(f"its labels are not 0 to {classes - 1}")
        return np.column_stack([np.array(labels, np.uint8), pixels.reshape(-1, 3072)])
    except (ValueError, TypeError, AttributeError) as cause:
        raise DataError(
            f"{storage.path / name} is not a batch of CIFAR-10 ({cause}). Fetch it again "
            f"({_PICKLES})."
        ) from cause


def _unpickled(storage: Storage, name: str, *keys: bytes) -> list[Any]:
    """The values of `keys` in a dictionary that Python 2 pickled."""
    file = io.BytesIO(storage.read(name))
    try:
        pickled = Unpickler(file, NUMPY, encoding="bytes").load()
        values = {key: _value(value) for key, value in pickled.items()}
    except Refused as refused:
        reason = f"it asks for {refused}, which no data needs"
    except ValueError as cause:
        reason = str(cause)
    except Exception as cause:  # damaged bytes surface from pickle as almost anything
        reason = f"damaged ({type(cause).__name__})"
    else:
        lacking = [repr(key) for key in keys if key not in values]
        if not lacking:
            return [values[key] for key in keys]
        reason = lacking[0]
    raise DataError(
        f"{storage.path / name} is not what CIFAR-10 has under this name ({reason}). Nothing of "
        f"it was run. Fetch it again ({_PICKLES})."
    )


def _value(value: Any) -> Any:
    if not isinstance(value, Pickled):
        return value
    _, shape, dtype, _, content = value.state
    code, *_ = dtype.arguments
    if code not in (b"u1", "u1"):
        raise ValueError(f"its numbers are {code!r}, not uint8")
    return np.frombuffer(content, np.uint8).reshape(shape)
