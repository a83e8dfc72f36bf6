"""Caffe's files: a .caffemodel, the .prototxt that describes the network, and a mean image.

The first and the last are protocol buffers, the second is the same in words; a .caffemodel as Caffe
itself writes it has the description too. One table of fields serves to read and write all of them.
https://github.com/BVLC/caffe/blob/master/src/caffe/proto/caffe.proto
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from tinyalex.convert import wire
from tinyalex.convert.tensors import Contents, NotAChain, Tensor, mapped, stored
from tinyalex.convert.wire import Later, Pieces, fields, message
from tinyalex.errors import CheckpointError, UsageError
from tinyalex.net.layers import (
    LRN,
    Augment,
    AvgPool,
    Conv2d,
    Dropout,
    Linear,
    LRNMap,
    MaxPool,
    ReLU,
    Row,
    Tanh,
)
from tinyalex.net.presets import Architecture
from tinyalex.net.shapes import Layer, layers
from tinyalex.net.windows import pool_size
from tinyalex.runs.checkpoint import Checkpoint
from tinyalex.system.arrays import Array

# Messages: the number of each field that is used, and its kind: int, float, str, the words of an
# enumeration, or another message.
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
    "shape": (7, SHAPE),
}  # fmt: skip
DATA, DOUBLES = 5, 8  # of a blob: its numbers, as floats or doubles
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

Message = dict[str, list[Any]]
SIZE = 227  # of an input that no file tells of


# Reading


def read(model: Path, prototxt: Chain | None) -> Contents:
    """The tensors of a .caffemodel, and the network that it describes, or `prototxt` does.

    Raises CheckpointError if that is no chain of layers that are known here; else whatever damaged
    bytes come to.
    """
    net = decoded(mapped(model), NET)
    tensors = {}
    for layer in _layers(net):
        for kind, blob in zip(("weight", "bias"), layer.blobs, strict=False):
            tensors[f"{layer.name}.{kind}"] = blob
    chain = prototxt or _described_by(net, model)
    return Contents(
        tensors=tensors,
        rows=tuple(chain.rows),
        mean=chain.mean,
        scale=chain.scale,
    )


def read_prototxt(path: Path) -> Chain:
    """The network that a .prototxt describes; errors as in `read`."""
    return _described_by(parsed(path), path)


def _described_by(net: Message, path: Path) -> Chain:
    try:
        return Chain(net)
    except NotAChain as error:
        raise CheckpointError(
            f"{path} describes a network that is no AlexNet: {error}. Only a chain of "
            "convolutions, ReLU, normalisations, pools and fully connected layers is understood."
        ) from None


def read_mean(path: Path) -> Array:
    """A mean image, (H, W, 3) in the order of its channels, of a .binaryproto; damage raises."""
    mean = _blob(mapped(path)).numbers()
    return mean.reshape(mean.shape[-3:]).transpose(1, 2, 0)


def decoded(data: memoryview, schema: Mapping[str, Any]) -> Message:
    """A message's fields by name, each a list. Blobs become tensors."""
    names = {number: (name, kind) for name, (number, kind) in schema.items()}
    found: Message = {}
    for number, wire_type, value in fields(data):
        if number not in names:
            continue
        name, kind = names[number]
        values = found.setdefault(name, [])
        if kind is BLOB:
            values.append(_blob(value))
        elif isinstance(kind, dict):
            values.append(decoded(value, kind))
        elif kind is str:
            values.append(wire.text(value))
        elif kind is float:
            values += np.frombuffer(value, "<f4").tolist()
        elif kind is int:
            values += wire.integers(wire_type, value)
        else:
            values += [kind[i] for i in wire.integers(wire_type, value)]
    return found


def _blob(data: memoryview) -> Tensor:
    dims = decoded(data, BLOB)
    shape = dims.get("shape", [{}])[0].get("dim")
    if shape is None:
        shape = [dims.get(key, [1])[0] for key in ("num", "channels", "height", "width")]
    runs = [(n, v) for n, kind, v in fields(data) if n in (DATA, DOUBLES) and kind == wire.BYTES]
    if len(runs) != 1:
        raise ValueError(f"a blob has {len(runs)} runs of numbers")
    ((number, numbers),) = runs
    return stored(numbers, "<f4" if number == DATA else "<f8", tuple(shape))


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


@dataclass
class CaffeLayer:
    """type: in small letters, without underscores: `innerproduct`. first: of its parameters."""

    name: str
    type: str
    bottom: list[str]
    top: list[str]
    blobs: list[Tensor]
    parameters: Message

    def first(self, key: str, default: Any) -> Any:
        """The first value of one of its parameters."""
        return self.parameters.get(key, [default])[0]


def _layers(net: Message) -> Iterator[CaffeLayer]:
    for layer in net.get("layers", []) + net.get("layer", []):
        (kind,) = layer.get("type", [""])
        kind = V1_TYPES.get(kind, f"type {kind}") if isinstance(kind, int) else kind
        parameters = [m for key, (m, *_) in layer.items() if key.endswith("_param")]
        yield CaffeLayer(
            name=layer.get("name", [""])[0],
            type=kind.replace("_", "").lower(),
            bottom=layer.get("bottom", []),
            top=layer.get("top", []),
            blobs=layer.get("blobs", []),
            parameters={key: value for m in parameters for key, value in m.items()},
        )


ASIDE = ("data", "imagedata", "hdf5data", "memorydata", "windowdata", "input", "accuracy",
         "softmaxwithloss", "softmaxloss", "silence")  # fmt: skip
UNCHANGED = ("dropout", "softmax", "split", "flatten")


class Chain:
    """A net's layers, followed from the data on, as rows; none where they are not described.

    mean, scale: what its data layer subtracts and multiplies by, if it says so.
    """

    def __init__(self, net: Message) -> None:
        self.rows: list[Row] = []
        self.mean: Array | None = None
        self.scale: Array | None = None
        every = list(_layers(net))
        self.layers = [layer for layer in every if layer.type not in ASIDE]
        convs = [layer for layer in self.layers if layer.type == "convolution"]
        if not convs or not all(layer.first("num_output", 0) for layer in convs):
            return
        size = self._input(net, every)
        self.rows.append(Augment("data", size=size, image_size=max(size, 256)))
        self.at = convs[0].bottom[0]
        while self.layers:
            self._follow(self.layers.pop(0))

    def _input(self, net: Message, every: Sequence[CaffeLayer]) -> int:
        """The side of the input; files the mean and the scale where they are told."""
        size = next((int(dims[2]) for dims in [net.get("input_dim", [])] if len(dims) == 4), 0)
        for shape in net.get("input_shape", []):
            size = int(shape["dim"][2])
        for layer in every:
            if layer.type not in ASIDE:
                continue
            for shape in layer.parameters.get("shape", []):
                size = int(shape["dim"][2]) if len(shape["dim"]) == 4 else size
            size = size or int(layer.first("crop_size", 0))
            if values := layer.parameters.get("mean_value"):
                self.mean = np.array(values, np.float32).reshape(1, 1, -1)
            if "scale" in layer.parameters:
                self.scale = np.full(3, layer.first("scale", 1.0))
        return size or SIZE

    @property
    def side(self) -> int:
        try:
            return layers(self.rows)[-1].output[0]
        except ValueError as error:
            raise NotAChain(str(error)) from None

    def _follow(self, layer: CaffeLayer) -> None:
        if layer.type == "slice" and layer.bottom == [self.at]:
            self._towers(layer)
            return
        if layer.bottom[:1] != [self.at]:
            raise NotAChain(f"{layer.name} branches off")
        self.at = layer.top[0]
        name = layer.name
        match layer.type:
            case "convolution":
                size, stride, pad = (
                    int(layer.first(f"{key}_h", layer.first(long, default)))
                    for key, long, default in (
                        ("kernel", "kernel_size", 0), ("stride", "stride", 1), ("pad", "pad", 0),
                    )
                )  # fmt: skip
                self._plain(layer, {"bias_term": 1, "dilation": 1})
                channels, groups = layer.first("num_output", 0), layer.first("group", 1)
                self.rows.append(Conv2d(name, channels, size, stride, pad, groups))
            case "innerproduct":
                self._plain(layer, {"bias_term": 1, "transpose": 0})
                self.rows.append(Linear(name, layer.first("num_output", 0)))
            case "relu":
                self.rows.append(ReLU(name))
            case "tanh":
                self.rows.append(Tanh(name))
            case "lrn":
                self.rows.append(self._norm(layer))
            case "pooling":
                self._plain(layer, {"pad": 0, "global_pooling": 0})
                kind = {"MAX": MaxPool, "AVE": AvgPool}.get(layer.first("pool", "MAX"))
                if kind is None:
                    raise NotAChain(f"{name} pools by chance")
                size = layer.first("kernel_size", layer.first("kernel_h", 0))
                stride = layer.first("stride", layer.first("stride_h", 1))
                ceil = layer.first("round_mode", "CEIL") == "CEIL"
                self.rows.append(kind(name, size, stride, ceil))
            case kind if kind not in UNCHANGED:
                raise NotAChain(f"{name} is a layer of type {kind}")

    def _plain(self, layer: CaffeLayer, usual: Mapping[str, Any]) -> None:
        for key, value in usual.items():
            if layer.first(key, value) != value:
                raise NotAChain(f"{layer.name} has {key} {layer.first(key, value)}")

    def _norm(self, layer: CaffeLayer, groups: int = 1) -> Row:
        """Caffe's alpha is on the mean of the squares, and within a channel it has no k."""
        n, beta = layer.first("local_size", 5), float(layer.first("beta", 0.75))
        alpha, k = float(layer.first("alpha", 1.0)), float(layer.first("k", 1.0))
        if layer.first("norm_region", "ACROSS_CHANNELS") == "WITHIN_CHANNEL":
            return LRNMap(layer.name, n, 1.0, alpha / n**2, beta)
        return LRN(layer.name, n, k, alpha / n, beta, groups)

    def _towers(self, cut: CaffeLayer) -> None:
        """A slice, a normalisation of each part, and a concatenation: one in groups."""
        count = len(cut.top)
        parts, self.layers = self.layers[:count], self.layers[count:]
        joined = self.layers.pop(0) if self.layers else cut
        inside = [(layer.type, layer.bottom) for layer in parts]
        if joined.type != "concat" or inside != [("lrn", [top]) for top in cut.top]:
            raise NotAChain(f"{cut.name} cuts what is not normalised and joined again")
        self.rows.append(self._norm(parts[0], groups=count))
        self.at = joined.top[0]


# Writing


def write(file: BinaryIO, state: Checkpoint) -> str:
    """Write the .caffemodel of a network, and return its .prototxt.

    Its input is `data`, (N, 3, size, size): the crop minus the mean, B G R. Its output is the
    logits. OpenCV's reader passes over LRN's k, so k is 1 here, and the next weights are the
    smaller; Caffe has no dropout that scales at test, so these weights are smaller, too. Raises
    UsageError for a network that Caffe cannot have.
    """
    network = state.network
    _check(network)
    size = network.data.size
    every: list[Message] = [
        {
            "name": ["data"],
            "type": ["Input"],
            "top": ["data"],
            "input_param": [{"shape": [{"dim": [1, 3, size, size]}]}],
        }
    ]
    every += _described(network, state.parameters)
    net: Message = {"name": [network.name], "layer": every}
    wire.write(file, encoded(net, NET))
    return printed(net, NET)


def write_mean(file: BinaryIO, mean: Array) -> None:
    """Write a mean image (H, W, 3), R G B, as .binaryproto, which is B G R."""
    height, width, channels = mean.shape
    numbers = np.ascontiguousarray(mean[..., ::-1].transpose(2, 0, 1), "<f4").tobytes()
    wire.write(file, message({1: 1, 2: channels, 3: height, 4: width, DATA: numbers}))


def _check(network: Architecture) -> None:
    for layer in layers(network.rows):
        row, n = layer.row, layer.input[0]
        reason = ""
        if isinstance(row, Conv2d) and row.ceil:
            reason = "rounds up, which Caffe's convolutions cannot"
        if isinstance(row, MaxPool | AvgPool) and not row.ceil:
            up, down = (pool_size(n, row.size, row.stride, ceil) for ceil in (True, False))
            if up != down:
                reason = "rounds down, which readers of Caffe's files do not heed"
        if isinstance(row, LRNMap) and (row.k != 1 or row.n % 2 == 0):
            reason = "is a normalisation in the map with a k or a window that Caffe cannot have"
        if reason:
            raise UsageError(
                f"{network.name} cannot be written for Caffe: {row.name} {reason}. Export it as "
                ".onnx, .safetensors or .pth."
            )


def _described(network: Architecture, parameters: Mapping[str, Array]) -> Iterator[Message]:
    """The layers, and their weights as tensors that are made when they are written."""
    at, gain = "data", 1.0
    for layer in layers(network.rows):
        row = layer.row
        told: Message = {"name": [row.name], "bottom": [at], "top": [row.name]}
        match row:
            case Augment():
                gain = row.scale
                continue
            case Conv2d():
                told |= {
                    "type": ["Convolution"],
                    "convolution_param": [
                        {
                            "num_output": [row.channels],
                            "kernel_size": [row.size],
                            "stride": [row.stride],
                            "pad": [row.pad],
                            "group": [row.groups],
                        }
                    ],
                    "blobs": _blobs(layer, parameters, gain, bgr=at == "data"),
                }
                gain = 1.0
            case Linear():
                told |= {
                    "type": ["InnerProduct"],
                    "inner_product_param": [{"num_output": [row.features]}],
                    "blobs": _blobs(layer, parameters, gain, bgr=False),
                }
                gain = 1.0
            case ReLU() | Tanh():
                kind = "ReLU" if isinstance(row, ReLU) else "TanH"
                told |= {"type": [kind], "top": [at]}
            case LRN():
                gain *= row.k**-row.beta
                norm = {"local_size": [row.n], "alpha": [row.alpha * row.n / row.k]}
                told |= {"type": ["LRN"], "lrn_param": [norm | {"beta": [row.beta]}]}
                if row.groups > 1:
                    yield from _in_towers(told, row.groups)
                    at = row.name
                    continue
            case LRNMap():
                norm = {"local_size": [row.n], "alpha": [row.alpha * row.n**2]}
                norm |= {"beta": [row.beta], "norm_region": ["WITHIN_CHANNEL"]}
                told |= {"type": ["LRN"], "lrn_param": [norm]}
            case MaxPool() | AvgPool():
                pool = "MAX" if isinstance(row, MaxPool) else "AVE"
                sizes = {"kernel_size": [row.size], "stride": [row.stride]}
                told |= {"type": ["Pooling"], "pooling_param": [{"pool": [pool], **sizes}]}
            case Dropout():
                gain *= 1 - row.rate if row.scale_at == "test" else 1
                ratio = {"dropout_ratio": [row.rate]}
                told |= {"type": ["Dropout"], "top": [at], "dropout_param": [ratio]}
        at = told["top"][0]
        yield told


def _in_towers(norm: Message, groups: int) -> Iterator[Message]:
    """A normalisation of each of the groups by itself."""
    (name,), (at,) = norm["name"], norm["bottom"]
    ins = [f"{name}_in{i}" for i in range(groups)]
    outs = [f"{name}_out{i}" for i in range(groups)]
    yield {
        "name": [f"{name}_slice"], "type": ["Slice"], "bottom": [at], "top": ins,
        "slice_param": [{"axis": [1]}],
    }  # fmt: skip
    for before, after in zip(ins, outs, strict=True):
        yield norm | {"name": [after], "bottom": [before], "top": [after]}
    yield {
        "name": [name], "type": ["Concat"], "bottom": outs, "top": [name],
        "concat_param": [{"axis": [1]}],
    }  # fmt: skip


def _blobs(layer: Layer, parameters: Mapping[str, Array], gain: float, bgr: bool) -> list[Tensor]:
    """Weights, times `gain`, with channels before height and width; and biases."""
    name = layer.row.name
    weight, bias = parameters[f"{name}.weight"], parameters[f"{name}.bias"]
    conv = weight.ndim == 4
    sizes = weight.shape[1:] if conv else layer.input
    height, width, channels = sizes
    shape = (len(weight), channels, height, width) if conv else weight.shape

    def turned() -> Array:
        w = weight.reshape(-1, *sizes).transpose(0, 3, 1, 2)
        w = w[:, ::-1] if bgr else w
        return (w if gain == 1 else w * np.float32(gain)).reshape(shape)

    return [Tensor(shape, turned), Tensor(bias.shape, lambda: bias)]


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
