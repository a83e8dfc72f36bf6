"""Networks that have been trained, loaded from their runs to be used."""

from __future__ import annotations

from collections.abc import Sequence

from tinyalex import checkpoint
from tinyalex.backend import get_backend
from tinyalex.checkpoint import Checkpoint
from tinyalex.config import Config, from_mapping
from tinyalex.data import open_data
from tinyalex.data.dataset import Dataset
from tinyalex.errors import CheckpointError
from tinyalex.network import Network


def load_networks(runs: Sequence[str]) -> tuple[list[Checkpoint], list[Network]]:
    """The best checkpoint of each run (or the .npz named), and its network, ready to answer.

    Several can be averaged, so they must have the same classes and take images of the same size.
    """
    ops = get_backend("auto")
    paths = [checkpoint.find(run, "best.npz", "last.npz") for run in runs]
    checkpoints = [checkpoint.load(path) for path in paths]
    networks = [Network(c.network, ops, c.parameters, c.mean) for c in checkpoints]
    first, size = checkpoints[0], networks[0].architecture.data.image_size
    for path, other, network in zip(paths, checkpoints, networks, strict=True):
        if other.classes != first.classes or network.architecture.data.image_size != size:
            raise CheckpointError(
                f"{path} has other classes or another image size than {paths[0]}: only networks "
                "of the same task can be averaged."
            )
    return checkpoints, networks


def open_data_of(state: Checkpoint, path: str | None) -> Dataset:
    """The images at `path`, or those of the training, labelled by the checkpoint's classes.

    Of the training's own images the same are held out as then; others are taken whole.
    """
    config = from_mapping(state.config, Config(), "the checkpoint")
    path = path or config.data
    return open_data(
        path,
        state.network.data.image_size,
        config.seed,
        state.classes,
        hold_out=path == config.data,
        max_pixels=config.max_pixels,
        on_bad_image=config.on_bad_image,
    )
