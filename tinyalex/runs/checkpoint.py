"""Saving and loading the state of a run: one .npz file that runs no code when it is read.

Arrays `parameter/NAME`, `velocity/NAME`, `mean`, `colour`, and `meta`, a JSON text with everything
else. A file is written whole beside its final name, forced to disk and renamed, so that the name
always holds a complete checkpoint. zip's own CRC-32 finds damage when it is read.
"""

from __future__ import annotations

import errno
import json
import platform
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_info

from tinyalex.errors import CheckpointError, WriteError
from tinyalex.net.presets import Architecture
from tinyalex.runs import checkpoint_reader
from tinyalex.runs.network_json import as_json, is_preset
from tinyalex.runs.progress import Progress
from tinyalex.system.files import remedy, replacing, sync_folder

Array = npt.NDArray[Any]


@dataclass
class Checkpoint:
    """All that a run needs to go on, and all that a network needs to be used.

    network: the architecture, with as many outputs as there are classes. machine: what computed
    it, see `machine`. data: the digest of the data set it was trained on. Both are empty in a file
    from before they were recorded.
    """

    network: Architecture
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
    def architecture(self) -> str:
        """The network's name."""
        return self.network.name


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
        "format": checkpoint_reader.FORMAT,
        "architecture": checkpoint.architecture,
        "classes": checkpoint.classes,
        "titles": checkpoint.titles,
        "config": checkpoint.config,
        "progress": asdict(checkpoint.progress),
        "machine": checkpoint.machine,
        "data": checkpoint.data,
    }
    if not is_preset(checkpoint.network):
        meta["network"] = as_json(checkpoint.network)
    arrays: dict[str, Any] = {
        "meta": np.array(json.dumps(meta)),
        "mean": checkpoint.mean,
        "colour": checkpoint.colour,
    }
    arrays |= {f"parameter/{name}": a for name, a in checkpoint.parameters.items()}
    arrays |= {f"velocity/{name}": a for name, a in checkpoint.velocities.items()}
    try:
        with replacing(path) as file:
            np.savez(file, **arrays)
    except OSError as error:
        raise WriteError(
            f"Cannot write the checkpoint {path}: {error.strerror}. What was saved there before "
            f"is untouched. {remedy(error)} Or choose another folder with --output-dir."
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
    for name in ("last.npz", "best.npz"):
        (folder / f"{name}.partial").unlink(missing_ok=True)


def find(path: str | Path, *names: str) -> Path:
    """The checkpoint meant by a run folder (the first of `names` there) or by an .npz file."""
    path = Path(path)
    try:
        if path.is_dir():
            begun = (path / "config.toml").exists()
            path = next((path / n for n in names if (path / n).exists()), path / "last.npz")
            if begun and not path.exists():
                raise CheckpointError(
                    f"The run in {path.parent} ended before anything was saved, so there is no "
                    f"{path}. Begin it again: tinyalex train --output-dir {path.parent}, with the "
                    "flags of before."
                )
        there = path.exists()
    except OSError as error:  # a name too long, or a folder that may not be entered
        raise CheckpointError(
            f"{path} cannot be read: {error.strerror}. Give the folder of a run, or an .npz file "
            "in it."
        ) from None
    if not there:
        raise CheckpointError(
            f"There is no checkpoint at {path}. Give the folder of a run, or an .npz file in it."
        )
    return path


def load(path: Path) -> Checkpoint:
    """Reads a checkpoint. Raises CheckpointError, naming the file, if it is not a sound one.

    The file may come from anybody, see `runs.checkpoint_reader`. The error also names the
    other checkpoint of the run if that one is sound.
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
    meta, progress, network, arrays = checkpoint_reader.read(path)
    return Checkpoint(
        network=network,
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


def _under(prefix: str, arrays: dict[str, Array]) -> dict[str, Array]:
    return {name.removeprefix(prefix): a for name, a in arrays.items() if name.startswith(prefix)}


def check_fits(
    checkpoint: Checkpoint, path: Path, network: Architecture, classes: tuple[str, ...]
) -> None:
    """Raises CheckpointError if the run at hand is of another network or of other classes."""
    if checkpoint.network.rows != network.rows:
        raise CheckpointError(
            f"{path} holds {checkpoint.architecture} with {len(checkpoint.classes)} classes, but "
            f"this run is {network.name} with {len(classes)}. Resume with the --arch and --data of "
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
