"""Images without folders of classes, whose classes stand elsewhere.

Looked for in this order: a WordNet id in the file name (n01440764_10026.JPEG, or
ILSVRC2012_val_00000001_n01751748.JPEG), the devkit of ILSVRC, Kaggle's tables, list files.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile
from pathlib import PurePosixPath

from tinyalex.data.formats.ilsvrc import DEVKITS, VALIDATION_IMAGE, Devkit, read_devkit
from tinyalex.data.formats.kaggle import kaggle_answers, kaggle_titles
from tinyalex.data.formats.lists import by_list
from tinyalex.data.layout import Groups, grouped, names_in
from tinyalex.data.storage import Storage
from tinyalex.errors import DataError

_WNID = re.compile(r"(?<![a-z0-9])n\d{8}(?!\d)")


def wordnet_id(name: str, anywhere: bool = False) -> str | None:
    """The WordNet id at the beginning or the end of a file's name, or that is its folder's name.

    None for none, or for two. anywhere: `name` is a text, and the id may stand at any place in it.
    """
    ids = set(_WNID.findall(name))
    if len(ids) != 1:
        return None
    (wnid,) = ids
    *folders, base = name.split("/")
    stem = base.partition(".")[0]
    placed = stem.startswith(f"{wnid}_") or stem.endswith(f"_{wnid}") or folders[-1:] == [wnid]
    return wnid if anywhere or placed else None


def by_label(
    images: Iterable[tuple[str, str, str, str | None]],
) -> tuple[Groups, Groups | None, dict[str, str]]:
    """Training and validation images by class, and label -> WordNet id, {} if it is not known.

    images: of each its split, its label, its name, and the id that was found with it. The classes
    are the ids, where each label has one and no two have the same; else the labels.
    """
    by_split: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    seen: dict[str, set[str | None]] = defaultdict(set)
    for split, label, name, wnid in images:
        by_split[split][label].append(name)
        if wnid or split == "train":
            seen[label].add(wnid)
    ids = {label: next(iter(own)) for label, own in seen.items() if len(own) == 1}
    name_of = {label: wnid for label, wnid in ids.items() if wnid is not None}
    if not len(name_of) == len(seen) == len(set(name_of.values())):
        name_of = {}
    sets: dict[str, Groups] = {
        split: dict(sorted((name_of.get(label, label), names) for label, names in labels.items()))
        for split, labels in by_split.items()
    }
    return sets.get("train", {}), sets.get("val") or sets.get("test"), name_of


def by_wordnet_id(images: list[str]) -> Groups | None:
    """`images` by the WordNet ids in their names, or None if a name lacks one."""
    known = takewhile(bool, map(wordnet_id, images))
    groups = grouped((wnid, image) for wnid, image in zip(known, images, strict=False) if wnid)
    return groups if groups and len(names_in(groups)) == len(images) else None


@dataclass(frozen=True)
class Answers:
    """The classes of validation images.

    whole: the data set as it was given, with all its tables; storage: as it is read.
    """

    whole: Storage
    storage: Storage

    @cached_property
    def devkit(self) -> Devkit | None:
        """The devkit of ILSVRC."""
        return read_devkit(self.storage)

    @cached_property
    def kaggle(self) -> dict[str, str]:
        """The WordNet id of each image in Kaggle's tables, by its name without suffix."""
        return kaggle_answers(self.whole)

    @cached_property
    def kaggle_titles(self) -> dict[str, str]:
        """WordNet id -> its first word in Kaggle's table."""
        return kaggle_titles(self.whole)

    def of(self, folder: str, images: list[str], train: Groups) -> Groups | None:
        """`images`, which lie in `folder`, by class; None if nothing tells.

        Raises DataError if they are ILSVRC's and nothing tells, or a table does not fit.
        """
        if groups := by_wordnet_id(images):
            return groups
        numbers = [VALIDATION_IMAGE.fullmatch(PurePosixPath(image).name) for image in images]
        official = bool(images) and all(numbers)
        if official and self.devkit:
            answered = [int(match[1]) for match in numbers if match]
            return grouped(self._by_devkit(self.devkit, images, answered))
        if official and self.kaggle:
            return self._by_kaggle(images)
        if (groups := by_list(self.storage, folder, images, train)) is not None:
            return groups
        if official:
            raise DataError(
                f"{self.storage.path / folder} has the validation images of ILSVRC, "
                f"{len(images):,} files without folders of classes. Which class each shows stands "
                f"in the devkit: put {DEVKITS} into {self.storage.path}, beside {folder}, as it is "
                "or unpacked; or LOC_val_solution.csv of Kaggle."
            )
        return None

    def _by_kaggle(self, images: list[str]) -> Groups:
        stems = [PurePosixPath(image).stem for image in images]
        if missing := [i for i, stem in zip(images, stems, strict=True) if stem not in self.kaggle]:
            raise DataError(
                f"{self.storage.path / missing[0]} has no line in LOC_val_solution.csv or no file "
                f"in Annotations. Fetch them again, or put {DEVKITS} there instead."
            )
        return grouped(zip(map(self.kaggle.__getitem__, stems), images, strict=True))

    def _by_devkit(
        self, devkit: Devkit, images: list[str], numbers: list[int]
    ) -> Iterator[tuple[str, str]]:
        """The class and the name of each image."""
        for number, image in sorted(zip(numbers, images, strict=True)):
            if not 1 <= number <= len(devkit.answers):
                raise DataError(
                    f"{self.storage.path / image} has no answer among the {len(devkit.answers):,} "
                    "of the devkit. Is it the devkit of another year? The images need "
                    f"{DEVKITS}."
                )
            answer = devkit.answers[number - 1]
            if answer not in devkit.wnid:
                raise DataError(
                    f"Line {number} of the devkit's ground truth is {answer}, which is no id of a "
                    f"class in its meta.mat. Fetch the devkit again: {DEVKITS}."
                )
            yield devkit.wnid[answer], image
