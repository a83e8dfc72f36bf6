"""The built-in data set `shapes`: drawn pictures of ten kinds of thing, nothing to download.

A picture is a pure function of (split, index, seed): a striped object, a little turned, anywhere on
a background of bars and discs. It is light on dark or dark on light, in any colour, so that neither
single pixels nor colours tell the class: linear models get under 20 % right, the network `mini`
99 % and more after 6 epochs. No class is the mirror image of another, since training flips them.

Everything is computed in float64 and then rounded to 8 bits, so a difference in the last bit of a
sine between two platforms has next to no chance of showing.
"""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from tinyalex.data.dataset import Dataset

Array = npt.NDArray[np.float64]

TRAINING_IMAGES = 10_000
VALIDATION_IMAGES = 2_000

# Each shape is the signed distance to its outline, negative inside, near enough to the true one to
# draw a smooth edge. u runs to the right and v down, broadcast against each other; every shape
# fits in -1..1.


def disc(u: Array, v: Array) -> Array:
    return np.sqrt(u * u + v * v) - 0.9


def ring(u: Array, v: Array) -> Array:
    return np.abs(np.sqrt(u * u + v * v) - 0.68) - 0.24


def square(u: Array, v: Array) -> Array:
    return np.maximum(np.abs(u), np.abs(v)) - 0.78


def triangle(u: Array, v: Array) -> Array:
    return np.maximum(v - 0.72, 0.87 * np.abs(u) - 0.5 * v - 0.47)


def star(u: Array, v: Array) -> Array:
    # Five lines, each 72 degrees from the last: the star is where at most one of them is crossed.
    turns = 0.4 * np.pi * np.arange(5)[:, None, None]
    lines = np.sin(turns) * u - np.cos(turns) * v - 0.37  # (5, size, size)
    second_largest: Array = np.partition(lines, 3, axis=0)[3]
    return second_largest


def heart(u: Array, v: Array) -> Array:
    # A disc whose columns are shifted up, the more the further they are from the middle.
    w = v - 0.1 + 0.62 * np.sqrt(np.abs(u))
    return 0.85 * np.sqrt(u * u + w * w) - 0.75


def cross(u: Array, v: Array) -> Array:
    a, b = np.abs(u), np.abs(v)
    return np.maximum(np.minimum(a, b) - 0.27, np.maximum(a, b) - 0.92)


def moon(u: Array, v: Array) -> Array:
    bite = np.sqrt((u - 0.48) ** 2 + v * v) - 0.75
    return np.maximum(disc(u, v), -bite)


def hourglass(u: Array, v: Array) -> Array:
    return np.maximum(0.75 * np.abs(u) - 0.66 * np.abs(v) - 0.06, np.abs(v) - 0.88)


def mushroom(u: Array, v: Array) -> Array:
    cap = np.maximum(disc(u, v), v - 0.08)
    stem = np.maximum(np.abs(u) - 0.27, np.abs(v - 0.45) - 0.47)
    return np.minimum(cap, stem)


SHAPES: tuple[Callable[[Array, Array], Array], ...] = (
    disc, ring, square, triangle, star, heart, cross, moon, hourglass, mushroom,
)  # fmt: skip


class ShapesSplit:
    """`count` pictures of (size, size, 3), drawn when they are read; the classes take turns.

    folder: "train" or "val"; the two never share a random stream, whatever the seed.
    """

    def __init__(self, folder: str, count: int, size: int, seed: int) -> None:
        self.labels = (np.arange(count) % len(SHAPES)).astype(np.int32)
        self.names: Sequence[str] = [
            f"{folder}/{SHAPES[c].__name__}/{i}" for i, c in enumerate(self.labels)
        ]
        self._stream = ("train", "val").index(folder)
        self._seed = seed
        self._pixel = 2 / size
        self._x = ((np.arange(size) + 0.5) * self._pixel - 1)[None, :]  # pixel centres in -1..1
        self._y = self._x.T

    def read(self, index: int) -> npt.NDArray[np.uint8]:
        """Picture `index`: uint8 (size, size, 3), RGB."""
        shape = SHAPES[self.labels[index]]
        # The seed comes last because it alone may take several words of the generator's key.
        rng = np.random.default_rng((self._stream, index, self._seed))
        x, y, pixel = self._x, self._y, self._pixel

        # A gradient, and on it bars and discs.
        dark = rng.uniform(0, 0.5, (6, 3, 1, 1))
        across, down = rng.uniform(-0.5, 0.5, 2)
        picture = dark[0] + (dark[1] - dark[0]) * np.clip(0.5 + across * x + down * y, 0, 1)
        for bar_colour, disc_colour in dark[2:].reshape(2, 2, 3, 1, 1):
            offset, turn = rng.uniform(-1, 1), rng.uniform(0, np.pi)
            bar = np.abs(np.cos(turn) * x + np.sin(turn) * y - offset) - rng.uniform(0.05, 0.2)
            picture += coverage(bar, pixel) * (bar_colour - picture)
            x0, y0 = rng.uniform(-1, 1, 2)
            spot = np.sqrt((x - x0) ** 2 + (y - y0) ** 2) - rng.uniform(0.1, 0.4)
            picture += coverage(spot, pixel) * (disc_colour - picture)

        # The object: (u, v) are its own axes.
        light = rng.uniform(0.55, 1, (2, 3, 1, 1))
        turn, scale = rng.uniform(-0.3, 0.3), rng.uniform(0.5, 0.75)
        x0, y0 = rng.uniform(scale - 0.95, 0.95 - scale, 2)  # at most a corner leaves the picture
        cos, sin = np.cos(turn) / scale, np.sin(turn) / scale
        u = cos * (x - x0) + sin * (y - y0)
        v = cos * (y - y0) - sin * (x - x0)
        turn, frequency = rng.uniform(0, np.pi), rng.uniform(2, 3.5)
        wave = frequency * (np.cos(turn) * u + np.sin(turn) * v) + rng.random()
        stripes = np.abs(wave - np.floor(wave) - 0.5) - 0.25
        skin = light[0] + (light[1] - light[0]) * coverage(stripes, pixel / scale * frequency)
        picture += coverage(shape(u, v), pixel / scale) * (skin - picture)

        if rng.random() < 0.5:
            picture = 1 - picture
        return np.ascontiguousarray((picture * 255 + 0.5).astype(np.uint8).transpose(1, 2, 0))


def coverage(distance: Array, pixel: float) -> Array:
    """Share of each pixel that a shape covers, by the distance of its centre to the outline."""
    return np.clip(0.5 - distance / pixel, 0, 1)


def builtin_dataset(
    seed: int = 0, size: int = 32, training_images: int = TRAINING_IMAGES
) -> Dataset:
    """Ten classes of drawn objects, `training_images` to learn from and 2,000 to validate on."""
    classes = tuple(shape.__name__ for shape in SHAPES)
    return Dataset(
        name="shapes",
        classes=classes,
        titles=classes,
        train=ShapesSplit("train", training_images, size, seed),
        val=ShapesSplit("val", VALIDATION_IMAGES, size, seed),
        notes=(f"The images are drawn by tinyalex itself, from seed {seed}: no photographs.",),
    )
