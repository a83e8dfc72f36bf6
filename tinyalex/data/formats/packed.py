"""A packed data set: every image decoded, cropped and resized once, in one file.

    pack.json     what this is, the classes, the rule by which pictures were decoded (of packs that
                  do not say it, 1), and the size and SHA-256 of each of the other files
    train.rgb     uint8 (N, size, size, 3), nothing else: np.memmap(path, np.uint8) reads it
    train.jsonl   one line an image: its class, its name, the size and SHA-256 of its file
    val.rgb, val.jsonl      the same, where there is a validation folder
    mean.npy      float32 (size, size, 3), colour.npy float32 (3, 3): see `mean_and_colour`, with
                  seed 0; for other programs, as training takes the mean of what it trains on

pack.json is written last. Without it there is no pack, but the beginnings of one, which
unfinished.json tells from other folders.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from tinyalex.data.dataset import Pixels, Split
from tinyalex.data.decode import centre_square
from tinyalex.data.layout import Groups, Images, Layout
from tinyalex.data.pixel_file import Decoded, PixelFile
from tinyalex.data.storage import Directory, Storage
from tinyalex.errors import DataError

PACK, UNFINISHED = "pack.json", "unfinished.json"
FORMAT = 1
AGAIN = "Remove the folder, and make it again with `tinyalex data pack`."
Entry = dict[str, Any]  # a line of train.jsonl: class, name, bytes, sha256; left_out: why


@dataclass(frozen=True)
class Rows:
    """A Source whose images are rows of files, and are shrunk as they are read.

    row: in which file and row an image is. size: of what `read` gives.
    """

    files: tuple[PixelFile, ...]
    row: dict[str, tuple[int, int]]
    size: int

    def read(self, name: str) -> Pixels:
        file, row = self.row[name]
        return centre_square(Image.fromarray(self.files[file].read(row)), self.size)

    def unshrunk(self, images: Images) -> Split:
        """`images`, of this source; where nothing is to be shrunk, as the rows themselves."""
        places = [self.row[name] for name in images.members]
        if not places or self.files[0].size != self.size:
            return images
        pixels = self.files[places[0][0]]  # a split never comes from two files
        return Decoded(images.labels, images.names, pixels, np.array([row for _, row in places]))


def packed(storage: Storage, size: int, notes: list[str]) -> Layout | None:
    """The pack at `storage`, or None if it is none.

    Raises DataError if it is unfinished, has been changed since it was made (of the pixels only
    their number is looked at here), or is packed at less than `size`.
    """
    manifest = read_manifest(storage)
    if manifest is None:
        return None
    side = manifest["size"]
    if side < size:
        raise DataError(
            f"{storage.path} is packed at {side} x {side} pixels, fewer than the {size} x {size} "
            f"that are asked for. Pack the original images again, with --size {size}."
        )
    notes.extend(manifest["notes"])
    if side > size:
        notes.append(f"The images are packed at {side} pixels, and shrunk to {size}.")
    groups: dict[str, Groups] = {split: {} for split in manifest["splits"]}
    row: dict[str, tuple[int, int]] = {}
    files: list[PixelFile] = []
    for file, (split, classes) in enumerate(groups.items()):
        check_size(storage.path, f"{split}.rgb", manifest)
        entries = read_entries(storage, split, manifest)
        for index, entry in enumerate(entries):
            classes.setdefault(entry["class"], []).append(entry["name"])
            row[entry["name"]] = file, index
        files.append(PixelFile(storage.path / f"{split}.rgb", side))
    source = Rows(tuple(files), row, size)
    # Not always packed class by class: see `reading_order`.
    splits = {split: dict(sorted(classes.items())) for split, classes in groups.items()}
    return Layout("packed", splits["train"], splits.get("val"), manifest["titles"], source)


def read_manifest(storage: Storage) -> dict[str, Any] | None:
    """pack.json; None if there is none, or something else of that name.

    Raises DataError if the pack is not finished or lies in an archive.
    """
    if PACK not in storage.files:
        if UNFINISHED in storage.files:
            raise DataError(
                f"{storage.path} is a pack that is not finished. Give the command that makes it, "
                "`tinyalex data pack`, once more: it goes on where it stopped."
            )
        return None
    try:
        content = json.loads(storage.read(PACK))
    except ValueError:
        content = None
    if not isinstance(content, dict) or "tinyalex_pack" not in content:
        return None
    if content["tinyalex_pack"] != FORMAT:
        raise DataError(
            f"{storage.path} is packed in format {content['tinyalex_pack']}, and this version "
            f"reads format {FORMAT}. {AGAIN}"
        )
    manifest: dict[str, Any] = content.get("manifest", {})
    if sealed(manifest) != content:
        raise DataError(f"{storage.path / PACK} has been changed since it was written. {AGAIN}")
    if not isinstance(storage, Directory):
        raise DataError(f"{storage.path} holds a pack. Unpack the archive into a folder first.")
    return manifest


def sealed(manifest: dict[str, Any]) -> dict[str, Any]:
    """Content of pack.json: the manifest, and the SHA-256 that tells whether it is whole."""
    sha256 = hashlib.sha256(json.dumps(manifest).encode()).hexdigest()
    return {"tinyalex_pack": FORMAT, "sha256": sha256, "manifest": manifest}


def read_entries(storage: Storage, split: str, manifest: dict[str, Any]) -> list[Entry]:
    """The lines of train.jsonl or val.jsonl that have a row. Raises DataError if any is changed."""
    name = f"{split}.jsonl"
    data = storage.read(name)
    if hashlib.sha256(data).hexdigest() != manifest["files"][name]["sha256"]:
        raise DataError(f"{storage.path / name} has been changed since it was packed. {AGAIN}")
    entries = map(json.loads, data.splitlines())
    return [entry for entry in entries if "left_out" not in entry]


def check_size(path: Path, name: str, manifest: dict[str, Any]) -> None:
    """Raise DataError for a file of the pack that is not there or has another size."""
    expected = manifest["files"][name]["bytes"]
    try:
        size = (path / name).stat().st_size
    except OSError as cause:
        raise DataError(f"{path / name} cannot be read: {cause.strerror}. {AGAIN}") from cause
    if size != expected:
        raise DataError(f"{path / name} has {size:,} bytes, but {expected:,} were packed. {AGAIN}")


def digest(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    return hashed(path).hexdigest()


def hashed(path: Path) -> hashlib._Hash:
    """The SHA-256 of a file, which can be updated with what is appended to it."""
    sha256 = hashlib.sha256()
    with (
        open(path, "rb", buffering=0) as file,
        tqdm(
            desc=f"SHA-256 of {path.name}",
            total=path.stat().st_size,
            unit="B",
            unit_scale=True,
            leave=False,
            disable=None,
        ) as bar,
    ):
        while block := file.read(2**22):
            sha256.update(block)
            bar.update(len(block))
    return sha256
