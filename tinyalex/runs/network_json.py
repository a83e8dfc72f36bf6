"""A network of one's own as JSON: what a checkpoint keeps where no preset has its name."""

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

from tinyalex.errors import UsageError
from tinyalex.net.layers import KINDS, Row
from tinyalex.net.presets import Architecture, Recipe, get_architecture
from tinyalex.net.shapes import layers

ROWS = 1000
NUMBERS = 2**26  # of a layer's output for one image; alexnet's largest has 290,400


class UnknownKindError(ValueError):
    """A kind of layer that is not in KINDS."""


def is_preset(architecture: Architecture) -> bool:
    """True if the name alone says what the network is, whatever its number of classes."""
    try:
        preset = get_architecture(architecture.name)
    except UsageError:
        return False
    return preset.with_classes(architecture.classes).rows == architecture.rows


def as_json(architecture: Architecture) -> dict[str, Any]:
    """The network as `from_json` reads it."""
    return {
        "source": architecture.source,
        "rows": [{"kind": row.kind, **asdict(row)} for row in architecture.rows],
        "recipe": asdict(architecture.recipe),
    }


def from_json(name: str, values: Mapping[str, Any]) -> Architecture:
    """The network of that name. Raises ValueError or another error if the values make none.

    They may come from anybody: each must be of its field's type, and no layer may be huge.
    """
    if not name.isprintable():
        raise ValueError("its network's name has control characters")
    rows = [_row(dict(row)) for row in values["rows"][: ROWS + 1]]
    recipe = _checked(Recipe, {"warmup_epochs": 0, **values["recipe"]})
    architecture = Architecture(name, str(values["source"]), tuple(rows), recipe)
    architecture.check()
    if len(rows) > ROWS or any(math.prod(layer.output) > NUMBERS for layer in layers(rows)):
        raise ValueError("its network is too large")
    return architecture


def _row(values: dict[str, Any]) -> Row:
    kind = values.pop("kind")
    if kind not in KINDS:
        raise UnknownKindError(f"a layer of kind {str(kind)[:40]!r}")
    if not re.fullmatch(r"[\w-]{1,40}", values["name"]):
        raise ValueError(f"it has a layer with the name {str(values['name'])[:40]!r}")
    row: Row = _checked(KINDS[kind], values)
    return row


def _checked(dataclass: Any, values: Mapping[str, Any]) -> Any:
    hints = get_type_hints(dataclass)
    for field in fields(dataclass):
        if not _fits(values[field.name], hints[field.name]):
            raise ValueError(f"its {field.name} is {str(values[field.name])[:40]!r}")
    return dataclass(**values)


def _fits(value: Any, hint: Any) -> bool:
    if get_origin(hint) is Literal:
        return value in get_args(hint)
    kinds = get_args(hint) or (hint,)
    if float in kinds and type(value) in (int, float):
        return math.isfinite(value)
    return type(value) in kinds and not (type(value) is int and not 0 <= value < 2**31)
