"""A damaged log costs the damaged lines, says so, and never a checkpoint."""

import json
import os
import random

import pytest
from runs import begun, pictures, records, refused, saved, trained

from tinyalex.cli.parser import main
from tinyalex.runs import checkpoint
from tinyalex.runs.config import Config
from tinyalex.runs.folder import RunFolder

STEPS = 6


@pytest.fixture
def config(tmp_path):
    images = pictures(tmp_path / "pictures", train=2, val=1)
    return Config(
        data=str(images), arch="mini", batch_size=4, epochs=3, print_freq=1,
        lr_scheduler="constant",
        output_dir=str(tmp_path / "run"),
    )  # fmt: skip


@pytest.fixture
def log(config, tmp_path):
    """Of a run of two epochs, of three lines each."""
    trained(Config(**{**vars(config), "max_steps": 4}))
    return tmp_path / "run" / "metrics.jsonl"


DAMAGED = {
    "not UTF-8": b'{"event": "note", "step": 1, "epoch": 0, "text": "\xff"}',
    "empty": b"",
    "cut": b'{"event": "step", "st',
    "a number": b"5",
    "null": b"null",
    "a list": b"[]",
    "an empty object": b"{}",
    "zeros": bytes(40),
    "deep": b"[" * 100_000,
    "of no known kind": b'{"event": [], "step": 1, "epoch": 1}',
    "a text for a number": b'{"event": "step", "step": "x", "epoch": 0.5, "loss": 1, "lr": 1}',
    "endless": b'{"event": "step", "step": 1, "epoch": 1e999, "loss": 1, "lr": 1}',
    "lacking a key": b'{"event": "epoch", "step": 1, "epoch": 1}',
}


@pytest.mark.parametrize("name", DAMAGED)
@pytest.mark.slow
def test_a_damaged_line_costs_itself_and_is_told_of(name, config, log, capsys):
    lines = log.read_bytes().splitlines()
    log.write_bytes(b"\n".join([lines[0], DAMAGED[name], *lines[2:], b""]))
    assert main(["show", "curves", str(log.parent)]) == 0
    assert "damaged lines, which are left out: 1." in capsys.readouterr().err
    said = []
    begun(config, log.with_name("last.npz"), said.append).folder.close()
    assert [line for line in said if line.startswith("note: ")] == [
        f"note: {log} has damaged lines, which are left out: 1."
    ]
    assert log.read_bytes().splitlines() == [lines[0], *lines[2:]]


def test_a_log_that_is_gone_is_told_of_and_keeps_the_epochs(config, log):
    """A checkpoint has the records of all finished epochs."""
    epochs = [line for line in log.read_bytes().splitlines() if b'"epoch", ' in line]
    log.unlink()
    said = []
    begun(config, log.with_name("last.npz"), said.append).folder.close()
    assert f"note: There is no {log}: the log begins anew." in said
    assert log.read_bytes().splitlines() == epochs
    assert len(epochs) == 2


def test_a_best_epoch_ahead_of_the_last_checkpoint_loses_no_line(config, log):
    """Killed between the two saves, resumed from last.npz, killed again, resumed from best.npz."""
    whole, last, best = log.read_bytes(), log.with_name("last.npz"), log.with_name("best.npz")
    ahead = checkpoint.load(last)
    assert ahead.progress.batch == 0
    checkpoint.save(ahead, best)
    ahead.progress.epoch, ahead.progress.batch = 1, 2  # before the second epoch was recorded
    del ahead.progress.history[1:]
    checkpoint.save(ahead, last)
    begun(config, last).folder.close()
    assert log.read_bytes() != whole
    begun(config, best).folder.close()
    assert log.read_bytes() == whole


def test_a_last_line_that_a_crash_cut_is_no_damage(config, log):
    with open(log, "ab") as file:
        file.write(b'{"event": "step", "step": 5, "epo')
    assert RunFolder(log.parent).damage() == ""
    trained(config, log.with_name("last.npz"))
    steps = [r["step"] for r in records(log.parent) if r["event"] == "step"]
    assert steps == list(range(1, STEPS + 1))


@pytest.mark.parametrize("what", ["folder", "pipe"])
def test_a_log_that_is_no_file(what, log, capsys):
    log.unlink()
    log.mkdir() if what == "folder" else os.mkfifo(log)
    for argv in (["show", "curves", log.parent], ["train", "--resume", log.parent]):
        refused(capsys, 5, log, "Remove it", argv=argv)


@pytest.mark.slow
def test_bytes_of_any_kind_cost_no_more_than_their_lines(config, log, tell):
    """Flipped, overwritten, inserted and removed at random; the run ends as if nothing were."""
    rng, whole = random.Random(), log.read_bytes()
    last = log.with_name("last.npz").read_bytes()
    for _ in range(50):
        data = bytearray(whole)
        for _ in range(rng.randint(1, 4)):
            place, length = rng.randrange(len(data)), rng.randint(0, 30)
            data[place : place + length] = rng.randbytes(rng.choice([0, length, 10]))
        log.write_bytes(bytes(data))
        kept = RunFolder(log.parent).records()
        sound = [json.loads(line) for line in whole.splitlines() if line in data.splitlines()]
        assert [r for r in kept if r in sound] == sound
        begun(config, log.with_name("last.npz")).folder.close()
        assert log.with_name("last.npz").read_bytes() == last
        left = log.read_bytes().splitlines()
        assert set(left) >= {line for line in whole.splitlines() if line in data.splitlines()}
    trained(config, log.with_name("last.npz"))
    assert len(saved(log.with_name("last.npz"))) == 4
    tell("50 damaged logs: no sound line lost")
