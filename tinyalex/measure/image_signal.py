"""How much of the images arrives at each layer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tinyalex.net.draws import centre_draws
from tinyalex.net.layers import Conv2d, Linear
from tinyalex.net.network import Network, activations


class Signal(NamedTuple):
    """Of what a layer computes, before its activation function, that which tells images apart.

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
    found: dict[str, Signal] = {}
    for row, output in activations(network, images, draws):
        if isinstance(row, Conv2d | Linear):
            y = network.ops.to_numpy(output)
            std = math.sqrt(y.var(0, dtype=np.float64).mean())
            size = math.sqrt(np.square(y, dtype=np.float64).mean())
            found[row.name] = Signal(std, std / (size or 1.0))
    return found


def as_dict(signal: Mapping[str, Signal]) -> dict[str, dict[str, float]]:
    """The signal of each layer as JSON has it."""
    return {layer: found._asdict() for layer, found in signal.items()}
