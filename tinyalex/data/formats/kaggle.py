"""ILSVRC as Kaggle has it: validation images that lie flat, and tables that tell their classes.

    LOC_val_solution.csv                          ILSVRC2012_val_00048981,n03995372 85 1 499 272 ...
    ILSVRC/Annotations/CLS-LOC/val/<image>.xml    <name>n03995372</name>
    LOC_synset_mapping.txt                        n01440764 tench, Tinca tinca
    ILSVRC/Data/CLS-LOC/train/<class>/, val/, test/

The lines of the csv are in no order. The lists in ILSVRC/ImageSets count images, not classes.
"""

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from tinyalex.data.storage import Storage

_CSV, _TITLES, _BOXES = "LOC_val_solution.csv", "LOC_synset_mapping.txt", "Annotations/CLS-LOC/val"
_WNID = r"n\d{8}"


def kaggle_answers(storage: Storage) -> dict[str, str]:
    """The WordNet id of each validation image, by its name without suffix; {} if none tells.

    Looked for in the data set and, for a folder below Kaggle's top, in the folders above.
    """
    for text in _tables(storage, _CSV):
        return dict(re.findall(rf"^([^,\n]+),({_WNID}) ", text, re.MULTILINE))
    boxes = [
        name for name in storage.others if name.endswith(".xml") and f"/{_BOXES}/" in f"/{name}"
    ]
    texts = {PurePosixPath(name).stem: storage.text(name) for name in boxes}
    for above in () if texts else _above(storage):
        texts = {file.stem: file.read_text() for file in (above / _BOXES).glob("*.xml")}
        if texts:
            break
    matches = {stem: re.search(rf"<name>\s*({_WNID})\s*</name>", t) for stem, t in texts.items()}
    return {stem: match[1] for stem, match in matches.items() if match}


def kaggle_titles(storage: Storage) -> dict[str, str]:
    """WordNet id -> the first of its words."""
    for text in _tables(storage, _TITLES):
        return dict(re.findall(rf"^({_WNID}) ([^,\n]+)", text, re.MULTILINE))
    return {}


def _tables(storage: Storage, name: str) -> Iterator[str]:
    if name in storage.others:
        yield storage.text(name)
    for folder in _above(storage):
        if (folder / name).is_file():
            yield (folder / name).read_text(errors="replace")


def _above(storage: Storage) -> list[Path]:
    """The folders above one that is called as Kaggle calls those in its archive."""
    path = storage.path.absolute()
    depth = {"CLS-LOC": 3, "Data": 2, "ILSVRC": 1}.get(path.name, 0)
    return list(path.parents[:depth])
