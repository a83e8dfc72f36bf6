"""Formats of other programs that are not read here: recognised, named, and with the way in."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from tinyalex.data.storage import Storage
from tinyalex.errors import DataError


def _tfrecord(head: bytes) -> bool:
    """A record's length, its checksum, and a first field that is a message (tag 10)."""
    return len(head) > 13 and int.from_bytes(head[:8], "little") < 2**31 and head[12] == 10


@dataclass(frozen=True)
class Foreign:
    """name: how a file of the format is called. sign: whether its first bytes fit."""

    format: str
    package: str  # of Python, that can read it
    name: str
    sign: Callable[[bytes], bool] = lambda head: True


_FOREIGN = (
    Foreign("TFRecord", "tensorflow", r".*(\.tfrecords?(-.*)?|-\d{5}-of-\d{5})", _tfrecord),
    Foreign("LMDB", "lmdb", r".*\.(mdb|lmdb)", lambda head: head[16:20] == b"\xde\xc0\xef\xbe"),
    Foreign("MXNet RecordIO", "mxnet", r".*\.rec", lambda h: h.startswith(b"\x0a\x23\xd7\xce")),
    Foreign("MDS (MosaicML Streaming)", "mosaicml-streaming", r".*\.mds(\.zstd)?"),
    Foreign("LitData", "litdata", r"(.*/)?chunk-\d+-\d+(\.zstd)?\.bin"),
    Foreign("Lance", "pylance", r".*\.lance"),
    Foreign("FFCV", "ffcv", r".*\.beton"),
    Foreign("HDF5", "h5py", r".*\.(h5|hdf5)", lambda h: h.startswith(b"\x89HDF\r\n\x1a\n")),
    Foreign("NumPy arrays", "numpy", r".*\.np[yz]", lambda h: h[:2] in (b"PK", b"\x93N")),
)
_TABLES = (b"PAR1", b"ARROW1", b"\xff\xff\xff\xff")  # Parquet, Arrow's files and streams


def is_table(head: bytes) -> bool:
    """True if a file that begins so is Parquet or Arrow."""
    return head.startswith(_TABLES)


def is_foreign(storage: Storage, name: str) -> bool:
    """True if a file is no archive and no picture, but holds many images all the same."""
    return is_table(storage.head(name)) or _foreign(storage, name) is not None


def _foreign(storage: Storage, name: str) -> Foreign | None:
    fitting = (f for f in _FOREIGN if re.fullmatch(f.name, name))
    return next((f for f in fitting if f.sign(storage.head(name))), None)


def refuse_foreign(storage: Storage) -> None:
    """Raise DataError, with the way in, if the data set lies in one of these formats."""
    for name in storage.others:
        if foreign := _foreign(storage, name):
            raise DataError(
                f"{storage.path} holds {foreign.format} ({name}), which is not read here. Write "
                f"each image with the Python package {foreign.package} into a folder named as its "
                "class, train/CLASS/NUMBER.jpg, and give the folder above train."
            )
