"""Table of how each program's files have AlexNet's parameters, and what it comes to.

Ours are (outputs, height, width, channels of the group); the columns of the first fully connected
layer count (height, width, channels); colours are R G B from 0 to 255 minus a mean image.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest

import numpy as np

from tinyalex.convert.tensors import Tensor
from tinyalex.errors import CheckpointError
from tinyalex.net.layers import LRN, Augment, AvgPool, Conv2d, Dropout, Linear, LRNMap, MaxPool, Row
from tinyalex.net.presets import ARCHITECTURES, Architecture, get_architecture
from tinyalex.net.shapes import Layer, layers
from tinyalex.net.windows import conv_size, pool_size
from tinyalex.system.arrays import Array

Colours = tuple[float, float, float]


@dataclass(frozen=True)
class Source:
    """A program's way to have the network.

    axes: of a convolution's weights, and of the first fully connected layer's over the maps that it
    reads: O outputs, H height, W width, C channels.
    order: of the colours. mean, std: what its input is made by, per colour R G B, from grey levels;
    mean None: by a mean image, which is a file of its own; `usual` is its average over the pixels.
    names: of the layers, where a file has names and no graph. network: the preset that such a file
    is of; "" where one is of any.
    """

    program: str
    axes: str
    order: str
    mean: Colours | None
    std: Colours
    usual: Colours | None = None
    names: str = ""
    network: str = ""


def _levels(*fractions: float) -> Colours:
    red, green, blue = (255 * f for f in fractions)
    return red, green, blue


GREY = (1.0, 1.0, 1.0)
OURS = "conv1 conv2 conv3 conv4 conv5 fc6 fc7 fc8"

# fmt: off

# The mean and std of torchvision's transforms (torchvision/transforms/_presets.py). Caffe's usual
# mean is that of its ilsvrc_2012_mean.npy over the pixels (examples/00-classification.ipynb).
TORCHVISION = Source(
    "torchvision",        axes="OCHW", order="RGB",
    mean=_levels(.485, .456, .406), std=_levels(.229, .224, .225),
    names="features.0 features.3 features.6 features.8 features.10 "
          "classifier.1 classifier.4 classifier.6",
    network="owt",
)
CAFFE = Source(
    "Caffe",              axes="OCHW", order="BGR",
    mean=None, std=GREY, usual=(122.68, 116.67, 104.01), names=OURS,
)
CAFFE_TENSORFLOW = Source(
    "caffe-tensorflow",   axes="HWCO", order="BGR",
    mean=None, std=GREY, usual=(122.68, 116.67, 104.01), names=OURS, network="caffe",
)
TINYALEX = Source(
    "files of tinyalex",  axes="OCHW", order="RGB",
    mean=None, std=GREY, names=OURS,
)
# fmt: on

# Whose way it is to feed a network, where the file does not say.
USUAL = {"caffe": CAFFE, "caffenet": CAFFE, "owt": TORCHVISION}


# Which network


def with_parameters(rows: Sequence[Row]) -> list[Layer]:
    """The layers that have weights, in order."""
    return [layer for layer in layers(rows) if layer.weight]


def identified(rows: Sequence[Row], name: str | None) -> tuple[Architecture, list[float]]:
    """The preset that computes what `rows` do, and what each layer's weights are multiplied by.

    name: the only preset that it may be. The factors make up for a k or a dropout that the preset
    has otherwise; nearly always they are 1. Raises LookupError, saying how the rows differ, if
    there is no such preset.
    """
    presets = [get_architecture(name)] if name else list(ARCHITECTURES.values())
    nearest: tuple[int, str] = (-1, "")
    for preset in presets:
        forms = (_forms(r, preset.data.size) for r in (rows, preset.rows))
        both = zip_longest(*forms, fillvalue="nothing more")
        difference = next(((i, a, b) for i, (a, b) in enumerate(both) if a != b), None)
        if difference is None:
            pairs = zip(_gains(rows), _gains(preset.rows), strict=True)
            return preset, [1.0 if math.isclose(a, b, rel_tol=1e-5) else a / b for a, b in pairs]
        same, there, here = difference
        if same > nearest[0]:
            nearest = same, f"where {preset.name} has {here}, it has {there}"
    raise LookupError(nearest[1])


def _forms(rows: Sequence[Row], size: int) -> list[str]:
    """Describe what each row computes on an input of `size`.

    Left out is what changes no answer but by a factor: names, initial values, dropout, k, and
    rounding up where nothing is left over.
    """
    first, *rest = rows
    assert isinstance(first, Augment)
    forms = []
    try:
        known = layers([replace(first, size=size), *rest])
    except ValueError as error:
        return [str(error)]
    for layer in known[1:]:
        row, n = layer.row, layer.input[0]
        match row:
            case Conv2d():
                over = row.ceil and layer.output[0] > conv_size(n, row.size, row.stride, row.pad)
                groups = f" in {row.groups} groups" if row.groups > 1 else ""
                forms.append(
                    f"{row.channels} filters of {row.size}, stride {row.stride}, "
                    f"pad {row.pad}{groups}{', rounded up' if over else ''}"
                )
            case LRN():
                forms.append(
                    f"normalisation by {row.n}, alpha / k {row.alpha / row.k:.3g}, "
                    f"beta {row.beta:.3g}, {row.groups} group(s)"
                )
            case LRNMap():
                forms.append(
                    f"normalisation in the map by {row.n}, k {row.k:.3g}, alpha {row.alpha:.3g}, "
                    f"beta {row.beta:.3g}"
                )
            case MaxPool() | AvgPool():
                over = row.ceil and layer.output[0] > pool_size(n, row.size, row.stride, False)
                forms.append(
                    f"{row.kind} of {row.size}, stride {row.stride}{', rounded up' if over else ''}"
                )
            case Linear():
                last = row is rest[-1]
                forms.append("a last layer" if last else f"{row.features} neurons")
            case row if not isinstance(row, Dropout):
                forms.append(row.kind)
    return forms


def _gains(rows: Sequence[Row]) -> list[float]:
    """Factors on the input of each layer with weights, by rows that others may leave out."""
    found, gain = [], 1.0
    for row in rows:
        match row:
            case Conv2d() | Linear():
                found.append(gain)
                gain = 1.0
            case LRN():
                gain *= row.k**-row.beta
            case Dropout(scale_at="test"):
                gain *= 1 - row.rate
    return found


# Which tensor


def named(tensors: Mapping[str, Tensor], names: Sequence[str]) -> list[str]:
    """The layers `names` as the tensors have them, all with one prefix; none if they do not.

    DataParallel's prefix is `module.`.
    """
    for name in tensors:
        prefix = name.removesuffix(f"{names[0]}.weight")
        wanted = {f"{prefix}{n}.{kind}" for n in names for kind in ("weight", "bias")}
        if prefix != name and wanted <= tensors.keys():
            return [prefix + n for n in names]
    return []


def by_shape(tensors: Mapping[str, Tensor], network: Architecture) -> list[str]:
    """The names of the layers that have the shapes of the network's, each the only one.

    Raises LookupError, saying which layer, if there is none of its shape, or more than one.
    """
    stems = [name.removesuffix(".weight") for name in tensors if name.endswith(".weight")]
    found: list[str] = []
    for layer in with_parameters(network.rows):
        last = layer.row is network.rows[-1]
        fits = [
            stem
            for stem in stems
            for shape in (tensors[f"{stem}.weight"].shape,)
            if shape == _shape(layer, "OCHW", shape[0] if last else layer.output[2])
            and f"{stem}.bias" in tensors
            and stem not in found  # the last layer may be of any number of outputs
        ]
        if len(fits) != 1:
            raise LookupError(
                f"{layer.row.name} of {network.name} has weights of shape "
                f"{turned_shape(layer)}, as {len(fits)} of its layers do"
            )
        found += fits
    return found


def _shape(layer: Layer, axes: str, outputs: int) -> tuple[int, ...]:
    """The shape of a layer's weights in a file."""
    _, *inputs = layer.weight or ()
    if len(inputs) == 3:
        sizes = dict(zip("OHWC", (outputs, *inputs), strict=True))
        return tuple(sizes[axis] for axis in axes)
    return (outputs, *inputs) if axes[0] == "O" else (*inputs, outputs)


def parameters(
    tensors: Mapping[str, Tensor],
    names: Sequence[str],
    network: Architecture,
    source: Source,
    factors: Sequence[float],
    colours: Array,
) -> dict[str, Array]:
    """The network's parameters, float32, read from the layers `names`, one at a time.

    factors: on each layer's weights. colours: on the first layer's, (3,), R G B. Raises
    CheckpointError for a shape that is not the network's, or a number that is not finite.
    """
    found: dict[str, Array] = {}
    for layer, name, factor in zip(with_parameters(network.rows), names, factors, strict=True):
        shapes = {"weight": _shape(layer, source.axes, layer.output[2]), "bias": (layer.output[2],)}
        for kind, shape in shapes.items():
            tensor = tensors[f"{name}.{kind}"]
            if _without_ones(tensor.shape) != _without_ones(shape):
                raise CheckpointError(
                    f"{name}.{kind} has shape {tensor.shape}, where {layer.row.name} of "
                    f"{network.name} has {shape}"
                )
            value = tensor.numbers().reshape(shape)
            by: float | Array = factor
            if kind == "weight":
                value = _turned(value, layer, source.axes)
                if not found:
                    value = value[..., ::-1] if source.order == "BGR" else value
                    by = factor * colours
            with np.errstate(all="ignore"):  # a number that becomes infinite is refused below
                own = np.array(value, np.float32, order="C", copy=True)
                if kind == "weight" and not np.array_equal(by, np.ones_like(by)):
                    own *= np.asarray(by, np.float32)
            if not np.isfinite((own.min(), own.max())).all():
                raise CheckpointError(f"{name}.{kind} has numbers that are not finite")
            found[f"{layer.row.name}.{kind}"] = own
    return found


def turned(weight: Array, layer: Layer) -> Array:
    """Our weights with channels before height and width, as a view where that is one."""
    assert layer.weight
    if len(layer.weight) == 4:
        return weight.transpose(0, 3, 1, 2)
    return weight.reshape(-1, *layer.input).transpose(0, 3, 1, 2).reshape(weight.shape)


def turned_shape(layer: Layer) -> tuple[int, ...]:
    """The shape of what `turned` returns."""
    return _shape(layer, "OCHW", layer.output[2])


def _turned(weight: Array, layer: Layer, axes: str) -> Array:
    """Weights in a file's order of axes, as ours."""
    assert layer.weight
    height, width, channels = layer.weight[1:] if len(layer.weight) == 4 else layer.input
    sizes = {"O": layer.output[2], "H": height, "W": width, "C": channels}
    apart = weight.reshape([sizes[axis] for axis in axes])
    return apart.transpose([axes.index(axis) for axis in "OHWC"]).reshape(layer.weight)


def _without_ones(shape: Sequence[int]) -> tuple[int, ...]:
    """A shape as if Caffe had not always had four axes."""
    return tuple(n for n in shape if n != 1)
