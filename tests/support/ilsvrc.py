"""Makes ILSVRC-2012 as it is downloaded, small: real file names, tars in a tar, a devkit."""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from trees import encoded, tar, tarred, written

TRAIN, VAL, DEVKIT = (
    "ILSVRC2012_img_train.tar",
    "ILSVRC2012_img_val.tar",
    "ILSVRC2012_devkit_t12.tar.gz",
)


def element(kind: int, content: bytes) -> bytes:
    if 0 < len(content) <= 4:
        return struct.pack("<HH", kind, len(content)) + content.ljust(4, b"\0")
    return struct.pack("<II", kind, len(content)) + content + bytes(-len(content) % 8)


def matrix(class_: int, shape: Sequence[int], name: str, *content: bytes) -> bytes:
    head = element(6, struct.pack("<II", class_, 0)) + element(5, struct.pack("<2i", *shape))
    return element(14, head + element(1, name.encode()) + b"".join(content))


def value(v: object) -> bytes:
    if isinstance(v, str):
        return matrix(4, (1, len(v)), "", element(16, v.encode()))
    numbers = v if isinstance(v, list) else [v]
    if all(number < 256 for number in numbers):  # as MATLAB does, the smallest kind that holds them
        return matrix(6, (1, len(numbers)), "", element(2, bytes(numbers)))
    return matrix(6, (1, len(numbers)), "", element(9, struct.pack(f"<{len(numbers)}d", *numbers)))


def meta_mat(synsets: Sequence[dict[str, object]], name: str = "synsets") -> bytes:
    fields = list(synsets[0])
    names = b"".join(field.encode().ljust(32, b"\0") for field in fields)
    values = b"".join(value(synset[field]) for synset in synsets for field in fields)
    table = matrix(
        2, (len(synsets), 1), name, element(5, struct.pack("<i", 32)), element(1, names), values
    )
    packed = zlib.compress(table)
    header = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM"
    return header + struct.pack("<II", 15, len(packed)) + packed


@dataclass(frozen=True)
class Ilsvrc:
    """What was made. wnid: of each validation image by its name; words: of each class."""

    train: dict[str, bytes]  # n01440764/n01440764_1.JPEG -> content
    val: dict[str, bytes]  # ILSVRC2012_val_00000001.JPEG -> content
    devkit: dict[str, bytes]
    wnid: dict[str, str]
    words: dict[str, str]


def ilsvrc(classes: int, train: int, val: int, seed: int = 0, year: int = 2012) -> Ilsvrc:
    """The devkit's ids are in an order of their own, and above them come ids of wider terms."""
    chooser = random.Random(seed)
    wnids = [f"n{number:08}" for number in chooser.sample(range(10**7), classes + 5)]
    synsets: list[dict[str, object]] = [
        {
            f"ILSVRC{year}_ID": i,
            "WNID": wnid,
            "words": f"thing {wnid}, sort of thing",
            "gloss": "a thing — of a sort",
            "num_children": 0 if i <= classes else 2,
            "children": [] if i <= classes else [1, 2],
            "wordnet_height": 0,
            "num_train_images": train,
        }
        for i, wnid in enumerate(wnids, start=1)
    ]

    def photo(number: int) -> bytes:
        colour = (number % 251, number // 251, 99)
        return encoded(Image.new("RGB", (10, 8), colour), "JPEG")

    images = {
        f"{wnid}/{wnid}_{i}.JPEG": photo(number * train + i)
        for number, wnid in enumerate(wnids[:classes])
        for i in range(train)
    }
    ids = [1 + i % classes for i in range(classes * val)]
    chooser.shuffle(ids)
    names = [f"ILSVRC{year}_val_{i:08}.JPEG" for i in range(1, len(ids) + 1)]
    truth = "".join(f"{id_}\n" for id_ in ids).encode()
    return Ilsvrc(
        train=images,
        val={name: photo(50_000 + i) for i, name in enumerate(names)},
        devkit={
            "data/meta.mat": meta_mat(synsets),
            f"data/ILSVRC{year}_validation_ground_truth.txt": truth,
            "readme.txt": b"",
        },
        wnid={name: wnids[id_ - 1] for name, id_ in zip(names, ids, strict=True)},
        words={wnid: f"thing {wnid}" for wnid in wnids[:classes]},
    )


def nested(made: Ilsvrc) -> dict[str, bytes]:
    """The members of the train tar: a tar for each class."""
    members: dict[str, dict[str, bytes]] = {}
    for name, content in made.train.items():
        wnid, _, file = name.partition("/")
        members.setdefault(wnid, {})[file] = content
    return {f"{wnid}.tar": tar(files) for wnid, files in members.items()}


def downloaded(folder: Path, made: Ilsvrc) -> Path:
    """The three files as they are downloaded."""
    folder.mkdir(parents=True)
    tarred(folder / TRAIN, nested(made))
    tarred(folder / VAL, made.val)
    kit = {f"ILSVRC2012_devkit_t12/{name}": content for name, content in made.devkit.items()}
    tarred(folder / DEVKIT, kit, "w:gz")
    return folder


def unpacked(folder: Path, made: Ilsvrc) -> Path:
    """The same, unpacked by hand."""
    written(folder / "train", made.train)
    written(folder / "val", made.val)
    written(folder / "ILSVRC2012_devkit_t12", made.devkit)
    return folder
