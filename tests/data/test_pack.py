"""Packed data sets: the same images as the source, whatever interrupts the packing."""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from trees import Tree, below, classes_of, encoded, labelled, picture, tarred, written, zipped

from tinyalex.cli.parser import main
from tinyalex.data import open_data
from tinyalex.data.batches import batches, keep_in_memory, mean_and_colour
from tinyalex.data.checking.check import check
from tinyalex.data.decode import decode
from tinyalex.data.packing import writing
from tinyalex.data.packing.pack import pack
from tinyalex.data.pixel_file import Decoded
from tinyalex.errors import DataError, UsageError
from tinyalex.runs.checkpoint import load, save

SIDE = 8


def photos(count: int, seed: int = 0) -> list[bytes]:
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (count, 24, 30, 3), np.uint8)
    return [encoded(Image.fromarray(image), "JPEG") for image in pixels]


def pets() -> dict[str, bytes]:
    """Two classes of 12 pictures to train on and 3 to validate."""
    names = [
        f"{split}/{label}/{i:02}.jpg"
        for split, n in (("train", 12), ("val", 3))
        for label in ("cat", "dog")
        for i in range(n)
    ]
    return dict(zip(names, photos(len(names)), strict=True))


def packed(path: Path, target: Path, **options: object) -> Path:
    said: list[str] = []
    pack(path, target, SIDE, workers=2, say=said.append, **options)  # type: ignore[arg-type]
    return target


def content(folder: Path) -> dict[str, str]:
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.iterdir()}


def flip(path: Path, place: int, bit: int = 1) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= bit
    path.write_bytes(data)


# The same images


@pytest.mark.parametrize("validation", [True, False])
def test_a_pack_is_the_source(tmp_path: Path, validation: bool) -> None:
    tree = {name: data for name, data in pets().items() if validation or name.startswith("train")}
    tree |= {"words.txt": b"cat\ttabby, cat\n", "train/stray.png": picture()}
    if validation:  # one class too few, and one too many
        tree = {name.replace("val/dog", "val/emu"): data for name, data in tree.items()}
    source = written(tmp_path / "pets", tree)
    target = packed(source, tmp_path / "packed")
    for known in (None, ("dog", "emu", "cat")):
        old = open_data(source, SIDE, seed=3, classes=known)
        new = open_data(target, SIDE, seed=3, classes=known)
        assert (new.classes, new.titles, new.notes) == (old.classes, old.titles, old.notes)
        assert old.val is not None
        assert new.val is not None
        for expected, found in ((old.train, new.train), (old.val, new.val)):
            assert list(found.names) == list(expected.names)
            assert np.array_equal(found.labels, expected.labels)
            count = len(found.labels)
            (batch,) = batches(found, np.arange(count), count, workers=0)
            for i in range(count):
                assert np.array_equal(found.read(i), expected.read(i))
                assert np.array_equal(batch.images[i], expected.read(i))


def test_archives_and_cifar_are_packed_too(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    cifar = {f"data_batch_{n}.bin": bytes([n % 2]) + rng.bytes(3072) for n in range(1, 6)}
    cifar |= {"test_batch.bin": bytes([1]) + rng.bytes(3072), "batches.meta.txt": b"a b"}
    for name, source in {
        "zip": zipped(tmp_path / "x.zip", pets()),
        "tar": tarred(tmp_path / "x.tar", pets()),
        "cifar": written(tmp_path / "batches", cifar),
    }.items():
        old, new = open_data(source, SIDE), open_data(packed(source, tmp_path / name), SIDE)
        assert labelled(new.train, new) == labelled(old.train, old)
        assert labelled(new.val, new) == labelled(old.val, old)
        assert np.array_equal(new.train.read(4), old.train.read(4))


def test_what_is_read_is_what_the_file_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = packed(written(tmp_path / "pets", pets()), tmp_path / "packed")
    train = open_data(str(target), SIDE, 0).train
    assert isinstance(train, Decoded)
    assert keep_in_memory(train, SIDE) is train
    there = np.fromfile(target / "train.rgb", np.uint8).reshape(-1, SIDE, SIDE, 3)
    order = np.random.default_rng(0).permutation(24)
    for _ in ("POSIX", "Windows"):
        assert np.array_equal(train.read(5), there[5])
        for workers in (0, 1, 2, 5):
            parts = [batch.images for batch in batches(train, order, 7, workers=workers)]
            assert np.array_equal(np.concatenate(parts), there[order])
        monkeypatch.delattr(os, "preadv", raising=False)


def test_another_size_than_packed(tmp_path: Path) -> None:
    flat = encoded(Image.new("RGB", (20, 30), (1, 2, 3)), "PNG")
    target = packed(
        written(tmp_path / "x", {f"{c}/{i}.png": flat for c in "ab" for i in "12"}), tmp_path / "y"
    )
    smaller = open_data(target, 4)
    assert smaller.train.read(0).shape == (4, 4, 3)
    assert np.all(smaller.train.read(0) == (1, 2, 3))
    assert "The images are packed at 8 pixels, and shrunk to 4." in smaller.notes
    with pytest.raises(DataError, match=r"packed at 8 x 8 pixels.*9 x 9.*--size 9"):
        open_data(target, 9)


def test_the_manifest_knows_every_file(tmp_path: Path) -> None:
    tree = pets()
    target = packed(written(tmp_path / "pets", tree), tmp_path / "packed")
    for split in ("train", "val"):
        lines = [json.loads(line) for line in (target / f"{split}.jsonl").read_text().splitlines()]
        assert [line["name"] for line in lines] == [name for name in tree if split in name]
        for line in lines:
            assert line["bytes"] == len(tree[line["name"]])
            assert line["sha256"] == hashlib.sha256(tree[line["name"]]).hexdigest()
            assert line["class"] == line["name"].split("/")[1]
    manifest = json.loads((target / "pack.json").read_text())["manifest"]
    found = content(target)
    del found["pack.json"]
    assert {name: file["sha256"] for name, file in manifest["files"].items()} == found
    train = open_data(target, SIDE).train
    mean, colour = mean_and_colour(train, SIDE, seed=0, workers=0)
    assert np.array_equal(np.load(target / "mean.npy"), mean)
    assert np.array_equal(np.load(target / "colour.npy"), colour)


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_a_pack_does_not_depend_on_workers(tmp_path: Path, workers: int) -> None:
    tree = {f"{c}/{i:03}.jpg": data for c in "abc" for i, data in enumerate(photos(70))}
    source = zipped(tmp_path / "x.zip", tree)
    targets = [tmp_path / "many", tmp_path / "one"]
    for target, threads in zip(targets, (workers, 1), strict=True):
        assert (
            main(
                ["data", "pack", str(source), "-o", str(target), "--size", "8", "-j", str(threads)]
            )
            == 0
        )
    assert content(targets[0]) == content(targets[1])


# Interrupts

PACK = """
import sys
from pathlib import Path
from tinyalex.data.packing import pack, writing
writing.COMMIT_SECONDS = 0.02
pack.pack(Path(sys.argv[1]), Path(sys.argv[2]), 64, workers=2)
"""


@pytest.mark.slow
def test_kill_9_costs_nothing_that_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (400, 400, 3), np.uint8)
    large = encoded(Image.fromarray(noise), "JPEG", quality=95)  # takes long enough to be killed in
    tree = {
        f"{split}/{c}/{i:03}.jpg": large
        for split in ("train", "val")
        for c in "ab"
        for i in range(60)
    }
    source, target = written(tmp_path / "x", tree), tmp_path / "killed"
    chooser, done = random.Random(0), 0

    def lines() -> int:
        return sum(path.read_bytes().count(b"\n") for path in target.glob("*.jsonl"))

    kills = 0
    while kills < 5 and done < 180:
        command = [sys.executable, "-c", PACK, str(source), str(target)]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        while lines() == done and process.poll() is None:
            time.sleep(0.005)
        time.sleep(chooser.random() * 0.1)
        process.kill()
        _, error = process.communicate()
        assert process.returncode == -9, error
        kills, done, before = kills + 1, lines(), done
        assert done > before
        assert not (target / "pack.json").exists()
        with pytest.raises(DataError, match="not finished"):
            open_data(target, 64)
    print(f"{kills} kills, {done} of {len(tree)} images done at the last")

    from tinyalex.data import decode as module

    decode, decoded = module.decode, []
    monkeypatch.setattr(module, "decode", lambda *a: decoded.append(a[2]) or decode(*a))
    pack(source, target, 64, workers=2)
    assert len(decoded) == len(tree) - done
    pack(source, tmp_path / "whole", 64, workers=1)
    assert content(target) == content(tmp_path / "whole")


FULL_DISK = """
import resource, sys
from tinyalex.cli.parser import main
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no RLIMIT_FSIZE")
@pytest.mark.slow
def test_a_full_disk_keeps_what_is_done(tmp_path: Path) -> None:
    source, target = written(tmp_path / "pets", pets()), tmp_path / "packed"
    command = ["data", "pack", str(source), "-o", str(target), "--size", str(SIDE)]
    row = SIDE * SIDE * 3
    for limit, rows in ((10 * row + 7, 10), (15 * row, 15)):
        full = subprocess.run(
            [sys.executable, "-c", FULL_DISK, str(limit), *command], capture_output=True, text=True
        )
        assert full.returncode == 6, full.stderr
        assert (
            f"Cannot write the pack {target}: File too large. Free some space. What is done is kept"
            in full.stderr
        )
        assert "Traceback" not in full.stderr
        assert (target / "train.jsonl").read_bytes().count(b"\n") == rows
    assert main(command) == 0
    assert content(target) == content(packed(source, tmp_path / "whole"))


@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells which file is meant")
def test_pixels_reach_the_disk_before_the_lines_that_tell_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """kill -9 cannot show this: what a process has written survives it, unlike a power cut."""
    fsync, replace, safe, order = os.fsync, os.replace, 0, []

    def watch_fsync(file: int) -> None:
        nonlocal safe
        path = Path(os.readlink(f"/proc/self/fd/{file}"))
        fsync(file)
        order.append(path.name)
        if path.name == "train.rgb":
            safe = path.stat().st_size // (SIDE * SIDE * 3)
        if path.name == "train.jsonl":
            assert path.read_bytes().count(b"\n") <= safe

    def watch_replace(old: Path, new: Path) -> None:
        assert order[-1] == old.name
        replace(old, new)
        order.append(f"-> {new.name}")

    monkeypatch.setattr(os, "fsync", watch_fsync)
    monkeypatch.setattr(os, "replace", watch_replace)
    monkeypatch.setattr(writing, "COMMIT_SECONDS", 0)
    packed(written(tmp_path / "pets", pets()), tmp_path / "packed")
    assert order.count("train.rgb") == order.count("train.jsonl") >= 24
    assert order[-3:] == ["pack.json.partial", "-> pack.json", "packed"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no flock")
def test_two_cannot_pack_into_one_folder(tmp_path: Path) -> None:
    import fcntl

    source, target = written(tmp_path / "pets", pets()), tmp_path / "packed"
    target.mkdir()
    (target / "unfinished.json").write_text('{"manifest": {"size": 8}}')
    with open(target / "train.jsonl", "wb") as other:
        fcntl.flock(other, fcntl.LOCK_SH)
        with pytest.raises(UsageError, match="Another process is packing into"):
            packed(source, target)
    packed(source, target)


def test_too_little_space_is_said_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = written(tmp_path / "pets", pets())
    command = ["data", "pack", str(source), "-o", str(tmp_path / "p"), "--size", "1000000"]
    assert main(command) == 6
    assert "needs 90,000,000,000,000 bytes more" in capsys.readouterr().err


def test_a_torn_last_line_and_pixels_without_one_are_cut_off(tmp_path: Path) -> None:
    source = written(tmp_path / "pets", pets())
    whole, torn = packed(source, tmp_path / "whole"), packed(source, tmp_path / "torn")
    for pixels, lines in ((SIDE * SIDE * 3 * 20 + 5, -30), (SIDE * SIDE * 3 * 7, -2)):
        (torn / "pack.json").unlink()
        (torn / "unfinished.json").write_text('{"manifest": {"size": 8, "decoding": 2}}')
        with open(torn / "train.rgb", "r+b") as file:
            file.truncate(pixels)
        data = (torn / "train.jsonl").read_bytes()
        (torn / "train.jsonl").write_bytes(data[:lines])
        packed(source, torn)
        assert content(torn) == content(whole)


# Bad images


def with_bad(count: int, of: int) -> Tree:
    tree = {f"{c}/{i:03}.jpg": data for c in "ab" for i, data in enumerate(photos(of // 2))}
    return tree | {f"a/{i:03}.jpg": b"no image" for i in range(count)}


def test_a_bad_image_ends_the_packing_by_name_and_can_be_mended(tmp_path: Path) -> None:
    source = written(tmp_path / "x", {**pets(), "train/dog/05.jpg": b"\xff\xd8\xff"})
    with pytest.raises(DataError, match=r"train/dog/05\.jpg .*--on-bad-image skip.*same command"):
        packed(source, tmp_path / "p")
    assert (tmp_path / "p" / "train.jsonl").read_bytes().count(b"\n") == 17
    (source / "train" / "dog" / "05.jpg").unlink()
    assert content(packed(source, tmp_path / "p")) == content(packed(source, tmp_path / "q"))


def test_bad_images_are_left_out_on_demand(tmp_path: Path) -> None:
    source = written(tmp_path / "x", with_bad(3, 60))
    expected = (
        "Left out, because they cannot be decoded: 3 images (a/000.jpg, a/001.jpg, a/002.jpg)."
    )
    with pytest.raises(DataError, match=r"a/000\.jpg"):
        packed(source, tmp_path / "p")
    target = packed(source, tmp_path / "p", on_bad_image="skip")  # goes on from there
    assert content(target) == content(packed(source, tmp_path / "q", on_bad_image="skip"))
    new = open_data(str(target), SIDE, 0)
    old = open_data(str(source), SIDE, 0, on_bad_image="skip")
    assert new.notes == old.notes
    assert new.notes[0] == expected
    assert labelled(new.train, new) == labelled(old.train, old)
    assert labelled(new.val, new) == labelled(old.val, old)
    assert len(new.train.labels) == 60 - 3 - 5
    for i in range(len(new.train.labels)):
        assert np.array_equal(new.train.read(i), old.train.read(i))


def test_validation_images_may_all_be_bad(tmp_path: Path) -> None:
    tree = {
        **pets(),
        **{f"val/{c}/{i:02}.jpg": b"no image" for c in ("cat", "dog") for i in range(3)},
    }
    source = written(tmp_path / "pets", tree)
    new = open_data(str(packed(source, tmp_path / "p", on_bad_image="skip")), SIDE, 0)
    old = open_data(str(source), SIDE, 0, on_bad_image="skip")
    assert new.notes == old.notes
    assert old.val is new.val is None
    assert len(new.train.labels) == len(old.train.labels) == 24


def test_too_many_bad_images_are_no_accident(tmp_path: Path) -> None:
    ten = written(tmp_path / "ten", with_bad(10, 40))
    assert len(open_data(str(ten), SIDE, 0, on_bad_image="skip").train.labels) < 30
    eleven = written(tmp_path / "eleven", with_bad(11, 40))
    with pytest.raises(DataError, match=r"11 images of 40 cannot be decoded: a/000\.jpg, "):
        open_data(str(eleven), SIDE, 0, on_bad_image="skip")
    with pytest.raises(DataError, match=r"11 images of 40 cannot be decoded"):
        packed(eleven, tmp_path / "p", on_bad_image="skip")


def test_a_class_without_a_good_image_is_refused(tmp_path: Path) -> None:
    source = written(tmp_path / "x", {**classes_of(a=2, b=2), "c/1.png": b"no image"})
    with pytest.raises(DataError, match="no training images of c"):
        open_data(str(source), SIDE, 0, on_bad_image="skip")
    with pytest.raises(DataError, match="No training image of c can be decoded"):
        packed(source, tmp_path / "p", on_bad_image="skip")


def test_pictures_above_the_limit_are_bad(tmp_path: Path) -> None:
    tree = {**classes_of(a=3, b=3), "b/large.png": picture(side=5)}
    source = written(tmp_path / "x", tree)
    assert len(open_data(str(source), 4, 0, hold_out=False, max_pixels=25).train.labels) == 7
    limited = open_data(str(source), 4, 0, hold_out=False, max_pixels=24, on_bad_image="skip")
    assert "1 image (b/large.png)" in limited.notes[0]
    with pytest.raises(DataError, match=r"b/large\.png is 5 x 5 pixels.*--max-pixels"):
        packed(source, tmp_path / "p", max_pixels=24)


# The rule by which pictures become pixels


def large(count: int) -> dict[str, bytes]:
    """Photos that are decoded at a half: their short side is 40, for packs of 8."""
    rng = np.random.default_rng(5)
    pixels = rng.integers(0, 256, (count, 40, 50, 3), np.uint8)
    return {
        f"train/{'ab'[i % 2]}/{i:02}.jpg": encoded(Image.fromarray(image), "JPEG")
        for i, image in enumerate(pixels)
    }


def test_a_pack_says_its_rule_and_one_that_was_begun_keeps_to_it(tmp_path: Path) -> None:
    tree = large(20)
    source, target = written(tmp_path / "x", tree), tmp_path / "p"
    new = packed(source, target)
    assert json.loads((new / "pack.json").read_text())["manifest"]["decoding"] == 2
    old = tmp_path / "old"  # as a version before left it: no rule, and half of the lines
    old.mkdir()
    (old / "unfinished.json").write_text('{"manifest": {"size": 8}}')
    packed(source, old)
    assert json.loads((old / "pack.json").read_text())["manifest"]["decoding"] == 1
    for path, rule in ((new, 2), (old, 1)):
        train = open_data(path, SIDE, hold_out=False).train
        for name, image in zip(train.names, map(train.read, range(20)), strict=True):
            assert np.array_equal(image, decode(tree[name], SIDE, name, None, rule))
    assert (new / "train.rgb").read_bytes() != (old / "train.rgb").read_bytes()
    for path in (new, old):  # files are compared, not pixels
        assert check(source, workers=1, against=path).usable


def test_a_run_keeps_to_its_rule(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(5)
    pixels = rng.integers(0, 256, (8, 140, 150, 3), np.uint8)
    tree = {
        f"{'ab'[i % 2]}/{i}.jpg": encoded(Image.fromarray(image), "JPEG")
        for i, image in enumerate(pixels)
    }
    source = written(tmp_path / "x", tree)
    argv = ["train", "--data", str(source), "--arch", "mini", "-b", "2", "-j", "0"]
    means = []
    for rule in (1, 2):
        run = tmp_path / f"run{rule}"
        flags = ["--decoding", str(rule), "--max-steps", "1", "--output-dir", str(run)]
        assert main([*argv, *flags]) == 0
        state = load(run / "last.npz")
        assert state.config["decoding"] == rule
        side = state.network.data.image_size
        train = open_data(source, side, decoding=rule).train
        means.append(state.mean)
        assert np.array_equal(state.mean, mean_and_colour(train, side, seed=0, workers=0)[0])
    assert not np.array_equal(*means)
    before = load(tmp_path / "run1" / "last.npz")
    del before.config["decoding"]  # as a run of before has it
    save(before, tmp_path / "run1" / "last.npz")
    assert load(tmp_path / "run1" / "last.npz").config["decoding"] == 1
    capsys.readouterr()
    assert main(["train", "--resume", str(tmp_path / "run1"), "--max-steps", "2"]) == 0
    assert "decoding" not in capsys.readouterr().out  # nothing has changed
    assert main(["train", "--resume", str(tmp_path / "run1"), "--decoding", "3"]) == 2


def test_damaged_jpegs_are_refused_unless_told_otherwise(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    photo = Image.fromarray(rng.integers(0, 256, (200, 200, 3), np.uint8))
    data = bytearray(encoded(photo, "JPEG"))
    data[20_000:24_096] = bytes(4096)
    source = written(tmp_path / "x", {**pets(), "train/cat/zeros.jpg": bytes(data)})
    with pytest.raises(DataError, match=r"zeros\.jpg .*it is damaged: .*--on-bad-image skip"):
        packed(source, tmp_path / "p")
    packed(source, tmp_path / "p", on_bad_image="skip")
    new, old = (open_data(path, SIDE, on_bad_image="skip") for path in (tmp_path / "p", source))
    assert new.notes == old.notes
    assert "1 image (train/cat/zeros.jpg)" in new.notes[0]
    assert list(new.train.names) == list(old.train.names)
    whole = open_data(source, SIDE)  # training takes what libjpeg makes of it
    assert whole.train.read(12).shape == (SIDE, SIDE, 3)
    assert whole.train.names[12] == "train/cat/zeros.jpg"


# What is refused


def test_a_changed_pack_is_refused(tmp_path: Path) -> None:
    source = written(tmp_path / "pets", pets())
    cases: dict[str, tuple[str, str]] = {
        "cut": ("train.rgb", r"train\.rgb has 4,607 bytes, but 4,608 were packed"),
        "gone": ("val.rgb", r"val\.rgb cannot be read"),
        "label": ("train.jsonl", r"train\.jsonl has been changed"),
        "manifest": ("pack.json", r"format 2, and this version reads format 1"),
    }
    for case, (name, message) in cases.items():
        target = packed(source, tmp_path / case)
        file = target / name
        if case == "cut":
            file.write_bytes(file.read_bytes()[:-1])
        elif case == "gone":
            file.unlink()
        elif case == "label":
            flip(file, 12)
        else:
            file.write_text(file.read_text().replace('"tinyalex_pack": 1', '"tinyalex_pack": 2'))
        with pytest.raises(DataError, match=message):
            open_data(target, SIDE)


@pytest.mark.slow
def test_a_flipped_bit_in_the_manifest_is_noticed(tmp_path: Path) -> None:
    target = packed(written(tmp_path / "pets", pets()), tmp_path / "p")
    size = (target / "pack.json").stat().st_size
    chooser, flips = random.Random(0), 200
    for _ in range(flips):
        place, bit = chooser.randrange(size), 1 << chooser.randrange(8)
        flip(target / "pack.json", place, bit)
        if b" " not in {(target / "pack.json").read_bytes()[place : place + 1]}:
            with pytest.raises(DataError, match=str(target)):
                open_data(target, SIDE)
        flip(target / "pack.json", place, bit)
    print(f"{flips} bits flipped in pack.json")


def test_a_pack_inside_an_archive_is_explained(tmp_path: Path) -> None:
    target = packed(written(tmp_path / "pets", pets()), tmp_path / "p")
    archive = zipped(tmp_path / "p.zip", {f.name: f.read_bytes() for f in target.iterdir()})
    with pytest.raises(DataError, match="Unpack the archive into a folder first"):
        open_data(archive, SIDE)


def test_a_folder_with_another_pack_json_is_no_pack(tmp_path: Path) -> None:
    for content_ in (b"{}", b"[1]", b"not json"):
        source = written(tmp_path / "x", {**classes_of(a=2, b=2), "pack.json": content_})
        assert open_data(source, SIDE).classes == ("a", "b")


def test_folders_that_are_not_packed_into(tmp_path: Path) -> None:
    source = written(tmp_path / "pets", pets())
    target = packed(source, tmp_path / "p")
    other = written(tmp_path / "other", below("train", classes_of(a=2, b=2)))
    with pytest.raises(UsageError, match="is packed already"):
        packed(target, tmp_path / "again")
    with pytest.raises(UsageError, match="lies in the data itself"):
        packed(source, source / "deep" / "packed")
    with pytest.raises(UsageError, match=r"holds other files: train\."):
        packed(source, other)
    with pytest.raises(UsageError, match=r"holds a pack of --size 8, not 9"):
        pack(source, target, 9, workers=1)
    (target / "pack.json").rename(target / "unfinished.json")
    with pytest.raises(UsageError, match=r"beginning of a pack of other images: train/cat/00\.jpg"):
        packed(other, target)
    (source / "train" / "dog" / "11.jpg").unlink()
    with pytest.raises(UsageError, match=r"beginning of a pack of other images: train/dog/11\.jpg"):
        packed(source, target)


def test_a_finished_pack_is_left_as_it_is(tmp_path: Path) -> None:
    source = written(tmp_path / "pets", pets())
    target = packed(source, tmp_path / "p")
    before = [(file.name, file.stat().st_mtime_ns) for file in sorted(target.iterdir())]
    packed(source, target)
    assert before == [(file.name, file.stat().st_mtime_ns) for file in sorted(target.iterdir())]


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, target = written(tmp_path / "pets", pets()), tmp_path / "deep" / "packed"
    assert main(["data", "pack", str(source), "-o", str(target), "--size", "32"]) == 0
    out = capsys.readouterr().out
    assert "24 images in train and 6 images in val, 2 classes, to 32 x 32 pixels" in out
    assert f"Next: tinyalex train --data {target}" in out
    assert main(["data", "pack", str(source), "-o", str(target), "--size", "0"]) == 2
    assert main(["data", "pack", str(source)]) == 2
    run = tmp_path / "run"
    arguments = ["--arch", "mini", "-b", "8", "--epochs", "1", "--output-dir", str(run)]
    assert main(["train", "--data", str(target), *arguments]) == 0
    assert main(["eval", str(run), "--data", str(source)]) == 0
