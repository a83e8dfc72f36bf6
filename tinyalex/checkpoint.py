"""Saving and loading the state of a run: one .npz file that runs no code when it is read.

Arrays `parameter/NAME`, `velocity/NAME`, `mean`, `colour`, and `meta`, a JSON text with everything
else. A file is written whole beside its final name, forced to disk and renamed, so that the name
always holds a complete checkpoint. zip's own CRC-32 finds damage when it is read.

A file may come from anybody. `meta` is read first and says what else must be in it, to the byte;
only then is memory taken for it.
"""

from __future__ import annotations

import errno
import json
import math
import os
import platform
import zipfile
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_info

from tinyalex.architectures import Architecture, get_architecture
from tinyalex.config import Config, from_mapping
from tinyalex.data.writing import sync_folder
from tinyalex.errors import CheckpointError, WriteError
from tinyalex.shapes import layers

Array = npt.NDArray[Any]

FORMAT = 1
META_BYTES = 2**26  # room for 16 million characters
DEFLATE = 1032  # bytes that one deflated byte can stand for (https://zlib.net/zlib_tech.html)
NAME = 200  # characters of a network's name: each change to a preset in it takes time
FLOAT = np.dtype(np.float32)


@dataclass
class Progress:
    """How far a run is. epoch: finished epochs. batch: batches done of the current one.

    sums: over the current epoch so far: loss times images, wrong top-1, wrong top-5, images.
    history: one record per finished epoch, as in metrics.jsonl.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    sums: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0, 0.0])
    history: list[dict[str, Any]] = field(default_factory=list)

    @property
    def best(self) -> dict[str, Any] | None:
        """The finished epoch with the lowest watched error, the first of equals."""
        return min(self.history, key=watched, default=None)


def watched(record: dict[str, Any]) -> float:
    """The error that decides which epoch is best: validation top-1, else the training loss."""
    return float(record.get("val_top1_error", record["loss"]))


@dataclass
class Checkpoint:
    """All that a run needs to go on, and all that a network needs to be used.

    machine: what computed it, see `machine`. data: the digest of the data set it was trained on.
    Both are empty in a file from before they were recorded.
    """

    architecture: str
    classes: tuple[str, ...]
    titles: tuple[str, ...]
    config: dict[str, Any]
    progress: Progress
    parameters: dict[str, Array]
    velocities: dict[str, Array]
    mean: Array
    colour: Array
    machine: dict[str, str] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)

    @property
    def network(self) -> Architecture:
        """The architecture, with as many outputs as the checkpoint has classes."""
        return get_architecture(self.architecture).with_classes(len(self.classes))


def machine() -> dict[str, str]:
    """What the last bits of a result depend on: the processor, NumPy, and the BLAS it calls."""
    blas: dict[str, str] = next(
        (found for found in threadpool_info() if found["user_api"] == "blas"), {}
    )
    words = (blas.get(key) for key in ("internal_api", "version", "architecture"))
    return {
        "processor": platform.machine(),
        "numpy": np.__version__,
        "blas": " ".join(filter(None, words)) or "unknown",
    }


def computed_elsewhere(checkpoint: Checkpoint) -> str:
    """A note on what the run was computed with that is not so here, or an empty text."""
    here = machine()
    other = [f"{part} {was}" for part, was in checkpoint.machine.items() if here.get(part) != was]
    if not other:
        return ""
    return (
        f"this run was computed until now with {', '.join(other)}; "
        "results may differ in the last bit"
    )


def save(checkpoint: Checkpoint, path: Path) -> None:
    """Writes the checkpoint, or raises WriteError and leaves what was there before."""
    meta = {
        "format": FORMAT,
        "architecture": checkpoint.architecture,
        "classes": checkpoint.classes,
        "titles": checkpoint.titles,
        "config": checkpoint.config,
        "progress": asdict(checkpoint.progress),
        "machine": checkpoint.machine,
        "data": checkpoint.data,
    }
    arrays: dict[str, Any] = {
        "meta": np.array(json.dumps(meta)),
        "mean": checkpoint.mean,
        "colour": checkpoint.colour,
    }
    arrays |= {f"parameter/{name}": a for name, a in checkpoint.parameters.items()}
    arrays |= {f"velocity/{name}": a for name, a in checkpoint.velocities.items()}
    partial = path.with_name(path.name + ".partial")
    try:
        with open(partial, "wb") as file:
            np.savez(file, **arrays)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        with suppress(OSError):
            partial.unlink()
        raise WriteError(
            f"Cannot write the checkpoint {path}: {error.strerror}. What was saved there before "
            "is untouched. Free some space, or choose another folder with --output-dir."
        ) from None
    _confirm(path)


def _confirm(path: Path) -> None:
    """Makes the renaming of `path` survive a power cut, where the file system can do that."""
    try:
        sync_folder(path.parent)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some file systems of networks sync no folder
            raise WriteError(
                f"{path} is written, but the disk does not confirm its name: {error.strerror}. "
                "After a power cut the checkpoint before it may be back. Check the disk, or choose "
                "another folder with --output-dir."
            ) from None


def sweep(folder: Path) -> None:
    """Removes what is left of a save that was killed."""
    for partial in folder.glob("*.npz.partial"):
        partial.unlink()


def find(path: str | Path, *names: str) -> Path:
    """The checkpoint meant by a run folder (the first of `names` there) or by an .npz file."""
    path = Path(path)
    if path.is_dir():
        path = next((path / n for n in names if (path / n).exists()), path / names[-1])
    if not path.exists():
        raise CheckpointError(
            f"There is no checkpoint at {path}. Give the folder of a run, or an .npz file in it."
        )
    return path


def load(path: Path) -> Checkpoint:
    """Reads a checkpoint. Raises CheckpointError, naming the file, if it is not a sound one.

    Whatever the file holds, no code in it is run, and no more memory is taken than for the arrays
    of its network and META_BYTES of description. The error also names the other checkpoint of the
    run if that one is sound.
    """
    try:
        return _read(path)
    except CheckpointError as error:
        raise CheckpointError(f"{error} {_beside(path)}") from None


def _beside(path: Path) -> str:
    """For the message about a bad file: which other checkpoint of the run can be used."""
    for other in (path.with_name("last.npz"), path.with_name("best.npz")):
        with suppress(CheckpointError):
            epoch = _read(other).progress.epoch
            return (
                f"{other.name} beside it is sound (epoch {epoch}): tinyalex train --resume {other}"
            )
    return "There is no sound last.npz or best.npz beside it: name another run, or train anew."


def _read(path: Path) -> Checkpoint:
    try:
        with open(path, "rb") as raw, zipfile.ZipFile(raw) as file:
            _check_entries(file)
            meta = json.loads(str(_array(file, "meta", ())))
            if meta["format"] != FORMAT:
                raise CheckpointError(
                    f"{path} has checkpoint format {meta['format']!r}; this version of tinyalex "
                    f"reads format {FORMAT}. Use the version that wrote it."
                )
            progress = _checked(meta)
            network = get_architecture(meta["architecture"]).with_classes(len(meta["classes"]))
            arrays = _arrays(file, network, os.fstat(raw.fileno()).st_size)
    except CheckpointError:
        raise
    except Exception as error:  # bytes from anybody: zipfile and json fail in more ways than told
        reason = "".join(filter(str.isprintable, str(error)))[:300].rstrip(".")
        raise CheckpointError(
            f"{path} is damaged or is no checkpoint of this version of tinyalex ({reason})."
        ) from None
    return Checkpoint(
        architecture=meta["architecture"],
        classes=tuple(meta["classes"]),
        titles=tuple(meta["titles"]),
        config=meta["config"],
        progress=progress,
        parameters=_under("parameter/", arrays),
        velocities=_under("velocity/", arrays),
        mean=arrays["mean"],
        colour=arrays["colour"],
        machine=meta.get("machine", {}),
        data=meta.get("data", {}),
    )


def _check_entries(file: zipfile.ZipFile) -> None:
    """No name may come twice, no packing but zip's usual, and `meta` must be of bounded size."""
    names = file.namelist()
    packed = {entry.compress_type for entry in file.infolist()}
    if len(set(names)) < len(names) or packed - {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        raise ValueError("its table of contents is not as NumPy writes it")
    if file.getinfo("meta.npy").file_size > META_BYTES:
        raise ValueError(f"its description takes more than {META_BYTES:,} bytes")


def _checked(meta: dict[str, Any]) -> Progress:
    """The progress in `meta`. Raises ValueError or another error if a value there has no sense."""
    classes, titles = meta["classes"], meta["titles"]
    texts = [*classes, *titles, *meta.get("machine", {}).values()]
    if not (
        isinstance(classes, list)
        and isinstance(titles, list)
        and len(classes) == len(titles)
        and all(isinstance(text, str) for text in texts)
        and isinstance(meta.get("data", {}), dict)
    ):
        raise ValueError("its classes make no sense")
    progress = Progress(**meta["progress"])
    sums, history = progress.sums, progress.history
    measured = [value for record in history for value in record.values()]  # a loss may be infinite
    if not (
        all(
            type(count) is int and count >= 0
            for count in (progress.epoch, progress.batch, progress.step)
        )
        and all(type(value) in (int, float) for value in [*sums, *measured])
        and all(math.isfinite(value) for value in [*sums, *map(watched, history)])
        and all({"epoch", "step", "top1_error"} <= record.keys() for record in history)
        and isinstance(history, list)
        and (len(history), len(sums)) == (progress.epoch, 4)
    ):
        raise ValueError("its progress makes no sense")
    name = meta["architecture"]
    if meta["config"]["arch"] != name or len(name) > NAME:
        raise ValueError("its network is not that of its settings")
    from_mapping(meta["config"], Config(), "it")
    return progress


def _arrays(file: zipfile.ZipFile, network: Architecture, size: int) -> dict[str, Array]:
    """The arrays of a checkpoint of `network`, in a file of `size` bytes, under their names."""
    side = network.data.image_size
    shapes: dict[str, tuple[int, ...]] = {"mean": (side, side, 3), "colour": (3, 3)}
    for kind in ("parameter", "velocity"):
        for layer in layers(network.rows):
            if layer.weight:
                shapes[f"{kind}/{layer.row.name}.weight"] = layer.weight
                shapes[f"{kind}/{layer.row.name}.bias"] = (layer.bias,)
    if wrong := {f"{name}.npy" for name in ("meta", *shapes)} ^ set(file.namelist()):
        raise ValueError(f"{network.name} has other arrays: {min(wrong)!r}")
    nbytes = FLOAT.itemsize * sum(map(math.prod, shapes.values()))
    if nbytes > DEFLATE * size:
        raise ValueError(f"{size:,} bytes cannot hold {nbytes:,} bytes of arrays")
    return {name: _array(file, name, shape) for name, shape in shapes.items()}


def _array(file: zipfile.ZipFile, name: str, shape: tuple[int, ...]) -> Array:
    """One array, which must be float32, or text in `meta`, and have this shape.

    For a dtype and a shape NumPy writes one header, so it is compared and need not be parsed.
    """
    entry = file.getinfo(f"{name}.npy")
    with file.open(entry) as member:
        start = member.read(10)  # the last two bytes are the header's length
        header = member.read(int.from_bytes(start[8:], "little"))
    nbytes = entry.file_size - len(start) - len(header)
    dtype = np.dtype(f"U{nbytes // 4}") if name == "meta" else FLOAT
    expected = f"{{'descr': {dtype.str!r}, 'fortran_order': False, 'shape': {shape}, }}"
    if header.rstrip() != expected.encode() or nbytes != dtype.itemsize * math.prod(shape):
        raise ValueError(f"{name} should be {expected}, and has {header.rstrip()!r}")
    with file.open(entry) as member:
        return np.lib.format.read_array(member, allow_pickle=False)


def _under(prefix: str, arrays: dict[str, Array]) -> dict[str, Array]:
    return {name.removeprefix(prefix): a for name, a in arrays.items() if name.startswith(prefix)}


def check_fits(
    checkpoint: Checkpoint, path: Path, architecture: str, classes: tuple[str, ...]
) -> None:
    """Raises CheckpointError if the run at hand is of another network or of other classes."""
    if checkpoint.architecture != architecture or len(checkpoint.classes) != len(classes):
        raise CheckpointError(
            f"{path} holds {checkpoint.architecture} with {len(checkpoint.classes)} classes, but "
            f"this run is {architecture} with {len(classes)}. Resume with the --arch and --data of "
            "the run that wrote it."
        )
    if checkpoint.classes != classes:
        other = next(
            pair for pair in zip(checkpoint.classes, classes, strict=True) if len(set(pair)) > 1
        )
        raise CheckpointError(
            f"{path} was trained on other classes than this data has: {other[0]!r} there, "
            f"{other[1]!r} here. Resume with the --data of the run that wrote it."
        )
