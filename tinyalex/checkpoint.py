"""Saving and loading the state of a run: one .npz file that runs no code when it is read.

Arrays `parameter/NAME`, `velocity/NAME`, `mean`, `colour`, and `meta`, a JSON text with everything
else. A file is written whole beside its final name, forced to disk and renamed, so that the name
always holds a complete checkpoint. zip's own CRC-32 finds damage when it is read.
"""

from __future__ import annotations

import json
import os
import zipfile
import zlib
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tinyalex.architectures import ARCHITECTURES, Architecture
from tinyalex.errors import CheckpointError, WriteError
from tinyalex.shapes import layers

Array = npt.NDArray[Any]

FORMAT = 1


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
    """All that a run needs to go on, and all that a network needs to be used."""

    architecture: str
    classes: tuple[str, ...]
    titles: tuple[str, ...]
    config: dict[str, Any]
    progress: Progress
    parameters: dict[str, Array]
    velocities: dict[str, Array]
    mean: Array
    colour: Array

    @property
    def network(self) -> Architecture:
        """The architecture, with as many outputs as the checkpoint has classes."""
        return ARCHITECTURES[self.architecture].with_classes(len(self.classes))


def save(checkpoint: Checkpoint, path: Path) -> None:
    """Writes the checkpoint, or raises WriteError and leaves what was there before."""
    meta = {
        "format": FORMAT,
        "architecture": checkpoint.architecture,
        "classes": checkpoint.classes,
        "titles": checkpoint.titles,
        "config": checkpoint.config,
        "progress": asdict(checkpoint.progress),
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
        _sync_folder(path.parent)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise WriteError(
            f"Cannot write the checkpoint {path}: {error.strerror}. What was saved there before "
            "is untouched. Free some space, or choose another folder with --output-dir."
        ) from None


def _sync_folder(folder: Path) -> None:
    """Makes a rename in `folder` survive a power cut."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


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
    """Reads a checkpoint. Raises CheckpointError, naming the file, if it is not a sound one."""
    try:
        with open(path, "rb") as raw, np.load(raw, allow_pickle=False) as file:
            meta = json.loads(str(file["meta"]))
            if meta["format"] != FORMAT:
                raise CheckpointError(
                    f"{path} has checkpoint format {meta['format']}; this version of tinyalex "
                    f"reads format {FORMAT}. Use the version that wrote it."
                )
            arrays = {name: file[name] for name in file.files if name != "meta"}
        checkpoint = Checkpoint(
            architecture=meta["architecture"],
            classes=tuple(meta["classes"]),
            titles=tuple(meta["titles"]),
            config=meta["config"],
            progress=Progress(**meta["progress"]),
            parameters=_under("parameter/", arrays),
            velocities=_under("velocity/", arrays),
            mean=arrays["mean"],
            colour=arrays["colour"],
        )
    except (
        OSError,
        EOFError,
        zipfile.BadZipFile,
        zlib.error,
        ValueError,
        KeyError,
        TypeError,
    ) as error:
        raise CheckpointError(
            f"{path} is damaged or is not a checkpoint of tinyalex ({error}). "
            "Use another checkpoint of the run: last.npz or best.npz."
        ) from None
    _check(checkpoint, path)
    return checkpoint


def _under(prefix: str, arrays: dict[str, Array]) -> dict[str, Array]:
    return {name.removeprefix(prefix): a for name, a in arrays.items() if name.startswith(prefix)}


def _check(checkpoint: Checkpoint, path: Path) -> None:
    """Every parameter and velocity must be there, with the shape its network gives it."""
    if checkpoint.architecture not in ARCHITECTURES:
        raise CheckpointError(f"{path} holds an unknown network {checkpoint.architecture!r}.")
    expected: dict[str, tuple[int, ...]] = {}
    for layer in layers(checkpoint.network.rows):
        if layer.weight:
            expected[f"{layer.row.name}.weight"] = layer.weight
            expected[f"{layer.row.name}.bias"] = (layer.bias,)
    for what, arrays in (("", checkpoint.parameters), (" velocity", checkpoint.velocities)):
        for name in expected.keys() | arrays.keys():
            found = arrays[name].shape if name in arrays else "nothing"
            if found != expected.get(name, "nothing"):
                raise CheckpointError(
                    f"{path} does not fit {checkpoint.architecture} with "
                    f"{len(checkpoint.classes)} classes: {name}{what} should be "
                    f"{expected.get(name, 'absent')}, the file has {found}."
                )


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
