"""What a step draws: the same every time, and distributed as the paper says."""

from dataclasses import replace

import numpy as np
import pytest

from tinyalex.net.draws import centre_draws, initial_parameters, ten_views, training_draws
from tinyalex.net.layers import Dropout, Linear
from tinyalex.net.presets import ARCHITECTURES, get_architecture

ALEXNET, MINI = ARCHITECTURES["alexnet"], ARCHITECTURES["mini"]
FEATURES = {row.name: row.features for row in MINI.rows if isinstance(row, Linear)}
COLOUR = np.array([[1.0, 2, 3], [0, 1, 4], [5, 6, 0]])


def drawn(architecture=MINI, count=4, colour=COLOUR, seed=0, epoch=0, batch=0):
    """All arrays of a step's draws, under their names."""
    draws = training_draws(architecture, count, colour, seed, epoch, batch)
    return {"corner": draws.corner, "flip": draws.flip, "shift": draws.shift, **draws.keep}


def with_dropout(rate):
    """`mini` with another dropout rate."""
    rows = [replace(row, rate=rate) if isinstance(row, Dropout) else row for row in MINI.rows]
    return replace(MINI, rows=tuple(rows))


def test_the_same_step_draws_the_same():
    first, _, again = drawn(batch=3), drawn(batch=4), drawn(batch=3)
    for name, array in first.items():
        np.testing.assert_array_equal(again[name], array)


@pytest.mark.parametrize("other", ["seed", "epoch", "batch"])
def test_another_step_draws_others(other):
    coloured = replace(MINI, rows=(replace(MINI.data, colour=0.1), *MINI.rows[1:]))
    first, second = drawn(coloured, count=64), drawn(coloured, count=64, **{other: 1})
    for name, array in first.items():
        assert (second[name] != array).any(), name


def test_seed_epoch_and_batch_are_not_mixed_up():
    steps = [drawn(**{one: 1, other: 2}) for one, other in _pairs("seed", "epoch", "batch")]
    assert len({step["drop6"].tobytes() for step in steps}) == len(steps)


def _pairs(*names):
    return [(one, other) for one in names for other in names if one != other]


def test_types_and_shapes():
    arrays = drawn(count=5)
    described = {name: (array.dtype, array.shape) for name, array in arrays.items()}
    assert described == {
        "corner": (np.int32, (5, 2)),
        "flip": (np.uint8, (5,)),
        "shift": (np.float32, (5, 3)),
        "drop6": (np.uint8, (5, FEATURES["fc6"])),
        "drop7": (np.uint8, (5, FEATURES["fc7"])),
    }


def test_crops_reach_every_offset_evenly():
    """227 of 256 pixels: 30 offsets each way."""
    corner = drawn(ALEXNET, count=3000)["corner"]
    counts = [np.bincount(axis, minlength=30) for axis in corner.T]
    assert [len(count) for count in counts] == [30, 30]
    assert all(50 < count < 160 for axis in counts for count in axis)  # 100 expected
    assert abs(np.corrcoef(corner.T)[0, 1]) < 0.1


def test_half_of_the_images_are_flipped():
    flip = drawn(count=4000)["flip"]
    assert set(flip) == {0, 1}
    assert 0.45 < flip.mean() < 0.55
    assert not drawn(ARCHITECTURES["cifar-19pct"], count=100)["flip"].any()


def test_colours_shift_along_the_components():
    shift = drawn(ALEXNET, count=20_000)["shift"]
    np.testing.assert_allclose(np.cov(shift.T), 0.1**2 * COLOUR @ COLOUR.T, atol=0.02)
    np.testing.assert_allclose(shift.mean(0), 0, atol=0.02)
    assert not drawn(MINI)["shift"].any()


def test_without_colour_all_else_is_drawn_alike():
    step = (ALEXNET, 50, COLOUR, 0, 0, 0)
    on, off = training_draws(*step), training_draws(*step, coloured=False)
    assert on.shift.any()
    assert not off.shift.any()
    np.testing.assert_array_equal(on.corner, off.corner)
    np.testing.assert_array_equal(on.keep["drop7"], off.keep["drop7"])


def test_centre_crops_alone_leave_all_else_as_it_is():
    fixed = training_draws(get_architecture("alexnet+no-augmentation"), 50, COLOUR, 0, 0, 0)
    np.testing.assert_array_equal(fixed.corner, [[14, 14]] * 50)
    assert not fixed.flip.any()
    usual = training_draws(ALEXNET, 50, COLOUR, 0, 0, 0)
    np.testing.assert_array_equal(fixed.shift, usual.shift)


@pytest.mark.parametrize("rate", [0.5, 0.2])
def test_masks_drop_their_rate(rate):
    arrays = drawn(with_dropout(rate), count=400)
    for name in ("drop6", "drop7"):
        assert set(np.unique(arrays[name])) == {0, 1}
        assert abs(arrays[name].mean() - (1 - rate)) < 0.01
    same = arrays["drop6"] == arrays["drop7"]
    assert abs(same.mean() - (rate**2 + (1 - rate) ** 2)) < 0.01  # as independent masks agree


def test_evaluation_draws_nothing():
    draws = centre_draws(ALEXNET.data, 3)
    np.testing.assert_array_equal(draws.corner, [[14, 14]] * 3)
    assert not draws.flip.any()
    assert not draws.shift.any()
    assert not draws.keep
    assert not draws.training


def test_the_draws_of_some_images_are_theirs_and_say_what_they_are_for():
    whole = training_draws(MINI, 5, COLOUR, 0, 0, 0)
    some = whole.of(slice(1, 3))
    assert whole.training
    assert some.training
    assert not centre_draws(MINI.data, 5).of(slice(1, 3)).training
    for name in ("corner", "flip", "shift"):
        np.testing.assert_array_equal(getattr(some, name), getattr(whole, name)[1:3])
    for name, mask in whole.keep.items():
        np.testing.assert_array_equal(some.keep[name], mask[1:3])


def test_ten_views_are_five_places_and_their_mirror_images():
    views = ten_views(ALEXNET.data, 2)
    seen = {(*map(int, view.corner[0]), int(view.flip[0])) for view in views}
    places = [(0, 0), (0, 29), (14, 14), (29, 0), (29, 29)]
    assert seen == {(*place, flip) for place in places for flip in (0, 1)}
    assert len(views) == 10
    for view in views:
        assert (view.corner == view.corner[0]).all()
        assert not view.keep
        assert not view.training


def test_initial_parameters_are_as_the_table_says():
    parameters = initial_parameters(MINI, seed=1)
    for row in MINI.rows:
        if f"{row.name}.weight" in parameters:
            weight, bias = parameters[f"{row.name}.weight"], parameters[f"{row.name}.bias"]
            assert weight.dtype == bias.dtype == np.float32
            assert abs(weight.std() / row.init_std - 1) < 0.1
            assert abs(weight.mean()) < 0.1 * row.init_std
            assert (bias == row.bias).all()


def test_initial_parameters_depend_on_the_seed_alone_and_differ_by_layer():
    first, again, other = (initial_parameters(MINI, seed) for seed in (1, 1, 2))
    for name, value in first.items():
        np.testing.assert_array_equal(again[name], value)
        assert name.endswith("bias") or (other[name] != value).any()
    fc6, fc7 = first["fc6.weight"].ravel(), first["fc7.weight"].ravel()
    assert (fc6[:100] != fc7[:100]).any()


def test_another_number_of_classes_leaves_the_other_layers_their_weights():
    ten, seven = initial_parameters(MINI, 0), initial_parameters(MINI.with_classes(7), 0)
    assert seven["fc8.weight"].shape == (7, FEATURES["fc7"])
    for name in ten.keys() - {"fc8.weight", "fc8.bias"}:
        np.testing.assert_array_equal(seven[name], ten[name])
