"""Networks that have been trained, loaded from their runs to be used or trained further."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tinyalex.data import open_data
from tinyalex.data.dataset import Dataset
from tinyalex.data.decode import Decoder
from tinyalex.data.fingerprint import contents
from tinyalex.errors import CheckpointError, DataError
from tinyalex.net.network import Network, role_of
from tinyalex.net.presets import Architecture
from tinyalex.ranks.ranks import answering
from tinyalex.ranks.team import Team
from tinyalex.runs import checkpoint
from tinyalex.runs.checkpoint import Checkpoint
from tinyalex.runs.config import Config, from_mapping, same_data
from tinyalex.system.backends import get_backend


def load_networks(
    runs: str | Sequence[str], backend: str = "auto", team: Team | None = None
) -> tuple[list[Checkpoint], list[Network]]:
    """The best checkpoint of each run (or the .npz named), and its network, ready to answer.

    Several can be averaged, so they must have the same classes and take images of the same size.
    team: ranks that share each batch, and so have to ask for the same answers.
    """
    runs, team = [runs] if isinstance(runs, str) else runs, team or Team()
    ops = answering(get_backend(backend, (team.local,)), team)
    (first_path, first), *others = loaded = [checkpoint.load_run(run) for run in runs]
    size = first.network.data.image_size
    for path, other in others:
        if other.classes != first.classes or other.network.data.image_size != size:
            raise CheckpointError(
                f"{path} has other classes or another image size than {first_path}: only networks "
                "of the same task can be averaged."
            )
    checkpoints = [state for _, state in loaded]
    return checkpoints, [Network(c.network, ops, c.parameters, c.mean) for c in checkpoints]


def decoder_of(state: Checkpoint) -> Decoder:
    """Reader of pictures as the network was trained on them."""
    config = from_mapping(state.config, Config(), "the checkpoint")
    return Decoder(state.network.data.image_size, config.max_pixels, config.decoding)


def open_data_of(
    checkpoints: Sequence[Checkpoint],
    path: str | None,
    classes_at: int | None = None,
    numbers_from: int | None = None,
) -> Dataset:
    """The images at `path`, or those of the training, labelled by the checkpoints' classes.

    Of the training's own images, moved or packed since too, the same are held out as then; others
    are taken whole. Raises DataError if another of the networks, trained on the same --data, held
    out others than this one.
    """
    state, *others = checkpoints
    config = from_mapping(state.config, Config(), "the checkpoint")
    if path is None and config.data and not os.path.exists(config.data):
        raise DataError(
            f"The images of the run are no longer in {config.data}. Say with --data where they are."
        )
    path = path or config.data
    if path is None and not state.velocities and not state.data:
        raise DataError(
            "These weights were imported, and know no images of their own. Say with --data which."
        )

    def opened(hold_out: bool) -> Dataset:
        return open_data(
            path,
            state.network.data.image_size,
            config.seed,
            state.classes,
            hold_out=hold_out,
            max_pixels=config.max_pixels,
            on_bad_image=config.on_bad_image,
            classes_at=classes_at or config.classes_at,
            decoding=config.decoding,
            numbers_from=numbers_from,
        )

    dataset, own = opened(True), same_data(path, config.data)
    if not own and contents(dataset) != state.data:
        dataset = opened(False)
    held_out = contents(dataset)["val"] if others else {}  # takes time: all names are hashed
    for other in others:
        same = same_data(path, other.config.get("data"))
        if same and other.data and other.data["val"] != held_out:
            raise DataError(
                f"{dataset.name} has no folder of validation images, so that a run with another "
                "--seed holds out others and trains on some of these: the networks have none in "
                "common that they could be measured on. Give --data with such a folder, or one run."
            )
    return dataset


def fine_tuned(
    source: tuple[Path, Checkpoint],
    architecture: Architecture,
    classes: tuple[str, ...],
    drawn: Mapping[str, Any],
) -> dict[str, Any]:
    """Parameters to start from: the source's, but for the last layer if it has other classes.

    drawn: freshly initialised ones, of which the last layer's are taken then. Raises
    CheckpointError if the networks differ elsewhere, in a shape or in the size of images.
    """
    path, state = source
    keep_last = state.classes == classes
    chosen = {
        name: value
        if role_of(name, architecture) == "head" and not keep_last
        else state.parameters.get(name)
        for name, value in drawn.items()
    }
    fits = all(v is not None and v.shape == drawn[name].shape for name, v in chosen.items())
    if not fits or state.network.data.image_size != architecture.data.image_size:
        raise CheckpointError(
            f"The weights in {path} are of {state.architecture}, which {architecture.name} is too "
            f"different from. Give --arch {state.architecture}, or the weights of another run."
        )
    return chosen
