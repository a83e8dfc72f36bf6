"""Parts of a data set, known by the words in the names of folders and files."""

import re
from typing import Literal

Kind = Literal["train", "val", "test"]

# Folders that have just such a name; of several the first is taken.
NAMES: dict[Kind, tuple[str, ...]] = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
_KIND: dict[str, Kind] = {word: kind for kind, words in NAMES.items() for word in words}


def split_named(name: str) -> Kind | None:
    """The split that is exactly called so, whatever the case."""
    return _KIND.get(name.casefold())


def split_in(name: str) -> Kind | None:
    """The split that a word in `name` tells of, as in ILSVRC2012_img_train, train.X1, valData.

    None for a name without such a word, or with words of two splits.
    """
    words = re.findall(r"[A-Z]?[a-z]+|[A-Z]+", name)
    kinds = {_KIND[word.lower()] for word in words if word.lower() in _KIND}
    return kinds.pop() if len(kinds) == 1 else None


def split_of_path(path: str) -> Kind | None:
    """Split of the last part of a path that has such a word: default/train/0000.parquet."""
    return next(filter(None, map(split_in, reversed(path.split("/")))), None)
