"""Runs the rows of an architecture forward and backward on a backend."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinyalex.backend import Array, Backend, Cache, Role
from tinyalex.net.draws import Draws
from tinyalex.net.layers import LRN, Augment, AvgPool, Conv2d, Dropout, Linear, LRNMap, MaxPool, Row
from tinyalex.net.presets import Architecture

Tape = list[Cache]


@dataclass(frozen=True)
class Step:
    """One row, or a run of rows that the backend computes as one.

    first: how many rows of the network lie below.
    """

    first: int
    rows: tuple[Row, ...]
    forward: Callable[..., tuple[Array, Cache]]
    backward: Callable[..., Any]

    @property
    def trained(self) -> list[Row]:
        """The rows with parameters, at most one."""
        return [row for row in self.rows if isinstance(row, Conv2d | Linear)]

    def gradients(self, dy: Array, cache: Cache) -> tuple[Array | None, dict[str, Array]]:
        """The gradient by x, unless x are the images, and by each parameter, under its name."""
        above_images = self.first == 1 and isinstance(self.rows[0], Conv2d)
        grads = self.backward(dy, cache, *([False] if above_images else []))
        if not self.trained:
            return grads, {}
        dx, dw, db = grads
        name = self.trained[0].name
        return dx, {f"{name}.weight": dw, f"{name}.bias": db}


class Network:
    """An architecture with its parameters on a backend.

    parameters: `conv1.weight`, `conv1.bias`, ... copied to the backend and there updated in place.
    mean: the mean image (image_size, image_size, 3) that is taken from every image.
    """

    def __init__(
        self, architecture: Architecture, ops: Backend, parameters: Mapping[str, Any], mean: Any
    ) -> None:
        self.architecture = architecture
        self.ops = ops
        self.parameters = {
            name: ops.asarray(np.array(value), role_of(name, architecture))
            for name, value in parameters.items()
        }
        self.mean = ops.asarray(mean)
        self.steps = plan(architecture.rows, ops)

    def forward(self, images: Any, draws: Draws) -> tuple[Array, Tape]:
        """Logits (N, classes) of uint8 images (N, image_size, image_size, 3).

        The tape holds each step's cache, for backward.
        """
        x, tape = self.ops.asarray(images), []
        for step in self.steps:
            x, cache = step.forward(x, *self._all_arguments(step, draws))
            tape.append(cache)
        return x, tape

    def logits(self, images: Any, draws: Draws) -> Array:
        """The logits alone, for evaluation: no cache is kept, so layers use each other's memory."""
        x = self.ops.asarray(images)
        for step in self.steps:
            x = step.forward(x, *self._all_arguments(step, draws))[0]
        return x

    def backward(self, dlogits: Array, tape: Tape) -> dict[str, Array]:
        """The gradient of the loss by every parameter, under the parameter's name."""
        gradients: dict[str, Array] = {}
        dy: Array | None = dlogits
        for step, cache in zip(reversed(self.steps), reversed(tape), strict=True):
            if not isinstance(step.rows[-1], Augment):
                dy, found = step.gradients(dy, cache)
                gradients |= found
        return gradients

    def arguments(self, row: Row, draws: Draws) -> tuple[Any, ...]:
        """What the backend's function takes for this row, after x."""
        asarray = self.ops.asarray
        match row:
            case Augment():
                drawn = (asarray(a) for a in (draws.corner, draws.flip, draws.shift))
                return (self.mean, *drawn, row.size, row.scale * draws.scale)
            case Conv2d():
                return (*self._weights(row), row.stride, row.pad, row.groups, row.ceil)
            case Linear():
                return self._weights(row)
            case LRN():
                return (row.n, row.k, row.alpha, row.beta, row.groups)
            case LRNMap():
                return (row.n, row.k, row.alpha, row.beta)
            case MaxPool() | AvgPool():
                return (row.size, row.stride, row.ceil)
            case Dropout():
                kept = 1 - row.rate
                if draws.training:
                    return (
                        asarray(draws.keep[row.name], "mask"),
                        1 / kept if row.scale_at == "train" else 1.0,
                    )
                return (None, kept if row.scale_at == "test" else 1.0)
            case _:
                return ()

    def _all_arguments(self, step: Step, draws: Draws) -> list[Any]:
        return [a for row in step.rows for a in self.arguments(row, draws)]

    def _weights(self, row: Row) -> tuple[Array, Array]:
        return self.parameters[f"{row.name}.weight"], self.parameters[f"{row.name}.bias"]


def role_of(parameter: str, architecture: Architecture) -> Role:
    """The last layer belongs to the first device, as in 2012; all others are cut in two."""
    return "head" if parameter.startswith(f"{architecture.rows[-1].name}.") else "tower"


def plan(rows: Sequence[Row], ops: Backend) -> list[Step]:
    """The rows as steps, each the longest run for which the backend has one function."""
    longest = max((len(kinds) for kinds in ops.fusions), default=1)
    steps, i = [], 0
    while i < len(rows):
        for length in range(min(longest, len(rows) - i), 0, -1):
            run = tuple(rows[i : i + length])
            functions = ops.fusions.get(tuple(row.kind for row in run))
            if functions:
                steps.append(Step(i, run, *functions))
                break
        else:
            kind = run[0].kind
            steps.append(
                Step(i, run, getattr(ops, kind), getattr(ops, f"{kind}_backward", _no_backward))
            )
        i += len(run)
    return steps


def _no_backward(dy: Array, cache: Cache) -> Any:
    raise TypeError("images have no gradient")


def activations(network: Network, images: Any, draws: Draws) -> Iterator[tuple[Row, Array]]:
    """Each row and its output for uint8 images, also where `forward` computes several as one."""
    x = network.ops.asarray(images)
    for row in network.architecture.rows:
        x, _ = getattr(network.ops, row.kind)(x, *network.arguments(row, draws))
        yield row, x


def first_not_finite(network: Network, images: Any, draws: Draws) -> str:
    """Which tensor of a forward pass is the first that holds a NaN or an infinity, in words."""
    for name, value in network.parameters.items():
        if not np.isfinite(network.ops.to_numpy(value)).all():
            return f"the parameter {name}"
    for row, y in activations(network, images, draws):
        if not np.isfinite(network.ops.to_numpy(y)).all():
            return f"the output of {row.name}"
    return "the loss"
