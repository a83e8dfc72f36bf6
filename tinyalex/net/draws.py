"""Every random number of a training step, as a pure function of (seed, epoch, batch number).

Besides, a run draws the order of each epoch (`data.batches`) and once its first weights, below, and
the images for the mean: see `seeds`. So it can be resumed at any step without a generator's state,
and any backend and any number of workers compute the same step.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from tinyalex.net.layers import Augment, Dropout
from tinyalex.net.presets import Architecture
from tinyalex.net.shapes import layers, parameters
from tinyalex.system.seeds import STEP, WEIGHTS

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Draws:
    """Random numbers of one batch of N images.

    corner: int32 (N, 2), top and left of the crop. flip: uint8 (N,). shift: float32 (N, 3), added
    to the colour. keep: per dropout row a uint8 mask (N, neurons). training: whether this is a
    training batch; in evaluation no neuron is dropped, and keep is empty. scale: a factor on the
    input, beside the row's own.
    """

    corner: Array
    flip: Array
    shift: Array
    keep: Mapping[str, Array] = field(default_factory=dict)
    training: bool = False
    scale: float = 1.0

    def of(self, images: slice) -> Self:
        """Draws for some of the images."""
        keep = {name: mask[images] for name, mask in self.keep.items()}
        corner, flip, shift = (a[images] for a in (self.corner, self.flip, self.shift))
        return replace(self, corner=corner, flip=flip, shift=shift, keep=keep)


def training_draws(
    architecture: Architecture,
    count: int,
    colour: Array,
    seed: int,
    epoch: int,
    batch: int,
    coloured: bool = True,
) -> Draws:
    """The draws for `count` training images of one batch.

    colour: (3, 3), principal components in columns times their standard deviations, as
    data.batches.mean_and_colour finds them.
    coloured: whether colour noise, which the network may not have, is on.
    """
    data = architecture.data
    rng = np.random.default_rng([seed, STEP, epoch, batch])
    border = data.image_size - data.size
    corner = rng.integers(0, border + 1, (count, 2), dtype=np.int32)
    if not data.crops:
        corner[...] = border // 2
    flip = rng.integers(0, 2, count, dtype=np.uint8) * data.flip
    strength = data.colour if coloured else 0.0
    shift = (strength * rng.standard_normal((count, 3)) @ colour.T).astype(np.float32)
    keep = {}
    for layer in layers(architecture.rows):
        if isinstance(layer.row, Dropout):
            keep[layer.row.name] = _mask(rng, count, math.prod(layer.input), layer.row.rate)
    return Draws(corner, flip, shift, keep, True, data.train_scale if coloured else 1.0)


def _mask(rng: np.random.Generator, count: int, neurons: int, rate: float) -> Array:
    if rate != 0.5:
        return (rng.random((count, neurons), dtype=np.float32) >= rate).astype(np.uint8)
    bits = rng.integers(0, 256, -(-count * neurons // 8), dtype=np.uint8)  # 8 neurons a draw
    return np.unpackbits(bits, count=count * neurons).reshape(count, neurons)


def centre_draws(data: Augment, count: int) -> Draws:
    """The one view of evaluation: the centre crop, neither flipped nor coloured."""
    border = (data.image_size - data.size) // 2
    return _view(count, border, border, 0)


def ten_views(data: Augment, count: int) -> list[Draws]:
    """The paper's ten views: four corners and the centre, each with its mirror image."""
    border = data.image_size - data.size
    corners = [(0, 0), (0, border), (border // 2, border // 2), (border, 0), (border, border)]
    return [_view(count, top, left, flip) for flip in (0, 1) for top, left in corners]


def _view(count: int, top: int, left: int, flip: int) -> Draws:
    corner = np.tile(np.array([top, left], np.int32), (count, 1))
    return Draws(corner, np.full(count, flip, np.uint8), np.zeros((count, 3), np.float32))


def initial_parameters(architecture: Architecture, seed: int) -> dict[str, Array]:
    """Draw what each parameter starts from; float32, `conv1.weight` and so on."""
    drawn: dict[str, Array] = {}
    for number, (name, parameter) in enumerate(parameters(architecture.rows).items()):
        if parameter.std:
            rng = np.random.default_rng([seed, WEIGHTS, number])
            if parameter.uniform:
                drawn[name] = rng.random(parameter.shape, np.float32) * 2 - 1
                drawn[name] *= np.float32(math.sqrt(3) * parameter.std)
            else:
                drawn[name] = rng.standard_normal(parameter.shape, np.float32)
                drawn[name] *= np.float32(parameter.std)
        else:
            drawn[name] = np.full(parameter.shape, parameter.value, np.float32)
    return drawn
