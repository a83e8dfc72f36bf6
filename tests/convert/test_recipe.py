"""The recipe of the README, command by command, and the examples that use features."""

import re
import runpy
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
import weights
from PIL import Image
from trees import classes_of, written

import tinyalex
from tinyalex import convert
from tinyalex.cli.parser import main
from tinyalex.convert.mappings import TORCHVISION
from tinyalex.runs import checkpoint

ROOT = Path(__file__).parents[2]
README = (ROOT / "tinyalex" / "convert" / "README.md").read_text(encoding="utf-8")
RECIPE = re.findall(r"^\$ tinyalex (.*?)(?: {2,}#.*)?$", README, re.MULTILINE)


def picture(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(weights.photos(1, 256, seed)[0]).save(path)


@pytest.fixture
def files(tmp_path, monkeypatch):
    """What the recipe names: drawn weights of owt, pictures, and pictures by class."""
    state = weights.state("owt", classes=1000)
    state.mean = np.full_like(state.mean, TORCHVISION.mean)
    convert.write(state, tmp_path / "alexnet-owt.pth")
    monkeypatch.chdir(tmp_path)
    picture(tmp_path / "cat.jpg", 0)
    for i, wnid in enumerate(("n01440764", "n01443537", "n02123045", "n15075141")):
        for j in range(2):
            picture(tmp_path / "imagenet-val" / wnid / f"{j}.jpg", 10 * i + j)
            picture(tmp_path / "photos" / f"{i}{j}.jpg", 10 * i + j)
    written(tmp_path / "pets", classes_of(cat=6, dog=6))
    return tmp_path, state


@pytest.mark.usefixtures("little")
def test_the_recipe(files, capsys):
    folder, state = files
    told = {}
    for line in RECIPE:
        argv = shlex.split(line)
        small = ["--epochs", "1", "-b", "5"] if argv[0] == "train" else []
        assert main([*argv, *small]) == 0, line
        told[argv[0]] = capsys.readouterr().out
    assert list(told) == ["import", "predict", "eval", "show", "features", "train", "export"]
    assert "1000 classes" in told["import"]
    assert "torchvision's transforms" in told["import"]
    found = checkpoint.load(folder / "runs" / "owt" / "last.npz")
    images = weights.photos(3, 256)
    assert weights.apart(weights.answers(found, images), weights.answers(state, images)) < 1e-5
    assert found.titles[0] == "tench"
    assert any(title in told["predict"] for title in found.titles)
    assert "8 all images" in told["eval"]
    assert (folder / "runs" / "owt" / "filters.png").exists()
    with np.load("features.npz") as rows:
        assert rows["relu7"].shape == (8, 32)
    tuned = checkpoint.load(folder / "runs" / "pets" / "last.npz")
    assert (tuned.architecture, tuned.classes) == ("owt", ("cat", "dog"))
    assert tuned.velocities
    assert np.array_equal(tuned.mean, found.mean)
    again, _ = convert.read(["pets.onnx"])
    assert again.classes == ("cat", "dog")


@pytest.mark.usefixtures("little")
def test_an_imported_run_has_no_images_of_its_own(files, capsys):
    assert main(shlex.split(RECIPE[0])) == 0
    assert main(["eval", "runs/owt"]) == 4
    assert "Say with --data" in capsys.readouterr().err


@pytest.mark.usefixtures("little")
def test_weights_of_another_program_from_python(files):
    _, state = files
    net = tinyalex.load("alexnet-owt.pth", classes="ilsvrc2012")
    (title, probability), *_ = net.predict("cat.jpg")
    assert title in net.titles
    assert 0 < probability <= 1
    assert any("resized" in note for note in net.notes)
    images = weights.photos(2, 256)
    expected = np.argmax(weights.answers(state, images), 1)
    assert np.array_equal(net.probabilities(images).argmax(1), expected)
    assert main(shlex.split(RECIPE[0])) == 0
    with pytest.raises(tinyalex.TinyalexError, match="is a run"):
        tinyalex.load("runs/owt", classes="ilsvrc2012")


def run_example(name, monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
    runpy.run_path(str(ROOT / "examples" / name), run_name="__main__")
    return capsys.readouterr().out.splitlines()


@pytest.mark.usefixtures("little")
def test_the_nearest_picture_to_one_is_itself(files, monkeypatch, capsys):
    arguments = "alexnet-owt.pth", "photos", "photos/20.jpg", "--count", "3"
    first, *rest = run_example("nearest_pictures.py", monkeypatch, capsys, *arguments)
    assert first.split() == ["1.000", "photos/20.jpg"]
    assert len(rest) == 2


@pytest.mark.usefixtures("little")
def test_the_distance_of_a_picture_to_itself_is_none(files, monkeypatch, capsys):
    run = "alexnet-owt.pth"
    same = run_example("perceptual_distance.py", monkeypatch, capsys, run, "cat.jpg", "cat.jpg")
    assert [line.split() for line in same] == [
        *([f"relu{i}", "0.0000"] for i in range(1, 6)),
        ["sum", "0.0000"],
    ]
    other = run_example(
        "perceptual_distance.py", monkeypatch, capsys, run, "cat.jpg", "photos/20.jpg"
    )
    assert float(other[-1].split()[1]) > 0.1


@pytest.mark.slow
def test_a_linear_classifier_beside_fine_tuning(files, monkeypatch, capsys):
    convert.save_run(weights.state("mini"), "mini")
    arguments = "mini", "pets", "--epochs", "1", "--batch-size", "4"
    linear, tuned = run_example("linear_on_features.py", monkeypatch, capsys, *arguments)
    assert re.fullmatch(r"linear classifier on drop7: validation error \d+\.\d\d %", linear)
    assert re.fullmatch(r"the whole network, 1 epochs: validation error \d+\.\d\d %", tuned)
