"""What of the images arrives at each layer, and the warning when a loss stands at ln(classes)."""

import json
import math
from functools import cache

import numpy as np
import pytest
from runs import few_images

from tinyalex import reference
from tinyalex.cli.parser import main
from tinyalex.data import open_data
from tinyalex.measure import image_signal as image_signal_module
from tinyalex.measure.image_signal import image_signal
from tinyalex.net.draws import centre_draws, initial_parameters
from tinyalex.net.network import Network
from tinyalex.net.presets import get_architecture
from tinyalex.reports import differences
from tinyalex.runs.progress import Progress
from tinyalex.training.standstill import Standstill

pytestmark = pytest.mark.xdist_group("signal")  # of networks as large as AlexNet: seconds each
initial_signal = cache(image_signal_module.initial_signal)


def network(name):
    architecture = get_architecture(name)
    size = architecture.data.image_size
    mean = np.full((size, size, 3), 120, np.float32)
    return Network(architecture, reference, initial_parameters(architecture, 0), mean)


def images(count):
    split = open_data(None, 32, seed=0).train
    return np.stack([split.read(i) for i in range(count)])


def test_signal_is_the_spread_over_images():
    mini, pictures = network("mini"), images(6)
    logits, _ = mini.forward(pictures, centre_draws(mini.architecture.data, 6))
    found = image_signal(mini, pictures)
    assert list(found) == ["conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8"]
    spread = logits - logits.mean(0)
    std = math.sqrt((spread**2).mean())
    assert found["fc8"].std == pytest.approx(std, rel=1e-5)
    assert found["fc8"].share == pytest.approx(std / math.sqrt((logits**2).mean()), rel=1e-5)


def test_equal_images_have_no_signal():
    found = image_signal(network("mini"), np.repeat(images(1), 4, 0))
    assert all(signal.share < 1e-6 for signal in found.values())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "std"),
    [("alexnet", 0.053), ("paper", 0.0035), ("2012", 0.053)],
)
def test_signal_of_the_presets(name, std):
    """Expected: measured with PyTorch on 48 photos of ImageNet, mean of two seeds."""
    found = initial_signal(get_architecture(name), reference)["fc8"].std
    assert found == pytest.approx(std, rel=0.2)


def stood_still(name, loss):
    progress, told, shown = Progress(), [], images(8)
    recipe, labels = get_architecture(name).recipe, np.arange(1000, dtype=np.int32) % 10
    standstill = Standstill(network(name), progress, recipe, labels)
    for progress.step in range(1, 3 * Standstill.STEPS + 1):
        if text := standstill.after_step(loss, shown):
            told.append((progress.step, text))
    return told


def test_a_network_that_answers_all_images_alike_is_told_of_once():
    ((step, text),) = stood_still("mini+paper-init", math.log(10) + 0.01)
    assert step == Standstill.STEPS
    assert "one answer to all images costs 2.303" in text
    share = image_signal(network("mini+paper-init"), images(8))["fc8"].share
    assert f"fc8 {100 * share:.2g} %" in text


def test_a_loss_elsewhere_or_a_sound_signal_is_no_standstill():
    assert not stood_still("mini+paper-init", 2.2)
    assert not stood_still("mini", math.log(10))


@pytest.mark.slow
def test_training_warns_and_writes_it_down(tmp_path, monkeypatch, capsys):
    few_images(monkeypatch, 2000)
    argv = ["train", "--arch", "mini+paper-init", "--max-steps", "101", "-b", "16"]
    assert main([*argv, "--output-dir", str(tmp_path)]) == 0
    assert "The loss has stood at 2.3" in capsys.readouterr().out
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    (note,) = [r for r in records if r["event"] == "note"]
    assert note["step"] == 100


@pytest.mark.slow
def test_summary_compares_the_networks(monkeypatch, capsys):
    monkeypatch.setattr(differences, "initial_signal", initial_signal)
    assert main(["summary", "--compare", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert tuple(found["networks"]) == tuple(found["signal"]) == differences.COMPARED
    values = {d["aspect"]: d["values"] for d in found["differences"]}
    assert values["initial std of conv1 to conv5"]["paper"] == "0.01 0.01 0.01 0.01 0.01"
    assert values["input, pixels"]["2012"] == "224, 3 zeros right and below"
    assert values["layer 1"]["2012"] == "conv, norm, pool, ReLU"
    assert values["weight decay"]["owt"] == "0.0001, of biases too"
    assert values["weight decay"]["owt-2014"] == "0.0005"
    assert values["initial bias of conv1 to fc8"]["owt"] == "uniform within 1/sqrt(inputs)"
    assert 0.08 < found["signal"]["owt"]["fc8"]["share"] < 0.11  # torchvision's own draws: as much
    assert all(d["source"] and len(set(d["values"].values())) > 1 for d in found["differences"])
    assert found["signal"]["alexnet"]["fc8"]["share"] > 5 * found["signal"]["paper"]["fc8"]["share"]

    assert main(["summary", "--compare"]) == 0
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80  # of a terminal that tests do not have
    assert "initial std of conv1 to conv5\n  0.01 0.01 0.03 0.03 0.03" in text


def after_epochs(*epochs, count=80, name="mini"):
    """What is told after each of the epochs (loss, val_loss, val_answers) of two classes."""
    labels = np.arange(count, dtype=np.int32) % 2
    mini = network(name)
    standstill = Standstill(mini, Progress(), get_architecture(name).recipe, labels)
    told = []
    for loss, val_loss, answers in epochs:
        record = {"loss": loss, "val_loss": val_loss, "val_answers": answers, "val_top1_error": 0.5}
        standstill.progress.finish_epoch(record)
        told.append(standstill.after_epoch())
    return told


def test_two_classes_that_get_one_answer_are_told_of_while_it_happens(monkeypatch):
    """Losses of `alexnet` on 720 photos at its own rate; at a tenth it learns at once."""
    first, second, third = after_epochs(
        (3.446, 0.61, 2), (1.778, 1.82, 1), (0.69, 0.7, 1), count=720
    )
    assert not first
    assert "been 2.612 for 2 epochs; one answer to all images costs 0.693" in second
    assert "given the same class" in second
    assert "a lower rate (--lr 0.00035), as the first" in second
    assert not third


def test_a_loss_that_stands_in_small_epochs_is_told_of_after_a_thousand_images():
    told = after_epochs(*[(0.7, 0.69, 2)] * 12, count=100)
    assert [bool(text) for text in told] == [False] * 9 + [True, False, False]
    assert "--lr 0.00035 or 0.035" in told[9]
    assert "--weights" in told[9]
    assert not any(after_epochs(*[(0.7, 0.6, 2)] * 12, count=100))  # validation falls: dropout
    assert any(after_epochs(*[(0.2, 0.3, 1)] * 12, count=100))


def test_one_answer_costs_what_the_shares_of_the_classes_say():
    recipe, labels = get_architecture("mini").recipe, np.repeat([0, 1], [90, 10]).astype(np.int32)
    found = Standstill(network("mini"), Progress(), recipe, labels).one_answer
    assert found == pytest.approx(0.325, abs=1e-3)


def test_a_sound_network_whose_loss_stands_is_told_of_after_a_thousand_steps(monkeypatch):
    monkeypatch.setattr(Standstill, "LONG", 200)
    ((step, text),) = stood_still("mini", math.log(10))
    assert step == 200
    assert "another rate" in text
