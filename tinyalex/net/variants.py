"""Changes to a network, for the paper's experiments: `--arch mini+tanh`, `--arch alexnet+no-lrn`.

Each is a function from rows to rows; several may follow each other.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tinyalex.errors import UsageError, nearest
from tinyalex.net.layers import (
    LRN,
    Augment,
    AvgPool,
    Conv2d,
    Dropout,
    Linear,
    LRNMap,
    MaxPool,
    ReLU,
    Row,
    Tanh,
)

Rows = tuple[Row, ...]


@dataclass(frozen=True)
class Change:
    """A change to rows. help: what it does, to be read after the network's name."""

    help: str
    apply: Callable[[Rows], Rows]


def changed(rows: Rows, name: str) -> tuple[Rows, str]:
    """The rows with the change `name`, and its help. Raises UsageError with the nearest name."""
    if name.startswith("without-"):
        return without(rows, name.removeprefix("without-")), f"without {name.split('-', 1)[1]}"
    if name not in CHANGES:
        known = (*CHANGES, "without-<convolution>")
        raise UsageError(
            f"There is no change {name!r} to a network.{nearest(name, known)} "
            f"Known: {', '.join(known)}."
        )
    return CHANGES[name].apply(rows), CHANGES[name].help


def without(rows: Rows, name: str) -> Rows:
    """The rows without a convolution above the first, and without its activation function."""
    names = [row.name for row in rows if isinstance(row, Conv2d)][1:]
    if name not in names:
        raise UsageError(
            f"The network has no convolution {name!r} to leave out. It has {', '.join(names)}."
        )
    at = [row.name for row in rows].index(name)
    end = at + 2 if isinstance(rows[at + 1], ReLU | Tanh) else at + 1
    return rows[:at] + rows[end:]


def each(kind: Any, **values: Any) -> Callable[[Rows], Rows]:
    """The change that gives every row of a kind these values."""

    def apply(rows: Rows) -> Rows:
        return tuple(
            dataclasses.replace(row, **values) if isinstance(row, kind) else row for row in rows
        )

    return apply


def drop(kind: Any) -> Callable[[Rows], Rows]:
    """The change that leaves out every row of a kind."""
    return lambda rows: tuple(row for row in rows if not isinstance(row, kind))


def tanh(rows: Rows) -> Rows:
    """Put tanh where ReLU was."""
    return tuple(
        Tanh(row.name.replace("relu", "tanh")) if isinstance(row, ReLU) else row for row in rows
    )


def plain(rows: Rows) -> Rows:
    """Remove decay and dropout, and take every image as it is, as in Figure 1 of the paper."""
    rows = each(Conv2d | Linear, weight_decay=0.0)(drop(Dropout)(rows))
    return each(Augment, crops=False, flip=False, colour=0.0, train_scale=1.0)(rows)


def half(rows: Rows) -> Rows:
    """One tower: half the kernels of each convolution but the last, as the paper's footnote 1 says.

    There the two-tower network has most of its parameters above the last convolution, so halving
    that too would make the smaller network much smaller (original: layers-145-half.cfg).
    """
    *convs, _ = (row for row in rows if isinstance(row, Conv2d))
    return ungrouped(
        tuple(
            dataclasses.replace(row, channels=row.channels // 2) if row in convs else row
            for row in rows
        )
    )


def ungrouped(rows: Rows) -> Rows:
    """Let every filter see every channel."""
    return each(Conv2d | LRN, groups=1)(rows)


def paper_init(rows: Rows) -> Rows:
    """Section 5 of the paper, literally: std .01; bias 1 on conv2, conv4, conv5 and hidden fc."""
    ones = {"conv2", "conv4", "conv5", "fc6", "fc7"}
    return tuple(
        dataclasses.replace(row, init_std=0.01, bias=float(row.name in ones))
        if isinstance(row, Conv2d | Linear)
        else row
        for row in rows
    )


CHANGES = {
    "tanh": Change("tanh in place of ReLU", tanh),
    "no-lrn": Change("no response normalisation", drop(LRN | LRNMap)),
    "pool-2": Change("pools of 2 with stride 2", each(MaxPool | AvgPool, size=2, stride=2)),
    "no-dropout": Change("no dropout", drop(Dropout)),
    "no-augmentation": Change("the centre crop alone", each(Augment, crops=False, flip=False)),
    "plain": Change("no regularisation of any kind", plain),
    "colour": Change("colour noise of .1", each(Augment, colour=0.1)),
    "no-colour": Change("no colour noise", each(Augment, colour=0.0, train_scale=1.0)),
    "half": Change("one tower of half the kernels", half),
    "ungrouped": Change("no towers", ungrouped),
    "paper-init": Change("the paper's initial values", paper_init),
}
