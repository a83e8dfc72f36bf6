"""Pack a data set for speed: `tinyalex.data.formats.packed` says what it becomes, and opens it.

Whatever ends the work, a full disk or kill -9, the same command goes on from there and comes to the
same bytes.
"""

import io
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from tinyalex.data.batches import MEAN_IMAGES, mean_and_colour
from tinyalex.data.decode import RULE, Decoder
from tinyalex.data.formats.packed import PACK, UNFINISHED, digest, sealed
from tinyalex.data.layout import Files, Groups, Layout, count_of, listed, names_in
from tinyalex.data.mounts import open_storage
from tinyalex.data.opening import check_trainable, recognise
from tinyalex.data.packing.writing import Writer, busy
from tinyalex.data.pixel_file import Decoded, PixelFile
from tinyalex.data.unreadable import note_on
from tinyalex.errors import DataError, UsageError, WriteError, printable
from tinyalex.system.files import remedy, write_whole

SIZE = 256  # Krizhevsky's


def pack(
    path: Path,
    target: Path,
    size: int = SIZE,
    *,
    workers: int,
    max_pixels: int | None = None,
    on_bad_image: str = "error",
    classes_at: int | None = None,
    say: Callable[[str], None] = tqdm.write,
) -> bool:
    """Pack the data set at `path` into the folder `target`, or goes on with what is there.

    Returns False if the pack was finished before.

    size: side of the packed images. max_pixels: larger pictures are bad, and are not decoded.
    on_bad_image: `error` ends the work, `skip` leaves such images out. say: prints a line.
    classes_at: which folder in the path of an image is its class, as in `open_data`.
    Raises DataError for the images, UsageError for a `target` that holds anything else, WriteError
    if it cannot be written. What is done by then is kept.
    """
    if path.is_dir() and path.resolve() in (target.resolve(), *target.resolve().parents):
        raise UsageError(f"{target} lies in the data itself. Choose a folder outside of {path}.")
    storage = open_storage(path)
    notes: list[str] = []
    begun = _begun(target, size)
    rule = RULE if begun is None else begun.get("decoding", 1)  # packs of before do not say theirs
    decoder = Decoder(size, max_pixels, rule, strict=True)
    layout = recognise(storage, decoder, classes_at, notes)
    if not isinstance(layout.source, Files):
        raise UsageError(f"{path} is packed already.")
    check_trainable(storage, layout.train)
    splits = {"train": layout.train} | ({"val": layout.val} if layout.val else {})
    total = " and ".join(f"{count_of(names_in(split))} in {name}" for name, split in splits.items())
    name = printable(path.resolve().name)
    say(f"{name}: {total}, {len(layout.train)} classes, to {size} x {size} pixels")
    try:
        if (target / PACK).exists():
            say(f"{printable(str(target))} is a finished pack already.")
            return False
        if begun is None:
            target.mkdir(parents=True, exist_ok=True)
            begin = {"size": size, "decoding": rule}
            try:
                write_whole(target / UNFINISHED, json.dumps(sealed(begin)).encode())
            except (FileExistsError, FileNotFoundError):  # of a file that was looked at just now
                raise busy(target) from None
        _check_space(target, splits, size)
        sha256: dict[str, str] = {}
        for name, split in splits.items():
            with Writer(target, name, split, layout.source, size) as writer:
                writer.write_images(workers, skip=on_bad_image == "skip")
            sha256[f"{name}.rgb"] = writer.sha256.hexdigest()
            if name == "train" and (empty := layout.train.keys() - writer.written):
                raise DataError(
                    f"No training image of {listed(sorted(empty))} can be decoded. Mend some, or "
                    f"remove the folders of these classes and also {target}."
                )
            if writer.left_out:
                notes.append(note_on(writer.left_out))
        _statistics(target, size, workers)
        _finish(target, layout, decoder, list(splits), sha256, notes)
    except OSError as cause:
        raise WriteError(
            f"Cannot write the pack {target}: {cause.strerror}. {remedy(cause)} What is done is "
            "kept: the same command goes on from there."
        ) from cause
    for note in notes:
        say(f"note: {note}")
    return True


def _begun(target: Path, size: int) -> dict[str, Any] | None:
    """Manifest of a finished or unfinished pack at `target`; None if nothing is there.

    Raises UsageError for a pack of another size, and for a folder that holds other things.
    """
    there = set(os.listdir(target)) if target.is_dir() else set()
    marker = PACK if PACK in there else UNFINISHED
    if marker in there:
        try:
            manifest: dict[str, Any] = json.loads((target / marker).read_bytes())["manifest"]
            begun = manifest["size"]
        except (LookupError, TypeError, ValueError):
            manifest, begun = {}, "that cannot be read"
        if begun != size:
            raise UsageError(
                f"{target} holds a pack of --size {begun}, not {size}. Give that size, or choose "
                "another folder."
            )
        return manifest
    if there - {f"{UNFINISHED}.partial"}:
        raise UsageError(
            f"{target} holds other files: {listed(sorted(there))}. Choose a folder that is empty "
            "or does not exist."
        )
    return None


def _check_space(target: Path, splits: dict[str, Groups], size: int) -> None:
    there = sum(file.stat().st_size for file in target.glob("*.rgb"))
    images = sum(len(names_in(split)) for split in splits.values())
    needed = images * size * size * 3 - there
    free = shutil.disk_usage(target).free
    if needed > free:
        raise WriteError(
            f"The pack needs {needed:,} bytes more in {target}, and {free:,} are free there. "
            "Choose a folder on a larger disk, or a smaller --size."
        )


def _statistics(target: Path, size: int, workers: int) -> None:
    """mean.npy and colour.npy of the packed training images."""
    file = target / "train.rgb"
    count = file.stat().st_size // (size * size * 3)
    pixels, rows = PixelFile(file, size), np.arange(count)
    images = Decoded(np.zeros(count, np.int32), [""] * count, pixels, rows)
    used = min(count, MEAN_IMAGES)
    with tqdm(desc="mean image", total=used, unit=" images", leave=False, disable=None) as bar:
        mean, colour = mean_and_colour(images, size, seed=0, workers=workers, progress=bar.update)
    for name, array in (("mean.npy", mean), ("colour.npy", colour)):
        numbers = io.BytesIO()
        np.save(numbers, array)
        write_whole(target / name, numbers.getvalue())


def _finish(
    target: Path,
    layout: Layout,
    decoder: Decoder,
    splits: list[str],
    sha256: dict[str, str],
    notes: list[str],
) -> None:
    """Write pack.json, which makes the files a pack. sha256: of the files where it is known."""
    names = [f"{split}.{kind}" for split in splits for kind in ("rgb", "jsonl")]
    manifest = {
        "size": decoder.size,
        "decoding": decoder.rule,
        "splits": splits,
        "classes": list(layout.train),
        "titles": layout.titles,
        "notes": notes,
        "files": {
            name: {
                "bytes": (target / name).stat().st_size,
                "sha256": sha256.get(name) or digest(target / name),
            }
            for name in (*names, "mean.npy", "colour.npy")
        },
    }
    write_whole(target / PACK, json.dumps(sealed(manifest), indent=1).encode())
    (target / UNFINISHED).unlink()
