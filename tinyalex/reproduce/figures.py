"""Figures of experiments, as the paper draws them: legible in grey, numbers beside the marks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tinyalex.data.dataset import Pixels
from tinyalex.figures.canvas import (
    BLUE,
    MARGIN,
    MIST,
    OCHRE,
    PALE,
    RULE,
    TEXT,
    add_axes,
    add_legend,
    dress,
    new_figure,
    shortened,
    write,
    write_beside,
)
from tinyalex.measure.image_signal import Signal
from tinyalex.reproduce.experiment import Spread
from tinyalex.system.arrays import Array

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Record = Mapping[str, Any]


def race(
    histories: Mapping[str, Sequence[Sequence[Record]]], target: float, title: str, setting: str
) -> Figure:
    """Figure 1: training error over the epochs, the first solid and the second dashed.

    histories: of each unit, of each seed, the records of the epochs. target: the error at which a
    line is drawn.
    """
    note = "Each at the best of the rates tried; the line ends where the target is reached."
    figure = new_figure(1000, 720, title, setting, note)
    axes = add_axes(figure, 96, 160, 800, 440)
    for (unit, runs), style, color in zip(
        histories.items(), ("-", "--"), (BLUE, OCHRE), strict=True
    ):
        for history in runs:
            x = [r["epoch"] for r in history]
            y = [100 * r["top1_error"] for r in history]
            name = unit if history is runs[0] else None  # a line for each seed, one in the legend
            axes.plot(x, y, style, color=color, linewidth=2, label=name)
            axes.plot(x[-1:], y[-1:], "o", color=color, clip_on=False)
    axes.axhline(100 * target, color=PALE, linewidth=1, zorder=0)
    write_beside(axes, 1.01, 100 * target, f"{100 * target:.0f} %", PALE)
    longest = max(r["epoch"] for runs in histories.values() for h in runs for r in h)
    axes.set_xlim(0, longest * 1.02)
    axes.set_ylim(0, 100)
    axes.legend(fontsize=10, labelcolor=TEXT, frameon=False, handlelength=3)
    dress(axes, "Training error, percent", "epoch")
    return figure


def dots(errors: Mapping[str, Spread], title: str, setting: str) -> Figure:
    """One row a network: a dot for each seed, a bar at the mean, the mean in figures.

    errors: fractions, by the network's label; the first is the one that the others differ from.
    """
    step, top = 72, 170
    figure = new_figure(1000, top + step * len(errors) + 60, title, setting)
    axes = add_axes(figure, 330, top, 470, step * len(errors))
    dress(axes, "Validation top-1 error, percent: a dot for each seed, a bar at the mean", "")
    values = [100 * v for spread in errors.values() for v in spread.values]
    room = max(0.3, 0.15 * (max(values) - min(values)))
    axes.set_xlim(min(values) - room, max(values) + room)
    _make_rows(axes, len(errors))
    first, *_ = errors.values()
    axes.axvline(100 * first.mean, color=RULE, linewidth=1, zorder=0)
    for row, (label, spread) in enumerate(errors.items()):
        y = top + step * (row + 0.5) + 5
        write(figure, MARGIN, y, shortened(label, 10, 270), 10)
        x = [100 * v for v in spread.values]
        axes.plot(x, [row] * len(x), "o", color=BLUE, alpha=0.55, markersize=8, mew=0)
        axes.plot([100 * spread.mean] * 2, [row - 0.28, row + 0.28], color=TEXT, linewidth=2)
        write(figure, 830, y, f"{100 * spread.mean:.2f} %", 10)
    return figure


def intervals(
    errors: Mapping[str, Sequence[tuple[float, float, float]]],
    names: Sequence[str],
    title: str,
    setting: str,
) -> Figure:
    """One row a label, in each of the panels `names` a dot on the line of its 95 % interval.

    errors: for each panel the error and both ends of its interval, fractions.
    """
    from matplotlib.ticker import MaxNLocator

    step, top, left, across = 64, 170, 370, 490
    width, height = left + across * len(names) + MARGIN, top + step * len(errors) + 100
    note = "A dot is the error, and the bar its 95 % interval."
    figure = new_figure(width, height, title, setting, note)
    places = [top + step * (row + 0.5) + 5 for row in range(len(errors))]
    for y, label in zip(places, errors, strict=True):
        write(figure, MARGIN, y, shortened(label, 10, 310), 10)
    for panel, name in enumerate(names):
        x = left + panel * across
        axes = add_axes(figure, x, top, 360, step * len(errors))
        dress(axes, name, "")
        axes.xaxis.set_major_locator(MaxNLocator(5))
        _make_rows(axes, len(errors))
        for row, triples in enumerate(errors.values()):
            error, low, high = (100 * value for value in triples[panel])
            axes.plot([low, high], [row, row], "-", color=MIST, linewidth=6)
            axes.plot([error], [row], "o", color=BLUE, markersize=8)
            write(figure, x + 380, places[row], f"{error:.2f} %", 10)
    return figure


def _make_rows(axes: Axes, count: int) -> None:
    """Make 0, 1, ... of the y axis the rows of a table, the first on top."""
    axes.set_ylim(count - 0.5, -0.5)
    axes.grid(visible=False)
    axes.set_yticks([])


SMALLEST = 1e-4  # percent: a share below is drawn there, and so is none
POINTS = 100  # of a line of steps, each the mean of its neighbours


def initial(
    signals: Mapping[str, Mapping[str, Signal]],
    losses: Mapping[str, Sequence[Sequence[Record]]],
    chance: float,
    title: str,
    setting: str,
) -> Figure:
    """Draw what of the images arrives at each layer, and the loss: the first network solid.

    losses: of both networks, of each seed, records with epoch and loss. signals: by network, these
    first, and by layer, before training. chance: the loss of one answer to all images.
    """
    from matplotlib.ticker import NullLocator

    figure = new_figure(1400, 720, title, setting)
    signal, loss = add_axes(figure, 96, 176, 460, 400), add_axes(figure, 744, 176, 440, 400)
    for network, style, color in zip(losses, ("o-", "s--"), (BLUE, OCHRE), strict=True):
        shares = [max(100 * s.share, SMALLEST) for s in signals[network].values()]
        signal.plot(shares, style, color=color, linewidth=2, label=network, clip_on=False)
        text = f"{shares[-1]:.2g} %" if shares[-1] > SMALLEST else "next to none"
        write_beside(signal, 1.05, shares[-1], text, color)
        for history in losses[network]:
            x, y = (_thinned([r[key] for r in history]) for key in ("epoch", "loss"))
            loss.plot(x, y, style, color=color, linewidth=1.5, markersize=4, markevery=[-1])
    loss.axhline(chance, color=PALE, linewidth=1, zorder=0)
    write_beside(loss, 1.03, chance, f"ln(classes) = {chance:.3f}", TEXT)
    loss.set_xlim(left=0)
    loss.set_ylim(bottom=0)
    dress(loss, "Loss while training, each line a seed", "epoch")
    signal.set_yscale("log")
    signal.set_ylim(SMALLEST, 100)
    dress(signal, "Share of the output that tells images apart, percent", "before training")
    layers, *_ = signals.values()
    signal.set_xticks(range(len(layers)), layers)
    signal.yaxis.set_major_formatter("{x:g}")
    signal.yaxis.set_minor_locator(NullLocator())
    add_legend(figure, signal, columns=2, length=4)
    return figure


def _thinned(values: Sequence[float]) -> list[float]:
    """Thin out to at most POINTS values, each the mean of so many neighbours."""
    return [float(part.mean()) for part in np.array_split(values, min(POINTS, len(values)))]


def sharing(
    images: Pixels,
    maps: Mapping[str, Array],
    correlations: Mapping[str, float],
    parameters: Mapping[str, int],
    title: str,
    setting: str,
) -> Figure:
    """An image above its shifted copy, and beside each the map of every kind of layer.

    images: uint8 (2, size, size, 3). maps: by the layer's kind (2, height, width). Grey is zero,
    and the two maps of a layer have one scale. correlations: of the shifted map above with the map
    below. parameters: of the whole layer.
    """
    side, gap, left, top = 250, 28, 150, 150
    bottom = top + 2 * (side + gap)
    panels: dict[str, Array] = {"what is read": images, **maps}
    width = left + len(panels) * (side + gap) - gap + MARGIN
    figure = new_figure(width, bottom + 106, title, setting)
    for row, label in enumerate(("image", "shifted")):
        write(figure, MARGIN, top + row * (side + gap) + side / 2, label, 10)
    for column, (kind, pair) in enumerate(panels.items()):
        x = left + column * (side + gap)
        write(figure, x, top - 16, kind, 10)
        largest = float(abs(pair).max())  # of the images matplotlib takes the colours as they are
        for row, picture in enumerate(pair):
            axes = add_axes(figure, x, top + row * (side + gap), side, side)
            axes.imshow(picture, cmap="gray", vmin=-largest, vmax=largest, interpolation="nearest")
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_color(RULE)
        if kind in correlations:
            write(figure, x, bottom + 6, f"correlation {correlations[kind]:.2f}", 10)
            write(figure, x, bottom + 34, f"{parameters[kind]:,} parameters", 10)
    note = "Correlation of the map above, shifted as the image was, with the map below."
    write(figure, MARGIN, bottom + 80, note, 9, color=PALE)
    return figure
