"""Write the images of a pack so that no interrupt costs more than a second's work.

Images are decoded by several threads and written by one, in order, so that the pack does not
depend on the number of threads. Every second the pixels are made to reach the disk, and then the
lines that tell of them: an image is done when its line is whole.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import time
from contextlib import ExitStack, closing, suppress
from pathlib import Path

from tqdm import tqdm

from tinyalex.data.dataset import Pixels
from tinyalex.data.formats.packed import Entry, hashed
from tinyalex.data.layout import Files, Groups, reading_order
from tinyalex.data.parallel import in_order
from tinyalex.data.unreadable import check_not_too_many
from tinyalex.errors import DataError, UsageError, printable
from tinyalex.system.files import lock, open_own, sync_folder

COMMIT_SECONDS = 1.0


class Writer:
    """Append the images of a split to <name>.rgb, and what is known of them to <name>.jsonl.

    left_out: the names of images that cannot be decoded; written: the classes of the others;
    sha256: of the pixels. All three tell of an earlier attempt too.
    """

    def __init__(self, target: Path, name: str, groups: Groups, source: Files, size: int) -> None:
        self.left_out: list[str] = []
        self.written: set[str] = set()
        self._target, self._name, self._row_bytes = target, name, size * size * 3
        self._source = source
        self._images = reading_order(groups, source)
        self._pending: list[bytes] = []  # lines of images whose pixels may not be on the disk yet
        self._committed = time.monotonic()

    def __enter__(self) -> Writer:
        with ExitStack() as opened:
            self._pixels = opened.enter_context(self._open(".rgb"))
            self._lines = opened.enter_context(self._open(".jsonl"))
            sync_folder(self._target)
            if not lock(self._lines.fileno()):
                raise busy(self._target)
            opened.pop_all()  # they are closed on leaving, unless this was refused
        return self

    def _open(self, suffix: str) -> io.FileIO:
        path = self._target / f"{self._name}{suffix}"
        return open(path, "a+b", buffering=0, opener=open_own)

    def __exit__(self, *raised: object) -> None:
        if self._pending:
            with suppress(OSError):  # of a full disk; what was committed before stands
                self._commit()
        self._pixels.close()
        self._lines.close()

    def _cut_to_whole_lines(self) -> int:
        """Count the images that are done. What an interrupt left behind them is cut off."""
        self._lines.seek(0)
        room = os.fstat(self._pixels.fileno()).st_size // self._row_bytes
        done, rows, length = 0, 0, 0
        for line in self._lines.read().splitlines(keepends=True):
            if not line.endswith(b"\n"):
                break
            entry = json.loads(line)
            past = done == len(self._images)
            if past or not self._label(done).items() <= entry.items():
                raise UsageError(
                    f"{self._target} is the beginning of a pack of other images: "
                    f"{printable(entry['name'])} has no such place in the data, or not any more. "
                    "Remove the folder, or choose another."
                )
            if "left_out" in entry:
                self.left_out.append(printable(entry["name"]))
            elif rows == room:
                break
            else:
                self.written.add(entry["class"])
                rows += 1
            done, length = done + 1, length + len(line)
        self._pixels.truncate(rows * self._row_bytes)
        self.sha256 = hashed(self._target / f"{self._name}.rgb")
        self._committed_bytes = length
        return done

    def _label(self, index: int) -> Entry:
        """The beginning of an image's line."""
        label, name = self._images[index]
        return {"class": label, "name": name}

    def write_images(self, workers: int, skip: bool) -> None:
        """Decode and writes the images that are not done."""
        done, total = self._cut_to_whole_lines(), len(self._images)
        with (
            closing(in_order(self._decoded, range(done, total), workers)) as decoded,
            tqdm(desc=self._name, total=total, initial=done, unit=" images", disable=None) as bar,
        ):
            for entry, pixels in decoded:
                if isinstance(pixels, DataError):
                    if not skip:
                        raise DataError(
                            f"{pixels} Or leave such images out with --on-bad-image skip. What is "
                            "packed is kept: the same command goes on from there."
                        )
                    self.left_out.append(printable(entry["name"]))
                    check_not_too_many(self.left_out, total)
                else:
                    row = pixels.data.cast("B")
                    append(self._pixels, row)
                    self.sha256.update(row)  # here, because a large pack is slow to read again
                    self.written.add(entry["class"])
                self._pending.append(json.dumps(entry).encode() + b"\n")
                if time.monotonic() - self._committed > COMMIT_SECONDS:
                    self._commit()
                bar.update()

    def _decoded(self, index: int) -> tuple[Entry, Pixels | DataError]:
        """The line and the pixels of an image, or why it has none."""
        entry = self._label(index)
        try:
            data = self._source.fetch(entry["name"])
            pixels = self._source.decode(data, entry["name"])
        except DataError as error:
            return entry | {"left_out": str(error)}, error
        sha256 = hashlib.sha256(data).hexdigest()
        return entry | {"bytes": len(data), "sha256": sha256}, pixels

    def _commit(self) -> None:
        os.fsync(self._pixels.fileno())
        self._lines.truncate(self._committed_bytes)  # cuts off what an interrupt has left
        append(self._lines, b"".join(self._pending))
        os.fsync(self._lines.fileno())
        self._committed_bytes += sum(map(len, self._pending))
        self._pending.clear()
        self._committed = time.monotonic()


def busy(target: Path) -> UsageError:
    """The error where two processes make one pack."""
    return UsageError(
        f"Another process is packing into {target} just now. Let it finish, or choose another "
        "folder."
    )


def append(file: io.FileIO, data: bytes | memoryview) -> None:
    """Write all of `data`; without a buffer, `write` may stop where the disk is full."""
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]
