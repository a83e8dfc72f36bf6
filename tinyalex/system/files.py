"""Files that are written whole, outlast a power cut, and are written by one process at a time."""

import errno
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from tinyalex.errors import WriteError

if sys.platform != "win32":
    import fcntl


def lock(file: int) -> bool:
    """Lock an open file until it is closed, or its process ends. False: another has locked it.

    Two runs are kept apart on Linux and macOS only: Windows has no flock, and is told True.
    """
    if sys.platform != "win32":
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno not in (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK):
                raise
            # Some file systems of networks have no locks: nothing is promised there.
    return True


def open_own(path: str | os.PathLike[str], flags: int) -> int:
    """Open or create a file of ours to write to: an `opener` for `open`.

    Raises OSError for a link, a pipe or a device: what is written would land in another's file.
    """
    flags |= os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    file = os.open(path, flags, 0o666)
    status = os.fstat(file)
    if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
        os.close(file)
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
    return file


def remedy(error: OSError) -> str:
    """Advice where a file cannot be written."""
    match error.errno:
        case errno.ELOOP:
            return "It is a link to a file elsewhere, or no file: remove it."
        case errno.ENOENT:
            return "The folder has been removed, or moved, meanwhile."
        case errno.EEXIST | errno.ENOTDIR:
            return "There is a file where a folder is needed."
        case errno.EACCES | errno.EPERM | errno.EROFS:
            return "You may not write there."
    return "Free some space."


@contextmanager
def writing(path: Path, flag: str = "--output-dir") -> Iterator[None]:
    """Raise WriteError where a file or folder cannot be written. flag: chooses another."""
    try:
        yield
    except OSError as error:
        raise WriteError(
            f"Cannot write {path}: {error.strerror}. {remedy(error)} Or choose another folder with "
            f"{flag}."
        ) from None


@contextmanager
def replacing(path: Path, partial: Path | None = None) -> Iterator[BinaryIO]:
    """A file that takes the name `path` when it is whole, and on the disk; if that fails, never.

    Until then its name is `partial`, by default `path`.partial, and only a process that is killed
    leaves it. The renaming outlasts a power cut after `sync_folder`.
    """
    partial = partial or path.with_name(f"{path.name}.partial")
    try:
        with suppress(FileNotFoundError):
            partial.unlink()  # what was killed left it; were it a link, we would write elsewhere
        with open(partial, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        with suppress(OSError):
            partial.unlink()
        raise


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that it is there whole or not at all, power cuts included."""
    with replacing(path) as file:
        file.write(content)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make what was created or renamed in `folder` survive a power cut."""
    if os.name == "posix":  # elsewhere folders cannot be opened
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
