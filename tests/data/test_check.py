"""`data check`: every kind of fault is found, named and answered, and nothing is changed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from trees import below, classes_of, encoded, written, zipped

from tinyalex.cli.parser import main
from tinyalex.data.checking.check import check
from tinyalex.data.checking.file_quirks import ODDITIES, oddities
from tinyalex.data.checking.report import Finding, Report
from tinyalex.data.decode import decode
from tinyalex.data.packing.pack import pack
from tinyalex.errors import DataError


def noise(seed: int, mode: str = "RGB", size: tuple[int, int] = (24, 20)) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    return Image.fromarray(values).convert(mode)


def pets(seed: int = 0) -> dict[str, bytes]:
    """All different: 2 classes with 6 images to train on and 2 to validate."""
    names = [
        f"{split}/{label}/{i}.png"
        for split, count in (("train", 6), ("val", 2))
        for label in ("cat", "dog")
        for i in range(count)
    ]
    return {name: encoded(noise(seed + i), "PNG") for i, name in enumerate(names)}


def found(report: Report, word: str) -> Finding:
    (finding,) = [f for f in report.findings if word in f.what]
    return finding


def test_a_sound_data_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path / "pets", pets())
    assert main(["data", "check", str(path)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{path}: class folders",
        "train 12 images in 2 classes, 6 to 6 each (median 6)",
        "        cat: 6, train/cat/0.png",
        "        dog: 6, train/dog/0.png",
        "val   4 images in 2 classes, 2 to 2 each (median 2)",
        "        cat: 2, val/cat/0.png",
        "        dog: 2, val/dog/0.png",
        "Ready to train on.",
    ]
    assert main(["data", "check", str(path), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["usable"] is True
    assert report["layout"] == "class folders"
    assert report["splits"]["train"] == {
        "images": 12,
        "classes": 2,
        "smallest": 6,
        "median": 6,
        "largest": 6,
        "examples": [
            {"name": name, "title": name, "images": 6, "image": f"train/{name}/0.png"}
            for name in ("cat", "dog")
        ],
    }
    assert report["findings"] == []


def test_all_that_cannot_be_decoded_is_listed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cut = encoded(noise(0), "JPEG")[:-20]
    bad = {"train/cat/a.jpg": cut, "train/dog/b.png": b"", "val/cat/c.gif": b"404: not found"}
    path = written(tmp_path / "pets", {**pets(), **bad})
    (path / "val" / "dog" / "d.png").symlink_to(tmp_path / "gone")
    report = check(path, workers=3)
    finding = found(report, "cannot be decoded")
    assert finding.what == "4 images cannot be decoded."
    assert [name in text for name, text in zip((*bad, "d.png"), finding.images, strict=True)]
    assert "--on-bad-image skip" in finding.remedy
    assert not report.usable
    assert main(["data", "check", str(path)]) == 4
    out = capsys.readouterr().out
    for name in (*bad, "val/dog/d.png"):
        assert name in out
    assert out.endswith("Not usable until the errors are mended.\n")


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(noise(1), "JPEG", exif=exif)


def animated() -> bytes:
    frames = [noise(i, "P") for i in range(2)]
    return encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])


SIXTEEN = Image.fromarray(np.arange(400, dtype=np.uint16).reshape(20, 20))
ODD: Mapping[str, tuple[str, bytes]] = {
    "grey": ("a.png", encoded(noise(2, "L"), "PNG")),
    "16-bit": ("a.png", encoded(SIXTEEN, "PNG")),
    "floating-point": ("a.tif", encoded(Image.new("F", (20, 20), 0.5), "TIFF")),
    "CMYK": ("a.jpg", encoded(noise(3, "CMYK"), "JPEG")),
    "with a palette": ("a.png", encoded(noise(4, "P"), "PNG")),
    "with transparency": ("a.png", encoded(noise(5, "RGBA"), "PNG")),
    "turned by EXIF": ("a.jpg", turned()),
    "animated or of several pages": ("a.gif", animated()),
    "of another format than its suffix": ("a.JPEG", encoded(noise(6), "PNG")),
    "more than four times as long as wide": ("a.png", encoded(noise(7, size=(90, 20)), "PNG")),
    "under 16 pixels": ("a.png", encoded(noise(8, size=(15, 20)), "PNG")),
}


def test_every_oddity_is_named_with_its_meaning(tmp_path: Path) -> None:
    assert ODD.keys() == ODDITIES.keys()
    tree = pets()
    for i, (name, data) in enumerate(ODD.values()):
        tree[f"train/cat/{i}_{name}"] = data
    report = check(written(tmp_path / "pets", tree), workers=2)
    for i, (what, (name, _)) in enumerate(ODD.items()):
        finding = found(report, f": {what}.")
        assert f"train/cat/{i}_{name}" in finding.images
        assert finding.remedy == ODDITIES[what]
    assert found(report, ": CMYK.").images == ["train/cat/3_a.jpg"]
    assert report.usable


def pages(file_format: str) -> bytes:
    first, *rest = (noise(i, "P") for i in range(3))
    return encoded(first, file_format, save_all=True, append_images=rest)


@pytest.mark.parametrize("suffix", ["gif", "tiff", "webp", "png"])
@pytest.mark.slow
def test_damage_behind_the_first_page_ends_no_check(suffix: str) -> None:
    whole = pages(suffix.upper())
    decoded, several = 0, 0
    for at in range(0, len(whole), 7):
        zeroed = whole[:at] + bytes(9) + whole[at + 9 :]
        for data in (whole[:at], zeroed):
            with suppress(DataError):
                decode(data, 8, "pages")
                decoded += 1
                several += "animated or of several pages" in oddities(data, f"pages.{suffix}")
    assert 0 < several <= decoded


def test_of_what_is_damaged_behind_the_first_page_that_one_is_taken(tmp_path: Path) -> None:
    tiff, gif = pages("TIFF"), bytearray(pages("GIF"))
    gif[gif.index(b"\x21\xf9\x04", 900) :] = b"\x21"  # ends in the header of the second frame
    tree = {**pets(), "train/cat/cut.tif": tiff[: len(tiff) // 2], "train/dog/cut.gif": bytes(gif)}
    report = check(written(tmp_path / "pets", tree), workers=1)
    assert report.usable
    finding = found(report, "animated or of several pages")
    assert finding.images == ["train/cat/cut.tif", "train/dog/cut.gif"]


def test_an_empty_argument_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", "pets", ""]) == 2
    assert "What follows pets is empty" in capsys.readouterr().err


def test_pictures_above_the_limit_are_not_usable_unless_it_is_raised(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path / "pets", pets())
    assert main(["data", "check", str(path), "--max-pixels", "480"]) == 0
    assert main(["data", "check", str(path), "--max-pixels", "479"]) == 4
    assert "24 x 20 pixels, more than the limit of 479" in capsys.readouterr().out


def test_copies_are_found_where_they_do_harm(tmp_path: Path) -> None:
    tree = pets()
    tree["val/cat/leak.png"] = tree["train/cat/1.png"]
    tree["train/dog/torn.png"] = tree["train/cat/2.png"]
    tree["train/cat/again.png"] = tree["train/cat/3.png"]
    report = check(written(tmp_path / "pets", tree), workers=1)
    assert found(report, "both in train and in val").images == [
        "train/cat/1.png = val/cat/leak.png"
    ]
    assert found(report, "in two classes").images == ["train/cat/2.png = train/dog/torn.png"]
    assert found(report, "twice in a class").images == ["train/cat/3.png = train/cat/again.png"]
    assert report.usable


def test_copies_matter_more_where_some_are_held_out(tmp_path: Path) -> None:
    tree = {name: data for name, data in pets().items() if name.startswith("train")}
    tree["train/cat/again.png"] = tree["train/cat/3.png"]
    report = check(zipped(tmp_path / "x.zip", tree), workers=1)
    assert "the other held out" in found(report, "twice in a class").what


def test_classes_of_odd_size(tmp_path: Path) -> None:
    tree = classes_of(a=30, b=30, c=30, few=2)
    report = check(written(tmp_path / "x", tree), workers=1)
    assert "few (2)" in found(report, "very small or large").what
    assert (report.splits["train"].smallest, report.splits["train"].largest) == (2, 30)


def test_what_opening_would_say_is_said(tmp_path: Path) -> None:
    tree = {
        **pets(),
        "train/empty/": b"",
        "val/zebra/0.png": encoded(noise(99), "PNG"),
        "train/stray.png": encoded(noise(98), "PNG"),
        "train/cat/bad.jpg": b"no image",
    }
    report = check(written(tmp_path / "x", tree), workers=1)
    assert found(report, "no training images of empty").fatal
    assert found(report, "cannot be decoded").fatal  # the first fault does not hide the others
    assert not found(report, "Left out beside the class folders: 1 image").fatal
    assert not found(report, "train lacks the class: 1 image of zebra").fatal


@pytest.mark.parametrize(
    ("tree", "word"),
    [
        (below("pets", classes_of(a=1, b=1)), "Did you mean"),
        ({"a.csv": b""}, "holds no images"),
        ({**below("train", classes_of(a=2, b=2)), "val/1.png": b""}, "val_annotations"),
        (below("val", classes_of(a=2, b=2)), "no folder 'train'"),
    ],
)
def test_layouts_that_are_not_usable(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], tree: Mapping[str, bytes], word: str
) -> None:
    assert main(["data", "check", str(written(tmp_path / "x", tree))]) == 4
    assert word in capsys.readouterr().out
    assert main(["data", "check", str(tmp_path / "none")]) == 4
    assert "does not exist" in capsys.readouterr().err


def packed(source: Path, target: Path) -> Path:
    pack(source, target, 8, workers=1, say=lambda line: None)
    return target


@pytest.mark.parametrize("name", ["train.rgb", "val.rgb", "train.jsonl", "mean.npy", "colour.npy"])
def test_a_flipped_bit_in_a_pack_is_found(tmp_path: Path, name: str) -> None:
    target = packed(written(tmp_path / "pets", pets()), tmp_path / "p")
    assert check(target, workers=1).findings == []
    data = bytearray((target / name).read_bytes())
    data[len(data) // 2] ^= 4
    (target / name).write_bytes(data)
    report = check(target, workers=1)
    assert found(report, "The pack is damaged").images == [
        f"{target / name} has other bytes than were packed."
    ]
    assert not report.usable


def test_copies_in_a_pack_are_known_from_its_lines(tmp_path: Path) -> None:
    tree = pets()
    tree["val/cat/leak.png"] = tree["train/cat/1.png"]
    target = packed(written(tmp_path / "pets", tree), tmp_path / "p")
    report = check(target, workers=1)
    assert report.layout == "packed"
    assert report.splits["val"].images == 5
    assert len(found(report, "both in train and in val").images) == 1


def test_images_that_are_not_what_was_packed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = written(tmp_path / "pets", pets())
    target = packed(source, tmp_path / "p")
    command = ["data", "check", str(source), "--against", str(target)]
    assert main(command) == 0
    assert "images are as they were when" in capsys.readouterr().out
    picture = bytearray(encoded(Image.new("RGB", (20, 20)), "BMP"))
    (source / "train" / "cat" / "2.png").write_bytes(picture)
    before = check(source, workers=1, against=target)
    assert found(before, "changed since").images == ["train/cat/2.png"]
    picture[-1] ^= 1  # decodes as before: only the hash tells
    (source / "val" / "dog" / "1.png").unlink()
    (source / "train" / "cat" / "new.png").write_bytes(picture)
    report = check(source, workers=1, against=target)
    assert found(report, "changed since").fatal
    assert found(report, "gone since").images == ["val/dog/1.png"]
    assert found(report, "new since").images == ["train/cat/new.png"]
    assert main(command) == 4
    assert main(["data", "check", str(source), "--against", str(source)]) == 4
    assert "is not a pack" in capsys.readouterr().err


def test_nothing_is_changed(tmp_path: Path) -> None:
    source = written(tmp_path / "pets", {**pets(), "train/cat/bad.jpg": b"no image"})

    def state() -> list[tuple[str, int, str]]:
        return [
            (str(path), path.stat().st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest())
            for path in sorted(source.rglob("*"))
            if path.is_file()
        ]

    before = state()
    check(source, workers=2)
    pack(source, tmp_path / "p", 8, workers=2, on_bad_image="skip", say=lambda line: None)
    assert state() == before


def test_long_lists_are_cut_but_not_those_of_errors(tmp_path: Path) -> None:
    tree = {f"{c}/{i}.png": encoded(noise(i, "L"), "PNG") for c in "ab" for i in range(9)}
    tree |= {f"a/bad{i}.png": b"" for i in range(9)}
    lines = list(check(written(tmp_path / "x", tree), workers=1).lines())
    assert sum("a/bad" in line for line in lines) == 9
    assert any("and 13 more (--json has them all)" in line for line in lines)
