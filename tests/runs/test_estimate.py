"""How long a run will take: told once, after twenty steps, and about right."""

import re
import time
from unittest import mock

import pytest
from runs import begun, few_images, pictures

from tinyalex.data import open_data
from tinyalex.data.batches import Kept
from tinyalex.runs.config import Config
from tinyalex.training.estimate import duration
from tinyalex.training.loop import train
from tinyalex.training.recorder import Recorder


def told(config):
    """The lines about time of a run without pictures, and the seconds from the first to its end."""
    lines = []

    def say(line):
        if "to go" in line:
            lines.append((line, time.monotonic()))

    with mock.patch.object(Recorder, "draw"):
        train(begun(config), say)
    return [line for line, _ in lines], time.monotonic() - (lines[0][1] if lines else 0)


def test_the_time_is_told_once_and_not_of_fewer_steps(tmp_path):
    data = str(pictures(tmp_path / "data", train=8, val=1))
    config = {"data": data, "arch": "mini", "batch_size": 6, "print_freq": 1000}
    lines, _ = told(Config(**config, epochs=5, output_dir=str(tmp_path / "twenty")))
    assert lines == ["about 0 seconds to go"]
    lines, _ = told(Config(**config, epochs=4, output_dir=str(tmp_path / "sixteen")))
    assert not lines


def test_a_long_run_names_a_smaller_network_with_its_time(tmp_path):
    data = str(pictures(tmp_path / "data", train=8, val=1))
    config = Config(
        data=data, arch="cifar-18pct", batch_size=1, epochs=10**7, max_steps=10**7,
        output_dir=str(tmp_path / "run"),
    )  # fmt: skip
    lines = []

    def say(line):
        if "to go" in line:
            lines.append(line)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(begun(config), say)
    (line,) = lines
    units = r"([\d.]+ (?:minutes|hours|days))"
    assert re.fullmatch(
        rf"about {units} to go; with --arch mini about {units}, by the time of one of its steps",
        line,
    )


def test_images_that_are_decoded_once_are_counted_once(tmp_path):
    data = open_data(str(pictures(tmp_path / "data", 8, 2)), 32, seed=0)
    kept = Kept(data.train, 32)
    assert (kept.unknown, kept.decoding) == (24, 0)
    for index in (0, 0, 1):
        kept.read(index)
    assert kept.unknown == 22
    assert 0 < kept.decoding < 1


@pytest.mark.slow
def test_the_time_is_about_right(tmp_path, monkeypatch):
    few_images(monkeypatch, 2000)
    (line,), seconds = told(Config(arch="mini", epochs=2, output_dir=str(tmp_path)))
    number, unit = line.split()[1:3]
    assert unit == "seconds"
    assert 0.5 < float(number) / seconds < 2  # other programs run beside


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.4, "0 seconds"),
        (119, "119 seconds"),
        (120, "2 minutes"),
        (3600, "60 minutes"),
        (2.5 * 3600, "2.5 hours"),
        (86400 * 365, "365 days"),
    ],
)
def test_durations(seconds, words):
    assert duration(seconds) == words
