"""Where the files of a data set lie: a directory, a .zip or a .tar, all read in place.

Nothing is ever extracted or written, so a member called `../../x` has nowhere to go. Left out
everywhere: hidden files and folders (`.ipynb_checkpoints`, `._photo.jpg`), `__MACOSX`, paths with
`..`, and whatever is neither a file nor a folder (devices, pipes; in archives also symbolic links).
A directory's symbolic links are followed, because large data sets are often put together of them.
An archive that wraps everything in one folder is read as if it did not.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import stat
import tarfile
import threading
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from io import BufferedIOBase, BytesIO
from pathlib import Path
from typing import IO, TypeVar

from tqdm import tqdm

from tinyalex.errors import DataError, nearest

# The folders of a data set, as they are named by its many makers. The first that is there is taken.
TRAIN = ("train", "training")
VAL = ("val", "valid", "validation", "test", "testing")
# The most that is unpacked into memory: one member of a .zip, or a whole .tar.gz, in which there is
# no way to a member but from the start.
UNPACKED_LIMIT = 2**30
_UNPACK: dict[bytes, Callable[[Path], BufferedIOBase]] = {
    b"\x1f\x8b": gzip.GzipFile,
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ": lzma.LZMAFile,
}
Member = TypeVar("Member")
_DAMAGED = (
    tarfile.TarError,
    zipfile.BadZipFile,
    NotImplementedError,  # a zip of a version to come
    UnicodeDecodeError,  # of a name in a zip
    EOFError,
    zlib.error,
    lzma.LZMAError,
)


class Storage(ABC):
    """Named files that can be read from any thread.

    path: what the user gave.
    files: the names, sorted by code point, with `/` between folders.
    folders: the names of the folders, empty ones too where the storage knows them.
    """

    path: Path
    files: tuple[str, ...]
    folders: frozenset[str]

    @abstractmethod
    def read(self, name: str) -> bytes:
        """The content of one of `files`. Raises DataError that names it."""

    def text(self, name: str) -> str:
        """The same as text; what is not UTF-8 in it is replaced."""
        return self.read(name).decode("utf-8", errors="replace")


def open_storage(path: Path) -> Storage:
    """The files at `path`, recognised by what is there and not by the suffix.

    Raises DataError if nothing is there, or something that holds no files.
    """
    try:
        if path.is_dir():
            return Directory(path)
        if path.exists():
            return _open_archive(path)
        beside = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    except OSError as cause:
        where = cause.filename or path
        raise DataError(f"{where} cannot be read: {cause.strerror or cause}.") from cause
    where = "" if path.parent.is_dir() else f" There is no folder {path.parent} either."
    raise DataError(f"{path} does not exist.{where}{nearest(path.name, beside)}")


def _open_archive(path: Path) -> Storage:
    with path.open("rb") as file:
        magic = file.read(6)
    try:
        if magic.startswith(b"PK"):
            return Zip(path)
        for start, unpack in _UNPACK.items():
            if magic.startswith(start):
                return Tar(path, _unpacked(path, unpack))
        return Tar(path, None)
    except _DAMAGED as cause:
        raise DataError(
            f"{path} is not a folder, nor a .zip or .tar that can be read ({cause}). "
            "Give the folder or the archive that holds the images, or fetch it again."
        ) from cause


def _unpacked(path: Path, unpack: Callable[[Path], BufferedIOBase]) -> bytes:
    with unpack(path) as file:
        data = file.read(UNPACKED_LIMIT + 1)
    if len(data) > UNPACKED_LIMIT:
        raise DataError(
            f"{path} unpacks to more than {UNPACKED_LIMIT:,} bytes, too many to keep in memory. "
            "Unpack it first (gunzip, bunzip2, unxz): a plain .tar is read in place."
        )
    return data


class Directory(Storage):
    def __init__(self, path: Path) -> None:
        self.path = path
        files: list[str] = []
        folders: set[str] = set()
        self._list(path, "", (os.path.realpath(path),), files, folders)
        self.files = tuple(sorted(files))
        self.folders = frozenset(folders)

    def _list(
        self, folder: Path, prefix: str, above: tuple[str, ...], files: list[str], folders: set[str]
    ) -> None:
        """Collect what lies in `folder`; `above` are the real paths down to it."""
        with os.scandir(folder) as entries:
            for entry in entries:
                name = prefix + entry.name
                if _visible(entry.name) is None:
                    continue
                if entry.is_dir():
                    real = os.path.realpath(entry.path)
                    if real not in above:  # else a link leads back up
                        folders.add(name)
                        self._list(Path(entry.path), name + "/", (*above, real), files, folders)
                elif entry.is_file() or not os.path.exists(entry.path):
                    files.append(name)  # a broken link too: reading it will name it

    def read(self, name: str) -> bytes:
        try:
            return (self.path / name).read_bytes()
        except OSError as cause:
            raise DataError(
                f"{self.path / name} cannot be read: {cause.strerror or cause}."
            ) from cause


class Zip(Storage):
    def __init__(self, path: Path) -> None:
        self.path = path
        self._zip = zipfile.ZipFile(path)
        self._lock = threading.Lock()  # the members share one position in one open file
        members: dict[str, zipfile.ZipInfo] = {}
        folders: set[str] = set()
        for member in self._zip.infolist():
            kind = stat.S_IFMT(member.external_attr >> 16)  # 0 if not made on Unix
            name = _visible(member.filename)
            if name and member.is_dir():
                folders.add(name)
            elif name and kind in (0, stat.S_IFREG):
                members[name] = member
        self._members, self.folders = _unwrapped(members, folders)
        self.files = tuple(self._members)

    def read(self, name: str) -> bytes:
        member = self._members[name]
        if member.file_size > UNPACKED_LIMIT:
            raise DataError(f"{name} in {self.path} would unpack to {member.file_size:,} bytes.")
        try:
            with self._lock:
                return self._zip.read(member)
        except (OSError, RuntimeError, *_DAMAGED) as cause:
            # RuntimeError: encrypted, or packed by a method that Python lacks
            raise DataError(f"{name} in {self.path} cannot be read: {cause}.") from cause


class Tar(Storage):
    """data: the whole tar unpacked, or None to read it in place.

    A tar inside is read as a folder of its name; a tar inside of that is a file like others.
    """

    def __init__(self, path: Path, data: bytes | None) -> None:
        self.path = path
        self._data = data
        with self._open() as file:
            places, folders = _members(file, 0, None)
            tars = [name for name in places if name.endswith(".tar")]
            for name in tqdm(tars, f"index of {path.name}", leave=False, disable=None):
                start, size = places.pop(name)
                inside, below = _members(file, start, start + size)
                folder = name.removesuffix(".tar")
                places |= {f"{folder}/{member}": place for member, place in inside.items()}
                folders |= {folder, *(f"{folder}/{member}" for member in below)}
        self._places, self.folders = _unwrapped(places, folders)
        self.files = tuple(self._places)

    def _open(self) -> IO[bytes]:
        return self.path.open("rb") if self._data is None else BytesIO(self._data)

    def read(self, name: str) -> bytes:
        offset, size = self._places[name]
        try:
            with self._open() as file:  # opened anew, so that threads share no position
                file.seek(offset)
                return file.read(size)
        except OSError as cause:
            raise DataError(
                f"{name} in {self.path} cannot be read: {cause.strerror or cause}."
            ) from cause


def _members(
    file: IO[bytes], start: int, end: int | None
) -> tuple[dict[str, tuple[int, int]], set[str]]:
    """Where the content of each member of the tar at `start` begins, and its size; the folders.

    end: where the tar must end, if it is inside of another.
    """
    places: dict[str, tuple[int, int]] = {}
    folders: set[str] = set()
    file.seek(start)
    with tarfile.open(fileobj=file, mode="r:") as tar:
        for member in tar:
            name = _visible(member.name)
            if end is not None and member.offset_data + member.size > end:
                raise tarfile.ReadError(f"damaged at byte {member.offset:,}")
            if name and member.isdir():
                folders.add(name)
            elif name and member.isreg():
                places[name] = (member.offset_data, member.size)
            elif name and member.islnk() and (target := _visible(member.linkname)) in places:
                places[name] = places[target]  # a hard link: the same content
        file.seek(tar.offset)
        if file.read(tarfile.BLOCKSIZE).strip(b"\0"):  # tarfile stops there without a word
            raise tarfile.ReadError(f"damaged at byte {tar.offset:,}")
    return places, folders


def _visible(name: str) -> str | None:
    """`name` without `./` and a leading `/`, or None for what is hidden or leads upwards."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if not parts or any(part[0] == "." or part == "__MACOSX" for part in parts):
        return None
    return "/".join(parts)


def _unwrapped(
    members: dict[str, Member], folders: set[str]
) -> tuple[dict[str, Member], frozenset[str]]:
    """The members sorted by name and all the folders, without one that wraps everything."""
    every = set(folders)
    for name in (*members, *folders):  # an archive need not list the folders
        parent = name.rpartition("/")[0]
        while parent and parent not in every:
            every.add(parent)
            parent = parent.rpartition("/")[0]
    top = {name for name in (*members, *every) if "/" not in name}
    only = next(iter(top)) if len(top) == 1 else ""
    if only in every and only.casefold() not in (*TRAIN, *VAL):
        wrapper = f"{only}/"
        members = {name.removeprefix(wrapper): member for name, member in members.items()}
        every = {name.removeprefix(wrapper) for name in every if name.startswith(wrapper)}
    return dict(sorted(members.items())), frozenset(every)
