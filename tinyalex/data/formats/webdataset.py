"""WebDataset: shards of samples, whose files have one name and a suffix for each field.

    imagenet1k-train-0000.tar: 000000.jpg 000000.cls 000000.json, 000001.jpg ...

In .tar files of a folder, in one .tar, or unpacked. The key of a sample ends at the first dot of
the file name, and case does not matter in the suffix. `.cls` is the class, as a name or a number.
"""

from collections import defaultdict
from collections.abc import Iterator

from tqdm import tqdm

from tinyalex.data.decode import SUFFIXES, Decoder
from tinyalex.data.formats.flat import by_label, wordnet_id
from tinyalex.data.layout import Files, Layout, count_of
from tinyalex.data.splits import split_of_path
from tinyalex.data.storage import Storage
from tinyalex.errors import DataError

_SUFFIXES = frozenset(suffix[1:] for suffix in SUFFIXES)


def webdataset(storage: Storage, decoder: Decoder, notes: list[str]) -> Layout | None:
    """The samples with a picture and a class, or None if no picture has a class beside it.

    Classes that are numbers get the WordNet ids that the keys or the .json of all samples of a
    number agree on. Raises DataError for a shard in which a name stands twice.
    """
    if not any(name[-4:].lower() == ".cls" for name in storage.others):
        return None
    kinds = ("jpg", "cls", "json")
    samples: dict[str, list[str]] = defaultdict(lambda: [""] * len(kinds))  # by key
    for name in storage.files:
        folder, slash, base = name.rpartition("/")
        key, _, suffix = base.partition(".")
        kind = "jpg" if suffix.lower() in _SUFFIXES else suffix.lower()
        if kind in kinds:
            samples[folder + slash + key][kinds.index(kind)] = name
    labelled = [sample for sample in samples.values() if all(sample[:2])]
    if not labelled:
        return None
    if storage.repeated:
        raise DataError(
            f"{storage.path} has several files of one name in a shard, such as "
            f"{min(storage.repeated)}: which class belongs to which picture is unknown. Write the "
            "shards again with a key of its own for each sample."
        )
    if bare := [image for image, cls, _ in samples.values() if image and not cls]:
        notes.append(f"Left out, because they have no .cls: {count_of(bare)}.")

    def rows() -> Iterator[tuple[str, str, str, str | None]]:
        bar = tqdm(labelled, "classes of the shards", leave=False, disable=None)
        for image, cls, json in bar:
            wnid = wordnet_id(image)
            if wnid is None and json:  # such as in the path of the original file
                wnid = wordnet_id(storage.text(json), anywhere=True)
            split = split_of_path(image.rpartition("/")[0]) or "train"
            yield split, storage.text(cls).strip(), image, wnid

    train, val, _ = by_label(rows())
    return Layout("WebDataset", train, val, {}, Files.of(storage, decoder))
