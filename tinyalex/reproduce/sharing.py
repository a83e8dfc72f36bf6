"""Savings of windows and shared weights, and what becomes of a shifted image.

Section 1 of the paper: near pixels depend on each other, and images are alike everywhere. So a
convolution does with much fewer connections and parameters than a fully connected layer of like
size.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tinyalex.data import open_data
from tinyalex.data.dataset import Pixels
from tinyalex.net.layers import Augment, Conv2d
from tinyalex.net.presets import get_architecture
from tinyalex.net.shapes import Layer, layers
from tinyalex.reproduce import figures
from tinyalex.reproduce.experiment import Answer, Request, experiment
from tinyalex.system.arrays import Array
from tinyalex.system.backends import get_backend

SHIFT = 4  # places of the map, each a stride of the image: enough for the eye
MAPS = 4  # of each kind, each with random weights; more take longer and tell the same


@experiment(
    "sharing",
    "What do windows and shared weights save?",
    'convolutions have "much fewer connections and parameters" than layers of like size, because '
    "they assume that pixels depend on near ones and that images are alike everywhere (section 1).",
    "Unshared layers have the convolution's windows, and at each place filters of their own; fully "
    "connected ones reach from every input to every output, across the towers too. Biases count "
    "as parameters, one for each filter or else for each output. Zeros beyond the border count as "
    "connections, which is why they are the same for the first two. No layer was trained: the "
    "others could learn to follow a shift, but at each place anew.",
)
def sharing(request: Request, title: str) -> Answer:
    """Counts for the first convolution and for alexnet's; maps of an image and of its shifted copy.

    Trains nothing. The weights are random, as before training.
    """
    name = request.arch or "mini"
    first, of_alexnet = convolutions(name)[0], convolutions("alexnet")
    _, stride, pad = first.row.window
    own = f"{name} {first.row.name}"
    counted = {
        own: [first],
        "alexnet conv1": of_alexnet[:1],
        "alexnet's five convolutions": of_alexnet,
    }
    counts = {
        what: {
            kind: (sum(map(k.parameters, chosen)), sum(map(k.connections, chosen)))
            for kind, k in KINDS.items()
        }
        for what, chosen in counted.items()
    }

    images = image_and_shifted(request, get_architecture(name).data, stride)
    x = images.astype(np.float32) - np.float32(images[0].mean())
    maps, correlations = {}, {}
    for number, (kind, k) in enumerate(KINDS.items()):
        request.say(f"  {kind}: {MAPS} maps of {first.output[0]} x {first.output[1]}")
        rng = np.random.default_rng(number)
        drawn = [k.output(first, x, rng) for _ in range(MAPS)]
        maps[kind] = drawn[0]
        correlations[kind] = correlation(drawn, 1 + pad)

    rows = [
        (
            what,
            kind,
            f"{parameters:,}",
            f"{connections:,}",
            f"{correlations[kind]:.2f}" if counted[what] == [first] else "",
        )
        for what, kinds in counts.items()
        for kind, (parameters, connections) in kinds.items()
    ]
    setting = (
        f"{own} with random weights, {MAPS} maps of each kind, first image of "
        f"{request.images}, moved by {SHIFT * stride} pixels, {request.date}"
    )
    parameters = {kind: numbers[0] for kind, numbers in counts[own].items()}
    return Answer(
        figures.sharing(images, maps, correlations, parameters, title, setting),
        in_words(counts[own], f"{name}'s {first.row.name}", correlations),
        setting,
        ("layer", "connected as", "parameters", "connections", "correlation after a shift"),
        rows,
        {"counts": counts, "correlations": correlations, "shift": SHIFT},
    )


@dataclass(frozen=True)
class Kind:
    """A way to connect what a convolution reads with what it puts out.

    parameters: weights and biases. connections: multiply-adds, each of a weight and an input; where
    a window reaches beyond the image its zeros count. output: of images (N, H, W, C) one map
    (N, height, width) with random weights.
    """

    parameters: Callable[[Layer], int]
    connections: Callable[[Layer], int]
    output: Callable[[Layer, Array, np.random.Generator], Array]


def pairs(layer: Layer) -> int:
    """Number of pairs of an input and an output of a layer."""
    return math.prod(layer.input) * math.prod(layer.output)


def convolution(layer: Layer, x: Array, rng: np.random.Generator) -> Array:
    """A map with the same weights at every place."""
    size, stride, pad = layer.row.window
    *_, ceil = layer.row.settings
    w = rng.standard_normal((1, size, size, x.shape[3]), np.float32)
    conv2d, bias = get_backend("reference").conv2d, np.zeros(1, np.float32)
    y, _ = conv2d(x, w, bias, stride, pad, 1, ceil)
    return np.asarray(y[..., 0])


def unshared(layer: Layer, x: Array, rng: np.random.Generator) -> Array:
    """A map from the same windows, with weights of their own at every place."""
    size = layer.row.window.size
    w = rng.standard_normal((*layer.output[:2], size, size, x.shape[3]), np.float32)
    return own_weights(layer, x, w)


def own_weights(layer: Layer, x: Array, w: Array) -> Array:
    """Each window (kh, kw, C) times the weights of its place. w: (height, width, kh, kw, C)."""
    size, stride, pad = layer.row.window
    around = (pad, pad + size)  # more below and to the right, where `ceil` may reach
    padded = np.pad(x, [(0, 0), around, around, (0, 0)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, (size, size), (1, 2))
    height, width, _ = layer.output
    windows = windows[:, ::stride, ::stride][:, :height, :width]
    return np.asarray(np.einsum("nhwckl,hwklc->nhw", windows, w))


def fully_connected(layer: Layer, x: Array, rng: np.random.Generator) -> Array:
    """A map with weights for every pair of an input and an output.

    They are drawn for one row of the map after another: a map of alexnet's conv1 has 1.9 GB.
    """
    height, width, _ = layer.output
    pixels = x.reshape(len(x), -1)
    rows = (rng.standard_normal((width, pixels.shape[1]), np.float32) for _ in range(height))
    return np.stack([pixels @ w.T for w in rows], 1)


KINDS = {
    "convolution": Kind(lambda c: c.parameters, lambda c: c.macs, convolution),
    "unshared": Kind(lambda c: c.macs + c.neurons, lambda c: c.macs, unshared),
    "fully connected": Kind(lambda c: pairs(c) + c.neurons, pairs, fully_connected),
}


def convolutions(name: str) -> list[Layer]:
    """The convolutions of a network, with their sizes."""
    return [c for c in layers(get_architecture(name).rows) if isinstance(c.row, Conv2d)]


def image_and_shifted(request: Request, data: Augment, stride: int) -> Pixels:
    """The centre of the first image, and of that image moved right: uint8 (2, size, size, 3).

    On the left its border is repeated.
    """
    image = open_data(request.data, data.image_size, seed=0).train.read(0)
    moved = np.pad(image, [(0, 0), (SHIFT * stride, 0), (0, 0)], mode="edge")
    border = (data.image_size - data.size) // 2
    both = np.stack([image, moved[:, : data.image_size]])
    return both[:, border : border + data.size, border : border + data.size]


def correlation(maps: Sequence[Array], border: int) -> float:
    """Correlation of the shifted map of an image with the map of the shifted image, over all maps.

    maps: (2, height, width) each, of the image and of the shifted one. border: so many columns at
    each side are left out, where one of the two has seen what the other has not.
    """
    stacked = np.stack(maps).astype(np.float64)
    shifted_map = stacked[:, 0, :, border : -SHIFT - border]
    map_of_shifted = stacked[:, 1, :, SHIFT + border : -border]
    return float(np.corrcoef(shifted_map.ravel(), map_of_shifted.ravel())[0, 1])


def in_words(counts: dict[str, tuple[int, int]], layer: str, correlations: dict[str, float]) -> str:
    """Say what each of the two assumptions saves, and what a shift does."""
    shared, local, full = (counts[kind] for kind in KINDS)
    moves = ", ".join(f"{value:.2f} {kind}" for kind, value in correlations.items())
    return (
        f"In {layer}, windows save connections: {full[1]:,} fully connected, {local[1]:,} with "
        f"them, {full[1] / local[1]:,.0f} times fewer. Shared weights save parameters: "
        f"{local[0]:,} unshared, {shared[0]:,} shared, {local[0] / shared[0]:,.0f} times fewer. "
        f"If the image moves, the convolution's map moves with it and the others change: "
        f"correlation of the moved map with the map of the moved image {moves}."
    )
