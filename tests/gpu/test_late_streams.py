"""The order of work on streams: who has to wait for whom, and what memory is used again.

On devices that work as late or as early as the rules allow, so that a wait that is missing gives
other numbers. Without a GPU's driver, whichever machine this is.
"""

import inspect
import itertools
import textwrap
from collections.abc import Callable
from contextlib import contextmanager
from functools import cache
from typing import NamedTuple

import checks
import fusions
import kernels
import late
import numpy as np
import pytest
import strategies
from hypothesis import given, settings
from hypothesis import strategies as st
from kernels import OTHERS, PRODUCTS
from small import TINY

from tinyalex import reference
from tinyalex.bench.workload import COLOUR, Work
from tinyalex.gpu import device, two_gpu
from tinyalex.gpu.nccl import Nccl
from tinyalex.net.draws import training_draws
from tinyalex.net.network import Network
from tinyalex.net.optimizer import SGD
from tinyalex.net.step import train_step
from tinyalex.ranks.ranks import Ranks
from tinyalex.ranks.team import Team
from tinyalex.system import backends
from tinyalex.system.backends import get_backend

pytestmark = pytest.mark.skipif(
    not device.SIMULATOR, reason="in place of a driver, where there is none"
)

WORK, UPLOADS, WORK_B, UPLOADS_B = range(4)
"""Streams of the first place and of the second."""
PACES = [(), (WORK,), (UPLOADS,), (WORK, UPLOADS_B), (UPLOADS, WORK_B), (UPLOADS, UPLOADS_B)]
"""Which streams are early; all others are late."""


def trained(ops, steps=3):
    """Losses and parameters of a few steps as the training loop makes them."""
    work, images = Work.of(TINY, 2), []
    parameters = work.parameters()
    zeros = {name: np.zeros_like(w) for name, w in parameters.items()}
    sgd = SGD(Network(TINY, ops, parameters, work.mean), TINY.recipe, zeros)
    losses = []
    for number in range(steps):
        images = ops.host_empty(work.images.shape, np.uint8)  # the one before is gone
        images[...] = np.roll(work.images, number)
        draws = training_draws(TINY, 2, COLOUR, 0, 0, number)
        losses.append(train_step(sgd, ops.upload(images), work.labels, draws, 0.01).loss)
    ops.synchronize()
    assert not any(stream.queue for stream in late.Stream.all[::2]), "work is not done"
    return [np.array(losses), *map(ops.to_numpy, sgd.network.parameters.values())]


def copied():
    """What is found of uploads that are asked for sooner than done."""
    with device.Place(0):
        before = device.empty((512,), np.uint8)
        late.computed(lambda y, a: a.fill(99), (1,), before)
        del before  # its memory becomes the first slot's, while work on it is pending
        found = []
        for number in range(5):
            host = device.host_empty((512,), np.uint8)
            host.fill(number)
            found.append(device.upload(host).copy())
        return [device.to_numpy(a) for a in found]


class Echo(Team):
    """The second of two ranks, to which the first sends what it is sent."""

    def __init__(self):
        super().__init__()
        self.rank, self.size = 1, 2

    def gather(self, values):
        return [*values, *values]

    def exchange(self, sends, receives, tag):
        for source, target in zip(sends.values(), receives.values(), strict=True):
            length = min(source.size, target.size)
            target.reshape(-1)[:length] = source.reshape(-1)[:length]
        return lambda: True


def shared(ops):
    """The backend of that rank, which has two of four pieces, one of them without an image."""
    team, carrier = Echo(), None
    if "reference" not in ops.name:
        places = getattr(ops, "places", ())
        carrier = Nccl(team.rank, team.size, lambda value: "number", late.Nccl(), places)
    return Ranks(ops, team, 4, "data", carrier)


def alone(ops):
    """The backend of one rank of one piece."""
    return ops


ALL = [np.full(512, number) for number in range(5)]

RUNS = [*fusions.RUNS, *(f"{run}_backward" for run in fusions.RUNS)]
OPS = [name for name in [*fusions.OFFERED, *RUNS] if name not in ("name", "fusions")]
GPU = kernels.backend([*kernels.MODULES, device], OPS)
TRUTH = fusions.with_fusions(reference)


@pytest.mark.slow
@pytest.mark.parametrize("gpus", [(0,), (0, 0), (0, 1)])
@pytest.mark.parametrize("over", [alone, shared])
def test_steps_give_the_same_whatever_runs_first(over, gpus):
    places = [device.Place(number) for number in gpus]
    right = reference if len(gpus) == 1 else two_gpu.TwoGPU(reference, places)
    expected, found = trained(over(right)), []
    for early in PACES:
        with late.streams(early):
            found.append(trained(over(get_backend("gpu", gpus))))
        for actual, first, truth in zip(found[-1], found[0], expected, strict=True):
            np.testing.assert_array_equal(actual, first)
            assert checks.relative_l2(actual, truth) <= checks.FULL_SIZE


@pytest.mark.parametrize("early", PACES)
def test_what_is_uploaded_stays_until_it_is_used(early):
    with late.streams(early):
        np.testing.assert_array_equal(copied(), ALL)


@pytest.mark.parametrize("op", [*PRODUCTS, *OTHERS, *fusions.RUNS])
@settings(max_examples=3)
@given(data=st.data())
def test_ops_agree_with_the_reference(op, data):
    call = data.draw(fusions.calls(op, strategies.reals))
    with late.streams():
        checks.agree(GPU, TRUTH, call, np.float32)


def test_nothing_is_allocated_and_the_host_waits_twice_a_step():
    with late.streams(), device.counting() as counts:
        ops = get_backend("gpu")
        seen = []

        def upload(images):
            blocks = sum(len(pool.blocks) for pool in (late.HOST, *late.DEVICE.values()))
            seen.append((blocks, counts.waits))
            return device.upload(images)

        trained(fusions.replaced(ops, upload=upload, fusions=ops.fusions), steps=8)
    for (blocks, waits), (blocks_then, waits_then) in itertools.pairwise(seen[3:]):
        assert blocks == blocks_then
        assert waits_then - waits == 2  # for the loss, and for the upload before the last


class Mistake(NamedTuple):
    """In the source of a function the text old, which stands there once, becomes new."""

    function: Callable
    old: str
    new: str = "pass"


MISTAKES = [
    Mistake(device.send, "source.stream.wait_event(unused)"),
    Mistake(device.send, "target.stream.wait_event(copied)"),
    Mistake(device.send, "x.nbytes, source.stream)", "x.nbytes, target.stream)"),
    Mistake(device.upload, "place.uploads.wait_event(before)"),
    Mistake(device.upload, "place.stream.wait_event(slot.copied)"),
    Mistake(device.upload, "slot.copied.synchronize()"),
    Mistake(device.upload, "place.uploaded, place.stream.record()", "(place.uploaded,) * 2"),
    Mistake(device.upload, "before = place.stream.record()"),
    Mistake(device.upload, "slot.copied = a,", "slot.copied = None,"),
    Mistake(device.upload, "place.slots.rotate()"),
    Mistake(device.download, "copied.synchronize()"),
    Mistake(device.download, "a.get(place.stream,", "a.get(place.uploads,"),
    Mistake(device.to_numpy, "current().stream", "current().uploads"),
    Mistake(device.Place.launcher, "self.stream.ptr", "self.uploads.ptr"),
    Mistake(device.Place.__init__, "Cublas(self.stream.ptr", "Cublas(self.uploads.ptr"),
    Mistake(device.Place.__enter__, "entered.enter_context(self.stream)"),
    Mistake(device.Place.synchronize, "self.stream.synchronize()"),
    Mistake(two_gpu.TwoGPU.synchronize, "self.each(self.ops", "self.at(0, self.ops"),
    Mistake(Ranks._add, "with place:", "if True:"),
    Mistake(Ranks._summed, "with place:", "if True:"),
    Mistake(backends._gpu, "device.use(places[0])"),
    Mistake(Nccl.exchange, "place.stream.ptr", "place.uploads.ptr"),
]


@contextmanager
def made(mistake):
    """The function with the mistake in it, wherever it is called from."""
    function, source = mistake.function, textwrap.dedent(inspect.getsource(mistake.function))
    assert source.count(mistake.old) == 1, "the mistake has to have one place"
    names = {}
    wrong = source.replace(mistake.old, mistake.new)
    exec(f"from __future__ import annotations\n{wrong}", function.__globals__, names)
    right_code, function.__code__ = function.__code__, names[function.__name__].__code__
    try:
        yield
    finally:
        function.__code__ = right_code


@cache
def right(over):
    with late.streams():
        return trained(over(get_backend("gpu", (0, 1))), steps=2)


def is_noticed():
    """Whether anything differs at some pace; indices that are not there yet lead anywhere."""
    for early in PACES:
        try:
            with late.streams(early):
                if not np.array_equal(copied(), ALL):
                    return True
            for over in (alone, shared):
                with late.streams(early):
                    found = trained(over(get_backend("gpu", (0, 1))), steps=2)
                if not all(map(np.array_equal, found, right(over))):
                    return True
        except (AssertionError, IndexError):
            return True
    return False


@pytest.mark.slow
@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda m: f"{m.function.__name__}: {m.old}")
def test_a_wait_that_is_missing_is_noticed(mistake):
    right(alone), right(shared)  # before the mistake is made
    with made(mistake):
        assert is_noticed()


@pytest.mark.slow
def test_nothing_is_noticed_without_a_mistake():
    assert not is_noticed()
