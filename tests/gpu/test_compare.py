"""`tinyalex compare`: it finds what is wrong, names it, and is not misled by rounding.

Then what it is for: the GPU backend, on one device and on two, in the simulator or on the GPU; and
a whole step of AlexNet by the same kernels, compiled.
"""

import math

import fusions
import numpy as np
import pytest
from fusions import broken
from small import TINY

from tinyalex import reference
from tinyalex.cli.parser import main
from tinyalex.errors import DifferenceError
from tinyalex.judge import compare
from tinyalex.net.draws import initial_parameters, training_draws
from tinyalex.net.layers import MaxPool
from tinyalex.net.network import Network, outputs
from tinyalex.net.optimizer import SGD
from tinyalex.net.presets import ARCHITECTURES, get_architecture
from tinyalex.net.step import loss_and_gradients, train_step
from tinyalex.ranks.ranks import over
from tinyalex.ranks.team import Team
from tinyalex.system import backends
from tinyalex.system.backends import get_backend


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setitem(ARCHITECTURES, "tiny", TINY)


def pair(architecture, ops, parameters):
    """The reference and a backend at the start of a training."""
    side, zeros = architecture.data.image_size, {n: np.zeros_like(w) for n, w in parameters.items()}
    mean = np.full((side, side, 3), 127.5, np.float32)
    for o in (reference, ops):
        yield SGD(Network(architecture, o, parameters, mean), architecture.recipe, zeros)


def differences(architecture, ops, count=2, seed=0, parameters=None, precision="fp32"):
    """All of one training step."""
    parameters = parameters or initial_parameters(architecture, seed)
    rng, side = np.random.default_rng(seed), architecture.data.image_size
    images = rng.integers(0, 256, (count, side, side, 3), np.uint8)
    labels = rng.integers(0, architecture.classes, count, np.int32)
    draws = training_draws(architecture, count, np.eye(3), seed, 0, 0)
    comparison = compare.Comparison(*pair(architecture, ops, parameters), precision)
    return list(comparison.step(images, labels, draws, lr=0.01))


def first(change):
    """Changes y, or the gradient by x, and not the rest."""
    return lambda result: (change(result[0]), *result[1:])


def one_element(a):
    a = a.copy()
    a.reshape(-1)[3] += 1e-3 * np.abs(a).max()
    return a


FAULTS = [
    ("augment", first(lambda y: y[:, :, ::-1].copy()), "data", "y"),
    ("conv2d", first(one_element), "conv1", "y"),
    ("conv2d_backward", lambda r: (*r[:2], 1.001 * r[2]), "conv3", "conv3.bias"),
    ("relu_backward", one_element, "relu6", "dx"),
    ("lrn", first(lambda y: np.float32(1.0001) * y), "norm1", "y"),
    ("lrn_backward", lambda dx: dx * np.nan, "norm1", "dx"),
    ("max_pool_backward", lambda dx: np.roll(dx, 1, 1), "pool3", "dx"),
    ("linear", first(lambda y: y[:, ::-1].copy()), "fc6", "y"),
    ("linear_backward", lambda r: (r[0], one_element(r[1]), r[2]), "fc8", "fc8.weight"),
    ("dropout", first(lambda y: y / 2), "drop6", "y"),
    ("softmax_cross_entropy", first(lambda y: y + np.float32(1e-4)), "loss", "y"),
    ("softmax_cross_entropy_backward", lambda dx: 2 * dx, "loss", "dx"),
]


@pytest.mark.parametrize(("op", "change", "layer", "tensor"), FAULTS)
def test_a_fault_is_found_and_named(op, change, layer, tensor, monkeypatch, capsys):
    monkeypatch.setitem(backends.BACKENDS, "gpu", lambda *a: broken(op, change))
    assert main(["compare", "--arch", "tiny"]) == 1
    out = capsys.readouterr()
    assert out.err.startswith("tinyalex: ")
    assert out.err.count("\n") == 1
    assert f"in {tensor} of {layer}" in out.err
    assert out.out.splitlines()[-1].startswith(f"step 1  {layer}")
    assert "WRONG" in out.out.splitlines()[-1]


def forgets_momentum(weights, gradients, velocities, rates, momentum, decays):
    reference.sgd_update(weights, gradients, velocities, rates, 0.0, decays)


def test_a_fault_of_the_update_is_found_in_the_second_step(monkeypatch, capsys):
    """Velocities are zero at the first."""
    ops = fusions.with_fusions(reference, fusions={}, sgd_update=forgets_momentum)
    monkeypatch.setitem(backends.BACKENDS, "gpu", lambda *a: ops)
    assert main(["compare", "--arch", "tiny"]) == 0
    assert main(["compare", "--arch", "tiny", "--steps", "2"]) == 1
    assert "of update" in capsys.readouterr().err


def test_a_fault_of_the_update_does_not_hide_in_the_weights():
    def grows(weights, *arguments):
        reference.sgd_update(weights, *arguments)
        for w in weights:
            w *= np.float32(1 + 3e-6)

    found = differences(TINY, fusions.with_fusions(reference, fusions={}, sgd_update=grows))
    wrong = {difference.tensor for difference in found if not difference.ok}
    assert {"conv1.weight", "fc8.weight"} <= wrong


def test_only_products_are_allowed_the_roundings_of_a_precision():
    for op, allowed in (("conv2d", True), ("lrn", False)):
        ops = broken(op, first(lambda y: np.float32(1.0001) * y))
        assert (
            all(difference.ok for difference in differences(TINY, ops, precision="tf32")) == allowed
        )


def test_a_wrong_shape_is_told(monkeypatch, capsys):
    ops = broken("conv2d", first(lambda y: y[:, :-1].copy()))
    monkeypatch.setitem(backends.BACKENDS, "gpu", lambda *a: ops)
    assert main(["compare", "--arch", "tiny"]) == 1
    assert "shape" in capsys.readouterr().err


def indecisive():
    """A sound backend that decides otherwise wherever a fused decision is close.

    Its ReLU sees small values with the other sign, its max pool other maxima of nearly equal ones.
    """

    def conv2d_relu(x, w, b, *sizes):
        z, cache = reference.conv2d(x, w, b, *sizes)
        small = np.abs(z) < 4 * compare.TOLERANCES["fp32"] * np.sqrt(np.mean(z * z))
        y, sign = reference.relu(np.where(small, -z, z))
        return y, (cache, sign)

    def conv2d_relu_backward(dy, cache, need_dx=True):
        return reference.conv2d_backward(reference.relu_backward(dy, cache[1]), cache[0], need_dx)

    def lrn_max_pool(x, n, k, alpha, beta, groups, *sizes):
        z, cache = reference.lrn(x, n, k, alpha, beta, groups)
        rng = np.random.default_rng(0)
        noise = compare.TOLERANCES["fp32"] * rng.uniform(-1, 1, z.shape)
        y, pool = reference.max_pool(z * (1 + noise).astype(np.float32), *sizes)
        return y, (cache, pool)

    def lrn_max_pool_backward(dy, cache):
        return reference.lrn_backward(reference.max_pool_backward(dy, cache[1]), cache[0])

    runs = {
        ("conv2d", "relu"): (conv2d_relu, conv2d_relu_backward),
        ("lrn", "max_pool"): (lrn_max_pool, lrn_max_pool_backward),
    }
    return fusions.with_fusions(reference, fusions=runs)


def test_close_decisions_are_not_held_against_a_backend(monkeypatch):
    mini = get_architecture("mini")
    found = differences(mini, indecisive(), count=64)
    assert all(difference.ok for difference in found)
    assert 0 < max(difference.left_out for difference in found) < 64 * 28 * 28 * 24 / 1000
    monkeypatch.setattr(compare, "MARGIN", 0)
    assert not all(difference.ok for difference in differences(mini, indecisive(), count=64))


def test_the_reference_trains_as_ever():
    """What is left out of the judgement is not left out of its step."""
    mini = get_architecture("mini")
    parameters = initial_parameters(mini, 0)
    (truth, judged), (alone, _) = (pair(mini, indecisive(), parameters) for _ in "ab")
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (64, 32, 32, 3), np.uint8), rng.integers(0, 10, 64)
    step = images, labels, training_draws(mini, 64, np.eye(3), 0, 0, 0), 0.01
    found = list(compare.Comparison(truth, judged, "fp32").step(*step))
    assert any(difference.left_out for difference in found)
    train_step(alone, *step)
    for name, value in alone.network.parameters.items():
        np.testing.assert_array_equal(truth.network.parameters[name], value)


def test_maxima_are_clear_or_not():
    pool = MaxPool("pool", 2, 2, ceil=True)
    x = np.array([[0, 0, 5, 1, 2], [0, -1, 5, 4, 2 - 1e-6]])[None, :, :, None]
    y, _ = reference.max_pool(x, 2, 2, True)
    clear = compare.clear_maxima(pool, x, y, 1e-5)[0, 0, :, 0]
    assert clear.tolist() == [True, False, False]


def test_where_a_tensor_differs_most():
    expected, actual = np.ones((2, 3)), np.ones((2, 3))
    actual[1, 2] = 3
    found = compare.difference("conv1", "y", expected, actual, 1e-5, 0)
    assert (found.index, found.expected, found.actual, found.largest) == ((1, 2), 1, 3, 2)
    assert found.relative == pytest.approx(2 / math.sqrt(6))
    assert not found.ok
    actual[0, 1] = np.nan
    found = compare.difference("conv1", "y", expected, actual, 1e-5, 0)
    assert found.index == (0, 1)
    assert not found.ok
    with pytest.raises(DifferenceError, match=r"\(0, 1\)"):
        compare.refuse(found)
    assert compare.difference("conv1", "y", 0 * expected, 0 * expected, 1e-5, 0).ok


@pytest.mark.parametrize("gpus", ["0", "0,0"])
def test_the_gpu_backend_is_the_reference(gpus, capsys):
    argv = ["compare", "--backend", "gpu", "--arch", "tiny", "--steps", "2", "--gpus", gpus]
    assert main([*argv, "--trace"] if gpus == "0,0" else argv) == 0
    out = capsys.readouterr().out
    for op in ("data conv1", "relu1 norm1 pool1", "conv3", "fc6 relu6 drop6"):
        assert op in out
    assert out.count("trained by itself") == 2
    exchange = "tower b to a: 128 bytes, x of linear"  # 2 images, 4 channels of 2 x 2 pixels
    assert (exchange in out) == (gpus == "0,0")


def gradients_agree(ops, freeze=None):
    """Gradients of TINY above `freeze` are the reference's, from images and from what is frozen."""
    parameters = initial_parameters(TINY, 0)
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (2, 16, 16, 3), np.uint8), np.array([3, 4], np.int32)
    draws = training_draws(TINY, 2, np.eye(3), 0, 0, 0)
    mean = np.full((16, 16, 3), 127.5, np.float32)
    truth, actual = (Network(TINY, o, parameters, mean, freeze) for o in (reference, ops))
    inputs = [images]
    if freeze:
        frozen = TINY.rows[actual.frozen - 1].name
        inputs += [features for _, features in outputs(actual, images, [frozen], draws)]
    _, expected = loss_and_gradients(truth, images, labels, draws)
    for given in inputs:
        _, found = loss_and_gradients(actual, given, labels, draws)
        assert found.keys() == expected.keys()
        for name, gradient in found.items():
            size = np.abs(expected[name]).max()
            gradient = ops.to_numpy(gradient)
            np.testing.assert_allclose(gradient, expected[name], rtol=0, atol=1e-5 * size)


@pytest.mark.parametrize("gpus", [(0,), (0, 0)])
@pytest.mark.parametrize("freeze", ["conv1", "conv3", "fc6"])
def test_above_frozen_layers_the_gpu_has_the_gradients_of_the_reference(freeze, gpus):
    gradients_agree(get_backend("gpu", gpus), freeze)


@pytest.mark.parametrize("gpus", [(0,), (0, 0)])
@pytest.mark.parametrize("freeze", [None, "conv1", "conv3", "fc6"])
def test_two_pieces_on_the_gpu_have_the_gradients_of_the_reference(freeze, gpus):
    gradients_agree(over(get_backend("gpu", gpus), Team(), 2, "data"), freeze)


@pytest.fixture(scope="module")
def alexnet_parameters():
    return initial_parameters(get_architecture("alexnet"), 0)


@pytest.mark.slow
@pytest.mark.parametrize("gpus", [(0,), (0, 0)])
def test_a_whole_step_of_alexnet(gpus, alexnet_parameters, compiled):
    """60,965,224 parameters, by the source of the GPU's kernels."""
    ops = get_backend("gpu", gpus)
    found = differences(get_architecture("alexnet"), ops, parameters=alexnet_parameters)
    assert {difference.op for difference in found} >= {"data conv1", "relu2 norm2 pool2", "fc8"}
    farthest = max(found, key=lambda difference: difference.of_tolerance)
    assert farthest.ok, str(farthest)
