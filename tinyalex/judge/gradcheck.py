"""Backward passes against numerical derivatives, in float64: every row of a network, and the whole.

A gradient dx of f(x), weighted by dy, is right if for any direction t and small h

    sum of t dx  =  sum of dy (f(x + h t) - f(x - h t)) / 2h.

One random direction shows any mistake, and costs two evaluations however large x is.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinyalex.backend import Backend
from tinyalex.net.draws import Draws, training_draws
from tinyalex.net.layers import LRN, Augment, Dropout, Linear, LRNMap
from tinyalex.net.network import Network
from tinyalex.net.presets import Architecture
from tinyalex.net.shapes import Layer, layers, parameter_shapes
from tinyalex.net.step import loss_and_gradients
from tinyalex.system.arrays import Array

IMAGES = 2

STEP, TOLERANCE = 1e-6, 1e-6
"""For one layer: h, relative to x, and the largest relative error. A missing factor makes 1e-4."""

NETWORK_STEP, NETWORK_TOLERANCE = 1e-8, 1e-3
"""For a whole network, where h has to be so small that no ReLU or maximum changes sides."""

ELEMENTS = 1 << 20
"""Of a tensor larger than this about so many elements are moved."""


@dataclass(frozen=True)
class Result:
    """The relative error of one gradient: the one by `tensor` (x, weight, ...) of a layer."""

    layer: str
    kind: str
    tensor: str
    error: float
    tolerance: float = TOLERANCE

    @property
    def ok(self) -> bool:
        """True if the error is within the tolerance; False for NaN."""
        return self.error <= self.tolerance


def gradcheck(architecture: Architecture, ops: Backend, seed: int = 0) -> list[Result]:
    """Check each row on a small map, but with all its channels, then the loss and the network.

    ops: a backend that computes in float64. Images have no gradient, so `augment` is left out.
    """
    rng, data = np.random.default_rng(seed), architecture.data
    mean = np.full((data.image_size, data.image_size, 3), 127.5)
    network = Network(architecture, ops, strong_parameters(architecture, rng), mean)
    draws = training_draws(architecture, IMAGES, np.eye(3), seed, epoch=0, batch=0)

    results = []
    for layer in layers(architecture.rows):
        if not isinstance(layer.row, Augment):
            arguments = small_input(layer, rng), *network.arguments(layer.row, draws)
            names = layer.row.parameters(layer.input)
            for tensor, error in check_op(ops, layer.row.kind, arguments, rng, names):
                results.append(Result(layer.row.name, layer.row.kind, tensor, error))
    logits = rng.standard_normal((IMAGES, architecture.classes))
    labels = rng.integers(0, architecture.classes, IMAGES)
    for _, error in check_op(ops, "softmax_cross_entropy", (logits, labels), rng):
        results.append(Result("loss", "softmax_cross_entropy", "logits", error))
    images = rng.integers(0, 256, (IMAGES, *mean.shape), dtype=np.uint8)
    for name, error in check_network(network, images, draws, rng):
        results.append(Result("network", "network", name, error, NETWORK_TOLERANCE))
    return results


def strong_parameters(architecture: Architecture, rng: np.random.Generator) -> dict[str, Array]:
    """Parameters with which signal and gradient keep their size through all layers.

    With a preset's own initial weights they may fade until rounding hides the gradient.
    """
    strong = {
        name: rng.standard_normal(s) for name, s in parameter_shapes(architecture.rows).items()
    }
    for value in strong.values():
        if value.ndim > 1:
            value *= math.sqrt(2 / value[0].size)
    return strong


def small_input(layer: Layer, rng: np.random.Generator) -> Array:
    """An x for a row: its own channels, but only as many pixels as its windows need."""
    row, (H, W, C) = layer.row, layer.input
    if not isinstance(row, Linear | Dropout):  # whose weights and masks are for all pixels
        least = max(row.window.size + 2 * row.window.stride, 4)
        H, W = min(H, least), min(W, least + 1)
    shape = IMAGES, H, W, C
    if row.kinked:
        return apart(shape, rng)
    spread = 30 if isinstance(row, LRN | LRNMap) else 1  # grey levels, which are to be normalised
    return spread * rng.standard_normal(shape)


def apart(shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    """Distinct values, none nearer than 1/2 to another or to 0, so that no kink is near."""
    count = math.prod(shape)
    return rng.permutation(np.arange(count) - count // 2 + 0.5).reshape(shape)


def check_op(
    ops: Backend,
    op: str,
    arguments: tuple[Any, ...],
    rng: np.random.Generator,
    parameters: Iterable[str] = (),
) -> Iterator[tuple[str, float]]:
    """The error of each gradient of one layer: by x, and by its parameters, which follow x."""
    forward, backward = getattr(ops, op), getattr(ops, f"{op}_backward")
    # In rows, so that what is moved is the array itself, seen flat.
    arguments = tuple(np.array(a, order="C") if isinstance(a, np.ndarray) else a for a in arguments)
    y, cache = forward(*arguments)
    dy = rng.standard_normal(y.shape)
    if op == "softmax_cross_entropy":
        dy, gradients = np.ones(()), backward(cache)
    else:
        gradients = backward(dy, cache)
    if not isinstance(gradients, tuple):
        gradients = (gradients,)

    def weighted() -> float:
        return float((forward(*arguments)[0] * dy).sum())

    tensors = ("x", *parameters)
    moved = arguments[: len(tensors)]
    for tensor, x, dx in zip(tensors, moved, gradients, strict=True):
        yield tensor, directional_error(weighted, x, dx, rng, STEP)


def check_network(
    network: Network, images: Array, draws: Draws, rng: np.random.Generator
) -> Iterator[tuple[str, float]]:
    """The error of the loss's gradient by each parameter, through all layers."""
    ops = network.ops
    labels = network.logits(images, draws).argmin(1)  # wrong answers, whose loss has a slope
    _, gradients = loss_and_gradients(network, images, labels, draws)

    def loss() -> float:
        logits = network.logits(images, draws)
        return float(ops.softmax_cross_entropy(logits, labels)[0])

    for name, w in network.parameters.items():
        yield name, directional_error(loss, w, gradients[name], rng, NETWORK_STEP)


def directional_error(
    f: Callable[[], float], x: Array, dx: Array, rng: np.random.Generator, step: float
) -> float:
    """The error of dx as the gradient by x in a random direction, relative to its length.

    f() evaluates at x, which is moved in place to and fro. Of a large x not every element moves.
    """
    every = x.size // ELEMENTS | 1  # odd, so that all rows and columns of the weights have some
    moved, gradient = x.reshape(-1)[::every], dx.reshape(-1)[::every]
    here = moved.copy()
    size = math.sqrt(np.mean(here * here)) or 1.0
    t = size * rng.standard_normal(here.shape)
    moved[:] = here + step * t
    ahead = f()
    moved[:] = here - step * t
    numerical = (ahead - f()) / (2 * step)
    moved[:] = here
    length = max(size * float(np.linalg.norm(gradient)), abs(numerical))
    return abs(float(t @ gradient) - numerical) / length if length else 0.0
