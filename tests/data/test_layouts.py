"""Every layout that people have is read right or refused, and every way out that is named works."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from trees import Tree, below, classes_of, picture, tarred, written, zipped
from truth import (
    TEST,
    TRAIN,
    VAL,
    VAL_NAME,
    WNIDS,
    flat_val,
    layout_of,
    taken_for,
    train_tree,
    val_tree,
    wrong,
)

from tinyalex.cli.parser import main
from tinyalex.data import open_data
from tinyalex.data.checking.check import check
from tinyalex.errors import DataError

SCENES = dict(
    zip(WNIDS, ("bus", "fish", "glacier", "hill", "lake", "moon", "sea", "tree"), strict=True)
)


def folders_named(pattern: str, count: int) -> dict[str, bytes]:
    """The training images, their classes shared out to `count` folders."""
    return {
        f"{pattern.format(WNIDS.index(wnid) % count + 1)}/{wnid}/{i}.JPEG": data
        for (wnid, i), data in TRAIN.items()
    }


def renamed(tree: Tree, names: dict[str, str]) -> dict[str, bytes]:
    return {
        re.sub(r"n\d{8}(?=/)", lambda match: names[match[0]], path): data
        for path, data in tree.items()
    }


# Read right: the tree, what the classes are called, and the images to train on and to validate.
RIGHT: dict[str, tuple[Tree, dict[str, str], int, int]] = {
    "imagenet100 of Kaggle": (
        {
            **folders_named("train.X{}", 4),
            **below("val.X", val_tree()),
            "Labels.json": b"{}",
        },
        {},
        48,
        16,
    ),
    "archives unpacked into folders of their names": (
        {**below("ILSVRC2012_img_train", train_tree()), **below("ILSVRC2012_img_val", val_tree())},
        {},
        48,
        16,
    ),
    "Intel scenes of Kaggle": (
        {
            **below("seg_train/seg_train", renamed(train_tree(), SCENES)),
            **below("seg_test/seg_test", renamed(val_tree(), SCENES)),
            **{f"seg_pred/seg_pred/{i}.jpg": data for i, data in enumerate(TEST)},
        },
        SCENES,
        48,
        16,
    ),
    "test without labels": (
        {
            **below("train", train_tree()),
            **{f"test/{i}.jpg": data for i, data in enumerate(TEST)},
        },
        {},
        48,
        0,
    ),
    "test beside compound names": (
        {
            **below("train_images", train_tree()),
            **below("val_images", val_tree()),
            **{f"test_images/{i}.jpg": data for i, data in enumerate(TEST)},
        },
        {},
        48,
        16,
    ),
    "an empty val": ({**below("train", train_tree()), "val/": b""}, {}, 48, 0),
    "classes with words of splits in their names": (
        renamed(train_tree(), {w: w for w in WNIDS} | {WNIDS[0]: "bullet_train"}),
        {WNIDS[0]: "bullet_train"},
        48,
        0,
    ),
    "one folder in between": (below("train/images", train_tree()), {}, 48, 0),
}


@pytest.mark.parametrize("case", RIGHT)
@pytest.mark.parametrize("packer", [written, zipped, tarred])
def test_read_right(tmp_path: Path, case: str, packer: Callable[[Path, Tree], Path]) -> None:
    tree, names, train, val = RIGHT[case]
    if packer is not written:
        tree = {name: data for name, data in tree.items() if not name.endswith("/")}
    layout, _ = layout_of(packer(tmp_path / "data", tree))
    assert wrong(layout, names) == []
    splits = [split for split, _, _ in taken_for(layout)]
    assert (splits.count("train"), splits.count("val")) == (train, val)


# Refused, with flags of which one is right: the tree, and what the classes are called.
FRUIT = dict(
    zip(
        WNIDS, ("apple", "avocado", "banana", "cherry", "fig", "kiwi", "lemon", "lime"), strict=True
    )
)
REFUSED: dict[str, tuple[Tree, dict[str, str]]] = {
    "letters": ({f"{'ab'[int(p[8]) % 2]}/{p}": d for p, d in train_tree().items()}, {}),
    "letters in train": (
        {f"train/{'ab'[int(p[8]) % 2]}/{p}": d for p, d in train_tree().items()},
        {},
    ),
    "domains": (
        {f"{('real', 'sketch')[i % 2]}/{w}/{i}.JPEG": d for (w, i), d in TRAIN.items()},
        {},
    ),
    "domains of names": (
        renamed(
            {f"{('real', 'sketch')[i % 2]}/{w}/{i}.JPEG": d for (w, i), d in TRAIN.items()}, FRUIT
        ),
        FRUIT,
    ),
    "corruptions": (
        {f"{('fog', 'snow')[i % 2]}/{1 + i // 2}/{w}/{i}.JPEG": d for (w, i), d in TRAIN.items()},
        {},
    ),
    "images beside notes": (
        {**below("images", train_tree()), "annotation/a.xml": b"<a/>", "lists/train.txt": b""},
        {},
    ),
}


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("packer", [written, zipped])
def test_refused_with_the_flag_that_is_right(
    tmp_path: Path, case: str, packer: Callable[[Path, Tree], Path]
) -> None:
    tree, names = REFUSED[case]
    path = packer(tmp_path / "data", tree)
    with pytest.raises(DataError) as caught:
        layout_of(path)
    depths = [int(depth) for depth in re.findall(r"--classes-at (\d)", str(caught.value))]
    readings = [layout_of(path, depth)[0] for depth in depths]
    assert [wrong(layout, names) == [] for layout in readings].count(True) == 1
    assert all(len(list(taken_for(layout))) == 48 for layout in readings)


def test_what_the_names_do_not_tell_is_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = renamed({f"{p[8]}/{p}": d for p, d in train_tree().items()}, FRUIT)
    tree = {f"{path.split('/')[1][0]}{path[1:]}": data for path, data in tree.items()}
    path = written(tmp_path / "data", tree)
    assert main(["data", "check", str(path)]) == 0
    out = capsys.readouterr().out
    assert "Are the classes a, b, c, f, k and 1 more (--classes-at 1), or apple," in out
    assert main(["data", "check", str(path), "--classes-at", "2"]) == 0
    out = capsys.readouterr().out
    assert "Are the classes" not in out
    assert "8 classes" in out
    assert "apple: 6, a/apple/n01440764_0.JPEG" in out
    assert "Are the classes" in open_data(path, 8).notes[0]
    assert wrong(layout_of(path, 2)[0], FRUIT) == []
    for classes in (2, 6):
        command = ["data", "pack", str(path), "-o", str(tmp_path / f"p{classes}"), "--size", "8"]
        assert main([*command, "--classes-at", "2" if classes == 2 else "1"]) == 0


def test_a_class_that_only_looks_like_a_split(tmp_path: Path) -> None:
    tree = {**classes_of(cat=2, dog=2), "test_images/1.png": picture()}
    path = written(tmp_path / "data", tree)
    with pytest.raises(DataError, match=r"test_images beside cat.*--classes-at 1"):
        layout_of(path)
    assert list(layout_of(path, 1)[0].train) == ["cat", "dog", "test_images"]
    trains = written(tmp_path / "trains", classes_of(bullet_train=2, steam_train=2))
    assert list(layout_of(trains)[0].train) == ["bullet_train", "steam_train"]


def test_what_is_not_used_is_counted(tmp_path: Path) -> None:
    tree = {
        **below("train", classes_of(a=2, b=2)),
        **below("val", classes_of(a=1, b=1)),
        **below("test", classes_of(a=3)),
        "train/a/1.xcf": b"",
        "train/a/boxes.txt": b"",
        "train/b/boxes.txt": b"",
        "train/README": b"text",
        "train/b/noted": b"text",
        "extra/1.png": picture(),
        "stray.png": picture(),
    }
    _, notes = layout_of(written(tmp_path / "data", tree))
    assert notes == [
        "Files in the class folders that are no images: 2 .txt, 1 .xcf, 1 without a suffix.",
        "Not used: 1 image in extra.",
        "Not used: 3 images in test.",
        f"Not used: 1 image in {tmp_path / 'data'}.",
    ]


# What a refusal advises is done, and works


def test_did_you_mean_leads_to_the_data(tmp_path: Path) -> None:
    cifar = {f"data_batch_{n}.bin": bytes([n % 2]) + bytes(3072) for n in range(1, 6)}
    cases: dict[str, tuple[Tree, str]] = {
        "wrapped": (below("pets", classes_of(a=2, b=2)), ""),
        "wrapped with its parts": (below("pets", below("train", classes_of(a=2, b=2))), ""),
        "deep": (below("x/pets", classes_of(a=2, b=2)), ""),
        "cifar": ({**below("bin", cifar), "bin/batches.meta.txt": b"a b"}, ""),
        "a class": (below("train", classes_of(a=2, b=2)), "train/a"),
        "two sets": (
            {
                **below("x", below("train", classes_of(a=2, b=2))),
                **below("y/train", classes_of(c=1)),
            },
            "",
        ),
    }
    for case, (tree, place) in cases.items():
        path = written(tmp_path / case, tree) / place
        with pytest.raises(DataError) as caught:
            layout_of(path)
        better = re.search(r"Did you mean (.+?)\?", str(caught.value))
        assert better, case
        assert len(open_data(Path(better[1]), 8).classes) == 2, case


def test_a_flat_folder_is_not_sent_elsewhere(tmp_path: Path) -> None:
    tree = {f"train/{i}.jpg": data for i, data in enumerate(TEST)}
    path = written(tmp_path, {**tree, "test/1.jpg": TEST[0], "labels.csv": b"id,label\n"})
    for place in (path, path / "train"):
        with pytest.raises(DataError, match="in no class folder") as caught:
            layout_of(place)
        assert "Did you mean" not in str(caught.value)
    for name, data in zip(("cat/1.jpg", "cat/2.jpg", "dog/1.jpg"), TEST, strict=False):
        written(path / "train", {name: data})  # what the message asks for
    assert list(layout_of(path)[0].train) == ["cat", "dog"]


def test_a_folder_called_train_may_be_a_class(tmp_path: Path) -> None:
    path = written(tmp_path, classes_of(bus=2, train=2, tram=2))
    with pytest.raises(DataError, match=r"Or is 'train' a class\? Then add --classes-at 1"):
        layout_of(path)
    assert list(layout_of(path, 1)[0].train) == ["bus", "train", "tram"]


def test_validation_folders_that_are_none_of_the_classes(tmp_path: Path) -> None:
    numbered = {f"val/{WNIDS.index(w)}/{i}.JPEG": data for (w, i), data in VAL.items()}
    path = written(tmp_path, {**below("train", train_tree()), **numbered})
    with pytest.raises(DataError, match=r"are none of the classes of train.*rename 'val' to hold"):
        layout_of(path)
    (path / "val").rename(path / "unused")
    assert wrong(layout_of(path)[0]) == []
    assert "Not used: 16 images in unused." in layout_of(path)[1]


def test_flat_validation_images_and_the_file_that_the_message_asks_for(tmp_path: Path) -> None:
    flat = {f"val/images/{name}": data for name, data in flat_val().items()}
    flat = {name.replace("ILSVRC2012_", ""): data for name, data in flat.items()}
    path = written(tmp_path, {**below("train", train_tree()), **flat})
    with pytest.raises(DataError, match=r"write val/val_annotations\.txt"):
        layout_of(path)
    lines = [f"{VAL_NAME[key].removeprefix('ILSVRC2012_')}.JPEG\t{key[0]}\n" for key in VAL]
    written(path, {"val/val_annotations.txt": "".join(lines).encode()})
    layout, _ = layout_of(path)
    assert wrong(layout) == []
    assert layout.kind == "Tiny-ImageNet"


def test_numbers_of_a_network_s_classes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """ImageNet-V2: folders 0 to 999 for a network that knows WordNet ids."""
    source = written(tmp_path / "imagenet", below("train", train_tree()))
    run, v2 = tmp_path / "run", tmp_path / "v2"
    written(v2, {f"{WNIDS.index(w)}/{i}.jpeg": data for (w, i), data in VAL.items()})
    argv = ["--arch", "mini", "-b", "8", "--max-steps", "1", "--output-dir", str(run)]
    assert main(["train", "--data", str(source), *argv]) == 0
    capsys.readouterr()
    assert main(["eval", str(run), "--data", str(v2)]) == 4
    advice = re.search(r"--numbers-from \d", capsys.readouterr().err)
    assert advice
    assert main(["eval", str(run), "--data", str(v2), *advice[0].split()]) == 0
    assert "v2: 16 all images" in capsys.readouterr().out
    opened = open_data(v2, 8, classes=WNIDS, hold_out=False, numbers_from=0)
    for name, label in zip(opened.train.names, opened.train.labels, strict=True):
        assert int(name.split("/")[0]) == label
    assert main(["eval", str(run), "--data", str(v2), "--numbers-from", "1"]) == 4
    assert "no numbers from 1 to 8" in capsys.readouterr().err
    with pytest.raises(DataError, match="knows its classes by numbers alone"):
        open_data(source, 8, classes=[str(n) for n in range(8)])


def test_check_advises_to_skip_only_what_is_skipped(tmp_path: Path) -> None:
    path = written(tmp_path / "x", classes_of(a=20, b=20))
    for count, advised in ((10, True), (11, False)):
        written(path, {f"a/{i:03}.png": b"no image" for i in range(count)})
        finding = next(f for f in check(path, workers=1).findings if "cannot be" in f.what)
        assert ("--on-bad-image skip" in finding.remedy) == advised
        command = ["data", "pack", str(path), "-o", str(tmp_path / f"p{count}"), "--size", "8"]
        assert (main([*command, "--on-bad-image", "skip"]) == 0) == advised
