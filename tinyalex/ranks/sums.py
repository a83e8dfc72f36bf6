"""Sums over the ranks of a job, in one order on any number of them, and how their terms travel."""

from __future__ import annotations

import operator
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

import numpy as np

from tinyalex.backend import Array
from tinyalex.ranks.team import Team, naps

Part = tuple[AbstractContextManager[Any], Array]
"""One of the arrays that an array of the backend consists of, and its place, entered to use it."""


def cut(count: int, parts: int, i: int) -> slice:
    """The i-th of `parts` runs of nearly the same length."""
    return slice(count * i // parts, count * (i + 1) // parts)


def alone(a: Array) -> Sequence[Part]:
    """Parts of an array of a backend that has one place."""
    return [(nullcontext(), a)]


class Tree:
    """Sum in pairs, in pairs of pairs and so on; then of what is left over, from the last on.

    Of P terms, runs of a power of two can be added anywhere: the tree of the runs' sums is this.
    add: adds a term to another, in its memory.
    """

    def __init__(self, add: Callable[[Array, Array], Any] = operator.iadd) -> None:
        self.terms, self._add = 0, add
        self._sums: list[Array] = []

    def add(self, term: Array) -> None:
        """Add a term, which becomes part of the sum's memory."""
        number = self.terms
        while number % 2:
            left = self._sums.pop()
            self._add(left, term)
            term, number = left, number // 2
        self._sums.append(term)
        self.terms += 1

    @property
    def total(self) -> Array:
        """The sum of all terms."""
        while len(self._sums) > 1:
            last = self._sums.pop()
            self._add(self._sums[-1], last)
        return self._sums[0]


def tree_sum(terms: Iterable[Array]) -> Array:
    """The sum of terms, in the first one's memory."""
    tree = Tree()
    for term in terms:
        tree.add(term)
    return tree.total


class Gradient:
    """An array of the gradient by a parameter that all ranks have, on its way to be their sum.

    Each rank first gets everybody's terms of its own part, adds them in a tree, and hands the sum
    on to all: as many bytes as a ring takes, in one order everywhere. `local` becomes the sum.
    carrier: what arrays travel by. sends: bytes that leave this rank.
    """

    def __init__(self, local: Array, team: Team, carrier: Any) -> None:
        self.team, self.carrier, self.there = team, carrier, False
        self.error: Exception | None = None
        self.parts = [local.reshape(-1)[cut(local.size, team.size, k)] for k in range(team.size)]
        self.others = {k: self.parts[k] for k in team.others()}
        own = self.parts[team.rank]
        self.terms = {k: np.empty_like(own) for k in team.others()}
        self.sends = sum(part.nbytes + own.nbytes for part in self.others.values())
        self.come = carrier.exchange(self.others, self.terms, team.tag())
        self.tag = team.tag()  # asked for here, where all ranks are in one order

    def travel(self, wait: Callable[[Callable[[], bool]], object]) -> None:
        """Add the terms, and hand the sum on; `wait` waits until something is done."""
        wait(self.come)
        rank, own = self.team.rank, self.parts[self.team.rank]
        terms = [own if k == rank else self.terms[k] for k in range(self.team.size)]
        total = tree_sum(terms)
        if rank:
            own[...] = total
        wait(self.carrier.exchange(dict.fromkeys(self.others, own), self.others, self.tag))
        self.terms, self.there = {}, True

    def ended(self) -> bool:
        """True if the sum is there, or will not come."""
        return self.there or self.error is not None


@dataclass(frozen=True)
class Sum:
    """An array of the backend that is the sum over the ranks when all its `parts` are there."""

    whole: Array
    parts: Sequence[Gradient]


class Mover(threading.Thread):
    """Thread in which gradients travel while others are computed.

    MPI moves next to nothing of a large array unless it is asked, again and again.
    """

    def __init__(self) -> None:
        super().__init__(name="gradients", daemon=True)
        self.leaving: SimpleQueue[Gradient] = SimpleQueue()
        self.start()

    def run(self) -> None:
        while True:
            gradient = self.leaving.get()
            try:
                gradient.travel(lambda done: deque(naps(done), maxlen=0))
            except Exception as error:  # is raised where it is waited for
                gradient.error = error
