"""Toy runs for the tests of what a run survives: their images, what they come to, how they err."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from PIL import Image

from tinyalex.cli.parser import main
from tinyalex.data import builtin
from tinyalex.runs import checkpoint
from tinyalex.runs.checkpoint import Checkpoint
from tinyalex.runs.config import Config
from tinyalex.training.loop import train
from tinyalex.training.recorder import Recorder
from tinyalex.training.start import Run, prepare


def quiet(line: str) -> None:
    """Takes what a run says."""


TIMES = ("images_per_second", "data_wait")  # what no two runs have in common


def pictures(folder: Path, train: int, val: int, size: int = 32) -> Path:
    """Three classes of noise, so many pictures a class; without `val` the rest is held out."""
    rng = np.random.default_rng(0)
    for split, count in (("train", train), ("val", val)):
        for name in ("blue", "green", "red") if count else ():
            (folder / split / name).mkdir(parents=True)
            for i in range(count):
                noise = Image.fromarray(rng.integers(0, 256, (size, size, 3), np.uint8))
                noise.save(folder / split / name / f"{i:02}.png")
    return folder


def few_images(monkeypatch: Any, count: int) -> None:
    """So many of the 10,000 built-in images to train on: their mean alone would take seconds."""
    fewer = partial(builtin.builtin_dataset, training_images=count)
    monkeypatch.setattr(builtin, "builtin_dataset", fewer)


def trained(config: Config, resume: Path | None = None) -> Run:
    """A run in this process, quiet and without pictures, to its end.

    resume: the checkpoint to go on from.
    """
    run = begun(config, resume)
    with mock.patch.object(Recorder, "draw"):
        train(run, quiet)
    return run


def begun(config: Config, resume: Path | None = None, say: Callable[[str], None] = quiet) -> Run:
    """A run that is ready to be trained. resume: the checkpoint to go on from."""
    resumed = None if resume is None else (resume, checkpoint.load(resume))
    return prepare(config, resumed, say=say)


def records(folder: Path) -> list[dict[str, Any]]:
    """metrics.jsonl without the times."""
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [without_times(json.loads(line)) for line in lines]


def without_times(record: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key not in TIMES}


def digests(state: Checkpoint) -> dict[str, str]:
    """SHA-256 of all that a run is at one moment; of history and progress all but the times."""
    history = [without_times(record) for record in state.progress.history]
    progress = [getattr(state.progress, name) for name in ("epoch", "batch", "step", "sums")]
    return {
        "parameters": _sha256(state.parameters),
        "velocities": _sha256(state.velocities),
        "mean": _sha256({"mean": state.mean, "colour": state.colour}),
        "history": hashlib.sha256(json.dumps([history, progress]).encode()).hexdigest(),
    }


def _sha256(arrays: dict[str, Any]) -> str:
    sha256 = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        sha256.update(f"{name} {array.dtype} {array.shape}".encode() + array.tobytes())
    return sha256.hexdigest()


def saved(path: Path) -> dict[str, str]:
    """The digests of a checkpoint file."""
    return digests(checkpoint.load(path))


def refused(capsys: Any, code: int, *words: object, argv: Iterable[object]) -> Any:
    """The command must exit with `code` and one paragraph that holds all the words."""
    assert main([str(a) for a in argv]) == code
    out = capsys.readouterr()
    assert out.err.startswith("tinyalex: ")
    assert out.err.count("\n") == 1
    assert "Traceback" not in out.err
    for word in words:
        assert str(word) in out.err
    return out
