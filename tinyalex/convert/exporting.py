"""Export of a checkpoint to the files of another program."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from tinyalex.convert import caffe_writer, onnx_writer, pth, safetensors
from tinyalex.convert.mappings import TINYALEX, TORCHVISION, turned, with_parameters
from tinyalex.errors import UsageError
from tinyalex.runs import checkpoint
from tinyalex.runs.checkpoint import Checkpoint
from tinyalex.runs.config import Config, from_mapping
from tinyalex.runs.folder import RunFolder
from tinyalex.system.arrays import Array
from tinyalex.system.files import replacing, sync_folder, writing


def write(state: Checkpoint, path: Path) -> list[str]:
    """Write the network in the format of the name's ending; without one, as a run of its own.

    Returns what its user needs to know. Raises UsageError for an ending that is not known or a
    network that the format cannot hold, WriteError if it cannot be written.
    """
    match path.suffix:
        case "":
            save_run(state, str(path))
            return [
                "It has weights and no velocities: it can be used and trained from, not resumed."
            ]
        case ".onnx":
            return _onnx(state, path)
        case ".safetensors":
            tensors, notes = _state_dict(state)
            _written(path, lambda file: safetensors.write(file, tensors, _metadata(state)))
            return notes
        case ".pth" | ".pt":
            tensors, notes = _state_dict(state)
            _written(path, lambda file: pth.write(file, tensors))
            return notes
        case ".caffemodel":
            return _caffe(state, path)
    raise UsageError(
        f"{path} has an ending that is not known: give one of .onnx, .safetensors, .pth, "
        ".caffemodel, or a folder for a run."
    )


def save_run(state: Checkpoint, path: str) -> None:
    """Write the weights as a new run in a new folder: without velocities, at its end."""
    config = from_mapping(state.config, Config(), "the checkpoint")
    folder = RunFolder.create(path, state.architecture, replace(config, output_dir=None).toml())
    try:
        checkpoint.save(replace(state, velocities={}), folder.path / "last.npz")
    finally:
        folder.close()


def _onnx(state: Checkpoint, path: Path) -> list[str]:
    _written(path, lambda file: onnx_writer.write(file, state, _metadata(state)))
    size = state.network.data.size
    return [
        f"Input `images`: float32 (N, 3, {size}, {size}), R G B from 0 to 255, the centre of a "
        f"square of {state.network.data.image_size}; the mean is taken from it inside. Output: the "
        "logits."
    ]


def _caffe(state: Checkpoint, path: Path) -> list[str]:
    text: str = _written(path, lambda file: caffe_writer.write(file, state))
    prototxt, mean = path.with_suffix(".prototxt"), path.with_name(f"{path.stem}_mean.binaryproto")
    _written(prototxt, lambda file: file.write(text.encode()))
    _written(mean, lambda file: caffe_writer.write_mean(file, state.mean))
    return [
        f"With it go {prototxt} and {mean}. Input `data`: the crop minus the mean, B G R. "
        "LRN's k and the factor of dropout at test are in the weights."
    ]


def _state_dict(state: Checkpoint) -> tuple[dict[str, Array], list[str]]:
    """Tensors in PyTorch's order of axes, of `owt` as torchvision's module has them; and notes.

    A mean that is not torchvision's goes with them, as `mean` (3, image_size, image_size).
    """
    network = state.network
    every = with_parameters(network.rows)
    names, scale = [layer.row.name for layer in every], np.full(3, network.data.scale)
    source = TORCHVISION if network.name == TORCHVISION.network else TINYALEX
    if source is TORCHVISION:
        names, scale = source.names.split(), scale * source.std
    tensors: dict[str, Array] = {}
    for layer, name in zip(every, names, strict=True):
        weight, bias = (state.parameters[f"{layer.row.name}.{kind}"] for kind in ("weight", "bias"))
        if not tensors and (scale != 1).any():
            weight = weight * scale.astype(np.float32)
        tensors[f"{name}.weight"] = turned(weight, layer)
        tensors[f"{name}.bias"] = bias
    if source.mean and np.allclose(state.mean, source.mean):
        return tensors, [f"It is for torchvision.models.alexnet(num_classes={network.classes})."]
    divided = " / (255 std)" if source is TORCHVISION else ""
    tensors["mean"] = state.mean.transpose(2, 0, 1)
    return tensors, [
        f"Its input is (grey levels - mean){divided}, R G B. `mean` is among the tensors: take its "
        f"centre, {network.data.size} pixels a side, and load the others with strict=False."
    ]


def _metadata(state: Checkpoint) -> dict[str, str]:
    """Metadata for which these formats have no place but texts."""
    classes = {"classes": state.classes, "titles": state.titles}
    return {
        "format": "pt",  # what readers of safetensors ask for
        "tinyalex.architecture": state.architecture,
        "tinyalex.classes": json.dumps(classes, ensure_ascii=False),
    }


def _written(path: Path, write: Callable[[BinaryIO], Any]) -> Any:
    """Result of `write`, once all that it wrote is on the disk."""
    with writing(path, "--output"):
        with replacing(path) as file:
            result = write(file)
        sync_folder(path.parent)
    return result
