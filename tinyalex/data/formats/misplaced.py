"""Explains why a folder is no data set: its parent is, or one inside of it, or nothing is there.

Every command that is named works on the data as they lie.
"""

from pathlib import PurePosixPath

from tinyalex.data.formats.elsewhere import refuse_foreign
from tinyalex.data.formats.ilsvrc import VALIDATION_IMAGE
from tinyalex.data.formats.tree import Tree, suffixes
from tinyalex.data.layout import Groups, count_of, listed
from tinyalex.data.splits import split_in
from tinyalex.data.storage import Directory, Storage
from tinyalex.errors import DataError


def check_whole_sets(storage: Storage, tree: Tree) -> None:
    """Raise DataError if the folders at the top are data sets of their own."""
    whole = [folder for folder in tree.below.get("", ()) if _is_data_set(tree, folder)]
    if whole:
        raise DataError(
            f"{storage.path} holds whole data sets, each in its own folder: {listed(whole)}. Give "
            + (
                f"one of them. Did you mean {storage.path / whole[0]}?"
                if isinstance(storage, Directory)
                else "an archive of one of them, or unpack this one and give the folder."
            )
        )


def _is_data_set(tree: Tree, folder: str) -> bool:
    cifar = {f"{folder}/data_batch_1.bin", f"{folder}/data_batch_1"}
    parts = [b for b in tree.below.get(folder, ()) if split_in(b.rpartition("/")[2]) == "train"]
    return bool(cifar & {*tree.others.get(folder, ())}) or any(map(tree.fork, parts))


def check_one_class(storage: Storage, tree: Tree, train: Groups, root: str) -> None:
    """Raise DataError if one class alone has images and may be the folder of all the classes."""
    filled = [label for label, images in train.items() if images]
    if len(filled) != 1:
        return
    (only,) = filled
    fork = tree.fork(f"{root}/{only}" if root else only)
    if fork:
        others = [name.rpartition("/")[2] for name in tree.below[root]]
        beside = f" of {listed(others)}" if len(others) > 1 else ""
        where = storage.path / fork[0].rpartition("/")[0]
        better = f" Did you mean {where}?" if isinstance(storage, Directory) else ""
        raise DataError(
            f"{storage.path} has one class, {only!r}, with images{beside}, and at least two are "
            f"needed. If the folders in it are the classes, such as "
            f"{PurePosixPath(fork[0]).name}, add --classes-at {fork[0].count('/') + 1}.{better}"
        )


def refuse_no_classes(storage: Storage, tree: Tree, beside: list[str], root: str) -> None:
    """Raise DataError for a data set in which no image lies in the folder of a class."""
    path = storage.path
    if beside:
        above = path.absolute().parent
        official = VALIDATION_IMAGE.fullmatch(PurePosixPath(beside[0]).name) is not None
        sisters = isinstance(storage, Directory) and not split_in(path.name) and not root
        right = official or (sisters and sum(file.is_dir() for file in above.iterdir()) > 1)
        better = f" Did you mean {above}?" if right else ""
        if root and sum(map(tree.holds_images, tree.below[""])) > 1:
            better = f" Or is {root!r} a class? Then add --classes-at 1."
        raise DataError(
            f"{path / root} holds {count_of(beside)} in no class folder, so that the classes are "
            "unknown. Give the folder that holds one folder of images per class, or move each "
            f"image into a folder named as its class.{better}"
        )
    refuse_foreign(storage)
    kinds = suffixes(list(storage.files)) or "no"
    unpack = ""
    if any(name.endswith((".tar", ".zip", ".gz", ".tgz")) for name in storage.files):
        unpack = (
            " If an archive holds all of it, give that; else unpack each into the folder of its "
            "class, or all into one folder if they are parts of one data set."
        )
    raise DataError(
        f"{path} holds no images (.jpg, .png and the like) but {kinds} files.{unpack} "
        "Give a folder or an archive with one folder of images per class."
    )
