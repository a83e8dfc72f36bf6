"""Interface of every source of images: a `Dataset` of one or two `Split`s."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from tinyalex.errors import DataError

Pixels = npt.NDArray[np.uint8]
Indices = npt.NDArray[np.int64]


class Split(Protocol):
    """The training or the validation images, read one at a time and from any thread.

    labels: int32 (N,), indices into the data set's `classes`.
    names: N strings that tell a person which image it is (a path, a member of an archive).
    """

    labels: npt.NDArray[np.int32]
    names: Sequence[str]

    def read(self, index: int) -> Pixels:
        """Image `index`: uint8 (size, size, 3), RGB, always the same for the same index.

        Raises DataError, naming the image, if it cannot be decoded.
        """
        ...


class Part:
    """A Split of some images of another. indices: which, int64 (N,)."""

    def __init__(self, split: Split, indices: Indices) -> None:
        self.labels = split.labels[indices]
        self.names: Sequence[str] = [split.names[i] for i in indices]
        self._split, self._indices = split, indices

    def read(self, index: int) -> Pixels:
        return self._split.read(int(self._indices[index]))


@dataclass(frozen=True)
class Dataset:
    """Images of one task.

    name: what to call it in a log or below a picture.
    classes: the classes' identities in label order (folder names); they go into checkpoints.
    titles: what a person calls the classes; the same as `classes` where nothing better is known.
    train, val: the splits; `val` is None where there are no validation images at all.
    notes: what the user should know about how the data was taken, one sentence each.
    """

    name: str
    classes: tuple[str, ...]
    titles: tuple[str, ...]
    train: Split
    val: Split | None
    notes: tuple[str, ...] = ()

    def require_val(self) -> Split:
        """`val`, for callers that cannot do without it. Raises DataError if there is none."""
        if self.val is None:
            raise DataError(
                f"{self.name} has no validation images, and they are needed here. Give --data with "
                "more images a class, or with a folder of validation images."
            )
        return self.val
