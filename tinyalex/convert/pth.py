"""PyTorch's files: what torch.save wrote, as a zip file or as before PyTorch 1.6, and a state_dict.

A pickle, in which tensors are calls of a few functions, and storages, flat arrays of numbers. The
unpickler knows these functions' names and no others, so no code is run.
https://docs.pytorch.org/docs/main/notes/serialization.html
"""

import io
import math
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from tinyalex.convert.tensors import BFLOAT16, Contents, Tensor, itemsize, mapped, numbers
from tinyalex.errors import CheckpointError
from tinyalex.system.arrays import Array
from tinyalex.system.unpickling import Refused, Unpickler

LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # the pickle of a number that marks the file
PICKLE_BYTES = 2**24  # room for the names of 100,000 tensors; AlexNet's take 2,000
DTYPES = {
    "Float": "<f4", "Double": "<f8", "Half": "<f2", "BFloat16": BFLOAT16, "Long": "<i8",
    "Int": "<i4", "Short": "<i2", "Char": "i1", "Byte": "u1", "Bool": "?",
}  # fmt: skip
# Under which keys training scripts keep the weights, the first that is there first.
KEYS = ("state_dict", "model_state_dict", "model", "net")


@dataclass
class Storage:
    """A flat array of numbers. read: its bytes."""

    dtype: str
    count: int
    read: Callable[[], bytes]

    @property
    def nbytes(self) -> int:
        return self.count * itemsize(self.dtype)


@dataclass(frozen=True)
class View:
    """A tensor as `_rebuild_tensor_v2` is told of it. offset, stride: in numbers."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    def tensor(self, name: str) -> Tensor:
        """Raise ValueError if it does not lie in its storage, or has more numbers than that."""
        values = (self.offset, *self.shape, *self.stride)
        if not all(type(v) is int and v >= 0 for v in values) or len(self.shape) != len(
            self.stride
        ):
            raise ValueError(f"{name} has a shape, {self.shape}, that makes no sense")
        last = self.offset + sum((n - 1) * s for n, s in zip(self.shape, self.stride, strict=True))
        if 0 in self.shape or last >= self.storage.count:
            raise ValueError(f"{name}, {self.shape}, reaches beyond its storage")
        if math.prod(self.shape) > self.storage.count:
            raise ValueError(f"{name}, {self.shape}, has more numbers than are stored")
        return Tensor(self.shape, self._numbers)

    def _numbers(self) -> Array:
        flat = numbers(self.storage.read(), self.storage.dtype)
        assert flat.size == self.storage.count
        strides = [s * flat.itemsize for s in self.stride]
        return np.lib.stride_tricks.as_strided(flat[self.offset :], self.shape, strides)


def _unpickled(file: BinaryIO, storage: Callable[..., Storage]) -> Any:
    """The next pickle in `file`. storage: makes one of what the pickle tells of it."""
    known = {
        ("collections", "OrderedDict"): OrderedDict,
        ("torch._utils", "_rebuild_tensor_v2"): lambda storage, offset, shape, stride, *rest: View(
            storage, offset, tuple(shape), tuple(stride)
        ),
        ("torch._utils", "_rebuild_parameter"): lambda data, *rest: data,
        **{("torch", f"{name}Storage"): name for name in DTYPES},
    }
    unpickler = Unpickler(file, known)
    unpickler.persistent_load = lambda pid: storage(*pid)  # type: ignore[method-assign]
    return unpickler.load()


def read(path: Path) -> Contents:
    """The tensors of the one state_dict in a file.

    Raises CheckpointError if it holds a whole module, or not one state_dict; else whatever damaged
    bytes come to.
    """
    try:
        saved = _zip(path) if zipfile.is_zipfile(path) else _legacy(path)
    except Refused as error:
        raise CheckpointError(
            f"{path} holds more than tensors, {error}, and is not read: unpickling it could run "
            "any code. Save the state_dict alone, where the class is known: "
            "torch.save(model.state_dict(), 'weights.pth')."
        ) from None
    key, tensors = _state_dict(path, saved)
    note = (f"The weights are those under {key!r} in the file.",) if key else ()
    return Contents(tensors, notes=note)


def _zip(path: Path) -> Any:
    """Read the zip form: data.pkl, and a member for each storage."""
    with zipfile.ZipFile(path) as file:
        names = file.namelist()
        (pickled,) = [n for n in names if n.endswith("/data.pkl")]
        root = pickled.removesuffix("data.pkl")
        if f"{root}byteorder" in names and _member(file, f"{root}byteorder", 10) != b"little":
            raise ValueError("its numbers are big-endian")
        content = _member(file, pickled, PICKLE_BYTES)

        @lru_cache(1)  # tensors that share a storage come one after the other
        def member(name: str) -> bytes:
            with zipfile.ZipFile(path) as file:  # zip's CRC-32 finds damage
                return file.read(name)

        def storage(kind: str, dtype: str, key: str, device: str, count: int) -> Storage:
            entry = file.getinfo(f"{root}data/{key}")
            made = Storage(DTYPES[dtype], count, lambda: member(entry.filename))
            if {entry.file_size, entry.compress_size} != {made.nbytes}:
                raise ValueError(
                    f"storage {key} has {entry.file_size:,} bytes, not {made.nbytes:,}"
                )
            return made

        return _unpickled(io.BytesIO(content), storage)


def _member(file: zipfile.ZipFile, name: str, limit: int) -> bytes:
    if file.getinfo(name).file_size > limit:
        raise ValueError(f"{name} has more than {limit:,} bytes")
    return file.read(name)


def _legacy(path: Path) -> Any:
    """Read the form of before 1.6: five pickles, then the storages in a row."""
    data = mapped(path)
    file = io.BytesIO(data[:PICKLE_BYTES])  # pickles alone: no read goes beyond
    storages: dict[str, Storage] = {}

    def storage(kind: str, dtype: str, key: str, device: str, count: int, view: Any) -> Storage:
        if view is not None:
            raise ValueError("it has a view of a storage, as before PyTorch 0.4")
        return storages.setdefault(key, Storage(DTYPES[dtype], count, lambda: b""))

    _, protocol, system = (_unpickled(file, storage) for _ in range(3))
    if protocol != 1001 or not system["little_endian"]:
        raise ValueError("its numbers are not little-endian")
    saved, keys = (_unpickled(file, storage) for _ in range(2))
    at = file.tell()
    if set(keys) != set(storages) or len(keys) != len(storages):
        raise ValueError("its storages are not those of its tensors")
    for key in keys:
        made = storages[key]
        (count,) = struct.unpack("<q", data[at : at + 8])
        at += 8
        if count != made.count or not 0 <= made.nbytes <= len(data) - at:
            raise ValueError(f"storage {key} is cut, or not of the length that is told")
        made.read = data[at : at + made.nbytes].tobytes
        at += made.nbytes
    return saved


def _state_dict(path: Path, saved: Any) -> tuple[str, dict[str, Tensor]]:
    """The key of the dictionary that has the weights, "" for the whole, and its tensors."""
    if not isinstance(saved, Mapping):
        raise ValueError("it holds no dictionary")
    inner = {str(key): value for key, value in saved.items() if isinstance(value, Mapping)}
    found = {key: tensors for key, d in {"": saved, **inner}.items() if (tensors := _views(d))}
    key = next((k for k in ("", *KEYS) if k in found), None)
    if key is None and len(found) == 1:
        (key,) = found
    if key is None:
        raise CheckpointError(
            f"{path} holds no state_dict that could be told: dictionaries with convolutions are "
            f"{', '.join(map(repr, found)) or 'none'}. Save the one that is meant by itself: "
            "torch.save(model.state_dict(), 'weights.pth')."
        )
    return key, {name: view.tensor(name) for name, view in found[key].items()}


def _views(values: Mapping[Any, Any]) -> dict[str, View]:
    """The tensors of a dictionary, if some of them could be a convolution's; else none."""
    views = {str(key): v for key, v in values.items() if isinstance(v, View)}
    return views if any(len(v.shape) == 4 for v in views.values()) else {}


# Writing


def write(file: BinaryIO, tensors: Mapping[str, Array]) -> None:
    """Write float32 tensors, of any order of the axes in memory, as torch.save writes a dict."""
    pickled = [b"\x80\x02}("]  # protocol 2, a dictionary, and on to the end its items
    for key, (name, tensor) in enumerate(tensors.items()):
        strides = [math.prod(tensor.shape[axis + 1 :]) for axis in range(tensor.ndim)]
        pickled += [
            _text(name),
            b"ctorch._utils\n_rebuild_tensor_v2\n((",
            _text("storage") + b"ctorch\nFloatStorage\n" + _text(str(key)) + _text("cpu"),
            _whole(tensor.size) + b"tQ" + _whole(0),
            *(b"(" + b"".join(map(_whole, sizes)) + b"t" for sizes in (tensor.shape, strides)),
            b"\x89ccollections\nOrderedDict\n)RtR",  # no gradient, no hooks
        ]
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", b"".join([*pickled, b"u."]))
        archive.writestr("archive/byteorder", b"little")
        for key, tensor in enumerate(tensors.values()):
            numbers = np.ascontiguousarray(tensor, "<f4")
            with archive.open(f"archive/data/{key}", "w", force_zip64=True) as member:
                member.write(numbers.data.cast("B"))
        archive.writestr("archive/version", b"3\n")


def _text(text: str) -> bytes:
    encoded = text.encode()
    return b"X" + struct.pack("<I", len(encoded)) + encoded


def _whole(number: int) -> bytes:
    return b"J" + struct.pack("<i", number)
