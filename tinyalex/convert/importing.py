"""Import of another program's files as a checkpoint, and what had to be assumed for it."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import numpy as np

from tinyalex.convert import caffe_reader, npy, onnx_reader, pth, safetensors
from tinyalex.convert.mappings import (
    CAFFE,
    CAFFE_TENSORFLOW,
    TINYALEX,
    TORCHVISION,
    USUAL,
    Source,
    by_shape,
    identified,
    named,
    parameters,
    with_parameters,
)
from tinyalex.convert.recognise import READ, kind_of, refuse_foreign
from tinyalex.convert.tensors import Contents, NotAChain
from tinyalex.data import open_data
from tinyalex.errors import CheckpointError, TinyalexError, UsageError
from tinyalex.net.layers import Augment
from tinyalex.net.presets import ARCHITECTURES, Architecture, get_architecture
from tinyalex.runs import checkpoint
from tinyalex.runs.checkpoint import Checkpoint
from tinyalex.runs.config import Config
from tinyalex.runs.progress import Progress
from tinyalex.system.arrays import Array

# Whose names a file without a graph may have.
SOURCES = {
    "pth": (TORCHVISION, TINYALEX),
    "safetensors": (TORCHVISION, TINYALEX),
    "npy": (CAFFE_TENSORFLOW,),
    "caffemodel": (CAFFE,),
}
CLASSES = "ilsvrc2012"


def read(
    paths: Sequence[str],
    arch: str | None = None,
    mean: str | None = None,
    classes: str | None = None,
) -> tuple[Checkpoint, list[str]]:
    """A checkpoint, without velocities, of the weights in `paths`, and notes for the user.

    paths: a file of weights; with a .caffemodel also its .prototxt and its mean image.
    arch: the network, needed where the files do not say it. mean: a file of the mean image.
    classes: names of the outputs: a file with one a line, a run, a data set, or `ilsvrc2012`.
    The notes say what the files do not, and what was assumed. Raises UsageError or CheckpointError.
    """
    files = _sorted([Path(path) for path in paths])
    weights, kind = files["weights"]
    with damage_refused(weights):
        contents = _contents(weights, kind, files)
        notes = list(contents.notes)
        network, names, source, factors = _understood(weights, kind, contents, arch, notes)
        outputs = contents.tensors[f"{names[-1]}.bias"].shape[-1]
        network = network.with_classes(outputs)
        _check_rest(weights, contents, names, network)
        std = np.array(source.std)
        if contents.mean is not None or contents.scale is not None:  # it takes grey levels, then
            scale = np.ones(3) if contents.scale is None else contents.scale
            std = 1 / _rgb(scale, source)
        colours = 1 / (std * network.data.scale)
        colours[np.isclose(colours, 1, rtol=1e-6)] = 1
        found = parameters(contents.tensors, names, network, source, factors, colours)
        image = _mean_image(mean or files.get("mean"), contents, source, network, notes)
        labels, titles = _classes(classes, outputs, contents, notes)
    notes.append(
        "The file does not say how pictures were resized in training: here the centre square is "
        f"resized to {network.data.image_size} pixels."
    )
    state = Checkpoint(
        network=network,
        classes=labels,
        titles=titles,
        config=asdict(Config(arch=network.name)),
        progress=Progress(),
        parameters=found,
        velocities={},
        mean=image,
        colour=np.zeros((3, 3), np.float32),
    )
    if network.data.colour:
        notes.append("Nor does it have colour directions: training from it adds no colour noise.")
    return state, notes


@contextmanager
def damage_refused(path: Path) -> Iterator[None]:
    """Turn whatever damaged bytes come to into a CheckpointError that names the file."""
    try:
        yield
    except CheckpointError as error:
        if str(path) in str(error):
            raise
        raise CheckpointError(f"{path} cannot be imported: {str(error).rstrip('.')}.") from None
    except TinyalexError:
        raise
    except NotAChain as error:
        raise CheckpointError(
            f"{path} {error.where} that is no AlexNet: {error}. Only a chain of convolutions, "
            "ReLU, normalisations, pools and fully connected layers is understood."
        ) from None
    except MemoryError:
        raise CheckpointError(f"There is not enough memory to read {path}.") from None
    except Exception as error:  # bytes from anybody: they fail in more ways than can be told
        reason = "".join(filter(str.isprintable, f"{type(error).__name__}: {error}"))[:300]
        raise CheckpointError(
            f"{path} is cut short or damaged ({reason.rstrip('.')}). Fetch it again."
        ) from None


def _sorted(paths: Sequence[Path]) -> dict[str, tuple[Path, str]]:
    """The files by what they are for: weights, prototxt, mean; each with its kind."""
    found: dict[str, tuple[Path, str]] = {}
    for path in paths:
        kind = kind_of(path)
        refuse_foreign(path, kind)
        use = {"prototxt": "prototxt", "binaryproto": "mean"}.get(kind, "weights")
        if use in found:
            raise UsageError(
                f"{found[use][0]} and {path} are both files of {use}. Give one network at a time."
            )
        found[use] = path, kind
    if "weights" not in found:
        raise UsageError(
            f"There are no weights in {', '.join(map(str, paths))}. Give a file of one of these "
            f"kinds, too: {READ}."
        )
    if "prototxt" in found and found["weights"][1] != "caffemodel":
        raise UsageError(f"{found['prototxt'][0]} describes no other file than a .caffemodel.")
    return found


def _contents(weights: Path, kind: str, files: dict[str, tuple[Path, str]]) -> Contents:
    if kind == "caffemodel":
        chain = None
        if "prototxt" in files:
            path, _ = files["prototxt"]
            with damage_refused(path):
                chain = caffe_reader.read_prototxt(path)
        return caffe_reader.read(weights, chain)
    readers = {
        "pth": pth.read, "safetensors": safetensors.read, "onnx": onnx_reader.read, "npy": npy.read,
    }  # fmt: skip
    return readers[kind](weights)


def _understood(
    path: Path, kind: str, contents: Contents, arch: str | None, notes: list[str]
) -> tuple[Architecture, list[str], Source, list[float]]:
    """The network, the file's names of its layers, whose file it is, and factors on the weights."""
    told = arch or contents.metadata.get("tinyalex.architecture")
    if contents.rows:
        first = contents.rows[0]
        try:
            network, factors = identified(contents.rows, told)
        except LookupError as error:
            raise CheckpointError(
                f"{path} describes a network that is {f'not {told}' if told else 'no preset'}: "
                f"{error}. The networks known here: tinyalex summary --compare."
            ) from None
        size = network.data.size
        if isinstance(first, Augment) and first.size != size:
            notes.append(
                f"The file declares an input of {first.size} pixels, where {network.name} has "
                f"{size}: it is used at {size}, and its answers are not those at {first.size}."
            )
        names = [layer.row.name for layer in with_parameters(contents.rows)]
        if kind == "caffemodel":
            source = CAFFE
        elif "tinyalex.architecture" in contents.metadata:
            source = TINYALEX
        else:
            source = USUAL.get(network.name, TINYALEX)
        return network, names, source, factors
    for source in SOURCES[kind]:
        known = source.names.split()
        if told and source is TINYALEX:
            known = [layer.row.name for layer in with_parameters(get_architecture(told).rows)]
        if names := named(contents.tensors, known):
            told = told or source.network
            if not told:
                fits = ", ".join(_fitting(contents, names, source))
                raise UsageError(
                    f"{path} has weights by name, and no word on the layers between: its shapes "
                    f"are those of {fits or 'no preset'}. Say which with --arch."
                )
            network = get_architecture(told)
            if source is TINYALEX and "mean" not in contents.tensors:
                # A module of one's own: torchvision's network is fed as torchvision does.
                source = TORCHVISION if told == TORCHVISION.network else source
            return network, names, source, [1.0] * len(names)
    if not arch:
        some = ", ".join(list(contents.tensors)[:4])
        raise UsageError(
            f"{path} has tensors by names that are not known here: {some} and so on. "
            "Say with --arch which network it is, and its layers are told by their shapes."
        )
    network = get_architecture(arch)
    try:
        names = by_shape(contents.tensors, network)
    except LookupError as error:
        raise CheckpointError(f"{path} is not of {arch}: {error}.") from None
    notes.append(
        f"Its names are not known here; by their shapes {', '.join(names)} are "
        f"{network.name}'s {', '.join(x.row.name for x in with_parameters(network.rows))}."
    )
    return network, names, USUAL.get(arch, TINYALEX), [1.0] * len(names)


def _fitting(contents: Contents, names: list[str], source: Source) -> list[str]:
    """The presets whose parameters have the shapes of the file's."""
    fits = []
    for network in ARCHITECTURES.values():
        layers = with_parameters(network.rows)
        if len(layers) == len(names) and all(
            sorted(contents.tensors[f"{n}.weight"].shape) == sorted(layer.weight or ())
            for n, layer in list(zip(names, layers, strict=True))[:-1]
        ):
            fits.append(network.name)
    return fits


def _check_rest(path: Path, contents: Contents, names: list[str], network: Architecture) -> None:
    """Raise CheckpointError if the file has tensors that the network has no place for."""
    wanted = {f"{name}.{kind}" for name in names for kind in ("weight", "bias")}
    wanted.add("mean")  # what tinyalex writes beside them
    if rest := [name for name in contents.tensors if name not in wanted]:
        raise CheckpointError(
            f"{path} has more than the weights of {network.name}: {', '.join(rest[:3])}, "
            f"{len(rest)} in all. It is another network"
        )


def _rgb(values: Array, source: Source) -> Array:
    return values[..., ::-1] if source.order == "BGR" else values


def _mean_image(
    given: str | tuple[Path, str] | None,
    contents: Contents,
    source: Source,
    network: Architecture,
    notes: list[str],
) -> Array:
    """The mean, (image_size, image_size, 3), R G B: of a file, of the network, or the usual one."""
    side = network.data.image_size
    if given:
        path = Path(given) if isinstance(given, str) else given[0]
        with damage_refused(path):
            image = _read_mean(path, notes)
    elif contents.mean is not None:
        image = _rgb(contents.mean, source)
    elif "mean" in contents.tensors:
        image = contents.tensors["mean"].numbers().transpose(1, 2, 0)
    elif source.mean:
        image = np.array(source.mean).reshape(1, 1, 3)
        notes.append(f"The input is taken to be made as {source.program}'s transforms make it.")
    else:
        usual = source.usual or CAFFE.usual
        image = np.array(usual).reshape(1, 1, 3)
        colours = ", ".join(f"{c:g}" for c in image.ravel())
        notes.append(
            f"The file has no mean image: {colours} for R, G, B is taken, the average of "
            "ILSVRC-2012. Give the mean image of the training with --mean."
        )
    ours = "tinyalex.architecture" in contents.metadata or "mean" in contents.tensors
    if not source.mean and not (source is TINYALEX and ours):
        order = ", ".join(source.order)
        notes.append(f"Its colours are taken to be {order}, as in {source.program}.")
    height, width, channels = image.shape
    if (height, width) == (1, 1):
        return np.full((side, side, 3), np.ravel(image) * np.ones(3), np.float32)
    if height != width or height > side or channels != 3:
        raise UsageError(
            f"The mean image has {height} x {width} x {channels} numbers; {network.name} takes "
            f"{side} x {side} x 3, or less."
        )
    before = (side - height) // 2
    border = ((before, side - height - before),) * 2 + ((0, 0),)
    return np.pad(image, border, mode="edge").astype(np.float32)


def _read_mean(path: Path, notes: list[str]) -> Array:
    """A mean image, R G B, of a .binaryproto or of an .npy of one array."""
    if kind_of(path) != "npy":
        return np.asarray(caffe_reader.read_mean(path)[..., ::-1])
    image = np.load(path, allow_pickle=False, mmap_mode="r")
    if image.ndim == 3 and len(image) == 3:  # as Caffe's ilsvrc_2012_mean.npy
        notes.append(f"The colours of {path} are taken to be B, G, R, as its axes are Caffe's.")
        return np.asarray(image[::-1].transpose(1, 2, 0))
    return np.asarray(image.reshape((1,) * (3 - image.ndim) + image.shape))


def _classes(
    given: str | None, outputs: int, contents: Contents, notes: list[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The classes and their titles. Raises UsageError unless there is one for each output."""
    if given is None and "tinyalex.classes" in contents.metadata:
        found = json.loads(contents.metadata["tinyalex.classes"])
        classes, titles = (tuple(map(str, found[key])) for key in ("classes", "titles"))
    elif given is None:
        hint = f" If they are ILSVRC-2012's: --classes {CLASSES}." if outputs == 1000 else ""
        notes.append(
            f"The file does not name its {outputs} classes, so they are numbers here, and data "
            f"cannot be labelled. Name them with --classes.{hint}"
        )
        classes = titles = tuple(f"{i:04}" for i in range(outputs))
    else:
        classes, titles = _named_classes(given)
    if len(classes) != outputs or len(titles) != outputs or len(set(classes)) != outputs:
        raise UsageError(
            f"{given or 'The file'} names {len(set(classes))} classes, and the network has "
            f"{outputs} outputs. Give --classes with as many."
        )
    return classes, titles


def _named_classes(given: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Read what --classes names: the table, a run, a data set, or a text with a class a line."""
    path = Path(given)
    if given == CLASSES:
        path = Path(__file__).with_name("ilsvrc2012.txt")
    if path.suffix == ".npz" or (path / "last.npz").exists() or (path / "best.npz").exists():
        state = checkpoint.load_run(path)[1]
        return state.classes, state.titles
    if path.is_dir() or path.suffix in (".zip", ".tar"):
        dataset = open_data(given, 256, 0, hold_out=False)
        return dataset.classes, dataset.titles
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"The classes cannot be read from {path}: {error}. Give a text with a class a line, a "
            f"run, a data set, or {CLASSES}."
        ) from None
    words = [line.partition(" ") for line in lines if line and not line.startswith("#")]
    if all(word[0][:1] == "n" and word[0][1:].isdigit() for word in words):  # WordNet ids
        return tuple(w[0] for w in words), tuple(w[2].partition(",")[0] or w[0] for w in words)
    return (names := tuple(line for line in lines if line)), names
