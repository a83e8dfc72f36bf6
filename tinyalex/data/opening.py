"""Open a data set: recognises its layout, labels its images, holds some out for validation.

Whatever the validation folder lacks or adds, labels never shift.
"""

from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

from tinyalex.data import builtin
from tinyalex.data.dataset import Dataset, Split
from tinyalex.data.decode import RULE, Decoder
from tinyalex.data.formats.cifar import cifar
from tinyalex.data.formats.folders import class_folders
from tinyalex.data.formats.huggingface import huggingface
from tinyalex.data.formats.packed import Rows, packed
from tinyalex.data.formats.webdataset import webdataset
from tinyalex.data.layout import Groups, Images, Layout, Source, count_of, listed, names_in
from tinyalex.data.mounts import mounted, open_storage
from tinyalex.data.storage import Storage
from tinyalex.data.unreadable import without_bad_images
from tinyalex.errors import DataError, printable

NO_SECOND = "There are no validation images: no class has a second image to hold out."


def open_data(
    path: str | Path | None,
    size: int,
    seed: int = 0,
    classes: Sequence[str] | None = None,
    hold_out: bool = True,
    max_pixels: int | None = None,
    on_bad_image: str = "error",
    classes_at: int | None = None,
    decoding: int = RULE,
    numbers_from: int | None = None,
) -> Dataset:
    """The images at `path`, a folder or an archive, as squares of `size` pixels; None: built-in.

    seed, hold_out: without a validation folder 10 % of each class, chosen by `seed`, become `val`,
    unless `hold_out` is False.
    classes: those of a checkpoint. Labels are then indices into this list, other classes are
    refused, absent ones noted, and `train` is empty if there is only a validation folder.
    max_pixels: larger pictures are bad, and are not decoded; None is the default, 64 million.
    on_bad_image: `error` raises DataError when a bad image is read; `skip` decodes every image now,
    and leaves out, with a note, those that cannot be decoded (more than 10 and 1 %: DataError).
    classes_at: which folder in the path of an image is its class, counted from 1; None goes by the
    names of the folders.
    decoding: the rule of `decode` by which pictures become pixels.
    numbers_from: class folders are numbers, which count the sorted `classes` from this one.
    Raises DataError, saying what was found and what to do, if it is none of the known layouts.
    """
    if path is None:
        return builtin.builtin_dataset(size=size)
    path = Path(path)
    storage = open_storage(path)
    notes: list[str] = []
    skip = on_bad_image == "skip"
    decoder = Decoder(size, max_pixels, decoding, strict=skip)
    layout = recognise(storage, decoder, classes_at, notes)
    if numbers_from is not None and classes is not None:
        layout = _by_number(storage, layout, sorted(classes), numbers_from)
    if skip:
        layout = without_bad_images(layout, notes)
    train, val = layout.train, layout.val
    if classes is None:
        check_trainable(storage, train)
        classes = tuple(train)
    else:
        train = {name: group for name, group in train.items() if group}
        _check_known(storage, {*train, *(val or {})}, classes)
        if train and (absent := [name for name in classes if name not in train]):
            notes.append(f"There are no training images of {listed(absent)}.")
    if val is not None:
        val = matched(val, classes, notes)
    elif hold_out:
        train, val = _held_out(train, seed)
        held = names_in(val)
        notes.append(
            "There is no validation folder. A tenth of each class is held out, by seed "
            f"{seed}: {count_of(held)}."
            if held
            else NO_SECOND
        )
    return Dataset(
        name=printable(path.resolve().name),
        classes=tuple(classes),
        titles=tuple(printable(layout.titles.get(name, name)) for name in classes),
        train=_split(train, classes, layout.source),
        val=_split(val, classes, layout.source) if val else None,
        notes=tuple(notes),
    )


def _split(groups: Groups, classes: Sequence[str], source: Source) -> Split:
    images = Images(groups, classes, source)
    return source.unshrunk(images) if isinstance(source, Rows) else images


def recognise(
    storage: Storage, decoder: Decoder, classes_at: int | None, notes: list[str]
) -> Layout:
    """Recognise how the data set lies. What the user should know of it is added to `notes`."""
    seen = mounted(storage, notes)
    layout = packed(seen, decoder.size, notes)
    for read in (cifar, huggingface, webdataset):
        layout = layout or read(seen, decoder, notes)
    if layout is None:
        return class_folders(seen, storage, decoder, classes_at, notes)
    if classes_at is not None:
        notes.append("--classes-at has no effect: the classes are known without folders.")
    return layout


def check_trainable(storage: Storage, train: Groups) -> None:
    """Raise DataError unless there are two classes and each has an image."""
    if not train:
        raise DataError(
            f"{storage.path} has validation images but no folder 'train' beside them. Name the "
            "folder with the training images 'train', with one folder per class in it."
        )
    if len(train) == 1:
        (only,) = train
        raise DataError(
            f"{storage.path} has one class, {only!r}, and at least two are needed, each a folder "
            "of images."
        )
    if empty := [name for name, group in train.items() if not group]:
        raise DataError(
            f"{storage.path} has no training images of {listed(empty)}. Put images into the folder "
            "of each class, or remove the empty folder."
        )


def _check_known(storage: Storage, labels: set[str], classes: Sequence[str]) -> None:
    unknown = sorted(labels - set(classes))
    if not unknown:
        return
    if all(map(str.isdecimal, labels)) and not any(map(str.isdecimal, classes)):
        remedy = (
            "If the numbers count the network's classes in sorted order, as those of ImageNet-V2 "
            f"do, add --numbers-from {min(map(int, labels))}."
        )
    elif all(map(str.isdecimal, classes)):
        remedy = (
            "The network knows its classes by numbers alone. Train it on data whose classes have "
            "names, or rename the folders to those numbers."
        )
    else:
        remedy = (
            "Give images of its own classes; or train it on these, its last layer anew: "
            f"tinyalex train --data {storage.path} --weights RUN."
        )
    raise DataError(
        f"{storage.path} has classes that the network was not trained on: {listed(unknown)}. "
        f"It knows {listed(classes)}. {remedy}"
    )


def _by_number(storage: Storage, layout: Layout, classes: list[str], first: int) -> Layout:
    """`layout` with the class that each number means, of `classes` counted from `first`."""

    def named(groups: Groups) -> Groups:
        numbers = {label: int(label) - first if label.isdecimal() else -1 for label in groups}
        if wrong := [label for label, n in numbers.items() if not 0 <= n < len(classes)]:
            raise DataError(
                f"{storage.path} has class folders {listed(wrong)}, which are no numbers from "
                f"{first} to {first + len(classes) - 1}, those of the network's classes."
            )
        return dict(sorted((classes[n], groups[label]) for label, n in numbers.items()))

    val = None if layout.val is None else named(layout.val)
    return replace(layout, train=named(layout.train), val=val)


def matched(val: Groups, classes: Sequence[str], notes: list[str]) -> Groups:
    """The part of `val` that is in `classes` and has images."""
    known = set(classes)
    kept = {name: group for name, group in val.items() if group and name in known}
    if absent := [name for name in classes if name not in kept]:
        notes.append(f"There are no validation images of {listed(absent)}.")
    if extra := {name: group for name, group in val.items() if group and name not in kept}:
        notes.append(
            "Left out of validation, because train lacks the class: "
            f"{count_of(names_in(extra))} of {listed(list(extra))}."
        )
    return kept


def _held_out(train: Groups, seed: int) -> tuple[Groups, Groups]:
    """Hold out a tenth of each class: at least 1 image of n, at most n - 1.

    They are chosen by a hash of seed and name, so that other classes do not matter, and neither
    does whether the images lie in a folder or in an archive.
    """

    prefix = f"{seed}/".encode()

    def rank(name: str) -> bytes:
        return sha256(prefix + name.encode("utf-8", "surrogateescape")).digest()

    kept: Groups = {}
    held: Groups = {}
    for label, names in train.items():
        count = min(len(names) - 1, max(1, len(names) // 10))
        chosen = set(sorted(names, key=rank)[:count])
        kept[label] = [name for name in names if name not in chosen]
        if chosen:
            held[label] = sorted(chosen)
    return kept, held
