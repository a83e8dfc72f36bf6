"""Features of images at a network's layers, written to a file while they are computed.

Rows lie in a folder beside the file until all are there, so that memory does not grow with the
images, and an extraction that was stopped goes on where it was.
"""

import csv
import hashlib
import io
import json
import math
import os
import shutil
import zipfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from tinyalex.data.archives import DAMAGED, open_archive
from tinyalex.data.batches import batches
from tinyalex.data.dataset import Dataset, Pixels, Split
from tinyalex.data.decode import SUFFIXES, Decoder
from tinyalex.data.magic import HEAD, picture_format
from tinyalex.data.storage import Directory, Storage
from tinyalex.errors import DataError, UsageError, nearest
from tinyalex.measure.evaluate import views as draws_of_views
from tinyalex.net.network import Network, outputs
from tinyalex.net.shapes import layers as layers_of
from tinyalex.ranks.team import join
from tinyalex.system.arrays import Array
from tinyalex.system.files import replacing, sync_folder, writing

COPIED = 2**20  # bytes that are in memory at once when the file is put together
ENDINGS = (".npz", ".npy", ".csv")
POOLS: dict[str, Callable[[Array], Array]] = {
    "max": lambda maps: maps.max((1, 2)),
    "mean": lambda maps: maps.mean((1, 2)),
}


def features(
    network: Network, images: Pixels, layers: Sequence[str], pool: str | None = None, views: int = 1
) -> dict[str, npt.NDArray[np.float32]]:
    """The outputs of the rows `layers`, by name, for uint8 images (N, image_size, image_size, 3).

    Each float32, (N, height, width, channels) of a map and (N, features) above; a map is (N,
    channels) with pool `max` or `mean`. views: 1, the centre, or the mean over the paper's 10; as
    in evaluation, where dropout at most scales. Raises UsageError for a row that is not there.
    """
    _check_layers(network, layers)
    sums: dict[str, Array] = {}
    for draws in draws_of_views(network, len(images), views):
        for name, value in outputs(network, images, layers, draws):
            value = POOLS[pool](value) if pool and value.ndim == 4 else value
            sums[name] = value if name not in sums else sums[name] + value
    return {name: np.asarray(sums[name] / views, np.float32) for name in layers}


def _check_layers(network: Network, layers: Sequence[str]) -> None:
    """Raise UsageError for a row that the network does not have."""
    known = [row.name for row in network.architecture.rows]
    for name in layers:
        if name not in known:
            raise UsageError(
                f"{network.architecture.name} has no layer {name!r}.{nearest(name, known)} It has "
                f"{', '.join(known)}."
            )


class Pictures:
    """A Split of pictures: files, and those in folders and archives. labels: all 0.

    Raises DataError for a folder or an archive without pictures.
    """

    def __init__(self, paths: Sequence[str], decoder: Decoder) -> None:
        self._places = [place for path in paths for place in _pictures(path)]
        self.names: Sequence[str] = [
            f"{inside.path}/{name}" if inside else name for inside, name in self._places
        ]
        self.labels = np.zeros(len(self.names), np.int32)
        self._decoder = decoder

    def read(self, index: int) -> Pixels:
        inside, name = self._places[index]
        if inside is None:
            return self._decoder.file(name)
        return self._decoder(inside.read(name), self.names[index])


def _pictures(path: str) -> list[tuple[Storage | None, str]]:
    """Places of the pictures at a path: a folder or an archive, and a name there; or None."""
    storage: Storage | None = None
    if os.path.isdir(path):
        storage = Directory(Path(path))
    elif not path.lower().endswith(SUFFIXES):
        with suppress(*DAMAGED, OSError, ValueError):  # then it is refused as a picture
            with open(path, "rb") as file:
                head = file.read(HEAD)
            storage = open_archive(Path(path)) if picture_format(head) is None else None
    if storage is None:
        return [(None, path)]
    names = [name for name in storage.files if name.lower().endswith(SUFFIXES)]
    if not names:
        raise DataError(f"There is no picture ({' '.join(SUFFIXES)}) in {path}.")
    return [(storage, name) for name in names]


class All:
    """A Split of all images of a data set, those for validation last."""

    def __init__(self, dataset: Dataset) -> None:
        self._splits = [s for s in (dataset.train, dataset.val) if s is not None]
        self.names: Sequence[str] = [name for split in self._splits for name in split.names]
        self.labels = np.concatenate([split.labels for split in self._splits])

    def read(self, index: int) -> Pixels:
        for split in self._splits:
            if index < len(split.labels):
                return split.read(index)
            index -= len(split.labels)
        raise IndexError(index)


@dataclass(frozen=True)
class Request:
    """Request, see `features`. classes: those of the labels, () where there are none."""

    layers: tuple[str, ...]
    pool: str | None = None
    views: int = 1
    classes: tuple[str, ...] = ()

    def shapes(self, network: Network) -> dict[str, tuple[int, ...]]:
        """Shape of each layer's rows for one image."""
        outputs = {x.row.name: x.output for x in layers_of(network.architecture.rows)}
        flat = {n: outputs[n][2:] if outputs[n][:2] == (1, 1) else outputs[n] for n in self.layers}
        return {name: shape[-1:] if self.pool else shape for name, shape in flat.items()}


def extract(
    network: Network,
    split: Split,
    request: Request,
    path: Path,
    *,
    batch_size: int = 128,
    workers: int = 2,
    after_batch: Callable[[int], object] = lambda images: None,
) -> None:
    """Write the features of every image of a split to `path`.

    .npz: an array for each layer, `names`, and where there are labels `labels` and `classes`.
    .npy: the array of the one layer, and the names and labels in a .csv beside it. .csv: an image a
    line, its name, label and numbers. after_batch: hears how many images more are done, those of
    before included. Raises UsageError, DataError or WriteError.
    """
    if path.suffix not in ENDINGS or (path.suffix == ".npy" and len(request.layers) > 1):
        raise UsageError(
            f"{path} cannot hold these features: an .npy file has one array, and others may be "
            f"named {' or '.join(ENDINGS)}."
        )
    _check_layers(network, request.layers)
    shapes = request.shapes(network)
    folder = path.with_name(f"{path.name}.rows")
    with writing(path, "--output"):
        told, team = _told(network, split, request), join()
        done = team.tell(team.first and _begin(folder, told, shapes))
        own = network.own
        after_batch(done)
        with ExitStack() as stack:
            paths = {n: folder / n if team.first else os.devnull for n in request.layers}
            files = {n: stack.enter_context(open(p, "ab")) for n, p in paths.items()}
            rest = np.arange(done, len(split.labels))
            for batch in batches(split, rest, batch_size, workers=workers, own=own):
                found = features(network, batch.images, request.layers, request.pool, request.views)
                for name, file in files.items():
                    file.write(found[name].astype("<f4").tobytes())
                    file.flush()
                after_batch(len(batch.labels))
        if team.first:
            _put_together(path, folder, split, request, shapes)
            shutil.rmtree(folder)


def _told(network: Network, split: Split, request: Request) -> str:
    """Identity of the rows, so that others are not gone on with: weights, images, request."""
    digest = hashlib.sha256()
    for name, value in network.parameters.items():
        digest.update(name.encode() + network.ops.to_numpy(value).tobytes())
    digest.update(network.ops.to_numpy(network.mean).tobytes())
    images = hashlib.sha256("\0".join(split.names).encode(errors="surrogatepass")).hexdigest()
    asked = [network.architecture.name, *request.layers, request.pool, request.views]
    return json.dumps([asked, digest.hexdigest(), images])


def _begin(folder: Path, told: str, shapes: dict[str, tuple[int, ...]]) -> int:
    """Count the images that are done, and remove what is left of another request or broken row."""
    request = folder / "request.json"
    if not (request.exists() and request.read_text(encoding="utf-8") == told):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for name in shapes:
            (folder / name).touch()
        request.write_text(told, encoding="utf-8")
    nbytes = {name: 4 * math.prod(shape) for name, shape in shapes.items()}
    done = min((folder / name).stat().st_size // size for name, size in nbytes.items())
    for name, size in nbytes.items():
        with open(folder / name, "r+b") as file:
            file.truncate(done * size)
    return done


def _put_together(
    path: Path,
    folder: Path,
    split: Split,
    request: Request,
    shapes: dict[str, tuple[int, ...]],
) -> None:
    """The file that was asked for, from the rows in `folder`, a piece of them at a time."""
    whole = {name: (len(split.labels), *shape) for name, shape in shapes.items()}
    if path.suffix == ".csv":
        _write_table(path, split, request, {folder / name: shapes[name] for name in shapes})
    elif path.suffix == ".npy":
        (name,) = shapes
        with replacing(path) as file:
            _write_array(file, folder / name, whole[name])
        _write_table(path.with_suffix(".csv"), split, request, {})
    else:
        beside: dict[str, Any] = {"names": list(split.names)}
        if request.classes:
            beside |= {"labels": split.labels, "classes": request.classes}
        with replacing(path) as file, zipfile.ZipFile(file, "w") as archive:
            for name, shape in whole.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    _write_array(member, folder / name, shape)
            for name, value in beside.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, np.asarray(value), allow_pickle=False)
    sync_folder(path.parent)


def _write_array(file: IO[bytes], rows: Path, shape: tuple[int, ...]) -> None:
    """Write rows as NumPy has an array of this shape."""
    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    with open(rows, "rb") as source:
        shutil.copyfileobj(source, file, COPIED)


def _write_table(
    path: Path, split: Split, request: Request, rows: dict[Path, tuple[int, ...]]
) -> None:
    """A line for each image: its name, its class, and its numbers. rows: files and their shapes."""
    counts = {file: math.prod(shape) for file, shape in rows.items()}
    columns = [f"{file.name}.{i}" for file, count in counts.items() for i in range(count)]
    with replacing(path) as file, ExitStack() as stack:
        text = io.TextIOWrapper(file, "utf-8", newline="", errors="backslashreplace")
        table = csv.writer(text)
        table.writerow(["name", "label", *columns])
        sources = [(stack.enter_context(open(p, "rb")), count) for p, count in counts.items()]
        for name, label in zip(split.names, split.labels, strict=True):
            numbers = [np.fromfile(source, "<f4", count).tolist() for source, count in sources]
            called = request.classes[label] if request.classes else ""
            table.writerow([name, called, *(n for run in numbers for n in run)])
        text.flush()
        text.detach()
