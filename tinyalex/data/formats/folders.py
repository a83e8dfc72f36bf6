"""Class folders: how most data sets lie in a folder or an archive.

    train/<class>/**/*.jpg  [val/<class>/**/*.jpg]         ImageNet and most others
    <class>/**/*.jpg                                       no validation folder
    train/<class>/images/*.JPEG  val/images/*.JPEG  val/val_annotations.txt     Tiny-ImageNet
    train/<class>/*.JPEG  val/*.JPEG  devkit               ILSVRC, see `formats.ilsvrc`

A class is a folder with a name, and a label its rank among the training classes, sorted by code
point (`10` before `2`).
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import PurePosixPath

from tinyalex.data.decode import SUFFIXES, decode
from tinyalex.data.formats.ilsvrc import VALIDATION_IMAGE, Devkit, by_ground_truth, read_devkit
from tinyalex.data.layout import (
    Files,
    Groups,
    Layout,
    Pixels,
    how_many,
    printable,
    some,
)
from tinyalex.data.storage import TRAIN, VAL, Directory, Storage
from tinyalex.errors import DataError


def class_folders(storage: Storage, size: int, max_pixels: int | None, notes: list[str]) -> Layout:
    tops = {name.casefold(): name for name in sorted(storage.folders) if "/" not in name}
    train_folder = next((tops[name] for name in TRAIN if name in tops), None)
    val_folder = next((tops[name] for name in VAL if name in tops), None)
    train: Groups = {}
    if train_folder or not val_folder:
        train, beside = _by_class(storage, train_folder)
        _check_place(storage, train, beside)
        if beside:
            notes.append(f"Left out beside the class folders: {how_many(beside)}.")
    devkit = read_devkit(storage)
    val = _validation(storage, val_folder, train, devkit, notes) if val_folder else None
    if storage.path.name.casefold() in TRAIN:
        above = storage.path.absolute().parent
        if unused := [name for name in VAL if (above / name).is_dir()]:
            notes.append(f"{above / unused[0]} is not used. To validate on it, give {above}.")

    def decode_one(data: bytes, name: str) -> Pixels:
        return decode(data, size, printable(f"{storage.path}/{name}"), max_pixels)

    source = Files(storage.read, decode_one)
    annotated = f"{val_folder}/val_annotations.txt" in storage.files
    kind = "ILSVRC" if devkit else "Tiny-ImageNet" if annotated else "class folders"
    return Layout(kind, train, val, _titles(storage, train, devkit), source)


def _by_class(storage: Storage, folder: str | None) -> tuple[Groups, list[str]]:
    """The images at any depth in each folder of `folder`, and those beside these folders."""
    prefix = f"{folder}/" if folder else ""
    inside = [name.removeprefix(prefix) for name in storage.folders if name.startswith(prefix)]
    groups: Groups = {printable(name): [] for name in sorted(inside) if "/" not in name}
    beside: list[str] = []
    for name in _images(storage, prefix):
        label, nested, _ = name.removeprefix(prefix).partition("/")
        (groups[printable(label)] if nested else beside).append(name)
    return groups, beside


def _images(storage: Storage, prefix: str) -> list[str]:
    return [
        name
        for name in storage.files
        if name.startswith(prefix) and name.lower().endswith(SUFFIXES)
    ]


def _check_place(storage: Storage, train: Groups, beside: list[str]) -> None:
    """Explain the folder above the right one, the folder below it, and one without images."""
    path = storage.path
    there = {*storage.folders, *storage.files}
    signs = (*TRAIN, "data_batch_1.bin")
    whole = [name for name in train if any(f"{name}/{sign}" in there for sign in signs)]
    if whole:
        raise DataError(
            f"{path} holds whole data sets, each in its own folder: {some(whole)}. "
            f"Give one of them. Did you mean {path / whole[0]}?"
        )
    if any(train.values()):
        return
    if beside:
        above = path.absolute().parent
        inside = isinstance(storage, Directory) or VALIDATION_IMAGE.fullmatch(beside[0])
        better = f" Did you mean {above}?" if inside else ""
        raise DataError(
            f"{path} holds {how_many(beside)} in no class folder, so that the classes are unknown. "
            f"Give the folder that holds one folder of images per class.{better}"
        )
    kinds = Counter(PurePosixPath(name).suffix or "suffixless" for name in storage.files)
    found = ", ".join(f"{count:,} {kind}" for kind, count in kinds.most_common(3)) or "no"
    unpack = " Unpack each .tar into a folder of its name." if ".tar" in kinds else ""
    raise DataError(
        f"{path} holds no images ({' '.join(SUFFIXES)}) but {found} files.{unpack} "
        "Give a folder or an archive with one folder of images per class."
    )


def _validation(
    storage: Storage, folder: str, train: Groups, devkit: Devkit | None, notes: list[str]
) -> Groups | None:
    """The images of the validation folder by class; None for a test folder without classes."""
    if f"{folder}/val_annotations.txt" in storage.files:
        return _annotated(storage, folder, notes)
    if (flat := by_ground_truth(storage, folder, devkit)) is not None:
        return flat
    val, beside = _by_class(storage, folder)
    if any(group and (not train or name in train) for name, group in val.items()):
        if beside:
            notes.append(f"Left out beside the folders of {folder}: {how_many(beside)}.")
        return val
    if train and folder.casefold().startswith("test"):  # competitions keep their answers back
        notes.append(f"The folder {folder} is left out: it has no images in folders of classes.")
        return None
    raise DataError(
        f"{storage.path / folder} has {how_many(_images(storage, f'{folder}/'))}, none of them in "
        "the folder of a class, so that the classes are unknown. Move each into a folder named as "
        f"its class in train, or write {folder}/val_annotations.txt with a line 'file<TAB>class' "
        f"for each image in {folder}/images, or rename {folder!r} to hold out a tenth of train."
    )


def _annotated(storage: Storage, folder: str, notes: list[str]) -> Groups:
    """Tiny-ImageNet: a line `file<TAB>class<TAB>box` for each file in <folder>/images."""
    annotations = f"{folder}/val_annotations.txt"
    there = set(_images(storage, f"{folder}/images/"))
    label: dict[str, str] = {}
    for number, line in enumerate(storage.text(annotations).splitlines(), start=1):
        file, *fields = line.split("\t")
        if not fields:
            raise DataError(
                f"Line {number} of {storage.path / annotations} is {line!r}, "
                "not 'file<TAB>class'. Mend or remove it."
            )
        label[f"{folder}/images/{file}"] = fields[0]
    if absent := label.keys() - there:
        notes.append(f"Listed in {annotations} but not there: {how_many(absent)}.")
    if unlisted := there - label.keys():
        notes.append(f"Left out, because {annotations} does not list them: {how_many(unlisted)}.")
    val: Groups = {}
    for name in sorted(there & label.keys()):
        val.setdefault(label[name], []).append(name)
    return dict(sorted(val.items()))


def _titles(storage: Storage, train: Groups, devkit: Devkit | None) -> dict[str, str]:
    """What people call the classes whose folder names are WordNet ids such as n01443537.

    From words.txt (`n01443537<TAB>goldfish, Carassius auratus`), else from image names such as
    n01443537_goldfish.JPEG, else from the devkit of ILSVRC.
    """
    titles = dict(devkit.titles) if devkit else {}
    for name, group in train.items():
        stem = PurePosixPath(group[0]).stem if group else ""
        if re.fullmatch(r"n\d{8}", name) and re.fullmatch(name + r"_\D+", stem):
            titles[name] = stem.removeprefix(f"{name}_").replace("_", " ")
    if "words.txt" in storage.files:
        for line in storage.text("words.txt").splitlines():
            name, _, words = line.partition("\t")
            titles[name] = words.partition(",")[0]
    return titles
