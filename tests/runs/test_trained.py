"""The public face: a trained network in a program, and a network of one's own."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from runs import pictures, quiet

import tinyalex
from tinyalex.cli.parser import main
from tinyalex.errors import CheckpointError, DataError, UsageError
from tinyalex.measure.evaluate import probabilities
from tinyalex.runs import checkpoint

OWN = (
    tinyalex.layers.Augment("data", size=12, image_size=16),
    tinyalex.layers.Conv2d("first", 4, size=3, pad=1, init_std=0.1),
    tinyalex.layers.ReLU("rectified"),
    tinyalex.layers.AvgPool("pooled", 4, 4),
    tinyalex.layers.Linear("out", 10, init_std=0.1),
)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return pictures(tmp_path_factory.mktemp("trained") / "photos", train=4, val=2, size=40)


@pytest.fixture(scope="module")
def run(photos, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained") / "run"
    argv = ["train", "--data", str(photos), "--arch", "mini", "-b", "4", "--epochs", "1"]
    assert main([*argv, "--output-dir", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def net(run):
    return tinyalex.load(run, backend="reference")


@pytest.fixture
def photo(photos):
    return photos / "val" / "red" / "00.png"


def test_the_face_is_light_and_complete():
    code = (
        "import sys, tinyalex\n"
        "assert 'numpy' not in sys.modules\n"
        "assert set(tinyalex.__all__) <= set(dir(tinyalex))\n"
        "for name in tinyalex.__all__: assert getattr(tinyalex, name)\n"
        "try: tinyalex.lod\n"
        "except AttributeError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "module 'tinyalex' has no attribute 'lod'\n"


def test_what_the_command_answers_and_python(net, run, photo, capsys):
    assert main(["predict", str(run), str(photo), "--topk", "2", "--json", "--crops", "10"]) == 0
    told = json.loads(capsys.readouterr().out)["predictions"]
    assert told == [
        {"class": title, "probability": round(p, 6)} for title, p in net.predict(photo, 2, crops=10)
    ]
    assert net.classes == net.titles == ("blue", "green", "red")


def test_pictures_may_be_paths_images_and_arrays_of_any_size(net, photo):
    array = np.asarray(Image.open(photo))
    expected = net.probabilities(photo)
    assert expected.shape == (1, 3)
    assert expected.dtype == np.float64
    for same in (str(photo), Image.open(photo), array, array[None], [photo], (array,)):
        np.testing.assert_array_equal(net.probabilities(same), expected)
    wide = np.concatenate([np.zeros_like(array), array, np.zeros_like(array)], axis=1)
    np.testing.assert_array_equal(net.probabilities(wide), expected)  # the centre square
    mixed = [photo, Image.open(photo).resize((99, 70)), array[:, :33]]
    assert net.probabilities(mixed).shape == (3, 3)
    np.testing.assert_allclose(net.probabilities(mixed)[0], expected[0], rtol=1e-6)


def test_many_pictures_are_answered_in_parts(net, photo, monkeypatch):
    many = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), np.uint8)
    whole = net.probabilities(many)
    features = net.features(many, "fc7")
    monkeypatch.setattr("tinyalex.training.trained.BATCH", 2)
    np.testing.assert_allclose(net.probabilities(many), whole, rtol=1e-5)
    np.testing.assert_allclose(net.features(many, "fc7"), features, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(whole, probabilities([net.network], many), rtol=1e-12)


def test_features_of_any_layer(net, photo):
    fc7, relu7 = (net.features(photo, layer) for layer in ("fc7", "relu7"))
    assert fc7.shape == (1, 128)
    assert fc7.dtype == np.float32
    np.testing.assert_array_equal(relu7, np.maximum(fc7, 0))
    assert net.features([photo, photo], "conv1").shape == (2, 28, 28, 24)
    logits = net.features(photo, "fc8").astype(np.float64)
    e = np.exp(logits - logits.max())
    np.testing.assert_allclose(e / e.sum(), net.probabilities(photo), rtol=1e-12)
    with pytest.raises(UsageError, match=r"no layer 'fc9'. .* It has data, conv1"):
        net.features(photo, "fc9")


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (
            np.zeros((8, 8, 3), np.float32),
            r"uint8 array .* float32 \(8, 8, 3\): scale it to 0 to 255",
        ),
        (np.zeros((2, 8, 8, 3)), r"float64 \(2, 8, 8, 3\)"),
        (np.zeros((8, 8, 3), np.int64), "int64"),
        (np.zeros((3, 8, 8), np.uint8), r"uint8 \(3, 8, 8\): move its channels last"),
        (np.zeros((2, 3, 8, 8), np.uint8), "move its channels last"),
        (np.zeros((8, 8), np.uint8), "three channels"),
        (np.zeros((8, 8, 4), np.uint8), "three channels"),
        (np.zeros((1, 1, 8, 8, 3), np.uint8), r"\(1, 1, 8, 8, 3\)"),
        (np.zeros((0, 8, 8, 3), np.uint8), "no pixels"),
        (np.zeros((2, 0, 8, 3), np.uint8), "no pixels"),
        ([], "the batch is empty"),
        ([np.zeros((1, 8, 8, 3), np.uint8)], "three channels"),
        (3, "not int"),
        (None, "not NoneType"),
        ([None], "not NoneType"),
    ],
)
def test_what_is_no_picture_is_said(net, wrong, words):
    for ask in (net.predict, net.probabilities, lambda x: net.features(x, "fc7")):
        with pytest.raises(UsageError, match=words):
            ask(wrong)


def test_files_that_cannot_be_read_are_named(net, tmp_path):
    (tmp_path / "text.jpg").write_text("no picture")
    for path, words in (
        (tmp_path / "none.jpg", "No such file"),
        (tmp_path / "text.jpg", "text.jpg is"),
    ):
        with pytest.raises(DataError, match=words):
            net.predict(path)
    with pytest.raises(DataError, match="Cannot read the picture"):
        net.predict("a\0b")
    image = Image.new("F", (4, 4), 7.0)  # nobody can say what white is
    with pytest.raises(DataError, match="cannot be decoded"):
        net.predict(image)
    with pytest.raises(UsageError, match="one picture, not 2"):
        net.predict(np.zeros((2, 8, 8, 3), np.uint8))
    with pytest.raises(CheckpointError, match="There is no checkpoint"):
        tinyalex.load(tmp_path / "nothing")


def test_the_readme_in_ten_lines(run, photo):
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    code = readme.split("<!-- ten lines of Python -->\n```python\n")[1].split("```")[0]
    assert len([line for line in code.splitlines() if line]) <= 10
    code = re.sub('^RUN = ".*"$', f"RUN = {str(run)!r}", code, flags=re.M)
    code = re.sub('^PHOTO = ".*"$', f"PHOTO = {str(photo)!r}", code, flags=re.M)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    classes, *answers, many, features = done.stdout.splitlines()
    assert classes == "('blue', 'green', 'red')"
    assert len(answers) == 3
    assert (many, features) == ("(2, 3)", "(1, 128)")


@pytest.fixture
def own():
    recipe = tinyalex.Recipe(epochs=2, batch_size=4, lr=0.01, lr_scheduler="constant")
    return tinyalex.Architecture("my-net", "drawn up here", OWN, recipe)


@pytest.mark.slow
def test_a_network_of_ones_own_is_trained_saved_and_loaded(own, photos, tmp_path, capsys):
    """From Python, and then by the command, which finds the network in the checkpoint."""
    config = tinyalex.Config(data=str(photos), output_dir=str(tmp_path / "own"), max_steps=4)
    network = tinyalex.train(config, own, say=quiet)
    rows = network.network.architecture.rows
    assert rows == own.with_classes(3).rows
    assert network.features(photos / "val" / "red" / "00.png", "pooled").shape == (1, 3, 3, 4)
    state = checkpoint.load(tmp_path / "own" / "last.npz")
    assert (state.network.rows, state.network.recipe) == (rows, own.recipe)
    assert main(["train", "--resume", str(tmp_path / "own"), "--max-steps", "6"]) == 0
    assert "my-net: " in capsys.readouterr().out
    for argv in (["eval"], ["show", "filters"], ["show", "predictions"]):
        assert main([*argv, str(tmp_path / "own")]) == 0

    fine_tuned = str(tmp_path / "tuned")
    argv = ["train", "--data", str(photos), "--weights", str(tmp_path / "own"), "--epochs", "1"]
    assert main([*argv, "--output-dir", fine_tuned]) == 0
    assert checkpoint.load(tmp_path / "tuned" / "last.npz").architecture == "my-net"


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (OWN[1:], "the first row of a network is Augment"),
        (OWN[:-1], "its last row is not Linear"),
        ((*OWN[:2], *OWN[1:]), "two rows are called first"),
        (
            (OWN[0], tinyalex.layers.Conv2d("c", 4, size=99), *OWN[2:]),
            "c: a window of 99 does not fit",
        ),
    ],
)
def test_rows_that_make_no_network_are_refused(rows, words, photos, tmp_path):
    broken = tinyalex.Architecture("broken", "", rows, tinyalex.Recipe(epochs=1))
    config = tinyalex.Config(data=str(photos), output_dir=str(tmp_path / "run"))
    with pytest.raises(UsageError, match=words):
        tinyalex.train(config, broken, say=quiet)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda n: n["rows"][1].update(kind="eval"), "version of tinyalex does not know"),
        (lambda n: n["rows"][1].update(name="../x"), "layer with the name '../x'"),
        (lambda n: n["rows"][1].update(channels="4"), "its channels is '4'"),
        (lambda n: n["rows"][1].update(channels=True), "its channels is 'True'"),
        (lambda n: n["rows"][1].update(pad=-1), "its pad is '-1'"),
        (lambda n: n["rows"][1].update(pad=10_000), "too large"),
        (lambda n: n["rows"][1].update(bias=float("nan")), "its bias is 'nan'"),
        (lambda n: n["rows"][1].pop("stride"), "stride"),
        (lambda n: n["rows"].pop(), "last row is not Linear"),
        (lambda n: n["rows"].clear(), "first row"),
        (lambda n: n.update(rows=n["rows"] * 300), "two rows are called"),
        (lambda n: n["recipe"].update(epochs=1.5), "its epochs is '1.5'"),
        (lambda n: n.update(rows=3), "changed.npz is damaged"),
    ],
)
@pytest.mark.slow
def test_a_strangers_network_is_checked(change, words, own, photos, tmp_path):
    """No layer is huge, no value of another type, and no code is run."""
    config = tinyalex.Config(data=str(photos), output_dir=str(tmp_path / "own"), max_steps=1)
    tinyalex.train(config, own, say=quiet)
    path, changed = tmp_path / "own" / "last.npz", tmp_path / "changed.npz"
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(changed, "w") as new:
        for name in old.namelist():
            if name != "meta.npy":
                new.writestr(name, old.read(name))
        meta = json.loads(str(np.load(path)["meta"]))
        change(meta["network"])
        with new.open("meta.npy", "w") as file:
            np.lib.format.write_array(file, np.array(json.dumps(meta)))
    with pytest.raises(CheckpointError, match=words):
        checkpoint.load(changed)
