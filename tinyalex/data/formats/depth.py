"""Question or refusal where images lie in folders inside of the class folders.

Nobody but a person can tell then which of the folders are the classes. What the names give away is
an error; all else is a question, and the outer folders are taken.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence

from tinyalex.data.formats.tree import Tree
from tinyalex.data.layout import listed
from tinyalex.data.splits import split_in
from tinyalex.data.storage import Storage
from tinyalex.errors import DataError

_WNID = re.compile(r"n\d{8}")


def check_depth(
    storage: Storage, tree: Tree, folders: Mapping[str, Sequence[str]], notes: list[str]
) -> None:
    """Add the question to `notes`, or raises DataError; both name the flag that settles it.

    folders: of each class the folders that were taken for it.
    """
    levels = [[folder for own in folders.values() for folder in own]]
    while inner := [below for folder in levels[-1] for below in tree.fork(folder)]:
        levels.append(inner)
    if len(levels) == 1:
        return
    names = [[path.rpartition("/")[2] for path in level] for level in levels]
    choices = ", or ".join(
        f"{listed(sorted(set(name)))} (--classes-at {level[0].count('/') + 1})"
        for name, level in zip(names, levels, strict=True)
    )
    question = (
        f"Images lie in folders inside of folders ({levels[-1][0]}). Are the classes {choices}?"
    )
    outside = [label for label, own in folders.items() if any(map(tree.fork, own))]
    if (
        any(split_in(label) or label.upper().startswith("ILSVRC") for label in outside)
        or (all(map(_WNID.fullmatch, names[-1])) and not any(map(_WNID.fullmatch, outside)))
        or any(_shared(level) for level in names[1:])
    ):
        raise DataError(
            f"{storage.path}: {question} Their names do not speak for the first: add the flag that "
            "is right."
        )
    notes.append(f"{question} The first are taken. The flag ends the question.")


def _shared(names: Sequence[str]) -> bool:
    """True if half of the names or more stand in several places, as classes in domains do."""
    times = Counter(names)
    return 2 * sum(count > 1 for count in times.values()) >= len(times)
