"""Layout of a data set, whichever way it lies on the disk, and the splits made of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from tinyalex.data.dataset import Pixels
from tinyalex.data.decode import Decoder
from tinyalex.data.storage import Storage
from tinyalex.errors import printable

Groups = dict[str, list[str]]  # class -> the names of its images, in order


class Source(Protocol):
    """Source of images by their names."""

    def read(self, name: str) -> Pixels:
        """uint8 (size, size, 3), RGB. Raises DataError that names the image."""
        ...


@dataclass(frozen=True)
class Files:
    """A Source that decodes an image each time it is read.

    fetch: the bytes of an image as they lie on the disk. decode: those bytes and the name to uint8
    (size, size, 3). Both may be called from any thread, and raise DataError.
    sequential: images are much faster to read in the order of their names than at random.
    """

    fetch: Callable[[str], bytes]
    decode: Callable[[bytes, str], Pixels]
    sequential: bool = False

    @classmethod
    def of(cls, storage: Storage, decoder: Decoder) -> Files:
        """The pictures among the files of `storage`."""
        return cls(storage.read, lambda data, name: decoder(data, f"{storage.path}/{name}"))

    def read(self, name: str) -> Pixels:
        return self.decode(self.fetch(name), name)


@dataclass(frozen=True)
class Layout:
    """The images of a data set by class, sorted by class.

    kind: what a person calls this layout. val: None where there is no validation folder.
    titles: what a person calls the classes; those that have no better name are not in it.
    """

    kind: str
    train: Groups
    val: Groups | None
    titles: dict[str, str]
    source: Source


class Images:
    """A Split of a layout. members: the names by which `source` knows the images."""

    def __init__(self, groups: Groups, classes: Sequence[str], source: Source) -> None:
        label = {name: index for index, name in enumerate(classes)}
        self.source = source
        self.members = names_in(groups)
        self.names: Sequence[str] = list(map(printable, self.members))
        self.labels = np.repeat(
            np.array([label[name] for name in groups], np.int32), list(map(len, groups.values()))
        )

    def read(self, index: int) -> Pixels:
        return self.source.read(self.members[index])


def names_in(groups: Groups) -> list[str]:
    """The images of all classes, one class after the other."""
    return [name for group in groups.values() for name in group]


def grouped(images: Iterable[tuple[str, str]]) -> Groups:
    """Group images by class, sorted by class. images: of each its class and its name."""
    groups: Groups = defaultdict(list)
    for label, image in images:
        groups[label].append(image)
    return dict(sorted(groups.items()))


def reading_order(groups: Groups, source: Files) -> list[tuple[str, str]]:
    """The class and the name of each image, in the order in which all are to be read."""
    images = [(label, name) for label, group in groups.items() for name in group]
    return sorted(images, key=lambda image: image[1]) if source.sequential else images


def count_of(images: Collection[object]) -> str:
    """'1 image', '2,000 images'"""
    return "1 image" if len(images) == 1 else f"{len(images):,} images"


def listed(names: Sequence[str]) -> str:
    """'a, b, c, d, e and 7 more'"""
    shown = ", ".join(map(printable, names[:5]))
    return f"{shown} and {len(names) - 5} more" if len(names) > 5 else shown
