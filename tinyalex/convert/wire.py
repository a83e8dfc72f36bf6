"""Protocol buffers' wire format, as much of it as ONNX's and Caffe's files need.

https://protobuf.dev/programming-guides/encoding/
"""

import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

Message = dict[str, list[Any]]
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


# Reading


def varint(data: memoryview, at: int) -> tuple[int, int]:
    """A number at `at` and where it ends, as unsigned 64 bits."""
    value = shift = 0
    while shift < 70:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
    raise ValueError("a number has more than 64 bits")


def fields(data: memoryview) -> Iterator[tuple[int, int, Any]]:
    """Number, wire type and value of each field of a message: an int, or a piece of `data`.

    Raises ValueError or IndexError where the bytes are no message.
    """
    at = 0
    while at < len(data):
        key, at = varint(data, at)
        number, kind = key >> 3, key & 7
        if kind == VARINT:
            value: Any
            value, at = varint(data, at)
        else:
            if kind == BYTES:
                length, at = varint(data, at)
            elif kind in (FIXED32, FIXED64):
                length = 4 if kind == FIXED32 else 8
            else:
                raise ValueError(f"a field of wire type {kind}")
            if not number or length > len(data) - at:
                raise ValueError("a field reaches beyond the end")
            value, at = data[at : at + length], at + length
        yield number, kind, value


def integers(kind: int, value: Any) -> list[int]:
    """A field of signed whole numbers, packed or single."""
    values, at = [value] if kind == VARINT else [], 0
    while kind == BYTES and at < len(value):
        number, at = varint(value, at)
        values.append(number)
    return [v - 2**64 if v >= 2**63 else v for v in values]


def decoded(data: memoryview, schema: Mapping[str, Any]) -> Message:
    """The fields of a message that are in `schema`, by name, each a list.

    schema: by name a field's number and kind: int, float, str, bytes, the words of an enumeration,
    or the schema of another message.
    """
    names = {number: (name, kind) for name, (number, kind) in schema.items()}
    found: Message = {}
    for number, wire_type, value in fields(data):
        if number not in names:
            continue
        name, kind = names[number]
        values = found.setdefault(name, [])
        if isinstance(kind, dict):
            values.append(decoded(value, kind))
        elif kind is str:
            values.append(bytes(value).decode())
        elif kind is bytes:
            values += [value] if wire_type == BYTES else []
        elif kind is float:
            values += np.frombuffer(value, "<f4").tolist()
        else:
            numbers = integers(wire_type, value)
            values += numbers if kind is int else [kind[i] for i in numbers]
    return found


# Writing


@dataclass(frozen=True)
class Later:
    """Bytes that are made when they are written, for they take much memory."""

    nbytes: int
    make: Callable[[], Any]


Pieces = list[bytes | Later]
"""A message, or a part of one."""


def message(values: Mapping[int, Any]) -> Pieces:
    """A message of fields by number: int, float, str, bytes, Pieces, or a tuple of these."""
    return [piece for number, value in values.items() for piece in _field(number, value)]


def _field(number: int, value: Any) -> Pieces:
    match value:
        case tuple():
            return [piece for item in value for piece in _field(number, item)]
        case int():
            return [_varint(number << 3 | VARINT) + _varint(value & (2**64 - 1))]
        case float():
            return [_varint(number << 3 | FIXED32) + struct.pack("<f", value)]
        case str():
            value = [value.encode()]
        case bytes() | Later():
            value = [value]
    length = sum(p.nbytes if isinstance(p, Later) else len(p) for p in value)
    return [_varint(number << 3 | BYTES) + _varint(length), *value]


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])


def packed(values: tuple[int, ...]) -> bytes:
    """Whole numbers as one field has them."""
    return b"".join(_varint(value & (2**64 - 1)) for value in values)


def write(file: BinaryIO, pieces: Pieces) -> None:
    """Write a message, one piece in memory at a time."""
    for piece in pieces:
        file.write(piece.make() if isinstance(piece, Later) else piece)
