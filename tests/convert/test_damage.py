"""Cut, flipped and lying files: refused in one paragraph, or harmless; never another network."""

import json
import os
import pickle
import struct
import subprocess
import sys
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import weights
from test_import import bvlc

from tinyalex import convert
from tinyalex.convert import wire
from tinyalex.errors import TinyalexError

FILES = 500
ENDINGS = ("pth", "legacy.pth", "safetensors", "onnx", "caffemodel", "prototxt", "npy")

pytestmark = pytest.mark.usefixtures("little")


def sound(ending, folder):
    """A sound file and its network; each tensor has one number of its own, of four equal bytes."""
    state = weights.state("caffe" if ending == "npy" else "cifar-18pct")
    fill = {n: np.full_like(a, number(i)) for i, (n, a) in enumerate(state.parameters.items())}
    state = replace(state, parameters=fill, mean=np.full_like(state.mean, number(20)))
    path = folder / f"sound.{ending}"
    if ending == "npy":
        bvlc(state, path, python=3)
    elif ending == "legacy.pth":
        torch = pytest.importorskip("torch", reason="PyTorch is not installed")
        convert.write(state, folder / "sound.pth")
        tensors = torch.load(folder / "sound.pth", weights_only=True)
        torch.save(tensors, path, _use_new_zipfile_serialization=False)
    elif ending == "prototxt":
        convert.write(state, folder / "sound.caffemodel")
    else:
        convert.write(state, path)
    return path, state.network.name


def number(i):
    return np.frombuffer(bytes([0x30 + i] * 4), "<f4")[0]


def outside(content):
    """The places of all bytes but those of the tensors' numbers."""
    array = np.frombuffer(content, np.uint8)
    edges = np.flatnonzero(np.diff(array)) + 1
    runs = np.split(np.arange(len(array)), edges)
    kept = [r for r in runs if len(r) < 16 or not 0x30 <= array[r[0]] <= 0x30 + 20]
    return np.concatenate(kept)


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.slow
def test_flipped_cut_and_overwritten_files(ending, tmp_path, tell):
    """Outside of the numbers, where there is no checksum; anywhere, where zip has one."""
    path, arch = sound(ending, tmp_path)
    beside = [str(tmp_path / "sound.caffemodel")] if ending == "prototxt" else []
    expected, _ = convert.read([*beside, str(path)], arch=arch)
    content = path.read_bytes()
    places = np.arange(len(content)) if ending == "pth" else outside(content)
    assert len(places) > 100
    rng, results = np.random.default_rng(0), {"refused": 0, "harmless": 0}
    bad = tmp_path / f"bad.{ending}"
    for i in range(FILES):
        damaged = bytearray(content)
        if i % 5 == 0:
            damaged = damaged[: rng.integers(len(content))]
        elif i % 5 == 1:
            damaged[rng.choice(places)] = rng.integers(256)
        else:
            damaged[rng.choice(places)] ^= 1 << rng.integers(8)
        bad.write_bytes(damaged)
        error = ""
        try:
            found, _ = convert.read([*beside, str(bad)], arch=arch)
        except TinyalexError as caught:
            error = str(caught)
        if error:
            assert any(name in error for name in (str(bad), *beside))
            results["refused"] += 1
            continue
        assert found.network == expected.network, i
        assert weights.same_parameters(found.parameters, expected.parameters)
        results["harmless"] += 1
    assert results["refused"] > FILES / 3
    tell(f"{FILES} damaged files: {results['refused']} refused, {results['harmless']} harmless")


class Evil:
    """What a pickle may do when it is read: here it makes a folder."""

    def __init__(self, canary):
        self.canary = str(canary)

    def __reduce__(self):
        return os.mkdir, (self.canary,)


@pytest.mark.parametrize("protocol", range(2, 6))
def test_no_code_in_a_file_is_run(protocol, tmp_path):
    canary = tmp_path / "canary"
    pickled = pickle.dumps({"conv1.weight": Evil(canary)}, protocol)
    pickle.loads(pickled)
    canary.rmdir()  # it can be made, and so be missed
    with zipfile.ZipFile(tmp_path / "zip.pth", "w") as file:
        file.writestr("archive/data.pkl", pickled)
    head = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # torch.save's sign of a legacy file
    (tmp_path / "legacy.pth").write_bytes(head + pickled)
    np.save(tmp_path / "dict.npy", {"conv1": [Evil(canary), 1]})
    for name in ("zip.pth", "legacy.pth", "dict.npy"):
        with pytest.raises(TinyalexError, match="is not read"):
            convert.read([str(tmp_path / name)], arch="caffe")
    assert not canary.exists()


# Files that ask for memory. Each is a few bytes, and asks for gigabytes at least.

HUGE = 2**40


def tensor_of(shape, strides, count):
    """The pickle of a state_dict of one tensor, {"a": ...}, whose storage has `count` numbers."""
    whole = [b"\x8a\x08" + struct.pack("<q", n) for n in (0, *shape, *strides, count)]
    zero, *sizes, numbers = whole
    return (
        b"\x80\x02}X\x01\0\0\0actorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storage"
        b"ctorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpu" + numbers + b"tQ" + zero
        + b"(" + b"".join(sizes[: len(shape)]) + b"t(" + b"".join(sizes[len(shape) :])
        + b"t\x89ccollections\nOrderedDict\n)RtRs."
    )  # fmt: skip


def archive(path, pickled, storage=bytes(4), packing=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", packing) as file:
        file.writestr("archive/data.pkl", pickled)
        file.writestr("archive/data/0", storage)


def lying(folder):
    """Files, each of which says that much is to come."""
    put = b"\x80\x02}r\xff\xff\xff\x7f."  # LONG_BINPUT: C's unpickler makes room for 2**31 objects
    for name, pickled in {
        "put": put,
        "bytes": b"\x80\x05\x8e" + struct.pack("<Q", HUGE) + b".",
        "bytearray": b"\x80\x05\x96" + struct.pack("<Q", 2**35) + b".",
        "text": b"\x80\x04\x8d" + struct.pack("<Q", HUGE) + b".",
        "whole number": b"\x80\x02\x8b\xff\xff\xff\x7f.",
        "frame": b"\x80\x04\x95" + struct.pack("<Q", HUGE) + b"}.",
        "expanded": tensor_of((HUGE, 4096, 1, 1), (0, 0, 0, 0), 1),
        "longer than stored": tensor_of((HUGE, 1, 1, 1), (1, 1, 1, 1), HUGE),
        "beyond": tensor_of((1, 1, 1, 2), (1, 1, 1, HUGE), 1),
        "negative": tensor_of((1, 1, 1, 1), (1, 1, 1, -1), 1),
    }.items():
        archive(folder / f"{name}.pth", pickled)
        yield folder / f"{name}.pth"
    archive(folder / "bomb.pth", bytes(2**28), packing=zipfile.ZIP_DEFLATED)
    yield folder / "bomb.pth"
    archive(folder / "bomb 2.pth", tensor_of((2**28, 1, 1, 1), (1, 1, 1, 1), 2**28), bytes(2**30),
            zipfile.ZIP_DEFLATED)  # fmt: skip
    yield folder / "bomb 2.pth"

    for name, header in {
        "shape": {"a.weight": {"dtype": "F32", "shape": [HUGE], "data_offsets": [0, 4]}},
        "offsets": {"a.weight": {"dtype": "F32", "shape": [HUGE], "data_offsets": [0, 4 * HUGE]}},
        "backwards": {"a.weight": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}},
        "negative": {"a.weight": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}},
    }.items():
        text = json.dumps(header).encode()
        path = folder / f"{name}.safetensors"
        path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(4))
        yield path

    def messages(name, values):
        with open(folder / name, "wb") as file:
            wire.write(file, wire.message(values))
        return folder / name

    image = wire.message({1: "x", 2: wire.message({1: wire.message({1: 1, 2: wire.message({
        1: tuple(wire.message({1: n}) for n in (1, 3, 227, 227))})})})})  # fmt: skip
    for name, tensor in {
        "dims": {1: (HUGE, HUGE), 2: 1, 8: "w", 9: bytes(4)},
        "negative dims": {1: (-1, -1), 2: 1, 8: "w", 9: bytes(4)},
        "outside": {2: 1, 8: "w", 13: (wire.message({1: "location", 2: "../sound.npy"}),)},
        "absolute": {2: 1, 8: "w", 13: (wire.message({1: "location", 2: "/etc/passwd"}),)},
    }.items():
        graph = wire.message({5: wire.message(tensor), 11: image})
        yield messages(f"{name}.onnx", {1: 8, 7: graph})
    blob = wire.message({7: wire.message({1: wire.packed((HUGE, HUGE))}), 5: bytes(4)})
    yield messages("dims.caffemodel", {100: wire.message({1: "conv1", 7: blob})})
    size = wire.message({106: wire.message({1: 96, 4: HUGE}), 1: "c", 2: "Convolution", 3: "data"})
    yield messages("window.caffemodel", {1: "n", 100: size})

    head = (
        b"{'descr': '|O', 'fortran_order': False, 'shape': (1099511627776,), }".ljust(117) + b"\n"
    )
    (folder / "head.npy").write_bytes(b"\x93NUMPY\x01\0" + struct.pack("<H", len(head)) + head)
    yield folder / "head.npy"


LIMITED = """
import resource, sys
from tinyalex import convert
from tinyalex.errors import TinyalexError
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in sys.argv[1:]:
    try:
        convert.read([path], arch="caffe")
    except TinyalexError as error:
        assert path in str(error), error
        continue
    print("taken:", path)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not count memory in this way")
@pytest.mark.slow
def test_files_that_lie_take_no_memory(tmp_path, tell):
    paths = [str(path) for path in lying(tmp_path)]
    argv = [sys.executable, "-c", LIMITED, *paths]
    child = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert child.returncode == 0, child.stderr
    assert "taken" not in child.stdout
    assert int(child.stdout) < 100_000
    tell(f"{len(paths)} files that lie: all refused, {int(child.stdout) / 1000:.0f} MB taken")
