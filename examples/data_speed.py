"""How fast are packing and feeding, beside the barest loops that do the same?

    python examples/data_speed.py PHOTOS.zip [--images 2000] [--rounds 7]

On one core, in turn in every round, so that what else the machine does meets all of them alike:

    a bare Pillow loop         each file read from a .zip, made RGB, its short side resized to 256,
                               its centre cropped, and the pixels appended to a file
    the centre square alone    the same, but only the square that stays is resized
    tinyalex data pack -j 1    that, and checksums, fsync, the mean image and the colours
    a bare gather              np.take of 128 shuffled rows of the mapped pack
    tinyalex.data.batches      the same batches, gathered ahead by a thread
    the reference's augment    what training does next to a batch: crops of 227 in float32

Each is told as a multiple of the bare loop's speed, the median of the rounds and their range: by
the clock, and by the processor's time, which leaves out what other programs take.
"""

import argparse
import io
import os
import shutil
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from statistics import median

if hasattr(os, "sched_setaffinity"):  # on Linux; and first, as the imports count the cores
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

import numpy as np
from PIL import Image, ImageOps

from tinyalex.data import open_data
from tinyalex.data.batches import batches, epoch_order
from tinyalex.data.packing.pack import SIZE, pack
from tinyalex.errors import TinyalexError
from tinyalex.net.draws import training_draws
from tinyalex.net.presets import get_architecture
from tinyalex.system.backends import get_backend

BATCH, FED = 128, 10_000  # images of a batch, and at least so many of a measurement of feeding
Contestant = tuple[str, int, Callable[[], object]]  # name, images, work


def copied(source: str, archive: Path, limit: int) -> int:
    """Copies the files of images of all classes into a .zip of class folders; how many."""
    train = open_data(source, SIZE, 0, hold_out=False).train
    chosen = range(0, len(train.labels), -(-len(train.labels) // limit))
    with zipfile.ZipFile(archive, "w") as copy:
        for i in chosen:
            name = train.members[i]
            copy.writestr(f"{train.labels[i]}/{Path(name).name}", train.source.fetch(name))
    return len(chosen)


def whole(image: Image.Image) -> Image.Image:
    image = ImageOps.cover(image, (SIZE, SIZE), Image.Resampling.BILINEAR)
    left, top = (image.width - SIZE) // 2, (image.height - SIZE) // 2
    return image.crop((left, top, left + SIZE, top + SIZE))


def square(image: Image.Image) -> Image.Image:
    return ImageOps.fit(image, (SIZE, SIZE), Image.Resampling.BILINEAR)


def bare_pack(archive: Path, target: Path, resized: Callable[[Image.Image], Image.Image]) -> None:
    with zipfile.ZipFile(archive) as members, open(target, "wb") as file:
        for name in members.namelist():
            image = Image.open(io.BytesIO(members.read(name))).convert("RGB")
            file.write(np.asarray(resized(image)).data)


def bare_batches(rows: np.ndarray, order: np.ndarray) -> Iterator[np.ndarray]:
    for first in range(0, len(order), BATCH):
        yield np.take(rows, order[first : first + BATCH], axis=0)


def each(batches: Iterable[object]) -> None:
    for _ in batches:  # holds a batch until it has the next, as a training loop does
        pass


def compare(rounds: int, *contestants: Contestant) -> None:
    """Times the contestants in turn, and holds the others against the first."""
    speeds: dict[str, list[np.ndarray]] = {name: [] for name, _, _ in contestants}
    for _ in range(rounds):
        for name, images, work in contestants:
            began = np.array([time.perf_counter(), time.process_time()])
            work()
            ended = np.array([time.perf_counter(), time.process_time()])
            speeds[name].append(images / (ended - began))
    bare = np.array(speeds[contestants[0][0]])
    for name, measured in speeds.items():
        ratios = "   ".join(
            f"{median(kind):.2f} ({min(kind):.2f} to {max(kind):.2f})"
            for kind in (measured / bare).T
        )
        print(f"{name:<25}{median(clock for clock, _ in measured):>10,.0f}   {ratios}", flush=True)


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
parser.add_argument("photos", help="folder, .zip or .tar with a folder of photos per class")
parser.add_argument("--images", type=int, default=2000, help="at most (default: 2000)")
parser.add_argument("--rounds", type=int, default=7, help="(default: 7)")
arguments = parser.parse_args()

with tempfile.TemporaryDirectory() as temporary:
    archive, bare, packed = (Path(temporary) / name for name in ("images.zip", "bare", "packed"))
    try:
        count = copied(arguments.photos, archive, arguments.images)
    except TinyalexError as error:
        parser.error(str(error))

    def pack_anew() -> None:
        shutil.rmtree(packed, ignore_errors=True)
        pack(archive, packed, workers=1, say=lambda line: None)

    print(f"{count:,} images of {Path(arguments.photos).name} at {SIZE} pixels")
    print(f"{'':<25}{'images/s':>10}   {'by the clock':<19}   by the processor's time")
    compare(
        arguments.rounds,
        ("a bare Pillow loop", count, lambda: bare_pack(archive, bare, whole)),
        ("the centre square alone", count, lambda: bare_pack(archive, bare, square)),
        ("tinyalex data pack -j 1", count, pack_anew),
    )
    rows = np.memmap(packed / "train.rgb", np.uint8, mode="r").reshape(-1, SIZE, SIZE, 3)
    train = open_data(str(packed), SIZE, 0, hold_out=False).train
    order = np.concatenate([epoch_order(0, epoch, count) for epoch in range(-(-FED // count))])
    alexnet, ops = get_architecture("alexnet"), get_backend("reference")
    mean, colour = (np.load(packed / f"{name}.npy") for name in ("mean", "colour"))
    images = rows[order[:BATCH]]
    draws = training_draws(alexnet, BATCH, colour, 0, 0, 0)
    drawn = draws.corner, draws.flip, draws.shift, alexnet.data.size, alexnet.data.scale
    compare(
        arguments.rounds,
        ("a bare gather", len(order), lambda: each(bare_batches(rows, order))),
        (
            "tinyalex.data.batches",
            len(order),
            lambda: each(batches(train, order, BATCH, workers=1)),
        ),
        ("the reference's augment", BATCH, lambda: ops.augment(images, mean, *drawn)),
    )
