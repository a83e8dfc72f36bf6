"""NCCL's calls between ranks, read by a second implementation that moves the bytes itself.

Its rules: in a group each send to a rank meets the receive that this rank asked for, in order; a
count is of bytes here, and a pointer is where an array of NumPy lies.
"""

import ctypes
import itertools
import sys
from collections import deque
from types import SimpleNamespace

import numpy as np
import pytest

from tinyalex.errors import UsageError
from tinyalex.gpu import nccl
from tinyalex.gpu.nccl import Nccl
from tinyalex.ranks.ranks import over
from tinyalex.ranks.team import Team


class Wires:
    """cupy.cuda.nccl of one rank. communicators: those that it has made, in order."""

    available, NCCL_UINT8 = True, 1

    def __init__(self):
        self.open, self.communicators, self.numbers = False, [], itertools.count()

    def get_unique_id(self):
        return ("number of a communicator", next(self.numbers))

    def NcclCommunicator(self, size, number, rank):
        self.communicators.append(Communicator(self, size, number, rank, PLACES[0]))
        return self.communicators[-1]

    def groupStart(self):
        assert not self.open
        self.open = True

    def groupEnd(self):
        assert self.open
        self.open = False


class Communicator:
    """Of one place of a rank: calls are kept until `deliver` has those of all ranks."""

    def __init__(self, wires, size, number, rank, place):
        self.wires, self.size, self.number, self.rank = wires, size, number, rank
        self.place, self.calls = place, []

    def send(self, *arguments):
        self.call("send", *arguments)

    def recv(self, *arguments):
        self.call("recv", *arguments)

    def call(self, way, pointer, count, kind, peer, stream):
        assert self.wires.open, "outside a group two ranks that send first would wait for ever"
        assert PLACES[0] is self.place, "another device is the current one"
        assert (kind, stream) == (Wires.NCCL_UINT8, self.place.stream.ptr)
        self.calls.append((way, pointer, count, peer))


def deliver(ranks):
    """Move the bytes of all sends into the receives that they meet, of one communicator."""
    assert len({communicator.number for communicator in ranks}) == 1
    for own in ranks:
        for peer in ranks:
            sends = [c for c in own.calls if c[0] == "send" and c[3] == peer.rank]
            receives = [c for c in peer.calls if c[0] == "recv" and c[3] == own.rank]
            for (_, source, count, _), (_, target, expected, _) in zip(
                sends, receives, strict=True
            ):
                assert count == expected
                ctypes.memmove(target, source, count)


class Place:
    """A place with a stream of its own, on which `events` are recorded and done when they say."""

    def __init__(self, name):
        self.events = []
        self.stream = SimpleNamespace(ptr=f"stream of {name}", record=self.record)

    def record(self):
        assert PLACES[0] is self, "another device is the current one"
        self.events.append(SimpleNamespace(done=False))
        return self.events[-1]

    def __enter__(self):
        PLACES.appendleft(self)

    def __exit__(self, *raised):
        PLACES.popleft()


PLACES = deque([Place("the one in use")])
"""Those that are entered, the current one first."""


def on_device(a):
    """A NumPy array with what NCCL is told of CuPy's."""

    class Device(np.ndarray):
        data = property(lambda self: SimpleNamespace(ptr=self.ctypes.data))

    return a.view(Device)


@pytest.fixture(autouse=True)
def stream(monkeypatch):
    monkeypatch.setattr(nccl, "current", lambda: PLACES[0])


@pytest.mark.parametrize("towers", [1, 2])
@pytest.mark.parametrize("size", [2, 4])
def test_every_block_comes_to_its_rank(size, towers):
    """As `Team.exchange` does it by MPI; blocks of no length do not travel. Of two towers those of
    a go to a, those of b to b, each on its own place's stream.
    """
    ranks, told = [Wires() for _ in range(size)], []
    sent, received = [], []
    for rank, wires in enumerate(ranks):
        numbers = iter(told[:])

        def tell(value, rank=rank, numbers=numbers):
            told.extend([] if rank else [value])
            return next(numbers) if rank else value

        places = [Place("ab"[tower]) for tower in range(towers)] if towers > 1 else ()
        carrier = Nccl(rank, size, tell, wires, places)
        others = [k for k in range(size) if k != rank]
        for tower, place in enumerate(places or [PLACES[0]]):
            sends = {
                k: on_device(np.full(3 * k, 100.0 * tower + 10 * rank + k, np.float32))
                for k in others
            }
            sent.append(sends)  # or their memory would be another's before it is read
            receives = {k: on_device(np.zeros(3 * rank, np.float32)) for k in others}
            received.append((rank, tower, receives))
            with place:
                assert carrier.exchange(sends, receives, tag=5)()
            calls = wires.communicators[tower].calls
            lengths = [count for kind, _, count, _ in calls if kind == "recv"]
            assert lengths == [4 * 3 * rank] * (size - 1 if rank else 0)
    for communicators in zip(*(wires.communicators for wires in ranks), strict=True):
        deliver(communicators)
    for rank, tower, arrays in received:
        for peer, a in arrays.items():
            expected = np.full(3 * rank, 100 * tower + 10 * peer + rank)
            np.testing.assert_array_equal(a, expected)


def test_all_is_settled_when_every_place_is():
    places = Place("a"), Place("b")
    settled = Nccl(0, 2, lambda value: value, Wires(), places).settled()
    for place in places:
        assert not settled()
        place.events[-1].done = True
    assert settled()


@pytest.mark.parametrize(
    ("name", "count"),
    [("gpu", 1), ("two-tower gpu", 2), ("simulated gpu (slow)", 0), ("two-tower reference", 0)],
)
def test_ranks_on_gpus_exchange_by_nccl_from_all_their_places(name, count, monkeypatch):
    wires, team = Wires(), Team()
    team.size, team.tell = 2, lambda value: value
    monkeypatch.setitem(sys.modules, "cupy.cuda.nccl", wires)
    places = {"places": (Place("a"), Place("b"))} if "two" in name else {}
    ranks = over(SimpleNamespace(name=name, fusions={}, **places), team, 2, "data")
    assert isinstance(ranks.carrier, Nccl if count else Team)
    assert len({communicator.number for communicator in wires.communicators}) == count
    expected = list(places.get("places", [PLACES[0]])) if count else []
    assert [communicator.place for communicator in wires.communicators] == expected


def test_without_nccl_it_is_said_what_to_install():
    with pytest.raises(UsageError, match="nvidia-nccl"):
        Nccl(0, 2, lambda value: value, SimpleNamespace(available=False))
