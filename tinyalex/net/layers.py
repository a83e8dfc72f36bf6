"""The rows that networks are made of: one small class per kind of layer.

A row holds everything in which one AlexNet differs from another. `kind` is the name of the backend
function that computes it. `weight_decay` None means the recipe's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal


@dataclass(frozen=True)
class Augment:
    """Images to network input: crop, flip, minus the mean, plus a colour shift, times a scale.

    image_size: short side to which pictures are resized before their centre square is kept.
    size: side of the crop, and so of the network's input.
    crops, flip: whether training takes crops at random and mirrors half; else the centre, as it is.
    colour: standard deviation of the factor on each principal component of colour; .1 in 2012.
    scale: factor on the grey levels 0 to 255, for networks made for inputs of another size.
    train_scale: a further factor in training while images are coloured: the code of 2012 divided by
    1.1, that is by 1 + colour, so that they would not spread wider than those of a test.
    """

    name: str
    size: int
    image_size: int
    crops: bool = True
    flip: bool = True
    colour: float = 0.0
    scale: float = 1.0
    train_scale: float = 1.0
    kind: ClassVar[str] = "augment"


@dataclass(frozen=True)
class Conv2d:
    """`channels` filters of size x size; each reads the channels of its own group only.

    ceil: adds the windows that the right and bottom border cut off; what lies beyond is zero.
    """

    name: str
    channels: int
    size: int
    stride: int = 1
    pad: int = 0
    groups: int = 1
    ceil: bool = False
    init_std: float = 0.01
    bias: float = 0.0
    weight_decay: float | None = None
    kind: ClassVar[str] = "conv2d"


@dataclass(frozen=True)
class ReLU:
    """max(x, 0)."""

    name: str
    kind: ClassVar[str] = "relu"


@dataclass(frozen=True)
class Tanh:
    """The saturating unit that Figure 1 of the paper compares ReLU with."""

    name: str
    kind: ClassVar[str] = "tanh"


@dataclass(frozen=True)
class LRN:
    """Normalisation by the n adjacent channels of the same tower. alpha is on the plain sum."""

    name: str
    n: int = 5
    k: float = 2.0
    alpha: float = 1e-4
    beta: float = 0.75
    groups: int = 1
    kind: ClassVar[str] = "lrn"


@dataclass(frozen=True)
class LRNMap:
    """Normalisation by an n x n neighbourhood in the same channel. alpha is on the plain sum."""

    name: str
    n: int
    k: float
    alpha: float
    beta: float
    kind: ClassVar[str] = "lrn_map"


@dataclass(frozen=True)
class MaxPool:
    """Maximum over size x size windows; `ceil` adds the windows that the border cuts off."""

    name: str
    size: int
    stride: int
    ceil: bool = False
    kind: ClassVar[str] = "max_pool"


@dataclass(frozen=True)
class AvgPool:
    """Mean over size x size windows; a window cut off by the border averages what is inside."""

    name: str
    size: int
    stride: int
    ceil: bool = False
    kind: ClassVar[str] = "avg_pool"


@dataclass(frozen=True)
class Linear:
    """`features` neurons, each reading everything below."""

    name: str
    features: int
    init_std: float = 0.01
    bias: float = 0.0
    weight_decay: float | None = None
    kind: ClassVar[str] = "linear"


@dataclass(frozen=True)
class Dropout:
    """Zeroes a fraction `rate` of the neurons in training.

    scale_at: "test" multiplies by 1 - rate in evaluation, as the paper does; "train" divides by
    it in training, as Caffe and PyTorch do.
    """

    name: str
    rate: float = 0.5
    scale_at: Literal["test", "train"] = "test"
    kind: ClassVar[str] = "dropout"


Row = Augment | Conv2d | ReLU | Tanh | LRN | LRNMap | MaxPool | AvgPool | Linear | Dropout
