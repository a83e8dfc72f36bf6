"""Images that are decoded already, one after another in a file, and a Split of them."""

import os
import threading
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tinyalex.data.dataset import Indices, Pixels
from tinyalex.errors import DataError


class PixelFile:
    """Images in a file, one after another: uint8 (rows, size, size, 3).

    They are read, not mapped: a mapped file that another program makes shorter, or whose disk
    fails, ends the process without a word (SIGBUS).
    """

    def __init__(self, path: Path, size: int) -> None:
        self.path, self.size = path, size
        self._file = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        self._lock = threading.Lock()
        weakref.finalize(self, os.close, self._file)

    def read(self, row: int, image: Pixels | None = None) -> Pixels:
        """A row, uint8 (size, size, 3), into `image` if given. Raises DataError."""
        if image is None:
            image = np.empty((self.size, self.size, 3), np.uint8)
        try:
            count = self._read(image, row * image.nbytes)
        except OSError as cause:
            raise DataError(f"Cannot read {self.path}: {cause.strerror}.") from cause
        if count != image.nbytes:
            raise DataError(
                f"{self.path} has become shorter since it was opened. Make the pack again with "
                "`tinyalex data pack`."
            )
        return image

    def _read(self, image: Pixels, start: int) -> int:
        if hasattr(os, "preadv"):
            return os.preadv(self._file, [image.data], start)
        with self._lock:  # Windows has no reading at a place
            os.lseek(self._file, start, os.SEEK_SET)
            data = os.read(self._file, image.nbytes)
        image.reshape(-1)[: len(data)] = np.frombuffer(data, np.uint8)
        return len(data)


@dataclass
class Decoded:
    """A Split whose images are rows of a file. rows: int64 (N,), the row of each image."""

    labels: npt.NDArray[np.int32]
    names: Sequence[str]
    pixels: PixelFile
    rows: Indices

    def read(self, index: int) -> Pixels:
        return self.pixels.read(int(self.rows[index]))
