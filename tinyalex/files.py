"""Files that are written whole, outlast a power cut, and are written by one process at a time."""

from __future__ import annotations

import os
import sys
from pathlib import Path

if sys.platform != "win32":
    import fcntl


def lock(file: int) -> bool:
    """Locks an open file until it is closed, or its process ends. False: another has locked it.

    Two runs are kept apart on Linux and macOS only: Windows has no flock, and is told True.
    """
    if sys.platform != "win32":
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:  # some network file systems have no locks: nothing is promised there
            pass
    return True


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file so that it is there whole or not at all, power cuts included."""
    partial = path.with_name(f"{path.name}.partial")
    with open(partial, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Makes what was created or renamed in `folder` survive a power cut."""
    if os.name == "posix":  # elsewhere folders cannot be opened
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
