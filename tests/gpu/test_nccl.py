"""NCCL's calls between ranks, read by a second implementation that moves the bytes itself.

Its rules: in a group each send to a rank meets the receive that this rank asked for, in order; a
count is of bytes here, and a pointer is where an array of NumPy lies.
"""

import ctypes
from types import SimpleNamespace

import numpy as np
import pytest

from tinyalex.errors import UsageError
from tinyalex.gpu import nccl
from tinyalex.gpu.nccl import Nccl


class Wires:
    """cupy.cuda.nccl of one rank: calls are kept until `deliver` has those of all ranks."""

    available, NCCL_UINT8 = True, 1

    def __init__(self):
        self.open, self.calls = False, []

    def get_unique_id(self):
        return ("number of", "this job")

    def NcclCommunicator(self, size, number, rank):
        assert number == ("number of", "this job")
        self.size, self.rank = size, rank
        return self

    def groupStart(self):
        assert not self.open
        self.open = True

    def groupEnd(self):
        assert self.open
        self.open = False

    def send(self, pointer, count, kind, peer, stream):
        assert self.open, "outside a group two ranks that send first would wait for each other"
        assert (kind, stream) == (self.NCCL_UINT8, "the stream")
        self.calls.append(("send", pointer, count, peer))

    def recv(self, pointer, count, kind, peer, stream):
        assert self.open
        assert (kind, stream) == (self.NCCL_UINT8, "the stream")
        self.calls.append(("recv", pointer, count, peer))


def deliver(ranks):
    """Move the bytes of all sends into the receives that they meet."""
    for wires in ranks:
        for peer in ranks:
            sends = [c for c in wires.calls if c[0] == "send" and c[3] == peer.rank]
            receives = [c for c in peer.calls if c[0] == "recv" and c[3] == wires.rank]
            for (_, source, count, _), (_, target, expected, _) in zip(
                sends, receives, strict=True
            ):
                assert count == expected
                ctypes.memmove(target, source, count)


def on_device(a):
    """A NumPy array with what NCCL is told of CuPy's."""

    class Device(np.ndarray):
        data = property(lambda self: SimpleNamespace(ptr=self.ctypes.data))

    return a.view(Device)


@pytest.fixture(autouse=True)
def stream(monkeypatch):
    event = SimpleNamespace(done=True)
    place = SimpleNamespace(stream=SimpleNamespace(ptr="the stream", record=lambda: event))
    monkeypatch.setattr(nccl, "current", lambda: place)


@pytest.mark.parametrize("size", [2, 4])
def test_every_block_comes_to_its_rank(size):
    """As `Team.exchange` does it by MPI; blocks of no length do not travel."""
    ranks = [Wires() for _ in range(size)]
    sent, received = [], []
    for rank, wires in enumerate(ranks):
        carrier = Nccl(rank, size, lambda value: ("number of", "this job"), wires)
        others = [k for k in range(size) if k != rank]
        sends = {k: on_device(np.full(3 * k, 10.0 * rank + k, np.float32)) for k in others}
        sent.append(sends)  # or their memory would be another's before it is read
        received.append({k: on_device(np.zeros(3 * rank, np.float32)) for k in others})
        assert carrier.exchange(sends, received[rank], tag=5)()
        assert carrier.settled()()
        lengths = [count for kind, _, count, _ in wires.calls if kind == "recv"]
        assert lengths == [4 * 3 * rank] * (size - 1 if rank else 0)
    deliver(ranks)
    for rank, arrays in enumerate(received):
        for peer, a in arrays.items():
            np.testing.assert_array_equal(a, np.full(3 * rank, 10.0 * peer + rank))


def test_without_nccl_it_is_said_what_to_install():
    with pytest.raises(UsageError, match="nvidia-nccl"):
        Nccl(0, 2, lambda value: value, SimpleNamespace(available=False))
