"""What the layers are judged on: drawn shapes, hyper-parameters and values. No judging here.

Nothing has a privileged value: inputs and kernels are not square, alpha goes up to 1, windows of
normalisation may be even, logits may be large. Arrays are float32, which every backend takes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from hypothesis import strategies as st

from tinyalex.judge import gradcheck

Fill = Callable[[np.random.Generator, Any], Any]
"""Makes an array of a shape: `integers`, `reals` or `apart`."""


def integers(rng, shape):
    """Whole numbers from -3 to 3: sums and products are exact in any order, and ties abound."""
    return rng.integers(-3, 4, shape).astype(np.float32)


def reals(rng, shape):
    """Normally distributed."""
    return rng.standard_normal(shape).astype(np.float32)


def apart(rng, shape):
    """Distinct values without a kink nearby."""
    return gradcheck.apart(shape, rng).astype(np.float32)


@dataclass(frozen=True)
class Call:
    """One call of a backend's function.

    fill and seed make dy, once the shape of y is known.
    """

    op: str
    arguments: tuple[Any, ...]
    fill: Fill
    seed: int

    def arguments_as(self, dtype):
        """The arguments with every floating array in `dtype`."""
        return tuple(_cast(argument, dtype) for argument in self.arguments)

    def dy(self, y):
        return self.fill(np.random.default_rng(self.seed), y.shape).astype(y.dtype)


def _cast(argument, dtype):
    floating = isinstance(argument, np.ndarray) and argument.dtype.kind == "f"
    return argument.astype(dtype) if floating else argument


def drawn(function):
    """The function as a strategy, made once for each `fill`: that costs as much as drawing."""
    return cache(st.composite(function))


@cache
def between(least, most):
    """An integer."""
    return st.integers(least, most)


@cache
def factors(fill):
    """A factor; with `integers` one that keeps products exact."""
    exact = st.sampled_from((0.0, 0.25, 0.5, 1.0, 2.0))
    return exact if fill is integers else exact | st.floats(0.05, 2)


BATCHES = st.sampled_from((1, 2, 3, 9))  # 9 images, if cut, are more than one to a piece
SIDES = st.integers(1, 8)
SEEDS = st.integers(0, 2**32 - 1)
BOOLEANS = st.booleans()
STRIDES = st.integers(1, 4)


@drawn
def maps(draw, fill, sides=SIDES, channels=5):
    """A generator and activations (N, H, W, C)."""
    rng = np.random.default_rng(draw(SEEDS))
    shape = draw(BATCHES), draw(sides), draw(sides), draw(between(1, channels))
    return rng, fill(rng, shape)


@drawn
def augment(draw, fill):
    rng = np.random.default_rng(draw(SEEDS))
    N, image_size = draw(BATCHES), draw(SIDES)
    size = draw(between(1, image_size))
    images = rng.integers(0, 256, (N, image_size, image_size, 3), np.uint8)
    mean = 100 + 20 * fill(rng, (image_size, image_size, 3))
    corner = rng.integers(0, image_size - size + 1, (N, 2), np.int32)
    flip = rng.integers(0, 2, N, np.uint8)
    return images, mean, corner, flip, fill(rng, (N, 3)), size, draw(factors(fill))


@drawn
def conv2d(draw, fill):
    groups, kh, kw = (draw(between(1, most)) for most in (3, 4, 4))
    stride, pad, ceil = draw(STRIDES), draw(between(0, 2)), draw(BOOLEANS)
    H, W = (draw(between(1 if ceil else max(1, k - 2 * pad), 8)) for k in (kh, kw))
    C, O = (draw(between(1, 3)) * groups for _ in "CO")
    rng = np.random.default_rng(draw(SEEDS))
    x = fill(rng, (draw(BATCHES), H, W, C))
    w = fill(rng, (O, kh, kw, C // groups))
    return x, w, fill(rng, (O,)), stride, pad, groups, ceil


@drawn
def relu(draw, fill):
    _, x = draw(maps(fill))
    return (x if draw(BOOLEANS) else x.reshape(len(x), -1),)


tanh = relu


NORMALISATIONS = st.tuples(
    st.integers(1, 6),  # n
    st.floats(0.5, 3),  # k
    st.just(0.0) | st.floats(1e-5, 1),  # alpha
    st.just(0.75) | st.floats(0.1, 1.5),  # beta; for .75 the reference takes square roots
)


@drawn
def lrn(draw, fill):
    rng, groups = np.random.default_rng(draw(SEEDS)), draw(between(1, 3))
    shape = draw(BATCHES), draw(SIDES), draw(SIDES), groups * draw(between(1, 7))
    return fill(rng, shape), *draw(NORMALISATIONS), groups


@drawn
def lrn_map(draw, fill):
    _, x = draw(maps(fill))
    return x, *draw(NORMALISATIONS)


@drawn
def max_pool(draw, fill):
    size, stride, ceil = draw(between(1, 4)), draw(STRIDES), draw(BOOLEANS)
    _, x = draw(maps(fill, between(1 if ceil else size, 9), channels=3))
    return x, size, stride, ceil


avg_pool = max_pool


@drawn
def linear(draw, fill):
    rng, x = draw(maps(fill, between(1, 3)))
    if draw(BOOLEANS):
        x = x.reshape(len(x), -1)
    O = draw(between(1, 12))
    return x, fill(rng, (O, x[0].size)), fill(rng, (O,))


@drawn
def dropout(draw, fill):
    rng, x = draw(maps(fill))
    keep = rng.integers(0, 2, (len(x), x[0].size), np.uint8)
    return x, keep if draw(BOOLEANS) else None, draw(factors(fill))


CLASSES = st.integers(1, 12) | st.just(70)
SPREADS = st.sampled_from((1, 1, 100))  # of the logits


@drawn
def softmax_cross_entropy(draw, fill):
    rng = np.random.default_rng(draw(SEEDS))
    N, classes = draw(BATCHES), draw(CLASSES)
    return draw(SPREADS) * fill(rng, (N, classes)), rng.integers(0, classes, N, np.int32)


PARAMETERS = st.lists(st.sampled_from(((3,), (4, 2), (2, 3, 1, 2))), min_size=1, max_size=4)


@drawn
def sgd_update(draw, fill):
    """Weights, gradients, velocities, rates, momentum, decays: of several parameters."""
    rng = np.random.default_rng(draw(SEEDS))
    shapes = draw(PARAMETERS)
    weights, gradients, velocities = ([fill(rng, s) for s in shapes] for _ in range(3))
    rates, decays = ([draw(factors(fill)) for _ in shapes] for _ in range(2))
    return weights, gradients, velocities, rates, draw(factors(fill)), decays


ARGUMENTS = {
    "augment": augment,
    "conv2d": conv2d,
    "relu": relu,
    "tanh": tanh,
    "lrn": lrn,
    "lrn_map": lrn_map,
    "max_pool": max_pool,
    "avg_pool": avg_pool,
    "linear": linear,
    "dropout": dropout,
    "softmax_cross_entropy": softmax_cross_entropy,
}
"""The strategy of each layer's arguments. `sgd_update` is no layer and stands apart."""


@cache
def calls(op, fill):
    """Calls of a layer."""
    return st.builds(Call, st.just(op), ARGUMENTS[op](fill), st.just(fill), SEEDS)
