"""Kinds of files, known by their content, and what to do with those that are not read here."""

import re
import zipfile
from dataclasses import dataclass
from pathlib import Path

from tinyalex.convert import npy, pth, safetensors
from tinyalex.convert.tensors import mapped
from tinyalex.convert.wire import BYTES, VARINT, fields
from tinyalex.errors import CheckpointError

READ = "PyTorch's .pth, .safetensors, .onnx, .caffemodel with its .prototxt, and bvlc_alexnet.npy"


@dataclass(frozen=True)
class Foreign:
    """A kind of file that is not read here, and the lines of Python that make one that is."""

    kind: str
    lines: str


# The names and axes are those of tinyalex.convert.mappings.TINYALEX; a line names what it needs.
_SAVE = "\nfrom safetensors.numpy import save_file\nsave_file(t, 'weights.safetensors')"
_TURN = """\
t = {}
for name, (w, b) in layers.items():  # weights (height, width, in, out) or (in, out)
    w = w.transpose(3, 2, 0, 1) if w.ndim == 4 else w.T
    if name == 'fc6':
        w = w.reshape(-1, 6, 6, w.shape[1] // 36).transpose(0, 3, 1, 2).reshape(len(w), -1)
    t[name + '.weight'], t[name + '.bias'] = np.ascontiguousarray(w), np.ravel(b)"""

FOREIGN = {
    "npz": Foreign(
        "a NumPy .npz, as Chainer writes them",
        """\
import numpy as np
f = np.load('FILE')  # Chainer: conv1/W (out, in, height, width), fc6/W (out, in)
t = {}
for name in 'conv1 conv2 conv3 conv4 conv5 fc6 fc7 fc8'.split():
    t[name + '.weight'], t[name + '.bias'] = f[name + '/W'], f[name + '/b']""" + _SAVE,
    ),
    "hdf5": Foreign(
        "an HDF5 file, as Keras and MATLAB 7.3 write them",
        """\
import h5py, numpy as np
f = h5py.File('FILE')  # f.visit(print) shows the names; put each layer's two under its name
layers = {'conv1': (f['conv1/kernel'][()], f['conv1/bias'][()])}  # ... to fc8\n""" + _TURN + _SAVE,
    ),
    "mat": Foreign(
        "a MATLAB file, as MatConvNet writes them",
        """\
import numpy as np, scipy.io
f = scipy.io.loadmat('FILE', struct_as_record=False, squeeze_me=True)
layers = {l.name: tuple(l.weights) for l in f['layers'] if hasattr(l, 'weights') and len(l.weights)}
layers |= {n: (w.reshape(-1, w.shape[-1]), b) for n, (w, b) in layers.items() if n[:2] == 'fc'}
""" + _TURN + _SAVE,
    ),
    "tensorflow": Foreign(
        "a checkpoint or a saved model of TensorFlow",
        """\
import numpy as np, tensorflow as tf
f = tf.train.load_checkpoint('FOLDER')  # f.get_variable_to_shape_map() shows the names
layers = {'conv1': (f.get_tensor('conv1/weights'), f.get_tensor('conv1/biases'))}  # ... to fc8\n"""
        + _TURN + _SAVE,
    ),
    "mxnet": Foreign(
        "MXNet's parameters",
        """\
import mxnet as mx
f = mx.nd.load('FILE')  # gluon's alexnet: features.0.weight ... in order; print(f.keys())
weights = [v.asnumpy() for k, v in f.items()]
names = 'conv1 conv2 conv3 conv4 conv5 fc6 fc7 fc8'.split()
kinds = ('weight', 'bias')
t = dict(zip([f'{n}.{k}' for n in names for k in kinds], weights))""" + _SAVE,
    ),
    "pickle": Foreign(
        "a pickle, as Paddle's .pdparams and many scripts are; reading one can run any code",
        """\
import numpy as np, paddle
f = paddle.load('FILE')  # from a source that you trust; fully connected weights are (in, out)
names = 'conv1 conv2 conv3 conv4 conv5 fc6 fc7 fc8'.split()
arrays = [np.asarray(v) for v in f.values()]
t = {}
for name, w, b in zip(names, arrays[::2], arrays[1::2]):
    t[name + '.weight'], t[name + '.bias'] = np.ascontiguousarray(w.T if w.ndim == 2 else w), b
"""[:-1] + _SAVE,
    ),
    "torchscript": Foreign(
        "a TorchScript module, which is a program",
        "import torch\ntorch.save(torch.jit.load('FILE').state_dict(), 'weights.pth')",
    ),
}  # fmt: skip


SIGNS = {  # how a file begins; "" for a zip file
    pth.LEGACY: "pth",
    b"PK\3\4": "",
    npy.MAGIC: "npy",
    b"\x89HDF": "hdf5",
    b"MATLAB 5.0 MAT-file": "mat",
    (0x112).to_bytes(8, "little"): "mxnet",  # kMXAPINDArrayListMagic of MXNet's ndarray.cc
}


def kind_of(path: Path) -> str:
    """pth, safetensors, onnx, caffemodel, prototxt, binaryproto, npy; or a key of FOREIGN.

    Raises CheckpointError for a file that is not there, or of no kind that is known.
    """
    try:
        size = path.stat().st_size
        with open(path, "rb") as file:
            head = file.read(512)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}.") from None
    if not head:
        raise CheckpointError(f"{path} is empty (0 bytes). Fetch it again.")
    for start, kind in SIGNS.items():
        if head.startswith(start):
            return kind or _of_zip(path)
    if re.search(r".\.(index|meta)$|\.data-0|^saved_model\.pb$", path.name):
        return "tensorflow"
    if safetensors.recognised(head, size):
        return "safetensors"
    if head[:1] == b"\x80" and head[1] <= 5:
        return "pickle"
    if kind := _of_message(path) or _of_text(head):
        return kind
    raise CheckpointError(
        f"{path} is cut short, damaged, or of no kind that is known here. Read are {READ}."
    )


def refuse_foreign(path: Path, kind: str) -> None:
    """Raise CheckpointError, with what to do, for a kind that is known and not read."""
    if kind in FOREIGN:
        foreign = FOREIGN[kind]
        lines = foreign.lines.replace("FILE", str(path)).replace("FOLDER", str(path.parent))
        then = "pth" if kind == "torchscript" else "safetensors --arch A"
        error = CheckpointError(
            f"{path} is {foreign.kind}, and is not read here. With the program that wrote it, "
            "these lines make a file that is:"
        )
        error.program = f"\n{lines}\n\nThen: tinyalex import weights.{then} -o RUN"
        raise error


def _of_zip(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as file:
            names = file.namelist()
    except zipfile.BadZipFile:
        raise CheckpointError(
            f"{path} is a zip file that is cut short or damaged. Fetch it again."
        ) from None
    if "meta.npy" in names:
        raise CheckpointError(f"{path} is a checkpoint of tinyalex already: use it as a RUN.")
    if any(name.endswith("/constants.pkl") for name in names) and any("/code/" in n for n in names):
        return "torchscript"
    if any(name.endswith("/data.pkl") for name in names):
        return "pth"
    if any(name.endswith(".npy") for name in names):
        return "npz"
    if "model.weights.h5" in names:
        return "hdf5"
    raise CheckpointError(
        f"{path} is a zip file without weights of a kind known here. Read are {READ}."
    )


def _of_message(path: Path) -> str:
    """Recognise a protocol buffer by the fields of its outermost message; else return nothing."""
    try:
        found = {(number, kind) for number, kind, _ in fields(mapped(path))}
    except (ValueError, IndexError):
        return ""
    if (5, BYTES) in found:
        return "binaryproto"
    if (7, BYTES) in found and (1, VARINT) in found:
        return "onnx"
    return "caffemodel" if {(2, BYTES), (100, BYTES)} & found else ""


def _of_text(head: bytes) -> str:
    text = head.decode("utf-8", "replace").rstrip("\ufffd")  # the last sign may be cut
    printable = all(c.isprintable() or c.isspace() for c in text) and "\ufffd" not in text
    return "prototxt" if text and printable else ""
