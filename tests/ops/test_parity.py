"""The reference against PyTorch: every layer, the update rule and whole networks."""

import checks
import numpy as np
import pytest
import small
import strategies
from hypothesis import assume, given
from hypothesis import strategies as st
from strategies import integers, reals

from tinyalex import reference
from tinyalex.net.draws import centre_draws, initial_parameters, training_draws
from tinyalex.net.layers import KINDS
from tinyalex.net.network import Network
from tinyalex.net.optimizer import SGD
from tinyalex.net.presets import ARCHITECTURES, get_architecture
from tinyalex.net.step import loss_and_gradients
from tinyalex.net.windows import pool_size

torch = pytest.importorskip("torch", reason="PyTorch, the judge here, is not installed")

import torch.nn.functional as F  # noqa: E402

from tinyalex.judge import torch_twin  # noqa: E402
from tinyalex.judge.torch_twin import nchw  # noqa: E402

pytestmark = pytest.mark.torch
torch.set_num_threads(1)  # its threads would spin, waiting for the cores that other tests are on


def nhwc(x):
    """PyTorch's order of the axes as ours."""
    return x.permute(0, 2, 3, 1)


LAYERS = {
    "augment": torch_twin.augment,
    "conv2d": lambda x, w, *rest: nhwc(torch_twin.conv2d(nchw(x), nchw(w), *rest)),
    "relu": F.relu,
    "tanh": torch.tanh,
    "lrn": lambda x, *rest: nhwc(torch_twin.lrn(nchw(x), *rest)),
    "lrn_map": lambda x, *rest: nhwc(torch_twin.lrn_map(nchw(x), *rest)),
    "max_pool": lambda x, size, stride, ceil: nhwc(
        F.max_pool2d(nchw(x), size, stride, ceil_mode=ceil)
    ),
    "avg_pool": lambda x, size, stride, ceil: nhwc(
        F.avg_pool2d(nchw(x), size, stride, ceil_mode=ceil)
    ),
    "linear": lambda x, w, b: F.linear(x.flatten(1), w, b),
    "dropout": lambda x, keep, scale: x * scale * (1 if keep is None else keep.reshape(x.shape)),
    "softmax_cross_entropy": lambda logits, labels: F.cross_entropy(logits, labels.long()),
}
"""Our signatures and layouts, in PyTorch's functions."""


@pytest.mark.parametrize("op", [*KINDS, "softmax_cross_entropy"])
@pytest.mark.parametrize("fill", [integers, reals])
@given(data=st.data())
@pytest.mark.slow
def test_a_layer_and_its_gradients(op, fill, data):
    call = data.draw(strategies.calls(op, fill).filter(_window_fits))
    ours = checks.results(reference, call, np.float64)
    arguments = [
        torch.tensor(a) if isinstance(a, np.ndarray) else a for a in call.arguments_as(np.float64)
    ]
    trained = [] if op == "augment" else [a for a in arguments if torch.is_tensor(a)]
    trained = [a.requires_grad_() for a in trained if a.is_floating_point()]
    assert op in LAYERS, "tests/ops/test_parity.py: LAYERS"
    y = LAYERS[op](*arguments)
    assert checks.relative(ours["y"], y.detach().numpy()) <= checks.TORCH
    if trained:
        y.backward(torch.tensor(call.dy(ours["y"])) if y.ndim else None)
    for tensor, argument in zip([name for name in ours if name != "y"], trained, strict=True):
        assert checks.relative(ours[tensor], argument.grad.numpy()) <= checks.TORCH, tensor


def _window_fits(call):
    """PyTorch, rounding up, refuses a window larger than the map; ours is then cut off."""
    if call.op not in ("max_pool", "avg_pool"):
        return True
    x, size, _, _ = call.arguments
    return min(x.shape[1:3]) >= size


@given(strategies.sgd_update(reals), st.integers(1, 4))
@pytest.mark.slow
def test_sgd_update(arguments, steps):
    """At a constant rate: PyTorch multiplies by it last, the paper before it adds to v."""
    weights, gradients, _, rates, momentum, decays = arguments
    ours = [w.astype(np.float64) for w in weights]
    velocities = [np.zeros_like(w) for w in ours]
    theirs = [torch.tensor(w, requires_grad=True) for w in ours]
    groups = [
        {"params": [w], "lr": rate, "weight_decay": decay}
        for w, rate, decay in zip(theirs, rates, decays, strict=True)
    ]
    optimizer = torch.optim.SGD(groups, momentum=momentum)
    for step in range(1, steps + 1):
        drawn = [step * g.astype(np.float64) for g in gradients]
        for w, g in zip(theirs, drawn, strict=True):
            w.grad = torch.tensor(g)
        optimizer.step()
        reference.sgd_update(ours, drawn, velocities, rates, momentum, decays)
    for w, twin in zip(ours, theirs, strict=True):
        assert checks.relative(w, twin.detach().numpy()) <= checks.TORCH


@given(st.integers(1, 30), st.integers(1, 5), st.integers(1, 5), st.booleans())
def test_pool_size(n, size, stride, ceil):
    assume(size <= n)
    y = F.max_pool2d(torch.zeros(1, 1, n, n), size, stride, ceil_mode=ceil)
    assert pool_size(n, size, stride, ceil) == y.shape[2]


class Pair:
    """A network of ours and its twin, with the same parameters and the same recipe."""

    def __init__(self, architecture, dtype):
        self.architecture = architecture
        data, recipe = self.architecture.data, self.architecture.recipe
        self.rng = np.random.default_rng(7)
        mean = self.rng.uniform(0, 255, (data.image_size, data.image_size, 3)).astype(dtype)
        parameters = {
            name: value.astype(dtype)
            for name, value in initial_parameters(self.architecture, seed=7).items()
        }
        self.twin = torch_twin.Twin(self.architecture, parameters, mean)
        self.network = Network(self.architecture, reference, parameters, mean)
        velocities = {name: np.zeros_like(value) for name, value in parameters.items()}
        self.sgd = SGD(self.network, recipe, velocities)
        rows = {row.name: row for row in self.architecture.rows}
        groups = []
        for parameter, tensor in self.twin.parameters.items():
            layer, kind = parameter.split(".")
            own, bias = getattr(rows[layer], "weight_decay", 0.0), kind == "bias"
            decay = recipe.weight_decay if own is None else own
            groups.append(
                {
                    "params": [tensor],
                    "lr": recipe.lr * (recipe.bias_lr_multiplier if bias else 1),
                    "weight_decay": decay if not bias or rows[layer].init_std is None else 0.0,
                }
            )
        self.optimizer = torch.optim.SGD(groups, momentum=recipe.momentum)

    def step(self, batch_size, step):
        """Both losses of a new batch, and our gradients; both have moved."""
        data = self.architecture.data
        shape = batch_size, data.image_size, data.image_size, 3
        images = self.rng.integers(0, 256, shape, dtype=np.uint8)
        labels = self.rng.integers(0, self.architecture.classes, batch_size, dtype=np.int32)
        colour = self.rng.standard_normal((3, 3))
        draws = training_draws(self.architecture, batch_size, colour, seed=7, epoch=0, batch=step)

        ours, gradients = loss_and_gradients(self.network, images, labels, draws)
        self.sgd.step(gradients, self.architecture.recipe.lr)

        twin_loss = F.cross_entropy(self.twin.forward(images, draws), torch.tensor(labels).long())
        self.optimizer.zero_grad()
        twin_loss.backward()
        self.optimizer.step()
        return ours.loss, twin_loss.item(), gradients

    def parameters(self):
        """Name, our parameter in PyTorch's layout, and the twin's."""
        for name, value in self.network.parameters.items():
            yield name, self.twin.convert(name, value), self.twin.parameters[name].detach()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "batch_size", "steps"),
    [
        ("alexnet", 8, 5),
        ("2012", 2, 1),
        ("caffe", 2, 1),
        ("caffenet", 2, 1),
        ("owt", 2, 1),
        ("owt-2014", 2, 1),
        ("ungrouped", 2, 1),
        ("mini", 4, 5),
        ("cifar-19pct", 4, 5),
        ("cifar-18pct", 4, 5),
    ],
)
def test_steps_of_a_network(name, batch_size, steps):
    assert_same_steps(get_architecture(name), batch_size, steps)


SMALL = [small.EVERY_KIND, *map(small.shrunk, ARCHITECTURES.values())]
every_small_network = pytest.mark.parametrize("architecture", SMALL, ids=lambda a: a.name)


@every_small_network
@pytest.mark.slow
def test_steps_of_a_small_network(architecture):
    assert_same_steps(architecture, 4, 5)


def assert_same_steps(architecture, batch_size, steps):
    """Losses, the gradients of the first step, and where all parameters arrive."""
    pair = Pair(architecture, np.float64)
    for step in range(steps):
        loss, twin_loss, gradients = pair.step(batch_size, step)
        assert abs(loss - twin_loss) <= checks.STEPS * twin_loss
        for parameter, ours in gradients.items() if step == 0 else ():
            theirs = pair.twin.parameters[parameter].grad
            ours = pair.twin.convert(parameter, ours)
            assert checks.relative(ours.numpy(), theirs.numpy()) <= checks.STEPS, parameter
    for parameter, ours, theirs in pair.parameters():
        assert checks.relative(ours.numpy(), theirs.numpy()) <= checks.STEPS, parameter


@every_small_network
def test_the_answer_of_a_network_in_evaluation(architecture):
    pair = Pair(architecture, np.float64)
    data = pair.architecture.data
    images = pair.rng.integers(0, 256, (2, data.image_size, data.image_size, 3), np.uint8)
    draws = centre_draws(data, 2)
    ours, _ = pair.network.forward(images, draws)
    theirs = pair.twin.forward(images, draws).detach().numpy()
    assert checks.relative(ours, theirs) <= checks.STEPS


@pytest.mark.slow
def test_a_step_of_alexnet_in_float32():
    pair = Pair(get_architecture("alexnet"), np.float32)
    loss, twin_loss, gradients = pair.step(batch_size=8, step=0)
    assert abs(loss - twin_loss) <= checks.FLOAT32_LOSS * twin_loss
    for name, gradient in gradients.items():
        assert gradient.dtype == np.float32
        theirs = pair.twin.parameters[name].grad.numpy()
        ours = pair.twin.convert(name, gradient).numpy()
        assert checks.relative_l2(ours, theirs) <= checks.FLOAT32_GRADIENT, name
