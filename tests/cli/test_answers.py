"""Answers and errors as tables, folders of pictures, and runs that end early or quietly."""

import csv
import dataclasses
import json
import re
import shutil
import struct
import zlib
from unittest import mock

import pytest
from runs import begun, pictures, refused

from tinyalex.cli.parser import main
from tinyalex.net.presets import get_architecture
from tinyalex.runs import checkpoint
from tinyalex.runs.config import Config
from tinyalex.runs.weights import load_networks
from tinyalex.training.loop import train
from tinyalex.training.recorder import Recorder

CLASSES = ["blue", "green", "red"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return pictures(tmp_path_factory.mktemp("answers") / "photos", train=6, val=3)


@pytest.fixture(scope="module")
def run(data):
    with mock.patch.object(Recorder, "draw"):
        folder = data.parent / "run"
        argv = ["train", "--data", str(data), "--arch", "mini", "-b", "6", "--epochs", "1"]
        assert main([*argv, "--output-dir", str(folder), "--quiet"]) == 0
    return folder


def rows(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def test_predict_takes_folders_and_archives_and_writes_a_table(run, data, tmp_path, capsys):
    folder = data / "val"
    for kind in ("zip", "tar", "gztar"):
        shutil.make_archive(str(tmp_path / kind), kind, folder)
    archives = [str(tmp_path / name) for name in ("zip.zip", "tar.tar", "gztar.tar.gz")]
    one, table = str(folder / "red" / "00.png"), tmp_path / "answers.csv"
    argv = ["predict", str(run), one, str(folder), *archives, "--json", "--csv", str(table)]
    assert main([*argv, "--topk", "2"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(lines) == 1 + 4 * 9
    inside = [f"{c}/{i:02}.png" for c in CLASSES for i in range(3)]
    assert [line["image"] for line in lines[1:10]] == [f"{folder}/{name}" for name in inside]
    assert [line["image"] for line in lines[10:19]] == [f"{archives[0]}/{name}" for name in inside]
    answers = [line["predictions"] for line in lines]
    assert answers[1:10] == answers[10:19] == answers[19:28] == answers[28:]
    assert answers[0] == answers[7]  # the picture by itself

    head, *found = rows(table)
    assert head == ["image", "class_1", "probability_1", "class_2", "probability_2"]
    for row, line in zip(found, lines, strict=True):
        told = [v for p in line["predictions"] for v in (p["class"], p["probability"])]
        assert row == [line["image"], *(v if isinstance(v, str) else f"{v:.6f}" for v in told)]


def test_pictures_that_cannot_be_read_leave_the_table_of_the_others(run, data, tmp_path, capsys):
    shutil.copytree(data / "val" / "red", tmp_path / "mixed")
    (tmp_path / "mixed" / "bad.jpg").write_text("no picture")
    argv = ["predict", str(run), str(tmp_path / "mixed"), "--csv", str(tmp_path / "a.csv")]
    assert main(argv) == 4
    assert "bad.jpg" in capsys.readouterr().err
    assert len(rows(tmp_path / "a.csv")) == 1 + 3
    (tmp_path / "mixed" / "bad.jpg").unlink()
    refused(capsys, 6, "--csv", argv=[*argv[:-1], tmp_path / "nowhere" / "a.csv"])


def test_eval_tells_of_each_class(run, data, tmp_path, capsys):
    table = tmp_path / "classes.csv"
    assert main(["eval", str(run), "--per-class", "--csv", str(table), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [c["class"] for c in found["classes"]] == CLASSES
    assert [c["images"] for c in found["classes"]] == [3, 3, 3]
    right = sum(c["right"] for c in found["classes"])
    assert right == pytest.approx(9 * (1 - found["top1_error"]))
    for c in found["classes"]:
        assert c["accuracy"] == pytest.approx(c["right"] / 3, abs=1e-4)
    head, *lines = rows(table)
    assert head == ["class", "images", "right", "accuracy"]
    assert lines == [[str(v) for v in c.values()] for c in found["classes"]]

    only_red = tmp_path / "red"
    shutil.copytree(data / "val" / "red", only_red / "val" / "red")
    assert main(["eval", str(run), "--data", str(only_red), "--per-class"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"     - % of +0 right  blue\n", out)
    assert re.search(r"\d\.\d\d % of +3 right  red\n", out)


def test_errors_have_intervals_and_top5_stands_where_it_tells(run, data, tmp_path, capsys):
    assert main(["eval", str(run)]) == 0
    out = capsys.readouterr().out
    assert re.search(r"top-1 error  \d+\.\d\d %  \(95 % interval \d+\.\d\d to \d+\.\d\d %\)", out)
    assert "of so few images the error is hardly known" in out
    assert "top-5" not in out
    lines = []
    six = pictures(tmp_path / "six", train=6, val=40)
    for name in CLASSES:
        for split in ("train", "val"):
            shutil.copytree(six / split / name, six / split / f"dark{name}")
    for images, folder in ((data, "three"), (six, "six")):
        config = Config(data=str(images), arch="mini", batch_size=6, epochs=1)
        with mock.patch.object(Recorder, "draw"):
            train(
                begun(dataclasses.replace(config, output_dir=str(tmp_path / f"r{folder}"))),
                lines.append,
            )
    epochs = [line for line in lines if line.startswith("epoch   1  loss")]
    assert ["top-5 error" in line for line in epochs] == [False, True]
    assert all(re.search(r"top-1 error +\d+\.\d\d % \(\d+\.\d\d to \d+\.\d\d\)", e) for e in epochs)
    best = [line for line in lines if line.startswith("Best")]
    assert all(re.search(r"error \d+\.\d\d %, 95 % interval \d+\.\d\d to", line) for line in best)
    assert sum("so few validation images" in line for line in lines) == 1  # of 9, not of 240
    logged = (tmp_path / "rthree" / "metrics.jsonl").read_text().splitlines()[-1]
    assert json.loads(logged)["val_top5_error"] == 0  # the log has all numbers always


def test_a_run_ends_early_and_goes_on_with_more_patience(data, tmp_path):
    last = tmp_path / "early" / "last.npz"

    def ended(patience, epochs, resume=None):
        lines = []
        config = Config(
            data=str(data), arch="mini", batch_size=18, epochs=epochs, lr=1e-9,
            early_stopping=patience, output_dir=str(last.parent),
        )  # fmt: skip
        with mock.patch.object(Recorder, "draw"):
            train(begun(config, resume), lines.append)
        return lines, [
            r["epoch"] for r in checkpoint.load(tmp_path / "early" / "last.npz").progress.history
        ]

    lines, epochs = ended(2, 9)
    assert epochs == [1, 2, 3]  # nothing is learnt at that rate, so that the first is the best
    assert "Stopped early: 2 epochs without a better error." in lines
    last = tmp_path / "early" / "last.npz"
    lines, epochs = ended(2, 9, last)
    assert epochs == [1, 2, 3]
    assert any(
        "nothing is left to train" in line and "--early-stopping 2" in line for line in lines
    )
    lines, epochs = ended(4, 9, last)
    assert epochs == [1, 2, 3, 4, 5]
    lines, epochs = ended(None, 6, last)
    assert epochs == [1, 2, 3, 4, 5, 6]
    assert not any("Stopped early" in line for line in lines)


def test_a_quiet_run_prints_its_last_lines(data, tmp_path, capsys):
    with mock.patch.object(Recorder, "draw"):
        argv = ["train", "--data", str(data), "--arch", "mini", "-b", "6", "--epochs", "1", "-q"]
        assert main([*argv, "--output-dir", str(tmp_path / "run")]) == 0
        out, err = capsys.readouterr()
        assert out.startswith("Best: ")
        assert not err
        refused(capsys, 2, "already holds a run", argv=[*argv, "--output-dir", tmp_path / "run"])


def test_what_is_assumed_of_another_programs_file_is_told_once(run, data, tmp_path, capsys):
    (tmp_path / "net.pth").write_bytes(b"weights")
    notes = ["B is taken for A.", "The mean is black."]
    _, state = checkpoint.load_run(run)
    with mock.patch("tinyalex.training.trained.read", return_value=(state, notes)):
        assert main(["predict", str(tmp_path / "net.pth"), str(data / "val" / "red")]) == 0
    err = capsys.readouterr().err
    assert err == "".join(f"tinyalex: note: {note}\n" for note in notes)


def test_one_run_may_be_named_without_a_list(run):
    (state,), (network,) = load_networks(str(run))
    assert network.architecture == get_architecture("mini").with_classes(3)
    assert list(state.classes) == CLASSES


def test_a_png_whose_text_is_too_long_is_not_called_damaged(run, tmp_path, capsys):
    def chunk(name, content):
        check = zlib.crc32(name + content)
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", check)

    head = struct.pack(">IIBBBBB", 4, 4, 8, 2, 0, 0, 0)
    parts = {
        b"IHDR": head,
        b"zTXt": b"Comment\0\0" + zlib.compress(bytes(2**21)),
        b"IDAT": zlib.compress((b"\0" + b"\x40" * 12) * 4),
        b"IEND": b"",
    }
    path = tmp_path / "text.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts.items()))
    out = refused(capsys, 4, path, "texts", argv=["predict", run, path])
    assert "fetch it again" not in out.err


def test_a_folder_of_runs_names_the_newest(run, tmp_path, capsys):
    for name in ("first", "second"):
        shutil.copytree(run, tmp_path / "runs" / name)
    refused(
        capsys, 5, f"newest run there is {tmp_path}/runs/second", argv=["eval", tmp_path / "runs"]
    )
