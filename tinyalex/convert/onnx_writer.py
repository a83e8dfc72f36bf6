"""A network and its weights as ONNX.

Fields' numbers: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, BinaryIO

import numpy as np

from tinyalex.convert import wire
from tinyalex.convert.mappings import turned, turned_shape
from tinyalex.convert.onnx_reader import DTYPES, FLOAT, INT64, RAW_DATA
from tinyalex.convert.wire import Later, Pieces, message
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
from tinyalex.runs.checkpoint import Checkpoint
from tinyalex.system.arrays import Array

OPSET, IR_VERSION = 17, 8  # read by everything since 2022; LRN and AveragePool are as ever


def write(file: BinaryIO, state: Checkpoint, metadata: dict[str, str]) -> None:
    """Write the network of a checkpoint as a graph.

    Its input is `images`, float32 (N, 3, size, size): the crop, R G B from 0 to 255. Its output is
    the logits.
    """
    network = state.network
    graph = _Writer(network, state)
    size = network.data.size
    described = {
        1: tuple(graph.nodes),
        2: network.name,
        5: tuple(graph.constants),
        11: _declared("images", ["N", 3, size, size]),
        12: _declared(graph.at, ["N", network.classes]),
    }
    model = {
        1: IR_VERSION,
        2: __name__.partition(".")[0],
        7: message(described),
        8: message({2: OPSET}),
        14: tuple(message({1: k, 2: v}) for k, v in metadata.items()),
    }
    wire.write(file, message(model))


def _declared(name: str, sizes: Sequence[int | str]) -> Pieces:
    dims = tuple(message({2 if isinstance(d, str) else 1: d}) for d in sizes)
    return message({1: name, 2: message({1: message({1: FLOAT, 2: message({1: dims})})})})


class _Writer:
    """The nodes and constants of a network; `at` is the output of the last node."""

    def __init__(self, network: Architecture, state: Checkpoint) -> None:
        self.nodes: list[Pieces] = []
        self.constants: list[Pieces] = []
        self.at = "images"
        self.parameters = state.parameters
        for layer in layers(network.rows):
            row, (h, w, c) = layer.row, layer.input
            match row:
                case Augment():
                    at = (row.image_size - row.size) // 2
                    crop = state.mean[at : at + row.size, at : at + row.size]
                    centre = self._constant("mean", crop.transpose(2, 0, 1)[None])
                    self._add("Sub", "centred", centre)
                    if row.scale != 1:
                        self._add("Mul", row.name, self._constant("scale", _number(row.scale, 4)))
                case Conv2d():
                    self._conv(row, layer)
                case Linear():
                    if (h, w) != (1, 1):
                        self._add("Flatten", f"{row.name}_flat", axis=1)
                    self._add("Gemm", row.name, *self._weights(layer), transB=1)
                case ReLU():
                    self._add("Relu", row.name)
                case Tanh():
                    self._add("Tanh", row.name)
                case LRN():
                    self._lrn(row, (h, w, c))
                case LRNMap():
                    self._lrn_map(row, c)
                case MaxPool() | AvgPool():
                    op = "MaxPool" if isinstance(row, MaxPool) else "AveragePool"
                    sizes = {"kernel_shape": [row.size] * 2, "strides": [row.stride] * 2}
                    self._add(op, row.name, **sizes, ceil_mode=int(row.ceil))
                case Dropout() if row.scale_at == "test":
                    kept = self._constant(f"{row.name}_kept", _number(1 - row.rate, 2))
                    self._add("Mul", row.name, kept)

    def _add(self, op: str, name: str, *inputs: str, **attributes: Any) -> None:
        self._node(op, name, [self.at, *inputs], attributes)

    def _node(self, op: str, name: str, inputs: list[str], attributes: dict[str, Any]) -> None:
        told = tuple(_written(key, value) for key, value in attributes.items())
        self.nodes.append(message({1: tuple(inputs), 2: name, 3: name, 4: op, 5: told}))
        self.at = name

    def _constant(self, name: str, value: Any) -> str:
        value = np.asarray(value)
        return self._later(name, value.shape, lambda: value, INT64 if value.dtype == int else FLOAT)

    def _later(
        self, name: str, shape: tuple[int, ...], make: Callable[[], Array], code: int = FLOAT
    ) -> str:
        """A constant whose order in memory is made when it is written."""
        dtype = DTYPES[code]
        nbytes = math.prod(shape) * np.dtype(dtype).itemsize
        data = Later(nbytes, lambda: np.ascontiguousarray(make(), dtype).data.cast("B"))
        self.constants.append(message({1: shape, 2: code, 8: name, RAW_DATA: data}))
        return name

    def _weights(self, layer: Layer) -> tuple[str, str]:
        """The weights with channels before height and width, and the biases."""
        names = f"{layer.row.name}.weight", f"{layer.row.name}.bias"
        weight, bias = (self.parameters[name] for name in names)
        self._later(names[0], turned_shape(layer), lambda: turned(weight, layer))
        self._constant(names[1], bias)
        return names

    def _conv(self, row: Conv2d, layer: Layer) -> None:
        ends = [
            row.pad + row.ceil * max(0, (out - 1) * row.stride + row.size - n - 2 * row.pad)
            for n, out in zip(layer.input[:2], layer.output[:2], strict=True)
        ]
        square = {"kernel_shape": [row.size] * 2, "strides": [row.stride] * 2}
        pads = [row.pad, row.pad, *ends]
        self._add("Conv", row.name, *self._weights(layer), **square, group=row.groups, pads=pads)

    def _lrn(self, row: LRN, below: tuple[int, int, int]) -> None:
        """ONNX's alpha is on the mean. Towers become images of their own meanwhile."""
        h, w, c = below
        told = {"size": row.n, "alpha": row.alpha * row.n, "beta": row.beta, "bias": float(row.k)}
        if row.groups == 1:
            self._add("LRN", row.name, **told)
            return
        apart = self._constant(f"{row.name}_apart", np.array([-1, c // row.groups, h, w]))
        self._add("Reshape", f"{row.name}_towers", apart)
        self._add("LRN", f"{row.name}_each", **told)
        joined = self._constant(f"{row.name}_joined", np.array([-1, c, h, w]))
        self._add("Reshape", row.name, joined)

    def _lrn_map(self, row: LRNMap, channels: int) -> None:
        """x (k + alpha n^2 m)^-beta with m the mean of the squares in an n x n neighbourhood.

        The mean is a convolution, as programs do not agree on AveragePool at the border.
        """
        x, n = self.at, row.n
        self._node("Mul", f"{row.name}_squares", [x, x], {})
        mean = self._constant(
            f"{row.name}_window", np.full((channels, 1, n, n), 1 / n**2, np.float32)
        )
        ends = [n // 2, n // 2, n - 1 - n // 2, n - 1 - n // 2]
        self._add("Conv", f"{row.name}_mean", mean, kernel_shape=[n, n], pads=ends, group=channels)
        for op, value in (("Mul", row.alpha * n**2), ("Add", row.k), ("Pow", -row.beta)):
            number = self._constant(f"{row.name}_{op.lower()}_by", _number(value, 4))
            self._add(op, f"{row.name}_{op.lower()}", number)
        self._add("Mul", row.name, x)


def _number(value: float, axes: int) -> Array:
    """A number with as many axes as what it is combined with: not all programs need fewer."""
    return np.full((1,) * axes, value, np.float32)


def _written(name: str, value: Any) -> Pieces:
    """An attribute: a float, an int, or ints."""
    match value:
        case float():
            return message({1: name, 2: value, 20: 1})
        case int():
            return message({1: name, 3: value, 20: 2})
    return message({1: name, 8: tuple(value), 20: 7})
