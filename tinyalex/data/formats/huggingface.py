"""Hugging Face's `datasets` on the disk: Parquet as on the Hub, Arrow as by save_to_disk.

    data/train-00000-of-00294.parquet, default/validation/0000.parquet
    train/data-00000-of-00001.arrow

Read with pyarrow alone. A row has a picture's bytes and the path that it came from, which is never
opened, and a number whose name stands in the schema. An image is called by file and row.
"""

from __future__ import annotations

import json
import threading
from bisect import bisect_right
from collections import Counter, OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import accumulate, chain
from pathlib import Path
from typing import Any

from tinyalex.data.decode import Decoder
from tinyalex.data.formats.elsewhere import is_table
from tinyalex.data.formats.flat import by_label, wordnet_id
from tinyalex.data.layout import Files, Layout, count_of, listed
from tinyalex.data.splits import split_of_path
from tinyalex.data.storage import Storage
from tinyalex.errors import DataError

_KEPT = 4  # row groups that stay in memory: readers of neighbouring images meet in a few


def huggingface(storage: Storage, decoder: Decoder, notes: list[str]) -> Layout | None:
    """The rows of all Parquet or Arrow files that have a class, or None if there are none such.

    Raises DataError if pyarrow is not there, or the columns do not tell which are images and
    classes.
    """
    names = [name for name in storage.others if name.endswith((".parquet", ".arrow"))]
    if len(storage.files) == 1:  # one that was given by itself may be called anything
        names = [name for name in storage.others if is_table(storage.head(name))]
    if not names:
        return None
    tables = {name: _opened(storage, name) for name in names}
    unlabelled: list[str] = []

    def rows() -> Iterator[tuple[str, str, str, str | None]]:
        for name, table in tables.items():
            split = split_of_path(name) or "train"
            for row, (label, path) in enumerate(table.labels()):
                image = f"{name}/{row:08}"
                if label is None:
                    unlabelled.append(image)
                else:
                    yield split, label, image, wordnet_id(path or "")

    train, val, name_of = by_label(rows())
    if unlabelled:
        notes.append(f"Left out, because they have no label: {count_of(unlabelled)}.")
    titles = {wnid: label.partition(",")[0] for label, wnid in name_of.items()}
    kind = "Parquet" if isinstance(next(iter(tables.values())), _Parquet) else "Arrow"

    def fetch(image: str) -> bytes:
        name, _, row = image.rpartition("/")
        data = tables[name].picture(int(row))
        if data is None:
            raise DataError(
                f"{storage.path}/{image} has no bytes but only a path: the table was written "
                "without the images. Write it again with save_to_disk, or give the images' folder."
            )
        return data

    source = replace(Files.of(storage, decoder), fetch=fetch, sequential=True)
    return Layout(f"Hugging Face ({kind})", train, val, titles, source)


def _opened(storage: Storage, name: str) -> _Table:
    path = storage.local(name)
    if path is None:
        raise DataError(
            f"{storage.path} holds {name}, which cannot be read inside of an archive. Unpack the "
            "archive and give the folder."
        )
    try:
        import pyarrow
    except ImportError:
        raise DataError(
            f"{path} is a table of Parquet or Arrow, which the Python package pyarrow reads: "
            "pip install 'tinyalex[parquet]'"
        ) from None
    try:
        if storage.head(name).startswith(b"PAR1"):
            import pyarrow.parquet

            file = pyarrow.parquet.ParquetFile(path, memory_map=True)
            return _Parquet(file, _columns(file.schema_arrow, path))
        source = pyarrow.memory_map(str(path))
        stream = storage.head(name).startswith(b"\xff\xff\xff\xff")
        reader = pyarrow.ipc.open_stream(source) if stream else pyarrow.ipc.open_file(source)
        table = reader.read_all()
        return _Arrow(table, _columns(table.schema, path))
    except (OSError, pyarrow.ArrowException) as cause:
        raise DataError(f"{path} cannot be read: {cause} Fetch it again.") from cause


@dataclass(frozen=True)
class _Columns:
    """image, label: the names of the columns. names: of the labels; [] if they are the classes.

    path: the table.
    """

    path: Path
    image: str
    label: str
    names: list[str]

    def label_of(self, value: int | str | None) -> str | None:
        """The class of a row; None for a missing or negative number, as test sets have."""
        if value is None or (isinstance(value, int) and value < 0):
            return None
        if not self.names or isinstance(value, str):
            return str(value)
        if value >= len(self.names):
            raise DataError(
                f"A row of {self.path} has label {value}, and its schema has names for "
                f"{len(self.names)}: 0 to {len(self.names) - 1}. Write the table again."
            )
        return self.names[value]

    def of(self, table: Any) -> Iterator[tuple[str | None, str | None]]:
        """The class and the path of each row of `table`."""
        labels = map(self.label_of, table.column(self.label).to_pylist())
        paths = (chunk.field("path").to_pylist() for chunk in table.column(self.image).chunks)
        return zip(labels, chain.from_iterable(paths), strict=True)


def _columns(schema: Any, path: Path) -> _Columns:
    """Columns of the image and its class, by the features that `datasets` writes down."""
    metadata = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    features = metadata.get("info", {}).get("features", {})
    kinds = {name: str(schema.field(name).type) for name in schema.names}
    images = [name for name, kind in kinds.items() if "bytes: " in kind and "path: " in kind]
    labels = [name for name, feature in features.items() if feature.get("_type") == "ClassLabel"]
    if "label" in schema.names:
        labels = ["label"]
    if len(images) != 1 or len(labels) != 1:
        raise DataError(
            f"{path} has the columns {listed(schema.names)}, and one of images and one called "
            "label, or one alone with names of classes, are needed. Write it again so, with "
            "`datasets`: rename_column, remove_columns."
        )
    names = features.get(labels[0], {}).get("names") or []
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise DataError(
            f"The schema of {path} names several labels {twice[0]!r}: they could not be told "
            "apart. Give each a name of its own, with `datasets`: cast_column."
        )
    return _Columns(path, images[0], labels[0], names)


class _Parquet:
    """A Parquet file, of which a row group is read for each image, and some are kept."""

    def __init__(self, file: Any, columns: _Columns) -> None:
        self._file, self._columns = file, columns
        groups = map(file.metadata.row_group, range(file.num_row_groups))
        self._starts = [0, *accumulate(group.num_rows for group in groups)]
        self._kept: OrderedDict[int, Any] = OrderedDict()
        self._lock = threading.Lock()

    def labels(self) -> Iterator[tuple[str | None, str | None]]:
        """The class and the path of each row."""
        columns = [f"{self._columns.image}.path", self._columns.label]
        for group in range(self._file.num_row_groups):
            yield from self._columns.of(self._file.read_row_group(group, columns=columns))

    def picture(self, row: int) -> bytes | None:
        """The bytes of a row's picture."""
        group = bisect_right(self._starts, row) - 1
        with self._lock:
            if group not in self._kept:
                column = f"{self._columns.image}.bytes"
                table = self._file.read_row_group(group, columns=[column], use_threads=False)
                self._kept[group] = table.column(0).combine_chunks().field("bytes")
                while len(self._kept) > _KEPT:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(group)
            data: bytes | None = self._kept[group][row - self._starts[group]].as_py()
        return data


class _Arrow:
    """An Arrow file, mapped: an image costs its own bytes alone."""

    def __init__(self, table: Any, columns: _Columns) -> None:
        self._table, self._columns = table, columns

    def labels(self) -> Iterator[tuple[str | None, str | None]]:
        """The class and the path of each row."""
        return self._columns.of(self._table)

    def picture(self, row: int) -> bytes | None:
        """The bytes of a row's picture."""
        data: bytes | None = self._table.column(self._columns.image)[row].as_py()["bytes"]
        return data


_Table = _Parquet | _Arrow
