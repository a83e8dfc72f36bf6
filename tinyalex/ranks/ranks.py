"""Any backend, cut into pieces that lie on the ranks of a job.

A batch is P pieces of its images, fixed by its length and P, and each of K ranks has P/K of them,
a power of two. Layers run piece by piece; the gradients by a parameter are added in one binary
tree, its leaves on the ranks and its top between them, so that the sum is the same, bit for bit, on
any such number of ranks, and on one.

data: every rank has all parameters; gradients travel.
hybrid: so up to the first linear layer. From there a rank has all images and its share of the
neurons, in P pieces too: activations travel, and parameters of these layers do not (Krizhevsky
2014, "One weird trick for parallelizing convolutional neural networks", scheme a).
"""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Literal, NamedTuple, cast

import numpy as np

from tinyalex.backend import Array, Backend, Cache, Fusion, Role
from tinyalex.ranks.sums import Gradient, Mover, Sum, Tree, alone, cut, tree_sum
from tinyalex.ranks.team import Team

Mode = Literal["data", "hybrid"]


@dataclass(frozen=True)
class Cut:
    """Pieces, on this rank, of an array `count` long along `axis`: 0, images, or 1, neurons.

    A piece without images has one, of zeros, that counts nothing: layers want at least one.
    """

    parts: Sequence[Any]
    count: int
    axis: int = 0


@dataclass(frozen=True)
class Neurons:
    """Pieces, on this rank, of a parameter, velocity or gradient, whole `count` long."""

    parts: Sequence[Array]
    count: int


@dataclass(frozen=True)
class Later:
    """An array on the host, cut when it meets an activation, by whose axis: a mask, or labels."""

    whole: Any
    role: Role


@dataclass(frozen=True)
class Loss:
    """Mean losses of this rank's pieces, and the share that each piece has of the batch."""

    parts: Sequence[Array]
    shares: Sequence[float]


class Below(NamedTuple):
    """The input of a layer cut by neuron: how it was cut, and the shape of a piece."""

    length: int
    axis: int
    shape: tuple[int, ...]


def over(ops: Backend, team: Team, pieces: int, mode: Mode) -> Backend:
    """The backend of this rank, whose pieces `ops` computes; `ops` itself for one piece."""
    if pieces == 1:
        return ops
    carrier = None
    if ops.name.endswith("gpu") and team.size > 1:
        nccl, library = map(importlib.import_module, ("tinyalex.gpu.nccl", "cupy.cuda.nccl"))
        places = getattr(ops, "places", ())
        carrier = nccl.Nccl(team.rank, team.size, team.tell, library, places)
    return cast(Backend, Ranks(ops, team, pieces, mode, carrier))


def answering(ops: Backend, team: Team) -> Backend:
    """The backend of a network that is not trained: each rank has one piece of a batch."""
    return over(ops, team, team.size, "data")


class Ranks:
    """The Backend of one rank: `ops` computes, piece by piece, and `team` connects.

    pieces: P. carrier: what arrays travel by, if not MPI. sent: bytes that this rank has sent, by
    what they are. What `to_numpy` returns is whole, on every rank, and all have to ask for it.
    """

    def __init__(
        self, ops: Backend, team: Team, pieces: int, mode: Mode, carrier: Any = None
    ) -> None:
        self.ops, self.team, self.pieces, self.mode = ops, team, pieces, mode
        self.carrier = carrier or team
        self.name, self.parts = ops.name, getattr(ops, "parts", alone)
        self.fusions: Mapping[tuple[str, ...], Fusion] = {
            kinds: self._cut(*functions) for kinds, functions in ops.fusions.items()
        }
        self.sent: Counter[str] = Counter()

    @cached_property
    def mover(self) -> Mover | None:
        """Thread for gradients, begun with the first one; none where the carrier needs none."""
        return Mover() if self.team.threaded and self.carrier is self.team else None

    def __getattr__(self, name: str) -> Any:
        """A layer's forward or backward."""
        run = self._backward if name.endswith("_backward") else self._forward
        return partial(run, getattr(self.ops, name))

    def _cut(self, forward: Callable[..., Any], backward: Callable[..., Any]) -> Fusion:
        return partial(self._forward, forward), partial(self._backward, backward)

    # Cuts.

    def own(self, count: int) -> slice:
        """The part of a batch of `count` images that lies on this rank."""
        return self._of_rank(self.team.rank, count)

    def _of_rank(self, rank: int, count: int) -> slice:
        return cut(count, self.team.size, rank)  # as long as its pieces, end to end

    def _own_cuts(self, count: int) -> list[slice]:
        """Places of this rank's pieces in what is `count` long."""
        each = self.pieces // self.team.size
        first = self.team.rank * each
        return [cut(count, self.pieces, i) for i in range(first, first + each)]

    def _images(self, a: Array, role: Role) -> Cut:
        """Pieces, on this rank, of an array on the host that has an entry for each image."""
        nothing = np.zeros((1, *a.shape[1:]), a.dtype)
        parts = [a[c] if c.stop > c.start else nothing for c in self._own_cuts(len(a))]
        return Cut([self.ops.asarray(part, role) for part in parts], len(a), 0)

    def _neurons(self, a: Array) -> Cut:
        """Pieces, on this rank, of an activation that has all images and all neurons."""
        return Cut([a[:, c].copy() for c in self._own_cuts(a.shape[1])], a.shape[1], 1)

    # Exchanges.

    def exchange(
        self, what: str, sends: Mapping[int, Array], receives: Mapping[int, Array], tag: int
    ) -> Callable[[], bool]:
        """Begin an exchange, and count what is sent. Answers are on the host by then."""
        self.sent[what] += sum(a.nbytes for a in sends.values())
        carrier = self.team if what == "answers" else self.carrier
        done: Callable[[], bool] = carrier.exchange(sends, receives, tag)
        return done

    def _joined(self, what: str, x: Cut) -> Array:
        """The whole of a cut array, on every rank."""
        rows = [
            p[: c.stop - c.start] for p, c in zip(x.parts, self._own_cuts(x.count), strict=True)
        ]
        own = np.concatenate(rows if x.axis == 0 else x.parts, x.axis)
        blocks = {self.team.rank: own}
        for k in self.team.others():
            length, shape = self._of_rank(k, x.count), list(own.shape)
            shape[x.axis] = length.stop - length.start
            blocks[k] = np.empty_like(own, shape=shape)
        self._swap(what, dict.fromkeys(self.team.others(), own), blocks)
        return np.concatenate([blocks[k] for k in range(self.team.size)], x.axis)

    def _swap(self, what: str, sends: Mapping[int, Array], blocks: Mapping[int, Array]) -> None:
        """Send, and receive the blocks of the other ranks."""
        if others := {k: blocks[k] for k in self.team.others()}:
            self.team.wait(self.exchange(what, sends, others, self.team.tag()))

    def _home(self, dx: Array, below: Below) -> Cut:
        """The gradient by a cut x, of which each rank has a term of the whole: the sum, cut."""
        (count, axis, shape), size = below, self.team.size
        cuts = [self._of_rank(k, count) for k in range(size)]
        blocks = [np.ascontiguousarray(dx[c] if axis == 0 else dx[:, c]) for c in cuts]
        sends, own = {k: blocks[k] for k in self.team.others()}, blocks[self.team.rank]
        terms = {k: own if k == self.team.rank else np.empty_like(own) for k in range(size)}
        self._swap("activations", sends, terms)
        total, start = tree_sum(terms[k] for k in range(size)), cuts[self.team.rank].start
        own_cuts = [slice(c.start - start, c.stop - start) for c in self._own_cuts(count)]
        if axis == 1:
            return Cut([total[:, c].copy() for c in own_cuts], count, 1)
        nothing = np.zeros_like(dx, shape=shape)
        parts = [
            total[c].reshape(-1, *shape[1:]) if c.stop > c.start else nothing for c in own_cuts
        ]
        return Cut(parts, count, 0)

    # Arrays.

    def asarray(self, a: Any, role: Role = "both", /) -> Array:
        if role == "images":
            return self._images(np.asarray(a), role)
        if role in ("mask", "labels"):
            return Later(np.asarray(a), role)
        if role in ("neurons", "head") and self.mode == "hybrid":
            parts = [self.ops.asarray(a[c].copy(), role) for c in self._own_cuts(len(a))]
            return Neurons(parts, len(a))
        return self.ops.asarray(a, role)

    def to_numpy(self, a: Array, /) -> Any:
        if isinstance(a, Neurons):
            a = self._joined("parameters", Cut(a.parts, a.count, 0))
        a = self._arrived(a)
        self.team.wait(self.carrier.settled())  # where an error of another rank is heard of
        match a:
            case Loss(parts, shares):
                terms = (self.ops.to_numpy(part) * n for part, n in zip(parts, shares, strict=True))
                return sum(self.team.gather([float(term) for term in terms]))
            case Cut(parts, count, axis):
                on_host = [self.ops.to_numpy(part) for part in parts]
                return self._joined("answers", Cut(on_host, count, axis))
        return self.ops.to_numpy(a)

    def host_empty(self, shape: tuple[int, ...], dtype: Any, /) -> Any:
        return self.ops.host_empty(shape, dtype)

    def upload(self, a: Any, /) -> Any:
        """The images as they are: `asarray` sends each piece on its own."""
        return a

    def download(self, *arrays: Array) -> Callable[[], tuple[Any, ...]]:
        """Arrays read at once: ranks talk about them in one order."""
        known = tuple(map(self.to_numpy, arrays))
        return lambda: known

    def synchronize(self) -> None:
        self.ops.synchronize()

    # Layers.

    def _forward(
        self, function: Callable[..., Any], given: Cut | Later, *arguments: Any
    ) -> tuple[Array, Cache]:
        """y, cut as x is, the input that is given; or by neuron, if the weights are."""
        x: Cut = self._met(given, 0)  # what frozen rows have put out is whole, as masks are
        below, parts, axis, count = None, x.parts, x.axis, x.count
        if arguments and isinstance(weights := arguments[0], Neurons):
            below, axis, count = Below(x.count, x.axis, x.parts[0].shape), 1, weights.count
            flat = Cut([part.reshape(len(part), -1) for part in x.parts], x.count, x.axis)
            parts = [self._joined("activations", flat)] * len(weights.parts)
        arguments = tuple(self._met(a, axis) for a in arguments)
        results = [
            function(part, *(a.parts[i] if isinstance(a, Cut | Neurons) else a for a in arguments))
            for i, part in enumerate(parts)
        ]
        ys, caches = zip(*results, strict=True)
        return Cut(ys, count, axis), (caches, below)

    def _met(self, argument: Any, axis: int) -> Any:
        """Cut what is a Later as the activation that it meets is; anything else stays as it is."""
        if not isinstance(argument, Later):
            return argument
        whole, role = argument.whole, argument.role
        if axis == 0:
            return self._images(whole, role)
        neurons = self._neurons(whole)
        return Cut([self.ops.asarray(part, role) for part in neurons.parts], neurons.count, 1)

    def _backward(self, function: Callable[..., Any], dy: Cut, cache: Cache, *flags: Any) -> Any:
        """dx, cut as x was, and the gradients by the parameters."""
        caches, below = cache
        dxs, neurons, trees = [], [], list[Tree]()
        for part, own_cache in zip(dy.parts, caches, strict=True):
            results = function(part, own_cache, *flags)
            dx, *gradients = results if isinstance(results, tuple) else (results,)
            dxs.append(dx)
            if below:
                neurons.append(gradients)
                continue
            trees = trees or [Tree(self._add) for _ in gradients]
            for tree, gradient in zip(trees, gradients, strict=True):
                tree.add(gradient)
        if below:
            own = (Neurons(parts, dy.count) for parts in zip(*neurons, strict=True))
            return self._home(tree_sum(dxs), below), *own
        dx = Cut(dxs, dy.count, dy.axis)
        return (dx, *(self._summed(tree.total) for tree in trees)) if trees else dx

    def softmax_cross_entropy(self, logits: Cut, labels: Later) -> tuple[Array, Cache]:
        """Loss of the batch, of which labels are whole."""
        if logits.axis == 1:
            whole = self._joined("activations", logits)
            own = self.ops.asarray(labels.whole, labels.role)
            return self.ops.softmax_cross_entropy(whole, own)
        losses, (caches, _) = self._forward(self.ops.softmax_cross_entropy, logits, labels)
        shares = [(c.stop - c.start) / logits.count for c in self._own_cuts(logits.count)]
        shared = list(zip(caches, shares, strict=True))
        return Loss(losses.parts, shares), Cut(shared, logits.count, 0)

    def softmax_cross_entropy_backward(self, cache: Cache) -> Array:
        backward = self.ops.softmax_cross_entropy_backward
        if not isinstance(cache, Cut):
            return self._neurons(backward(cache))
        # Of two places the loss is at the first, which is the one in use.
        return Cut([backward(part) * share for part, share in cache.parts], cache.count, 0)

    # Sums.

    def _add(self, total: Array, term: Array) -> None:
        """Add a term to another, in its memory and at its place."""
        for (place, part), (_, other) in zip(self.parts(total), self.parts(term), strict=True):
            with place:
                part += other

    def _summed(self, local: Array) -> Array:
        """The sum over the ranks, which sets out now."""
        if self.team.size == 1:
            return local
        gradients = []
        for place, part in self.parts(local):
            with place:
                gradients.append(gradient := Gradient(part, self.team, self.carrier))
                self.sent["gradients"] += gradient.sends
                if self.mover:
                    self.mover.leaving.put(gradient)
                else:
                    gradient.travel(self.team.wait)
        return Sum(local, gradients)

    def _arrived(self, gradient: Array) -> Array:
        """The sum over the ranks, once it is there."""
        if not isinstance(gradient, Sum):
            return gradient
        for part in gradient.parts:
            self.team.wait(part.ended)
            if part.error:
                raise part.error
        return gradient.whole

    # The update.

    def sgd_update(
        self,
        weights: Sequence[Array],
        gradients: Sequence[Array],
        velocities: Sequence[Array],
        rates: Sequence[float],
        momentum: float,
        decays: Sequence[float],
    ) -> None:
        rows: list[tuple[Any, ...]] = []
        for w, dw, v, rate, decay in zip(
            weights, gradients, velocities, rates, decays, strict=True
        ):
            if isinstance(w, Neurons):
                parts = zip(w.parts, dw.parts, v.parts, strict=True)
                rows += [(*part, rate, decay) for part in parts]
            else:
                rows.append((w, self._arrived(dw), v, rate, decay))
        if rows:
            w, dw, v, rates, decays = (list(column) for column in zip(*rows, strict=True))
            self.ops.sgd_update(w, dw, v, rates, momentum, decays)
