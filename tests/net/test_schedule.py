"""The learning-rate policies."""

from dataclasses import replace

import pytest

from tinyalex.net.layers import Parameter
from tinyalex.net.presets import Recipe
from tinyalex.net.schedule import coloured, factors, learning_rate

RECIPE = Recipe(epochs=90, lr=0.01, lr_gamma=0.1, lr_step_size=3, lr_patience=2)


def history(policy, errors):
    """The rate of every epoch, in powers of ten below the first, and where it fell."""
    recipe = replace(RECIPE, lr_scheduler=policy)
    rates = [learning_rate(recipe, errors[:epoch]) for epoch in range(len(errors) + 1)]
    for rate, drops in zip(rates, _drops(rates), strict=True):
        assert rate[0] == pytest.approx(0.01 * 0.1**drops)
    return _drops(rates)


def _drops(rates):
    """A reason is given in the epoch in which the rate falls, and in no other."""
    drops = [0]
    for _, reason in rates[1:]:
        drops.append(drops[-1] + bool(reason))
    return drops


def test_constant_stays():
    assert history("constant", [0.5] * 9) == [0] * 10


def test_step_falls_every_few_epochs():
    assert history("step", [0.5] * 7) == [0, 0, 0, 1, 1, 1, 2, 2]


@pytest.mark.parametrize(
    ("errors", "drops"),
    [
        ([], [0]),
        ([0.9, 0.8, 0.7, 0.6], [0, 0, 0, 0, 0]),
        ([0.9, 0.8, 0.8, 0.8, 0.7], [0, 0, 0, 0, 1, 1]),  # as good as the lowest is not better
        ([0.5, 0.9, 0.8, 0.7, 0.6], [0, 0, 0, 1, 1, 2]),  # falling, but never below the lowest
        ([0.5, 0.6, 0.4, 0.6, 0.6], [0, 0, 0, 0, 0, 1]),  # an improvement starts the wait anew
        ([0.5, float("nan"), float("nan")], [0, 0, 0, 1]),
    ],
)
def test_plateau_falls_when_the_error_stops_falling(errors, drops):
    assert history("plateau", errors) == drops


def test_plateau_says_why():
    recipe = replace(RECIPE, lr_scheduler="plateau")
    _, reason = learning_rate(recipe, [0.9, 0.407, 0.5, 0.45])
    assert reason == "2 epochs without an error below 0.407"
    assert learning_rate(recipe, [0.9, 0.407, 0.5, 0.45, 0.44])[1] == ""


def test_2012_was_steered_by_hand():
    """The notes at the end of the original layer-params-145.cfg: epsW and epsB, and the noise."""
    recipe = replace(RECIPE, lr_scheduler="2012")
    weight, bias = Parameter((2, 2)), Parameter((2,), bias=True)
    names = ["conv1.weight", "conv1.bias", "conv2.weight", "conv2.bias"]
    parameters = dict(zip(names, (weight, bias) * 2, strict=True))
    for epoch, *expected, noise in (
        (0, 1e-2, 2e-2, 1e-2, 2e-2, True),
        (24, 1e-2, 2e-2, 1e-2, 2e-2, True),
        (25, 1e-3, 2e-2, 1e-3, 2e-2, True),
        (51, 1e-4, 2e-2, 1e-4, 2e-2, True),
        (66, 1e-4, 2e-2, 1e-4, 2e-2, True),
        (67, 1e-5, 2e-2, 1e-4, 2e-2, False),
        (72, 0, 0, 1e-4, 2e-2, False),
        (79, 0, 0, 1e-5, 2e-2, False),
        (90, 0, 0, 1e-5, 2e-2, False),
    ):
        lr, reason = learning_rate(recipe, [0.5] * epoch)
        found = factors(recipe, epoch, parameters)
        multiplier = {"weight": 1, "bias": recipe.bias_lr_multiplier}
        rates = [lr * found.get(name, 1) * multiplier[name.partition(".")[2]] for name in names]
        assert rates == pytest.approx(expected)
        assert coloured(recipe, epoch) == noise
        assert bool(reason) == (epoch in (25, 51, 79))


def test_2012_tells_biases_by_what_they_are():
    """A layer's parameters may have other names, and only those that exist have a factor."""
    recipe = replace(RECIPE, lr_scheduler="2012")
    parameters = {
        "conv1.offset": Parameter((2,), bias=True),
        "conv1.filters": Parameter((2, 2)),
        "prelu1.slope": Parameter((2,)),
    }
    assert factors(recipe, 67, parameters) == pytest.approx(
        {"conv1.offset": 100, "conv1.filters": 0.1}
    )
    assert factors(recipe, 72, parameters) == {"conv1.offset": 0, "conv1.filters": 0}


@pytest.mark.parametrize("policy", ["constant", "step", "plateau"])
def test_other_policies_move_all_parameters_alike(policy):
    recipe = replace(RECIPE, lr_scheduler=policy)
    assert factors(recipe, 80, {"conv1.bias": Parameter((2,), bias=True)}) == {}
    assert coloured(recipe, 80)
