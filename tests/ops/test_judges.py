"""The judges judged: each has to notice mistakes that were made on purpose."""

from unittest import mock

import checks
import fusions
import naive
import numpy as np
import pytest
import strategies
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from small import EVERY_KIND
from strategies import integers, reals

from tinyalex import reference
from tinyalex.judge.gradcheck import gradcheck
from tinyalex.net.network import Network
from tinyalex.net.presets import ARCHITECTURES
from tinyalex.net.shapes import parameter_shapes


def with_backward(op, change):
    """The reference with one wrong backward: change(gradients, dy, y, *arguments)."""

    def forward(*arguments):
        y, cache = getattr(reference, op)(*arguments)
        return y, (arguments, y, cache)

    def backward(dy, cache, need_dx=True):
        arguments, y, right = cache
        return change(getattr(reference, f"{op}_backward")(dy, right), dy, y, *arguments)

    def loss_backward(cache):
        arguments, y, right = cache
        return change(reference.softmax_cross_entropy_backward(right), None, y, *arguments)

    wrong = loss_backward if op == "softmax_cross_entropy" else backward
    return fusions.replaced(reference, **{op: forward, f"{op}_backward": wrong})


def filters_of_the_other_tower(gradients, dy, y, x, w, b, stride, pad, groups, ceil):
    _, cache = reference.conv2d(x, np.roll(w, len(w) // groups, 0), b, stride, pad, groups, ceil)
    return reference.conv2d_backward(dy, cache)[0], *gradients[1:]


def transposed_kernels(gradients, dy, y, x, w, *rest):
    dx, dw, db = gradients
    return dx, np.flip(dw, (1, 2)), db


def mean_over_the_batch(gradients, dy, y, x, *rest):
    dx, dw, db = gradients
    return dx, dw, db / len(x)


def weights_of_another_image(gradients, dy, y, x, w, b):
    dx, _, db = gradients
    _, cache = reference.linear(np.roll(x, 1, 0), w, b)
    return dx, reference.linear_backward(dy, cache)[1], db


def leak(dx, dy, y, x):
    return np.where(x > 0, dx, dy / 100)


def slope_at_zero(dx, dy, y, x):
    return np.where(x == 0, dy, dx)


def not_squared(dx, dy, y, x):
    return dy * (1 - y)


def factor_2_missing(dx, dy, y, x, *rest):
    direct = dy * np.divide(y, x, out=np.zeros_like(y), where=x != 0)
    return (dx + direct) / 2


def across_towers(dx, dy, y, x, n, k, alpha, beta, groups):
    _, cache = reference.lrn(x, n, k, alpha, beta, 1)
    return reference.lrn_backward(dy, cache)


def every_tie(dx, dy, y, x, size, stride, ceil):
    dx = np.zeros_like(dx)
    for i in np.ndindex(dy.shape):
        for j in naive.pool_window(x, i, size, stride):
            dx[j] += dy[i] * (x[j] == y[i])
    return dx


def one_pixel_beside(dx, dy, y, *arguments):
    return np.roll(dx, 1, 2)


def whole_window_at_the_border(dx, dy, y, x, size, stride, ceil):
    dx = np.zeros_like(dx)
    for i in np.ndindex(dy.shape):
        for j in naive.pool_window(x, i, size, stride):
            dx[j] += dy[i] / size**2
    return dx


def scale_missing(dx, dy, y, x, keep, scale):
    return dx / scale if scale else dx


def mask_missing(dx, dy, y, x, keep, scale):
    return dy * scale


def sum_over_the_batch(dx, dy, y, logits, labels):
    return dx * len(logits)


SLOPES = [
    ("conv2d", filters_of_the_other_tower),
    ("conv2d", transposed_kernels),
    ("conv2d", mean_over_the_batch),
    ("relu", leak),
    ("tanh", not_squared),
    ("lrn", factor_2_missing),
    ("lrn", across_towers),
    ("lrn_map", factor_2_missing),
    ("max_pool", one_pixel_beside),
    ("avg_pool", whole_window_at_the_border),
    ("linear", weights_of_another_image),
    ("linear", mean_over_the_batch),
    ("dropout", scale_missing),
    ("dropout", mask_missing),
    ("softmax_cross_entropy", sum_over_the_batch),
]
KINKS = [("relu", slope_at_zero), ("max_pool", every_tie)]
"""Right wherever there is a slope: numerical gradients cannot tell."""


DISAGREEMENT = "beyond the tolerance|Arrays are not equal"


@pytest.mark.parametrize("op", [op for op in strategies.ARGUMENTS if op != "augment"])
@given(data=st.data())
def test_the_formulas_accept_an_unchanged_backward(op, data):
    unchanged = with_backward(op, lambda gradients, *rest: gradients)
    checks.agree(unchanged, naive, data.draw(strategies.calls(op, integers)), np.float32)


@pytest.mark.parametrize(("op", "change"), SLOPES + KINKS)
def test_the_formulas_notice_a_wrong_backward(op, change):
    assert_disagreement(op, with_backward(op, change))


@pytest.mark.parametrize(("op", "change"), SLOPES)
def test_the_gradient_check_notices_a_wrong_backward(op, change):
    results = gradcheck(EVERY_KIND, with_backward(op, change))
    assert {result.kind for result in results if not result.ok} - {"network"} == {op}


@pytest.mark.parametrize(
    "architecture",
    [EVERY_KIND, *(ARCHITECTURES[name] for name in ("mini", "cifar-19pct", "cifar-18pct"))],
    ids=lambda architecture: architecture.name,
)
def test_the_gradient_check_accepts_the_reference(architecture):
    results = gradcheck(architecture, reference, seed=1)
    assert [result for result in results if not result.ok] == []
    checked = [result.tensor for result in results if result.layer == "network"]
    assert checked == list(parameter_shapes(architecture.rows))
    assert {result.layer for result in results} == {
        *(row.name for row in architecture.rows[1:]),
        "loss",
        "network",
    }


def test_the_gradient_check_notices_a_wrong_network():
    right = Network.backward

    def wrong(self, dlogits, tape):
        gradients = right(self, dlogits, tape)
        return gradients | {"conv1.bias": 1.01 * gradients["conv1.bias"]}

    with mock.patch.object(Network, "backward", wrong):
        results = gradcheck(EVERY_KIND, reference)
    assert [result.tensor for result in results if not result.ok] == ["conv1.bias"]


def mean_that_stays(images, mean, corner, flip, shift, size, scale):
    centred, _ = reference.augment(images, 0 * mean, corner, flip, shift, size, scale)
    return centred - scale * mean[:size, :size], None


def shift_before_the_scale_is_lost(images, mean, corner, flip, shift, size, scale):
    y, _ = reference.augment(images, mean, corner, flip, 0 * shift, size, scale)
    return y + shift[:, None, None], None


def window_one_short(x, n, *rest):
    return reference.lrn(x, max(1, n - 1), *rest)


def alpha_divided_by_n(x, n, k, alpha, *rest):
    return reference.lrn(x, n, k, alpha / n, *rest)


def window_begins_later(x, n, *rest):
    y, _ = reference.lrn_map(x[:, ::-1, ::-1], n, *rest)
    return y[:, ::-1, ::-1], reference.lrn_map(x, n, *rest)[1]


def without_the_maximum(logits, labels):
    _, cache = reference.softmax_cross_entropy(logits, labels)
    probs = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return -np.log(probs[np.arange(len(labels)), labels]).mean(), cache


@pytest.mark.parametrize(
    ("op", "wrong"),
    [
        ("augment", mean_that_stays),
        ("augment", shift_before_the_scale_is_lost),
        ("lrn", window_one_short),
        ("lrn", alpha_divided_by_n),
        ("lrn_map", window_begins_later),
        ("softmax_cross_entropy", without_the_maximum),
    ],
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_the_formulas_notice_a_wrong_forward(op, wrong):
    assert_disagreement(op, fusions.replaced(reference, **{op: wrong}))


def assert_disagreement(op, ops):
    @settings(
        max_examples=100,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        report_multiple_bugs=False,
    )
    @given(strategies.calls(op, integers) | strategies.calls(op, reals))
    def compare(call):
        checks.agree(ops, naive, call, np.float32)

    with pytest.raises(AssertionError, match=DISAGREEMENT):
        compare()


def test_the_formula_notices_a_wrong_update():
    def decay_without_the_rate(weights, gradients, velocities, rates, momentum, decays):
        decays = [
            decay / rate if rate else decay for decay, rate in zip(decays, rates, strict=True)
        ]
        reference.sgd_update(weights, gradients, velocities, rates, momentum, decays)

    @settings(database=None, derandomize=True, phases=[Phase.generate])
    @given(strategies.sgd_update(integers))
    def compare(arguments):
        wrong = fusions.replaced(reference, sgd_update=decay_without_the_rate)
        checks.agree_on_update(wrong, naive, arguments, integers, np.float32)

    with pytest.raises(AssertionError, match=DISAGREEMENT):
        compare()
