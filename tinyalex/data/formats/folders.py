"""Class folders: how most data sets lie in a folder or an archive.

    train/<class>/**/*.jpg  [val/<class>/**/*.jpg]         ImageNet and most others
    <class>/**/*.jpg                                       no validation folder
    train/<class>/images/*.JPEG  val/images/*.JPEG  val/val_annotations.txt     Tiny-ImageNet
    train/<class>/*.JPEG  val/*.JPEG, answers elsewhere    ILSVRC, see `formats.flat`

A class is a folder with a name, and a label its rank among the training classes, sorted by code
point (`10` before `2`).
"""

import re
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from tinyalex.data.decode import Decoder
from tinyalex.data.formats.depth import check_depth
from tinyalex.data.formats.flat import Answers, by_wordnet_id
from tinyalex.data.formats.misplaced import check_one_class, check_whole_sets, refuse_no_classes
from tinyalex.data.formats.tree import Tree, split_folders, suffixes
from tinyalex.data.layout import Files, Groups, Layout, count_of, grouped, listed
from tinyalex.data.splits import NAMES, split_named
from tinyalex.data.storage import Storage
from tinyalex.errors import DataError, printable

_WNID, _NO_DIGITS = re.compile(r"n\d{8}"), re.compile(r"\D+")
_OFFICIAL = re.compile(
    r"(^|/)(train|test|val|train_test_split|train_list|test_list)\.(json|mat|txt|csv)$"
)


@dataclass
class _Part:
    """The images of a split by class, and the folders that were taken for each class.

    beside: images in no class folder. unread: files in class folders that are no images.
    """

    groups: Groups = field(default_factory=dict)
    folders: dict[str, list[str]] = field(default_factory=dict)
    beside: list[str] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)


def class_folders(
    storage: Storage, whole: Storage, decoder: Decoder, classes_at: int | None, notes: list[str]
) -> Layout:
    """The images of `storage` by their folders.

    classes_at: which folder in the path of an image is its class, counted from 1; None goes by the
    names. whole: the data set as it was given, with tables that `storage` may lack.
    """
    tree, answers = Tree.of(storage), Answers(whole, storage)
    tops = split_folders(storage, tree, classes_at)
    train, used = Groups(), list[str]()
    if "train" in tops or not tops:
        used += tops.get("train", [""])
        train = _training(storage, tree, used, classes_at, notes)
    val = None
    for split in ("val", "test"):
        if val is not None:
            break
        for top in tops.get(split, ()):
            used.append(top)
            groups = _validation(storage, tree, top, split, train, answers, classes_at, notes)
            if groups is not None:
                val = _merged(val or {}, groups)
    _note_unused(storage, tree, used, notes)
    annotated = any(f"{top}/val_annotations.txt" in storage.files for top in used)
    kind = "ILSVRC" if answers.devkit else "Tiny-ImageNet" if annotated else "class folders"
    return Layout(kind, train, val, _titles(storage, train, answers), Files.of(storage, decoder))


def _training(
    storage: Storage, tree: Tree, tops: list[str], classes_at: int | None, notes: list[str]
) -> Groups:
    """The classes of the training folders `tops`, which are one set; "" is the data set's own."""
    part = _part(tree, tops, classes_at)
    train = part.groups
    if not any(train.values()) and (named := by_wordnet_id(part.beside)):
        train, part.beside = named, []
    if classes_at is None:
        if tops == [""]:
            check_whole_sets(storage, tree)
        check_one_class(storage, tree, train, tops[0] and tree.class_root(tops[0], {}))
    if not any(train.values()):
        refuse_no_classes(storage, tree, part.beside, tops[0])
    if classes_at is None:
        check_depth(storage, tree, part.folders, notes)
    if part.beside:
        notes.append(f"Left out beside the class folders: {count_of(part.beside)}.")
    if part.unread:
        notes.append(f"Files in the class folders that are no images: {suffixes(part.unread)}.")
    name = storage.path.name
    if tops == [""] and split_named(name) == "train":
        above = storage.path.absolute().parent
        if unused := [word for word in (*NAMES["val"], *NAMES["test"]) if (above / word).is_dir()]:
            notes.append(f"{above / unused[0]} is not used. To validate on it, give {above}.")
    return train


def _part(
    tree: Tree, tops: list[str], classes_at: int | None, known: Groups | None = None
) -> _Part:
    """The images at any depth in the class folders of `tops`.

    known: folders of these names are classes, and not what holds all the classes.
    """
    part = _Part()
    roots = []
    for top in tops:
        level = [tree.class_root(top, known or {}) if top and classes_at is None else top]
        for _ in range((classes_at or 0) - 1 - bool(top)):
            part.beside += [name for folder in level for name in tree.images.get(folder, ())]
            level = [below for folder in level for below in tree.below.get(folder, ())]
        roots += level
    for root in roots:
        part.beside += tree.images.get(root, ())
        for folder in tree.below.get(root, ()):
            others = tree.others_in(folder)
            part.unread += others
            if tree.holds_images(folder) or not others:  # else it is no class, but notes and lists
                part.folders.setdefault(printable(PurePosixPath(folder).name), []).append(folder)
    for label, folders in sorted(part.folders.items()):
        images = [name for folder in folders for name in tree.images_in(folder)]
        part.groups[label] = images if len(folders) == 1 else sorted(images)
    return part


def _merged(one: Groups, other: Groups) -> Groups:
    return {label: one.get(label, []) + other.get(label, []) for label in sorted({*one, *other})}


def _validation(
    storage: Storage,
    tree: Tree,
    top: str,
    kind: str,
    train: Groups,
    answers: Answers,
    classes_at: int | None,
    notes: list[str],
) -> Groups | None:
    """The images of a validation folder by class, or None for one without classes.

    Only a test folder may lack them, as competitions keep their answers back.
    """
    images = tree.images_in(top)
    if not images and train:
        notes.append(f"The folder {top} has no images, and is no validation folder.")
        return None
    if f"{top}/val_annotations.txt" in storage.files:
        return _annotated(storage, top, images, notes)
    part = _part(tree, [top], classes_at, train)
    if not any(part.groups.values()):
        flat = part.beside
    elif len(part.groups) == 1 and not part.groups.keys() & train.keys():
        flat = images  # all in a folder that is no class
    else:
        flat = []
    if flat and (groups := answers.of(top, flat, train)) is not None:
        return groups
    if any(group and (not train or name in train) for name, group in part.groups.items()):
        if part.beside:
            notes.append(f"Left out beside the folders of {top}: {count_of(part.beside)}.")
        if part.unread:
            notes.append(
                f"Files in the folders of {top} that are no images: {suffixes(part.unread)}."
            )
        return part.groups
    if train and kind == "test":
        notes.append(f"The folder {top} is left out: it has no images in folders of classes.")
        return None
    if flat:
        raise DataError(
            f"{storage.path / top} has {count_of(images)}, none of them in the folder of a class, "
            "so that the classes are unknown. Move each into a folder named as its class in train, "
            f"or write {top}/val_annotations.txt with a line 'file<TAB>class' for each image in "
            f"{top}/images, or rename {top!r} to hold out a tenth of train."
        )
    raise DataError(
        f"The folders of {storage.path / top}, {listed(list(part.groups))}, are none of the "
        f"classes of train, which are {listed(list(train))}: what they show is unknown. "
        f"Rename each as its class is called in train, or rename {top!r} to hold out a tenth of "
        "train."
    )


def _annotated(storage: Storage, folder: str, images: list[str], notes: list[str]) -> Groups:
    """Tiny-ImageNet: a line `file<TAB>class<TAB>box` for each file in <folder>/images."""
    annotations = f"{folder}/val_annotations.txt"
    there = {name for name in images if name.startswith(f"{folder}/images/")}
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
        notes.append(f"Listed in {annotations} but not there: {count_of(absent)}.")
    if unlisted := there - label.keys():
        notes.append(f"Left out, because {annotations} does not list them: {count_of(unlisted)}.")
    return grouped((label[name], name) for name in sorted(there & label.keys()))


def _note_unused(storage: Storage, tree: Tree, used: list[str], notes: list[str]) -> None:
    """Say which images lie in no folder that is used, and which official splits are not."""
    if used != [""]:
        unused = {top: tree.images_in(top) for top in tree.below.get("", ()) if top not in used}
        unused[str(storage.path)] = tree.images.get("", [])
        for top, images in unused.items():
            if images:
                notes.append(f"Not used: {count_of(images)} in {printable(top)}.")
    elif lists := [name for name in storage.others if _OFFICIAL.search(name)]:
        notes.append(f"Not used: the list of a split in {listed(lists)}.")


def _titles(storage: Storage, train: Groups, answers: Answers) -> dict[str, str]:
    """Titles of the classes whose folder names are WordNet ids such as n01443537.

    From words.txt (`n01443537<TAB>goldfish, Carassius auratus`), else from image names such as
    n01443537_goldfish.JPEG, else from Kaggle's table or the devkit of ILSVRC.
    """
    titles = dict(answers.devkit.titles) if answers.devkit else answers.kaggle_titles
    for name, group in train.items():
        stem = PurePosixPath(group[0]).stem if group else ""
        words = stem.removeprefix(f"{name}_")
        if words != stem and _WNID.fullmatch(name) and _NO_DIGITS.fullmatch(words):
            titles[name] = words.replace("_", " ")
    if "words.txt" in storage.files:
        for line in storage.text("words.txt").splitlines():
            name, _, words = line.partition("\t")
            titles[name] = words.partition(",")[0]
    return titles
