"""The networks at a size for tests: all their rows, real images, few channels."""

import math
from dataclasses import replace

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
from tinyalex.net.presets import Architecture, Recipe
from tinyalex.net.shapes import Layer, layers

EVERY_KIND = Architecture(
    "every-kind",
    "one row of each kind, with even windows, cut-off windows and towers",
    (
        Augment("data", size=12, image_size=14),
        Conv2d("conv1", 6, size=3, pad=1),
        ReLU("relu1"),
        LRN("norm1", n=4, alpha=0.01, groups=2),
        MaxPool("pool1", 3, 2, ceil=True),
        Conv2d("conv2", 8, size=3, pad=1, groups=2),
        Tanh("tanh2"),
        LRNMap("norm2", n=2, k=1, alpha=0.05, beta=0.75),
        AvgPool("pool2", 3, 2, ceil=True),
        Linear("fc3", 10),
        Dropout("drop3", scale_at="train"),
        Linear("fc4", 5),
    ),
    Recipe(epochs=1),
)


def layer_of(kind: str) -> Layer:
    """The first layer of that kind in EVERY_KIND."""
    found = [layer for layer in layers(EVERY_KIND.rows) if layer.row.kind == kind]
    assert found, "tests/support/small.py: EVERY_KIND"
    return found[0]


TINY = Architecture(
    "tiny",
    "for tests",
    (
        Augment("data", size=14, image_size=16),
        *(Conv2d("conv1", 8, size=3, stride=2, init_std=0.05), ReLU("relu1")),
        *(LRN("norm1", n=3, alpha=1e-3, groups=2), MaxPool("pool1", 3, 2, ceil=True)),
        *(Conv2d("conv2", 8, size=3, pad=1, groups=2, init_std=0.15), ReLU("relu2")),
        *(Conv2d("conv3", 8, size=3, pad=1, init_std=0.12), ReLU("relu3"), MaxPool("pool3", 2, 1)),
        *(Linear("fc6", 16, init_std=0.15), ReLU("relu6"), Dropout("drop6")),
        Linear("fc8", 10, init_std=0.1),
    ),
    Recipe(epochs=1, batch_size=2, lr=1e-3),
)
"""AlexNet's kinds of rows, towers and exchanges, on few enough numbers for the simulator."""


def shrunk(architecture: Architecture) -> Architecture:
    """The same rows with an eighth of the channels and 32 hidden neurons: a step is milliseconds.

    Name, input, groups, windows, recipe and number of classes stay. Channels remain even, so that
    two towers remain two towers. Initial weights grow as the inputs of a layer become fewer, for
    the gradients to keep their size.
    """
    *rows, last = architecture.rows
    pairs = zip(layers(architecture.rows), layers((*map(_thinned, rows), last)), strict=True)
    return replace(architecture, rows=tuple(_strengthened(old, new) for old, new in pairs))


def _thinned(row: Row) -> Row:
    if isinstance(row, Conv2d):
        return replace(row, channels=-(-row.channels // 16) * 2)
    return replace(row, features=32) if isinstance(row, Linear) else row


def _strengthened(old: Layer, new: Layer) -> Row:
    if not isinstance(new.row, Conv2d | Linear):
        return new.row
    fewer = math.prod(old.weight[1:]) / math.prod(new.weight[1:])
    if new.row.init_std is None:
        return new.row  # by the inputs there are
    return replace(new.row, init_std=new.row.init_std * math.sqrt(fewer))
