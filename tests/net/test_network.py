"""A network as a whole: its steps and fusions, evaluation mode, and what it says when it breaks."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from fusions import replaced

from tinyalex import reference
from tinyalex.errors import DataError, DivergedError
from tinyalex.measure.evaluate import evaluate, interval, probabilities, rank_of_label, softmax
from tinyalex.measure.image_signal import image_signal
from tinyalex.net.draws import centre_draws, initial_parameters, training_draws
from tinyalex.net.layers import Dropout
from tinyalex.net.network import Network, first_not_finite, outputs, plan
from tinyalex.net.presets import Architecture, get_architecture
from tinyalex.net.step import loss_and_gradients


@pytest.fixture
def mini():
    return get_architecture("mini")


@pytest.fixture
def images():
    return np.random.default_rng(5).integers(0, 256, (6, 32, 32, 3), np.uint8)


def network(architecture, ops=reference, freeze=None):
    parameters = initial_parameters(architecture, 3)
    return Network(architecture, ops, parameters, np.full((32, 32, 3), 120, np.float32), freeze)


@pytest.mark.parametrize("crops", [1, 10])
def test_networks_averaged_see_each_its_own_crops(mini, images, crops):
    """mini crops 28 of 32 pixels, cifar-18pct takes all 32."""
    networks = [network(mini), network(get_architecture("cifar-18pct"))]
    alone = [probabilities([each], images, crops) for each in networks]
    for chosen in (networks, networks[::-1]):
        both = probabilities(chosen, images, crops)
        np.testing.assert_allclose(both, (alone[0] + alone[1]) / 2, rtol=1e-12)


def test_training_does_not_touch_the_arrays_that_were_handed_in(mini):
    parameters = initial_parameters(mini, 3)
    ours = Network(mini, reference, parameters, np.zeros((32, 32, 3), np.float32))
    ours.parameters["conv1.weight"] += 1
    assert np.array_equal(parameters["conv1.weight"], initial_parameters(mini, 3)["conv1.weight"])


def fused_reference():
    """The reference with fusions made of its own functions, and a list of those that were used."""
    used = []

    def conv2d_relu(x, *arguments):
        used.append("conv2d_relu")
        y, below = reference.conv2d(x, *arguments)
        y, above = reference.relu(y)
        return y, (below, above)

    def conv2d_relu_backward(dy, cache, need_dx=True):
        below, above = cache
        return reference.conv2d_backward(reference.relu_backward(dy, above), below, need_dx)

    def augment_conv2d_relu(images, *arguments):
        used.append("augment_conv2d_relu")
        x, _ = reference.augment(images, *arguments[:6])
        return conv2d_relu(x, *arguments[6:])

    def linear_relu_dropout(x, w, b, keep, scale):
        used.append("linear_relu_dropout")
        y, first = reference.linear(x, w, b)
        y, second = reference.relu(y)
        y, third = reference.dropout(y, keep, scale)
        return y, (first, second, third)

    def linear_relu_dropout_backward(dy, cache):
        first, second, third = cache
        dy = reference.relu_backward(reference.dropout_backward(dy, third), second)
        return reference.linear_backward(dy, first)

    fusions = {
        ("conv2d", "relu"): (conv2d_relu, conv2d_relu_backward),
        ("augment", "conv2d", "relu"): (augment_conv2d_relu, conv2d_relu_backward),
        ("linear", "relu", "dropout"): (linear_relu_dropout, linear_relu_dropout_backward),
    }
    return replaced(reference, fusions=fusions), used


def test_the_longest_fusion_is_taken_and_changes_nothing(mini, images):
    ops, used = fused_reference()
    draws = training_draws(mini, len(images), np.eye(3), 0, 0, 0)
    plain, fused = network(mini), network(mini, ops)
    logits, tape = plain.forward(images, draws)
    fused_logits, fused_tape = fused.forward(images, draws)
    assert np.array_equal(logits, fused_logits)
    assert used[0] == "augment_conv2d_relu"
    assert used.count("linear_relu_dropout") == 2
    dlogits = np.random.default_rng(0).standard_normal(logits.shape).astype(np.float32)
    gradients, fused_gradients = plain.backward(dlogits, tape), fused.backward(dlogits, fused_tape)
    assert gradients.keys() == fused_gradients.keys() == plain.parameters.keys()
    for name, value in gradients.items():
        assert np.array_equal(value, fused_gradients[name]), name


def test_a_plan_has_every_row_once_and_in_order(mini):
    ops, _ = fused_reference()
    rows = [row for stage in plan(mini.rows, ops) for row in stage.rows]
    assert rows == list(mini.rows)


@pytest.mark.parametrize("fused", [False, True])
def test_frozen_rows_change_no_gradient_above_them(fused, mini, images):
    ops = fused_reference()[0] if fused else reference
    draws = training_draws(mini, len(images), np.eye(3), 0, 0, 0)
    labels = np.arange(len(images), dtype=np.int32)
    whole, frozen = network(mini), network(mini, ops, freeze="conv3")
    step, expected = loss_and_gradients(whole, images, labels, draws)
    (name, features), *_ = outputs(frozen, images, ["relu3"], draws)
    assert name == mini.rows[frozen.frozen - 1].name
    for given in (images, features):
        same, gradients = loss_and_gradients(frozen, given, labels, draws)
        assert np.array_equal(same.logits, step.logits)
        assert gradients.keys() == {n for n in expected if n > "conv4"}
        for name, value in gradients.items():
            assert np.array_equal(value, expected[name]), name
        assert first_not_finite(frozen, given, draws) == "the loss"
        assert list(image_signal(frozen, given))[-1] == "fc8"


def test_frozen_neurons_are_not_dropped(mini, images):
    draws = training_draws(mini, len(images), np.eye(3), 0, 0, 0)
    frozen = network(mini, freeze="drop6")
    keep, scale = frozen.arguments(next(r for r in mini.rows if r.name == "drop6"), draws)
    assert (keep, scale) == (None, 0.5)
    keep, scale = frozen.arguments(next(r for r in mini.rows if r.name == "drop7"), draws)
    assert (keep.shape, scale) == ((len(images), 128), 1)
    assert frozen.architecture.rows[frozen.frozen].name == "fc7"


@pytest.mark.parametrize(
    ("scale_at", "training", "testing"), [("test", 1, 0.7), ("train", 1 / 0.7, 1)]
)
def test_dropout_is_scaled_where_the_row_says(scale_at, training, testing, mini):
    row = Dropout("drop6", 0.3, scale_at)
    rows = tuple(row if r.name == "drop6" else r for r in mini.rows)
    ours = network(replace(mini, rows=rows))
    draws = training_draws(ours.architecture, 2, np.eye(3), 0, 0, 0)
    keep, scale = ours.arguments(row, draws)
    assert scale == pytest.approx(training)
    assert set(np.unique(keep)) == {0, 1}
    assert ours.arguments(row, centre_draws(mini.data, 2)) == (None, pytest.approx(testing))


def test_coloured_images_are_scaled_further(mini, images):
    row = replace(mini.data, scale=0.5, train_scale=0.25)
    ours = network(replace(mini, rows=(row, *mini.rows[1:])))
    draws = training_draws(ours.architecture, 6, np.eye(3), 0, 0, 0)
    for drawn, scale in ((draws, 0.125), (draws.of(slice(2)), 0.125)):
        assert ours.arguments(row, drawn)[-1] == scale
    assert ours.arguments(row, centre_draws(row, 6))[-1] == 0.5
    plain = training_draws(ours.architecture, 6, np.eye(3), 0, 0, 0, coloured=False)
    assert ours.arguments(row, plain)[-1] == 0.5


def test_the_first_tensor_that_is_not_finite_is_named(mini, images):
    ours = network(mini)
    draws = centre_draws(mini.data, len(images))
    assert first_not_finite(ours, images, draws) == "the loss"
    ours.parameters["conv4.bias"][:] = 3e38
    ours.parameters["conv5.weight"][:] = 3
    with np.errstate(all="ignore"):
        assert first_not_finite(ours, images, draws) == "the output of conv5"
    ours.parameters["fc7.weight"][0, 0] = np.nan
    assert first_not_finite(ours, images, draws) == "the parameter fc7.weight"
    with np.errstate(all="ignore"), pytest.raises(DivergedError):
        probabilities([ours], images)


def test_ten_views_and_several_networks_are_averaged(mini, images):
    one, two = network(mini), network(mini)
    two.parameters["fc8.bias"] += np.arange(10, dtype=np.float32)
    both = probabilities([one, two], images)
    assert np.allclose(both, (probabilities([one], images) + probabilities([two], images)) / 2)
    assert np.allclose(both.sum(1), 1)
    ten = probabilities([two], images, crops=10)
    mirrored = probabilities([two], images[:, :, ::-1], crops=10)
    assert np.allclose(ten, mirrored)  # the views of a mirror image are the same ten
    assert not np.allclose(ten, probabilities([two], images))


def test_evaluate_counts_errors_and_loss(mini, images):
    ours = network(mini)
    probs = probabilities([ours], images)
    order = np.argsort(-probs, axis=1)
    labels = np.array(
        [order[0, 0], order[1, 1], order[2, 4], order[3, 5], order[4, 9], order[5, 0]]
    )
    split = SimpleNamespace(
        labels=labels.astype(np.int32), names=[""] * 6, read=lambda i: images[i]
    )
    done = []
    scores = evaluate([ours], split, 4, workers=0, after_batch=lambda *both: done.append(both))
    assert (scores.images, scores.top1_error, scores.top5_error) == (6, 4 / 6, 2 / 6)
    assert scores.loss == pytest.approx(-np.log(probs[np.arange(6), labels]).mean())
    assert [len(some) for some, _ in done] == [4, 2]
    for both, whole in zip(zip(*done, strict=True), (labels, probs), strict=True):
        np.testing.assert_allclose(np.concatenate(both), whole, rtol=1e-5)


def test_no_images_have_no_error(mini):
    """As when the only one is bad and left out."""
    with pytest.raises(DataError, match="no image"):
        evaluate(
            [network(mini)], SimpleNamespace(labels=np.zeros(0, np.int32), names=[]), 4, workers=0
        )


def test_equal_scores_rank_by_index():
    scores = np.array([[1.0, 1.0, 1.0], [0.0, 2.0, 2.0], [5.0, 1.0, 5.0]])
    assert rank_of_label(scores, np.array([2, 1, 0])).tolist() == [2, 0, 0]


def test_softmax_survives_large_logits():
    probs = softmax(np.array([[1e4, 1e4 - 1], [-1e4, 1e4]], np.float32))
    assert probs[0] == pytest.approx([1 / (1 + np.exp(-1)), 1 / (1 + np.e)])
    assert probs[1] == pytest.approx([0, 1])


def test_wilsons_interval():
    # Figures worked out by hand from Wilson's formula: 10 of 100, and the two ends.
    assert interval(0.1, 100) == pytest.approx((0.0552, 0.1744), abs=1e-4)
    assert interval(0.0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)
    assert interval(1.0, 10) == pytest.approx((0.7225, 1.0), abs=1e-4)


def test_another_number_of_classes_changes_the_last_layer_only(mini):
    other = mini.with_classes(7)
    assert isinstance(other, Architecture)
    assert (other.classes, mini.classes) == (7, 10)
    assert other.rows[:-1] == mini.rows[:-1]
