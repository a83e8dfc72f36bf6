"""WebDataset: shards of samples, whose files have one name and a suffix for each field.

    imagenet1k-train-0000.tar: 000000.jpg 000000.cls 000000.json, 000001.jpg ...

In .tar files of a folder, in one .tar, or unpacked. The key of a sample ends at the first dot of
the file name, and case does not matter in the suffix. `.cls` is the class, as a name or a number.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from tqdm import tqdm

from tinyalex.data.decode import SUFFIXES, Decoder
from tinyalex.data.formats.flat import by_label, wordnet_id
from tinyalex.data.layout import Files, Layout, count_of
from tinyalex.data.splits import split_of_path
from tinyalex.data.storage import Storage
from tinyalex.errors import DataError

_SUFFIXES = frozenset(suffix[1:] for suffix in SUFFIXES)


@dataclass
class _Sample:
    """The files of a sample: its picture, its class, and what tells of it."""

    image: str = ""
    cls: str = ""
    json: str = ""


def webdataset(storage: Storage, decoder: Decoder, notes: list[str]) -> Layout | None:
    """The samples with a picture and a class, or None if no picture has a class beside it.

    Classes that are numbers get the WordNet ids that the keys or the .json of all samples of a
    number agree on. Raises DataError for a shard in which a name stands twice.
    """
    if not any(name[-4:].lower() == ".cls" for name in storage.others):
        return None
    samples = list(_samples(storage))
    labelled = [sample for sample in samples if sample.image and sample.cls]
    if not labelled:
        return None
    if storage.repeated:
        raise DataError(
            f"{storage.path} has several files of one name in a shard, such as "
            f"{min(storage.repeated)}: which class belongs to which picture is unknown. Write the "
            "shards again with a key of its own for each sample."
        )
    if bare := [sample.image for sample in samples if sample.image and not sample.cls]:
        notes.append(f"Left out, because they have no .cls: {count_of(bare)}.")
    bar = tqdm(labelled, "classes of the shards", leave=False, disable=None)
    train, val, _ = by_label(
        (
            split_of_path(sample.image.rpartition("/")[0]) or "train",
            storage.text(sample.cls).strip(),
            sample.image,
            wordnet_id(sample.image) or _in_json(storage, sample.json),
        )
        for sample in bar
    )
    return Layout("WebDataset", train, val, {}, Files.of(storage, decoder))


def _samples(storage: Storage) -> Iterator[_Sample]:
    """The files that have a key in common, in the order of the keys."""
    samples: dict[str, _Sample] = defaultdict(_Sample)
    for name in storage.files:
        folder, slash, base = name.rpartition("/")
        key, _, suffix = base.partition(".")
        suffix = suffix.lower()
        if suffix in _SUFFIXES:
            samples[folder + slash + key].image = name
        elif suffix == "cls":
            samples[folder + slash + key].cls = name
        elif suffix == "json":
            samples[folder + slash + key].json = name
    yield from samples.values()


def _in_json(storage: Storage, name: str) -> str | None:
    """The only WordNet id in the .json of a sample, such as in the path of the original file."""
    return wordnet_id(storage.text(name), anywhere=True) if name else None
