"""ILSVRC-2010 and -2012 as they are downloaded: tars of images, and a devkit that has the answers.

    ILSVRC2012_img_train.tar         a tar of a thousand tars, n01440764.tar and so on
    ILSVRC2012_img_val.tar           50,000 images that lie flat
    ILSVRC2012_devkit_t12.tar.gz     data/meta.mat: id, WordNet id and words of each class;
                                     data/ILSVRC2012_validation_ground_truth.txt: an id a line

All of them may be unpacked or not. The ids of the answers count classes in the devkit's own order,
which is not that of the WordNet ids: only meta.mat can tell what they mean.
"""

import re
from dataclasses import dataclass

from tinyalex.data.formats.matlab import read_table
from tinyalex.data.storage import Storage
from tinyalex.errors import DataError

VALIDATION_IMAGE = re.compile(r"ILSVRC20\d\d_val_(\d{8})\.JPEG")
DEVKITS = "ILSVRC2012_devkit_t12.tar.gz (of 2010: ILSVRC2010_devkit-1.0.tar.gz)"


@dataclass(frozen=True)
class Devkit:
    """wnid: id -> WordNet id. titles: WordNet id -> the first of its words.

    answers: the id of each validation image, in the order of their numbers.
    """

    wnid: dict[int, str]
    titles: dict[str, str]
    answers: list[int]


def read_devkit(storage: Storage) -> Devkit | None:
    """The devkit in `storage`, or None. Raises DataError for one that cannot be made out."""
    tables = [name for name in storage.others if name.endswith("data/meta.mat")]
    if not tables:
        return None
    table, folder = tables[0], tables[0].removesuffix("meta.mat")
    answers = [
        name
        for name in storage.others
        if name.startswith(folder) and name.endswith("_validation_ground_truth.txt")
    ]
    if not answers:
        raise DataError(
            f"{storage.path / folder} lacks ILSVRC2012_validation_ground_truth.txt. Fetch the "
            f"devkit again: {DEVKITS}."
        )
    try:
        synsets = read_table(storage.read(table), "synsets")
        (id_,) = [field for field in synsets[0] if field.endswith("_ID")]
        return Devkit(
            wnid={int(synset[id_][0]): synset["WNID"] for synset in synsets},
            titles={synset["WNID"]: synset["words"].partition(",")[0] for synset in synsets},
            answers=[int(line) for line in storage.text(answers[0]).split()],
        )
    except (ValueError, LookupError, TypeError, AttributeError) as cause:
        raise DataError(
            f"{storage.path / folder} is not the data of a devkit of ILSVRC ({cause}). Fetch it "
            f"again: {DEVKITS}."
        ) from cause
