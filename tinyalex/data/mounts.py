"""Open what lies at a path, and read archives that lie in a folder as folders of their own."""

import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from tinyalex.data.archives import DAMAGED, open_archive
from tinyalex.data.formats.elsewhere import is_foreign
from tinyalex.data.splits import NAMES
from tinyalex.data.storage import Directory, OneFile, Storage
from tinyalex.errors import DataError, nearest

_NAMES = "|".join(name for names in NAMES.values() for name in names)
# What may be downloaded as an archive of its own, and the folder for which it stands.
_ARCHIVES = (
    (r"ILSVRC20\d\d_(?:img|images)_(train|val)\.tar", None),
    (r"(?:ILSVRC20\d\d_)?devkit(?:_t12|-1\.0)\.tar(?:\.gz)?", "devkit"),
    (rf"({_NAMES})\.(?:zip|tar|tar\.gz|tgz)", None),
)
_WORDNET_TAR = re.compile(r"(.*/)?n\d{8}\.tar")
# In Kaggle's ILSVRC the images lie deep below the tables that tell of them.
_KAGGLE = ("ILSVRC/Data/CLS-LOC", "Data/CLS-LOC", "CLS-LOC")


def open_storage(path: Path) -> Storage:
    """The files at `path`, recognised by what is there and not by the suffix.

    Raises DataError if nothing is there, or something that holds no files.
    """
    try:
        if path.is_dir():
            return Directory(path)
        if path.exists():
            return _open_file(path)
        beside = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    except OSError as cause:
        where = cause.filename or path
        raise DataError(f"{where} cannot be read: {cause.strerror or cause}.") from cause
    where = "" if path.parent.is_dir() else f" There is no folder {path.parent} either."
    raise DataError(f"{path} does not exist.{where}{nearest(path.name, beside)}")


def _open_file(path: Path) -> Storage:
    single = OneFile(path)
    if is_foreign(single, path.name):
        return single
    try:
        return open_archive(path)
    except DAMAGED as cause:
        raise DataError(
            f"{path} is not a folder, nor a .zip or .tar that can be read ({cause}). "
            "Give the folder or the archive that holds the images, or fetch it again."
        ) from cause


class Mounted(Storage):
    """Several storages seen as one.

    parts: of each folder, "" being the top, what it is read from, and which folder of that, "" or
    with a `/`. hidden: files of the part at the top that are not seen.
    """

    def __init__(
        self, path: Path, parts: Mapping[str, tuple[Storage, str]], hidden: frozenset[str]
    ) -> None:
        self.path = path
        self._parts = {f"{folder}/" if folder else "": part for folder, part in parts.items()}
        files: list[str] = []
        folders = {folder for folder in parts if folder}
        for place, (storage, below) in self._parts.items():
            seen = [name for name in storage.files if name.startswith(below)]
            files += [place + name[len(below) :] for name in seen if name not in hidden]
            folders |= {place + f[len(below) :] for f in storage.folders if f.startswith(below)}
        self.files = tuple(sorted(files))
        self.folders = frozenset(folders)
        self.repeated = frozenset(
            f"{place}{name}" for place, (part, _) in self._parts.items() for name in part.repeated
        )

    def _inside(self, name: str) -> tuple[Storage, str]:
        """Storage that holds a file, and its name there."""
        folder = name.rpartition("/")[0]
        while folder and f"{folder}/" not in self._parts:
            folder = folder.rpartition("/")[0]
        place = f"{folder}/" if folder else ""
        storage, below = self._parts[place]
        return storage, below + name.removeprefix(place)

    def _read(self, name: str, count: int) -> bytes:
        storage, inside = self._inside(name)
        return storage._read(inside, count)

    def local(self, name: str) -> Path | None:
        storage, inside = self._inside(name)
        return storage.local(inside)


def mounted(storage: Storage, notes: list[str]) -> Storage:
    """`storage` seen as one folder of images.

    Archives of its parts (ILSVRC's, train.zip, shards) are read as folders, and of Kaggle's ILSVRC
    the folder of the images is taken for the top.
    """
    for folder in _KAGGLE:
        if {f"{folder}/train", f"{folder}/val"} & storage.folders:
            return Mounted(storage.path, {"": (storage, f"{folder}/")}, frozenset())
    if not isinstance(storage, Directory):
        return storage
    archives: dict[str, str] = {}
    for pattern, stands_for in _ARCHIVES:
        for name in storage.others:
            if "/" not in name and (match := re.fullmatch(pattern, name)):
                folder = stands_for or match[1]
                if folder in storage.folders or folder in archives:
                    notes.append(f"{name} is not read, because there is a folder {folder}.")
                else:
                    archives[folder] = name
    parts: dict[str, tuple[Storage, str]] = {}
    for folder, name in archives.items():
        inside = open_storage(storage.path / name)
        # The tars of 2010 have a folder `val` of their own.
        parts[folder] = inside, f"{folder}/" if folder in inside.folders else ""
    if not archives:
        parts = _shards(storage)
        archives = {folder: f"{folder}.tar" for folder in parts}
    if not parts:
        return storage
    return Mounted(storage.path, {"": (storage, ""), **parts}, frozenset(archives.values()))


def _shards(storage: Directory) -> dict[str, tuple[Storage, str]]:
    """The tars in a folder that are nothing but its parts: WebDataset's shards, tars of classes."""
    tars = [name for name in storage.others if name.endswith(".tar")]
    if not tars or len(storage.others) < len(storage.files):
        return {}
    if not all(map(_WORDNET_TAR.fullmatch, tars)):
        first = open_storage(storage.path / tars[0])
        if not any(PurePosixPath(name).suffix.lower() == ".cls" for name in first.files):
            return {}
    bar = tqdm(tars, "index of the shards", leave=False, disable=None)
    return {name.removesuffix(".tar"): (open_storage(storage.path / name), "") for name in bar}
