"""How much of the images arrives at each layer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tinyalex.backend import Backend
from tinyalex.data import open_data
from tinyalex.data.batches import read_images
from tinyalex.net.draws import centre_draws, initial_parameters
from tinyalex.net.layers import Conv2d, Linear
from tinyalex.net.network import Network, activations
from tinyalex.net.presets import Architecture

IMAGES = 32  # for the signal before training


class Signal(NamedTuple):
    """How much of what a layer computes, before its activation function, tells images apart.

    std: of each output the standard deviation over the images; of all outputs the root mean square.
    share: std over the root mean square of the outputs themselves, 0 to 1. The rest is the same for
    every image: biases, and what they become.
    """

    std: float
    share: float


def image_signal(network: Network, images: npt.NDArray[np.uint8]) -> dict[str, Signal]:
    """The signal of each layer with parameters, in the view of evaluation.

    images: uint8 (N, image_size, image_size, 3), two or more.
    """
    draws = centre_draws(network.architecture.data, len(images))
    signal: dict[str, Signal] = {}
    for row, output in activations(network, images, draws):
        if isinstance(row, Conv2d | Linear):
            y = network.ops.to_numpy(output)
            std = math.sqrt(y.var(0, dtype=np.float64).mean())
            size = math.sqrt(np.square(y, dtype=np.float64).mean())
            signal[row.name] = Signal(std, std / (size or 1.0))
    return signal


def initial_signal(architecture: Architecture, ops: Backend) -> dict[str, Signal]:
    """`image_signal` on the built-in images, before training."""
    split = open_data(None, architecture.data.image_size, seed=0).train
    images = read_images(split, np.arange(IMAGES), workers=0)
    mean = images.mean(0, dtype=np.float32)
    network = Network(architecture, ops, initial_parameters(architecture, seed=0), mean)
    return image_signal(network, images)


def as_dict(signal: Mapping[str, Signal]) -> dict[str, dict[str, float]]:
    """The signal of each layer as JSON has it."""
    return {layer: values._asdict() for layer, values in signal.items()}
