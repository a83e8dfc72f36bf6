"""Read tables from MATLAB files of version 5: as much as the devkits of ILSVRC need.

A file is a header of 128 bytes and then elements: a kind, a size, and so many bytes. A variable is
an element of the kind matrix, which is made of elements again, and may be compressed as a whole.
"""

import struct
import zlib
from collections.abc import Iterator
from math import prod
from typing import Any

import numpy as np

# How numbers and texts may be stored, by the kind of their element.
_NUMBERS = {
    1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8",
}  # fmt: skip
_TEXTS = {1: "latin-1", 2: "latin-1", 4: "utf-16-le", 16: "utf-8", 17: "utf-16-le"}
_MATRIX, _COMPRESSED = 14, 15
_STRUCT, _CHAR = 2, 4  # classes of matrices; those from 6 on hold numbers
_LIMIT = 2**26  # bytes that a compressed variable may have


def read_table(data: bytes, variable: str) -> list[dict[str, Any]]:
    """A variable that is an array of structs: a dict for each, of texts and lists of numbers.

    Raises ValueError if `data` is no such file or lacks the variable.
    """
    if data[124:128] != b"\x00\x01IM":
        raise ValueError("not a MATLAB file of version 5")
    try:
        for kind, content in _elements(memoryview(data)[128:]):
            if kind == _COMPRESSED:
                unpacked = zlib.decompressobj().decompress(content, _LIMIT)
                kind, content = next(_elements(memoryview(unpacked)))
            if kind == _MATRIX:
                name, value = _matrix(content)
                if name == variable and isinstance(value, list):
                    return value
    except (StopIteration, LookupError, struct.error, zlib.error) as cause:
        raise ValueError(f"damaged ({type(cause).__name__})") from cause
    raise ValueError(f"it has no table {variable!r}")


def _elements(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """The kind and the content of each element."""
    at = 0
    while at < len(data):
        kind, size = struct.unpack_from("<II", data, at)
        if kind >> 16:  # up to 4 bytes stand inside of the tag itself
            kind, size, start, after = kind & 0xFFFF, kind >> 16, at + 4, at + 8
        else:
            start = at + 8
            after = start + size + (0 if kind == _COMPRESSED else -size % 8)
        if start + size > len(data):
            raise ValueError("cut short")
        yield kind, data[start : start + size]
        at = after


def _matrix(data: memoryview) -> tuple[str, Any]:
    """The name and the value: a text, a list of numbers, or a list of dicts."""
    parts = _elements(data)
    class_ = next(parts)[1][0]
    shape = np.frombuffer(next(parts)[1], "<i4").tolist()
    name = bytes(next(parts)[1]).decode("latin-1")
    if class_ == _STRUCT:
        width = struct.unpack("<i", next(parts)[1])[0]
        names = bytes(next(parts)[1])
        fields = [
            names[at : at + width].rstrip(b"\0").decode("latin-1")
            for at in range(0, len(names), width)
        ]
        rows = [{field: _matrix(next(parts)[1])[1] for field in fields} for _ in range(prod(shape))]
        return name, rows
    kind, content = next(parts)
    if class_ == _CHAR:
        return name, bytes(content).decode(_TEXTS[kind])
    return name, np.frombuffer(content, "<" + _NUMBERS[kind]).tolist()
