"""Networks with lively weights, images like photos, and what the networks answer to them."""

from dataclasses import asdict

import numpy as np
from PIL import Image

from tinyalex import reference
from tinyalex.net.draws import centre_draws
from tinyalex.net.network import Network
from tinyalex.net.presets import ARCHITECTURES
from tinyalex.net.shapes import layers
from tinyalex.runs.checkpoint import Checkpoint
from tinyalex.runs.config import Config
from tinyalex.runs.progress import Progress

SAME = 1e-5
"""Relative L2 of the logits, one network in two programs. Measured: at most 3e-6; of the mistakes
that are tried the smallest, normalisation by towers, moves them by 4e-5 in the whole of alexnet."""


def lively(architecture, seed=0):
    """Weights of std sqrt(2 / inputs), for the signal to keep its size, and biases that matter."""
    rng, found = np.random.default_rng(seed), {}
    for layer in layers(architecture.rows):
        for name, parameter in layer.trained.items():
            shape = parameter.shape
            std = 0.1 if len(shape) == 1 else np.sqrt(2 / np.prod(shape[1:]))
            found[name] = (std * rng.standard_normal(shape)).astype("f4")
    return found


def state(name, seed=0, classes=None):
    """A checkpoint of a preset, lively, with a mean image that differs from pixel to pixel."""
    network = ARCHITECTURES[name]
    network = network.with_classes(classes) if classes else network
    names = tuple(f"n{i:08}" for i in range(network.classes))
    return Checkpoint(
        network=network,
        classes=names,
        titles=tuple(f"thing {name}" for name in names),
        config=asdict(Config(arch=name)),
        progress=Progress(),
        parameters=lively(network, seed),
        velocities={},
        mean=photos(1, network.data.image_size, seed=99)[0] * np.float32(0.2) + 95,
        colour=np.zeros((3, 3), "f4"),
    )


def photos(count, size, seed=5):
    """Images with the spectrum of photos, 1 / frequency: uint8 (count, size, size, 3)."""
    rng = np.random.default_rng(seed)
    total = np.zeros((count, size, size, 3))
    for side in (2, 4, 8, 16, 32, 64, 128):
        for image in total:
            noise = rng.uniform(0, 255, (side, side, 3)).astype(np.uint8)
            grown = Image.fromarray(noise).resize((size, size), Image.Resampling.BICUBIC)
            image += np.asarray(grown, np.float64) - 127.5
    return np.clip(total / 2 + 127.5, 0, 255).astype(np.uint8)


def answers(state, images):
    """The reference's logits of the centre crops."""
    network = Network(state.network, reference, state.parameters, state.mean)
    return network.logits(images, centre_draws(state.network.data, len(images)))


def crops(state, images):
    """The centre crops, (N, 3, size, size), R G B, as other programs take them."""
    data = state.network.data
    at = (data.image_size - data.size) // 2
    inside = slice(at, at + data.size)
    return np.ascontiguousarray(images[:, inside, inside].transpose(0, 3, 1, 2), np.float32)


def apart(actual, expected):
    """|actual - expected| / |expected|."""
    return float(np.linalg.norm(actual - expected) / np.linalg.norm(expected))


def same_parameters(found, expected):
    """Whether two sets of parameters are equal, bit for bit."""
    return list(found) == list(expected) and all(
        (found[n].dtype, found[n].shape, found[n].tobytes())
        == (a.dtype, a.shape, np.ascontiguousarray(a).tobytes())
        for n, a in expected.items()
    )
