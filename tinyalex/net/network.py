"""The rows of an architecture run forward and backward on a backend."""

from collections import deque
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinyalex.backend import Array, Backend, Cache, Fusion, Role
from tinyalex.errors import UsageError, nearest
from tinyalex.net.draws import Draws, centre_draws
from tinyalex.net.layers import Augment, Conv2d, Dropout, Linear, Row
from tinyalex.net.presets import Architecture
from tinyalex.net.shapes import Layer, layers

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

    def gradients(
        self, dy: Array, cache: Cache, lowest: bool = False
    ) -> tuple[Array | None, dict[str, Array]]:
        """The gradient with respect to x, and to each parameter, under its name.

        lowest: no stage below is trained; then, and where x are the images, a convolution computes
        none by x.
        """
        unasked = (lowest or self.first == 1) and isinstance(self.rows[0], Conv2d)
        grads = self.backward(dy, cache, *([False] if unasked else []))
        dx, *own = grads if self.trained else (grads,)
        return dx, dict(zip(self.trained, own, strict=True))


class Network:
    """An architecture with its parameters on a backend.

    parameters: `conv1.weight`, `conv1.bias`, ... copied to the backend and there updated in place.
    mean: the mean image (image_size, image_size, 3) that is taken from every image. freeze: name of
    the row up to which, from below, no parameter is trained and no neuron dropped. frozen: how many
    rows have the same output in every epoch for that reason, if the images are the same.

    Wherever a network takes images, it takes outputs of its frozen rows too: float32, on the host.
    """

    def __init__(
        self,
        architecture: Architecture,
        ops: Backend,
        parameters: Mapping[str, Any],
        mean: Any,
        freeze: str | None = None,
    ) -> None:
        self.architecture = architecture
        self.ops = ops
        self.parameters = {
            name: ops.asarray(np.array(value), role_of(name, architecture))
            for name, value in parameters.items()
        }
        self.mean = ops.asarray(mean)
        self.frozen = frozen_rows(architecture, freeze)
        self.stages = plan(architecture.rows, ops, self.ends())
        self._own = {layer.row.name: tuple(layer.trained) for layer in layers(architecture.rows)}

    def forward(self, images: Any, draws: Draws) -> tuple[Array, Tape]:
        """Logits (N, classes) of uint8 images (N, image_size, image_size, 3).

        The tape holds the cache of each stage that is not frozen, for backward.
        """
        (x, stages), tape = self.enter(images, self.stages), []
        for stage in stages:
            x, cache = stage.forward(x, *self.stage_arguments(stage, draws))
            if stage.first >= self.frozen:
                tape.append(cache)
        return x, tape

    @property
    def own(self) -> Callable[[int], slice]:
        """Part of a batch of so many images that is read here: all, or of a rank its own."""
        own: Callable[[int], slice] = getattr(self.ops, "own", slice)
        return own

    def logits(self, images: Any, draws: Draws) -> Array:
        """The logits alone, for evaluation: no cache is kept, so layers use each other's memory."""
        _, x = deque(self.run(self.stages, images, draws), maxlen=1).pop()
        return x

    def run(
        self, stages: Sequence[Stage], images: Any, draws: Draws
    ) -> Iterator[tuple[Row, Array]]:
        """The output of each stage, and the row that it ends with, from below to above."""
        x, stages = self.enter(images, stages)
        for stage in stages:
            x = stage.forward(x, *self.stage_arguments(stage, draws))[0]
            yield stage.rows[-1], x

    def enter(self, images: Any, stages: Sequence[Stage]) -> tuple[Array, Sequence[Stage]]:
        """Input of the first stage, and the stages: all for images, for outputs those above them.

        stages: planned with `ends`.
        """
        if isinstance(images, np.ndarray) and images.dtype != np.uint8:
            above = [stage for stage in stages if stage.first >= self.frozen]
            return self.ops.asarray(images, "mask"), above
        return self.ops.asarray(images, "images"), stages

    def ends(self, names: Iterable[str] = ()) -> set[str]:
        """The names, and that of the last frozen row, beyond which no stage may reach."""
        return {*names, *(row.name for row in self.architecture.rows[: self.frozen][-1:])}

    def backward(self, dlogits: Array, tape: Tape) -> dict[str, Array]:
        """The gradient of the loss with respect to each parameter not frozen, under its name."""
        gradients: dict[str, Array] = {}
        dy: Array | None = dlogits
        for stage, cache in zip(reversed(self.stages), reversed(tape), strict=False):
            if not isinstance(stage.rows[-1], Augment):
                dy, own = stage.gradients(dy, cache, stage.first == self.frozen)
                gradients |= own
        return gradients

    def arguments(self, row: Row, draws: Draws) -> tuple[Any, ...]:
        """Arguments of the backend's function for this row, after x."""
        asarray = self.ops.asarray
        match row:
            case Augment():
                drawn = (asarray(a, "images") for a in (draws.corner, draws.flip, draws.shift))
                return (self.mean, *drawn, row.size, row.scale * draws.scale)
            case Dropout():
                kept = 1 - row.rate
                if draws.training and row not in self.architecture.rows[: self.frozen]:
                    keep = asarray(draws.keep[row.name], "mask")
                    return keep, 1 / kept if row.scale_at == "train" else 1.0
                return None, kept if row.scale_at == "test" else 1.0
        return (*(self.parameters[name] for name in self._own[row.name]), *row.settings)

    def stage_arguments(self, stage: Stage, draws: Draws) -> list[Any]:
        """Arguments of a stage's forward, after x: those of its rows in their order."""
        return [a for row in stage.rows for a in self.arguments(row, draws)]


def frozen_rows(architecture: Architecture, freeze: str | None) -> int:
    """Number of rows, from below, whose output stays as it is while those above are trained.

    They are those up to the row `freeze`, and what follows without a parameter or a draw. Raises
    UsageError unless some parameter is frozen and some is not.
    """
    if freeze is None:
        return 0
    every = layers(architecture.rows)
    with_weights = [layer.row.name for layer in every if layer.trained]
    names = [row.name for row in architecture.rows]
    at = names.index(freeze) + 1 if freeze in names else 0
    while 0 < at < len(every) and not every[at].trained and not isinstance(every[at].row, Dropout):
        at += 1
    if not names.index(with_weights[0]) < at <= names.index(with_weights[-1]):
        raise UsageError(
            f"--freeze cannot be {freeze!r}.{nearest(freeze, with_weights[:-1])} Something has to "
            f"be trained above it, and kept below: {', '.join(with_weights[:-1])}."
        )
    return at


def role_of(parameter: str, architecture: Architecture) -> Role:
    """Role of a parameter, by its layer: the last one, another linear layer, or a convolution."""
    row = next(r for r in reversed(architecture.rows) if parameter.startswith(f"{r.name}."))
    if row is architecture.rows[-1]:
        return "head"
    return "neurons" if isinstance(row, Linear) else "tower"


def plan(rows: Sequence[Row], ops: Backend, ends: Container[str] = ()) -> list[Stage]:
    """The rows as stages, each the longest run for which the backend has one function.

    ends: names of rows whose output is wanted, so that no stage goes on beyond one of them.
    Raises UsageError for a kind of row that the backend does not have.
    """
    left, stages = layers(rows), list[Stage]()
    while left:
        part, functions = _longest(left, ops, ends)
        names = tuple(name for layer in part for name in layer.trained)
        first = len(rows) - len(left)
        stages.append(Stage(first, tuple(layer.row for layer in part), names, *functions))
        left = left[len(part) :]
    return stages


def _longest(left: list[Layer], ops: Backend, ends: Container[str]) -> tuple[list[Layer], Fusion]:
    """The longest start of `left` that the backend has one function for, and that function."""
    most = max((len(kinds) for kinds in ops.fusions), default=1)
    for length in range(min(most, len(left)), 0, -1):
        part = left[:length]
        functions = ops.fusions.get(tuple(layer.row.kind for layer in part))
        if functions and not any(layer.row.name in ends for layer in part[:-1]):
            return part, functions
    return left[:1], _functions(left[0].row, ops)


def _functions(row: Row, ops: Backend) -> Fusion:
    """The backend's functions of a row's kind: for "conv2d" its conv2d and conv2d_backward."""
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
    ends = network.ends(row.name for row in rows if row.name in names)
    for row, y in network.run(plan(rows[: last + 1], network.ops, ends), images, draws):
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
