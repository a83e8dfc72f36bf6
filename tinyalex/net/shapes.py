"""Sizes: what a convolution or a pool makes of its input, and what a whole network costs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tinyalex.net.layers import LRN, Augment, AvgPool, Conv2d, Linear, MaxPool, Row


def conv_size(n: int, size: int, stride: int, pad: int, ceil: bool = False) -> int:
    """Side of a convolution's output: 1 + floor((n + 2 pad - size) / stride), with `ceil` up.

    Rounding up adds a last window that the padded border cuts off, unless it would start beyond.
    Raises ValueError if the window does not fit once (with `ceil`: if there is no pixel).
    """
    padded = n + 2 * pad
    if ceil and n > 0:
        return min(1 + math.ceil(max(padded - size, 0) / stride), math.ceil(padded / stride))
    if ceil or size > padded:
        raise ValueError(f"a window of {size} does not fit into {n} pixels with pad {pad}")
    return 1 + (padded - size) // stride


def pool_size(n: int, size: int, stride: int, ceil: bool) -> int:
    """Side of a pool's output: that of a convolution without pad."""
    return conv_size(n, size, stride, 0, ceil)


Shape = tuple[int, int, int]
"""Height, width, channels of one image's activations."""


@dataclass(frozen=True)
class Layer:
    """What one row costs, for one image.

    weight: shape of the weights, (O, kh, kw, C/groups) or (O, inputs); None without parameters.
    bias: length of the bias, 0 without parameters.
    macs: multiply-adds of the forward pass. neurons: outputs, counted for conv2d and linear.
    """

    row: Row
    input: Shape
    output: Shape
    weight: tuple[int, ...] | None = None
    macs: int = 0

    @property
    def bias(self) -> int:
        return self.weight[0] if self.weight else 0

    @property
    def parameters(self) -> int:
        return math.prod(self.weight) + self.bias if self.weight else 0

    @property
    def neurons(self) -> int:
        return math.prod(self.output) if self.weight else 0


def layers(rows: Sequence[Row]) -> list[Layer]:
    """The cost of each row of a network, from the image to the logits.

    Raises ValueError, naming the row, where a row does not fit what is below it.
    """
    return list(_trace(rows))


def _trace(rows: Sequence[Row]) -> Iterator[Layer]:
    if not rows or not isinstance(rows[0], Augment):
        raise ValueError("the first row of a network is Augment")
    shape: Shape = (rows[0].size, rows[0].size, 3)
    for row in rows:
        try:
            layer = _layer(row, shape)
        except ValueError as error:
            raise ValueError(f"{row.name}: {error}") from None
        shape = layer.output
        yield layer


def _layer(row: Row, shape: Shape) -> Layer:
    h, w, c = shape
    if isinstance(row, Conv2d):
        if c % row.groups or row.channels % row.groups:
            raise ValueError(
                f"{c} -> {row.channels} channels cannot be cut into {row.groups} groups"
            )
        ho, wo = (conv_size(n, row.size, row.stride, row.pad, row.ceil) for n in (h, w))
        weight = (row.channels, row.size, row.size, c // row.groups)
        return Layer(row, shape, (ho, wo, row.channels), weight, ho * wo * math.prod(weight))
    if isinstance(row, LRN) and c % row.groups:
        raise ValueError(f"{c} channels cannot be cut into {row.groups} groups")
    if isinstance(row, MaxPool | AvgPool):
        ho, wo = (pool_size(n, row.size, row.stride, row.ceil) for n in (h, w))
        return Layer(row, shape, (ho, wo, c))
    if isinstance(row, Linear):
        inputs = h * w * c
        return Layer(
            row, shape, (1, 1, row.features), (row.features, inputs), row.features * inputs
        )
    return Layer(row, shape, shape)
