"""Two towers on two devices, as in 2012: any backend, doubled.

Each device has the weights of its tower: parameters and velocities are cut in two along axis 0, by
output channel or neuron, activations and dropout masks along the last axis. Weights never travel.
What travels, forward, is the other tower's half of x where a layer reads both: a convolution with
groups=1 above the first (conv3), and each linear layer. Backward the other half's gradient goes
home and is added there, own part first. The last layer, labels and loss are on the first device.

The halves are joined by channel before a linear layer reads them flat, so that its columns are in
the order of one device: a checkpoint is the two halves, one after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import numpy as np

from tinyalex.backend import Array, Backend, Cache, Fusion, Role, Trace
from tinyalex.gpu.device import Place, room, send

Function = Callable[..., Any]


@dataclass(frozen=True)
class Pair:
    """Something for each tower, at its place."""

    a: Any
    b: Any

    def __getitem__(self, tower: int) -> Any:
        return (self.a, self.b)[tower]


@dataclass(frozen=True)
class Both(Pair):
    """An array that is the same at both places."""


@dataclass(frozen=True)
class Halves(Pair):
    """An array cut in two along `axis`."""

    axis: int


def own(value: Any, tower: int) -> Any:
    """A tower's part of a Pair; anything else is for both."""
    return value[tower] if isinstance(value, Pair) else value


def joined(halves: Sequence[Array]) -> Array:
    """The channels of both towers in one array; CuPy answers NumPy's call for its own arrays."""
    with room(sum(half.nbytes for half in halves)):
        return np.concatenate(halves, -1)


class TwoGPU:
    """The Backend over pairs of arrays. `ops` computes; tower a lives at places[0], b at places[1].

    Both places may be on one device. State that a backend keeps belongs to the place it was made
    at, not to the device's number.
    """

    def __init__(
        self, ops: Backend, places: Sequence[Place], trace: Trace = lambda *exchange: None
    ) -> None:
        self.ops, self.places, self.trace = ops, places, trace
        self.name = f"two-tower {ops.name}"
        self.fusions = {
            kinds: self.doubled(kinds[kinds[0] == "relu"], run)
            for kinds, run in ops.fusions.items()
        }
        self.conv2d, self.conv2d_backward = self.doubled("conv2d")
        self.relu, self.relu_backward = self.doubled("relu")
        self.tanh, self.tanh_backward = self.doubled("tanh")
        self.lrn, self.lrn_backward = self.doubled("lrn")
        self.lrn_map, self.lrn_map_backward = self.doubled("lrn_map")
        self.max_pool, self.max_pool_backward = self.doubled("max_pool")
        self.avg_pool, self.avg_pool_backward = self.doubled("avg_pool")
        self.linear, self.linear_backward = self.doubled("linear")
        self.dropout, self.dropout_backward = self.doubled("dropout")

    # Arrays.

    def asarray(self, a: Any, role: Role = "both", /) -> Array:
        if isinstance(a, Pair):
            return a
        if role in ("head", "labels"):
            return self.at(0, self.ops.asarray, a)
        if role in ("both", "images"):
            return Both(*self.each(self.ops.asarray, a))
        axis = -1 if role == "mask" else 0
        return Halves(*self.each(self.ops.asarray, Pair(*np.split(np.asarray(a), 2, axis))), axis)

    def to_numpy(self, a: Array, /) -> Any:
        if isinstance(a, Halves):
            return np.concatenate(self.each(self.ops.to_numpy, a), a.axis)
        return self.at(0, self.ops.to_numpy, own(a, 0))

    def parts(self, a: Array, /) -> list[tuple[Place, Array]]:
        """The arrays of which `a` consists, each with its place: there ranks add to them."""
        return list(zip(self.places, (a.a, a.b) if isinstance(a, Pair) else (a,), strict=False))

    def synchronize(self) -> None:
        self.each(self.ops.synchronize)

    def host_empty(self, shape: tuple[int, ...], dtype: Any, /) -> Any:
        return self.ops.host_empty(shape, dtype)

    def upload(self, a: Any, /) -> Array:
        """Copies at both places, where images are."""
        return Both(*self.each(self.ops.upload, a))

    def download(self, *arrays: Array) -> Callable[[], tuple[Any, ...]]:
        """Begin copies of what is on the first device, as the loss and the logits are."""
        return cast(Callable[[], tuple[Any, ...]], self.at(0, self.ops.download, *arrays))

    # Where things are computed.

    def at(self, tower: int, function: Function, *arguments: Any) -> Any:
        """The function at a tower's place, on its parts of the arguments."""
        with self.places[tower]:
            return function(*(own(a, tower) for a in arguments))

    def each(self, function: Function, *arguments: Any) -> tuple[Any, Any]:
        """The function at both places."""
        return self.at(0, function, *arguments), self.at(1, function, *arguments)

    def halves(self, forward: Function, *arguments: Any) -> tuple[Array, Cache]:
        """A forward at both places: each makes its tower's half of y."""
        (y_a, cache_a), (y_b, cache_b) = self.each(forward, *arguments)
        return Halves(y_a, y_b, -1), Pair(cache_a, cache_b)

    def halves_backward(self, backward: Function, dy: Array, cache: Cache) -> Any:
        """The backward of such a forward: dx in halves, and the gradients by the parameters."""
        dx, *own = self.gradients(backward, dy, cache)
        dx = Halves(dx[0], dx[1], -1)
        return (dx, *own) if own else dx

    def gradients(self, backward: Function, *arguments: Any) -> tuple[Any, ...]:
        """A backward at both places: what each has of dx, then each parameter's gradient, cut."""
        a, b = self.each(backward, *arguments)
        if not isinstance(a, tuple):
            return ((a, b),)
        dx, *own = zip(a, b, strict=True)
        return dx, *(Halves(*halves, axis=0) for halves in own)

    # The exchanges.

    def send(self, tensor: str, x: Array, source: int) -> Array:
        """A copy of a tower's array at the other tower's place."""
        self.trace(tensor, x.nbytes, source, 1 - source)
        return send(x, self.places[source], self.places[1 - source])

    def whole(self, tensor: str, x: Array, tower: int) -> Array:
        """All channels of x at one place, those of the other tower fetched."""
        halves = [x[t] if t == tower else self.send(tensor, x[t], t) for t in (0, 1)]
        return self.at(tower, joined, halves)

    def whole_at_both(self, tensor: str, x: Array) -> Both:
        return Both(self.whole(tensor, x, 0), self.whole(tensor, x, 1))

    def home(self, tensor: str, parts: Sequence[Array]) -> Halves:
        """The gradient by a whole x, in halves: the sum of what the places have of it.

        parts: of the first place, or of both.
        """
        return Halves(self.home_half(tensor, parts, 0), self.home_half(tensor, parts, 1), -1)

    def home_half(self, tensor: str, parts: Sequence[Array], tower: int) -> Array:
        def half(part: Array) -> Array:
            channels = part.shape[-1] // 2
            with room(part.nbytes // 2):
                return part[..., tower * channels : (tower + 1) * channels].copy()

        def total(terms: list[Array]) -> Array:
            with room(terms[0].nbytes):
                return sum(terms[1:], terms[0])

        terms = []
        for source in (tower, 1 - tower):  # own part first
            if source < len(parts):
                term = self.at(source, half, parts[source])
                terms.append(term if source == tower else self.send(tensor, term, source))
        return self.at(tower, total, terms)

    # Layers, and runs of layers of which only the first may read both towers, not counting a ReLU.
    # `forward` and `backward` are the functions of `ops` for it, `arguments` those of the layer
    # behind x.

    def doubled(self, kind: str, functions: Fusion | None = None) -> Fusion:
        """Forward and backward over two towers of a kind of layer, or of a run that is named so."""
        forward, backward = functions or (
            getattr(self.ops, kind),
            getattr(self.ops, f"{kind}_backward"),
        )
        run, run_backward = {
            "augment": (self.halves, self.run_images_backward),
            "conv2d": (self.run_conv2d, self.run_conv2d_backward),
            "dropout": (self.run_dropout, self.halves_backward),
            "linear": (self.run_linear, self.run_linear_backward),
            "lrn": (self.run_lrn, self.halves_backward),
        }.get(kind, (self.halves, self.halves_backward))
        return partial(run, forward), partial(run_backward, backward)

    def run_conv2d(self, forward: Function, x: Array, *arguments: Any) -> tuple[Array, Cache]:
        w, b, stride, pad, groups, ceil = arguments
        cut = isinstance(x, Halves)
        fetched = cut and groups == 1
        if fetched:
            x = self.whole_at_both("x of conv2d", x)
        if groups > 1:
            groups = groups_of_a_tower("conv2d", groups)
        y, caches = self.halves(forward, x, w, b, stride, pad, groups, ceil)
        return y, (caches, cut, fetched)

    def run_conv2d_backward(
        self, backward: Function, dy: Array, cache: Cache, need_dx: bool = True
    ) -> tuple[Any, ...]:
        caches, cut, fetched = cache
        if not need_dx or not cut:  # what is not cut are the images, which have no gradient
            return None, *self.gradients(backward, dy, caches, False)[1:]
        dx, *own = self.gradients(backward, dy, caches)
        return self.home("dx of conv2d", dx) if fetched else Halves(dx[0], dx[1], -1), *own

    def run_images_backward(self, backward: Function, dy: Array, cache: Cache) -> tuple[Any, ...]:
        return None, *self.gradients(backward, dy, cache)[1:]

    def run_linear(
        self, forward: Function, x: Array, w: Array, *arguments: Any
    ) -> tuple[Array, Cache]:
        if isinstance(w, Halves):
            return self.halves(forward, self.whole_at_both("x of linear", x), w, *arguments)
        return self.at(0, forward, self.whole("x of linear", x, 0), w, *arguments)

    def run_linear_backward(self, backward: Function, dy: Array, cache: Cache) -> tuple[Any, ...]:
        if isinstance(dy, Halves):
            dx, *own = self.gradients(backward, dy, cache)
            return self.home("dx of linear", dx), *own
        dx, *own = self.at(0, backward, dy, cache)
        return self.home("dx of linear", (dx,)), *own

    def run_lrn(self, forward: Function, x: Array, *arguments: Any) -> tuple[Array, Cache]:
        n, k, alpha, beta, groups, *others = arguments
        groups = groups_of_a_tower("lrn", groups)
        return self.halves(forward, x, n, k, alpha, beta, groups, *others)

    def run_dropout(
        self, forward: Function, x: Array, keep: Array | None, scale: float
    ) -> tuple[Array, Cache]:
        if keep is not None and x[0].ndim > 2:
            raise ValueError("a mask of a map is not cut by channel: drop neurons, after linear")
        return self.halves(forward, x, keep, scale)

    # The images, the loss and the update.

    def augment(self, images: Array, *arguments: Any) -> tuple[Array, Cache]:
        """y and cache on both devices, so that only uint8 images have to come to them."""
        (y_a, cache_a), (y_b, cache_b) = self.each(self.ops.augment, images, *arguments)
        return Both(y_a, y_b), Pair(cache_a, cache_b)

    def softmax_cross_entropy(self, logits: Array, labels: Array) -> tuple[Array, Cache]:
        return self.at(0, self.ops.softmax_cross_entropy, logits, labels)

    def softmax_cross_entropy_backward(self, cache: Cache) -> Array:
        return self.at(0, self.ops.softmax_cross_entropy_backward, cache)

    def sgd_update(
        self,
        weights: Sequence[Array],
        gradients: Sequence[Array],
        velocities: Sequence[Array],
        rates: Sequence[float],
        momentum: float,
        decays: Sequence[float],
    ) -> None:
        for tower in (0, 1):
            here = [i for i, w in enumerate(weights) if tower == 0 or isinstance(w, Halves)]

            def mine(values: Sequence[Any], tower: int = tower, here: list[int] = here) -> Any:
                return [own(values[i], tower) for i in here]

            lists = (mine(values) for values in (weights, gradients, velocities, rates))
            self.at(tower, self.ops.sgd_update, *lists, momentum, mine(decays))


def groups_of_a_tower(kind: str, groups: int) -> int:
    """The groups of a layer that lie in one tower. Raises ValueError if there is no such number."""
    if groups % 2:
        raise ValueError(
            f"{kind} with groups={groups} does not fall into two towers. Give its row groups=2, or "
            "use one device."
        )
    return groups // 2
