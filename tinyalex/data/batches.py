"""Batches of uint8 images from a split: the order, the decoding ahead, the statistics."""

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass
from time import perf_counter, thread_time
from typing import Any

import numpy as np
import numpy.typing as npt

from tinyalex.data.dataset import Indices, Pixels, Split
from tinyalex.data.parallel import in_order
from tinyalex.data.pixel_file import Decoded
from tinyalex.system.seeds import ORDER, SAMPLE
from tinyalex.system.threads import Threads

_AHEAD = 2  # batches under way while one is used
KEEP_BYTES = 2**30
# Images from which the mean is taken: enough that another thousand would not move it by a level.
MEAN_IMAGES = 10_000
EXACT_ROWS = 256  # so many products of two uint8 add up to less than 2**24: exact in float32


@dataclass(frozen=True)
class Batch:
    """A batch. labels: int32 (n,); waited: the seconds it took to come.

    images: uint8 (n, size, size, 3), or what else the split reads.
    """

    images: Pixels
    labels: npt.NDArray[np.int32]
    waited: float


def epoch_order(seed: int, epoch: int, count: int) -> Indices:
    """The order in which an epoch visits `count` images: a permutation, int64 (count,)."""
    return np.random.default_rng([seed, ORDER, epoch]).permutation(count)


def batches(
    split: Split,
    indices: Indices,
    batch_size: int,
    *,
    start: int = 0,
    workers: int,
    empty: Callable[..., Pixels] = np.empty,
    own: Callable[[int], slice] = slice,
) -> Iterator[Batch]:
    """The images `indices` of `split`, `batch_size` at a time; the last batch has what is left.

    start: batches to skip, without decoding them, so as to resume inside an epoch.
    own: the part of a batch of so many images that is read; the others hold anything.
    workers: threads that decode ahead; 0 decodes in the caller. The batches do not depend on it.
    empty: makes the memory of a batch, by its shape and dtype.
    What `split.read` raises is raised at the batch it belongs to. When the iterator has ended, has
    raised or is closed, its threads have ended too.
    """
    chunks = [
        indices[first : first + batch_size]
        for first in range(start * batch_size, len(indices), batch_size)
    ]
    if not chunks:
        return
    first_image = split.read(int(chunks[0][0]))  # is read twice, to learn the size of all
    shape, dtype = first_image.shape, first_image.dtype
    if workers == 0:
        for chunk in chunks:
            begin = perf_counter()
            images, mine = empty((len(chunk), *shape), dtype), own(len(chunk))
            _fill(images[mine], chunk[mine], split, threading.Event())
            yield Batch(images, split.labels[chunk], perf_counter() - begin)
        return

    stop = threading.Event()
    under_way: deque[tuple[Indices, Pixels, Sequence[Future[None]]]] = deque()

    def finished() -> Batch:
        begin = perf_counter()
        chunk, images, parts = under_way.popleft()
        for part in parts:
            part.result()
        return Batch(images, split.labels[chunk], perf_counter() - begin)

    with Threads(workers, thread_name_prefix="decode") as pool:
        try:
            for chunk in chunks:
                images, mine = empty((len(chunk), *shape), dtype), own(len(chunk))
                shares = [np.array_split(every, workers) for every in (images[mine], chunk[mine])]
                parts = [  # every worker has its share of every batch, so that the next comes first
                    pool.submit(_fill, *share, split, stop) for share in zip(*shares, strict=True)
                ]
                under_way.append((chunk, images, parts))
                if len(under_way) > _AHEAD:
                    yield finished()
            while under_way:
                yield finished()
        finally:
            stop.set()


def read_images(split: Split, indices: Indices, workers: int) -> Pixels:
    """The images `indices` of `split`, one or more, at once: uint8 (n, size, size, 3)."""
    (batch,) = batches(split, indices, len(indices), workers=workers)
    return batch.images


def _fill(images: Pixels, indices: Indices, split: Split, stop: threading.Event) -> None:
    for image, index in zip(images, indices, strict=True):
        if stop.is_set():
            return
        if isinstance(split, Decoded):
            split.pixels.read(int(split.rows[index]), image)
        else:
            image[...] = split.read(int(index))


@dataclass
class InMemory:
    """A Split of arrays at hand, one an image: float32 features (N, ...)."""

    labels: npt.NDArray[np.int32]
    names: Sequence[str]
    arrays: npt.NDArray[np.float32]

    def read(self, index: int) -> Any:
        return self.arrays[index]


class Kept:
    """A Split that decodes each image of `split` once and keeps it, N * size * size * 3 bytes.

    decoding: processor seconds that this has taken so far.
    """

    def __init__(self, split: Split, size: int) -> None:
        self.labels = split.labels
        self.names = split.names
        self._split = split
        self._images = np.empty((len(split.labels), size, size, 3), np.uint8)
        self._known = np.zeros(len(split.labels), bool)
        self.decoding = 0.0

    @property
    def unknown(self) -> int:
        """Number of images that are not decoded yet."""
        return int((~self._known).sum())

    def read(self, index: int) -> Pixels:
        if not self._known[index]:  # two threads may both come here: they write the same bytes
            began = thread_time()
            self._images[index] = self._split.read(index)
            self.decoding += thread_time() - began
            self._known[index] = True
        image: Pixels = self._images[index]
        image.flags.writeable = False
        return image


def keep_in_memory(split: Split, size: int) -> Split:
    """`split` so that later epochs do not decode again, or as it is if that takes over 1 GiB."""
    if isinstance(split, Decoded | Kept) or len(split.labels) * size * size * 3 > KEEP_BYTES:
        return split
    return Kept(split, size)


def mean_and_colour(
    split: Split,
    size: int,
    *,
    seed: int,
    workers: int,
    limit: int = MEAN_IMAGES,
    progress: Callable[[int], object] | None = None,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """The mean image and the colour directions of `split`, in one pass over its images.

    mean: float32 (size, size, 3), the mean of each pixel.
    colour: float32 (3, 3), rows R, G, B. Column j is the j-th principal component of the RGB values
    times its standard deviation, the largest first; its largest entry is positive. `colour @ a`
    with a ~ N(0, 0.1) is the colour shift of the paper (whose text says eigenvalue where its code
    has the standard deviation).
    limit: of more images than this a sample is taken, drawn by `seed`.
    progress: called with the number of images that are done since the last call.

    The sums are of integers that the types hold, so they are exact in any order.
    """
    indices = np.arange(len(split.labels))
    if len(indices) > limit:
        sample = np.random.default_rng([seed, SAMPLE]).choice(len(indices), limit, replace=False)
        indices = np.sort(sample)
    total = np.zeros((size, size, 3), np.uint32)  # of at most 16 million images
    products = np.zeros((3, 3), np.float64)  # symmetric: the lower triangle is all eigh reads
    with closing(in_order(split.read, indices.tolist(), workers)) as images:
        for image in images:
            total += image
            for first in range(0, size, EXACT_ROWS):
                rows = image[first : first + EXACT_ROWS].reshape(-1, 3 * size).astype(np.float32)
                for apart in range(3):  # the columns are R G B R G B ...
                    # No matrix product: BLAS would wake its threads thousands of times a second.
                    sums = np.einsum("rc,rc->c", rows[:, : 3 * size - apart], rows[:, apart:])
                    for j in range(3 - apart):
                        products[j + apart, j] += sums[j::3].sum(dtype=np.float64)
            if progress:
                progress(1)
    mean = (total / len(indices)).astype(np.float32)

    count = len(indices) * size * size
    average = total.sum(axis=(0, 1)) / count
    variances, vectors = np.linalg.eigh(products / count - np.outer(average, average))
    colour = vectors * np.sqrt(np.maximum(variances, 0))  # rounding may take a zero below zero
    colour = colour[:, ::-1]  # eigh has the smallest first
    largest = np.take_along_axis(colour, abs(colour).argmax(axis=0, keepdims=True), axis=0)
    return mean, np.where(largest < 0, -colour, colour).astype(np.float32)
