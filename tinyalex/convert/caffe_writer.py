"""A network and its weights as Caffe's files: .caffemodel, .prototxt and a mean image."""

from collections.abc import Iterator, Mapping
from typing import BinaryIO

import numpy as np

from tinyalex.convert import wire
from tinyalex.convert.caffe import DATA, NET, encoded, printed
from tinyalex.convert.mappings import turned, turned_shape
from tinyalex.convert.tensors import Tensor
from tinyalex.convert.wire import Message, message
from tinyalex.errors import UsageError
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
    Tanh,
)
from tinyalex.net.presets import Architecture
from tinyalex.net.shapes import Layer, layers
from tinyalex.net.windows import pool_size
from tinyalex.runs.checkpoint import Checkpoint
from tinyalex.system.arrays import Array


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
    data: Message = {
        "name": ["data"], "type": ["Input"], "top": ["data"],
        "input_param": [{"shape": [{"dim": [1, 3, size, size]}]}],
    }  # fmt: skip
    every = [data, *_described(network, state.parameters)]
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
                    "convolution_param": [{
                        "num_output": [row.channels], "kernel_size": [row.size],
                        "stride": [row.stride], "pad": [row.pad], "group": [row.groups],
                    }],
                    "blobs": _blobs(layer, parameters, gain, bgr=at == "data"),
                }  # fmt: skip
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

    def numbers() -> Array:
        w = turned(weight, layer)
        w = w[:, ::-1] if bgr else w
        return w if gain == 1 else w * np.float32(gain)

    return [Tensor(turned_shape(layer), numbers), Tensor(bias.shape, lambda: bias)]
