"""Differences of the networks called AlexNet, read off their rows, each with its source."""

import shutil
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tinyalex.backend import Backend
from tinyalex.measure.image_signal import as_dict, initial_signal
from tinyalex.net.layers import LRN, Conv2d, Dropout, Linear, LRNMap, MaxPool, ReLU, Row
from tinyalex.net.presets import Architecture, get_architecture
from tinyalex.net.shapes import layers, parameters
from tinyalex.reports.weighing import weighed

COMPARED = ("alexnet", "paper", "2012", "caffe", "caffenet", "owt", "owt-2014", "ungrouped")
UNIFORM = "uniform within 1/sqrt(inputs)"


@dataclass(frozen=True)
class Aspect:
    """Something in which the networks may differ: how it reads for one, and who says so."""

    name: str
    value: Callable[[Architecture], str]
    source: str


def compared(ops: Backend) -> dict[str, Any]:
    """The networks called AlexNet: where each comes from, how they differ, and their signal.

    `differences` has an entry for each aspect in which they are not all the same. `signal` is what
    `image_signal` finds on the built-in images in each network as seed 0 initialises it.
    """
    networks = [get_architecture(name) for name in COMPARED]
    values = {a.name: {aspect.name: aspect.value(a) for aspect in ASPECTS} for a in networks}
    return {
        "networks": {a.name: a.source for a in networks},
        "differences": differing(values, {aspect.name: aspect.source for aspect in ASPECTS}),
        "weights": weighed(ops),
        "signal": {a.name: as_dict(initial_signal(a, ops)) for a in networks},
    }


def differing(
    values: Mapping[str, Mapping[str, str]], sources: Mapping[str, str]
) -> list[dict[str, Any]]:
    """The aspects in which networks differ. values: by network and aspect. sources: by aspect."""
    found = []
    for aspect, source in sources.items():
        each = {name: aspects[aspect] for name, aspects in values.items()}
        if len(set(each.values())) > 1:
            found.append({"aspect": aspect, "values": each, "source": source})
    return found


def table(comparison: Mapping[str, Any]) -> str:
    """Format for people what `compared` or `namesakes.namesakes` returns."""
    lines = []
    for name, source in comparison["networks"].items():
        lines += _wrap(f"{name:<14} {source}", 0, 15)
    for difference in comparison["differences"]:
        lines += ["", difference["aspect"]]
        for value in dict.fromkeys(difference["values"].values()):
            names = [name for name, v in difference["values"].items() if v == value]
            lines += _beside(value, ", ".join(names))
        lines += _paragraph(difference["source"])
    if "signal" not in comparison:
        return "\n".join(lines)
    lines += ["", "what a difference does by itself, in alexnet"]
    lines.append(f"  {'':<22}{'norm1, mean':>12}{'logits, relative L2':>22}")
    for name, moved in comparison["weights"].items():
        norm1 = "" if moved["norm1"] is None else f"x {moved['norm1']:.3f}"
        lines.append(f"  {name:<22}{norm1:>12}{moved['logits']:>22.3f}")
    lines += _paragraph(WEIGHTS)
    signals = comparison["signal"]
    for what, key, form in (
        ("image signal at the start: standard deviation over images", "std", "8.2g"),
        ("the same as a share of the layer's output", "share", "8.1%"),
    ):
        lines += ["", what, " " * 12 + "".join(f"{layer:>8}" for layer in signals["alexnet"])]
        for name, signal in signals.items():
            values = "".join(f"{layer[key]:{form}}" for layer in signal.values())
            lines.append(f"  {name:<10}{values}")
    return "\n".join(lines + _paragraph(SIGNAL))


def _beside(value: str, names: str) -> list[str]:
    """A value and the networks that have it; below it where it is long."""
    if len(value) > 42:
        return _wrap(value, 2, 4) + _wrap(names, 45, 45)
    return _wrap(f"{value:<42} {names}", 2, 45)


def _paragraph(text: str) -> list[str]:
    return _wrap(text, 4, 4)


def _wrap(text: str, indent: int, hanging: int) -> list[str]:
    """Lines that fit the terminal, but for 96 columns at most: beyond that the eye loses them."""
    width = max(60, min(96, shutil.get_terminal_size().columns))
    return textwrap.wrap(text, width, initial_indent=" " * indent, subsequent_indent=" " * hanging)


WEIGHTS = """\
On alexnet's first weights and built-in images; of the logits what tells images apart. Whether
alpha is divided by 5 matters little, k much. What no row says, since all networks here share it:
crops are shifts of up to 29 or 32 pixels, where torchvision's are of random size, and the mean is
an image, where others have a colour. Networks of other programs: `tinyalex summary --namesakes`."""

SIGNAL = """\
Of what a layer computes, before its activation function, this is what tells images apart; the rest,
biases and what becomes of them, is the same for each. At 1 % in the logits, `paper` answers every
image alike and its loss stays at ln(classes). Measured on the built-in images, which are as good as
photos here: on 48 of those alexnet's logits have .051, and paper's .0035."""


def _words(first: str, end: str | None) -> Callable[[Architecture], str]:
    """The kinds of the rows from the row `first` up to, not including, `end`."""

    def kinds(architecture: Architecture) -> str:
        names = [row.name for row in architecture.rows]
        rows = architecture.rows[names.index(first) : names.index(end) if end else None]
        return ", ".join(WORDS.get(type(row), row.kind) for row in rows)

    return kinds


WORDS: dict[type[Row], str] = {
    Conv2d: "conv", ReLU: "ReLU", LRN: "norm", LRNMap: "norm in the map", MaxPool: "pool",
    Dropout: "dropout",
}  # fmt: skip


def _input(architecture: Architecture) -> str:
    first, size = layers(architecture.rows)[1], architecture.data.size
    window, stride, pad = first.row.window
    beyond = (first.output[0] - 1) * stride + window - size - 2 * pad
    zeros = f", {pad} zeros around" if pad else ""
    return f"{size}{zeros}" + (f", {beyond} zeros right and below" if beyond > 0 else "")


def _norm(architecture: Architecture) -> str:
    row = next((row for row in architecture.rows if isinstance(row, LRN)), None)
    if row is None:
        return "none"
    across = "the tower's" if row.groups > 1 else "all"
    return f"k {row.k:g}, alpha {row.alpha:g}, {across} channels"


def _dropout(architecture: Architecture) -> str:
    drops = [row for row in architecture.rows if isinstance(row, Dropout)]
    if not drops:
        return "none"
    scaled = "inverted, in training"
    if drops[0].scale_at == "test":
        scaled = f"x {1 - drops[0].rate:g} at test"
    names = [row.name for row in architecture.rows]
    where = "before" if names.index(drops[0].name) < names.index("fc6") else "after"
    return f"{scaled}; {where} fc6" + (" and fc7" if len(drops) > 1 else "")


def _colour(architecture: Architecture) -> str:
    data = architecture.data
    if not data.colour:
        return "none"
    scale = f", then / {1 / data.train_scale:g}" if data.train_scale != 1 else ""
    return f"{data.colour:g} of each component's std{scale}"


def _schedule(architecture: Architecture) -> str:
    recipe = architecture.recipe
    every = f", every {recipe.lr_step_size} epochs" if recipe.lr_scheduler == "step" else ""
    return f"{recipe.lr_scheduler}{every}"


def _maps(architecture: Architecture) -> str:
    sizes = {layer.row.name: layer.output[0] for layer in layers(architecture.rows)}
    return "-".join(str(sizes[name]) for name in ("conv1", "pool1", "pool2", "pool5"))


def _start(kinds: Any) -> Callable[[Architecture], str]:
    def spread(architecture: Architecture) -> str:
        stds = [row.init_std for row in architecture.rows if isinstance(row, kinds)]
        if None in stds:
            return UNIFORM
        return " ".join(f"{std:g}" for std in stds)

    return spread


def _biases(architecture: Architecture) -> str:
    rows = [row for row in architecture.rows if isinstance(row, Conv2d | Linear)]
    return UNIFORM if rows[0].init_std is None else " ".join(f"{row.bias:g}" for row in rows)


def _decay(architecture: Architecture) -> str:
    decayed = parameters(architecture.rows)["fc8.bias"].decay is None
    return f"{architecture.recipe.weight_decay:g}" + (", of biases too" if decayed else "")


def _each(kinds: Any, attribute: str, join: str = " ") -> Callable[[Architecture], str]:
    """An attribute of each row of these kinds, row by row; kinds: one class, or several."""

    def values(architecture: Architecture) -> str:
        rows = [row for row in architecture.rows if isinstance(row, kinds)]
        return join.join(f"{getattr(row, attribute):g}" for row in rows)

    return values


ASPECTS = (
    Aspect(
        "input, pixels",
        _input,
        "Paper 2 and its code: 224. The code rounds conv1's output up (layer.py:1004) and so "
        "reads zeros beyond the right and bottom border; the paper's 55 x 55 maps need them, or "
        "227 as in Caffe (train_val.prototxt:12).",
    ),
    Aspect(
        "filters of conv1 to conv5",
        _each(Conv2d, "channels", "-"),
        "Paper 3.5. torchvision has those of 'One weird trick'.",
    ),
    Aspect(
        "groups of conv1 to conv5",
        _each(Conv2d, "groups"),
        "Paper 3.2 and Figure 2: two towers, which meet at conv3. Chainer's alex.py has none.",
    ),
    Aspect(
        "layer 1",
        _words("conv1", "conv2"),
        "Paper 3.3 and 3.5: ReLU, then normalisation. layers-145.cfg:9-63 and "
        "layers-imagenet-1gpu.cfg: ReLU after the pool. bvlc_reference_caffenet's "
        "train_val.prototxt: the pool first.",
    ),
    Aspect(
        "layer 2",
        _words("conv2", "conv3"),
        "layers-145.cfg:95-133 has a second normalisation, 5 x 5 in the same map, that the paper "
        "does not mention.",
    ),
    Aspect(
        "layer 5",
        _words("conv5", "fc6"),
        "layers-145.cfg:220-236. A maximum and ReLU may change places.",
    ),
    Aspect(
        "normalisation",
        _norm,
        "Paper 3.3: k 2, alpha 1e-4 on the plain sum. The code divides alpha by n = 5 "
        "(layer.py:1183), and so does Caffe (lrn_layer.cpp:120), with k 1 (caffe.proto:888) and "
        "without towers.",
    ),
    Aspect(
        "initial std of conv1 to conv5",
        _start(Conv2d),
        "Paper 5: .01 in each layer. layers-145.cfg:135-218: .03 on conv3 to conv5. torchvision "
        "leaves it to PyTorch's layers (nn/modules/conv.py, linear.py, reset_parameters).",
    ),
    Aspect(
        "initial std of fc6 to fc8",
        _start(Linear),
        "Paper 5; Caffe's train_val.prototxt.",
    ),
    Aspect(
        "initial bias of conv1 to fc8",
        _biases,
        "Paper 5: 1 on conv2, conv4, conv5, fc6 and fc7. bvlc_alexnet's readme: with 1 the loss "
        "was flat. layers-imagenet-1gpu.cfg: -7 on the last. PyTorch draws biases as weights.",
    ),
    Aspect(
        "dropout",
        _dropout,
        "Paper 4.2: all outputs times .5 at test. Caffe's dropout_layer.cpp and torchvision divide "
        "by .5 in training; torchvision drops the inputs of the layers.",
    ),
    Aspect(
        "colour noise",
        _colour,
        "Paper 4.1. convdata_jpeg.py:177-179 adds it and divides the sum by 1.1. Caffe and "
        "torchvision have none.",
    ),
    Aspect(
        "pixels times",
        lambda a: f"{a.data.scale:.3g}",
        "torchvision divides by the standard deviation of the colours.",
    ),
    Aspect(
        "rate of biases over weights'",
        lambda a: f"{a.recipe.bias_lr_multiplier:g}",
        "Paper 5: equal. layer-params-145.cfg: epsB .02; epsW .01 in its notes (line 169), and "
        ".00001 in the file, which is the end of the run. Caffe: lr_mult 2 and 1.",
    ),
    Aspect(
        "weight decay",
        _decay,
        "Paper 5; torchvision's references/classification/train.py gives all of the model's "
        "parameters to one SGD, biases with them.",
    ),
    Aspect(
        "batch size",
        lambda a: f"{a.recipe.batch_size}",
        "Paper 5. Caffe's train_val.prototxt; torchvision's 8 x 32.",
    ),
    Aspect(
        "fall of the learning rate",
        _schedule,
        "Paper 5: when the validation error stops falling. By hand, the code's notes: after 25, 51 "
        "and 79 epochs. Caffe's solver.prototxt: every 100,000 steps.",
    ),
    Aspect("maps", _maps, "Behind conv1, pool1, pool2 and pool5. Computed from the rows."),
    Aspect(
        "multiply-adds",
        lambda a: f"{sum(layer.macs for layer in layers(a.rows)):,}",
        "Computed from the rows.",
    ),
    Aspect(
        "parameters",
        lambda a: f"{sum(layer.parameters for layer in layers(a.rows)):,}",
        "Computed from the rows.",
    ),
)
