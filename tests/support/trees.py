"""Data sets made for the tests: small pictures, in folders and archives."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from tinyalex.data.dataset import Dataset, Split

Pixels = npt.NDArray[np.uint8]
Tree = Mapping[str, bytes]


def encoded(image: Image.Image, file_format: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def picture(value: int = 0, side: int = 4) -> bytes:
    """A grey PNG: what it shows tells it from the others."""
    return encoded(Image.new("RGB", (side, side), (value, value, value)), "PNG")


def written(folder: Path, tree: Tree) -> Path:
    """`tree`, from path to content, as files; a path that ends in / is an empty folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in tree.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith("/"):
            path.mkdir()
        else:
            path.write_bytes(content)
    return folder


def zipped(path: Path, tree: Tree) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in tree.items():
            archive.writestr(name, content)
    return path


def tar(tree: Tree, mode: str = "w") -> bytes:
    file = io.BytesIO()
    with tarfile.open(None, mode, file) as archive:  # type: ignore[call-overload]
        for name, content in tree.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return file.getvalue()


def tarred(path: Path, tree: Tree, mode: str = "w") -> Path:
    path.write_bytes(tar(tree, mode))
    return path


def classes_of(**counts: int) -> dict[str, bytes]:
    return {
        f"{name}/{number:03}.png": picture(number)
        for name, count in counts.items()
        for number in range(count)
    }


def below(folder: str, tree: Tree) -> dict[str, bytes]:
    return {f"{folder}/{name}": content for name, content in tree.items()}


def labelled(split: Split | None, dataset: Dataset) -> dict[str, str]:
    assert split is not None
    return {
        name: dataset.classes[label] for name, label in zip(split.names, split.labels, strict=True)
    }
