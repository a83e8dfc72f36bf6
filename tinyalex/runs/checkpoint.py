"""Saving and loading the state of a run: one .npz file that runs no code when it is read.

Arrays `parameter/NAME`, `velocity/NAME`, `mean`, `colour`, and `meta`, a JSON text with everything
else. A file is written whole beside its final name, forced to disk and renamed, so that the name
always holds a complete checkpoint. zip's own CRC-32 finds damage when it is read.
"""

import errno
import json
import platform
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_info

from tinyalex.errors import CheckpointError, WriteError, printable
from tinyalex.net.presets import Architecture
from tinyalex.runs import checkpoint_reader
from tinyalex.runs.network_json import as_json, is_preset
from tinyalex.runs.progress import Progress
from tinyalex.system.arrays import Array
from tinyalex.system.files import remedy, replacing, sync_folder


@dataclass
class Checkpoint:
    """State of a run: all that it needs to go on, and all that its network needs to be used.

    network: its `Architecture`, of which a `Network` is made, with as many outputs as there are
    classes. velocities: empty where there is no run to go on with, as after `tinyalex import`.
    machine: what computed it, see `machine`. data: the digest of the data set it was trained on.
    Both are empty in a file from before they were recorded.
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

    @property
    def validation_images(self) -> int:
        """Number of validation images of its training, 0 if there were none or it is not known."""
        return sum(count for count, _ in self.data.get("val", {}).values())


def machine() -> dict[str, str]:
    """Parts that the last bits of a result depend on: processor, NumPy, and the BLAS it calls."""
    blas: dict[str, str] = next(
        (library for library in threadpool_info() if library["user_api"] == "blas"), {}
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
    """Write the checkpoint, or raise WriteError and leave what was there before."""
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
    """Make the renaming of `path` survive a power cut, where the file system can do that."""
    try:
        sync_folder(path.parent)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some file systems of networks sync no folder
            raise WriteError(
                f"{path} is written, but the disk does not confirm its name: {error.strerror}. "
                "After a power cut the checkpoint before it may be back. Check the disk, or choose "
                "another folder with --output-dir."
            ) from None


def find(run: str | Path, *, resume: bool = False) -> Path:
    """File of a run's best checkpoint, or of its last one to `resume`; or the .npz file named.

    The other of the two is taken if it is the only one. Raises CheckpointError if there is none.
    """
    path = Path(run)
    names = ("last.npz", "best.npz") if resume else ("best.npz", "last.npz")
    hint = "Give the folder of a run, or an .npz file in it."
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
        if path.exists():
            return path
    except OSError as error:  # a name too long, or a folder that may not be entered
        raise CheckpointError(f"{path} cannot be read: {error.strerror}. {hint}") from None
    runs = sorted(Path(run).glob("*/*.npz"), key=lambda file: file.stat().st_mtime)
    newest = f" The newest run there is {runs[-1].parent}." if runs else ""
    raise CheckpointError(f"There is no checkpoint at {path}. {hint}{newest}")


def load_run(run: str | Path, *, resume: bool = False) -> tuple[Path, Checkpoint]:
    """The checkpoint that `find` names: its file, and what it holds."""
    path = find(run, resume=resume)
    return path, load(path)


def load(path: Path) -> Checkpoint:
    """Read a checkpoint. Raises CheckpointError, naming the file, if it is not a sound one.

    The file may come from anybody, see `runs.checkpoint_reader`. The error also names the
    other checkpoint of the run if that one is sound.
    """
    try:
        return _read(path)
    except CheckpointError as error:
        raise CheckpointError(f"{error} {_beside(path)}") from None


def _beside(path: Path) -> str:
    """Remedy for a bad file: the other checkpoint of the run, if that can be used."""
    for other in (path.with_name("last.npz"), path.with_name("best.npz")):
        with suppress(CheckpointError):
            epoch = _read(other).progress.epoch
            return (
                f"{other.name} beside it is sound (epoch {epoch}): tinyalex train --resume {other}"
            )
    return "There is no sound last.npz or best.npz beside it: name another run, or train anew."


def _read(path: Path) -> Checkpoint:
    meta, progress, network, arrays = checkpoint_reader.read(path)
    config = {"decoding": 1, **meta["config"]}  # runs of before the setting read JPEGs whole
    if "warmup_epochs" not in config and config.get("lr_scheduler") == "2012":
        config["lr_step_size"] = 30  # the rate fell after 25 epochs, however many there were
    return Checkpoint(
        network=network,
        classes=tuple(meta["classes"]),
        titles=tuple(map(printable, meta["titles"])),
        config=config,
        progress=progress,
        parameters=_under("parameter/", arrays),
        velocities=_under("velocity/", arrays),
        mean=arrays["mean"],
        colour=arrays["colour"],
        machine={part: printable(was) for part, was in meta.get("machine", {}).items()},
        data=meta.get("data", {}),
    )


def _under(prefix: str, arrays: dict[str, Array]) -> dict[str, Array]:
    return {name.removeprefix(prefix): a for name, a in arrays.items() if name.startswith(prefix)}


def check_fits(
    checkpoint: Checkpoint, path: Path, network: Architecture, classes: tuple[str, ...]
) -> None:
    """Raise CheckpointError unless it can go on: with velocities, this network, these classes."""
    if not checkpoint.velocities:
        raise CheckpointError(
            f"{path} has weights and no velocities: it was imported or exported, and there is no "
            f"training to go on with. Begin a run from its weights: tinyalex train --weights {path}"
        )
    if checkpoint.network.rows != network.rows:
        raise CheckpointError(
            f"{path} holds {checkpoint.architecture} with {len(checkpoint.classes)} classes, but "
            f"this run is {network.name} with {len(classes)}. Resume with the --arch and --data of "
            f"the run that wrote it; or begin a new one from its weights: --weights {path}."
        )
    if checkpoint.classes != classes:
        other = next(
            pair for pair in zip(checkpoint.classes, classes, strict=True) if len(set(pair)) > 1
        )
        raise CheckpointError(
            f"{path} was trained on other classes than this data has: {other[0]!r} there, "
            f"{other[1]!r} here. Resume with the --data of the run that wrote it; or begin a new "
            f"one from its weights: --weights {path}."
        )
