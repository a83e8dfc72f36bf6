"""A trained network as a program uses it: classes, answers, features."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from tinyalex.convert import read
from tinyalex.data.decode import Decoder, centre_square, decode_opened
from tinyalex.errors import UsageError
from tinyalex.measure.evaluate import probabilities
from tinyalex.measure.features import features
from tinyalex.net.network import Network
from tinyalex.runs.weights import decoder_of, load_networks
from tinyalex.system.backends import get_backend

Picture = str | os.PathLike[str] | Image.Image | npt.NDArray[np.uint8]
"""A file, an image of Pillow's, or a uint8 array (H, W, 3), RGB; of any size."""

BATCH = 128  # images that are computed at once


def load(
    run: str | os.PathLike[str],
    backend: str = "auto",
    *,
    arch: str | None = None,
    mean: str | None = None,
    classes: str | None = None,
) -> TrainedNetwork:
    """The network of a run's folder (its best epoch), or of an .npz file in it; or of a file of
    another program: .pth, .safetensors, .onnx, .caffemodel, bvlc_alexnet.npy.

    backend: "auto", "reference" or "gpu". arch, mean, classes: what a file of another program does
    not say, see `tinyalex.convert.read`; what is then assumed stands in `notes` of the network.
    Raises CheckpointError, UsageError.
    """
    path = Path(run)
    if path.suffix != ".npz" and path.is_file():
        state, notes = read([str(path)], arch, mean, classes)
        network = Network(state.network, get_backend(backend), state.parameters, state.mean)
    elif arch or mean or classes:
        raise UsageError(f"{run} is a run, which has its network, mean and classes in itself.")
    else:
        (state,), (network,) = load_networks([os.fspath(run)], backend)
        notes = []
    return TrainedNetwork(network, state.classes, state.titles, decoder_of(state), notes)


class TrainedNetwork:
    """A network that answers about pictures.

    classes: identities in the order of the outputs, as the folders of the training data were named.
    titles: what a person calls them. network: its rows and parameters on a backend. notes: what
    was assumed for a file of another program.
    """

    def __init__(
        self,
        network: Network,
        classes: Sequence[str],
        titles: Sequence[str],
        decoder: Decoder,
        notes: Sequence[str] = (),
    ) -> None:
        self.network, self.classes, self.titles = network, tuple(classes), tuple(titles)
        self.notes = tuple(notes)
        self.decoder = decoder

    def predict(self, picture: Picture, topk: int = 5, crops: int = 1) -> list[tuple[str, float]]:
        """The `topk` most probable classes of one picture: title and probability, the best first.

        crops: 1, the centre, or the paper's 10 views. Raises DataError for a file that cannot be
        read, UsageError for anything that is not one picture.
        """
        images = self.images(picture)
        if len(images) != 1:
            raise UsageError(
                f"predict takes one picture, not {len(images)}: probabilities() takes many."
            )
        (row,) = probabilities([self.network], images, crops)
        best = np.argsort(-row, kind="stable")[:topk]
        return [(self.titles[i], float(row[i])) for i in best]

    def probabilities(
        self, pictures: Picture | Sequence[Picture], crops: int = 1
    ) -> npt.NDArray[np.float64]:
        """The probability of each class, float64 (N, classes).

        pictures: one, a list of them, or a uint8 array (N, H, W, 3). crops, errors: see `predict`.
        """
        images = self.images(pictures)
        return np.concatenate(
            [probabilities([self.network], part, crops) for part in _parts(images)]
        )

    def features(
        self,
        pictures: Picture | Sequence[Picture],
        layer: str,
        pool: str | None = None,
        views: int = 1,
    ) -> npt.NDArray[np.float32]:
        """The output of the row `layer`, float32 (N, features) or (N, H, W, C).

        layer: a name of `tinyalex summary`. "fc7" is before its ReLU, "relu7" behind. pool: "max"
        or "mean" over a map, which is (N, C) then. views: 1, or the mean over the paper's 10.
        pictures, errors: see `probabilities`; UsageError also for a layer that is not there.
        """
        parts = [
            features(self.network, part, [layer], pool, views)[layer]
            for part in _parts(self.images(pictures))
        ]
        return np.concatenate(parts)

    def images(self, pictures: Picture | Sequence[Picture]) -> npt.NDArray[np.uint8]:
        """Pictures as the network was trained on them: uint8 (N, image_size, image_size, 3).

        The centre square of each, resized. pictures, errors: see `probabilities`.
        """
        if isinstance(pictures, np.ndarray):
            _check(pictures)
            parts = list(pictures) if pictures.ndim == 4 else [pictures]
        elif isinstance(pictures, list | tuple):
            parts = list(pictures)
        else:
            parts = [pictures]
        if not parts:
            raise UsageError("There is no picture: the batch is empty.")
        return np.stack([self._image(part) for part in parts])

    def _image(self, picture: Any) -> npt.NDArray[np.uint8]:
        if isinstance(picture, np.ndarray):
            _check(picture, ranks=(3,))
            return centre_square(Image.fromarray(picture), self.decoder.size)
        if isinstance(picture, Image.Image):
            return decode_opened(picture, self.decoder.size)
        if not isinstance(picture, str | os.PathLike):
            raise UsageError(f"A picture is {TAKEN}, not {type(picture).__name__}.")
        return self.decoder.file(os.fspath(picture))


TAKEN = "a path, an image of Pillow's, or a uint8 array (H, W, 3) or (N, H, W, 3) of RGB 0 to 255"


def _check(array: npt.NDArray[Any], ranks: tuple[int, ...] = (3, 4)) -> None:
    """Raise UsageError unless an array can only be meant as pictures."""
    given = f"{array.dtype} {array.shape}"
    if array.dtype != np.uint8:
        hint = "scale it to 0 to 255 and give it .astype('uint8')"
    elif array.ndim in ranks and array.shape[-1] != 3 and 3 in array.shape[-3:-1]:
        hint = "move its channels last: numpy.moveaxis(a, -3, -1)"
    elif array.ndim not in ranks or array.shape[-1] != 3:
        hint = "give each picture three channels: Pillow's convert('RGB') does"
    elif 0 in array.shape:
        hint = "it has no pixels"
    else:
        return
    raise UsageError(f"A picture is {TAKEN}, and this is {given}: {hint}.")


def _parts(images: npt.NDArray[np.uint8]) -> list[npt.NDArray[np.uint8]]:
    return [images[i : i + BATCH] for i in range(0, len(images), BATCH)]
