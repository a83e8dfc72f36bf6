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
from typing import Any

import numpy as np

from tinyalex.backend import Array, Backend, Cache, Fusion, Role
from tinyalex.gpu.device import Place, send

Trace = Callable[[str, int, int, int], None]
"""Hears of each exchange: the tensor, its bytes, from which tower and to which (0 is a, 1 is b)."""


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


def inside(op: str) -> Any:
    """The forward and the backward of a layer whose towers do not see each other."""

    def forward(self: TwoGPU, x: Array, *arguments: Any) -> tuple[Array, Cache]:
        return self.halves(getattr(self.ops, op), x, *arguments)

    def backward(self: TwoGPU, dy: Array, cache: Cache) -> Array:
        return self.halves_backward(getattr(self.ops, f"{op}_backward"), dy, cache)

    return forward, backward


class TwoGPU:
    """The Backend over pairs of arrays. `ops` computes; tower a lives at places[0], b at places[1].

    Both places may be on one device. State that a backend keeps belongs to the place it was made
    at, not to the device's number.
    """

    def __init__(
        self, ops: Backend, places: tuple[Place, Place], trace: Trace = lambda *exchange: None
    ) -> None:
        self.ops, self.places, self.trace = ops, places, trace
        self.name = f"two-tower {ops.name}"
        self.fusions = {kinds: self.fusion(kinds, *run) for kinds, run in ops.fusions.items()}

    # Arrays.

    def asarray(self, a: Any, role: Role = "both", /) -> Array:
        if role == "head":
            return self.at(0, self.ops.asarray, a)
        if role == "both":
            return Both(*self.each(self.ops.asarray, a))
        axis = 0 if role == "tower" else -1
        return Halves(*self.each(self.ops.asarray, Pair(*np.split(a, 2, axis))), axis)

    def to_numpy(self, a: Array, /) -> Any:
        if isinstance(a, Halves):
            return np.concatenate(self.each(self.ops.to_numpy, a), a.axis)
        return self.at(0, self.ops.to_numpy, own(a, 0))

    def synchronize(self) -> None:
        self.each(self.ops.synchronize)

    # Where things are computed.

    def at(self, tower: int, function: Callable[..., Any], *arguments: Any) -> Any:
        """The function at a tower's place, on its parts of the arguments."""
        with self.places[tower]:
            return function(*(own(a, tower) for a in arguments))

    def each(self, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        """The function at both places."""
        return [self.at(tower, function, *arguments) for tower in (0, 1)]

    def halves(self, forward: Callable[..., Any], *arguments: Any) -> tuple[Array, Cache]:
        (y_a, cache_a), (y_b, cache_b) = self.each(forward, *arguments)
        return Halves(y_a, y_b, axis=-1), Pair(cache_a, cache_b)

    def halves_backward(self, backward: Callable[..., Any], dy: Array, cache: Cache) -> Array:
        return Halves(*self.each(backward, dy, cache), axis=-1)

    # The exchanges.

    def send(self, tensor: str, x: Array, source: int) -> Array:
        """A copy of a tower's array at the other tower's place."""
        self.trace(tensor, x.nbytes, source, 1 - source)
        return send(x, self.places[source], self.places[1 - source])

    def whole(self, tensor: str, x: Array, tower: int) -> Array:
        """All channels of x at one place, those of the other tower fetched."""
        halves = [x[t] if t == tower else self.send(tensor, x[t], t) for t in (0, 1)]
        return self.at(tower, np.concatenate, halves, -1)  # CuPy answers for its own arrays

    def home(self, tensor: str, parts: Sequence[Array]) -> Halves:
        """Each tower's half of a gradient, which is the sum of what each place has of it."""

        def half(part: Array, tower: int) -> Array:
            channels = part.shape[-1] // 2
            return part[..., tower * channels :][..., :channels].copy()

        halves: list[Array] = []
        for tower in (0, 1):
            if tower < len(parts):
                total = self.at(tower, half, parts[tower], tower)
            if 1 - tower < len(parts):
                other = self.at(1 - tower, half, parts[1 - tower], tower)
                other = self.send(tensor, other, 1 - tower)
                total = self.at(tower, np.add, total, other) if tower < len(parts) else other
            halves.append(total)
        return Halves(*halves, axis=-1)

    # Layers that may read both towers. `forward` and `backward` are the backend's, of the layer or
    # of a run of layers that begins with it.

    def run_conv2d(
        self, forward: Callable[..., Any], x: Array, w: Array, b: Array, *sizes: int
    ) -> tuple[Array, Cache]:
        stride, pad, groups = sizes
        images, fetched = isinstance(x, Both), groups == 1 and isinstance(x, Halves)
        if fetched:
            x = Pair(*(self.whole("x of conv2d", x, tower) for tower in (0, 1)))
        elif not images:
            groups = groups_of_a_tower("conv2d", groups)
        y, caches = self.halves(forward, x, w, b, stride, pad, groups)
        return y, (caches, images, fetched)

    def run_conv2d_backward(
        self, backward: Callable[..., Any], dy: Array, cache: Cache, need_dx: bool = True
    ) -> Any:
        caches, images, fetched = cache
        need = () if need_dx and not images else (False,)
        (dx_a, dw_a, db_a), (dx_b, dw_b, db_b) = self.each(backward, dy, caches, *need)
        dw, db = Halves(dw_a, dw_b, axis=0), Halves(db_a, db_b, axis=0)
        if need:
            return None, dw, db
        dx = self.home("dx of conv2d", (dx_a, dx_b)) if fetched else Halves(dx_a, dx_b, axis=-1)
        return dx, dw, db

    def run_linear(
        self, forward: Callable[..., Any], x: Array, w: Array, *arguments: Any
    ) -> tuple[Array, Cache]:
        if not isinstance(w, Pair):  # the last layer
            x = self.whole("x of linear", x, 0)
            y, cache = self.at(0, forward, x, w, *arguments)
            return y, cache
        x = Pair(*(self.whole("x of linear", x, tower) for tower in (0, 1)))
        return self.halves(forward, x, w, *arguments)

    def run_linear_backward(self, backward: Callable[..., Any], dy: Array, cache: Cache) -> Any:
        if not isinstance(dy, Pair):
            dx, dw, db = self.at(0, backward, dy, cache)
            return self.home("dx of linear", (dx,)), dw, db
        (dx_a, dw_a, db_a), (dx_b, dw_b, db_b) = self.each(backward, dy, cache)
        dx = self.home("dx of linear", (dx_a, dx_b))
        return dx, Halves(dw_a, dw_b, axis=0), Halves(db_a, db_b, axis=0)

    def run_lrn(
        self, forward: Callable[..., Any], x: Array, *arguments: Any
    ) -> tuple[Array, Cache]:
        n, k, alpha, beta, groups, *rest = arguments
        groups = groups_of_a_tower("lrn", groups)
        return self.halves(forward, x, n, k, alpha, beta, groups, *rest)

    def fusion(
        self, kinds: tuple[str, ...], forward: Callable[..., Any], backward: Callable[..., Any]
    ) -> Fusion:
        """A run of layers of the backend's, doubled. Only its first layer may read both towers."""
        match kinds[0]:
            case "conv2d":
                return partial(self.run_conv2d, forward), partial(
                    self.run_conv2d_backward, backward
                )
