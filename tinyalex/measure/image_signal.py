"""Share of the images that arrives at each layer."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tinyalex.backend import Backend
from tinyalex.data import open_data
from tinyalex.data.batches import read_images
from tinyalex.data.dataset import Pixels
from tinyalex.net.draws import initial_parameters
from tinyalex.net.network import Network, outputs
from tinyalex.net.presets import Architecture
from tinyalex.net.shapes import layers

IMAGES = 32  # for the signal before training


class Signal(NamedTuple):
    """Share of a layer's output, before its activation function, that tells images apart.

    std: of each output the standard deviation over the images; of all outputs the root mean square.
    share: std over the root mean square of the outputs themselves, 0 to 1. The rest is the same for
    every image: biases, and what they become.
    """

    std: float
    share: float


def image_signal(network: Network, images: Pixels) -> dict[str, Signal]:
    """The signal of each layer with parameters, in the view of evaluation.

    images: uint8 (N, image_size, image_size, 3), two or more.
    """
    trained = [layer.row.name for layer in layers(network.architecture.rows) if layer.trained]
    signal = {}
    for name, y in outputs(network, images, trained):
        std = math.sqrt(y.var(0, dtype=np.float64).mean())
        size = math.sqrt(np.square(y, dtype=np.float64).mean())
        signal[name] = Signal(std, std / (size or 1.0))
    return signal


def initial_signal(architecture: Architecture, ops: Backend) -> dict[str, Signal]:
    """`image_signal` on the built-in images, before training."""
    images, mean = built_in(architecture.data.image_size, IMAGES)
    network = Network(architecture, ops, initial_parameters(architecture, seed=0), mean)
    return image_signal(network, images)


def built_in(size: int, count: int) -> tuple[Pixels, npt.NDArray[np.float32]]:
    """So many of the built-in training images, uint8 (count, size, size, 3), and their mean."""
    split = open_data(None, size, seed=0).train
    images = read_images(split, np.arange(count), workers=0)
    return images, images.mean(0, dtype=np.float32)


def as_dict(signal: Mapping[str, Signal]) -> dict[str, dict[str, float]]:
    """The signal of each layer as JSON has it."""
    return {layer: values._asdict() for layer, values in signal.items()}
