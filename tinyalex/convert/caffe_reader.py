"""A network and its weights from Caffe's files: .caffemodel, .prototxt and a mean image.

The first and the last are protocol buffers, the second is the same in words; a .caffemodel as Caffe
itself writes it has the description too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tinyalex.convert.caffe import BLOB, NET, V1_TYPES, parsed, tensor_of
from tinyalex.convert.tensors import Contents, NotAChain, mapped
from tinyalex.convert.wire import Message, decoded
from tinyalex.net.layers import (
    LRN,
    Augment,
    AvgPool,
    Conv2d,
    Linear,
    LRNMap,
    MaxPool,
    ReLU,
    Row,
    Tanh,
)
from tinyalex.system.arrays import Array

SIZE = 227  # of an input that no file tells of


def read(model: Path, prototxt: Chain | None) -> Contents:
    """The tensors of a .caffemodel, and the network that it describes, or `prototxt` does.

    Raises NotAChain if that is none of layers that are known here; else whatever damaged bytes come
    to.
    """
    net = decoded(mapped(model), NET)
    tensors = {}
    for layer in _layers(net):
        for kind, blob in zip(("weight", "bias"), layer.blobs, strict=False):
            tensors[f"{layer.name}.{kind}"] = tensor_of(blob)
    chain = prototxt or Chain(net)
    return Contents(tensors, tuple(chain.rows), chain.mean, chain.scale)


def read_prototxt(path: Path) -> Chain:
    """The network that a .prototxt describes; errors as in `read`."""
    return Chain(parsed(path))


def read_mean(path: Path) -> Array:
    """A mean image, (H, W, 3) in the order of its channels, of a .binaryproto; damage raises."""
    mean = tensor_of(decoded(mapped(path), BLOB)).numbers()
    return mean.reshape(mean.shape[-3:]).transpose(1, 2, 0)


@dataclass
class CaffeLayer:
    """type: in small letters, without underscores: `innerproduct`. first: of its parameters."""

    name: str
    type: str
    bottom: list[str]
    top: list[str]
    blobs: list[Message]
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
