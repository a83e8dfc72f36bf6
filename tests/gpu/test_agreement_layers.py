"""The GPU's elementwise layers, normalisation, pools, loss and update against the reference.

Without a GPU the kernels run in Numba's simulator on drawn shapes, and compiled for the CPU on the
layers of AlexNet.
"""

import itertools
from unittest import mock

import checks
import fusions
import kernels
import naive
import numpy as np
import pytest
import small
import strategies
from hypothesis import given, settings
from hypothesis import strategies as st
from mutations_layers import MUTATIONS
from strategies import integers, reals

from tinyalex import reference
from tinyalex.gpu import device, launch
from tinyalex.net.layers import LRN, Dropout, MaxPool
from tinyalex.net.presets import ALEXNET
from tinyalex.net.shapes import layers

FUSIONS = ["lrn_max_pool", "relu_lrn_max_pool", "relu_max_pool"]
LAYERS = [*kernels.OTHERS, *FUSIONS, "softmax_cross_entropy"]
FUNCTIONS = [*LAYERS, *(f"{op}_backward" for op in LAYERS), "sgd_update"]
GPU, TRUTH = kernels.backend(kernels.MODULES, FUNCTIONS), fusions.with_fusions(reference)

NORMALISATIONS = ["lrn", "lrn_map", "lrn_max_pool", "relu_lrn_max_pool"]
POOLS = ["max_pool", "avg_pool", "relu_max_pool"]
ELEMENTWISE = [kind for kind in kernels.OTHERS if kind not in NORMALISATIONS + POOLS]

every_op = pytest.mark.parametrize("op", LAYERS)
every_fill = pytest.mark.parametrize("fill", [integers, reals])


@every_op
@every_fill
@given(data=st.data())
@pytest.mark.slow
def test_the_gpu_gives_what_the_reference_gives(op, fill, data):
    """Whole numbers bit for bit, ties and kinks included."""
    checks.agree(GPU, TRUTH, data.draw(fusions.calls(op, fill)), np.float32)


@every_fill
@given(data=st.data())
def test_the_update_gives_what_the_reference_gives(fill, data):
    arguments = data.draw(strategies.sgd_update(fill))
    checks.agree_on_update(GPU, TRUTH, arguments, fill, np.float32)


def test_one_launch_updates_all_parameters():
    launches = []
    weights = [np.ones(n, np.float32) for n in range(1, 5)]
    with mock.patch.object(launch.kernel, "each", lambda kernel, calls: launches.append([*calls])):
        GPU.sgd_update(weights, weights, weights, [0.1] * 4, 0.9, [0.0] * 4)
    assert [[count for count, *_ in calls] for calls in launches] == [[1, 2, 3, 4]]


ROWS = {layer.row.name: layer for layer in layers(ALEXNET)}


def rows_of(kind):
    return [name for name, layer in ROWS.items() if isinstance(layer.row, kind)]


def own_arguments(op, x):
    """What a row of a kind takes behind x: its parameters, of whole numbers, and its settings."""
    row, rng = small.layer_of(op).row, np.random.default_rng(2)
    trained = row.parameters(x.shape[1:]).values()
    return *(integers(rng, parameter.shape) for parameter in trained), *row.settings


def call_of(op, name, fill):
    """A call on two images at the full size of one of AlexNet's layers, by what lies below it."""
    row, rng = ROWS[name].row, np.random.default_rng(0)
    x = fill(rng, (2, *ROWS[name].input))
    arguments = {
        "dropout": (rng.integers(0, 2, x.size, np.uint8), 0.5),
        "lrn": (5, 2.0, 1e-4, 0.75, 2),
        "lrn_map": (5, 2.0, 1e-4, 0.75),
        "max_pool": (3, 2, False),
        "avg_pool": (3, 2, True),
        "lrn_max_pool": (5, 2.0, 1e-4, 0.75, 2, 3, 2, False),
        "relu_lrn_max_pool": (5, 2.0, 1e-4, 0.75, 2, 3, 2, False),
        "relu_max_pool": (3, 2, False),
        "softmax_cross_entropy": (np.array([17, 999], np.int32),),
    }.get(op) or own_arguments(op, x)
    if op == "softmax_cross_entropy":
        x = 10 * x.reshape(2, -1)[:, :1000]
    assert not isinstance(row, LRN) or (row.n, row.k, row.alpha, row.beta) == (5, 2, 1e-4, 0.75)
    return strategies.Call(op, (x, *arguments), fill, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("op", "name"),
    [
        *itertools.product(NORMALISATIONS, rows_of(LRN)),
        *itertools.product(POOLS, rows_of(MaxPool)),
        *itertools.product(ELEMENTWISE, (*rows_of(LRN), *rows_of(Dropout))),
        ("softmax_cross_entropy", "fc8"),
    ],
)
@pytest.mark.usefixtures("compiled")
def test_layers_at_the_sizes_of_alexnet(op, name):
    """Of whole numbers, so that no rounding changes a winner."""
    call = call_of(op, name, integers if op in FUSIONS else reals)
    actual, expected = (checks.results(ops, call, np.float32) for ops in (GPU, TRUTH))
    assert actual.keys() == expected.keys()
    for tensor, value in actual.items():
        assert checks.relative_l2(value, expected[tensor]) <= checks.FULL_SIZE, tensor


@pytest.mark.slow
@pytest.mark.usefixtures("compiled")
def test_the_update_of_as_many_parameters_as_alexnet_has():
    shapes = [p.shape for layer in ROWS.values() for p in layer.trained.values()]
    small = [tuple(min(64, n) for n in shape) for shape in shapes]
    rng = np.random.default_rng(0)
    lists = [[integers(rng, shape) for shape in small] for _ in range(3)]
    each = [0.5, 0.25] * (len(small) // 2)
    checks.agree_on_update(GPU, TRUTH, (*lists, each, 0.5, each[::-1]), integers, np.float32)


@kernels.LOOPS
@every_op
@settings(max_examples=10)
@given(data=st.data())
@pytest.mark.slow
def test_the_order_of_the_indices_changes_no_bit(op, data):
    """No index reads what another one writes."""
    call = data.draw(fusions.calls(op, reals))
    first, *others = kernels.results_in_every_order(lambda: checks.results(GPU, call, np.float32))
    for other in others:
        for tensor, value in first.items():
            np.testing.assert_array_equal(other[tensor], value)


@kernels.LOOPS
@settings(max_examples=10)
@given(strategies.sgd_update(reals))
def test_the_order_of_the_update_changes_no_bit(arguments):
    first, *others = kernels.results_in_every_order(
        lambda: checks.updated(GPU, arguments, np.float32)
    )
    for other in others:
        for value, expected in zip(other, first, strict=True):
            np.testing.assert_array_equal(value, expected)


@every_op
def test_a_batch_of_another_size_compiles_nothing_anew(op):
    """The sizes that a kernel is compiled for are the same for one image as for two."""
    call, compiled = call_of(op, "fc8" if op == "softmax_cross_entropy" else "norm2", integers), []
    for N in (1, 2):
        x, *rest = call.arguments
        if op == "dropout":
            rest[0] = rest[0].reshape(2, -1)[:N]
        if op == "softmax_cross_entropy":
            rest[0] = rest[0][:N]
        with kernels.compilations() as seen:
            checks.results(GPU, strategies.Call(op, (x[:N], *rest), integers, 0), np.float32)
        compiled.append(seen)
    assert compiled[0] == compiled[1] != set()


@every_op
@given(data=st.data())
def test_nan_is_passed_on(op, data):
    """A NaN in x comes out wherever the formula reads it, and so reaches the loss."""
    call = data.draw(fusions.calls(op, integers))
    x = call.arguments[0].copy()
    x.flat[data.draw(st.integers(0, x.size - 1))] = np.nan
    rest = [device.asarray(a) if isinstance(a, np.ndarray) else a for a in call.arguments[1:]]
    y, _ = getattr(GPU, op)(device.asarray(x), *rest)
    expected, _ = fusions.composed(naive, fusions.RUNS.get(op, (op,)))[""](x, *call.arguments[1:])
    assert np.isnan(device.to_numpy(y)[np.isnan(expected)]).all()


@pytest.mark.parametrize("label", [-1, 3])
def test_a_label_that_names_no_class_is_seen_in_the_loss(label):
    """Looking at the labels on the host would mean to wait for the device."""
    labels = np.array([0, label], np.int32)
    y, _ = GPU.softmax_cross_entropy(zeros(2, 3), device.asarray(labels))
    assert np.isnan(device.to_numpy(y))


@kernels.LOOPS
@kernels.every_mutation(MUTATIONS)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.slow
def test_a_mistake_is_noticed(mutation):
    wrong = kernels.backend(kernels.mutated(mutation), FUNCTIONS)
    if mutation.op == "sgd_update":
        drawn, compare = strategies.sgd_update(integers), update_agrees(wrong)
    else:
        drawn = fusions.calls(mutation.op, integers) | fusions.calls(mutation.op, reals)
        compare = kernels.agree(wrong, TRUTH)
    kernels.assert_noticed(compare, drawn)


def update_agrees(ops):
    return lambda arguments: checks.agree_on_update(ops, TRUTH, arguments, integers, np.float32)


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


@pytest.mark.parametrize(
    ("op", "arguments"),
    [
        ("lrn", lambda: (zeros(1, 2, 2, 5), 5, 2.0, 1e-4, 0.75, 2)),
        ("lrn_max_pool", lambda: (zeros(1, 2, 2, 5), 5, 2.0, 1e-4, 0.75, 2, 2, 1, False)),
        ("lrn_max_pool", lambda: (zeros(1, 2, 5, 4), 5, 2.0, 1e-4, 0.75, 2, 3, 1, False)),
        ("max_pool", lambda: (zeros(1, 2, 5, 1), 3, 2, False)),
        ("avg_pool", lambda: (zeros(1, 5, 2, 1), 3, 2, False)),
        ("dropout", lambda: (zeros(2, 6), device.asarray(np.ones((2, 5), np.uint8)), 1.0)),
        ("softmax_cross_entropy", lambda: (zeros(2, 3), device.asarray(np.zeros(1, np.int32)))),
        ("sgd_update", lambda: ([zeros(2)], [zeros(2)], [zeros(2)], [0.1, 0.1], 0.9, [0.0])),
        ("sgd_update", lambda: ([zeros(2)], [zeros(2)], [zeros(2)], [0.1], 0.9, [])),
        ("sgd_update", lambda: ([zeros(2)], [zeros(3)], [zeros(2)], [0.1], 0.9, [0.0])),
        ("sgd_update", lambda: ([zeros(2)], [], [zeros(2)], [0.1], 0.9, [0.0])),
    ],
)
def test_arguments_that_do_not_fit_are_refused(op, arguments):
    with pytest.raises(ValueError, match=r"fit|cut|gradient|shorter|longer"):
        getattr(GPU, op)(*arguments())


@pytest.mark.parametrize("op", LAYERS[:-1])
def test_gradients_that_do_not_fit_are_refused(op):
    x, rest = zeros(1, 6, 6, 4), call_of(op, "norm2", integers).arguments[1:]
    if op == "dropout":
        rest = device.asarray(np.ones(x.size, np.uint8)), 1.0
    _, cache = getattr(GPU, op)(x, *rest)
    with pytest.raises(ValueError, match="fit"):
        getattr(GPU, f"{op}_backward")(zeros(1, 6, 6, 3), cache)


def test_a_window_whose_places_fill_a_byte():
    """The largest there is; a larger one is refused."""
    x = np.zeros((1, 15, 15, 1), np.float32)
    x[0, 14, 14, 0] = 1
    _, cache = GPU.max_pool(device.asarray(x), 15, 1, False)
    dx = device.to_numpy(GPU.max_pool_backward(zeros(1, 1, 1, 1) + 2, cache))
    np.testing.assert_array_equal(dx, 2 * x)
    with pytest.raises(AssertionError, match="at most 15"):
        GPU.max_pool(zeros(1, 16, 16, 1), 16, 1, False)
