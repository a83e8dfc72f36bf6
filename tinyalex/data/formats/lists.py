"""List files, `train.txt` and `val.txt`, with a line `file number` for each image.

Such numbers have at least four orders: by sorted WordNet id from 0, the same from 1, the devkit's
own from 1, and that of map_clsloc.txt. So they are used only where something proves what they mean:
a list of training images that lie in class folders, or synsets.txt with a class for each number.
"""

import re
from collections import defaultdict
from pathlib import PurePosixPath

from tinyalex.data.layout import Groups, grouped, listed
from tinyalex.data.storage import Storage
from tinyalex.errors import DataError

_LIST = r"(meta/)?{}(_list|_cls|_label)?\.txt"
_SYNSETS = ("synsets.txt", "meta/synsets.txt")


def by_list(storage: Storage, folder: str, images: list[str], train: Groups) -> Groups | None:
    """`images`, those of the validation folder, by class, or None if there is no list of them.

    Raises DataError if nothing proves what the numbers of the list mean.
    """
    lists = _named(storage, "(val|validation|valid)")
    if not lists:
        return None
    numbers = {PurePosixPath(path).name: number for path, number in _lines(storage, lists[0])}
    class_of = _by_training(storage, train) or _by_synsets(storage, set(numbers.values()))
    where = storage.path / lists[0]
    if class_of is None:
        raise DataError(
            f"{where} gives each image of {folder} a number, and nothing proves which class a "
            f"number means. Put beside it the train.txt of the same author, whose lines are "
            "'CLASS/FILE NUMBER', or synsets.txt with the name of a class folder on each line, in "
            "the order of the numbers."
        )
    classes = []
    for image in images:
        number = numbers.get(PurePosixPath(image).name, numbers.get(PurePosixPath(image).stem))
        if number not in class_of:
            raise DataError(
                f"{storage.path / image} has no class in {where}: "
                + ("no line names it." if number is None else f"{number} is the number of none.")
                + " Add it to the list, or remove the image."
            )
        classes.append(class_of[number])
    return grouped(zip(classes, images, strict=True))


def _named(storage: Storage, split: str) -> list[str]:
    pattern = re.compile(_LIST.format(split))
    return [name for name in storage.others if name.endswith(".txt") and pattern.fullmatch(name)]


def _lines(storage: Storage, name: str) -> list[tuple[str, int]]:
    """The path and the number of each line; those of another form are passed over."""
    matches = re.findall(r"^(\S.*?)[ \t,]+(\d+)[ \t\r]*$", storage.text(name), re.MULTILINE)
    return [(path, int(number)) for path, number in matches]


def _by_training(storage: Storage, train: Groups) -> dict[int, str] | None:
    """number -> class folder, where the list of training images has one of each for the other."""
    for name in _named(storage, "train(ing)?"):
        folders: dict[int, set[str]] = defaultdict(set)
        for path, number in _lines(storage, name):
            folders[number].add(next((part for part in path.split("/") if part in train), ""))
        class_of = {number: next(iter(f)) for number, f in folders.items() if len(f) == 1}
        distinct = set(class_of.values())
        if len(folders) == len(class_of) == len(distinct) > 1 and "" not in distinct:
            return class_of
    return None


def _by_synsets(storage: Storage, numbers: set[int]) -> dict[int, str] | None:
    """number -> class by the lines of synsets.txt, where the numbers are all of 0.. or of 1.. ."""
    for name in _SYNSETS:
        if name in storage.files:
            classes = [line.split()[0] for line in storage.text(name).splitlines() if line.strip()]
            for first in (0, 1):
                if numbers == set(range(first, first + len(classes))):
                    return dict(enumerate(classes, start=first))
            raise DataError(
                f"{storage.path / name} has {len(classes):,} lines, and the list of the validation "
                f"images the numbers {listed([str(n) for n in sorted(numbers)])}: it cannot be "
                "known from which one the lines are counted. Put the train.txt beside it."
            )
    return None
