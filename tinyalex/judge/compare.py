"""A backend held against the reference, step by step and op by op, on one machine.

Training is chaotic: one rounding that changes which pixel wins a max pool changes a gradient by a
percent, and neither side is wrong. So the backend is not asked where it ends up, but what it makes
of the reference's own numbers: each of its ops, fused ones too, gets the reference's x and dy, and
its parameters are the reference's before each training step. A fused op answers to the reference's
layers one after the other.

Inside a fused op rounding may still decide: a ReLU or a max pool there sees what the backend has
just computed. Where the reference itself finds such a decision close, within MARGIN tolerances, dy
is set to 0 for both, so that all other elements are judged strictly; how many that are is printed.
A ReLU or max pool by itself sees the reference's numbers and must decide as it does.
"""

import math
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinyalex.backend import Backend, Role
from tinyalex.errors import DifferenceError
from tinyalex.net.draws import Draws, initial_parameters, training_draws
from tinyalex.net.layers import Augment, MaxPool, ReLU, Row
from tinyalex.net.network import Network, Stage, role_of
from tinyalex.net.optimizer import SGD
from tinyalex.net.presets import Architecture
from tinyalex.net.step import train_step
from tinyalex.system.arrays import Array
from tinyalex.system.backends import get_backend

TOLERANCES = {"fp32": 1e-5, "tf32": 2e-3, "bf16": 2e-2, "update": 1e-6}
"""The largest |backend - reference| / |reference| of a tensor, where |t| is the root of the sum of
squares. fp32 adds the same terms in another order. tf32 and bf16 round the factors of a product to
11 and 8 bits, 5e-4 and 4e-3; an op without products has the tolerance of fp32 there too. The update
is a few roundings of each element, and must not hide in the size of the weights."""

AUDITED = 2
"""Images of a batch, when a training run is held against the reference."""

MARGIN = 10
"""How many tolerances a decision of a fused ReLU or max pool has to be clear of the other side."""


@dataclass(frozen=True)
class Difference:
    """Distance of a backend's tensor from the reference's, and the place where it is largest.

    op: the rows of the op that made it. relative: |d| / |reference|. left_out: how many elements
    of dy were too close to call.
    """

    op: str
    tensor: str
    relative: float
    largest: float
    index: tuple[int, ...]
    expected: float
    actual: float
    tolerance: float
    left_out: int = 0

    @property
    def of_tolerance(self) -> float:
        """The difference in units of what is allowed; infinite if it is NaN."""
        return math.inf if math.isnan(self.relative) else self.relative / self.tolerance

    @property
    def ok(self) -> bool:
        """True if the difference is within the tolerance."""
        return self.of_tolerance <= 1

    def __str__(self) -> str:
        close = f"  ({self.left_out} of dy too close to call)" if self.left_out else ""
        return (
            f"{self.op:<17} {self.tensor:<21} |d|/|r| {self.relative:7.1e}  largest "
            f"{self.largest:7.1e} at {self.index}: {self.expected:.7g}, here {self.actual:.7g}"
            f"{close}  {'ok' if self.ok else f'WRONG, allowed {self.tolerance:g}'}"
        )


def compare(
    architecture: Architecture,
    ops: Backend,
    *,
    steps: int,
    batch_size: int,
    precision: str,
    seed: int,
    say: Callable[[str], None],
) -> None:
    """Train the reference on random images, and judge the backend at each step.

    Where the backend arrives when it trains by itself is said beside, and not judged. Raises
    DifferenceError at the first tensor that differs.
    """
    parameters = initial_parameters(architecture, seed)
    side, recipe = architecture.data.image_size, architecture.recipe
    mean = np.full((side, side, 3), 127.5, np.float32)

    def start(ops: Backend, w: Mapping[str, Any], v: Mapping[str, Any]) -> SGD:
        return SGD(Network(architecture, ops, w, mean), recipe, v)

    zeros = {name: np.zeros_like(value) for name, value in parameters.items()}
    truth, free = (start(o, parameters, zeros) for o in (get_backend("reference"), ops))
    for number in range(1, steps + 1):
        rng = np.random.default_rng([seed, number])
        images = rng.integers(0, 256, (batch_size, side, side, 3), np.uint8)
        labels = rng.integers(0, architecture.classes, batch_size, np.int32)
        draws = training_draws(architecture, batch_size, np.eye(3), seed, 0, number)
        judged = start(ops, truth.network.parameters, truth.velocities)
        for difference in Comparison(truth, judged, precision).step(
            images, labels, draws, recipe.lr
        ):
            say(f"step {number}  {difference}")
            refuse(difference)
        train_step(free, images, labels, draws, recipe.lr)
        say(f"step {number}  trained by itself: parameters |d|/|r| {drift(free, truth):.1e}")


def refuse(difference: Difference) -> None:
    """Raise DifferenceError, with the place in it, if the difference is too large."""
    if not difference.ok:
        raise DifferenceError(
            f"The backend differs from the reference in {difference.tensor} of {difference.op}: "
            f"{difference.relative:.1e} of the tensor's size, allowed {difference.tolerance:g}. It "
            f"is farthest at {difference.index}, where the reference has {difference.expected:.7g} "
            f"and the backend {difference.actual:.7g}."
        )


def audit(
    sgd: SGD,
    images: Array,
    labels: Array,
    draws: Draws,
    lr: float,
    precision: str,
    say: Callable[[str], None],
) -> None:
    """Compare a training run's backend with the reference here and now, and leave the run alone.

    Takes AUDITED images of the batch. Says the difference that comes nearest to its tolerance, and
    raises DifferenceError if one exceeds it.
    """
    network, few = sgd.network, slice(AUDITED)

    def copy(ops: Backend) -> SGD:
        to_numpy = network.ops.to_numpy
        w, v = (
            {name: to_numpy(a) for name, a in arrays.items()}
            for arrays in (network.parameters, sgd.velocities)
        )
        own = Network(network.architecture, ops, w, to_numpy(network.mean))
        return SGD(own, sgd.recipe, v)

    comparison = Comparison(copy(get_backend("reference")), copy(network.ops), precision)
    differences = list(comparison.step(images[few], labels[few], draws.of(few), lr))
    farthest = max(differences, key=lambda difference: difference.of_tolerance)
    say(f"farthest from the reference: {farthest}")
    refuse(next((difference for difference in differences if not difference.ok), farthest))


def drift(sgd: SGD, truth: SGD) -> float:
    """The distance of all parameters together from the truth, relative to their size."""
    distance = size = 0.0
    for name, value in truth.network.parameters.items():
        own = sgd.network.ops.to_numpy(sgd.network.parameters[name])
        distance += norm(own - value) ** 2
        size += norm(value) ** 2
    return math.sqrt(distance / size)


@dataclass(frozen=True)
class Op:
    """A stage of the backend's network, run on the reference's numbers.

    layers, caches: the reference's layers that it stands for. x: what came into each of them, and
    what came out of the last.
    """

    stage: Stage
    cache: Any
    layers: Sequence[Stage]
    caches: Sequence[Any]
    x: Sequence[Array]


class Comparison:
    """One training step on the reference, and on the backend with the reference's numbers.

    truth: on the reference, in float32. judged: on the backend; at the start both have the same
    parameters and velocities.
    """

    def __init__(self, truth: SGD, judged: SGD, precision: str) -> None:
        self.truth, self.judged, self.precision = truth, judged, precision
        self.ops, self.architecture = judged.network.ops, judged.network.architecture

    def step(self, images: Array, labels: Array, draws: Draws, lr: float) -> Iterator[Difference]:
        """Every tensor of the step, as it comes: forward, loss, backward, update."""
        done: list[Op] = []
        x = images
        for stage in self.judged.network.stages:
            op, y = self.forward(stage, x, draws)
            x = op.x[-1]
            done.append(op)
            yield from self.differences(name(stage), {"y": x}, {"y": y}, self.tolerance(stage))

        definition = self.truth.network.ops
        loss, cache = definition.softmax_cross_entropy(x, labels)
        dy = definition.softmax_cross_entropy_backward(cache)
        y, cache = self.ops.softmax_cross_entropy(
            self.ops.asarray(x, "head"), self.ops.asarray(labels, "labels")
        )
        actual = {"y": y, "dx": self.ops.softmax_cross_entropy_backward(cache)}
        yield from self.differences("loss", {"y": loss, "dx": dy}, actual, TOLERANCES["fp32"])

        gradients: dict[str, Array] = {}
        for op in reversed(done):
            if not isinstance(op.stage.rows[-1], Augment):
                dy, own = yield from self.backward(op, dy)
                gradients |= own
        yield from self.update(gradients, lr)

    def forward(self, stage: Stage, x: Array, draws: Draws) -> tuple[Op, Any]:
        """The op, and the backend's y."""
        network, truth = self.judged.network, self.truth.network
        arguments = network.stage_arguments(stage, draws)
        y, cache = stage.forward(self.ops.asarray(x, self.role(stage.first)), *arguments)
        layers = truth.stages[stage.first : stage.first + len(stage.rows)]
        values, caches = [x], []
        for layer in layers:
            x, own_cache = layer.forward(x, *truth.arguments(layer.rows[0], draws))
            values.append(x)
            caches.append(own_cache)
        return Op(stage, cache, layers, caches, values), y

    def backward(
        self, op: Op, dy: Array
    ) -> Generator[Difference, None, tuple[Any, dict[str, Array]]]:
        """Judge the gradients, and return the reference's: by x, and by the parameters."""
        stage, tolerance = op.stage, self.tolerance(op.stage)
        clear = clear_decisions(stage.rows, op.x, MARGIN * tolerance)
        left_out = clear.size - int(np.count_nonzero(clear))
        own_dx, own = through(op, dy * clear)
        above = self.role(stage.first + len(stage.rows))
        dx, theirs = stage.gradients(self.ops.asarray(dy * clear, above), op.cache)
        expected, actual = {"dx": own_dx} | own, {"dx": dx} | theirs
        yield from self.differences(name(stage), expected, actual, tolerance, left_out)
        return through(op, dy) if left_out else (own_dx, own)

    def update(self, gradients: dict[str, Array], lr: float) -> Iterator[Difference]:
        """The parameters and velocities after the update."""
        arrays = {
            n: self.ops.asarray(g, role_of(n, self.architecture)) for n, g in gradients.items()
        }
        self.judged.step(arrays, lr)
        self.truth.step(gradients, lr)
        for what, expected, actual in (
            ("", self.truth.network.parameters, self.judged.network.parameters),
            (" velocity", self.truth.velocities, self.judged.velocities),
        ):
            expected = {name + what: value for name, value in expected.items()}
            actual = {name + what: value for name, value in actual.items()}
            yield from self.differences("update", expected, actual, TOLERANCES["update"])

    def differences(
        self,
        op: str,
        expected: Mapping[str, Any],
        actual: Mapping[str, Any],
        tolerance: float,
        left_out: int = 0,
    ) -> Iterator[Difference]:
        for tensor, value in expected.items():
            if value is not None:
                theirs = self.ops.to_numpy(actual[tensor])
                yield difference(op, tensor, value, theirs, tolerance, left_out)

    def tolerance(self, stage: Stage) -> float:
        """Tolerance of a stage: the precision concerns products of matrices only."""
        return TOLERANCES[self.precision if stage.trained else "fp32"]

    def role(self, first: int) -> Role:
        """Role of what comes into the row number `first`, or out of the last."""
        rows = self.architecture.rows
        if first == len(rows):
            return "head"
        return "both" if first == 0 or isinstance(rows[first - 1], Augment) else "mask"


def name(stage: Stage) -> str:
    """The names of its rows."""
    return " ".join(row.name for row in stage.rows)


def through(op: Op, dy: Array) -> tuple[Any, dict[str, Array]]:
    """The reference's gradients of an op: by x, and by its parameters."""
    dx: Any = dy
    gradients: dict[str, Array] = {}
    for layer, cache in zip(reversed(op.layers), reversed(op.caches), strict=True):
        if isinstance(layer.rows[0], Augment):
            return None, gradients
        dx, own = layer.gradients(dx, cache)
        gradients |= own
    return dx, gradients


def norm(a: Array) -> float:
    """The root of the sum of squares."""
    return float(np.linalg.norm(a.reshape(-1)))


def difference(
    op: str, tensor: str, expected: Array, actual: Array, tolerance: float, left_out: int
) -> Difference:
    """Difference of two arrays. Raises DifferenceError if their shapes differ."""
    if expected.shape != actual.shape:
        raise DifferenceError(
            f"{tensor} of {op} has the shape {actual.shape}; the reference's has {expected.shape}."
        )
    distance = np.abs(actual - expected)
    index = np.unravel_index(distance.argmax(), distance.shape)  # a NaN counts as the largest
    size = norm(expected) or 1.0
    return Difference(
        op,
        tensor,
        norm(distance) / size,
        float(distance[index]),
        tuple(map(int, index)),
        float(expected[index]),
        float(actual[index]),
        tolerance,
        left_out,
    )


def clear_decisions(rows: Sequence[Row], x: Sequence[Array], margin: float) -> Array:
    """Mask of a run of layers' output: where no decision inside is closer than the margin.

    x: the input of each layer, and the output of the last. The first layer sees given numbers, so
    its decisions are all clear. What follows a deciding layer in a run keeps its shape.
    """
    clear = np.ones(x[-1].shape, np.uint8)
    for row, value, y in zip(rows[1:], x[1:-1], x[2:], strict=True):
        if isinstance(row, ReLU):
            size = math.sqrt(np.mean(np.square(value, dtype=np.float64)))
            clear &= np.abs(value) > margin * size
        elif isinstance(row, MaxPool):
            clear &= clear_maxima(row, value, y, margin)
    return clear


def clear_maxima(row: MaxPool, x: Array, y: Array, margin: float) -> Array:
    """Mask of the output: where a window's maximum stands clear of all its other values.

    Zeros do not come near each other by rounding: they are zeros on both sides.
    """
    (N, H, W, C), (_, Ho, Wo, _) = x.shape, y.shape
    bottom, right = ((n - 1) * row.stride + row.size for n in (Ho, Wo))
    beyond = np.full((N, max(H, bottom), max(W, right), C), -np.inf, x.dtype)
    beyond[:, :H, :W] = x
    near = np.zeros(y.shape, np.uint8)
    for r in range(row.size):
        for s in range(row.size):
            tap = beyond[
                :, r : r + row.stride * Ho : row.stride, s : s + row.stride * Wo : row.stride
            ]
            near += tap >= y - margin * np.abs(y)
    return np.asarray((near == 1) | (y == 0))
