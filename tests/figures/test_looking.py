"""What is read out of a trained network: held against brute force, and as a user meets it."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from read_back import pixels, texts
from runs import pictures, refused

from tinyalex import reference, reproduce
from tinyalex.cli.parser import main
from tinyalex.data import batches, open_data
from tinyalex.figures import unit_figures
from tinyalex.figures.unit_figures import Block
from tinyalex.measure import evaluate, neighbors, units
from tinyalex.measure.evaluate import Scores, confusion, probabilities
from tinyalex.measure.units import Field, Responses, Strip
from tinyalex.net.draws import centre_draws, initial_parameters
from tinyalex.net.layers import Augment, AvgPool, Conv2d, Linear, LRNMap
from tinyalex.net.network import Network, activations
from tinyalex.net.presets import get_architecture
from tinyalex.reproduce import figures, training
from tinyalex.reproduce.experiment import Experiment, Request, Spread
from tinyalex.reproduce.looking import purity_in_words, towers_in_words
from tinyalex.reproduce.views import in_words
from tinyalex.runs.weights import load_networks

pytestmark = pytest.mark.xdist_group("looking")  # at one run

EXPERIMENTS = ("maps", "filters", "predictions", "neighbors", "views")
CONVS = ("conv1", "conv2", "conv3", "conv4", "conv5")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Noise in three classes: 12 pictures to train on and 4 to validate, a class."""
    return pictures(tmp_path_factory.mktemp("photos"), 12, 4)


@pytest.fixture(scope="module")
def held_out(tmp_path_factory):
    """Noise without a validation folder."""
    return pictures(tmp_path_factory.mktemp("held-out"), 12, 0)


@pytest.fixture(scope="module")
def run(photos, tmp_path_factory):
    """A finished run of `mini` on the photos."""
    folder = tmp_path_factory.mktemp("run")
    argv = ["train", "--data", str(photos), "--arch", "mini", "-b", "12", "--epochs", "1"]
    assert main([*argv, "--output-dir", str(folder)]) == 0
    return folder


@pytest.fixture
def network(run):
    return load_networks([str(run)])[1][0]


def result(folder, name):
    """result.json, once the other files are seen to be there."""
    assert sorted(p.name for p in (folder / name).iterdir()) == [
        "figure.png",
        "result.json",
        "table.md",
    ]
    with Image.open(folder / name / "figure.png") as picture:
        assert min(picture.size) > 300
    return json.loads((folder / name / "result.json").read_text())


def looked(name, run, folder, *flags):
    """The result of `reproduce NAME --run RUN`."""
    argv = ["reproduce", name, "--run", str(run), "--output-dir", str(folder), *flags]
    assert main(argv) == 0
    return result(folder, name)


# Units


ODD = (
    Augment("data", size=28, image_size=28),
    Conv2d("conv1", 2, size=4, stride=2, pad=1, ceil=True),
    LRNMap("norm1", n=3, k=1, alpha=1e-4, beta=0.75),
    AvgPool("pool1", 3, 2, ceil=True),
    Conv2d("conv2", 2, size=3, pad=2),
    Linear("fc3", 2),
)


@pytest.mark.parametrize(
    ("rows", "names", "level"),
    [(get_architecture("mini").rows, CONVS, 0), (ODD, ("conv1", "norm1", "conv2"), 50)],
    ids=["mini", "odd"],
)
def test_receptive_field_is_where_a_pixel_changes_a_unit(rows, names, level):
    """All weights are 1. Row r of image r is lighter; which rows of a map change by that?

    Where a pixel acts only through a normalisation, there must be something to normalise.
    """
    architecture = replace(get_architecture("mini"), rows=rows)
    data = architecture.data
    border = (data.image_size - data.size) // 2
    weights = initial_parameters(architecture, 0)
    ones = {name: np.full_like(w, name.endswith("weight")) for name, w in weights.items()}
    mean = np.zeros((data.image_size, data.image_size, 3), np.float32)
    images = np.full((data.size + 1, data.image_size, data.image_size, 3), level, np.uint8)
    for r in range(data.size):
        images[r, border + r] = 255
    draws = centre_draws(data, len(images))
    seen = set()
    for row, y in activations(Network(architecture, reference, ones, mean), images, draws):
        if row.name in names:
            field = units.receptive_field(rows, row.name)
            change = np.abs(y[:-1] - y[-1]).max(axis=(2, 3))  # (r, row of the map)
            expected = [
                [0 <= r - field.start - field.stride * i < field.size for i in range(y.shape[1])]
                for r in range(data.size)
            ]
            np.testing.assert_array_equal(change > 1e-6 * y.max(), expected, row.name)
            seen.add(row.name)
    assert seen == set(names)


def test_receptive_fields_of_alexnet():
    rows = get_architecture("alexnet").rows
    found = [units.receptive_field(rows, name) for name in CONVS]
    assert [f.size for f in found] == [11, 51, 99, 131, 163]
    assert [f.stride for f in found] == [4, 8, 16, 16, 16]
    with pytest.raises(ValueError, match="conv6"):
        units.receptive_field(rows, "conv6")


def test_a_patch_is_cut_out_of_the_centre_crop_and_grey_beyond():
    data = Augment("data", size=9, image_size=14)  # the crop begins at 2
    image = np.random.default_rng(0).integers(0, 200, (14, 14, 3), np.uint8)
    field = Field(size=5, stride=3, start=-2)
    for row, column in ((0, 0), (1, 2), (3, 1)):
        found = units.patch(image, data, field, row, column)
        assert found.shape == (5, 5, 3)
        for y in range(5):
            for x in range(5):
                r, c = 3 * row - 2 + y, 3 * column - 2 + x
                inside = 0 <= r < 9 and 0 <= c < 9
                expected = image[r + 2, c + 2] if inside else units.OUTSIDE
                assert (found[y, x] == expected).all()
    whole = units.patch(image, data, Field(10, 3, -2), 1, 1)
    np.testing.assert_array_equal(whole, image[2:11, 2:11])


def test_responses_are_the_largest_of_each_map_and_where_it_is(network, photos):
    split = open_data(str(photos), 32, seed=0).train
    indices = np.array([3, 30, 17])
    found = units.responses(network, split, indices, ["conv2", "conv4"], workers=0)
    images = np.stack([split.read(i) for i in indices])
    for row, y in activations(network, images, centre_draws(network.architecture.data, 3)):
        if row.name in found:
            value, rows, columns = found.pop(row.name)
            np.testing.assert_allclose(value, y.max((1, 2)), rtol=1e-5)
            for i, unit in np.ndindex(value.shape):
                place = y[i, rows[i, unit], columns[i, unit], unit]
                assert place == pytest.approx(value[i, unit], rel=1e-5)
    assert not found


def responses_of(value):
    value = np.array(value, np.float32)
    return Responses(value, np.zeros(value.shape, int), np.zeros(value.shape, int))


def test_units_and_images_are_chosen_by_the_strongest_response():
    found = responses_of([[1, 5, -1, 0, 2, 7], [3, 4, -2, 9, 2, -7], [3, 0, -3, 1, 2, -8]])
    assert units.most_excited(found, 2, 2) == [[1, 0], [3, 5]]
    assert units.most_excited(found, 1, 9) == [[3, 5, 1, 0, 4]]  # the third is never excited
    assert units.strongest_images(found, 0).tolist() == [1, 2, 0]
    assert units.strongest_images(found, 5).tolist() == [0]
    np.testing.assert_allclose(units.excited(found), [1, 2 / 3, 0, 2 / 3, 1, 1 / 3])


def test_purity_is_the_share_of_the_commonest_class():
    labels = np.array([0, 1] * 5, np.int32)
    value = np.stack([10 - np.arange(10), 10 * labels + 1, 5 - np.arange(10)], 1)
    # The first unit's eight are four of each; the second's five of class 1 and three of class 0;
    # the third is excited by five images only.
    assert units.purity(responses_of(value), labels) == pytest.approx((4 / 8 + 5 / 8) / 2)
    assert units.purity(responses_of(value[:, 2:]), labels) is None
    assert units.purity_by_chance(np.zeros(20, np.int32)) == 1
    many = units.purity_by_chance(np.arange(4000, dtype=np.int32) % 2)
    fair = [max(k, 8 - k) / 8 * math.comb(8, k) / 2**8 for k in range(9)]
    assert many == pytest.approx(sum(fair), abs=0.01)


def test_colour_specificity():
    grey = np.random.default_rng(0).normal(size=(5, 5, 1)).repeat(3, 2)
    opposed = grey * [1, -0.5, -0.5]
    one, two = grey * [0, 1, 0], grey * [1, 0, 1]
    weight = np.stack([grey, opposed, one, two, 0 * grey, grey * 1e-20])
    expected = [0, 1, 2 / 3, 1 / 3, 0, 0]
    np.testing.assert_allclose(units.colour_specificity(weight), expected, atol=1e-12)
    random = np.random.default_rng(1).normal(size=(400, 5, 5, 3)).astype(np.float32)
    found = units.colour_specificity(random)
    assert found.mean() == pytest.approx(2 / 3, abs=0.01)
    w = random[0].astype(np.float64)
    common = w @ np.full((3, 3), 1 / 3)  # its part along grey
    assert found[0] == pytest.approx(((w - common) ** 2).sum() / (w**2).sum())


# Neighbours


def test_nearest_are_those_of_a_search_through_all():
    rng = np.random.default_rng(0)
    queries, points = rng.integers(0, 4, (20, 3)), rng.integers(0, 4, (40, 3))  # with many ties
    found = neighbors.nearest(queries.astype(float), points.astype(float))
    for query, row in zip(queries, found, strict=True):
        distance = [((query - p) ** 2).sum() for p in points]
        assert row.tolist() == sorted(range(40), key=lambda i: (distance[i], i))[:6]


def test_a_sample_is_drawn_without_regard_to_order():
    assert neighbors.sample(5, 9).tolist() == list(range(5))
    found = neighbors.sample(5000, 500)
    assert len(set(found.tolist())) == 500
    assert (np.diff(found) > 0).all()
    # Classes that take turns, as those of the built-in images, must not be drawn unevenly.
    assert np.bincount(found % 10).min() > 30
    assert neighbors.sample(5000, 500).tolist() == found.tolist()


def test_features_are_what_the_last_layer_reads_and_what_the_eye_sees(network, photos):
    split = open_data(str(photos), 32, seed=0).train
    indices = np.array([5, 0, 20])
    found = neighbors.features(network, split, indices, workers=0)
    images = np.stack([split.read(i) for i in indices])
    logits, _ = network.forward(images, centre_draws(network.architecture.data, 3))
    w, b = (network.parameters[f"fc8.{part}"] for part in ("weight", "bias"))
    np.testing.assert_allclose(found[neighbors.LAYER] @ w.T + b, logits, rtol=1e-4, atol=1e-6)
    crop = images[:, 2:30, 2:30].reshape(3, -1)
    np.testing.assert_array_equal(found[neighbors.PIXELS], crop)


def test_thumbnails_are_means_of_squares():
    images = np.random.default_rng(0).integers(0, 256, (2, 100, 100, 3), np.uint8)
    found = neighbors.thumbnails(images, Augment("data", size=98, image_size=100))
    assert found.shape == (2, 32, 32, 3)  # of squares of 3: the last two rows and columns fall away
    for n, y, x, c in ((0, 0, 0, 0), (1, 31, 7, 2), (1, 5, 31, 1)):
        square = images[n, 1 + 3 * y : 4 + 3 * y, 1 + 3 * x : 4 + 3 * x, c]
        assert found[n, y, x, c] == pytest.approx(square.mean())


def test_neighbours_of_the_same_class_are_counted(network, photos):
    dataset = open_data(str(photos), 32, seed=0)
    found = neighbors.neighbors(network, dataset, workers=0)
    layer = [
        neighbors.features(network, split, np.arange(len(split.labels)), 0)[neighbors.LAYER]
        for split in (dataset.val, dataset.train)
    ]
    same = 0
    for query, label, row in zip(
        layer[0], dataset.val.labels, found.nearest[neighbors.LAYER], strict=True
    ):
        distance = np.linalg.norm(layer[1] - query, axis=1)
        assert sorted(distance[row]) == pytest.approx(sorted(distance)[:6])
        same += (dataset.train.labels[row] == label).sum()
    assert found.same_class(dataset, neighbors.LAYER).sum() == same
    assert found.chance(dataset) == pytest.approx(1 / 3)


# Confusion


def test_confusion_counts_each_image_once(network, photos):
    split = open_data(str(photos), 32, seed=0).val
    expected = np.zeros((3, 3), int)
    for i, label in enumerate(split.labels):
        answer = probabilities([network], split.read(i)[None])[0].argmax()
        expected[label, answer] += 1
    np.testing.assert_array_equal(confusion([network], split, 5, workers=0), expected)


def test_the_worst_pairs_have_the_largest_share_of_their_class():
    counts = np.array([[9, 1, 0], [30, 60, 10], [0, 0, 0]])
    assert unit_figures.worst(counts, 9) == [(1, 0), (0, 1), (1, 2)]
    assert unit_figures.worst(counts, 1) == [(1, 0)]
    assert unit_figures.worst(np.eye(3, dtype=int), 9) == []


@pytest.mark.parametrize("classes", [2, 20, 21, 700])
@pytest.mark.slow
def test_confusion_of_any_number_of_classes(classes, tmp_path):
    counts = np.random.default_rng(0).integers(0, 3, (classes, classes))
    counts += 90 * np.eye(classes, dtype=int)
    counts[1, 0] = 5000
    titles = ["W" * 50, *(f"a class of number {i}" for i in range(1, classes))]
    figure = unit_figures.confusion(counts, titles, "a title", "how it was made")
    pixels(figure, tmp_path)
    found = texts(figure)
    assert {"a title", "how it was made"} <= set(found)
    assert any(text.startswith("5,000 of 5,") for text in found)
    assert ("5,000" in found) == (classes <= 20)
    apart(figure)


def apart(figure):
    """No two texts overlap."""
    figure.draw_without_rendering()
    extents = [text.get_window_extent() for text in figure.texts]
    pairs = ((a, b) for i, a in enumerate(extents) for b in extents[:i])
    assert not any(a.overlaps(b) for a, b in pairs)


def test_a_share_is_dark_and_a_block_has_its_darkest(tmp_path):
    counts = np.zeros((700, 700), int)
    counts[0, 1] = counts[699, 698] = 1
    picture = pixels(unit_figures.confusion(counts, ["x"] * 700, "", ""), tmp_path)
    y, x = np.nonzero((picture == (0x1F, 0x4E, 0x79)).all(2))
    assert len(y) == 2  # of 350 x 350 blocks of 2 x 2, the first and the last
    assert (y[1] - y[0], x[1] - x[0]) == (349, 349)


# Pictures


@pytest.mark.parametrize("towers", [1, 2])
def test_patches_stand_in_their_layer_and_tower(towers, tmp_path):
    colours = [(200, 0, 0), (0, 200, 0), (0, 0, 200), (200, 200, 0)]
    strips = [Strip(7 * i, [np.full((3, 3, 3), c, np.uint8)] * 2) for i, c in enumerate(colours)]
    both = [strips[:2], strips[2:]] if towers == 2 else [strips]
    silent = Block("conv2", 5, [[]] * towers)
    figure = unit_figures.patches([Block("conv1", 3, both), silent], "a title", "how")
    picture = pixels(figure, tmp_path)
    boxes = []
    for colour in colours:
        y, x = np.nonzero((picture == colour).all(2))
        assert len(y) == 2 * 64 * 64
        boxes.append((x.min(), y.min()))
    assert boxes[0][0] == boxes[1][0] < boxes[2][0] == boxes[3][0]
    assert boxes[0][1] == boxes[2][1] < boxes[1][1] == boxes[3][1]
    found = texts(figure)
    assert {"conv1", "conv2", "3 x 3", "0", "7", "14", "21"} <= set(found)
    assert ("tower b" in found) == (towers == 2)
    apart(figure)


def test_patches_of_any_size_are_printed_at_one(tmp_path):
    for size in (1, 28, 163):
        strip = Strip(0, [np.full((size, size, 3), 99, np.uint8)])
        picture = pixels(unit_figures.patches([Block("conv1", size, [[strip]])], "", ""), tmp_path)
        assert (picture == 99).all(2).sum() == 64 * 64


def test_neighbours_of_another_class_are_in_italics(tmp_path):
    images = np.zeros((2, 7, 40, 40, 3), np.uint8)
    names = [["ant"] * 7, ["bee"] * 6 + ["a very long name of a class"]]
    figure = unit_figures.neighbors(images, names, "a title", "how")
    pixels(figure, tmp_path)
    italic = [t.get_text() for t in figure.texts if t.get_fontstyle() == "italic"]
    assert len(italic) == 1
    assert italic[0].startswith("a very")
    assert italic[0].endswith("…")
    apart(figure)


def test_intervals_stand_beside_their_labels(tmp_path):
    errors = {
        "one network, 1 view": [(0.6109, 0.6, 0.62), (0, 0, 0.002)],
        "10 networks averaged, 10 views": [(0.5, 0.49, 0.51), (0.1, 0.09, 0.12)],
    }
    figure = figures.intervals(errors, ("Top-1", "Top-5"), "a title", "how")
    pixels(figure, tmp_path)
    assert {*errors, "Top-1", "Top-5", "61.09 %", "10.00 %"} <= set(texts(figure))
    apart(figure)
    left, right = figure.axes
    assert [list(line.get_xdata()) for line in right.lines] == [[0, 0.2], [0], [9, 12], [10]]
    assert left.lines[0].get_ydata()[0] == 0


# Words


def test_towers_specialise_only_beyond_chance():
    clear = Spread((0.1, 0.12, 0.14)), Spread((0.8, 0.82, 0.84))
    vague = Spread((0.1, 0.5, 0.9)), Spread((0.2, 0.6, 1.0))
    assert towers_in_words([clear]).startswith("Tower b is more colour-specific, beyond chance")
    assert towers_in_words([clear[::-1]]).startswith("Tower a is more")
    assert "do not specialise" in towers_in_words([vague])
    both = towers_in_words([clear, vague])
    assert "In run 1 tower b" in both
    assert "in run 2 the towers do not" in both
    assert "no towers" in towers_in_words([[clear[0]]])


def test_purity_in_words():
    assert "81 % in conv5" in purity_in_words({"conv1": 0.3, "conv5": 0.81}, 0.3)
    assert "answer to classes" in purity_in_words({"conv1": 0.3, "conv5": 0.81}, 0.3)
    assert "cannot be seen" in purity_in_words({"conv1": 0.3, "conv5": 0.34}, 0.3)
    assert "30 % are of one class in conv1; by" in purity_in_words({"conv1": 0.3, "conv5": None}, 0)
    assert purity_in_words({"conv1": None}, 0.3) == "No unit is excited by 8 images."


# The command


@pytest.mark.slow
def test_each_experiment_looks_at_a_run(run, photos, tmp_path):
    maps = looked("maps", run, tmp_path)
    assert [row[:3] for row in maps["rows"]][::4] == [
        ["conv1", "5 x 5", "24"],
        ["conv5", "43 x 43", "32"],
    ]
    assert maps["setting"].startswith("mini on ")
    assert ", 1 epoch, 1 seed, " in maps["setting"]
    assert maps["setting"].endswith("; 12 validation images")
    alone = looked("maps", run, tmp_path, "--layer", "conv3")
    assert [row[0] for row in alone["rows"]] == ["conv3"]
    for looked_at, layer, count in ((maps, "conv1", 2), (alone, "conv3", 8)):
        assert [len(tower) for tower in looked_at["units"][layer]] == [count, count]

    filters = looked("filters", run, tmp_path)
    weight = np.load(run / "best.npz")["parameter/conv1.weight"]
    scores = units.colour_specificity(weight)
    np.testing.assert_allclose(np.ravel(filters["colour_specificity"]), scores)
    assert [row[2] for row in filters["rows"]] == [
        f"{half.mean():.2f}" for half in (scores[:12], scores[12:])
    ]

    predictions = looked("predictions", run, tmp_path)
    assert len(predictions["rows"]) == 8
    assert "blue" in predictions["rows"][0][2]
    top1 = [row[2].startswith(row[1]) for row in predictions["rows"]]
    assert predictions["right_at_first_guess"] == sum(top1)

    alike = looked("neighbors", run, tmp_path)
    assert alike["chance"] == pytest.approx(1 / 3)
    assert set(alike["same_class"]) == {"last hidden layer", "pixels"}

    views = looked("views", run, tmp_path)
    assert list(views["scores"]) == ["one network, 1 view", "one network, 10 views"]


@pytest.mark.slow
def test_experiments_train_what_they_look_at_and_share_it(photos, tmp_path, capsys):
    flags = ["--data", str(photos), "--epochs", "1", "--output-dir", str(tmp_path)]
    assert main(["reproduce", "views", "--seeds", "2", *flags]) == 0
    runs = sorted((tmp_path / "runs").iterdir())
    assert len(runs) == 2
    before = [(run / "last.npz").stat().st_mtime_ns for run in runs]
    assert main(["reproduce", "filters", "--seeds", "2", *flags]) == 0
    assert [(run / "last.npz").stat().st_mtime_ns for run in runs] == before
    assert len(result(tmp_path, "filters")["rows"]) == 4

    scores = result(tmp_path, "views")["scores"]
    capsys.readouterr()
    found = {}
    for crops in ("1", "10"):
        for name, chosen in (("a", runs[:1]), ("b", runs[1:]), ("ab", runs)):
            files = [str(run / "last.npz") for run in chosen]
            assert main(["eval", *files, "--crops", crops, "--json"]) == 0
            found[name, crops] = json.loads(capsys.readouterr().out)["loss"]
    for crops, seen in (("1", "1 view"), ("10", "10 views")):
        one = (found["a", crops] + found["b", crops]) / 2
        assert scores[f"one network, {seen}"]["loss"] == pytest.approx(one, rel=1e-6)
        several = scores[f"2 networks averaged, {seen}"]["loss"]
        assert several == pytest.approx(found["ab", crops], rel=1e-6)


@pytest.mark.parametrize(
    ("asked", "epochs"),
    [({}, 4), ({"quick": True}, 2), ({"data": "photos"}, 20), ({"epochs": 7, "quick": True}, 7)],
)
def test_how_long_a_network_is_trained(asked, epochs, photos, tmp_path, monkeypatch):
    def listen(request, arch, seed, epochs, **settings):
        raise reproduce.UsageError(f"{arch} {seed} {epochs} {settings['lr_step_size']}")

    monkeypatch.setattr(training, "train", listen)
    if "data" in asked:
        asked = {"data": str(photos)}
    with pytest.raises(reproduce.UsageError, match=f"^mini 0 {epochs} {max(1, epochs * 4 // 5)}$"):
        training.look(Request(tmp_path, **asked))


def test_the_last_epoch_is_looked_at_not_the_best_on_these_images(tmp_path, monkeypatch):
    def listen(runs, backend, team):
        raise reproduce.UsageError(" ".join(Path(run).name for run in runs))

    monkeypatch.setattr(training, "train", lambda *arguments, **settings: None)
    monkeypatch.setattr(training, "load_networks", listen)
    with pytest.raises(reproduce.UsageError, match=r"^last.npz last.npz$"):
        training.look(Request(tmp_path), seeds=2)


def test_views_in_words():
    found = {str(e): Scores(1000, 0, e, 0) for e in (0.5, 0.49, 0.48)} | {
        "5 networks averaged, 10 views": Scores(1000, 0, 0.3, 0)
    }
    text = in_words(found, 1000)
    assert "from 50.00 to 49.00 % (the 95 % intervals overlap)" in text
    assert "5 networks averaged take it from 49.00 to 30.00 %" in text
    assert text.endswith("(the 95 % intervals do not overlap).")


def test_show_draws_neighbours_and_confusions(run, held_out, tmp_path, capsys):
    for what in ("neighbors", "confusion"):
        assert main(["show", what, str(run)]) == 0
        with Image.open(run / f"{what}.png") as picture:
            assert picture.format == "PNG"
    # Other images without a validation folder are looked at whole; for neighbours there are none.
    other = ["--data", str(held_out), "-o", str(tmp_path / "other.png")]
    assert main(["show", "confusion", str(run), *other]) == 0
    argv = ["show", "neighbors", str(run), *other]
    refused(capsys, 4, "no validation images", "--data", argv=argv)


@pytest.mark.slow
def test_workers_reach_all_that_reads_many_images(run, photos, tmp_path, monkeypatch):
    heard, read = [], batches.batches

    def listening(*arguments, workers, **start):
        heard.append(workers)
        return read(*arguments, workers=workers, **start)

    for module in (batches, evaluate, neighbors, units):
        monkeypatch.setattr(module, "batches", listening)
    for what in ("predictions", "neighbors", "confusion"):
        assert main(["show", what, str(run), "-j", "3", "-o", str(tmp_path / f"{what}.png")]) == 0
    for name in ("maps", "predictions", "neighbors", "views"):
        looked(name, run, tmp_path, "-j", "3")
    assert set(heard) == {3}

    flags = ["--data", str(photos), "--epochs", "1", "-j", "3", "--output-dir", str(tmp_path)]
    assert main(["reproduce", "filters", *flags]) == 0
    (config,) = (tmp_path / "runs").glob("*/config.toml")
    assert "workers = 3\n" in config.read_text()


def test_bad_input(run, photos, held_out, tmp_path, capsys):
    def no(code, *words, argv):
        argv = ["reproduce", *argv, "--output-dir", tmp_path / "out"]
        refused(capsys, code, *words, argv=argv)
        assert not list((tmp_path / "out").glob("*/result.json"))

    no(5, "nothing", argv=["maps", "--run", tmp_path / "nothing"])
    no(5, "config.toml", argv=["filters", "--run", run / "config.toml"])
    no(2, "conv55", "Did you mean 'conv5'?", argv=["maps", "--run", run, "--layer", "conv55"])
    no(2, "pool1", "conv1, conv2", argv=["maps", "--layer", "pool1"])  # before anything is trained
    for flag, value in (("--arch", "mini"), ("--epochs", "3"), ("--seeds", "2")):
        no(2, "--run", flag, argv=["filters", "--run", run, flag, value])
    no(2, "lrn", "--run", "neighbors", argv=["lrn", "--run", run])
    no(2, "filters", "--layer", "maps", argv=["filters", "--run", run, "--layer", "conv1"])
    no(2, "Did you mean 'filters'?", argv=["filtres"])

    single = pictures(tmp_path / "single", 1, 0)  # nothing to hold out
    for name in ("neighbors", "views"):
        no(4, "single", "no validation images", argv=[name, "--data", single])
    no(4, "no validation images", argv=["views", "--run", run, "--data", held_out])
    few = pictures(tmp_path / "few", 1, 2)
    no(4, "few", "3 training images", argv=["neighbors", "--data", few])
    no(4, "--seeds 1", argv=["views", "--data", held_out])
    assert not (tmp_path / "out" / "runs").exists()


@pytest.mark.slow
def test_a_longer_run_is_not_taken_for_a_shorter_one(photos, tmp_path, capsys):
    """One epoch and two have the same schedule, and so the same folder."""
    flags = ["--data", str(photos), "--output-dir", str(tmp_path)]
    assert main(["reproduce", "filters", "--epochs", "2", *flags]) == 0
    refused(
        capsys, 2, "trained for 2 epochs", "one of 1", "--epochs 2",
        argv=["reproduce", "filters", "--epochs", "1", *flags],
    )  # fmt: skip


@pytest.mark.slow
def test_views_of_one_seed_need_no_validation_folder(held_out, tmp_path):
    flags = ["--data", str(held_out), "--epochs", "1", "--output-dir", str(tmp_path)]
    assert main(["reproduce", "views", "--seeds", "1", *flags]) == 0
    assert len(result(tmp_path, "views")["rows"]) == 2


def test_all_hands_the_run_to_those_that_look_at_one(monkeypatch, tmp_path):
    heard = {}

    def listen(name):
        def run(request, title):
            heard[name] = request.run, request.layer
            raise reproduce.UsageError("enough")

        return Experiment(name, "", "", run)

    monkeypatch.setattr(reproduce, "EXPERIMENTS", {n: listen(n) for n in ("lrn", "maps", "views")})
    monkeypatch.setattr(reproduce, "write_page", lambda *arguments: Path())
    request = Request(tmp_path, run="R", layer="conv2", say=lambda text: None)
    with pytest.raises(reproduce.TinyalexError):
        reproduce.reproduce("all", request)
    assert heard == {"lrn": (None, None), "maps": ("R", "conv2"), "views": ("R", None)}
