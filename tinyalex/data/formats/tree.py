"""The images of a data set by their folders, and which of the folders are its training images."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from itertools import chain
from pathlib import PurePosixPath

from tinyalex.data.magic import picture_format
from tinyalex.data.splits import NAMES, Kind, split_in, split_named
from tinyalex.data.storage import Storage
from tinyalex.errors import DataError


@dataclass(frozen=True)
class Tree:
    """images, others: the files that lie directly in a folder, "" being the top, by that folder.

    below: the folders that lie directly in a folder, empty ones too.
    """

    images: dict[str, list[str]]
    others: dict[str, list[str]]
    below: dict[str, list[str]]

    @classmethod
    def of(cls, storage: Storage) -> Tree:
        """Images are known by their suffix, and files without one by their first bytes."""
        images: dict[str, list[str]] = defaultdict(list)
        others: dict[str, list[str]] = defaultdict(list)
        below: dict[str, list[str]] = defaultdict(list)
        no_pictures = {
            name
            for name in storage.others
            if "." in name.rpartition("/")[2] or not picture_format(storage.head(name))
        }
        for name in storage.files:
            kind = others if name in no_pictures else images
            kind[name.rpartition("/")[0]].append(name)
        for folder in sorted(storage.folders):
            below[folder.rpartition("/")[0]].append(folder)
        return cls(dict(images), dict(others), dict(below))

    def images_in(self, folder: str) -> list[str]:
        """The images at any depth in `folder`, sorted."""
        return sorted(self._inside(self.images, folder))

    def others_in(self, folder: str) -> list[str]:
        """The files at any depth in `folder` that are no images."""
        return self._inside(self.others, folder)

    def _inside(self, files: dict[str, list[str]], folder: str) -> list[str]:
        below = (self._inside(files, inner) for inner in self.below.get(folder, ()))
        return [*files.get(folder, ()), *chain.from_iterable(below)]

    def holds_images(self, folder: str) -> bool:
        """True if an image lies at any depth in `folder`."""
        return folder in self.images or any(map(self.holds_images, self.below.get(folder, ())))

    def fork(self, folder: str) -> list[str]:
        """The folders in which the images of `folder` lie apart from each other.

        Single folders in between are passed. [] where images lie directly, or in one folder alone.
        """
        while folder not in self.images:
            inside = [below for below in self.below.get(folder, ()) if self.holds_images(below)]
            if len(inside) != 1:
                return inside
            (folder,) = inside
        return []

    def class_root(self, part: str, known: Collection[str]) -> str:
        """The folder whose folders are classes: `part`, or the one in which alone they all lie.

        known: folders of these names are classes themselves.
        """
        root = part
        while root not in self.images and len(self.below.get(root, ())) == 1:
            (root,) = self.below[root]
            if root.rpartition("/")[2] in known:
                return part
        return root if self.fork(part) and root not in self.images else part


def suffixes(names: list[str]) -> str:
    """'1,281 .xml, 2 without a suffix' for the files `names`, the most frequent first."""
    kinds = Counter(PurePosixPath(name).suffix.lower() or "without a suffix" for name in names)
    return ", ".join(f"{count:,} {kind}" for kind, count in kinds.most_common(5))


def split_folders(storage: Storage, tree: Tree, classes_at: int | None) -> dict[Kind, list[str]]:
    """The top folders of each split, by the words in their names; {} where the tops are classes.

    A folder that is just called `train` goes before others. One with the word inside its name, such
    as `bullet_train`, is a class where others beside it are and it does not hold classes itself.
    Raises DataError where that cannot be told.
    """
    if classes_at == 1:
        return {}
    tops = tree.below.get("", [])
    names = {name.casefold(): name for name in tops}
    exact: dict[Kind, list[str]] = {
        kind: [next(names[word] for word in words if word in names)]
        for kind, words in NAMES.items()
        if any(word in names for word in words)
    }
    filled = [top for top in tops if tree.holds_images(top) and not split_named(top)]
    by_kind: dict[Kind, list[str]] = defaultdict(list)
    for top in filled:
        if kind := split_in(top):
            by_kind[kind].append(top)
    plain = [top for top in filled if not split_in(top)]
    kinds = exact.keys() | by_kind.keys()
    deep = [top for tops in [*by_kind.values(), *exact.values()] for top in tops if tree.fork(top)]
    parts = not plain and (len(kinds) > 1 or bool(deep))
    if not parts and len(kinds) > 1:
        parts = any(top in deep for top in [*by_kind["train"], *exact.get("train", ())])
    if classes_at or parts:
        return by_kind | exact
    unclear = [
        top for kind, tops in by_kind.items() for top in tops if kind != "train" or top in deep
    ]
    if unclear and not exact:
        raise DataError(
            f"{storage.path} has a folder {unclear[0]} beside {plain[0]}. By its name it is a part "
            "of a data set, and not a class. If it is a class all the same, add --classes-at 1; "
            "if it is none, give --data without it."
        )
    return exact
