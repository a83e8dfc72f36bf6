"""safetensors: a header in JSON, which says where each tensor lies, and the numbers in C order.

https://github.com/huggingface/safetensors#format
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np

from tinyalex.convert.tensors import BFLOAT16, Contents, Tensor, mapped, stored
from tinyalex.system.arrays import Array

HEADER_BYTES = 10**8  # the format's own limit
DTYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": BFLOAT16, "I64": "<i8", "I32": "<i4",
    "I16": "<i2", "I8": "i1", "U8": "u1", "BOOL": "?",
}  # fmt: skip


def recognised(head: bytes, size: int) -> bool:
    """True if a file of `size` bytes that begins with `head` is one."""
    return head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= min(size - 8, HEADER_BYTES)


def read(path: Path) -> Contents:
    """The tensors and texts in a file; damaged ones raise."""
    data = mapped(path)
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(bytes(data[8:start]))
    metadata = header.pop("__metadata__", {})
    if not all(isinstance(text, str) for text in metadata.values()):
        raise ValueError("its metadata are not texts")
    tensors: dict[str, Tensor] = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        if not 0 <= begin <= end <= len(data) - start:
            raise ValueError(f"{name} lies beyond the end of the file")
        shape = tuple(map(int, entry["shape"]))
        tensors[name] = stored(data[start + begin : start + end], DTYPES[entry["dtype"]], shape)
    return Contents(tensors, metadata=metadata)


def write(file: BinaryIO, tensors: Mapping[str, Array], metadata: Mapping[str, str]) -> None:
    """Write float32 tensors, of any order of the axes in memory, and texts."""
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    at = 0
    for name, tensor in tensors.items():
        offsets = [at, at + tensor.nbytes]
        header[name] = {"dtype": "F32", "shape": tensor.shape, "data_offsets": offsets}
        at += tensor.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little") + text)
    for tensor in tensors.values():
        file.write(np.ascontiguousarray(tensor, "<f4").data)
