"""Files in a .zip or a .tar, read where they lie.

An archive that wraps everything in one folder is read as if it did not. Of each member only its
name and some numbers are kept, as archives of a million files are usual.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import stat
import struct
import tarfile
import zipfile
import zlib
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator
from io import BufferedIOBase, BytesIO
from itertools import pairwise
from pathlib import Path
from threading import Lock
from typing import IO
from weakref import finalize

from tqdm import tqdm

from tinyalex.data.splits import split_named
from tinyalex.data.storage import Storage, visible
from tinyalex.errors import DataError

# The most that is unpacked into memory: one member of a .zip, or a whole .tar.gz, in which there is
# no way to a member but from the start.
UNPACKED_LIMIT = 2**30
_UNPACK: dict[bytes, Callable[[Path], BufferedIOBase]] = {
    b"\x1f\x8b": gzip.GzipFile,
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ": lzma.LZMAFile,
}
DAMAGED = (
    tarfile.TarError,
    zipfile.BadZipFile,
    NotImplementedError,  # a zip of a version to come, or packed in a way that Python lacks
    UnicodeDecodeError,  # of a name in a zip
    EOFError,
    struct.error,
    zlib.error,
    lzma.LZMAError,
)


def open_archive(path: Path) -> Storage:
    """The archive at `path`, known by its first bytes. Raises one of DAMAGED if it is none."""
    with path.open("rb") as file:
        magic = file.read(6)
    if magic.startswith(b"PK"):
        return Zip(path)
    for start, unpack in _UNPACK.items():
        if magic.startswith(start):
            return Tar(path, _unpacked(path, unpack))
    return Tar(path, None)


def _unpacked(path: Path, unpack: Callable[[Path], BufferedIOBase]) -> bytes:
    with unpack(path) as file:
        data = file.read(UNPACKED_LIMIT + 1)
    if len(data) > UNPACKED_LIMIT:
        raise DataError(
            f"{path} unpacks to more than {UNPACKED_LIMIT:,} bytes, too many to keep in memory. "
            "Unpack it first (gunzip, bunzip2, unxz): a plain .tar is read in place."
        )
    return data


class Archive(Storage):
    """Archive, .zip or .tar, kept open: each member is a name and a few numbers."""

    _width: int  # of the numbers that say where and how a member lies

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        self.path = path
        self._file, self._lock = file, Lock()  # one position for all threads
        finalize(self, file.close)

    def _bytes(self, start: int, count: int) -> bytes:
        with self._lock:
            self._file.seek(start)
            return self._file.read(count)

    def _keep(self, names: list[str], numbers: array[int], folders: set[str]) -> None:
        """Sort the members, of equal names the last, without a folder that wraps everything.

        numbers: `_width` of them for each of `names`.
        """
        order = sorted(range(len(names)), key=names.__getitem__)
        last = [
            i
            for i, after in zip(order, [*order[1:], None], strict=True)
            if after is None or names[i] != names[after]
        ]
        prefix = _wrapper(names, folders)
        again = (names[i] for i, next_ in pairwise(order) if names[i] == names[next_])
        self.repeated = frozenset(name[len(prefix) :] for name in again)
        self.files = tuple(names[i][len(prefix) :] for i in last)
        self.folders = frozenset(f[len(prefix) :] for f in folders if f.startswith(prefix))
        width, self._numbers = self._width, array("Q")
        for i in last:
            self._numbers.extend(numbers[i * width : (i + 1) * width])

    def _place(self, name: str) -> tuple[int, ...]:
        """The numbers of a member."""
        at = bisect_left(self.files, name)
        if self.files[at : at + 1] != (name,):
            raise KeyError(name)
        return tuple(self._numbers[at * self._width : (at + 1) * self._width])


def _wrapper(names: list[str], folders: set[str]) -> str:
    """The folder that wraps all, with a `/`, or nothing; and complete `folders` by those above."""
    previous = ""
    for name in (*names, *list(folders)):  # an archive need not list the folders
        parent = name.rpartition("/")[0]
        if parent == previous:
            continue
        previous = parent
        while parent and parent not in folders:
            folders.add(parent)
            parent = parent.rpartition("/")[0]
    top = {name for name in folders if "/" not in name}
    only = next(iter(top)) if len(top) == 1 else ""
    wraps = only and not split_named(only) and all("/" in name for name in names)
    return f"{only}/" if wraps else ""


class Zip(Archive):
    """Each member: where its header lies, its packed and whole size, checksum, method and flags."""

    _width = 5

    def __init__(self, path: Path) -> None:
        super().__init__(path, path.open("rb"))
        names: list[str] = []
        numbers = array("Q")
        folders: set[str] = set()
        for raw, mode, entry in _directory(self._file):
            name = visible(raw)
            if name and raw.endswith("/"):
                folders.add(name)
            elif name and stat.S_IFMT(mode) in (0, stat.S_IFREG):  # 0 if not made on Unix
                names.append(name)
                numbers.extend(entry)
        self._keep(names, numbers, folders)

    def _read(self, name: str, count: int) -> bytes:
        start, packed, whole, checksum, method = self._place(name)
        if count < 0 and whole > UNPACKED_LIMIT:
            raise DataError(f"{name} in {self.path} would unpack to {whole:,} bytes.")
        info = zipfile.ZipInfo(name)
        info.compress_size, info.file_size, info.CRC = packed, whole, checksum
        info.compress_type, info.flag_bits = method & 0xFFFF, method >> 16
        try:
            if info.flag_bits & 0x41:
                raise zipfile.BadZipFile("it is encrypted")
            sign, *sizes = struct.unpack("<4s22x2H", self._bytes(start, 30))
            if sign != b"PK\x03\x04":
                raise zipfile.BadZipFile("there is no member where the directory says")
            enough = packed if count < 0 else min(packed, 2**16)
            data = BytesIO(self._bytes(start + 30 + sum(sizes), enough))
            return zipfile.ZipExtFile(data, "r", info).read(None if count < 0 else count)
        except (OSError, *DAMAGED) as cause:
            raise DataError(f"{name} in {self.path} cannot be read: {cause}.") from cause


def _directory(file: IO[bytes]) -> Iterator[tuple[str, int, tuple[int, ...]]]:
    """The name, Unix mode and numbers of each member, by the directory at the end of a .zip.

    zipfile keeps some 600 bytes for each. The fields are those of PKWARE's APPNOTE 4.3.12 to 16.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - 22 - 0xFFFF))
    tail_start, tail = file.tell(), file.read()
    at = tail.rfind(b"PK\x05\x06")
    if at < 0:
        raise zipfile.BadZipFile("File is not a zip file")
    count, length, start = struct.unpack_from("<10xH2L", tail, at)
    end = tail_start + at
    file.seek(max(0, end - 20 - 56))
    far = file.read(min(end, 76))
    if far[-20:-16] == b"PK\x06\x07" and far[:4] == b"PK\x06\x06":  # more than 32 bits can count
        count, length, start = struct.unpack_from("<32x3Q", far)
        end -= 76
    before = end - length - start  # what was put before the archive, such as a program
    if before < 0:
        raise zipfile.BadZipFile("it is cut short")
    file.seek(end - length)
    for _ in range(count):
        sign, version, flags, method, checksum, packed, whole, *sizes, attributes, header = (
            struct.unpack("<4s2x3H4x3L3H4x2L", file.read(46))
        )
        if sign != b"PK\x01\x02":
            raise zipfile.BadZipFile("Bad magic number for central directory")
        if version > 63:
            raise NotImplementedError(f"zip file version {version / 10:.1f}")
        name, extra, _ = (file.read(length) for length in sizes)
        if 0xFFFFFFFF in (whole, packed, header):
            whole, packed, header = _wide(extra, whole, packed, header)
        text = name.decode("utf-8" if flags & 0x800 else "cp437")
        numbers = before + header, packed, whole, checksum, method | flags << 16
        yield text, attributes >> 16, numbers


def _wide(extra: bytes, *numbers: int) -> Iterator[int]:
    """`numbers`, each that does not fit 32 bits from the extra field that has 64 for it."""
    at = 0
    while at + 4 <= len(extra):
        kind, size = struct.unpack_from("<2H", extra, at)
        if kind == 1:
            wide = iter(struct.unpack_from(f"<{size // 8}Q", extra, at + 4))
            return (next(wide) if number == 0xFFFFFFFF else number for number in numbers)
        at += 4 + size
    return iter(numbers)


class Tar(Archive):
    """Each member: where its content begins and how long it is.

    data: the whole tar unpacked, or None to read it in place.
    A tar inside is read as a folder of its name; a tar inside of that is a file like others.
    """

    _width = 2

    def __init__(self, path: Path, data: bytes | None) -> None:
        super().__init__(path, path.open("rb") if data is None else BytesIO(data))
        names, places, folders = _members(self._file, 0, None)
        tars = [i for i, name in enumerate(names) if name.endswith(".tar")]
        for i in tqdm(tars, f"index of {path.name}", leave=False, disable=None):
            start, size = places[2 * i : 2 * i + 2]
            inside, numbers, below = _members(self._file, start, start + size)
            folder = names[i].removesuffix(".tar")
            names += [f"{folder}/{name}" for name in inside]
            places += numbers
            folders |= {folder, *(f"{folder}/{name}" for name in below)}
        for i in reversed(tars):
            del names[i], places[2 * i : 2 * i + 2]
        self._keep(names, places, folders)

    def _read(self, name: str, count: int) -> bytes:
        offset, size = self._place(name)
        try:
            return self._bytes(offset, size if count < 0 else min(size, count))
        except OSError as cause:
            raise DataError(
                f"{name} in {self.path} cannot be read: {cause.strerror or cause}."
            ) from cause


def _members(
    file: IO[bytes], start: int, end: int | None
) -> tuple[list[str], array[int], set[str]]:
    """The names, places and sizes of the members of the tar at `start`, and the folders.

    end: where the tar must end, if it is inside of another.
    """
    names: list[str] = []
    places = array("Q")
    folders: set[str] = set()
    file.seek(start)
    with tarfile.open(fileobj=file, mode="r:") as tar:
        while (member := tar.next()) is not None:
            tar.members.clear()  # type: ignore[attr-defined]  # a kilobyte for each
            name = visible(member.name)
            if end is not None and member.offset_data + member.size > end:
                raise tarfile.ReadError(f"damaged at byte {member.offset:,}")
            if name and member.isdir():
                folders.add(name)
            elif name and member.isreg():
                names.append(name)
                places.extend((member.offset_data, member.size))
            elif name and member.islnk() and (target := visible(member.linkname)) in names:
                at = len(names) - 1 - names[::-1].index(target)  # a hard link: the same content
                names.append(name)
                places.extend(places[2 * at : 2 * at + 2])
        file.seek(tar.offset)
        if file.read(tarfile.BLOCKSIZE).strip(b"\0"):  # tarfile stops there without a word
            raise tarfile.ReadError(f"damaged at byte {tar.offset:,}")
    return names, places, folders
