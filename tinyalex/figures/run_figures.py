"""Pictures of a run: its curves, its first filters and its predictions.

Places and lengths are in pixels, from the top left corner. See `tinyalex.figures.canvas`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tinyalex.data.dataset import Pixels
from tinyalex.figures.canvas import (
    BAR,
    BLUE,
    FOOTER,
    HEADER,
    MARGIN,
    MIST,
    OCHRE,
    PALE,
    RIGHT,
    RULE,
    SUBTITLE,
    TRUE_BAR,
    WRONG,
    add_axes,
    add_legend,
    dress,
    new_figure,
    paste,
    shortened,
    write,
    write_beside,
)
from tinyalex.system.arrays import Array

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Record = Mapping[str, Any]

GAP = 4  # between kernels
END: dict[str, Any] = {"markevery": [-1], "markersize": 5, "clip_on": False}  # a dot ends a line


def curves(
    records: Sequence[Record], title: str, subtitle: str = "", narrow: bool = False
) -> Figure:
    """Loss and error over the epochs: training dashed, validation solid.

    records: the parsed lines of metrics.jsonl. In those of epochs, `epoch` counts finished epochs,
    `lr` is the rate that the epoch ran with, errors are fractions, and `val_` keys may be absent.
    A top-5 error that is 0 throughout, as that of five classes or fewer, is not drawn. narrow: one
    below the other, for a small screen.
    """
    steps, epochs = latest(records, "step"), latest(records, "epoch")
    x = _in_epochs([record["step"] for record in steps], epochs)
    left = epochs[0]["epoch"] - 1 if epochs else 0
    right = max([left + 1, *x[-1:], *(record["epoch"] for record in epochs)])

    top = 72 + (HEADER - 16 if title else 0) + (SUBTITLE if subtitle else 0)
    size, across, places = (
        ((560, top + 1060), 350, ((70, top), (70, top + 500)))
        if narrow
        else ((1400, top + 514), 500, ((96, top), (744, top)))
    )
    figure = new_figure(*size, title, subtitle)
    loss, error = (add_axes(figure, *place, across, 370) for place in places)
    if steps:
        y = [record["loss"] for record in steps]
        loss.plot(x, y, ".-", color=MIST, linewidth=0.8, label="training, by step", **END)
    last = _plot(loss, epochs, "loss", 1, BLUE)
    top1 = _plot(error, epochs, "top1_error", 100, BLUE)
    told = any(record[key] for record in epochs for key in record if "top5" in key)
    top5 = _plot(error, epochs, "top5_error", 100, OCHRE) if told else math.nan
    for axes, name in ((loss, "Loss"), (error, "Error, percent")):
        axes.set_xlim(left, right)
        axes.set_ylim(bottom=0)
        dress(axes, name, "epoch" if epochs else "step")
        _mark_rates(axes, epochs, room=(right - left) / 8)
    _label_ends(loss, {BLUE: (last, f"{last:#.3g}")})
    _label_ends(
        error, {OCHRE: (top5, f"top-5  {top5:.1f} %"), BLUE: (top1, f"top-1  {top1:.1f} %")}
    )
    if not epochs:
        error.set_axis_off()
        left, top = places[1]
        write(
            figure,
            left,
            top + 185,
            "Errors follow when the first epoch is finished.",
            9,
            color=PALE,
        )
    add_legend(figure, loss, columns=1 if narrow else 3, length=3)
    return figure


def filters(
    weight: Array, towers: int, title: str, subtitle: str = "", labels: Sequence[str] = ()
) -> Figure:
    """The first layer's kernels as in the paper's Figure 3, one tower above the other.

    weight: (O, kh, kw, 3). Every kernel is scaled by its own largest weight, so that weak kernels
    show their shape too; zero is the same grey in all of them. labels: none, or what to write above
    each tower.
    """
    count, kh, kw, _ = weight.shape
    per_tower = math.ceil(count / towers)
    columns = min(per_tower, 16 if count > 32 else 8)  # 96 kernels: 6 rows of 16, as in the paper
    rows = math.ceil(per_tower / columns)
    zoom = max(1, (1056 if count > 32 else 720) // (columns * kw))
    tower_gap = 56 if labels else 16
    across, down = kw * zoom + GAP, kh * zoom + GAP
    tower_height = rows * down + tower_gap

    top = HEADER + (SUBTITLE if subtitle else 0) + (36 if labels else 0)
    width = max(columns * across - GAP + 2 * MARGIN, 900)
    height = top + towers * tower_height - GAP - tower_gap + FOOTER
    kernels = f"{count} kernels of {kh} x {kw} x 3" + (f" in {towers} towers" if towers > 1 else "")
    note = f"{kernels}; every kernel is scaled by its largest weight, and grey is zero."
    figure = new_figure(width, height, title, subtitle, note)
    for tower in range(towers):
        y, first = top + tower * tower_height, tower * per_tower
        sheet = kernel_sheet(weight[first : first + per_tower], columns, zoom)
        paste(figure, MARGIN, y, sheet)
        if labels:
            write(figure, MARGIN, y - 12, labels[tower], 10)
    return figure


def kernel_sheet(weight: Array, columns: int, zoom: int) -> Pixels:
    """Kernels (O, kh, kw, 3) in rows on white, each scaled by its largest weight: uint8 (h, w, 3).

    zoom: the side of the square that a weight becomes.
    """
    count, kh, kw, _ = weight.shape
    largest = np.abs(weight).max(axis=(1, 2, 3), keepdims=True)
    relative = weight / np.where(largest > 0, largest, 1)  # -1 to 1
    pixels = np.rint(127.5 + 127.5 * relative).astype(np.uint8).repeat(zoom, 1).repeat(zoom, 2)
    down, across = kh * zoom + GAP, kw * zoom + GAP
    sheet = np.full((math.ceil(count / columns) * down, columns * across, 3), 255, np.uint8)
    for i, kernel in enumerate(pixels):
        row, column = divmod(i, columns)
        y, x = row * down, column * across
        sheet[y : y + kh * zoom, x : x + kw * zoom] = kernel
    return sheet[:-GAP, :-GAP]


def predictions(
    images: Pixels,
    probs: Array,
    labels: Array,
    titles: Sequence[str],
    title: str,
    subtitle: str = "",
) -> Figure:
    """Up to eight images and their five most probable classes, as in the paper's Figure 4.

    images: uint8 (n, S, S, 3). probs: (n, classes). labels: int (n,), the true classes.
    titles: the names of the classes.
    """
    from matplotlib.patches import Rectangle

    side, gap, bar, name_height = 300, 32, 28, 46
    images, bars = images[:8], min(probs.shape[1], 5)
    cell = side + name_height + bars * bar + gap
    columns = max(2, min(4, len(images)))  # never too narrow for the title
    width = columns * (side + gap) - gap + 2 * MARGIN
    top = HEADER + (SUBTITLE if subtitle else 0)
    height = top + math.ceil(len(images) / columns) * cell - gap + FOOTER
    note = f"The most probable classes; {RIGHT} and green: the true one."
    figure = new_figure(width, height, title, subtitle, note)
    for i, image in enumerate(images):
        row, column = divmod(i, columns)
        x, y = MARGIN + column * (side + gap), top + row * cell
        picture = add_axes(figure, x, y, side, side)
        picture.imshow(image)
        picture.set_axis_off()
        write(figure, x, y + side + 28, shortened(titles[labels[i]], 11, side - 110), 11)
        if probs[i].argmax() != labels[i]:
            style = {"color": OCHRE, "ha": "right"}
            write(figure, x + side, y + side + 28, f"{WRONG} mistake", 9, **style)
        y += side + name_height
        for c in np.argsort(-probs[i], kind="stable")[:bars]:
            true = c == labels[i]
            color = TRUE_BAR if true else BAR
            corner, length = (x / width, 1 - (y + bar - 4) / height), probs[i, c] * side / width
            figure.add_artist(Rectangle(corner, length, (bar - 4) / height, color=color, lw=0))
            name = f"{RIGHT} {titles[c]}" if true else titles[c]
            write(figure, x + 8, y + 17, shortened(name, 8.5, side - 80), 8.5)
            write(figure, x + side, y + 17, f"{100 * probs[i, c]:.1f} %", 8.5, ha="right")
            y += bar
    return figure


def latest(records: Sequence[Record], event: str) -> list[Record]:
    """The records of one event, in order of steps.

    A run resumed from a checkpoint repeats the steps after it; the later record counts.
    """
    kept: list[Record] = []
    for record in records:
        if record["event"] == event:
            while kept and kept[-1]["step"] >= record["step"]:
                kept.pop()
            kept.append(record)
    return kept


def _in_epochs(steps: Sequence[int], epochs: Sequence[Record]) -> list[float]:
    """Place steps on an axis of epochs; on one of steps while no epoch is finished."""
    if not epochs:
        return [float(step) for step in steps]
    first, last = epochs[0], epochs[-1]
    # Epochs before the first record and the one after the last are taken to be of average length.
    numbers = [first["epoch"] - 1, *(e["epoch"] for e in epochs), last["epoch"] + 1]
    start, end = (e["step"] / e["epoch"] * n for e, n in ((first, numbers[0]), (last, numbers[-1])))
    return [float(x) for x in np.interp(steps, [start, *(e["step"] for e in epochs), end], numbers)]


def _plot(axes: Axes, epochs: Sequence[Record], key: str, scale: float, color: str) -> float:
    """Draws training and validation; returns the last value of validation, or else of training."""
    last = math.nan
    for name, prefix, style, face in (
        ("training, by epoch", "", "o--", "white"),
        ("validation", "val_", "o-", color),
    ):
        known = [record for record in epochs if prefix + key in record]
        if known:
            x, y = [r["epoch"] for r in known], [scale * r[prefix + key] for r in known]
            axes.plot(x, y, style, color=color, markerfacecolor=face, label=name, **END)
            last = y[-1]
    return last


def _mark_rates(axes: Axes, epochs: Sequence[Record], room: float) -> None:
    """A line wherever the learning rate changed, labelled where the last label is `room` away."""
    place, labelled = axes.get_xaxis_transform(), -math.inf
    for before, after in itertools.pairwise(epochs):
        x, lr = before["epoch"], after["lr"]
        if lr != before["lr"]:
            axes.axvline(x, color=RULE, linewidth=1, zorder=0)
            if x >= labelled + room:
                labelled, text = x, f"lr {lr:.3g}"
                axes.text(x, 1.02, text, transform=place, ha="center", fontsize=8, color=PALE)


def _label_ends(axes: Axes, labels: Mapping[str, tuple[float, str]]) -> None:
    """Write, in each colour, a text to the right of the axes at the height of a value."""
    bottom, top = axes.get_ylim()
    y = -math.inf
    for color, (value, text) in sorted(labels.items(), key=lambda label: label[1][0]):
        if math.isfinite(value):
            y = max(value, y + 0.06 * (top - bottom))  # neighbours make room
            write_beside(axes, 1.03, y, text, color)
