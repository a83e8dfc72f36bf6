"""The GPU's augment, convolution and fully connected layers against the reference.

Without a GPU the kernels run in Numba's simulator on drawn shapes, and compiled for the CPU on the
layers of AlexNet.
"""

import checks
import fusions
import kernels
import numpy as np
import pytest
import strategies
from hypothesis import given, settings
from hypothesis import strategies as st
from kernels import PRODUCTS
from mutations_conv import MUTATIONS
from strategies import integers, reals

from tinyalex import reference
from tinyalex.gpu import device
from tinyalex.gpu.bias import bias_gradient
from tinyalex.net.layers import Augment, Conv2d, Linear
from tinyalex.net.presets import ALEXNET, NETWORK_145
from tinyalex.net.shapes import layers

FUSIONS = ["augment_conv2d", "relu_conv2d", "linear_relu_dropout"]
FUNCTIONS = [*PRODUCTS, *FUSIONS, *(f"{op}_backward" for op in (*PRODUCTS[1:], *FUSIONS))]
GPU, TRUTH = kernels.backend(kernels.MODULES, FUNCTIONS), fusions.with_fusions(reference)

every_op = pytest.mark.parametrize("op", PRODUCTS + FUSIONS)


@every_op
@given(data=st.data())
@pytest.mark.slow
def test_whole_numbers_give_what_the_reference_gives(op, data):
    """Bit for bit, kinks included."""
    checks.agree(GPU, TRUTH, data.draw(fusions.calls(op, integers)), np.float32)


@every_op
@given(data=st.data())
def test_real_numbers_give_what_the_reference_gives(op, data):
    checks.agree(GPU, TRUTH, data.draw(fusions.calls(op, reals)), np.float32)


ROWS = {layer.row.name: layer for layer in layers(ALEXNET)}
ROWS["conv1 of 2012"] = layers(NETWORK_145)[1]
CONVOLUTIONS = [name for name, layer in ROWS.items() if isinstance(layer.row, Conv2d)]
CONNECTED = [name for name, layer in ROWS.items() if isinstance(layer.row, Linear)]


def call_of(op, name, fill):
    """A call at the full size of one of AlexNet's layers, on two images."""
    layer, rng = ROWS[name], np.random.default_rng(0)
    w, b = (fill(rng, parameter.shape) for parameter in layer.trained.values())
    arguments = [fill(rng, (2, *layer.input)), w, b]
    if isinstance(layer.row, Conv2d):
        arguments += [layer.row.stride, layer.row.pad, layer.row.groups, layer.row.ceil]
    if op == "linear_relu_dropout":
        arguments += [rng.integers(0, 2, (2, layer.weight[0]), np.uint8), 0.5]
    if op == "augment_conv2d":
        arguments[:1] = [*views(rng), *sizes(ROWS["data"].row)]
    return strategies.Call(op, tuple(arguments), fill, seed=1)


def views(rng):
    """Two images of AlexNet's with whole-number means, one crop in a corner and mirrored."""
    side, corner = ROWS["data"].row.image_size, np.array([[29, 29], [3, 14]], np.int32)
    images = rng.integers(0, 256, (2, side, side, 3), np.uint8)
    mean = rng.integers(100, 140, (side, side, 3)).astype(np.float32)
    return images, mean, corner, np.array([1, 0], np.uint8), integers(rng, (2, 3))


def sizes(data: Augment):
    return data.size, data.scale


@pytest.mark.slow
@pytest.mark.parametrize(
    ("op", "name"),
    [
        ("augment_conv2d", "conv1"),
        *(("relu_conv2d", name) for name in CONVOLUTIONS),
        *(("linear_relu_dropout", name) for name in CONNECTED[:-1]),
    ],
)
@pytest.mark.usefixtures("compiled")
def test_fusions_at_the_sizes_of_alexnet(op, name):
    """Whole numbers, so that no rounding can change the side of a ReLU."""
    call = call_of(op, name, integers)
    actual, expected = (checks.results(ops, call, np.float32) for ops in (GPU, TRUTH))
    assert actual.keys() == expected.keys()
    for tensor, value in actual.items():
        np.testing.assert_array_equal(value, expected[tensor])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("op", "name"),
    [*(("conv2d", name) for name in CONVOLUTIONS), *(("linear", name) for name in CONNECTED)],
)
@pytest.mark.usefixtures("compiled")
def test_layers_at_the_sizes_of_alexnet(op, name):
    call = call_of(op, name, reals)
    actual, expected = (checks.results(ops, call, np.float32) for ops in (GPU, TRUTH))
    assert actual.keys() == expected.keys()
    for tensor, value in actual.items():
        assert checks.relative_l2(value, expected[tensor]) <= checks.FULL_SIZE, tensor


@pytest.mark.slow
@pytest.mark.usefixtures("compiled")
def test_augment_at_the_size_of_alexnet():
    call = strategies.Call("augment", (*views(np.random.default_rng(0)), 227, 1.0), integers, 0)
    checks.agree(GPU, TRUTH, call, np.float32)


@pytest.mark.slow
@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize("rows", [1, 2, 64, 65, 4096, 4097])
def test_the_gradient_of_a_bias_adds_up_all_rows(rows):
    dy = integers(np.random.default_rng(rows), (rows, 3))
    db = device.to_numpy(bias_gradient(device.asarray(dy)))
    np.testing.assert_array_equal(db, dy.sum(0))


@kernels.LOOPS
@every_op
@settings(max_examples=10)
@given(data=st.data())
def test_the_order_of_the_indices_changes_no_bit(op, data):
    """No index reads what another one writes."""
    call = data.draw(fusions.calls(op, reals))
    first, *others = kernels.results_in_every_order(lambda: checks.results(GPU, call, np.float32))
    for other in others:
        for tensor, value in first.items():
            np.testing.assert_array_equal(other[tensor], value)


@every_op
def test_a_batch_of_another_size_compiles_nothing_anew(op):
    """The sizes that a kernel is compiled for are the same for six images as for seven."""
    compiled = []
    for N in (6, 7):
        rng, images = np.random.default_rng(0), np.zeros((N, 8, 8, 3), np.uint8)
        corner, flip, shift = np.zeros((N, 2), np.int32), np.zeros(N, np.uint8), reals(rng, (N, 3))
        crops = images, reals(rng, (8, 8, 3)), corner, flip, shift, 7, 1.0
        filters = reals(rng, (4, 3, 3, 3)), reals(rng, 4), 2, 1, 1, True
        neurons = reals(rng, (5, 3)), reals(rng, 5)
        arguments = {
            "augment": crops,
            "conv2d": (reals(rng, (N, 6, 7, 3)), *filters),
            "linear": (reals(rng, (N, 3)), *neurons),
            "augment_conv2d": (*crops, *filters),
            "relu_conv2d": (reals(rng, (N, 6, 7, 3)), *filters),
            "linear_relu_dropout": (
                *(reals(rng, (N, 3)), *neurons),
                *(np.ones((N, 5), np.uint8), 1.0),
            ),
        }
        with kernels.compilations() as seen:
            checks.results(GPU, strategies.Call(op, arguments[op], reals, 0), np.float32)
        compiled.append(seen)
    assert compiled[0] == compiled[1] != set()


@pytest.mark.parametrize("op", ["conv2d", "relu_conv2d"])
def test_no_dx_unless_it_is_needed(op):
    rng = np.random.default_rng(0)
    x, w, b, dy = (integers(rng, s) for s in ((2, 5, 5, 2), (3, 2, 2, 2), 3, (2, 4, 4, 3)))
    _, cache = getattr(GPU, op)(*map(device.asarray, (x, w, b)), 1, 0, 1, False)
    backward = getattr(GPU, f"{op}_backward")
    _, *expected = backward(device.asarray(dy), cache)
    dx, *actual = backward(device.asarray(dy), cache, need_dx=False)
    assert dx is None
    for value, right in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(device.to_numpy(value), device.to_numpy(right))


@pytest.mark.parametrize("op", FUSIONS)
@given(data=st.data())
def test_nan_is_passed_on(op, data):
    """A NaN that a ReLU hid would not reach the loss, where the training loop looks for it."""
    call = data.draw(fusions.calls(op, integers))
    arguments = list(call.arguments)
    at = 4 if op == "augment_conv2d" else 0  # images are bytes, but shifts may be NaN
    arguments[at] = arguments[at].copy()
    arguments[at].flat[data.draw(st.integers(0, arguments[at].size - 1))] = np.nan
    if op == "linear_relu_dropout":
        arguments[3] = None
    y, expected = (
        checks.results(ops, strategies.Call(op, tuple(arguments), integers, 0), np.float32)["y"]
        for ops in (GPU, TRUTH)
    )
    assert np.isnan(y[np.isnan(expected)]).all()


@kernels.LOOPS
@kernels.every_mutation(MUTATIONS)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.slow
def test_a_mistake_is_noticed(mutation):
    wrong = kernels.backend(kernels.mutated(mutation), FUNCTIONS)
    drawn = fusions.calls(mutation.op, integers) | fusions.calls(mutation.op, reals)
    kernels.assert_noticed(kernels.agree(wrong, TRUTH), drawn)


@kernels.LOOPS
@every_op
@settings(max_examples=10)
@given(data=st.data())
@pytest.mark.slow
def test_a_copy_without_a_mistake_agrees(op, data):
    """So that it is the mistake that is noticed."""
    copy = kernels.backend(kernels.mutated(None), FUNCTIONS)
    kernels.agree(copy, TRUTH)(data.draw(fusions.calls(op, reals)))


def zeros(*shape):
    return device.asarray(np.zeros(shape, np.float32))


def crops(**changed):
    """The arguments of a fitting `augment`, but for those changed."""
    shapes = {"images": (2, 4, 4, 3), "mean": (4, 4, 3), "corner": (2, 2)}
    shapes |= {"flip": (2,), "shift": (2, 3)} | changed
    dtypes = {"images": np.uint8, "corner": np.int32, "flip": np.uint8}
    size = shapes.pop("size", 3)
    arrays = (np.zeros(s, dtypes.get(name, np.float32)) for name, s in shapes.items())
    return (*map(device.asarray, arrays), size, 1.0)


@pytest.mark.parametrize(
    ("op", "arguments"),
    [
        ("augment", lambda: crops(images=(2, 4, 5, 3))),
        ("augment", lambda: crops(images=(2, 4, 4, 1))),
        ("augment", lambda: crops(mean=(5, 5, 3))),
        ("augment", lambda: crops(corner=(1, 2))),
        ("augment", lambda: crops(flip=(1,))),
        ("augment", lambda: crops(shift=(1, 3))),
        ("augment", lambda: crops(size=5)),
        (
            "augment_conv2d",
            lambda: (*crops(size=5), zeros(2, 3, 3, 3), zeros(2), 1, 0, 1, False),
        ),
        ("augment_conv2d", lambda: (*crops(), zeros(2, 3, 3, 4), zeros(2), 1, 0, 1, False)),
        ("augment_conv2d", lambda: (*crops(), zeros(2, 4, 4, 3), zeros(2), 1, 0, 1, False)),
        ("conv2d", lambda: (zeros(1, 5, 5, 4), zeros(2, 3, 3, 4), zeros(2), 1, 0, 2, False)),
        ("conv2d", lambda: (zeros(1, 5, 5, 4), zeros(3, 3, 3, 2), zeros(3), 1, 0, 2, False)),
        ("conv2d", lambda: (zeros(1, 5, 5, 4), zeros(2, 3, 3, 4), zeros(1), 1, 0, 1, False)),
        ("relu_conv2d", lambda: (zeros(1, 2, 5, 4), zeros(2, 3, 3, 4), zeros(2), 1, 0, 1, False)),
        ("relu_conv2d", lambda: (zeros(1, 5, 2, 4), zeros(2, 3, 3, 4), zeros(2), 1, 0, 1, False)),
        ("linear", lambda: (zeros(2, 6), zeros(3, 5), zeros(3))),
        ("linear", lambda: (zeros(2, 1, 2, 3), zeros(3, 6), zeros(2))),
        ("linear_relu_dropout", lambda: (zeros(2, 6), zeros(3, 5), zeros(3), None, 1.0)),
        (
            "linear_relu_dropout",
            lambda: (zeros(2, 5), zeros(3, 5), zeros(3), device.asarray(np.ones(5, "u1")), 1.0),
        ),
    ],
)
def test_arguments_that_do_not_fit_are_refused(op, arguments):
    with pytest.raises(ValueError, match="fit"):
        getattr(GPU, op)(*arguments())


@pytest.mark.parametrize(
    ("op", "arguments", "dy"),
    [
        ("conv2d", ((1, 5, 5, 2), (3, 2, 2, 2), (3,)), (1, 4, 5, 3)),
        ("conv2d", ((1, 5, 5, 2), (3, 2, 2, 2), (3,)), (2, 4, 4, 3)),
        ("relu_conv2d", ((1, 5, 5, 2), (3, 2, 2, 2), (3,)), (1, 4, 4, 2)),
        ("linear", ((2, 6), (3, 6), (3,)), (1, 3)),
        ("linear_relu_dropout", ((2, 6), (3, 6), (3,)), (2, 4)),
    ],
)
def test_gradients_that_do_not_fit_are_refused(op, arguments, dy):
    rest = {"conv2d": (1, 0, 1, False), "linear_relu_dropout": (None, 1.0)}
    rest["relu_conv2d"] = rest["conv2d"]
    _, cache = getattr(GPU, op)(*(zeros(*shape) for shape in arguments), *rest.get(op, ()))
    with pytest.raises(ValueError, match="fit"):
        getattr(GPU, f"{op}_backward")(zeros(*dy), cache)
