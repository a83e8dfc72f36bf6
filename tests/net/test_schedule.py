"""The learning-rate policies."""

import math
from dataclasses import replace

import pytest

from tinyalex.net.layers import Parameter
from tinyalex.net.presets import ARCHITECTURES, Recipe
from tinyalex.net.schedule import POLICIES, coloured, factors, learning_rate
from tinyalex.runs.config import Config

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
    recipe = replace(RECIPE, lr_scheduler="2012", lr_step_size=30)
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
    recipe = replace(RECIPE, lr_scheduler="2012", lr_step_size=30)
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


def falls(name, epochs, **settings):
    """The epochs at whose beginning the rate of a preset falls, by its own schedule."""
    preset = ARCHITECTURES[name]
    recipe = Config(epochs=epochs, **settings).resolved(preset).recipe
    rates = [learning_rate(recipe, [0.5] * epoch)[0] for epoch in range(epochs)]
    return [epoch for epoch in range(1, epochs) if rates[epoch] < rates[epoch - 1]]


@pytest.mark.parametrize(
    ("name", "own", "expected"),
    [
        ("mini", 6, [5]),
        ("cifar-18pct", 130, [120]),
        ("caffe", 90, [20, 40, 60, 80]),
        ("2012", 90, [25, 51, 79]),
        ("owt-2014", 90, [23, 46, 69]),
    ],
)
def test_a_schedule_falls_at_the_same_parts_of_any_length(name, own, expected):
    assert falls(name, own) == expected
    for epochs in (*range(1, 2 * own), 27, 300):
        later = {max(1, fall * epochs // own) for fall in expected}  # two may come together
        assert falls(name, epochs) == sorted(later - {epochs}), epochs


def test_falls_that_are_asked_for_stay_where_they_are():
    assert falls("mini", 20, lr_step_size=8) == [8, 16]
    assert falls("mini", 20, lr_step_size=6.7) == [6, 13]
    assert falls("mini", 6, lr_scheduler="2012") == [1, 3, 5]


def test_what_a_preset_does_at_its_own_length_is_what_its_table_says():
    for preset in ARCHITECTURES.values():
        assert Config().resolved(preset).recipe == preset.recipe


def test_cosine_ends_at_zero():
    recipe = replace(RECIPE, epochs=4, lr_scheduler="cosine")
    rates = [
        learning_rate(recipe, [0.5] * epoch, done)[0] for epoch in range(4) for done in (0, 0.5)
    ]
    expected = [0.005 * (1 + math.cos(math.pi * part / 8)) for part in range(8)]
    assert rates == pytest.approx(expected)
    assert learning_rate(recipe, [0.5] * 4)[0] == 0
    assert rates[0] == 0.01


@pytest.mark.parametrize("policy", POLICIES)
def test_a_warm_up_rises_to_the_rate_and_moves_no_fall(policy):
    errors, recipe = [0.9, 0.8, 0.5, 0.4, 0.3], replace(RECIPE, lr_scheduler=policy, epochs=12)
    warm = replace(recipe, warmup_epochs=2)
    rates = [learning_rate(warm, [0.5] * epoch, done)[0] for epoch in (0, 1) for done in (0, 0.5)]
    assert rates == pytest.approx([0.01 * (0.01 + 0.99 * part / 4) for part in range(4)])
    after = [learning_rate(warm, errors[:epoch]) for epoch in (2, 3, 4, 5)]
    if policy == "cosine":  # over what is left
        expected = [learning_rate(replace(recipe, epochs=10), errors[:epoch]) for epoch in range(4)]
    else:
        expected = [learning_rate(recipe, errors[:epoch]) for epoch in (2, 3, 4, 5)]
    assert after == expected


def test_the_epochs_of_a_warm_up_do_not_count_as_a_plateau():
    recipe = replace(RECIPE, lr_scheduler="plateau", warmup_epochs=3)
    assert learning_rate(recipe, [0.5, 0.9, 0.9])[0] == 0.01
    assert learning_rate(recipe, [0.5, 0.9, 0.9, 0.8, 0.8])[1] == ""
    assert learning_rate(recipe, [0.5, 0.9, 0.9, 0.8, 0.8, 0.8])[0] == pytest.approx(0.001)


def test_a_warm_up_longer_than_the_run_only_rises():
    recipe = replace(RECIPE, lr_scheduler="cosine", epochs=2, warmup_epochs=2)
    rates = [learning_rate(recipe, [0.5] * epoch)[0] for epoch in range(3)]
    assert rates == sorted(rates)
