"""Features of layers as a file: right, resumable, and with names and labels beside them."""

import csv
from dataclasses import replace

import numpy as np
import pytest
import weights
from PIL import Image
from runs import refused
from trees import classes_of, written

import tinyalex
from tinyalex import convert, reference
from tinyalex.cli.parser import main
from tinyalex.data.decode import Decoder, decode
from tinyalex.measure import features
from tinyalex.net.draws import centre_draws, ten_views
from tinyalex.net.network import Network, activations
from tinyalex.net.presets import ARCHITECTURES


@pytest.fixture
def run(tmp_path):
    """A run of mini, lively, and its network."""
    state = weights.state("mini")
    convert.save_run(state, str(tmp_path / "run"))
    return str(tmp_path / "run"), Network(state.network, reference, state.parameters, state.mean)


@pytest.fixture
def photos(tmp_path):
    """Seven pictures of two classes."""
    written(tmp_path / "photos", classes_of(a=4, b=3))
    return str(tmp_path / "photos")


def loaded(path):
    with np.load(path) as file:
        return dict(file)


def by_rows(network, images, name, draws):
    """The output of a row, computed row by row."""
    for row, output in activations(network, images, draws):
        if row.name == name:
            return output
    raise LookupError(name)


@pytest.mark.parametrize("name", [row.name for row in ARCHITECTURES["mini"].rows])
def test_a_layer_is_what_the_rows_below_it_compute(name, run):
    _, network = run
    images = weights.photos(3, 32)
    data = network.architecture.data
    found = features.features(network, images, [name])[name]
    assert found.dtype == np.float32
    assert np.array_equal(found, by_rows(network, images, name, centre_draws(data, 3)))
    ten = features.features(network, images, [name], views=10)[name]
    each = [by_rows(network, images, name, draws) for draws in ten_views(data, 3)]
    np.testing.assert_allclose(ten, np.mean(each, 0, dtype=np.float64), rtol=1e-5, atol=1e-5)


def test_several_layers_at_once_and_pooled(run):
    _, network = run
    images = weights.photos(3, 32)
    alone = {n: features.features(network, images, [n])[n] for n in ("fc7", "conv5", "pool1")}
    together = features.features(network, images, ["fc7", "conv5", "pool1"])
    assert list(together) == ["fc7", "conv5", "pool1"]
    assert all(np.array_equal(together[n], alone[n]) for n in alone)
    for pool, by in (("max", np.max), ("mean", np.mean)):
        pooled = features.features(network, images, ["fc7", "conv5"], pool=pool)
        assert np.array_equal(pooled["fc7"], alone["fc7"])
        assert np.array_equal(pooled["conv5"], by(alone["conv5"], (1, 2)))


def test_an_npz_has_names_and_labels_beside_the_rows(run, photos, tmp_path):
    source, network = run
    out = tmp_path / "f.npz"
    argv = ["features", source, "--data", photos, "--layer", "fc7,conv5", "-b", "3", "-o", out]
    assert main([str(a) for a in argv]) == 0
    found = loaded(out)
    assert sorted(found) == ["classes", "conv5", "fc7", "labels", "names"]
    assert found["labels"].tolist() == [0] * 4 + [1] * 3
    assert found["classes"].tolist() == ["a", "b"]
    assert found["fc7"].shape == (7, 128)
    assert found["conv5"].shape == (7, 6, 6, 32)
    for i, name in enumerate(found["names"].tolist()):
        pictures = features.Pictures([f"{photos}/{name}"], Decoder(32))
        alone = features.features(network, pictures.read(0)[None], ["fc7"])["fc7"][0]
        np.testing.assert_allclose(found["fc7"][i], alone, rtol=1e-5, atol=1e-5)
    assert not list(tmp_path.glob("*.rows"))


def test_an_npy_and_a_csv(run, photos, tmp_path):
    source, _ = run
    rows = {}
    for name in ("f.npy", "f2.csv"):
        argv = ["features", source, photos, "--layer", "pool5", "--pool", "max"]
        assert main([*argv, "-o", str(tmp_path / name)]) == 0
        table = tmp_path / name.replace(".npy", ".csv")
        rows[name] = list(csv.reader(table.read_text(encoding="utf-8").splitlines()))
    array = np.load(tmp_path / "f.npy")
    assert array.shape == (7, 32)
    header, *lines = rows["f2.csv"]
    assert header == ["name", "label", *(f"pool5.{i}" for i in range(32))]
    assert np.array_equal(np.array([line[2:] for line in lines], "f4"), array)
    assert [line[:2] for line in rows["f.npy"][1:]] == [line[:2] for line in lines]
    assert all(line[0].startswith(photos) and line[1] == "" for line in lines)


def test_an_extraction_that_was_stopped_goes_on(run, photos, tmp_path, monkeypatch):
    source, _ = run
    argv = ["features", source, "--data", photos, "-j", "0", "-b", "2", "-o"]
    assert main([*argv, str(tmp_path / "whole.npz")]) == 0
    out, computed = tmp_path / "f.npz", []

    def stopping(network, images, *arguments):
        if len(computed) == 4 and stop:
            raise KeyboardInterrupt
        computed.extend(range(len(images)))
        return compute(network, images, *arguments)

    compute, stop = features.features, True
    monkeypatch.setattr(features, "features", stopping)
    assert main([*argv, str(out)]) == 130
    assert not out.exists()
    with open(tmp_path / "f.npz.rows" / "fc7", "ab") as file:
        file.write(b"half a row")
    stop = False
    assert main([*argv, str(out)]) == 0
    assert len(computed) == 7  # none twice
    assert not (tmp_path / "f.npz.rows").exists()
    whole, found = loaded(tmp_path / "whole.npz"), loaded(out)
    assert all(np.array_equal(whole[name], found[name]) for name in whole)


def test_what_is_left_of_another_request_is_not_gone_on_with(run, photos, tmp_path):
    source, _ = run
    folder = tmp_path / "f.npz.rows"
    folder.mkdir()
    (folder / "fc7").write_bytes(bytes(4 * 128 * 5))
    (folder / "request.json").write_text("{}")
    assert main(["features", source, "--data", photos, "-o", str(tmp_path / "f.npz")]) == 0
    assert (loaded(tmp_path / "f.npz")["fc7"] != 0).any(1).all()


def test_what_cannot_be_asked(run, photos, tmp_path, capsys):
    source, _ = run
    refused(capsys, 2, "either", argv=["features", source, "-o", tmp_path / "f.npz"])
    argv = ["features", source, photos, "-o", tmp_path / "f.npz"]
    refused(capsys, 2, "no layer 'fc9'", "Did you mean 'fc", argv=[*argv, "--layer", "fc9"])
    argv[-1] = tmp_path / "f.txt"
    refused(capsys, 2, "f.txt", ".npz", argv=argv)
    argv[-1] = tmp_path / "f.npy"
    refused(capsys, 2, "f.npy", "one array", argv=[*argv, "--layer", "fc7,fc6"])
    (tmp_path / "none").mkdir()
    argv = ["features", source, tmp_path / "none", "-o", tmp_path / "f.npz"]
    refused(capsys, 4, "no picture", argv=argv)
    argv = ["features", source, photos, "-o", tmp_path / "nowhere" / "f.npz"]
    assert main([str(a) for a in argv]) == 0  # a folder that is not there is made


@pytest.mark.parametrize("rule", [1, 2])
def test_large_pictures_are_read_by_the_rule_of_the_run(rule, tmp_path):
    """As `predict` and Python do, from files and from data: a run of before reads JPEGs whole."""
    state = weights.state("mini")
    convert.save_run(
        replace(state, config=state.config | {"decoding": rule}), str(tmp_path / "run")
    )
    noise = np.random.default_rng(0).integers(0, 256, (400, 400, 3), np.uint8)
    for name in "ab":
        (tmp_path / "photos" / name).mkdir(parents=True)
        Image.fromarray(noise).save(tmp_path / "photos" / name / "1.jpg")
    photo, out = tmp_path / "photos" / "a" / "1.jpg", tmp_path / "f.npz"
    expected = tinyalex.load(tmp_path / "run", "reference").features(photo, "fc7")[0]
    for images in ([photo], ["--data", tmp_path / "photos"]):
        argv = ["features", tmp_path / "run", *images, "--layer", "fc7", "-o", out]
        assert main([str(a) for a in argv]) == 0
        np.testing.assert_allclose(loaded(out)["fc7"][0], expected, rtol=1e-5, atol=1e-5)
    other = decode(photo.read_bytes(), 32, "1.jpg", rule=3 - rule)
    assert not np.array_equal(other, decode(photo.read_bytes(), 32, "1.jpg", rule=rule))
