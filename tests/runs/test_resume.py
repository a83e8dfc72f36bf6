"""A run that is continued comes to the same bits, on the same data, in the same settings."""

import os
import random
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from runs import begun, digests, pictures, quiet, records, saved, trained
from small import shrunk

from tinyalex.cli.parser import main
from tinyalex.data.dataset import Dataset
from tinyalex.data.fingerprint import contents, differences
from tinyalex.errors import DataError, DivergedError, UsageError
from tinyalex.net.presets import ARCHITECTURES
from tinyalex.net.schedule import learning_rate
from tinyalex.runs import checkpoint
from tinyalex.runs.config import Config, from_mapping
from tinyalex.runs.folder import RunFolder
from tinyalex.system.signals import Stop
from tinyalex.training import loop, recorder
from tinyalex.training.loop import train
from tinyalex.training.recorder import Recorder
from tinyalex.training.standstill import Standstill

STEPS = 6  # of 3 epochs, each a batch of 4 and one of 2 images
STANDING = 1e-30  # a rate that changes no bit of a weight
COSINE = {"lr_scheduler": "cosine", "warmup_epochs": 1}
PLATEAU = {"lr_scheduler": "plateau", "lr_patience": 1, "lr_gamma": 0.5}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return pictures(tmp_path_factory.mktemp("resume") / "pictures", train=2, val=1)


@pytest.fixture
def config(images, tmp_path):
    """Three epochs of two batches, in which the rate falls."""
    return Config(
        data=str(images),
        arch="mini",
        batch_size=4,
        epochs=3,
        print_freq=1,
        output_dir=str(tmp_path / "run"),
        **PLATEAU,
    )


def into(config, folder, **changes):
    return replace(config, output_dir=str(folder), **changes)


def after_each_step(config, monkeypatch):
    """The digests of an uninterrupted run after each of its steps."""
    found, save = {}, checkpoint.save

    def keep(state, path):
        if path.name == "last.npz":
            found[state.progress.step] = digests(state)  # the last is that of the finished epoch
        save(state, path)

    with monkeypatch.context() as patch:
        patch.setattr(recorder, "SAVE_SECONDS", -1)
        patch.setattr(checkpoint, "save", keep)
        trained(config)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_run_resumed_at_every_step_comes_to_the_same_bits(
    name, config, tmp_path, monkeypatch, tell
):
    monkeypatch.setitem(ARCHITECTURES, name, shrunk(ARCHITECTURES[name]))
    config = replace(config, arch=name)
    began = time.perf_counter()
    expected = after_each_step(config, monkeypatch)
    assert list(expected) == list(range(1, STEPS + 1))
    assert len({digest["parameters"] for digest in expected.values()}) == STEPS

    parts = tmp_path / "parts"
    for step in range(1, STEPS + 1):
        last = parts / "last.npz"
        trained(into(config, parts, max_steps=step), last if step > 1 else None)
        assert saved(last) == expected[step], f"step {step}"
    assert saved(parts / "best.npz") == saved(tmp_path / "run" / "best.npz")
    assert records(parts) == records(tmp_path / "run")
    tell(f"{STEPS} steps, {STEPS - 1} resumptions, {time.perf_counter() - began:.1f} s")


@pytest.mark.parametrize("step", range(1, STEPS))
@pytest.mark.parametrize("settings", [PLATEAU, COSINE], ids=["plateau", "cosine"])
@pytest.mark.slow
def test_a_run_resumed_once_ends_as_if_it_had_not_been(step, settings, config, tmp_path):
    config = replace(config, **settings)
    whole = trained(config)
    part = into(config, tmp_path / "part")
    trained(replace(part, max_steps=step))
    end = trained(part, tmp_path / "part" / "last.npz")
    for name in ("last.npz", "best.npz"):
        assert saved(tmp_path / "part" / name) == saved(tmp_path / "run" / name)
    assert records(tmp_path / "part") == records(tmp_path / "run")
    assert end.learning_rate() == whole.learning_rate()
    assert whole.learning_rate()[0] < whole.recipe.lr
    assert end.progress.best["epoch"] == whole.progress.best["epoch"]


def test_a_run_resumed_into_another_folder_takes_its_best_along(config, tmp_path):
    before = trained(replace(config, lr=STANDING))  # no epoch is better than the first
    folder = tmp_path / "run"
    trained(into(config, tmp_path / "other", lr=STANDING, epochs=4), folder / "last.npz")
    assert before.progress.best["epoch"] == 1
    assert saved(tmp_path / "other" / "best.npz") == saved(folder / "best.npz")


def test_another_folder_holds_the_resumed_run_from_the_beginning(config, tmp_path):
    """Before anything is trained: whoever goes on from there loses no epoch."""
    trained(replace(config, lr=STANDING))
    folder, other = tmp_path / "run", tmp_path / "other"
    begun(into(config, other, lr=STANDING), folder / "last.npz").folder.close()
    assert saved(checkpoint.find(other, resume=True)) == saved(folder / "last.npz")


def test_a_damaged_best_is_told_of_and_left_behind(config, tmp_path):
    trained(replace(config, epochs=2))
    folder, other, said = tmp_path / "run", tmp_path / "other", []
    (folder / "best.npz").write_bytes(b"damaged")
    begun(into(config, other), folder / "last.npz", said.append).folder.close()
    assert not (other / "best.npz").exists()
    assert any(line.startswith(f"note: {folder / 'best.npz'} is damaged") for line in said)


def test_a_best_that_is_not_of_the_resumed_run_stays_where_it_is(config, tmp_path):
    """Of the older checkpoint that a run is resumed from, the newest best is another future."""
    trained(replace(config, lr=STANDING))
    folder = tmp_path / "run"
    older, newer = checkpoint.load(folder / "best.npz"), checkpoint.load(folder / "last.npz")
    newer.progress.history[-1]["val_top1_error"] = -1.0
    checkpoint.save(newer, folder / "best.npz")
    checkpoint.save(older, folder / "older.npz")
    trained(into(config, tmp_path / "other", lr=STANDING, max_steps=2), folder / "older.npz")
    assert not (tmp_path / "other" / "best.npz").exists()


def test_a_run_that_goes_back_loses_no_line_wherever_it_is_killed(config, tmp_path, monkeypatch):
    """best.npz is of an earlier step: last.npz must be, too, before the log is."""
    config = replace(config, lr=STANDING)  # no epoch is better than the first
    trained(config)
    trained(into(config, tmp_path / "back"))
    best, last = (tmp_path / "back" / name for name in ("best.npz", "last.npz"))
    began = checkpoint.load(best)
    assert began.progress.step < checkpoint.load(last).progress.step

    def killed(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "forget", killed)
        with pytest.raises(KeyboardInterrupt):
            begun(into(config, tmp_path / "back"), best)
    assert checkpoint.load(last).progress.step == began.progress.step
    assert records(tmp_path / "back") == records(tmp_path / "run")

    with monkeypatch.context() as patch:
        patch.setattr(loop, "train_epoch", killed)
        with pytest.raises(KeyboardInterrupt):
            trained(into(config, tmp_path / "back"), best)
    assert checkpoint.load(last).progress.step == began.progress.step
    assert max(r["step"] for r in records(tmp_path / "back")) == began.progress.step
    trained(into(config, tmp_path / "back"), last)
    assert records(tmp_path / "back") == records(tmp_path / "run")


def test_a_resumed_run_tells_of_a_standstill_when_the_uninterrupted_does(
    config, tmp_path, monkeypatch
):
    monkeypatch.setattr(Standstill, "STEPS", 5)
    config = replace(config, arch="mini+paper-init", lr=STANDING, epochs=8)
    trained(config)
    (note,) = (
        r for r in records(tmp_path / "run") if r["event"] == "note" and "stood" in r["text"]
    )
    assert note["step"] == 5
    part, last = into(config, tmp_path / "part"), tmp_path / "part" / "last.npz"
    trained(replace(part, max_steps=3))
    trained(replace(part, max_steps=7), last)
    trained(part, last)
    assert records(tmp_path / "part") == records(tmp_path / "run")


def test_other_weights_are_refused_on_resume_from_wherever_they_come(config, tmp_path, capsys):
    trained(replace(config, max_steps=1))
    last, file = tmp_path / "run" / "last.npz", tmp_path / "own.toml"
    file.write_text(f"weights = '{last}'\n")
    for argv in (["--config", str(file)], ["--weights", str(last)]):
        assert main(["train", "--resume", str(last), *argv]) == 2
        assert "--resume goes on with " in capsys.readouterr().err
    # The settings of a run that had begun with weights name them, and are none of another.
    begun = tmp_path / "begun"
    trained(into(config, begun, weights=str(last), max_steps=1))
    argv = ["train", "--resume", str(begun), "--config", str(begun / "config.toml")]
    assert main([*argv, "--max-steps", "2"]) == 0


def test_the_same_seed_twice_is_the_same_bits_and_another_is_not(config, tmp_path):
    for name, seed in (("one", 5), ("two", 5), ("other", 6)):
        trained(into(config, tmp_path / name, seed=seed))
    one, two, other = (saved(tmp_path / name / "last.npz") for name in ("one", "two", "other"))
    assert one == two
    for part in ("parameters", "velocities"):
        assert one[part] != other[part]


def test_neither_workers_nor_the_order_of_a_folder_matter(config, tmp_path, monkeypatch):
    """With images read anew in every epoch, and a folder listed in another order each time."""
    scandir = os.scandir
    shuffled, asked = random.Random(1), []

    class Scan:
        def __init__(self, path="."):
            with scandir(path) as entries:
                self.entries = list(entries)
            before = list(self.entries)
            shuffled.shuffle(self.entries)
            asked.append(self.entries != before)

        def __enter__(self):
            return iter(self.entries)

        def __exit__(self, *raised):
            pass

    trained(config)
    monkeypatch.setattr("tinyalex.data.batches.KEEP_BYTES", 0)
    monkeypatch.setattr(os, "scandir", Scan)
    for workers in (0, 1, 2, 5):
        trained(into(config, tmp_path / str(workers), workers=workers))
        found = saved(tmp_path / str(workers) / "last.npz")
        assert found == saved(tmp_path / "run" / "last.npz"), f"{workers} workers"
    assert any(asked)


def test_more_steps_and_epochs_are_the_normal_case(config, tmp_path, capsys):
    trained(replace(config, max_steps=1))
    last = str(tmp_path / "run" / "last.npz")
    assert main(["train", "--resume", last, "--max-steps", "3", "-j", "0"]) == 0
    assert "changed: max-steps 1 -> 3, workers 2 -> 0\n" in capsys.readouterr().out
    assert main(["train", "--resume", last, "--max-steps", "3"]) == 0
    assert "changed" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("settings", "rates"),
    [
        ({"lr_scheduler": "step"}, [1, 1, 0.1, 0.1, 0.1]),  # after 2.5 and 5 epochs
        ({"lr_scheduler": "2012"}, [1, 0.01, 0.001, 0.001, 0.001]),
        ({"lr_scheduler": "cosine"}, [1, 0.75, 0.25, 0.345, 0.095]),
    ],
)
def test_with_more_epochs_falls_stay_and_a_cosine_is_laid_anew(settings, rates, config, tmp_path):
    config = replace(config, batch_size=6, **settings)
    config = replace(config, lr_patience=None, lr_gamma=None)
    trained(replace(config, lr=0.001))
    last = tmp_path / "run" / "last.npz"
    saved_settings = checkpoint.load(last).config
    longer = from_mapping(saved_settings, Config(), "it")
    end = trained(replace(longer, epochs=5), last)
    found = [record["lr"] / 0.001 for record in end.progress.history]
    assert found == pytest.approx(rates, abs=1e-3)


@pytest.mark.parametrize(("own", "used"), [(5, 30), (30, 30)])
def test_a_run_of_before_falls_when_it_was_to_fall(own, used, config, tmp_path):
    """Its 2012 counted 90 epochs, however many there were, and lr_step_size had no effect."""
    trained(replace(config, lr_scheduler="2012", max_steps=1))
    last = tmp_path / "run" / "last.npz"
    state = checkpoint.load(last)
    assert state.config["lr_step_size"] == 1
    del state.config["warmup_epochs"]
    state.config["lr_step_size"] = own
    checkpoint.save(state, last)
    found = checkpoint.load(last).config
    assert found["lr_step_size"] == used
    recipe = from_mapping(found, Config(), "it").resolved(ARCHITECTURES["mini"]).recipe
    rates = [learning_rate(recipe, [0.5] * epoch)[0] / recipe.lr for epoch in (24, 25, 50, 51, 79)]
    assert rates == pytest.approx([1, 0.5, 0.5, 0.25, 0.125])


def test_into_another_folder_a_run_takes_its_records_along(config, tmp_path):
    trained(replace(config, max_steps=3))
    trained(into(config, tmp_path / "new"), tmp_path / "run" / "last.npz")
    trained(into(config, tmp_path / "whole"))
    assert records(tmp_path / "new") == records(tmp_path / "whole")
    with pytest.raises(UsageError, match="already holds a run"):
        trained(into(config, tmp_path / "new"), tmp_path / "run" / "last.npz")


@pytest.mark.parametrize(("change", "flag"), [({"batch_size": 3}, "-b"), ({"seed": 1}, "--seed")])
def test_what_decides_the_order_stays_within_an_epoch(change, flag, config, tmp_path):
    """The pictures have a validation folder, so that another seed holds out no others."""
    last = tmp_path / "run" / "last.npz"
    trained(replace(config, max_steps=3))
    (name,) = change
    with pytest.raises(UsageError, match=f"--{name.replace('_', '-')} .* Finish the epoch"):
        trained(replace(config, **change), last)
    trained(replace(config, max_steps=4), last)
    trained(replace(config, **change), last)
    assert checkpoint.load(last).progress.epoch == 3


def refused(config, tmp_path, *words):
    last = tmp_path / "run" / "last.npz"
    before = last.read_bytes(), (tmp_path / "run" / "metrics.jsonl").read_bytes()
    with pytest.raises(DataError) as caught:
        begun(config, last)
    for word in words:
        assert word in str(caught.value)
    assert before == (last.read_bytes(), (tmp_path / "run" / "metrics.jsonl").read_bytes())
    return str(caught.value)


def test_other_images_are_refused_with_what_is_different(config, tmp_path):
    data = pictures(tmp_path / "changing", train=3, val=1)
    config = replace(config, data=str(data))
    trained(replace(config, max_steps=1))

    red = data / "train" / "red"
    (red / "01.png").rename(red / "9.png")
    refused(config, tmp_path, "train: class red has 3 images of other names", "--weights")
    (red / "9.png").rename(data / "9.png")
    refused(config, tmp_path, "train: class red had 3 images, now 2")
    (data / "9.png").rename(data / "train" / "green" / "9.png")
    words = refused(config, tmp_path, "class green had 3 images, now 4; train: class red had 3")
    assert "blue" not in words
    (data / "train" / "green" / "9.png").rename(red / "01.png")
    (data / "val").rename(tmp_path / "val")
    refused(config, tmp_path, "val: class blue has 1 images of other names")
    (tmp_path / "val").rename(data / "val")
    trained(config, tmp_path / "run" / "last.npz")


def test_another_seed_would_train_on_images_held_out(config, tmp_path):
    data = pictures(tmp_path / "whole", train=4, val=0)
    config = replace(config, data=str(data), epochs=1)
    trained(config)
    refused(replace(config, seed=1, epochs=2), tmp_path, "train: class", "val: class", "--seed")


def test_a_checkpoint_without_contents_is_taken_as_it_is(config, tmp_path):
    data = pictures(tmp_path / "changing", train=3, val=1)
    config = replace(config, data=str(data))
    trained(replace(config, max_steps=1))
    last = tmp_path / "run" / "last.npz"
    state = checkpoint.load(last)
    state.data = {}
    checkpoint.save(state, last)
    (data / "train" / "red" / "00.png").unlink()
    trained(config, last)


def test_of_many_changed_classes_the_first_are_told():
    classes = [f"class{number}" for number in range(8)]
    before = {"train": {name: [3, "aa"] for name in classes}, "val": {}}
    now = {"train": {name: [2, "bb"] for name in classes}, "val": {}}
    found = differences(before, now)
    assert len(found) == 6
    assert found[0] == "train: class class0 had 3 images, now 2"
    assert found[-1] == "and 3 more classes"
    assert differences({}, now) == differences(now, now) == []
    assert differences({"train": {}, "val": {"a": [1, "x"]}}, {"train": {}, "val": {}}) == [
        "val: class a had 1 images, now 0"
    ]


def test_contents_of_as_many_images_as_imagenet_take_little_time(tell):
    """A tenth of them, in half of the time that all may take: a machine may be busy."""
    labels = np.repeat(np.arange(1000, dtype=np.int32), 128)
    names = [f"train/n{label:08}/n{label:08}_{i}.JPEG" for i, label in enumerate(labels)]
    split = SimpleNamespace(labels=labels, names=names)

    classes = tuple(f"n{label:08}" for label in range(1000))
    began = time.perf_counter()
    found = contents(Dataset("many", classes, classes, split, None))
    seconds = time.perf_counter() - began
    tell(f"{len(names):,} names in {seconds:.2f} s")
    assert found["train"]["n00000007"][0] == 128
    assert len({digest for _, digest in found["train"].values()}) == 1000
    assert seconds < 1


def test_a_diverging_run_says_where_and_goes_on_with_a_lower_rate(config, tmp_path):
    """An epoch may end, and be saved, on weights that are huge but finite: best.npz is older."""
    trained(replace(config, max_steps=3))
    last, best = tmp_path / "run" / "last.npz", tmp_path / "run" / "best.npz"
    words = r"step \d .* not finite .*last\.npz with a lower --lr\. .*best\.npz"
    with pytest.raises(DivergedError, match=words):
        trained(replace(config, lr=1e6), last)
    state = checkpoint.load(last)
    assert all(np.isfinite(a).all() for a in (state.parameters | state.velocities).values())
    assert "not finite" in records(tmp_path / "run")[-1]["text"]
    trained(replace(config, lr=1e-4), best)
    assert checkpoint.load(last).progress.step == STEPS


@pytest.mark.parametrize("parameter", ["conv1.weight", "conv4.bias", "fc8.weight"])
@pytest.mark.slow
def test_a_parameter_that_is_not_finite_is_named_and_not_saved(parameter, config, tmp_path):
    """In the fourth step: the second batch of the second epoch."""
    trained(replace(config, max_steps=3))
    last = tmp_path / "run" / "last.npz"
    before = last.read_bytes()
    run = begun(config, last)
    run.network.parameters[parameter].reshape(-1)[0] = np.nan
    words = rf"at step 4 \(epoch 2, batch 2\) the parameter {parameter} is not finite"
    with pytest.raises(DivergedError, match=words):
        train(run, quiet)
    with pytest.raises(DivergedError, match=f"after step 3 the parameter {parameter}"):
        Recorder(run, Stop(), quiet).save()
    assert last.read_bytes() == before
    trained(config, last)


def test_an_activation_that_is_not_finite_is_named(config, tmp_path):
    trained(replace(config, max_steps=3))
    last = tmp_path / "run" / "last.npz"
    run = begun(config, last)
    run.network.parameters["conv3.weight"][...] = 3e38
    with pytest.raises(DivergedError, match="the output of conv3 is not finite"):
        train(run, quiet)


def test_validation_that_overflows_says_after_which_step(config, tmp_path):
    trained(replace(config, max_steps=1))
    last = tmp_path / "run" / "last.npz"
    run = begun(config, last)

    def overflowing(*arguments, **settings):
        raise DivergedError("infinite")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "evaluate", overflowing)
        with pytest.raises(DivergedError, match="after step 2 the answer to a validation image"):
            train(run, quiet)


@pytest.mark.parametrize("saves", [0, 1, 2])
@pytest.mark.slow
def test_a_run_resumed_elsewhere_and_killed_while_it_begins_comes_to_the_same_end(
    saves, config, tmp_path, monkeypatch
):
    """After so many checkpoints have been written there."""
    config = replace(config, lr=STANDING)  # no epoch is better than the first
    trained(replace(config, max_steps=4))
    last, other = tmp_path / "run" / "last.npz", into(config, tmp_path / "other")
    save, written = checkpoint.save, []

    def killed(state, path):
        if len(written) == saves:
            raise KeyboardInterrupt
        written.append(path)
        save(state, path)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            trained(other, last)
    begun_there = [path for path in (tmp_path / "other").iterdir() if path.suffix == ".npz"]
    if begun_there:
        trained(other, checkpoint.find(tmp_path / "other", resume=True))
    else:
        trained(other, last)
    trained(config, last)
    for name in ("last.npz", "best.npz"):
        assert saved(tmp_path / "other" / name) == saved(tmp_path / "run" / name)
    assert records(tmp_path / "other") == records(tmp_path / "run")


def test_after_the_data_have_moved_the_best_epoch_knows_where_to(config, tmp_path, capsys):
    data = pictures(tmp_path / "before", train=2, val=1)
    config = replace(config, data=str(data), lr=STANDING)
    trained(replace(config, max_steps=4))
    moved = data.rename(tmp_path / "after")
    argv = ["train", "--resume", str(tmp_path / "run"), "--data", str(moved)]
    assert main(argv) == 0
    assert checkpoint.load(tmp_path / "run" / "best.npz").progress.epoch == 1
    assert main(["eval", str(tmp_path / "run")]) == 0
