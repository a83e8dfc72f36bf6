"""What a training step of AlexNet asks of a GPU: launches, memory, bytes moved, waits of the host.

Without a GPU each launch is checked and counted, and nothing is computed; arrays are never touched,
so that a batch of the real size costs nothing.
"""

import copy
from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from runs import few_images

from tinyalex import gpu
from tinyalex.cli.parser import main
from tinyalex.gpu import device, gemm, launch
from tinyalex.net.draws import training_draws
from tinyalex.net.network import Network
from tinyalex.net.optimizer import SGD
from tinyalex.net.presets import get_architecture
from tinyalex.net.shapes import parameter_shapes
from tinyalex.net.step import train_step
from tinyalex.system.backends import get_backend
from tinyalex.training.recorder import Recorder

README = Path(gpu.__file__).parent / "README.md"
BATCH = 128
WAITS = 1  # for the loss and the logits, which the log needs, when all else has been asked for
LAUNCHES = 60  # at most, for each device

STEP = {
    "gemm": (23, "products"),  # forward, by w, by x; conv1 has none by x
    "augment_strips_kernel": (1, "columns"),  # conv1
    "im2col_kernel": (4, "columns"),  # conv2 to conv5
    "widen_strips_kernel": (1, "weights with their bias"),  # conv1
    "narrow_strips_kernel": (1, "weights with their bias"),
    "widen_kernel": (4, "weights with their bias"),  # conv2 to conv5
    "narrow_kernel": (4, "weights with their bias"),
    "bias_relu_dropout_kernel": (2, "bias and ReLU"),  # fc6, fc7
    "bias_kernel": (1, "bias and ReLU"),  # fc8
    "lrn_max_pool_kernel": (2, "LRN and pools"),  # relu1 norm1 pool1, relu2 norm2 pool2
    "max_pool_kernel": (1, "LRN and pools"),  # relu5 pool5
    "lane_kernel": (1, "loss"),
    "image_kernel": (1, "loss"),
    "mean_kernel": (1, "loss"),
    "softmax_backward_kernel": (1, "loss"),
    "relu_sums_kernel": (2, "bias and ReLU, backward"),  # fc6, fc7
    "sums_kernel": (1, "bias and ReLU, backward"),  # fc8
    "relu_max_pool_backward_kernel": (1, "LRN and pools, backward"),
    "lrn_max_pool_backward_kernel": (2, "LRN and pools, backward"),
    "col2im_kernel": (2, "gradient by the columns"),  # conv2, conv3, behind pools
    "relu_col2im_kernel": (2, "gradient by the columns"),  # conv4, conv5
    "sgd_kernel": (1, "update"),
}
"""How often each kernel is launched, and which line of TABLE it belongs to."""

TABLE = {
    "products": 2501 + 2501 + 2135,  # forward, by w, by x
    "columns": 99 + 218 + 1897,  # from the input too; strips of conv1
    "gradient by the columns": 1818,
    "weights with their bias": 4 * 9,
    "bias and ReLU": 8,
    "bias and ReLU, backward": 13,
    "LRN and pools": 488 + 345,
    "LRN and pools, backward": 733 + 345,
    "loss": 2,
    "update": 1219,
}
"""Megabytes of float32 that must move if each layer by itself reads its inputs and writes its
outputs once: 4 bytes times the sizes of the layers times 128 images. The convolutions' bias and
ReLU are part of their products and of the layers behind them."""

MEGABYTES = 13_500  # of a step, at most

REQUESTS = {(0,): 68 + 7, (0, 0): 125 + 13}
"""For memory: arrays of the layers, and what comes from the host (two masks, and on each device
images, crops, flips and colours; labels)."""

CONSTANTS = {(0,): 2, (0, 0): 4}
"""Rates and decays, which stay on each device after the first step."""


class Untouchable(np.ndarray):
    """Stands for an array on a device: refuses what NumPy would do with it on the host."""

    def __array_ufunc__(self, *arguments, **keywords):
        raise AssertionError("computed outside of a kernel")

    __array_function__ = __float__ = __int__ = __bool__ = __array_ufunc__


@pytest.fixture
def uncomputed(compiled, monkeypatch):
    """Without a GPU, launches that end before anything is computed."""
    if device.SIMULATOR:
        monkeypatch.setattr(launch.kernel, "run", lambda *arguments: None)
        monkeypatch.setattr(gemm, "interpret", lambda *arguments: None)
        monkeypatch.setattr(device, "unwritten", lambda a: a)
    with np.errstate(all="ignore"):  # memory holds anything
        yield


@cache
def counted(gpus, batch=BATCH):
    """What had been counted after the first, the second and the third step."""
    alexnet, side = get_architecture("alexnet"), 256
    zeros = {name: np.zeros(s, np.float32) for name, s in parameter_shapes(alexnet.rows).items()}
    mean = np.zeros((side, side, 3), np.float32)
    sgd = SGD(Network(alexnet, get_backend("gpu", gpus), zeros, mean), alexnet.recipe, zeros)
    images, labels = np.zeros((batch, side, side, 3), np.uint8), np.zeros(batch, np.int32)
    draws, found = training_draws(alexnet, batch, np.eye(3), 0, 0, 0), []
    with device.counting() as counts:
        for _ in range(3):
            train_step(sgd, images, labels, draws, lr=0.01)
            found.append(copy.deepcopy(counts))
    return found


both = pytest.mark.parametrize("gpus", [(0,), (0, 0)])


@pytest.mark.slow
def test_launches_of_a_step(uncomputed, tell):
    first, *_ = counted((0,))
    tell(f"{first.launches.total()} launches, {first.launches['gemm']} of them by cuBLAS")
    assert first.launches == {name: times for name, (times, _) in STEP.items()}
    assert first.launches.total() <= LAUNCHES


def test_launches_of_a_step_on_two_devices(uncomputed):
    """Each does all for its half of the channels, and the first what fc8 and the loss ask."""
    first, *_ = counted((0, 0))
    once = {name: 1 for name, (_, line) in STEP.items() if line == "loss"}
    once |= {"gemm": 3, "bias_kernel": 1, "sums_kernel": 1}  # fc8
    assert first.launches == {n: 2 * times - once.get(n, 0) for n, (times, _) in STEP.items()}
    assert first.launches.total() <= 2 * LAUNCHES


@both
@pytest.mark.slow
def test_every_step_asks_for_the_same(gpus, uncomputed):
    first, second, third = counted(gpus)
    for before, after in ((first, second), (second, third)):
        assert after.launches - before.launches == first.launches
        assert after.bytes - before.bytes == first.bytes


@both
def test_nothing_is_allocated_after_the_first_step(gpus, uncomputed, tell):
    first, second, third = counted(gpus)
    tell(f"{first.requests} requests for memory, {first.allocations} allocations in the first step")
    assert first.allocations > 0
    assert first.allocations == second.allocations == third.allocations
    if device.SIMULATOR:  # where CuPy's own arrays are not counted
        assert [c.requests for c in (first, second, third)] == [
            n * REQUESTS[gpus] + CONSTANTS[gpus] for n in (1, 2, 3)
        ]


@both
def test_the_host_waits_for_metrics_only(gpus, uncomputed):
    assert [c.waits for c in counted(gpus)] == [WAITS, 2 * WAITS, 3 * WAITS]


@both
def test_no_byte_moves_more_often_than_layers_by_themselves_need(gpus, uncomputed, tell):
    first, *_ = counted(gpus)
    lines = Counter()
    for name, size in first.bytes.items():
        lines[STEP[name][1]] += size / 1e6
    tell(", ".join(f"{line} {lines[line]:,.0f} of {TABLE[line]:,} MB" for line in TABLE))
    assert gpus == (0, 0) or sum(lines.values()) <= MEGABYTES
    for line, megabytes in TABLE.items():
        # Fused layers move less, and an array that is read and written counts once.
        assert 0.4 * megabytes <= lines[line] <= 1.3 * megabytes, line


@pytest.mark.slow
def test_the_readme_has_the_floors_of_this_design(uncomputed):
    """Milliseconds of a step on the H200 of examples/gpu_bench.py, by precision."""
    (row,) = (line for line in README.read_text().splitlines() if "floor" in line)
    for batch, cell in zip((BATCH, 1024), row.split("|")[2:], strict=False):
        first, *_ = counted((0,), batch)
        floors = (1e3 * first.floor(flops, 4.3e12) for flops in (60e12, 400e12, 790e12))
        assert cell.strip() == ", ".join(f"{floor:.1f}" for floor in floors) + " ms"


def test_a_floor_is_the_longer_of_arithmetic_and_bytes():
    counts = device.Counts(bytes=Counter(gemm=30, other=7), products=[(100, 10), (10, 20)])
    assert counts.floor(flops=10, bandwidth=2) == 7 / 2 + 100 / 10 + 20 / 2


@pytest.mark.skipif(not device.SIMULATOR, reason="CuPy's arrays have no such stand-in")
def test_nothing_is_computed_outside_of_kernels(uncomputed, monkeypatch):
    """By CuPy it would be a launch and an array more, or a wait, that nobody counts."""
    monkeypatch.setattr(device, "unwritten", lambda a: a.view(Untouchable))
    counted.__wrapped__((0,))


def test_memory_is_used_again_when_its_array_is_gone():
    # On a GPU a new place has a new stream, and no memory that was freed there before.
    with device.Place(0), device.counting() as counts:
        a = device.empty((1000,))
        assert (counts.requests, counts.allocations) == (1, 1)
        b = device.empty((1000,))
        assert (counts.requests, counts.allocations) == (2, 2)
        view = a[:500]
        del a
        c = device.asarray(np.zeros(1000, np.float32))
        assert (counts.requests, counts.allocations) == (3, 3)
        del view, b
        kept = [device.empty((1000,)), device.empty((1000,))]
        assert (counts.requests, counts.allocations) == (5, 3)
        kept.append(device.empty((1000,)))
        assert (counts.requests, counts.allocations) == (6, 4)
        device.to_numpy(c)
        device.current().synchronize()
    device.to_numpy(c)
    assert device.counts is None
    assert counts.waits == 2


def test_a_run_gives_a_steps_memory_back_before_the_next(uncomputed, tmp_path, monkeypatch):
    seen, step = [], Recorder.step

    def count(self, *arguments):
        seen.append(device.counts.allocations)
        step(self, *arguments)

    monkeypatch.setattr(device, "unwritten", lambda a: a.fill(0) or a)
    monkeypatch.setattr(Recorder, "step", count)
    few_images(monkeypatch, 100)
    argv = ["train", "--backend", "gpu", "--arch", "mini", "-b", "8", "--max-steps", "4"]
    with device.counting():
        assert main([*argv, "--output-dir", str(tmp_path / "run")]) == 0
    assert seen[0] + 1 >= seen[1] == seen[2] == seen[3]  # the logits are read last


def test_numbers_of_a_step_before_are_there_already():
    with device.Place(0) as place, device.counting() as counts:
        first = device.constants([0.5, 2.0])
        np.testing.assert_array_equal(device.to_numpy(first), [[0.5], [2.0]])
        assert device.constants((0.5, 2.0)) is first
        for n in range(2 * device.CONSTANTS):
            np.testing.assert_array_equal(device.to_numpy(device.constants([n])), [[n]])
        assert counts.requests == 1 + 2 * device.CONSTANTS
        assert len(place.constants) <= device.CONSTANTS
