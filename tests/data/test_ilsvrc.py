"""ILSVRC as it is downloaded: tars in place, and labels by WordNet id, not by the devkit's ids."""

from __future__ import annotations

import base64
import random
import struct
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from ilsvrc import DEVKIT, TRAIN, VAL, Ilsvrc, downloaded, ilsvrc, meta_mat, nested, unpacked
from trees import labelled, tarred, written, zipped

from tinyalex.cli.parser import main
from tinyalex.data import open_data
from tinyalex.data.dataset import Dataset
from tinyalex.data.formats.matlab import read_table
from tinyalex.data.packing.pack import pack
from tinyalex.errors import DataError
from tinyalex.runs.checkpoint import load


def check_labels(dataset: Dataset, made: Ilsvrc) -> None:
    """Every image has the label of its WordNet id, and every class its words."""
    assert dataset.classes == tuple(sorted(made.words))
    assert dataset.titles == tuple(made.words[wnid] for wnid in dataset.classes)
    train = labelled(dataset.train, dataset)
    assert train == {f"train/{name}": name.partition("/")[0] for name in made.train}
    assert labelled(dataset.val, dataset) == {
        f"val/{name}": wnid for name, wnid in made.wnid.items()
    }


@pytest.mark.slow
def test_a_thousand_classes_from_the_tars(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = ilsvrc(classes=1000, train=2, val=1)
    source, run = downloaded(tmp_path / "imagenet", made), tmp_path / "run"
    before = [(file.name, file.stat().st_mtime_ns) for file in sorted(source.iterdir())]
    pack(source, tmp_path / "packed", 32, workers=2, say=lambda line: None)
    for path in (source, tmp_path / "packed"):
        dataset = open_data(path, 32)
        check_labels(dataset, made)
        assert dataset.notes == ()
    # The trap: the devkit's ids taken for ranks among the WordNet ids would seldom be right.
    truth = made.devkit["data/ILSVRC2012_validation_ground_truth.txt"]
    wrong = np.array([int(line) for line in truth.split()]) - 1
    assert dataset.val is not None
    assert np.mean(dataset.val.labels[np.argsort(dataset.val.names)] == wrong) < 0.02
    assert before == [(file.name, file.stat().st_mtime_ns) for file in sorted(source.iterdir())]

    command = ["train", "--data", str(tmp_path / "packed"), "--arch", "mini", "-b", "8"]
    assert main([*command, "--max-steps", "2", "--output-dir", str(run)]) == 0
    assert load(run / "last.npz").classes == tuple(sorted(made.words))
    capsys.readouterr()
    assert main(["eval", str(run), "--data", str(tmp_path / "packed")]) == 0
    assert "1,000 validation images" in capsys.readouterr().out


def everything(dataset: Dataset) -> dict[str, tuple[int, bytes]]:
    return {
        split.names[i]: (int(split.labels[i]), split.read(i).tobytes())
        for split in (dataset.train, dataset.val)
        if split
        for i in range(len(split.labels))
    }


@pytest.mark.parametrize("train", ["tar", "folder"])
@pytest.mark.parametrize("val", ["tar", "folder", "folders"])
@pytest.mark.parametrize("devkit", ["tar", "folder"])
def test_each_part_may_be_unpacked(tmp_path: Path, train: str, val: str, devkit: str) -> None:
    made = ilsvrc(classes=4, train=3, val=2)
    reference = downloaded(tmp_path / "reference", made)
    hand = unpacked(tmp_path / "hand", made)
    folder = tmp_path / "mixed"
    folder.mkdir()
    for name, how, archive in (
        ("train", train, TRAIN),
        ("val", val, VAL),
        ("ILSVRC2012_devkit_t12", devkit, DEVKIT),
    ):
        if how == "folders":
            written(folder / "val", {f"{made.wnid[n]}/{n}": data for n, data in made.val.items()})
        else:
            part = archive if how == "tar" else name
            (folder / part).symlink_to((reference if how == "tar" else hand) / part)
    dataset = open_data(folder, 8)
    expected = everything(open_data(reference, 8))
    if val == "folders":
        names = {f"val/{n}": f"val/{wnid}/{n}" for n, wnid in made.wnid.items()}
        expected = {names.get(name, name): image for name, image in expected.items()}
    else:
        check_labels(dataset, made)
    assert everything(dataset) == expected


def test_2010(tmp_path: Path) -> None:
    made = ilsvrc(classes=5, train=2, val=3, year=2010)
    folder = tmp_path / "imagenet"
    folder.mkdir()
    tarred(folder / "ILSVRC2010_images_train.tar", nested(made))
    tarred(folder / "ILSVRC2010_images_val.tar", {f"val/{n}": d for n, d in made.val.items()})
    kit = {f"devkit-1.0/{name}": content for name, content in made.devkit.items()}
    tarred(folder / "ILSVRC2010_devkit-1.0.tar.gz", kit, "w:gz")
    check_labels(open_data(folder, 8), made)


def test_the_train_tar_alone_holds_some_out(tmp_path: Path) -> None:
    made = ilsvrc(classes=3, train=4, val=1)
    source = downloaded(tmp_path / "imagenet", made)
    dataset = open_data(source / TRAIN, 8)
    assert dataset.classes == tuple(sorted(made.words))
    assert dataset.val is not None
    assert Counter(dataset.val.labels.tolist()) == {0: 1, 1: 1, 2: 1}


def test_evaluation_needs_no_training_images(tmp_path: Path) -> None:
    made = ilsvrc(classes=3, train=1, val=2)
    source = downloaded(tmp_path / "imagenet", made)
    (source / TRAIN).unlink()
    classes = sorted(made.words, reverse=True)  # a checkpoint's
    dataset = open_data(source, 8, classes=classes)
    assert labelled(dataset.val, dataset) == {f"val/{n}": w for n, w in made.wnid.items()}
    with pytest.raises(DataError, match="validation images but no folder 'train'"):
        open_data(source, 8)


def test_a_folder_goes_before_the_tar_of_the_same(tmp_path: Path) -> None:
    made = ilsvrc(classes=3, train=2, val=1)
    source = downloaded(tmp_path / "imagenet", made)
    written(source / "train", dict(list(made.train.items())[:4]))
    assert f"{TRAIN} is not read, because there is a folder train." in open_data(source, 8).notes


def test_without_the_devkit_it_is_explained(tmp_path: Path) -> None:
    made = ilsvrc(classes=3, train=2, val=1)
    tars, folders = downloaded(tmp_path / "tars", made), unpacked(tmp_path / "folders", made)
    (tars / DEVKIT).unlink()
    (folders / "ILSVRC2012_devkit_t12" / "data" / "meta.mat").unlink()
    for path in (tars, folders):
        with pytest.raises(DataError, match=rf"3 files without.*put {DEVKIT} .* into {path}"):
            open_data(path, 8)
    with pytest.raises(DataError, match=rf"in no class folder.*Did you mean {tars}\?"):
        open_data(tars / VAL, 8)


def test_devkits_that_do_not_fit(tmp_path: Path) -> None:
    made = ilsvrc(classes=3, train=2, val=2)
    truth = "data/ILSVRC2012_validation_ground_truth.txt"
    cases: dict[str, tuple[dict[str, bytes], str]] = {
        "short": (
            {truth: b"1\n2\n"},
            r"val_00000003\.JPEG has no answer among the 2 of",
        ),
        "other ids": ({truth: b"9999\n" * 6}, r"Line 1 of the devkit's ground truth is 9999"),
        "no number": ({truth: b"one\n" * 6}, "is not the data of a devkit of ILSVRC"),
        "text": ({"data/meta.mat": b"no table" * 50}, "is not the data of a devkit of ILSVRC"),
        "other table": ({"data/meta.mat": meta_mat([{"a": 1}])}, "is not the data of a devkit"),
    }
    for case, (changed, message) in cases.items():
        source = unpacked(tmp_path / case, made)
        written(source / "ILSVRC2012_devkit_t12", changed)
        with pytest.raises(DataError, match=message):
            open_data(source, 8)
    source = unpacked(tmp_path / "gone", made)
    (source / "ILSVRC2012_devkit_t12" / truth).unlink()
    with pytest.raises(DataError, match=r"lacks ILSVRC2012_validation_ground_truth\.txt"):
        open_data(source, 8)


def test_damaged_tars_are_refused(tmp_path: Path) -> None:
    made = ilsvrc(classes=3, train=2, val=1)
    source = downloaded(tmp_path / "imagenet", made)
    whole = (source / TRAIN).read_bytes()
    inner = whole.index(b"_1.JPEG")  # the header of an image in an inner tar
    tarred(source / "empty.tar", {"n01.tar": b"", "n02.tar": nested(made).popitem()[1]})
    for content in (
        whole[:3000],
        whole[:inner] + b"?" * 50 + whole[inner + 50 :],
        (source / "empty.tar").read_bytes(),
    ):
        (source / TRAIN).write_bytes(content)
        with pytest.raises(DataError, match=TRAIN):
            open_data(source, 8)


def test_the_whole_way(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Check, pack, train, evaluate: on the pack and on the tars."""
    made = ilsvrc(classes=6, train=4, val=2)
    source, target, run = downloaded(tmp_path / "i", made), tmp_path / "p", tmp_path / "run"
    assert main(["data", "check", str(source)]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"{source}: ILSVRC\n")
    assert "12 images in 6 classes, 2 to 2 each" in out
    assert main(["data", "pack", str(source), "-o", str(target), "--size", "32"]) == 0
    arguments = ["--arch", "mini", "-b", "8", "--epochs", "1", "--output-dir", str(run)]
    assert main(["train", "--data", str(target), *arguments]) == 0
    for data in (target, source):
        capsys.readouterr()
        assert main(["eval", str(run), "--data", str(data)]) == 0
        assert "12 validation images" in capsys.readouterr().out
    assert main(["data", "check", str(source), "--against", str(target)]) == 0


# The table in the devkit

# Written by scipy.io.savemat: three structs with the fields of ILSVRC2012's meta.mat, compressed.
BY_SCIPY = base64.b64decode(
    "DwAAADQAAAB4nONjYGBIAGI2IOaA0iDACuUzQtkwOr8kI7UISHMCsQYDOvhgD2U4QCgOKC3gAADbPAT2DwAAAH4BAAB4"
    "nO2UzUrDQBDHt/ZDCxIqeKh42QfwkFSl7a2gggURUajHEJMxWUw2ZXdr7c2jD+AT+iTu2kS3S0o/cnVgWGYyv/9mNzOx"
    "EELtXYQact2TvoPmVs/iqvRK5rIM8RnlILh8XkMHWf5D+vDmYXR/0bGdjju8VAKPt/P116YpC7ieCOOULyToJHH9iMQB"
    "A/qTWAhyDQrCjYCEkcgQwTxCXZJ4IXBkyWQP/Z3HMs5T0VzZvpZHWf1A42sFfFOrb2UxtTuO0+/2+prO9QqdtqGj4hci"
    "8HP6doJHk3gMHCeez1JB+DrvZRl6KuaJF8c4ZDBTsmjr+8lN1dsa3zD43HK+qXFl992GP6yX4/N5KNMXtt09Pd9Ap+g7"
    "XtEwJjzCcvgEsPV0WoaOco/iXOqJAQT//bAZX9X2H6Bt+kGa0z2zl5yjSKdh6KgYqCBiNufvVvBHBn8sXUSewNOI+BEm"
    "HH+9f+IxMB/IKwSl7mfZvBTxOwav96uuU/Z/XqbPvgHuUlyE"
)
HEADER = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM"


def test_a_table_written_by_scipy() -> None:
    table = read_table(HEADER + BY_SCIPY, "synsets")
    assert [row["ILSVRC2012_ID"] for row in table] == [[1], [2], [3]]
    assert [row["WNID"] for row in table] == ["n02119789", "n02100735", "n00001740"]
    assert table[0]["words"] == "kit fox, Vulpes macrotis"
    assert table[2]["gloss"] == "that which is — perceived"
    assert [row["num_children"] for row in table] == [[0], [0], [2]]
    assert [row["children"] for row in table] == [[], [], [1, 2]]
    assert [row["num_train_images"] for row in table] == [[1300], [1300], [0]]


def test_a_table_is_found_by_its_name() -> None:
    rows: list[dict[str, object]] = [{"id": 300, "name": "å"}, {"id": 7, "name": ""}]
    data = meta_mat(rows, "first") + meta_mat([{"id": 1}], "second")[128:]
    assert read_table(data, "first") == [{"id": [300.0], "name": "å"}, {"id": [7], "name": ""}]
    assert read_table(data, "second") == [{"id": [1]}]
    with pytest.raises(ValueError, match="no table 'third'"):
        read_table(data, "third")


def test_damaged_tables_give_a_value_error_or_a_table() -> None:
    data, chooser = bytearray(HEADER + BY_SCIPY), random.Random(0)
    with pytest.raises(ValueError, match="not a MATLAB file"):
        read_table(bytes(data[:127]), "synsets")
    refused = 0
    for _ in range(300):
        place, bit = chooser.randrange(len(data)), 1 << chooser.randrange(8)
        data[place] ^= bit
        try:
            read_table(bytes(data), "synsets")
        except ValueError:
            refused += 1
        data[place] ^= bit
    raw = meta_mat([{"id": 300, "name": "abc"}])
    assert refused > 100
    for end in range(len(raw)):
        with pytest.raises(ValueError):  # noqa: PT011
            read_table(raw[:end], "synsets")
    bomb = struct.pack("<II", 14, 2**31 - 1)
    with pytest.raises(ValueError, match="cut short"):
        read_table(HEADER + bomb, "synsets")


def test_a_devkit_inside_a_zip_of_folders(tmp_path: Path) -> None:
    made = ilsvrc(classes=3, train=2, val=1)
    tree = {f"train/{name}": data for name, data in made.train.items()}
    tree |= {f"val/{name}": data for name, data in made.val.items()}
    tree |= {f"devkit/{name}": data for name, data in made.devkit.items()}
    check_labels(open_data(zipped(tmp_path / "x.zip", tree), 8), made)
