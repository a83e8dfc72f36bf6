"""What a run does of its own accord where the images or the classes are few."""

from dataclasses import replace

import pytest
from runs import begun, pictures, trained
from trees import classes_of, written

from tinyalex.cli.parser import main
from tinyalex.net.presets import ARCHITECTURES
from tinyalex.runs import checkpoint
from tinyalex.runs.config import Config
from tinyalex.training.start import fitting

ALEXNET, MINI = ARCHITECTURES["alexnet"], ARCHITECTURES["mini"]


def fitted(architecture, classes, images, **asked):
    config = Config(**asked)
    return fitting(config.resolved(architecture), config, architecture, classes, images)


@pytest.mark.parametrize(
    ("images", "batch"), [(1, 1), (2, 2), (8, 8), (200, 8), (720, 30), (3071, 127), (3072, 128)]
)
def test_a_batch_fits_the_images(images, batch):
    config, notes = fitted(ALEXNET, 1000, images)
    assert config.batch_size == batch
    assert len(notes) == (batch < 128)
    assert all(str(batch) in note and str(images) in note for note in notes)


@pytest.mark.parametrize(
    ("classes", "rate"), [(2, 0.001), (3, 0.001), (5, 0.002), (10, 0.005), (20, 0.01), (1000, 0.01)]
)
def test_a_rate_fits_the_classes(classes, rate):
    config, notes = fitted(ALEXNET, classes, 10**6)
    assert config.lr == rate
    assert len(notes) == (rate < 0.01)
    assert all(f"{rate:g}" in note and f"{classes} classes" in note for note in notes)
    assert fitted(MINI, classes, 10**6) == (Config().resolved(MINI), [])  # no bias, no overshoot


@pytest.mark.parametrize(
    ("images", "asked", "scheduler"),
    [
        (191, {}, "cosine"),
        (192, {}, "plateau"),
        (191, {"weights": None}, "plateau"),
        (191, {"lr_scheduler": "plateau"}, "plateau"),
        (191, {"lr_step_size": 5}, "plateau"),
        (1919, {"batch_size": 80}, "cosine"),
        (1920, {"batch_size": 80}, "plateau"),
    ],
)
def test_the_schedule_of_fine_tuning_fits_the_steps_of_an_epoch(images, asked, scheduler):
    config, notes = fitted(ALEXNET, 1000, images, **{"weights": "run", **asked})
    assert config.lr_scheduler == scheduler
    assert any("follows a cosine" in note for note in notes) == (scheduler == "cosine")


def test_what_is_asked_for_is_kept():
    asked = {"batch_size": 128, "lr": 0.01, "lr_scheduler": "step", "weights": "run"}
    config, notes = fitted(ALEXNET, 2, 200, **asked)
    assert (config.batch_size, config.lr, notes) == (128, 0.01, [])


@pytest.mark.parametrize("preset", ARCHITECTURES.values(), ids=list(ARCHITECTURES))
def test_a_recipe_is_what_it_was_at_the_data_it_was_made_for(preset):
    config, notes = fitted(preset, preset.classes, 50_000)
    assert (config.recipe, notes) == (preset.recipe, [])


def test_a_resumed_run_keeps_what_fitted(tmp_path):
    data = pictures(tmp_path / "pictures", train=5, val=1)
    said = []
    run = tmp_path / "run"
    config = Config(data=str(data), arch="mini", epochs=2, output_dir=str(run))
    assert begun(config, say=said.append).config.batch_size == 8
    assert [line for line in said if line.startswith("note: 8 images a step")]
    run = tmp_path / "other"
    trained(replace(config, max_steps=1, output_dir=str(run)))
    assert checkpoint.load(run / "last.npz").config["batch_size"] == 8
    assert main(["train", "--resume", str(run), "--max-steps", "3"]) == 0
    assert checkpoint.load(run / "last.npz").config["batch_size"] == 8
    assert main(["train", "--resume", str(run), "--max-steps", "4", "-b", "16"]) == 2


@pytest.mark.parametrize("images", [1, 2, 3])
def test_what_the_check_finds_ready_is_trained_on(images, tmp_path, capsys):
    data = written(tmp_path / "photos", classes_of(a=images, b=images))
    assert main(["data", "check", str(data)]) == 0
    out = capsys.readouterr().out
    assert "Ready to train on." in out
    assert ("no class has a second image" in out) == (images == 1)
    argv = ["train", "--data", data, "--arch", "mini", "--output-dir", tmp_path / "run"]
    assert main([*map(str, argv), "--max-steps", "1"]) == 0
    assert ("no class has a second image" in capsys.readouterr().out) == (images == 1)
