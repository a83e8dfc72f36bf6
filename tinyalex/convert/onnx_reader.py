"""A network and its weights from ONNX: a graph of nodes with its tensors, a protocol buffer.

Fields' numbers: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tinyalex.convert import tensors
from tinyalex.convert.tensors import BFLOAT16, Contents, Tensor, mapped, stored
from tinyalex.convert.wire import Message, decoded
from tinyalex.errors import CheckpointError
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
from tinyalex.net.shapes import layers
from tinyalex.net.windows import conv_size, pool_size
from tinyalex.system.arrays import Array

# TensorProto.DataType, and the field that has such numbers where they are not in raw_data.
DTYPES = {1: "<f4", 6: "<i4", 7: "<i8", 10: "<f2", 11: "<f8", 16: BFLOAT16}
FLOAT, INT64 = 1, 7
RAW_DATA = 9
SKIPPED = (
    "Dropout",
    "Identity",
    "Flatten",
    "Reshape",
    "Softmax",
)  # nothing in evaluation, or shape

# Messages, as in `caffe`.
ENTRY = {"key": (1, str), "value": (2, str)}
TENSOR = {
    "dims": (1, int), "type": (2, int), "floats": (4, bytes), "int64s": (7, int), "name": (8, str),
    "raw": (RAW_DATA, bytes), "doubles": (10, bytes), "external": (13, ENTRY),
}  # fmt: skip
ATTRIBUTE = {
    "name": (1, str), "float": (2, float), "int": (3, int), "text": (4, bytes),
    "tensor": (5, TENSOR), "ints": (8, int),
}  # fmt: skip
NODE = {"input": (1, str), "output": (2, str), "op": (4, str), "attribute": (5, ATTRIBUTE)}
SHAPE = {"dim": (1, {"value": (1, int)})}
INPUT = {"name": (1, str), "type": (2, {"tensor": (1, {"shape": (2, SHAPE)})})}
GRAPH = {"node": (1, NODE), "initializer": (5, TENSOR), "input": (11, INPUT)}
MODEL = {"graph": (7, GRAPH), "metadata": (14, ENTRY)}


class NotAChain(tensors.NotAChain):
    """A node of a graph that has no row."""

    where = "is an ONNX graph"


@dataclass
class Node:
    """An operation: names of what it reads and writes, and its attributes."""

    op: str
    inputs: list[str]
    outputs: list[str]
    attributes: dict[str, Any]


@dataclass
class Graph:
    """A model. inputs: the sizes of each, 0 for one that is open."""

    metadata: dict[str, str]
    nodes: list[Node] = field(default_factory=list)
    constants: dict[str, Tensor] = field(default_factory=dict)
    inputs: dict[str, list[int]] = field(default_factory=dict)


def read(path: Path) -> Contents:
    """The network and the tensors of a file, and of the file of data beside it if it has one.

    Raises NotAChain if the graph is none of layers that are known here, CheckpointError if a file
    is missing; else whatever damaged bytes come to.
    """
    graph = _model(path)
    chain = _Chain(graph)
    return Contents(chain.tensors, tuple(chain.rows), chain.mean, chain.scale, graph.metadata)


class _Chain:
    """A graph's nodes, followed from the images on, as rows and their tensors."""

    def __init__(self, graph: Graph) -> None:
        self.constants = graph.constants
        images = {n: d for n, d in graph.inputs.items() if len(d) == 4 and n not in self.constants}
        if len(images) != 1:
            raise NotAChain(f"it has {len(images)} inputs of images")
        ((self.at, (_, channels, height, width)),) = images.items()
        if channels != 3 or not 0 < height == width:
            raise NotAChain(f"its input is {channels} x {height} x {width}, not of one size")
        self.rows: list[Row] = [Augment("data", size=height, image_size=max(height, 256))]
        self.tensors: dict[str, Tensor] = {}
        self.mean: Array | None = None
        self.scale: Array | None = None
        nodes = [node for node in graph.nodes if node.op not in ("Constant", "ConstantOfShape")]
        while nodes:
            count = self._follow(nodes)
            self.at = nodes[count - 1].outputs[0]
            nodes = nodes[count:]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of the last row's output."""
        try:
            return layers(self.rows)[-1].output
        except ValueError as error:
            raise NotAChain(str(error)) from None

    def _follow(self, nodes: Sequence[Node]) -> int:
        """Add the row of the next node, or nodes; how many these were."""
        node, ops = nodes[0], [n.op for n in nodes[:6]]
        if self.at not in node.inputs:
            raise NotAChain(f"{node.op} {node.outputs[0]!r} branches off")
        name, attributes = f"row{len(self.rows)}", node.attributes
        before = len(self.rows) == 1
        if ops == ["Mul", "Conv", "Mul", "Add", "Pow", "Mul"]:
            _, _, alpha, k, beta, _ = (self._scalar(n) for n in nodes[:6])
            n = nodes[1].attributes["kernel_shape"][0]
            self.rows.append(LRNMap(name, n, k, alpha / n**2, -beta))
            return 6
        if ops[:3] == ["Reshape", "LRN", "Reshape"]:
            channels = self._values(node.inputs[1])[1]
            self._lrn(name, nodes[1], groups=self.shape[2] // int(channels))
            return 3
        if node.op == "MatMul" and ops[1:2] == ["Add"]:
            bias = next(i for i in nodes[1].inputs if i in self.constants)
            self._linear(node.inputs[1], bias, outputs_first=False)
            return 2
        match node.op:
            case "Sub" if before and self.mean is None:
                self.mean = self._channels(node)
            case "Mul" | "Div" if before:
                scale = self._channels(node).reshape(-1)
                factor = 1 / scale if node.op == "Div" else scale
                self.scale = factor * np.ones(3) * (1 if self.scale is None else self.scale)
            case "Mul":
                self.rows.append(Dropout(name, rate=1 - self._scalar(node)))
            case "Conv":
                self._conv(node)
            case "Gemm":
                for key, usual in (("alpha", 1), ("beta", 1), ("transA", 0)):
                    self._expect(node, key, usual)
                weight, bias = node.inputs[1:]
                self._linear(weight, bias, outputs_first=attributes.get("transB", 0) == 1)
            case "Relu":
                self.rows.append(ReLU(name))
            case "Tanh":
                self.rows.append(Tanh(name))
            case "LRN":
                self._lrn(name, node)
            case "MaxPool":
                self._pool(MaxPool, name, node)
            case "AveragePool" if attributes["kernel_shape"] != [1, 1]:
                self._pool(AvgPool, name, node)
            case op if op not in SKIPPED and op != "AveragePool":
                raise NotAChain(f"it has a node {op}")
        return 1

    def _lrn(self, name: str, node: Node, groups: int = 1) -> None:
        a = {"alpha": 1e-4, "beta": 0.75, "bias": 1.0} | node.attributes
        alpha = a["alpha"] / a["size"]  # ONNX's is on the mean
        self.rows.append(LRN(name, a["size"], a["bias"], alpha, a["beta"], groups))

    def _conv(self, node: Node) -> None:
        name, weight, _ = self._parameters(*node.inputs[1:])
        a: dict[str, Any] = {"strides": [1, 1], "pads": [0] * 4, "group": 1} | node.attributes
        self._expect(node, "dilations", [1, 1])
        self._expect(node, "auto_pad", b"NOTSET")
        out, _, size, _ = weight.shape
        (stride, _), (pad, left, down, right) = a["strides"], a["pads"]
        n = self.shape[0]
        beyond = conv_size(n, size, stride, pad, ceil=True) * stride - stride + size - n - 2 * pad
        if len({*weight.shape[2:]}) > 1 or a["strides"] != [stride] * 2:
            raise NotAChain(f"the windows of {name} are not square")
        if (left, right) != (pad, down) or down - pad not in (0, beyond):
            raise NotAChain(f"the border of {name} is {a['pads']}")
        ceil = down > pad
        self.rows.append(Conv2d(name, out, size, stride, pad, a["group"], ceil))

    def _linear(self, weight: str, bias: str, outputs_first: bool) -> None:
        name, tensor, _ = self._parameters(weight, bias)
        if not outputs_first:
            turned = Tensor(tensor.shape[::-1], lambda: tensor.numbers().T)
            self.tensors[f"{name}.weight"] = turned
        self.rows.append(Linear(name, self.tensors[f"{name}.weight"].shape[0]))

    def _parameters(self, *inputs: str) -> tuple[str, Tensor, Tensor]:
        """Files the weights and biases of a layer under its name."""
        if len(inputs) != 2:
            raise NotAChain(f"the layer of {inputs[0]} has no bias")
        name = inputs[0].removesuffix(".weight").removesuffix("_w_0")
        for kind, tensor in zip(("weight", "bias"), inputs, strict=True):
            if tensor not in self.constants:
                raise NotAChain(f"{tensor} is not stored in it")
            self.tensors[f"{name}.{kind}"] = self.constants[tensor]
        return name, self.constants[inputs[0]], self.constants[inputs[1]]

    def _pool(self, kind: type[MaxPool] | type[AvgPool], name: str, node: Node) -> None:
        a = {"strides": [1, 1], "pads": [0] * 4} | node.attributes
        self._expect(node, "auto_pad", b"NOTSET")
        (size, wide), (stride, across) = a["kernel_shape"], a["strides"]
        top, left, down, right = a["pads"]
        if (size, stride) != (wide, across) or (top, left) != (0, 0) or down != right:
            raise NotAChain(f"a pool has windows {a}")
        n = self.shape[0]
        padded = 1 + (n + down - size) // stride
        ceil = bool(a.get("ceil_mode", 0)) or padded > pool_size(n, size, stride, False)
        if down and padded != pool_size(n, size, stride, ceil):
            raise NotAChain(f"a pool has zeros {a['pads']} around")
        self.rows.append(kind(name, size, stride, ceil))

    def _expect(self, node: Node, key: str, value: Any) -> None:
        if node.attributes.get(key, value) != value:
            raise NotAChain(f"{node.op} has {key} {node.attributes[key]}")

    def _values(self, name: str) -> Array:
        if name not in self.constants or math.prod(self.constants[name].shape) > 2**24:
            raise NotAChain(f"{name} is not stored in it")
        return self.constants[name].numbers()

    def _scalar(self, node: Node) -> float:
        """The one number that a node has beside its input; nan if it has none, or more."""
        for name in node.inputs:
            if name in self.constants and math.prod(self.constants[name].shape) == 1:
                return float(self._values(name).reshape(()))
        return math.nan

    def _channels(self, node: Node) -> Array:
        """Operand that a node subtracts or multiplies, as (H, W, 3) or (1, 1, 1)."""
        (name,) = (i for i in node.inputs if i != self.at)
        values = self._values(name)
        return values.reshape((1,) * (3 - values.ndim) + values.shape[-3:]).transpose(1, 2, 0)


def _model(path: Path) -> Graph:
    model = decoded(mapped(path), MODEL)
    (graph,) = model["graph"]
    found = Graph(_texts(model.get("metadata", [])))
    for node in graph.get("node", []):
        attributes = {a["name"][-1]: _value(a, path) for a in node.get("attribute", [])}
        op, outputs = node.get("op", [""])[-1], node.get("output", [])
        found.nodes.append(Node(op, node.get("input", []), outputs, attributes))
        if op == "Constant" and isinstance(attributes.get("value"), Tensor):
            found.constants[outputs[0]] = attributes["value"]
    for tensor in graph.get("initializer", []):
        name = tensor.get("name", [""])[-1]
        found.constants[name] = _tensor(tensor, path)
    for value in graph.get("input", []):
        kinds = (kind for message in value.get("type", []) for kind in message.get("tensor", []))
        shapes = (shape for kind in kinds for shape in kind.get("shape", []))
        sizes = [dim.get("value", [0])[-1] for shape in shapes for dim in shape.get("dim", [])]
        found.inputs[value["name"][-1]] = sizes
    return found


def _texts(entries: Sequence[Message]) -> dict[str, str]:
    return {entry["key"][-1]: entry["value"][-1] for entry in entries}


def _value(attribute: Message, path: Path) -> Any:
    """The value of an attribute of a node; None for a kind that is not read here."""
    if "ints" in attribute:
        return attribute["ints"]
    if "tensor" in attribute:
        return _tensor(attribute["tensor"][-1], path)
    if "text" in attribute:
        return bytes(attribute["text"][-1])
    return next((attribute[kind][-1] for kind in ("int", "float") if kind in attribute), None)


def _tensor(told: Message, path: Path) -> Tensor:
    """The tensor of a TensorProto; that its kind is not known shows when its numbers are read."""
    name, code = told.get("name", [""])[-1], told.get("type", [0])[-1]
    shape = tuple(told.get("dims", []))
    if code not in DTYPES:  # of kinds that no weights are of: a text, say
        return Tensor(shape, lambda: _unread(name))
    if "external" in told:
        numbers = _external(path, name, _texts(told["external"]))
    elif "int64s" in told and code == INT64:
        numbers = memoryview(np.array(told["int64s"], "<i8").tobytes())
    else:
        runs = [run for kind in ("raw", "floats", "doubles") for run in told.get(kind, [])]
        numbers = runs[0] if runs else memoryview(b"")
    return stored(numbers, DTYPES[code], shape)


def _unread(name: str) -> Array:
    raise ValueError(f"{name} is of a kind that is not read here")


def _external(path: Path, name: str, told: dict[str, str]) -> memoryview:
    """The bytes of a tensor that lies in another file, which must be in the same folder."""
    location = told.get("location", "")
    if location in ("", ".", "..") or Path(location).name != location:
        raise ValueError(f"{name} lies in {location!r}, outside of the folder")
    beside = path.with_name(location)
    if not beside.is_file():
        raise CheckpointError(
            f"{path} has its numbers in a second file, {beside}, which is not there. Put it beside "
            "the first."
        )
    data = mapped(beside)
    offset = int(told.get("offset", 0))
    length = int(told.get("length", len(data) - offset))
    if not 0 <= offset <= offset + length <= len(data):
        raise ValueError(f"{name} lies beyond the end of {beside}")
    return data[offset : offset + length]
