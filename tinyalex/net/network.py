"""The rows of an architecture run forward and backward on a backend."""

from collections import deque
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinyalex.backend import Array, Backend, Cache, Fusion, Role
from tinyalex.errors import UsageError
from tinyalex.net.draws import Draws, centre_draws
from tinyalex.net.layers import Augment, Conv2d, Dropout, Row
from tinyalex.net.presets import Architecture
from tinyalex.net.shapes import layers

Tape = list[Cache]


@dataclass(frozen=True)
class Stage:
    """One row, or a run of rows that the backend computes as one.

    first: how many rows of the network lie below. trained: the names of its parameters.
    """

    first: int
    rows: tuple[Row, ...]
    trained: tuple[str, ...]
    forward: Callable[..., tuple[Array, Cache]]
    backward: Callable[..., Any]

    def gradients(self, dy: Array, cache: Cache) -> tuple[Array | None, dict[str, Array]]:
        """The gradient by x, unless x are the images, and by each parameter, under its name."""
        above_images = self.first == 1 and isinstance(self.rows[0], Conv2d)
        grads = self.backward(dy, cache, *([False] if above_images else []))
        dx, *own = grads if self.trained else (grads,)
        return dx, dict(zip(self.trained, own, strict=True))


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
        self.stages = plan(architecture.rows, ops)
        self._own = {layer.row.name: tuple(layer.trained) for layer in layers(architecture.rows)}

    def forward(self, images: Any, draws: Draws) -> tuple[Array, Tape]:
        """Logits (N, classes) of uint8 images (N, image_size, image_size, 3).

        The tape holds each stage's cache, for backward.
        """
        x, tape = self.ops.asarray(images), []
        for stage in self.stages:
            x, cache = stage.forward(x, *self.stage_arguments(stage, draws))
            tape.append(cache)
        return x, tape

    def logits(self, images: Any, draws: Draws) -> Array:
        """The logits alone, for evaluation: no cache is kept, so layers use each other's memory."""
        _, x = deque(self.run(self.stages, images, draws), maxlen=1).pop()
        return x

    def run(
        self, stages: Sequence[Stage], images: Any, draws: Draws
    ) -> Iterator[tuple[Row, Array]]:
        """The output of each stage, and the row that it ends with, from below to above."""
        x = self.ops.asarray(images)
        for stage in stages:
            x = stage.forward(x, *self.stage_arguments(stage, draws))[0]
            yield stage.rows[-1], x

    def backward(self, dlogits: Array, tape: Tape) -> dict[str, Array]:
        """The gradient of the loss by every parameter, under the parameter's name."""
        gradients: dict[str, Array] = {}
        dy: Array | None = dlogits
        for stage, cache in zip(reversed(self.stages), reversed(tape), strict=True):
            if not isinstance(stage.rows[-1], Augment):
                dy, own = stage.gradients(dy, cache)
                gradients |= own
        return gradients

    def arguments(self, row: Row, draws: Draws) -> tuple[Any, ...]:
        """Arguments of the backend's function for this row, after x."""
        asarray = self.ops.asarray
        match row:
            case Augment():
                drawn = (asarray(a) for a in (draws.corner, draws.flip, draws.shift))
                return (self.mean, *drawn, row.size, row.scale * draws.scale)
            case Dropout():
                kept = 1 - row.rate
                if draws.training:
                    keep = asarray(draws.keep[row.name], "mask")
                    return keep, 1 / kept if row.scale_at == "train" else 1.0
                return None, kept if row.scale_at == "test" else 1.0
        return (*(self.parameters[name] for name in self._own[row.name]), *row.settings)

    def stage_arguments(self, stage: Stage, draws: Draws) -> list[Any]:
        """Arguments of a stage's forward, after x: those of its rows in their order."""
        return [a for row in stage.rows for a in self.arguments(row, draws)]


def role_of(parameter: str, architecture: Architecture) -> Role:
    """Role of a parameter: the last layer lies on the first device, as in 2012; others are cut."""
    return "head" if parameter.startswith(f"{architecture.rows[-1].name}.") else "tower"


def plan(rows: Sequence[Row], ops: Backend, ends: Container[str] = ()) -> list[Stage]:
    """The rows as stages, each the longest run for which the backend has one function.

    ends: names of rows whose output is wanted, so that no stage goes on beyond one of them.
    Raises UsageError for a kind of row that the backend does not have.
    """
    longest = max((len(kinds) for kinds in ops.fusions), default=1)
    every, stages, i = layers(rows), [], 0
    while i < len(rows):
        for length in range(min(longest, len(rows) - i), 0, -1):
            run = every[i : i + length]
            functions = ops.fusions.get(tuple(layer.row.kind for layer in run))
            if functions and not any(layer.row.name in ends for layer in run[:-1]):
                break
        else:
            functions = _functions(run[0].row, ops)
        names = tuple(name for layer in run for name in layer.trained)
        stages.append(Stage(i, tuple(layer.row for layer in run), names, *functions))
        i += len(run)
    return stages


def _functions(row: Row, ops: Backend) -> Fusion:
    forward, backward = (getattr(ops, row.kind + way, None) for way in ("", "_backward"))
    if isinstance(row, Augment):
        backward = _no_backward
    if not forward or not backward:
        raise UsageError(
            f"The {ops.name} backend has no {row.kind!r}, which the layer {row.name} is. Use "
            "another --backend, or write the layer there: .github/CONTRIBUTING.md lists the places."
        )
    return forward, backward


def _no_backward(dy: Array, cache: Cache) -> Any:
    raise TypeError("images have no gradient")


def activations(network: Network, images: Any, draws: Draws) -> Iterator[tuple[Row, Array]]:
    """Rows and their outputs for uint8 images, one by one, where `forward` may fuse several."""
    rows = network.architecture.rows
    return network.run(plan(rows, network.ops, {row.name for row in rows}), images, draws)


def outputs(
    network: Network, images: Any, names: Container[str], draws: Draws | None = None
) -> Iterator[tuple[str, Any]]:
    """The outputs of the rows `names`, NumPy's, from below to above, and nothing beyond them.

    draws: the view of evaluation unless given.
    """
    rows = network.architecture.rows
    draws = draws or centre_draws(network.architecture.data, len(images))
    last = max(i for i, row in enumerate(rows) if row.name in names)
    for row, y in network.run(plan(rows[: last + 1], network.ops, names), images, draws):
        if row.name in names:
            yield row.name, network.ops.to_numpy(y)


def first_not_finite(network: Network, images: Any, draws: Draws) -> str:
    """Name, in words, of the first tensor of a forward pass that holds a NaN or an infinity."""
    for name, value in network.parameters.items():
        if not np.isfinite(network.ops.to_numpy(value)).all():
            return f"the parameter {name}"
    for row, y in activations(network, images, draws):
        if not np.isfinite(network.ops.to_numpy(y)).all():
            return f"the output of {row.name}"
    return "the loss"
