"""Shapes and costs: what each row makes of its input, its parameters, and what a network costs."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from tinyalex.net.layers import Augment, Parameter, Row
from tinyalex.net.windows import Shape


@dataclass(frozen=True)
class Layer:
    """Shapes and cost of one row, for one image.

    trained: its parameters under their full names, `conv1.weight`. A parameter of more than one
    axis is a matrix of weights, each of which is used once at every place of the output.
    """

    row: Row
    input: Shape
    output: Shape
    trained: Mapping[str, Parameter]

    @property
    def weight(self) -> tuple[int, ...] | None:
        """Shape of the weights, (O, kh, kw, C/groups) or (O, inputs); None if there are none."""
        return next((p.shape for p in self.trained.values() if len(p.shape) > 1), None)

    @property
    def parameters(self) -> int:
        """Number of trained numbers."""
        return sum(math.prod(p.shape) for p in self.trained.values())

    @property
    def macs(self) -> int:
        """Multiply-adds of the forward pass."""
        return math.prod(self.weight) * math.prod(self.output[:2]) if self.weight else 0

    @property
    def neurons(self) -> int:
        """Outputs, counted for layers with weights."""
        return math.prod(self.output) if self.weight else 0


def layers(rows: Sequence[Row]) -> list[Layer]:
    """Each row of a network with its shapes and cost, from the image to the logits.

    Raises ValueError, naming the row, where a row does not fit what is below it.
    """
    return list(_trace(rows))


def _trace(rows: Sequence[Row]) -> Iterator[Layer]:
    if not rows or not isinstance(rows[0], Augment):
        raise ValueError("the first row of a network is Augment")
    names = [row.name for row in rows]
    if len(set(names)) < len(names):
        raise ValueError(f"two rows are called {max(names, key=names.count)}")
    shape: Shape = (rows[0].size, rows[0].size, 3)
    for row in rows:
        try:
            output = row.output(shape)
        except ValueError as error:
            raise ValueError(f"{row.name}: {error}") from None
        own = {f"{row.name}.{name}": p for name, p in row.parameters(shape).items()}
        yield Layer(row, shape, output, own)
        shape = output


def parameters(rows: Sequence[Row]) -> dict[str, Parameter]:
    """Every parameter of a network under its full name, in the order of the rows."""
    return {name: p for layer in layers(rows) for name, p in layer.trained.items()}


def parameter_shapes(rows: Sequence[Row]) -> dict[str, tuple[int, ...]]:
    """The shape of every parameter, under its full name."""
    return {name: p.shape for name, p in parameters(rows).items()}
