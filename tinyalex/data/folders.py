"""Recognises how a data set is laid out in a folder or an archive, and opens it.

    train/<class>/**/*.jpg  [val/<class>/**/*.jpg]         ImageNet and most others
    <class>/**/*.jpg                                       no validation folder
    train/<class>/images/*.JPEG  val/images/*.JPEG  val/val_annotations.txt     Tiny-ImageNet
    data_batch_1.bin .. data_batch_5.bin  test_batch.bin  batches.meta.txt      CIFAR-10, binary

A class is a folder with a name, and a label its rank among the training classes, sorted by code
point (`10` before `2`). Whatever the validation folder lacks or adds, labels never shift.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt
from PIL import Image

from tinyalex.data.dataset import Dataset
from tinyalex.data.decode import MAX_PIXELS, SUFFIXES, centre_square, decode
from tinyalex.data.storage import TRAIN, VAL, Directory, Storage, open_storage
from tinyalex.errors import DataError

Pixels = npt.NDArray[np.uint8]
Groups = dict[str, list[str]]  # class -> the sorted names of its images


class Images:
    """A Split. `read_one` makes a name uint8 (size, size, 3)."""

    def __init__(
        self, groups: Groups, classes: Sequence[str], read_one: Callable[[str], Pixels]
    ) -> None:
        label = {name: index for index, name in enumerate(classes)}
        self._members = [member for group in groups.values() for member in group]
        self._read_one = read_one
        self.names: Sequence[str] = [_printable(member) for member in self._members]
        self.labels = np.array(
            [label[name] for name, group in groups.items() for _ in group], dtype=np.int32
        )

    def read(self, index: int) -> Pixels:
        return self._read_one(self._members[index])


@dataclass(frozen=True)
class _Layout:
    """What a data set turned out to hold. `val` is None where there is no validation folder."""

    train: Groups
    val: Groups | None
    titles: dict[str, str]
    read_one: Callable[[str], Pixels]


def open_dataset(
    path: Path,
    size: int,
    *,
    seed: int = 0,
    classes: Sequence[str] | None = None,
    hold_out: bool = True,
    max_pixels: int = MAX_PIXELS,
) -> Dataset:
    """The data set at `path`, a folder or an archive, as images of `size` x `size`.

    classes: the classes of a checkpoint. Labels are then indices into this list, other classes are
    refused, absent ones noted, and `train` is empty if there is only a validation folder.
    hold_out: without a validation folder, keep 10 % of each class, chosen by `seed`, for `val`.
    max_pixels: images with more are refused when they are read.
    Raises DataError, saying what was found and what to do, if it is none of the known layouts.
    """
    storage = open_storage(path)
    notes: list[str] = []
    layout = _cifar(storage, size, notes) or _class_folders(storage, size, max_pixels, notes)
    train, val = layout.train, layout.val
    if classes is None:
        _check_trainable(storage, train)
        classes = tuple(train)
    else:
        train = {name: group for name, group in train.items() if group}
        _check_known(storage, {*train, *(val or {})}, classes)
        if train and (absent := [name for name in classes if name not in train]):
            notes.append(f"There are no training images of {_some(absent)}.")
    if val is not None:
        val = _matched(val, classes, notes)
    elif hold_out:
        train, val = _held_out(train, seed)
        held = [name for group in val.values() for name in group]
        notes.append(
            "There is no validation folder. A tenth of each class is held out, by seed "
            f"{seed}: {_count(held)}."
            if held
            else "There are no validation images: no class has a second image to hold out."
        )
    return Dataset(
        name=path.resolve().name,
        classes=tuple(classes),
        titles=tuple(layout.titles.get(name, name) for name in classes),
        train=Images(train, classes, layout.read_one),
        val=Images(val, classes, layout.read_one) if val else None,
        notes=tuple(notes),
    )


def _check_trainable(storage: Storage, train: Groups) -> None:
    if not train:
        raise DataError(
            f"{storage.path} has validation images but no folder 'train' beside them. Name the "
            "folder with the training images 'train', with one folder per class in it."
        )
    if len(train) == 1:
        (only,) = train
        inside = [folder for folder in storage.folders if folder.startswith(f"{only}/")]
        better = f" Did you mean {storage.path / only}?" if len(inside) > 1 else ""
        raise DataError(
            f"{storage.path} has one class, {only!r}, and at least two are needed, each a folder "
            f"of images.{better}"
        )
    if empty := [name for name, group in train.items() if not group]:
        raise DataError(
            f"{storage.path} has no training images of {_some(empty)}. Put images "
            f"({' '.join(SUFFIXES)}) into the folder of each class, or remove the folder."
        )


def _check_known(storage: Storage, found: set[str], classes: Sequence[str]) -> None:
    if unknown := sorted(found - set(classes)):
        raise DataError(
            f"{storage.path} has classes that the network was not trained on: {_some(unknown)}. "
            f"It knows {_some(classes)}. Remove or rename the folders."
        )


def _matched(val: Groups, classes: Sequence[str], notes: list[str]) -> Groups:
    """The part of `val` that is in `classes` and has images."""
    known = set(classes)
    kept = {name: group for name, group in val.items() if group and name in known}
    if absent := [name for name in classes if name not in kept]:
        notes.append(f"There are no validation images of {_some(absent)}.")
    if extra := {name: group for name, group in val.items() if group and name not in kept}:
        left_out = [name for group in extra.values() for name in group]
        notes.append(
            f"Left out of validation, because train lacks the class: {_count(left_out)} of "
            f"{_some(list(extra))}."
        )
    return kept


def _held_out(train: Groups, seed: int) -> tuple[Groups, Groups]:
    """What stays for training and what does not: of n images a tenth, at least 1, at most n - 1.

    They are chosen by a hash of seed and name, so that other classes do not matter, and neither
    does whether the images lie in a folder or in an archive.
    """

    def rank(name: str) -> bytes:
        return hashlib.sha256(f"{seed}/{name}".encode(errors="surrogateescape")).digest()

    kept: Groups = {}
    held: Groups = {}
    for label, names in train.items():
        count = min(len(names) - 1, max(1, len(names) // 10))
        chosen = set(sorted(names, key=rank)[:count])
        kept[label] = [name for name in names if name not in chosen]
        if chosen:
            held[label] = sorted(chosen)
    return kept, held


# Class folders


def _class_folders(storage: Storage, size: int, max_pixels: int, notes: list[str]) -> _Layout:
    tops = {name.casefold(): name for name in sorted(storage.folders) if "/" not in name}
    train_folder = next((tops[name] for name in TRAIN if name in tops), None)
    val_folder = next((tops[name] for name in VAL if name in tops), None)
    train: Groups = {}
    if train_folder or not val_folder:
        train, beside = _by_class(storage, train_folder)
        _check_place(storage, train, beside)
        if beside:
            notes.append(f"Left out beside the class folders: {_count(beside)}.")
    val = _validation(storage, val_folder, train, notes) if val_folder else None
    if storage.path.name.casefold() in TRAIN:
        above = storage.path.absolute().parent
        if unused := [name for name in VAL if (above / name).is_dir()]:
            notes.append(f"{above / unused[0]} is not used. To validate on it, give {above}.")

    def read_one(name: str) -> Pixels:
        full_name = _printable(f"{storage.path}/{name}")
        return decode(storage.read(name), size, full_name, max_pixels)

    return _Layout(train, val, _titles(storage, train), read_one)


def _by_class(storage: Storage, folder: str | None) -> tuple[Groups, list[str]]:
    """The images at any depth in each folder of `folder`, and those beside these folders."""
    prefix = f"{folder}/" if folder else ""
    inside = [name.removeprefix(prefix) for name in storage.folders if name.startswith(prefix)]
    groups: Groups = {_printable(name): [] for name in sorted(inside) if "/" not in name}
    beside: list[str] = []
    for name in _images(storage, prefix):
        label, nested, _ = name.removeprefix(prefix).partition("/")
        (groups[_printable(label)] if nested else beside).append(name)
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
            f"{path} holds whole data sets, each in its own folder: {_some(whole)}. "
            f"Give one of them. Did you mean {path / whole[0]}?"
        )
    if any(train.values()):
        return
    if beside:
        above = path.absolute().parent
        better = f" Did you mean {above}?" if isinstance(storage, Directory) else ""
        raise DataError(
            f"{path} holds {_count(beside)} in no class folder, so that the classes are unknown. "
            f"Give the folder that holds one folder of images per class.{better}"
        )
    kinds = Counter(PurePosixPath(name).suffix or "suffixless" for name in storage.files)
    found = ", ".join(f"{count:,} {kind}" for kind, count in kinds.most_common(3)) or "no"
    unpack = " Unpack each .tar into a folder of its name." if ".tar" in kinds else ""
    raise DataError(
        f"{path} holds no images ({' '.join(SUFFIXES)}) but {found} files.{unpack} "
        "Give a folder or an archive with one folder of images per class."
    )


def _validation(storage: Storage, folder: str, train: Groups, notes: list[str]) -> Groups | None:
    """The images of the validation folder by class; None for a test folder without classes."""
    if f"{folder}/val_annotations.txt" in storage.files:
        return _annotated(storage, folder, notes)
    val, beside = _by_class(storage, folder)
    if any(group and (not train or name in train) for name, group in val.items()):
        if beside:
            notes.append(f"Left out beside the folders of {folder}: {_count(beside)}.")
        return val
    if train and folder.casefold().startswith("test"):  # competitions keep their answers back
        notes.append(f"The folder {folder} is left out: it has no images in folders of classes.")
        return None
    raise DataError(
        f"{storage.path / folder} has {_count(_images(storage, f'{folder}/'))}, none of them in "
        "the folder of a class, so that the classes are unknown. Move each into a folder named as "
        f"its class in train, or write {folder}/val_annotations.txt with a line 'file<TAB>class' "
        f"for each image in {folder}/images, or rename {folder!r} to hold out a tenth of train."
    )


def _annotated(storage: Storage, folder: str, notes: list[str]) -> Groups:
    """Tiny-ImageNet: a line `file<TAB>class<TAB>box` for each file in <folder>/images."""
    annotations = f"{folder}/val_annotations.txt"
    there = set(_images(storage, f"{folder}/images/"))
    label: dict[str, str] = {}
    for number, line in enumerate(_text(storage, annotations).splitlines(), start=1):
        file, *fields = line.split("\t")
        if not fields:
            raise DataError(
                f"Line {number} of {storage.path / annotations} is {line!r}, "
                "not 'file<TAB>class'. Mend or remove it."
            )
        label[f"{folder}/images/{file}"] = fields[0]
    if absent := label.keys() - there:
        notes.append(f"Listed in {annotations} but not there: {_count(absent)}.")
    if unlisted := there - label.keys():
        notes.append(f"Left out, because {annotations} does not list them: {_count(unlisted)}.")
    val: Groups = {}
    for name in sorted(there & label.keys()):
        val.setdefault(label[name], []).append(name)
    return dict(sorted(val.items()))


def _titles(storage: Storage, train: Groups) -> dict[str, str]:
    """What people call the classes whose folder names are WordNet ids such as n01443537.

    From words.txt (`n01443537<TAB>goldfish, Carassius auratus`), else from image names such as
    n01443537_goldfish.JPEG.
    """
    titles = {}
    for name, group in train.items():
        stem = PurePosixPath(group[0]).stem if group else ""
        if re.fullmatch(r"n\d{8}", name) and re.fullmatch(name + r"_\D+", stem):
            titles[name] = stem.removeprefix(f"{name}_").replace("_", " ")
    if "words.txt" in storage.files:
        for line in _text(storage, "words.txt").splitlines():
            name, _, words = line.partition("\t")
            titles[name] = words.partition(",")[0]
    return titles


# CIFAR-10


def _cifar(storage: Storage, size: int, notes: list[str]) -> _Layout | None:
    """The binary batches, kept in memory: records of a label and 32 x 32 pixels, planes R, G, B."""
    if "data_batch_1" in storage.files:
        raise DataError(
            f"{storage.path} is CIFAR-10 as Python pickles. They could run any code when loaded, "
            "and so are not read. Get the binary version, cifar-10-binary.tar.gz."
        )
    batches = [
        name for name in storage.files if re.fullmatch(r"(data_batch_[1-5]|test_batch)\.bin", name)
    ]
    if not batches:
        return None
    if "batches.meta.txt" not in storage.files:
        raise DataError(
            f"{storage.path} lacks batches.meta.txt, which names the classes of CIFAR-10. Fetch it "
            "again (cifar-10-binary.tar.gz)."
        )
    classes = _text(storage, "batches.meta.txt").split()
    records = {name: _records(storage, name, len(classes)) for name in batches}
    train: Groups = {}
    test: Groups = {}
    for batch in batches:
        groups = test if batch == "test_batch.bin" else train
        for number, label in enumerate(records[batch][:, 0]):
            groups.setdefault(classes[label], []).append(f"{batch}/{number:05}")
    if train and len(batches) - bool(test) < 5:
        notes.append("Some of the five training batches are not there.")

    def read_one(name: str) -> Pixels:
        batch, _, number = name.partition("/")
        planes = records[batch][int(number), 1:].reshape(3, 32, 32)
        return centre_square(Image.fromarray(planes.transpose(1, 2, 0).copy()), size)

    return _Layout(dict(sorted(train.items())), test or None, {}, read_one)


def _records(storage: Storage, name: str, classes: int) -> Pixels:
    data = np.frombuffer(storage.read(name), np.uint8)
    if data.size == 0 or data.size % 3073 or data[::3073].max() >= classes:
        raise DataError(
            f"{storage.path / name} ({data.size:,} bytes) is not a batch of CIFAR-10: records of "
            f"3073 bytes that begin with a label below {classes}. Fetch it again."
        )
    return data.reshape(-1, 3073)


# Text


def _text(storage: Storage, name: str) -> str:
    return storage.read(name).decode("utf-8", errors="replace")


def _printable(name: str) -> str:
    """File names need not be UTF-8; what cannot be printed is shown as an escape."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def _count(images: Collection[str]) -> str:
    return "1 image" if len(images) == 1 else f"{len(images):,} images"


def _some(names: Sequence[str]) -> str:
    """'a, b, c and 7 more'"""
    shown = ", ".join(names[:5])
    return f"{shown} and {len(names) - 5} more" if len(names) > 5 else shown
