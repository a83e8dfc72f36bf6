"""Messages of Caffe's files, as bytes (protocol buffers) and as text, by one table of fields.

https://github.com/BVLC/caffe/blob/master/src/caffe/proto/caffe.proto
"""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tinyalex.convert import wire
from tinyalex.convert.tensors import Tensor, stored
from tinyalex.convert.wire import Later, Message, Pieces, message

DATA = 5  # the field of a blob's numbers
# Messages, as `wire.decoded` takes them.
SHAPE: dict[str, Any] = {"dim": (1, int)}
CONVOLUTION = {
    "num_output": (1, int), "bias_term": (2, int), "pad": (3, int), "kernel_size": (4, int),
    "group": (5, int), "stride": (6, int), "pad_h": (9, int), "kernel_h": (11, int),
    "stride_h": (13, int), "dilation": (18, int),
}  # fmt: skip
INNER_PRODUCT = {"num_output": (1, int), "bias_term": (2, int), "transpose": (6, int)}
NORM = {
    "local_size": (1, int), "alpha": (2, float), "beta": (3, float),
    "norm_region": (4, ("ACROSS_CHANNELS", "WITHIN_CHANNEL")), "k": (5, float),
}  # fmt: skip
POOLING = {
    "pool": (1, ("MAX", "AVE", "STOCHASTIC")), "kernel_size": (2, int), "stride": (3, int),
    "pad": (4, int), "kernel_h": (5, int), "stride_h": (7, int), "global_pooling": (12, int),
    "round_mode": (13, ("CEIL", "FLOOR")),
}  # fmt: skip
DROPOUT = {"dropout_ratio": (1, float)}
SLICE, CONCAT = {"axis": (3, int)}, {"axis": (2, int)}
TRANSFORM = {
    "scale": (1, float), "crop_size": (3, int), "mean_file": (4, str), "mean_value": (5, float),
}  # fmt: skip
BLOB = {
    "num": (1, int), "channels": (2, int), "height": (3, int), "width": (4, int),
    "shape": (7, SHAPE), "data": (DATA, bytes), "doubles": (8, bytes),
}  # fmt: skip
LAYER = {
    "name": (1, str), "type": (2, str), "bottom": (3, str), "top": (4, str), "blobs": (7, BLOB),
    "transform_param": (100, TRANSFORM), "concat_param": (104, CONCAT),
    "convolution_param": (106, CONVOLUTION), "dropout_param": (108, DROPOUT),
    "inner_product_param": (117, INNER_PRODUCT), "lrn_param": (118, NORM),
    "pooling_param": (121, POOLING), "slice_param": (126, SLICE),
    "input_param": (143, {"shape": (1, SHAPE)}),
}  # fmt: skip
V1_LAYER = {
    "bottom": (2, str), "top": (3, str), "name": (4, str), "type": (5, int), "blobs": (6, BLOB),
    "concat_param": (9, CONCAT), "convolution_param": (10, CONVOLUTION),
    "dropout_param": (12, DROPOUT), "inner_product_param": (17, INNER_PRODUCT),
    "lrn_param": (18, NORM), "pooling_param": (19, POOLING), "slice_param": (31, SLICE),
    "transform_param": (36, TRANSFORM),
}  # fmt: skip
V1_TYPES = {
    3: "Concat", 4: "Convolution", 5: "Data", 6: "Dropout", 8: "Flatten", 14: "InnerProduct",
    15: "LRN", 17: "Pooling", 18: "ReLU", 20: "Softmax", 21: "SoftmaxLoss", 22: "Split",
    23: "TanH", 33: "Slice", 1: "Accuracy", 12: "ImageData",
}  # fmt: skip
NET = {
    "name": (1, str), "layers": (2, V1_LAYER), "input": (3, str), "input_dim": (4, int),
    "input_shape": (8, SHAPE), "layer": (100, LAYER),
}  # fmt: skip


def tensor_of(blob: Message) -> Tensor:
    """The numbers of a BlobProto."""
    shape = blob.get("shape", [{}])[0].get("dim")
    if shape is None:
        shape = [blob.get(key, [1])[0] for key in ("num", "channels", "height", "width")]
    runs = [(v, "<f4") for v in blob.get("data", [])] + [
        (v, "<f8") for v in blob.get("doubles", [])
    ]
    if len(runs) != 1:
        raise ValueError(f"a blob has {len(runs)} runs of numbers")
    ((numbers, dtype),) = runs
    return stored(numbers, dtype, tuple(shape))


TOKEN = re.compile(r'\s*(?:#[^\n]*\n?\s*)*([\w.+-]+|"[^"]*"|\'[^\']*\'|[:{}<>,;\[\]])')


def parsed(path: Path) -> Message:
    """A .prototxt, as `decoded` would have it; fields that are not in the table stay too."""
    text = path.read_text(encoding="utf-8").rstrip()
    tokens, at = [], 0
    while at < len(text):
        match = TOKEN.match(text, at)
        if match is None:
            break
        tokens.append(match[1])
        at = match.end()
    if text[at:].strip() and not text[at:].lstrip().startswith("#"):
        raise ValueError(f"its text is not understood from {text[at : at + 20]!r} on")
    stack: list[Message] = [{}]
    words = iter(tokens)
    for word in words:
        if word in "}>":
            stack.pop()
        elif word not in ",;":
            value = next(words)
            value = next(words) if value == ":" else value
            values = stack[-1].setdefault(word, [])
            if value in "{<":
                stack.append({})
                values.append(stack[-1])
            else:
                values.append(_literal(value))
    (whole,) = stack
    return whole


def _literal(word: str) -> Any:
    if word[0] in "\"'":
        return word[1:-1]
    if word in ("true", "false"):
        return int(word == "true")
    try:
        return float(word) if re.search(r"[.eE]", word) else int(word)
    except ValueError:
        return word  # of an enumeration


def encoded(values: Message, schema: Mapping[str, Any]) -> Pieces:
    """A message as bytes, what `decoded` reads."""
    found: Pieces = []
    for name, items in values.items():
        number, kind = schema[name]
        for item in items:
            if kind is BLOB:
                item = _blob_written(item)
            elif isinstance(kind, dict):
                item = encoded(item, kind)
            elif isinstance(kind, tuple):
                item = kind.index(item)
            elif kind is float:
                item = float(item)
            found += message({number: item})
    return found


def _blob_written(blob: Tensor) -> Pieces:
    data = Later(
        4 * math.prod(blob.shape),
        lambda: np.ascontiguousarray(blob.numbers(), "<f4").data.cast("B"),
    )
    return message({7: message({1: wire.packed(blob.shape)}), DATA: data})


def printed(values: Message, schema: Mapping[str, Any], indent: str = "") -> str:
    """A message as text, without blobs."""
    lines = []
    for name, items in values.items():
        kind = schema[name][1]
        for item in items if kind is not BLOB else ():
            if isinstance(kind, dict):
                inside = printed(item, kind, f"{indent}  ")
                lines.append(f"{indent}{name} {{\n{inside}{indent}}}\n")
            else:
                word = f'"{item}"' if kind is str else f"{item:.9g}" if kind is float else item
                lines.append(f"{indent}{name}: {word}\n")
    return "".join(lines)
