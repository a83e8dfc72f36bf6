"""The rows that networks are made of: one small class per kind of layer.

A row holds everything in which one AlexNet differs from another, and says what it makes of a shape,
which parameters it has, and what a backend's function takes besides.
"""

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

from tinyalex.net.windows import Shape, conv_size, pool_size


@dataclass(frozen=True)
class Parameter:
    """A trained array: its shape, where it starts, and how the update treats it.

    std: initial values are normal with this deviation; with 0 all are `value`.
    uniform: they are uniform instead, with the same deviation.
    decay: weight decay; None means the recipe's. bias: takes the recipe's rate for biases.
    """

    shape: tuple[int, ...]
    std: float = 0.0
    value: float = 0.0
    decay: float | None = 0.0
    bias: bool = False
    uniform: bool = False


class Window(NamedTuple):
    """Pixels of the map below that an output sees: `size` a side, from `pad` before its place on.

    stride: pixels from one output to the next.
    """

    size: int
    stride: int
    pad: int


@dataclass(frozen=True)
class Row:
    """One layer.

    kind: name of the backend's function, called as kind(x, *parameters, *settings).
    kinked: whether the slope jumps somewhere, so that gradients cannot be checked near there.
    """

    name: str
    kind: ClassVar[str]
    kinked: ClassVar[bool] = False

    def output(self, shape: Shape) -> Shape:
        """Shape of the output for an input of `shape`. Raises ValueError if that does not fit."""
        return shape

    def parameters(self, shape: Shape) -> dict[str, Parameter]:
        """Trained arrays for an input of `shape`, in the order in which the function takes them."""
        return {}

    @property
    def settings(self) -> tuple[Any, ...]:
        """Arguments of the function after its input and parameters."""
        return ()

    @property
    def window(self) -> Window:
        """The pixels below that one output depends on."""
        return Window(1, 1, 0)


@dataclass(frozen=True)
class Augment(Row):
    """Images to network input: crop, flip, minus the mean, plus a colour shift, times a scale.

    image_size: short side to which pictures are resized before their centre square is kept.
    size: side of the crop, and so of the network's input.
    crops, flip: whether training takes crops at random and mirrors half; else the centre, as it is.
    colour: standard deviation of the factor on each principal component of colour; .1 in 2012.
    scale: factor on the grey levels 0 to 255, for networks made for inputs of another size.
    train_scale: a further factor in training while images are coloured: the code of 2012 divided by
    1.1, that is by 1 + colour, so that they would not spread wider than those of a test.

    What its function takes is drawn anew for each batch: see `Network.arguments`.
    """

    size: int
    image_size: int
    crops: bool = True
    flip: bool = True
    colour: float = 0.0
    scale: float = 1.0
    train_scale: float = 1.0
    kind: ClassVar[str] = "augment"

    @property
    def varies(self) -> bool:
        """True if training sees an image otherwise than evaluation does."""
        crops = self.crops and self.image_size > self.size
        return crops or self.flip or self.colour > 0 or self.train_scale != 1


@dataclass(frozen=True)
class Conv2d(Row):
    """`channels` filters of size x size; each reads the channels of its own group only.

    ceil: adds the windows that the right and bottom border cut off; what lies beyond is zero.
    init_std, bias: see `_weight_and_bias`.
    """

    channels: int
    size: int
    stride: int = 1
    pad: int = 0
    groups: int = 1
    ceil: bool = False
    init_std: float | None = 0.01
    bias: float = 0.0
    weight_decay: float | None = None
    kind: ClassVar[str] = "conv2d"

    def output(self, shape: Shape) -> Shape:
        h, w, c = shape
        if c % self.groups or self.channels % self.groups:
            raise ValueError(
                f"{c} -> {self.channels} channels cannot be cut into {self.groups} groups"
            )
        ho, wo = (conv_size(n, self.size, self.stride, self.pad, self.ceil) for n in (h, w))
        return ho, wo, self.channels

    def parameters(self, shape: Shape) -> dict[str, Parameter]:
        weight = self.channels, self.size, self.size, shape[2] // self.groups
        return _weight_and_bias(weight, self.init_std, self.bias, self.weight_decay)

    @property
    def settings(self) -> tuple[Any, ...]:
        return self.stride, self.pad, self.groups, self.ceil

    @property
    def window(self) -> Window:
        return Window(self.size, self.stride, self.pad)


@dataclass(frozen=True)
class ReLU(Row):
    """max(x, 0)."""

    kind: ClassVar[str] = "relu"
    kinked: ClassVar[bool] = True


@dataclass(frozen=True)
class Tanh(Row):
    """The saturating unit that Figure 1 of the paper compares ReLU with."""

    kind: ClassVar[str] = "tanh"


@dataclass(frozen=True)
class LRN(Row):
    """Normalisation by the n adjacent channels of the same tower. alpha is on the plain sum."""

    n: int = 5
    k: float = 2.0
    alpha: float = 1e-4
    beta: float = 0.75
    groups: int = 1
    kind: ClassVar[str] = "lrn"

    def output(self, shape: Shape) -> Shape:
        if shape[2] % self.groups:
            raise ValueError(f"{shape[2]} channels cannot be cut into {self.groups} groups")
        return shape

    @property
    def settings(self) -> tuple[Any, ...]:
        return self.n, self.k, self.alpha, self.beta, self.groups


@dataclass(frozen=True)
class LRNMap(Row):
    """Normalisation by an n x n neighbourhood in the same channel. alpha is on the plain sum."""

    n: int
    k: float
    alpha: float
    beta: float
    kind: ClassVar[str] = "lrn_map"

    @property
    def settings(self) -> tuple[Any, ...]:
        return self.n, self.k, self.alpha, self.beta

    @property
    def window(self) -> Window:
        return Window(self.n, 1, self.n // 2)


@dataclass(frozen=True)
class _Pool(Row):
    size: int
    stride: int
    ceil: bool = False

    def output(self, shape: Shape) -> Shape:
        h, w, c = shape
        ho, wo = (pool_size(n, *self.settings) for n in (h, w))
        return ho, wo, c

    @property
    def settings(self) -> tuple[Any, ...]:
        return self.size, self.stride, self.ceil

    @property
    def window(self) -> Window:
        return Window(self.size, self.stride, 0)


@dataclass(frozen=True)
class MaxPool(_Pool):
    """Maximum over size x size windows; `ceil` adds the windows that the border cuts off."""

    kind: ClassVar[str] = "max_pool"
    kinked: ClassVar[bool] = True


@dataclass(frozen=True)
class AvgPool(_Pool):
    """Mean over size x size windows; a window cut off by the border averages what is inside."""

    kind: ClassVar[str] = "avg_pool"


@dataclass(frozen=True)
class Linear(Row):
    """`features` neurons, each reading everything below."""

    features: int
    init_std: float | None = 0.01
    bias: float = 0.0
    weight_decay: float | None = None
    kind: ClassVar[str] = "linear"

    def output(self, shape: Shape) -> Shape:
        return 1, 1, self.features

    def parameters(self, shape: Shape) -> dict[str, Parameter]:
        h, w, c = shape
        weight = self.features, h * w * c
        return _weight_and_bias(weight, self.init_std, self.bias, self.weight_decay)


@dataclass(frozen=True)
class Dropout(Row):
    """Zeros in place of a fraction `rate` of the neurons in training.

    scale_at: "test" multiplies by 1 - rate in evaluation, as the paper does; "train" divides by
    it in training, as Caffe and PyTorch do. The mask is drawn: see `Network.arguments`.
    """

    rate: float = 0.5
    scale_at: Literal["test", "train"] = "test"
    kind: ClassVar[str] = "dropout"


def _weight_and_bias(
    weight: tuple[int, ...], std: float | None, bias: float, decay: float | None
) -> dict[str, Parameter]:
    """Weights that start normal with `std`, and biases that start at `bias`.

    std None: as PyTorch's layers, both start uniform within 1/sqrt(inputs of a neuron), and both
    decay, as its optimizers have it.
    """
    if std is None:
        std = 1 / math.sqrt(3 * math.prod(weight[1:]))
        return {
            "weight": Parameter(weight, std, decay=decay, uniform=True),
            "bias": Parameter(weight[:1], std, decay=decay, bias=True, uniform=True),
        }
    return {
        "weight": Parameter(weight, std, decay=decay),
        "bias": Parameter(weight[:1], value=bias, bias=True),
    }


KINDS: dict[str, type[Row]] = {
    row.kind: row
    for row in (Augment, Conv2d, ReLU, Tanh, LRN, LRNMap, MaxPool, AvgPool, Linear, Dropout)
}
"""Every kind of row. A test asks for each: both backends, two GPUs, loops, PyTorch, gradcheck."""
