"""ILSVRC-2010 and -2012 as they are downloaded: tars of images, and a devkit that has the answers.

    ILSVRC2012_img_train.tar         a tar of a thousand tars, n01440764.tar and so on
    ILSVRC2012_img_val.tar           50,000 images that lie flat
    ILSVRC2012_devkit_t12.tar.gz     data/meta.mat: id, WordNet id and words of each class;
                                     data/ILSVRC2012_validation_ground_truth.txt: an id a line

All of them may be unpacked or not. The ids of the answers count classes in the devkit's own order,
which is not that of the WordNet ids: only meta.mat can tell what they mean.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from tinyalex.data.formats.matlab import read_table
from tinyalex.data.layout import Groups
from tinyalex.data.storage import Directory, Storage, open_storage
from tinyalex.errors import DataError

_ARCHIVES = {
    "train": r"ILSVRC20\d\d_(img|images)_train\.tar",
    "val": r"ILSVRC20\d\d_(img|images)_val\.tar",
    "devkit": r"(ILSVRC20\d\d_)?devkit(_t12|-1\.0)\.tar(\.gz)?",
}
VALIDATION_IMAGE = re.compile(r"ILSVRC20\d\d_val_(\d{8})\.JPEG")
DEVKITS = "ILSVRC2012_devkit_t12.tar.gz (of 2010: ILSVRC2010_devkit-1.0.tar.gz)"


class Mounted(Storage):
    """A folder in which the archives of ILSVRC are read as folders train, val and devkit."""

    def __init__(self, outside: Storage, archives: dict[str, str]) -> None:
        """archives: folder -> the name of the archive that stands for it."""
        self.path = outside.path
        self._outside = outside
        self._inside: dict[
            str, tuple[Storage, str]
        ] = {}  # what it is read from, below which folder
        files = set(outside.files) - set(archives.values())
        folders = set(outside.folders)
        for folder, archive in archives.items():
            inside = open_storage(outside.path / archive)
            # The tars of 2010 have a folder `val` of their own.
            below = f"{folder}/" if folder in inside.folders else ""
            self._inside[folder] = inside, below
            files |= {f"{folder}/{name.removeprefix(below)}" for name in inside.files}
            folders |= {folder} | {f"{folder}/{n.removeprefix(below)}" for n in inside.folders}
        self.files = tuple(sorted(files))
        self.folders = frozenset(folders)

    def read(self, name: str) -> bytes:
        folder, _, rest = name.partition("/")
        if folder not in self._inside:
            return self._outside.read(name)
        inside, below = self._inside[folder]
        return inside.read(below + rest)


def mounted(storage: Storage, notes: list[str]) -> Storage:
    """`storage`, or the same with the archives of ILSVRC that lie in it read as folders."""
    if not isinstance(storage, Directory):
        return storage
    archives = {}
    for folder, pattern in _ARCHIVES.items():
        found = [name for name in storage.files if re.fullmatch(pattern, name)]
        if found and folder in storage.folders:
            notes.append(f"{found[0]} is not read, because there is a folder {folder}.")
        elif found:
            archives[folder] = found[0]
    return Mounted(storage, archives) if archives else storage


@dataclass(frozen=True)
class Devkit:
    """wnid: id -> WordNet id. titles: WordNet id -> the first of its words.

    answers: the id of each validation image, in the order of their numbers.
    """

    wnid: dict[int, str]
    titles: dict[str, str]
    answers: list[int]


def read_devkit(storage: Storage) -> Devkit | None:
    """The devkit in `storage`, or None. Raises DataError for one that cannot be made out."""
    tables = [name for name in storage.files if name.endswith("data/meta.mat")]
    if not tables:
        return None
    table, folder = tables[0], tables[0].removesuffix("meta.mat")
    answers = [
        name
        for name in storage.files
        if name.startswith(folder) and name.endswith("_validation_ground_truth.txt")
    ]
    if not answers:
        raise DataError(
            f"{storage.path / folder} lacks ILSVRC2012_validation_ground_truth.txt. Fetch the "
            f"devkit again: {DEVKITS}."
        )
    try:
        synsets = read_table(storage.read(table), "synsets")
        (id_,) = [field for field in synsets[0] if field.endswith("_ID")]
        return Devkit(
            wnid={int(synset[id_][0]): synset["WNID"] for synset in synsets},
            titles={synset["WNID"]: synset["words"].partition(",")[0] for synset in synsets},
            answers=[int(line) for line in storage.text(answers[0]).split()],
        )
    except (ValueError, LookupError, TypeError, AttributeError) as cause:
        raise DataError(
            f"{storage.path / folder} is not the data of a devkit of ILSVRC ({cause}). Fetch it "
            f"again: {DEVKITS}."
        ) from cause


def by_ground_truth(storage: Storage, folder: str, devkit: Devkit | None) -> Groups | None:
    """The images of `folder` by WordNet id, or None if they are not ILSVRC's flat ones.

    Raises DataError if there is no devkit, or it does not fit.
    """
    numbers = {
        name: int(match[1])
        for name in storage.files
        if name.startswith(f"{folder}/")
        and (match := VALIDATION_IMAGE.fullmatch(name.removeprefix(f"{folder}/")))
    }
    if not numbers:
        return None
    where = storage.path / folder
    if devkit is None:
        raise DataError(
            f"{where} has the validation images of ILSVRC, {len(numbers):,} files without folders "
            f"of classes. Which class each shows stands in the devkit: put {DEVKITS} into "
            f"{storage.path}, beside {folder}, as it is or unpacked."
        )
    groups: Groups = {}
    for name, number in sorted(numbers.items()):
        if not 1 <= number <= len(devkit.answers):
            raise DataError(
                f"{storage.path / name} has no answer among the {len(devkit.answers):,} of the "
                f"devkit. Is it the devkit of another year? The images need {DEVKITS}."
            )
        answer = devkit.answers[number - 1]
        if answer not in devkit.wnid:
            raise DataError(
                f"Line {number} of the devkit's ground truth is {answer}, which is no id of a "
                f"class in its meta.mat. Fetch the devkit again: {DEVKITS}."
            )
        groups.setdefault(devkit.wnid[answer], []).append(name)
    return dict(sorted(groups.items()))
