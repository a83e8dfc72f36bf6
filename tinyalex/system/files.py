"""Files that are written whole, outlast a power cut, and are written by one process at a time."""

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

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


@contextmanager
def replacing(path: Path, partial: Path | None = None) -> Iterator[BinaryIO]:
    """A file that takes the name `path` when it is whole, and on the disk; if that fails, never.

    Until then its name is `partial`, by default `path`.partial, and only a process that is killed
    leaves it. The renaming outlasts a power cut after `sync_folder`.
    """
    partial = partial or path.with_name(f"{path.name}.partial")
    try:
        with open(partial, "wb") as file:
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
