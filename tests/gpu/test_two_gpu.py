"""Two towers on two devices against one device: the same numbers, and nothing too much on the way.

The devices are one and the same, which both the simulator and a single GPU offer. Over the
reference everything is compared in float64; over the kernels in test_compare.py.
"""

import math

import fusions
import numpy as np
import pytest
import small

from tinyalex import reference
from tinyalex.cli.parser import main
from tinyalex.errors import UsageError
from tinyalex.gpu.device import Place
from tinyalex.gpu.two_gpu import TwoGPU, own
from tinyalex.net.draws import centre_draws, initial_parameters, training_draws
from tinyalex.net.network import Network, outputs
from tinyalex.net.optimizer import SGD
from tinyalex.net.presets import ARCHITECTURES, check_towers, get_architecture
from tinyalex.net.shapes import layers, parameter_shapes
from tinyalex.net.step import train_step


def towers(ops=reference, **options):
    return TwoGPU(ops, (Place(0), Place(0)), **options)


def start(architecture, ops, parameters, freeze=None):
    side = architecture.data.image_size
    mean = np.full((side, side, 3), 127.5, parameters["conv1.weight"].dtype)
    network = Network(architecture, ops, parameters, mean, freeze)
    return SGD(network, architecture.recipe, {n: np.zeros_like(w) for n, w in parameters.items()})


def batch(architecture, count, seed):
    rng, side = np.random.default_rng(seed), architecture.data.image_size
    images = rng.integers(0, 256, (count, side, side, 3), np.uint8)
    draws = training_draws(architecture, count, np.eye(3), seed, 0, 0)
    return images, rng.integers(0, architecture.classes, count, np.int32), draws


MINI, SMALL_2012 = get_architecture("mini"), small.shrunk(get_architecture("2012"))


@pytest.mark.parametrize(
    ("architecture", "fused", "count"),
    [
        (MINI, False, len(MINI.rows)),
        (MINI, True, 11),
        (SMALL_2012, False, len(SMALL_2012.rows)),
        (SMALL_2012, True, 15),
        (small.EVERY_KIND, False, len(small.EVERY_KIND.rows)),
    ],
)
def test_three_training_steps_are_those_of_one_device(architecture, fused, count):
    """Weights, velocities and answers, with the fusions of a backend and without."""
    parameters = {n: w.astype(np.float64) for n, w in initial_parameters(architecture, 0).items()}
    inner = fusions.with_fusions(reference, fusions=table()) if fused else reference
    one, two = (start(architecture, ops, parameters) for ops in (reference, towers(inner)))
    assert len(two.network.stages) == count
    for seed in range(3):
        step = batch(architecture, 3, seed)
        for sgd in (one, two):
            train_step(sgd, *step, lr=0.01)
    ops = two.network.ops
    for name, expected in one.network.parameters.items():
        for a, b in ((two.network.parameters, expected), (two.velocities, one.velocities[name])):
            np.testing.assert_allclose(ops.to_numpy(a[name]), b, rtol=0, atol=1e-12)
    images, _, _ = batch(architecture, 2, 9)
    draws = centre_draws(architecture.data, 2)
    expected, _ = one.network.forward(images, draws)
    actual = ops.to_numpy(two.network.forward(images, draws)[0])
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("freeze", ["conv2", "conv5", "fc6", "fc7"])
def test_above_frozen_layers_too_they_are_those_of_one_device(freeze):
    """From the images, and from what the frozen layers make of them."""
    parameters = {n: w.astype(np.float64) for n, w in initial_parameters(MINI, 0).items()}
    one, two, above = (
        start(MINI, ops, parameters, freeze) for ops in (reference, towers(), towers())
    )
    for seed in range(2):
        images, labels, draws = batch(MINI, 3, seed)
        ((_, features),) = outputs(
            above.network, images, [MINI.rows[above.network.frozen - 1].name], draws
        )
        for sgd, given in ((one, images), (two, images), (above, features)):
            train_step(sgd, given, labels, draws, lr=0.01)
    ops = two.network.ops
    for name, expected in one.network.parameters.items():
        for network in (two.network, above.network):
            actual = ops.to_numpy(network.parameters[name])
            np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-12)
        frozen = one.network.frozen > [row.name for row in MINI.rows].index(name.split(".")[0])
        assert np.array_equal(expected, parameters[name]) == frozen


def table():
    """The fusions that a GPU has, made of the reference's layers."""
    runs = fusions.RUNS.values()
    return {run: tuple(fusions.composed(reference, run).values()) for run in runs}


def test_what_travels_is_what_travelled_in_2012():
    """11.08 MB each way into conv3 at 128 images, 2.36 into fc6, 1.05 into fc7; to fc8 one way."""
    alexnet, heard = get_architecture("alexnet"), []
    parameters = {n: np.zeros(s, np.float32) for n, s in parameter_shapes(alexnet.rows).items()}
    ops = towers(trace=lambda *exchange: heard.append(exchange))
    train_step(start(alexnet, ops, parameters), *batch(alexnet, 1, 0), lr=0.01)

    inputs = {layer.row.name: layer.input for layer in layers(alexnet.rows)}
    conv3, fc6, fc7, fc8 = (2 * math.prod(inputs[n]) for n in ("conv3", "fc6", "fc7", "fc8"))
    both = ((1, 0), (0, 1))
    forward = [
        *(("x of conv2d", conv3, *way) for way in both),
        *(("x of linear", size, *way) for size in (fc6, fc7) for way in both),
        ("x of linear", fc8, 1, 0),
    ]
    backward = [
        ("dx of linear", fc8, 0, 1),
        *(("dx of linear", size, *way) for size in (fc7, fc6) for way in both),
        *(("dx of conv2d", conv3, *way) for way in both),
    ]
    assert heard == forward + backward
    megabytes = [round(128 * size / 1e6, 2) for size in (conv3, fc6, fc7, fc8)]
    assert megabytes == [11.08, 2.36, 1.05, 1.05]


def test_the_halves_are_the_whole_in_order():
    """So a checkpoint of two devices is one of one device."""
    ops, a = towers(), np.arange(24.0).reshape(4, 6)
    for role in ("both", "tower", "mask", "head"):
        np.testing.assert_array_equal(ops.to_numpy(ops.asarray(a, role)), a)
    tower, mask = ops.asarray(a, "tower"), ops.asarray(a, "mask")
    np.testing.assert_array_equal(tower.b, a[2:])
    np.testing.assert_array_equal(mask.b, a[:, 3:])


def polynomial(x, *coefficients):
    return sum(c * x**i for i, c in enumerate(coefficients)), (x, coefficients)


def polynomial_backward(dy, cache):
    x, coefficients = cache
    dx = dy * sum(i * c * x ** (i - 1) for i, c in enumerate(coefficients) if i)
    return dx, *((dy * x**i).sum((0, 1, 2)) for i in range(len(coefficients)))


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_layer_may_have_any_number_of_parameters(count):
    """One number a channel each: they and their gradients are cut as the channels are."""
    rng = np.random.default_rng(0)
    x, dy, *coefficients = rng.standard_normal((2 + count, 2, 3, 5, 4))
    coefficients = [c[0, 0, 0] for c in coefficients]
    _, cache = polynomial(x, *coefficients)
    expected = polynomial_backward(dy, cache)
    own = {"polynomial": polynomial, "polynomial_backward": polynomial_backward}
    ops = towers(fusions.replaced(reference, **own))
    forward, backward = ops.doubled("polynomial")
    _, cache = forward(ops.asarray(x, "mask"), *(ops.asarray(c, "tower") for c in coefficients))
    gradients = backward(ops.asarray(dy, "mask"), cache)
    for gradient, right in zip(gradients, expected, strict=True):
        np.testing.assert_allclose(ops.to_numpy(gradient), right, rtol=1e-12)


class Guarded(TwoGPU):
    """Knows where each array was made, and lets no tower touch one of the other's."""

    def __init__(self, ops):
        self.made, self.alive = {}, []
        super().__init__(ops, (Place(0), Place(0)))

    def at(self, tower, function, *arguments):
        for a in arrays([own(argument, tower) for argument in arguments]):
            assert self.made.get(id(a), tower) == tower
        return self.mark(super().at(tower, function, *arguments), tower)

    def send(self, tensor, x, source):
        assert self.made[id(x)] == source
        return self.mark(super().send(tensor, x, source), 1 - source)

    def mark(self, made, tower):
        for a in arrays(made):
            self.made[id(a)] = tower
            self.alive.append(a)  # so that its id is not given to another
        return made


def arrays(value):
    if isinstance(value, np.ndarray):
        yield value
    elif isinstance(value, tuple | list):
        for part in value:
            yield from arrays(part)


@pytest.mark.parametrize("architecture", [MINI, SMALL_2012, small.EVERY_KIND])
@pytest.mark.parametrize("fused", [False, True])
def test_no_array_is_used_where_it_was_not_made_or_sent(architecture, fused):
    """What two devices would not forgive, and one device and the simulator never notice."""
    copied = {"asarray": lambda a, role="both": np.array(a)}
    fused = {"fusions": table()} if fused else {}
    ops = Guarded(fusions.with_fusions(reference, **copied, **fused))
    sgd = start(architecture, ops, initial_parameters(architecture, 0))
    train_step(sgd, *batch(architecture, 2, 0), lr=0.01)
    assert set(ops.made.values()) == {0, 1}


def test_each_tower_works_at_its_place():
    log = []

    class Listening(Place):
        def __enter__(self):
            log.append(self)
            return super().__enter__()

    places = Listening(0), Listening(0)
    TwoGPU(reference, places).each(lambda: log.append("work"))
    assert log == [places[0], "work", places[1], "work"]


@pytest.mark.parametrize(
    ("op", "arguments"),
    [
        ("lrn", (5, 2.0, 1e-4, 0.75, 1)),
        ("lrn", (5, 2.0, 1e-4, 0.75, 3)),
        ("conv2d", (np.zeros((6, 1, 1, 2)), np.zeros(6), 1, 0, 3, False)),
    ],
)
def test_layers_across_the_towers_are_refused(op, arguments):
    ops = towers()
    x = ops.asarray(np.zeros((1, 2, 2, 6)), "mask")
    with pytest.raises(ValueError, match="groups=2"):
        getattr(ops, op)(x, *arguments)


def test_dropout_of_a_map_is_refused():
    """Its mask is flat, and would be cut elsewhere than the channels."""
    ops = towers()
    x = ops.asarray(np.zeros((1, 2, 2, 6)), "mask")
    with pytest.raises(ValueError, match="linear"):
        ops.dropout(x, ops.asarray(np.ones((1, 24), np.uint8), "mask"), 1.0)


def test_networks_without_towers_are_refused(capsys):
    with_towers = {name for name, a in ARCHITECTURES.items() if a.has_towers}
    assert {"alexnet", "paper", "2012", "mini"} <= with_towers
    assert not {"caffe", "owt", "ungrouped", "cifar-18pct", "cifar-19pct"} & with_towers
    for name, architecture in ARCHITECTURES.items():
        check_towers(architecture, (0,))
        if name in with_towers:
            check_towers(architecture, (0, 0))
            continue
        with pytest.raises(UsageError, match="mini"):
            check_towers(architecture, (0, 0))
    for command in ("train", "compare"):
        assert main([command, "--arch", "owt", "--gpus", "0,1", "--backend", "gpu"]) == 2
        assert "alexnet, paper, 2012, mini" in capsys.readouterr().err
