"""The paper's experiments, each from end to end on toy pictures, and the page of all of them."""

import base64
import io
import json
import math
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from pages import parsed
from PIL import Image
from runs import pictures, refused

from tinyalex import reproduce
from tinyalex.cli.parser import main
from tinyalex.errors import DataError, DivergedError
from tinyalex.measure.image_signal import Signal, initial_signal
from tinyalex.net.presets import get_architecture
from tinyalex.reproduce import ablations, initial, race, sharing, training
from tinyalex.reproduce.experiment import T95, Answer, Experiment, Request, Spread
from tinyalex.runs import checkpoint
from tinyalex.runs.folder import RunFolder
from tinyalex.system.backends import get_backend
from tinyalex.system.signals import StoppedBySignal
from tinyalex.training import loop
from tinyalex.training.recorder import Recorder

pytestmark = pytest.mark.xdist_group("reproduce")  # experiments share their runs

OURS = (race.race, *ablations.ABLATIONS, initial.initial, sharing.sharing)
FLAGS = ["--arch", "mini", "--backend", "reference", "--quick"]
TRAINED = ["--epochs", "1", "--seeds", "1"]


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """33 pictures to train on, one more than a batch of mini."""
    return pictures(tmp_path_factory.mktemp("reproduce") / "pictures", train=11, val=2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where experiments share their runs."""
    return tmp_path_factory.mktemp("results")


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    """Runs draw no pictures, and mini stands in for alexnet, whose signal takes seconds."""

    def signal_of_mini(architecture, ops):
        name = architecture.name.replace("alexnet", "mini")
        return initial_signal(get_architecture(name), ops)

    monkeypatch.setattr(Recorder, "draw", lambda self: None)
    monkeypatch.setattr(initial, "initial_signal", signal_of_mini)


def command(name, images, folder, *more):
    trained = [] if name == "sharing" else TRAINED
    return ["reproduce", name, "--data", str(images), *FLAGS, *trained, "-o", str(folder), *more]


def result(folder, name):
    """result.json without the time it took."""
    found = json.loads((folder / name / "result.json").read_text())
    assert found.pop("seconds") >= 0
    return found


@pytest.mark.parametrize("name", [experiment.name for experiment in OURS])
@pytest.mark.slow
def test_every_experiment_from_end_to_end(name, images, folder, capsys):
    assert main(command(name, images, folder)) == 0
    experiment, found = reproduce.EXPERIMENTS[name], result(folder, name)
    assert (found["name"], found["title"]) == (name, experiment.title)
    assert found["found"].endswith(".")
    assert found["rows"]
    assert all(len(row) == len(found["columns"]) for row in found["rows"])

    table = (folder / name / "table.md").read_text()
    told = capsys.readouterr().out
    for text in (experiment.title, experiment.paper, found["found"]):
        assert text in table
        assert text in told
    for row in (found["columns"], *found["rows"]):
        assert f"| {' | '.join(row)} |" in table

    with Image.open(folder / name / "figure.png") as image:
        picture = np.asarray(image.convert("RGB"))
    for border in (picture[:8], picture[-8:], picture[:, :8], picture[:, -8:]):
        assert (border == 255).all()  # no text is cut off


def test_networks_are_trained_on_what_is_asked(images, folder):
    main(command("depth", images, folder))
    found = result(folder, "depth")
    names = ["mini", "without conv2", "without conv3", "without conv4"]
    assert [row[0] for row in found["rows"]] == names
    assert found["setting"].startswith("mini on pictures (at most 6,000 images), 1 epoch, 1 seed, ")
    for name, change in zip(names, ("", "+without-conv2"), strict=False):
        run = folder / "runs" / f"pictures-quick-mini{change}-step1-seed0"
        (record,) = (r for r in RunFolder(run).records() if r["event"] == "epoch")
        assert found["errors"][name]["val_top1_error"] == [record["val_top1_error"]]


def test_quick_bounds_the_images_whatever_the_data_hold(images, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("tinyalex.reproduce.experiment.QUICK_IMAGES", 32)
    monkeypatch.setattr("tinyalex.reproduce.experiment.QUICK_VAL", 4)
    data = Request(tmp_path, str(images), quick=True).dataset(32)
    assert (len(data.train.labels), len(data.require_val().labels)) == (32, 4)
    whole = Request(tmp_path, str(images)).dataset(32).train
    for i, name in enumerate(data.train.names):
        original = whole.names.index(name)
        assert data.train.labels[i] == whole.labels[original]
        np.testing.assert_array_equal(data.train.read(i), whole.read(original))

    counts = []
    monkeypatch.setattr(training.loop, "train_epoch", lambda run, _: counts.append(run) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(command("dropout", images, tmp_path))
    (run,) = counts
    assert (len(run.images.labels), len(run.val.labels)) == (32, 4)
    with pytest.raises(ZeroDivisionError):
        main([word for word in command("dropout", images, tmp_path) if word != "--quick"])
    assert len(counts[1].images.labels) == 33
    assert counts[1].folder.path != run.folder.path


def counted_epochs(monkeypatch):
    """A list that grows by one with every epoch that is trained."""
    epochs, train_epoch = [], loop.train_epoch

    def counting(run, recorder):
        epochs.append(run.architecture.name)
        return train_epoch(run, recorder)

    monkeypatch.setattr(loop, "train_epoch", counting)
    return epochs


@pytest.mark.slow
def test_what_is_finished_is_not_trained_again(images, tmp_path, monkeypatch):
    epochs = counted_epochs(monkeypatch)
    main(command("dropout", images, tmp_path))
    once = result(tmp_path, "dropout")
    assert epochs == ["mini", "mini+no-dropout"]
    assert main(command("dropout", images, tmp_path)) == 0
    assert main(command("augmentation", images, tmp_path)) == 0  # has mini in common with it
    assert epochs[2:] == ["mini+no-augmentation"]
    assert result(tmp_path, "dropout") == once
    assert main(command("dropout", images, tmp_path, "--epochs", "2")) == 0
    assert epochs[3:] == ["mini", "mini+no-dropout"]  # one epoch more
    assert main(command("dropout", images, tmp_path, "--epochs", "3")) == 0
    assert epochs[5:] == 3 * ["mini"] + 3 * ["mini+no-dropout"]  # the rate falls later


def test_of_a_longer_run_only_the_epochs_asked_for_count(images, tmp_path, monkeypatch):
    request = Request(tmp_path, data=str(images), backend="reference", say=lambda line: None)
    heard, epochs = [], counted_epochs(monkeypatch)

    def train(epochs, enough=lambda record: False):
        return training.train(request, "mini", 0, epochs, enough=enough, lr=0.01)

    def second(record):
        heard.append(record["epoch"])
        return record["epoch"] == 2

    ended = train(4, second)
    assert heard == [r["epoch"] for r in ended] == [1, 2]
    assert train(4, second) == ended
    assert train(1) == ended[:1]
    assert len(epochs) == 2
    assert [r["epoch"] for r in train(3)] == [1, 2, 3]
    assert len(epochs) == 3


def test_a_run_that_was_killed_between_its_two_files_goes_on(images, tmp_path):
    main(command("dropout", images, tmp_path))
    once = result(tmp_path, "dropout")
    for run in (tmp_path / "runs").iterdir():
        (run / "last.npz").unlink()  # best.npz is written before it
    assert main(command("dropout", images, tmp_path)) == 0
    assert result(tmp_path, "dropout") == once
    assert all((run / "last.npz").exists() for run in (tmp_path / "runs").iterdir())


def test_an_interrupted_experiment_goes_on_to_the_same_end(images, tmp_path, monkeypatch, capsys):
    step = Recorder.step

    def interrupted(self, *arguments):
        step(self, *arguments)
        if self.run.architecture.name == "mini+no-dropout" and self.run.progress.step == 3:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(Recorder, "step", interrupted)
        assert main(command("dropout", images, tmp_path / "a", "--epochs", "2")) == 130
    told = capsys.readouterr()
    assert told.err == "tinyalex: Stopped. The same command goes on from here.\n"
    assert not (tmp_path / "a" / "dropout").exists()
    for name in "ab":
        assert main(command("dropout", images, tmp_path / name, "--epochs", "2")) == 0
    assert result(tmp_path / "a", "dropout") == result(tmp_path / "b", "dropout")


def test_a_run_with_other_settings_is_not_taken_for_the_same(images, tmp_path, capsys):
    main(command("dropout", images, tmp_path))
    other = tmp_path / "other" / "pictures"
    shutil.copytree(images, other)
    run = tmp_path / "runs" / "pictures-quick-mini-step1-seed0"
    words = (f"{run} was trained with data {images}", other, "--output-dir")
    refused(capsys, 2, *words, argv=command("dropout", other, tmp_path))


def test_a_run_from_before_a_setting_was_added_is_the_same(images, tmp_path, capsys):
    main(command("dropout", images, tmp_path))
    last = tmp_path / "runs" / "pictures-quick-mini-step1-seed0" / "last.npz"
    state = checkpoint.load(last)
    del state.config["on_bad_image"], state.config["bias_lr_multiplier"]
    checkpoint.save(state, last)
    assert main(command("dropout", images, tmp_path)) == 0


def test_a_run_is_named_after_what_makes_it_another():
    request = Request(folder=Path("here"), data="/some/cifar10.tar")
    settings = ({}, {"lr": 0.01}, {"lr": 0.02}, {"lr_step_size": 2}, {"lr_step_size": 16})
    names = [training.run_folder(request, "mini", 1, s).name for s in settings]
    assert names == [
        f"cifar10-mini{s}-seed1" for s in ("", "-lr0.01", "-lr0.02", "-step2", "-step16")
    ]
    assert training.run_folder(Request(Path("here")), "mini", 0, {}) == Path(
        "here/runs/shapes-mini-seed0"
    )


@pytest.mark.parametrize("name", ["dropout", "sharing", "all"])
def test_a_folder_that_cannot_be_written_is_named(name, images, tmp_path, capsys):
    (tmp_path / "file").write_text("no folder")
    where = tmp_path / "file" / "results"
    refused(capsys, 6, where, "--output-dir", argv=command(name, images, where))


def test_names_that_do_not_exist_are_refused_before_any_work(images, tmp_path, capsys):
    known = ", ".join((*reproduce.EXPERIMENTS, "all"))
    words = ("'lnr'. Did you mean 'lrn'?", f"Known: {known}.")
    refused(capsys, 2, *words, argv=command("lnr", images, tmp_path))
    argv = command("lrn", images, tmp_path, "--arch", "mimi")
    refused(capsys, 2, "Did you mean 'mini'?", argv=argv)
    argv = command("init", images, tmp_path, "--arch", "paper")
    refused(capsys, 2, "paper has the paper's initial values already", argv=argv)
    assert not list(tmp_path.iterdir())


def test_a_flag_that_would_do_nothing_is_refused(images, tmp_path, capsys):
    for name, flag in (
        ("sharing", "--epochs"),
        *((name, "--seeds") for name in ("sharing", "maps", "predictions", "neighbors")),
    ):
        argv = ["reproduce", name, "--data", images, "-o", tmp_path, flag, "2"]
        refused(capsys, 2, f"{name} takes no {flag}", "filters", argv=argv)
    assert not list(tmp_path.iterdir())


def test_all_hands_each_experiment_the_flags_it_takes(tmp_path, monkeypatch):
    heard = {}

    def listening(name):
        def run(request, title):
            heard[name] = request.epochs, request.seeds
            raise DataError("Heard.")

        return experiment(name, run)

    registered(monkeypatch, *map(listening, ("sharing", "maps", "filters")))
    main(["reproduce", "all", "-o", str(tmp_path), "--epochs", "2", "--seeds", "3"])
    assert heard == {"sharing": (None, None), "maps": (2, None), "filters": (2, 3)}


def test_ablations_need_validation_images(tmp_path, capsys):
    for i in range(33):  # one of each class: none can be spared
        (tmp_path / "single" / f"{i:02}").mkdir(parents=True)
        Image.new("RGB", (32, 32), (i, i, i)).save(tmp_path / "single" / f"{i:02}" / "1.png")
    argv = command("lrn", tmp_path / "single", tmp_path / "results")
    refused(capsys, 4, "no validation images", "--data", argv=argv)
    assert not (tmp_path / "results" / "runs").exists()  # nothing was trained in vain


def test_help_lists_the_experiments_and_costs_nothing_elsewhere(capsys):
    with pytest.raises(SystemExit) as end:
        main(["reproduce", "--help"])
    assert end.value.code == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    for experiment in reproduce.EXPERIMENTS.values():
        assert f"{experiment.name} {experiment.title}" in lines
    program = (
        "import sys; from tinyalex.cli.parser import parser; parser().format_help()\n"
        "assert not {'tinyalex.reproduce', 'numpy', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


# What the frame computes


def test_a_spread_is_that_of_students_t():
    spread = Spread((0.1, 0.2, 0.3))
    assert spread.mean == pytest.approx(0.2)
    assert spread.error == pytest.approx(4.30 * 0.1 / math.sqrt(3))
    assert spread.percent() == "20.00 (10.00 to 30.00)"
    assert spread.points() == "+20.00 ± 24.83"
    equal = Spread((0.5,) * 40)
    assert (equal.error, equal.percent()) == (0, "50.00")
    alone = Spread((-0.03,))
    assert math.isinf(alone.error)
    assert math.isinf(Spread((0.1, 0.2)).error)
    assert (alone.percent(), alone.points()) == ("-3.00", "-3.00")
    assert (Spread((0.5, 0.4)) - Spread((0.2, 0.3))).values == pytest.approx((0.3, 0.1))


def test_t_holds_95_percent():
    for freedom, t in enumerate(T95, 2):
        scale = math.gamma((freedom + 1) / 2) / math.gamma(freedom / 2)
        x = np.linspace(-t, t, 10_001)
        density = (
            scale / math.sqrt(math.pi * freedom) * (1 + x**2 / freedom) ** (-(freedom + 1) / 2)
        )
        assert density.mean() * 2 * t == pytest.approx(0.95, abs=5e-4)


def test_many_seeds_take_the_last_t():
    values = tuple(np.linspace(0, 1, 30))
    assert Spread(values).error == pytest.approx(T95[-1] * np.std(values, ddof=1) / math.sqrt(30))
    ten = values[:10]
    assert Spread(ten).error == pytest.approx(T95[7] * np.std(ten, ddof=1) / math.sqrt(10))


@pytest.mark.parametrize(
    ("errors", "epochs"),
    [
        ([0.5, 0.2], 1 + 0.25 / 0.3),
        ([0.2, 0.1], 0.75 / 0.8),
        ([0.6, 0.25, 0.3], 2.0),
        ([0.6, 0.7, 0.2], 2 + 0.45 / 0.5),
        ([0.6, 0.3], math.nan),
        ([], math.nan),
    ],
)
def test_the_target_is_reached_between_two_epochs(errors, epochs):
    history = [{"epoch": i, "top1_error": e} for i, e in enumerate(errors, 1)]
    assert race.reached(0.25, history) == pytest.approx(epochs, nan_ok=True)


NOT = math.nan


@pytest.mark.parametrize(
    ("relu", "tanh", "words"),
    [
        ([2.0], [12.0], "after 2.0 epochs and tanh after 12.0: 6.0 times"),
        ([2.0, 4.0], [12.0, 24.0], "after 3.0 epochs and tanh after 18.0: 6.0 times"),
        ([2.0], [NOT], "after 2.0 epochs; tanh has not in 30, more than 15.0 times"),
        ([2.0, 4.0], [NOT, NOT], "after 3.0 epochs; tanh has not in 30, more than 10.0 times"),
        ([2.0, 4.0], [20.0, NOT], "by 2 of 2 runs with ReLU and 1 with tanh"),
        ([2.0, NOT], [20.0, 20.0], "by 1 of 2 runs with ReLU and 2 with tanh"),
        ([NOT], [12.0], "30 epochs are too few: 25 % training error is reached by 0 of 1 run with"),
    ],
)
def test_the_race_in_words(relu, tanh, words):
    assert words in race.in_words(relu, tanh, 30)


def test_a_seed_that_diverges_has_not_reached_the_target(images, tmp_path, monkeypatch):
    train = loop.train

    def diverging(run, *arguments):
        if run.config.seed == 1 and run.config.arch.endswith("tanh"):
            run.folder.close()
            raise DivergedError("too high for this seed")
        train(run, *arguments)

    monkeypatch.setattr(loop, "train", diverging)
    assert main(command("relu-vs-tanh", images, tmp_path, "--seeds", "2")) == 0
    found = json.loads(
        (tmp_path / "relu-vs-tanh" / "result.json").read_text(),
        parse_constant=lambda name: pytest.fail(f"{name} is not JSON"),
    )
    assert found["rows"][-1][2:] == ["1", "not reached", "diverged"]
    assert found["epochs_to_target"]["tanh"][1] is None
    assert found["ratio"] is None


@pytest.mark.parametrize(
    ("errors", "best", "tried"),
    [
        ({1e-3: 0.5}, 1e-3, 3),  # others are worse
        ({3e-3: 0.5}, 3e-3, 4),  # the highest: one more is tried
        ({3e-3: 0.5, 1e-2: 0.4, 3e-2: 0.3}, 3e-2, 6),
        ({3e-4: 0.5, 1e-3: math.inf, 3e-3: math.inf}, 3e-4, 3),
    ],
)
def test_rates_are_tried_until_a_higher_one_is_worse(errors, best, tried):
    def error(rate):
        if math.isinf(found := errors.get(rate, 0.9)):
            raise DivergedError("too high")
        return found

    found = race.search(error, 1e-3, quick=False)
    assert next(iter(found)) == best
    assert list(found.values()) == sorted(found.values())
    assert len(found) == tried
    assert set(race.search(error, 1e-3, quick=True)) == {1e-3, 3e-3}


@pytest.mark.parametrize(
    ("errors", "best", "lengths"),
    [
        ({0.1: [0.6, 0.2], 0.3: [0.3, 0.2]}, 0.3, [4, 2]),  # the second has to be as soon
        ({0.1: [0.6, 0.2], 0.3: [0.3, 0.3, 0.2]}, 0.1, [4, 2]),
        ({0.1: [0.6, 0.5, 0.4, 0.3], 0.3: [0.6, 0.2]}, 0.3, [4, 4]),
        ({0.1: [0.6, 0.5, 0.4, 0.3], 0.3: [0.6, 0.5, 0.4, 0.4]}, 0.1, [4, 4]),
        ({0.1: [0.6, 0.5, 0.4, 0.4], 0.3: DivergedError("too high")}, 0.1, [4, 4]),
    ],
)
def test_the_rate_that_is_there_first_is_the_best(errors, best, lengths):
    asked = []

    def run(rate, epochs):
        asked.append(epochs)
        if isinstance(errors[rate], DivergedError):
            raise errors[rate]
        return [{"epoch": i, "top1_error": e} for i, e in enumerate(errors[rate], 1)][:epochs]

    assert race.final(run, [0.3, 0.1], longest=4) == best
    assert asked == lengths


def test_rates_that_all_diverge_in_the_end_are_named():
    def run(rate, epochs):
        raise DivergedError("too high")

    with pytest.raises(DivergedError, match=r"rates 0\.1, 0\.3"):
        race.final(run, [0.3, 0.1], longest=4)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ((0.02, 0.021, 0.019), "+2.00 points of error, which is beyond chance"),
        ((-0.02, -0.021, -0.019), "-2.00 points of error, which is beyond chance"),
        ((-0.02, 0.021, 0.019), "+0.67 points of error, not to be told from chance"),
        ((-0.02,), "-2.00 points of error, from 1 seed: too few to tell"),
        ((-0.02, -0.021), "-2.05 points of error, from 2 seeds: too few to tell"),
    ],
)
def test_a_difference_in_words(values, words):
    assert words in ablations.in_words(Spread(values))


# Initial values


def test_the_signal_and_the_loss_of_both_networks(images, folder):
    main(command("init", images, folder))
    found = result(folder, "init")
    assert list(found["signal"]) == ["mini", "mini+paper-init", "alexnet", "alexnet+paper-init"]
    assert found["ln_classes"] == pytest.approx(math.log(3))
    signal = found["signal"]["mini"]["fc8"]
    rows = {row[0]: row[1:] for row in found["rows"]}
    assert rows["fc8"][0] == f"{signal['std']:.2g} ({100 * signal['share']:.2g} %)"
    assert rows["conv1"][0].endswith("(100 %)")
    for at, name in enumerate(("mini", "mini+paper-init")):
        run = RunFolder(folder / "runs" / f"pictures-quick-{name}-lr0.0035-seed0")
        (last,) = (r for r in run.records() if r["event"] == "epoch")
        assert found["ends"][name]["loss"] == [last["loss"]]
        assert rows["loss in the last epoch"][at] == f"{last['loss']:.4f}"
        assert [r["step"] for r in initial.steps(run, 1)] == [1, 2]
        assert initial.steps(run, 0) == []
    assert rows["training error, %"][2:] == ["", ""]


def test_a_run_without_records_of_steps_has_those_of_epochs(tmp_path):
    run = RunFolder(tmp_path)
    for epoch in (1, 2, 3):
        rest = {"step": epoch, "top1_error": 0, "top5_error": 0, "lr": 1}
        run.record("epoch", {"epoch": epoch, "loss": 1 / epoch, **rest})
    assert [r["loss"] for r in initial.steps(run, 2)] == [1, 1 / 2]


def test_networks_of_other_layers_stand_in_one_table():
    signals = {
        "a": {"conv1": Signal(1, 0.5), "fc": Signal(2, 0.25)},
        "b": {"conv1": Signal(3, 0.1)},
    }
    ends = {"a": {"loss": Spread((1.0, 2.0)), "top1_error": Spread((0.5,))}}
    assert initial.table(signals, ends) == [
        ("conv1", "1 (50 %)", "3 (10 %)"),
        ("fc", "2 (25 %)", ""),
        ("loss in the last epoch", "1.5000", ""),
        ("training error, %", "50.00", ""),
    ]


def test_a_loss_that_has_not_left_chance_is_told():
    signals = {name: {"fc8": Signal(0.05, 0.1)} for name in ("mini", "alexnet")}
    signals |= {f"{name}+paper-init": {"fc8": Signal(0.005, 0.01)} for name in signals}
    words = initial.in_words(signals, {"mini": 1.2, "mini+paper-init": 2.31}, math.log(10), 4)
    assert "vary by 0.05 over the images, 10 % of their size" in words
    assert "by 0.005, 1 %: 10 times less" in words
    assert "After 4 epochs mini has a loss of 1.200; mini+paper-init has a loss of 2.310" in words
    assert words.count("stands at ln(classes) = 2.303") == 1
    assert words.index("2.310") < words.index("stands")


# Sharing


def conv1(name):
    return sharing.convolutions(name)[0]


def test_parameters_and_connections_of_alexnets_convolutions():
    layer, five = conv1("alexnet"), sharing.convolutions("alexnet")
    outputs, inputs, window = 55 * 55 * 96, 227 * 227 * 3, 11 * 11 * 3
    expected = {
        "convolution": (96 * window + 96, outputs * window),
        "unshared": (outputs * window + outputs, outputs * window),
        "fully connected": (outputs * inputs + outputs, outputs * inputs),
    }
    for kind, counts in expected.items():
        k = sharing.KINDS[kind]
        assert (k.parameters(layer), k.connections(layer)) == counts
    assert sum(map(sharing.KINDS["convolution"].parameters, five)) == 2_334_080
    assert sum(map(sharing.KINDS["unshared"].connections, five)) == 665_784_864


@pytest.mark.parametrize("name", ["mini", "2012", "alexnet"])
def test_unshared_windows_with_equal_weights_are_a_convolution(name):
    """network 2012's last windows reach beyond the image."""
    layer, rng = conv1(name), np.random.default_rng(0)
    row = layer.row
    x = rng.integers(-3, 4, (2, *layer.input)).astype(np.float32)
    w = rng.integers(-3, 4, (row.size, row.size, 3)).astype(np.float32)
    everywhere = np.broadcast_to(w, (*layer.output[:2], *w.shape))
    y, _ = get_backend("reference").conv2d(
        x, w[None], np.zeros(1, np.float32), row.stride, row.pad, 1, row.ceil
    )
    np.testing.assert_array_equal(sharing.own_weights(layer, x, everywhere), y[..., 0])


def test_unshared_windows_have_weights_of_their_own():
    layer, rng = conv1("mini"), np.random.default_rng(0)
    x = rng.integers(-3, 4, (1, *layer.input)).astype(np.float32)
    w = rng.integers(-3, 4, (28, 28, 5, 5, 3)).astype(np.float32)
    y = sharing.own_weights(layer, x, w)
    for i, j in ((2, 2), (10, 17), (25, 25)):  # whole windows
        assert y[0, i, j] == (x[0, i - 2 : i + 3, j - 2 : j + 3] * w[i, j]).sum()
    assert y[0, 0, 0] == (x[0, :3, :3] * w[0, 0, 2:, 2:]).sum()


def test_every_output_of_a_full_layer_has_its_weights_for_every_input():
    layer = conv1("mini")
    x = np.random.default_rng(0).standard_normal((2, *layer.input), np.float32)
    y = sharing.fully_connected(layer, x, np.random.default_rng(1))
    w = np.random.default_rng(1).standard_normal((28, 28, 28 * 28 * 3), np.float32)
    np.testing.assert_allclose(y, np.einsum("ijp,np->nij", w, x.reshape(2, -1)), atol=1e-2)


@pytest.mark.parametrize("name", ["mini", "2012", "alexnet", "cifar-19pct"])
def test_only_a_convolution_follows_a_shift(name):
    layer, architecture = conv1(name), get_architecture(name)
    images = sharing.image_and_shifted(Request(Path()), architecture.data, layer.row.stride)
    shift = sharing.SHIFT * layer.row.stride
    np.testing.assert_array_equal(images[1][:, shift:], images[0][:, :-shift])
    x = images.astype(np.float32) - images.mean(dtype=np.float32)

    def correlation(kind, maps):
        rng = np.random.default_rng(0)
        drawn = [kind(layer, x, rng) for _ in range(maps)]
        assert drawn[0].shape == (2, *layer.output[:2])
        return sharing.correlation(drawn, 1 + layer.row.pad)

    assert correlation(sharing.convolution, 1) > 0.9999
    assert abs(correlation(sharing.unshared, 4)) < 0.2
    if name == "mini":
        assert abs(correlation(sharing.fully_connected, 4)) < 0.2


# The page

HOSTILE = '<script>alert("1 & 2")</script>'


def experiment(name, run=None):
    def answer(request, title):
        rows = [("first", "1.5", HOSTILE), ("second", "", "b")]
        return Answer(Figure((2, 2)), HOSTILE, "setting", ("what", "number", "<i>"), rows)

    return Experiment(name, f"{name}? {HOSTILE}", HOSTILE, run or answer, HOSTILE)


def failing(request, title):
    raise DataError(f"These are no images. {HOSTILE}")


def registered(monkeypatch, *experiments):
    monkeypatch.setattr(reproduce, "EXPERIMENTS", {e.name: e for e in experiments})


def test_all_go_on_after_one_that_fails_and_stand_on_one_page(tmp_path, monkeypatch, capsys):
    registered(monkeypatch, experiment("one"), experiment("two", failing), experiment("three"))
    words = ("1 of 3 experiments have no result: two. two: These are no images.",)
    told = refused(capsys, DataError.exit_code, *words, argv=["reproduce", "all", "-o", tmp_path])
    assert f"All on one page: {tmp_path / 'index.html'}" in told.out
    assert (tmp_path / "three" / "table.md").exists()

    page = parsed(tmp_path / "index.html")
    for text in ("one? ", "two? ", "three? ", "second", "setting", "40.7 %", "15.3 %", "22,000"):
        assert text in page.text
    assert "No result here: These are no images." in page.text
    assert page.text.count("(no result)") == 1
    # title twice and paper in all three, error, and in two figures' found, remark and cell
    assert page.text.count(HOSTILE) == 3 * 3 + 1 + 2 * 3
    assert all(href[0] == "#" and href[1:] in page.all_of("id") for href in page.all_of("href"))
    sources = page.all_of("src")
    assert len(sources) == 2
    for source in sources:
        kind, data = source.split(",")
        assert kind == "data:image/png;base64"
        with Image.open(io.BytesIO(base64.b64decode(data, validate=True))) as picture:
            assert picture.format == "PNG"
    assert all(
        f"{name}? {HOSTILE}" in alt
        for name, alt in zip(("one", "three"), page.all_of("alt"), strict=True)
    )
    # a number stands on the right, though a cell is empty; names and words do not
    numbers = [(tag, value) for tag, key, value in page.attributes if value == "number"]
    assert [tag for tag, _ in numbers] == 2 * ["th", "td", "td"]


def test_the_page_needs_no_other_file(tmp_path, monkeypatch):
    registered(monkeypatch, experiment("one"))
    assert main(["reproduce", "all", "-o", str(tmp_path)]) == 0
    page = parsed(tmp_path / "index.html")
    assert not {"onload", "onclick", "srcset"} & {key for _, key, _ in page.attributes}
    for outside in ("http:", "https:", "url(", "@import"):
        assert outside not in (tmp_path / "index.html").read_text()
    assert "prefers-color-scheme: dark" in page.text  # the style


def test_a_signal_ends_all_of_them(tmp_path, monkeypatch, capsys):
    def stopped(request, title):
        raise StoppedBySignal("Stopped.", signal.SIGINT)

    registered(monkeypatch, experiment("one", stopped), experiment("two"))
    refused(capsys, 130, "Stopped.", argv=["reproduce", "all", "-o", tmp_path])
    assert not list(tmp_path.iterdir())


def test_a_page_that_cannot_be_written_is_named(tmp_path, monkeypatch, capsys):
    registered(monkeypatch, experiment("one"))
    (tmp_path / "index.html").mkdir()
    refused(capsys, 6, tmp_path / "index.html", argv=["reproduce", "all", "-o", tmp_path])
