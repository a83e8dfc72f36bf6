"""Storages of a data set's files, all read in place.

Nothing is ever extracted or written, so a member called `../../x` has nowhere to go. Left out
everywhere: hidden files and folders (`.ipynb_checkpoints`, `._photo.jpg`), `__MACOSX`, paths with
`..`, and whatever is neither a file nor a folder (devices, pipes; in archives also symbolic links).
A directory's symbolic links are followed, because large data sets are often put together of them.
"""

import os
from abc import ABC, abstractmethod
from functools import cached_property
from pathlib import Path

from tinyalex.data.decode import SUFFIXES
from tinyalex.data.magic import HEAD
from tinyalex.errors import DataError


class Storage(ABC):
    """Named files that can be read from any thread.

    path: what the user gave.
    files: the names, sorted by code point, with `/` between folders.
    folders: the names of the folders, empty ones too where the storage knows them.
    repeated: those of `files` of which an archive has several, and the last is read.
    """

    path: Path
    files: tuple[str, ...]
    folders: frozenset[str]
    repeated: frozenset[str] = frozenset()

    @cached_property
    def others(self) -> tuple[str, ...]:
        """Select the `files` whose suffix is not a picture's: tables, notes, data."""
        return tuple([name for name in self.files if not name.lower().endswith(SUFFIXES)])

    @abstractmethod
    def _read(self, name: str, count: int) -> bytes:
        """The first `count` bytes of one of `files`; of -1 all."""

    def read(self, name: str) -> bytes:
        """The content of one of `files`. Raises DataError that names it."""
        return self._read(name, -1)

    def text(self, name: str) -> str:
        """Read as text; what is not UTF-8 in it is replaced."""
        return self.read(name).decode("utf-8", errors="replace")

    def head(self, name: str) -> bytes:
        """The first bytes, enough for `magic` to tell what the file is."""
        return self._read(name, HEAD)

    def local(self, name: str) -> Path | None:
        """The file as other libraries can open it, or None if it lies in an archive."""
        return None


class Directory(Storage):
    """A folder of the disk with all that lies below it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        files: list[str] = []
        folders: set[str] = set()
        self._list(os.fspath(path), "", (os.path.realpath(path),), files, folders)
        self.files = tuple(sorted(files))
        self.folders = frozenset(folders)

    def _list(
        self, folder: str, prefix: str, above: tuple[str, ...], files: list[str], folders: set[str]
    ) -> None:
        """Collect what lies in `folder`; `above` are the real paths down to it."""
        below: list[os.DirEntry[str]] = []
        with os.scandir(folder) as entries:
            for entry in entries:
                name = entry.name
                if name[0] == "." or name == "__MACOSX":
                    continue
                if entry.is_dir():
                    below.append(entry)
                elif entry.is_file() or not os.path.exists(entry.path):
                    files.append(prefix + name)  # a broken link too: reading it will name it
        for entry in below:
            linked = entry.is_symlink()
            real = os.path.realpath(entry.path) if linked else os.path.join(above[-1], entry.name)
            if real not in above:  # else a link leads back up
                name = prefix + entry.name
                folders.add(name)
                self._list(entry.path, name + "/", (*above, real), files, folders)

    def _read(self, name: str, count: int) -> bytes:
        path = self.local(name)
        try:
            with open(path, "rb") as file:
                return file.read(count)
        except OSError as cause:
            raise DataError(f"{path} cannot be read: {cause.strerror or cause}.") from cause

    def local(self, name: str) -> Path:
        return self.path / name


class OneFile(Directory):
    """A file that is no archive, under its own name."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.files = (path.name,)
        self.folders = frozenset()

    def local(self, name: str) -> Path:
        return self.path


def visible(name: str) -> str | None:
    """`name` without `./` and a leading `/`, or None for what is hidden or leads upwards."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if not parts or any(part[0] == "." or part == "__MACOSX" for part in parts):
        return None
    return "/".join(parts)
