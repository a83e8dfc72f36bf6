"""Reading an .npz file that may come from anybody.

`meta`, a JSON text, is read first and says what else must be in the file, to the byte; only then is
memory taken for it. No code in the file is run: array headers are compared before NumPy reads them.
"""

import json
import math
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from tinyalex.errors import CheckpointError
from tinyalex.net.presets import Architecture, get_architecture
from tinyalex.net.shapes import parameter_shapes
from tinyalex.runs.config import Config, from_mapping
from tinyalex.runs.network_json import UnknownKindError, from_json
from tinyalex.runs.progress import Progress, watched
from tinyalex.system.arrays import Array

FORMAT = 1
META_BYTES = 2**25  # room for 8 million characters; 22,000 classes have some 3 million
DEFLATE = 1032  # bytes that one deflated byte can stand for (https://zlib.net/zlib_tech.html)
NAME = 200  # characters of a network's name: each change to a preset in it takes time
FLOAT = np.dtype(np.float32)


def read(path: Path) -> tuple[dict[str, Any], Progress, Architecture, dict[str, Array]]:
    """`meta`, the progress and the network in it, and its arrays under their names.

    Raises CheckpointError, naming the file, if it is not a sound checkpoint. Whatever it holds, no
    more memory is taken than for the arrays of its network, and for a while some eight times
    META_BYTES, since JSON can pack many small things into little text.
    """
    try:
        raw = open(path, "rb")  # noqa: SIM115, closed below
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}.") from None
    try:
        with raw, zipfile.ZipFile(raw) as file:
            _check_entries(file)
            meta = json.loads(str(_array(file, "meta", ())))
            if meta["format"] != FORMAT:
                raise CheckpointError(
                    f"{path} has checkpoint format {meta['format']!r}; this version of tinyalex "
                    f"reads format {FORMAT}. Use the version that wrote it."
                )
            progress = _checked(meta)
            network = _network(meta)
            arrays = _arrays(file, network, os.fstat(raw.fileno()).st_size)
            return meta, progress, network, arrays
    except CheckpointError:
        raise
    except UnknownKindError as error:
        raise CheckpointError(
            f"{path} holds a network with {error}, which this version of tinyalex does not know. "
            "Use the version that wrote it, or add the layer to tinyalex.net.layers.KINDS first."
        ) from None
    except MemoryError:
        raise CheckpointError(f"There is not enough memory to read {path}.") from None
    except Exception as error:  # bytes from anybody: zipfile and json fail in more ways than told
        reason = "".join(filter(str.isprintable, str(error)))[:300].rstrip(".")
        raise CheckpointError(
            f"{path} is damaged or is no checkpoint of this version of tinyalex ({reason})."
        ) from None


def _check_entries(file: zipfile.ZipFile) -> None:
    """Raise ValueError for a name that comes twice, an unusual packing, or a `meta` too large."""
    names = file.namelist()
    packed = {entry.compress_type for entry in file.infolist()}
    if len(set(names)) < len(names) or packed - {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        raise ValueError("its table of contents is not as NumPy writes it")
    if file.getinfo("meta.npy").file_size > META_BYTES:
        raise ValueError(f"its description takes more than {META_BYTES:,} bytes")


def _checked(meta: dict[str, Any]) -> Progress:
    """The progress in `meta`. Raises ValueError or another error if a value there has no sense."""
    classes, titles = meta["classes"], meta["titles"]
    texts = [*classes, *titles, *meta.get("machine", {}).values()]
    if not (
        isinstance(classes, list)
        and isinstance(titles, list)
        and len(classes) == len(titles)
        and all(isinstance(text, str) for text in texts)
    ):
        raise ValueError("its classes make no sense")
    data = meta.get("data", {})  # {} where it was not recorded yet; else see `data.fingerprint`
    if not isinstance(data, dict) or (data and data.keys() != {"train", "val"}):
        raise ValueError("its data makes no sense")
    for count, digest in (told for split in data.values() for told in split.values()):
        if type(count) is not int or not isinstance(digest, str):
            raise ValueError("its data makes no sense")
    progress = Progress(**meta["progress"])
    sums, history = progress.sums, progress.history
    measured = [value for record in history for value in record.values()]  # a loss may be infinite
    standing = [] if progress.standing is None else [progress.standing]
    if not (
        all(
            type(count) is int and count >= 0
            for count in (progress.epoch, progress.batch, progress.step)
        )
        and all(type(value) in (int, float) for value in [*sums, *standing, *measured])
        and all(math.isfinite(value) for value in [*sums, *standing, *map(watched, history)])
        and all({"epoch", "step", "top1_error"} <= record.keys() for record in history)
        and isinstance(history, list)
        and (len(history), len(sums)) == (progress.epoch, 4)
    ):
        raise ValueError("its progress makes no sense")
    name = meta["architecture"]
    if meta["config"]["arch"] != name or len(name) > NAME:
        raise ValueError("its network is not that of its settings")
    from_mapping(meta["config"], Config(), "it")
    return progress


def _network(meta: dict[str, Any]) -> Architecture:
    name, own = meta["architecture"], meta.get("network")
    network = get_architecture(name) if own is None else from_json(name, own)
    return network.with_classes(len(meta["classes"]))


def _arrays(file: zipfile.ZipFile, network: Architecture, size: int) -> dict[str, Array]:
    """The arrays of a checkpoint of `network`, in a file of `size` bytes, under their names."""
    side = network.data.image_size
    shapes: dict[str, tuple[int, ...]] = {"mean": (side, side, 3), "colour": (3, 3)}
    moving = any(name.startswith("velocity/") for name in file.namelist())
    for kind in ("parameter", "velocity") if moving else ("parameter",):
        shapes |= {f"{kind}/{name}": s for name, s in parameter_shapes(network.rows).items()}
    if wrong := {f"{name}.npy" for name in ("meta", *shapes)} ^ set(file.namelist()):
        raise ValueError(f"{network.name} has other arrays: {min(wrong)!r}")
    nbytes = FLOAT.itemsize * sum(map(math.prod, shapes.values()))
    if nbytes > DEFLATE * size:
        raise ValueError(f"{size:,} bytes cannot hold {nbytes:,} bytes of arrays")
    return {name: _array(file, name, shape) for name, shape in shapes.items()}


def _array(file: zipfile.ZipFile, name: str, shape: tuple[int, ...]) -> Array:
    """Array `name`, which must be float32, or text in `meta`, and have this shape.

    For a dtype and a shape NumPy writes one header, so what is there is compared with it.
    """
    entry = file.getinfo(f"{name}.npy")
    with file.open(entry) as member:
        start = member.read(10)  # the last two bytes are the header's length
        header = member.read(int.from_bytes(start[8:], "little"))
    nbytes = entry.file_size - len(start) - len(header)
    dtype = np.dtype(f"U{nbytes // 4}") if name == "meta" else FLOAT
    expected = f"{{'descr': {dtype.str!r}, 'fortran_order': False, 'shape': {shape}, }}"
    if header.rstrip() != expected.encode() or nbytes != dtype.itemsize * math.prod(shape):
        raise ValueError(f"{name} should be {expected}, and has {header.rstrip()!r}")
    with file.open(entry) as member:
        return np.lib.format.read_array(member, allow_pickle=False)
