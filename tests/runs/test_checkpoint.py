"""Checkpoint files: what is saved comes back, what is damaged is refused, and none can do harm."""

import errno
import io
import json
import os
import pickle
import platform
import shutil
import stat
import subprocess
import sys
import zipfile
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from trees import picture, written

from tinyalex.cli.parser import main
from tinyalex.errors import CheckpointError, WriteError
from tinyalex.net.draws import initial_parameters
from tinyalex.net.presets import ARCHITECTURES
from tinyalex.runs import checkpoint, checkpoint_reader
from tinyalex.runs.checkpoint import Checkpoint
from tinyalex.runs.config import Config
from tinyalex.runs.progress import Progress
from tinyalex.system import files

FORMAT_1 = Path(__file__).with_name("checkpoint-format-1.npz")
RECORD = {"step": 4, "epoch": 1, "loss": 1.5, "top1_error": 0.5, "val_top1_error": 0.25}


@pytest.fixture(scope="module")
def state():
    """A checkpoint of mini in its second epoch, every number of it another."""
    shapes = initial_parameters(ARCHITECTURES["mini"].with_classes(3), seed=0)
    rng = np.random.default_rng(0)
    return Checkpoint(
        network=ARCHITECTURES["mini"].with_classes(3),
        classes=("n01", "n02", "ü"),
        titles=("tench", "goldfish", "🐟"),
        config=asdict(Config(arch="mini", seed=3)),
        progress=Progress(1, 2, 6, [0.125, 3.0, 1.0, 8.0], [RECORD]),
        parameters={n: rng.normal(size=a.shape).astype("f4") for n, a in shapes.items()},
        velocities={n: rng.normal(size=a.shape).astype("f4") for n, a in shapes.items()},
        mean=rng.uniform(0, 255, (32, 32, 3)).astype("f4"),
        colour=rng.normal(size=(3, 3)).astype("f4"),
        machine=checkpoint.machine(),
        data={"train": {"n01": [9, "5e0c"]}, "val": {}},
    )


@pytest.fixture(scope="module")
def saved(state, tmp_path_factory):
    """The bytes of its file."""
    path = tmp_path_factory.mktemp("saved") / "last.npz"
    checkpoint.save(state, path)
    return path.read_bytes()


def same(a, b):
    """Whether two checkpoints have the same texts and numbers, bit for bit."""
    a, b = asdict(a), asdict(b)
    for arrays in ("parameters", "velocities"):
        for both in (a, b):
            both |= {f"{arrays}/{name}": value for name, value in both.pop(arrays).items()}

    def equal(x, y):
        if isinstance(x, np.ndarray):
            return (x.dtype, x.shape, x.tobytes()) == (y.dtype, y.shape, y.tobytes())
        return x == y

    return list(a) == list(b) and all(equal(a[name], b[name]) for name in a)


def rewrite(path, saved, changes=None, meta=lambda meta: meta):
    """Writes the checkpoint `saved` with some entries changed, None leaves one out.

    meta: turns the description into another, or into a text.
    """
    with zipfile.ZipFile(io.BytesIO(saved)) as file:
        entries = {name: file.read(name) for name in file.namelist()}
    made = meta(json.loads(str(np.load(io.BytesIO(entries["meta.npy"])))))
    text = made if isinstance(made, str) else json.dumps(made)
    entries |= {"meta.npy": npy(np.array(text))} | (changes or {})
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        for name, content in entries.items():
            if content is not None:
                file.writestr(name, content)


def npy(array):
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


def header(text, version=b"\1\0"):
    """The start of an .npy entry."""
    length = len(text).to_bytes(2 if version == b"\1\0" else 4, "little")
    return b"\x93NUMPY" + version + length + text.encode()


def refused(path, *words):
    """`path` must be refused with one paragraph that has its name and all the words."""
    with pytest.raises(CheckpointError) as caught:
        checkpoint.load(path)
    assert caught.value.exit_code == 5
    assert str(caught.value).isprintable()
    for word in (str(path), *words):
        assert word in str(caught.value)


# What is saved comes back


def test_what_is_saved_comes_back(state, saved, tmp_path):
    path = tmp_path / "last.npz"
    path.write_bytes(saved)
    assert same(checkpoint.load(path), state)
    assert list(checkpoint.load(path).parameters) == list(state.parameters)


def test_a_file_of_format_1_keeps_loading():
    """The file is as the first version wrote it, but for its arrays of one number, compressed."""
    found = checkpoint.load(FORMAT_1)
    assert (found.architecture, found.machine, found.data) == ("mini", {}, {})
    assert found.classes == ("n01440764", "n01443537", "ümlaut")
    assert found.titles == ("tench", "goldfish", "🐟 a fish")
    assert (found.config["batch_size"], found.config["lr"]) == (32, 0.005)
    p = found.progress
    assert (p.epoch, p.batch, p.step, p.sums) == (2, 3, 83, [12.5, 7, 0, 96])
    assert [record["val_top1_error"] for record in p.history] == [0.75, 0.375]
    names = [f"{l}.{a}" for l in LAYERS for a in ("weight", "bias")]
    assert list(found.parameters) == list(found.velocities) == names
    for i, name in enumerate(names):
        assert (found.parameters[name] == (i + 1) / 8).all()
        assert (found.velocities[name] == -(i + 1) / 8).all()
    assert found.parameters["fc8.weight"].shape == (3, 128)
    assert (found.mean == 127.5).all()
    assert np.array_equal(found.colour, np.diag([64, 8, 2]))


LAYERS = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8")


def test_another_format_is_named(saved, tmp_path):
    path = tmp_path / "last.npz"
    rewrite(path, saved, meta=lambda meta: meta | {"format": 2, "network": {"rows": []}})
    refused(path, "format 2", "format 1")


# Damage


@pytest.mark.slow
@pytest.mark.parametrize("where", ["anywhere", "outside of the numbers"])
def test_a_flipped_bit_is_refused_or_changes_nothing(where, state, saved, tmp_path, tell):
    """What lies outside of the numbers is headers, names, `meta` and zip's table of contents.

    Harmless is a bit that nothing asks for: of a time, of an attribute.
    """
    rng = np.random.default_rng(0)
    places = np.arange(len(saved))
    if where != "anywhere":
        inside = np.zeros(len(saved), bool)
        for array in (*state.parameters.values(), *state.velocities.values(), state.mean):
            start = saved.index(array.tobytes())
            inside[start : start + array.nbytes] = True
        places = places[~inside]
    path, harmless = tmp_path / "flipped.npz", 0
    for place, bit in zip(rng.choice(places, 500), rng.integers(8, size=500), strict=True):
        damaged = bytearray(saved)
        damaged[place] ^= 1 << bit
        path.write_bytes(damaged)
        try:
            found = checkpoint.load(path)
        except CheckpointError:
            continue
        assert same(found, state), (place, bit)
        harmless += 1
    tell(f"500 bits flipped: {500 - harmless} refused, {harmless} harmless, none wrong")


def test_a_file_that_was_cut_is_refused(saved, tmp_path, tell):
    path = tmp_path / "cut.npz"
    lengths = [0, 1, len(saved) - 1, *np.random.default_rng(0).integers(len(saved), size=47)]
    for length in lengths:
        path.write_bytes(saved[:length])
        refused(path)
    tell(f"{len(lengths)} files cut: all refused")


def test_the_other_checkpoint_of_the_run_is_named_if_it_is_sound(saved, tmp_path):
    last, best = tmp_path / "last.npz", tmp_path / "best.npz"
    for bad, good in ((last, best), (best, last)):
        bad.write_bytes(saved[:-1])
        good.write_bytes(saved)
        remedy = f"tinyalex train --resume {good}"
        refused(bad, f"{good.name} beside it is sound (epoch 1): {remedy}")
    best.write_bytes(b"")
    last.write_bytes(b"")
    refused(last, "no sound last.npz or best.npz")


# Files made to do harm


class Evil:
    """What a pickle may do when it is read: here it makes a folder."""

    def __init__(self, canary):
        self.canary = str(canary)

    def __reduce__(self):
        return os.mkdir, (self.canary,)


def test_no_code_in_a_file_is_run(saved, tmp_path):
    path, canary = tmp_path / "last.npz", tmp_path / "canary"
    evil = Evil(canary)
    pickle.loads(pickle.dumps(evil))
    canary.rmdir()  # it can be made, and so be missed

    for name, count in (("meta", ()), ("parameter/conv1.bias", 24), ("extra", 1)):
        rewrite(path, saved, {f"{name}.npy": npy(np.full(count, evil, object))})
        refused(path)
    for content in (pickle.dumps(evil), npy(np.full(24, evil, object))):
        path.write_bytes(content)
        refused(path)
        rewrite(path, saved, {"parameter/conv1.bias.npy": content})
        refused(path)
    assert not canary.exists()


BIAS = "{'descr': '<f4', 'fortran_order': False, 'shape': (24,), }"
NOT_AN_ARRAY = {
    "float64": npy(np.zeros(24)),
    "integers": npy(np.zeros(24, "i4")),
    "other byte order": npy(np.zeros(24, ">f4")),
    "other shape": npy(np.zeros((24, 1), "f4")),
    "other length": npy(np.zeros(25, "f4")),
    "too few bytes": npy(np.zeros(24, "f4"))[:-1],
    "too many bytes": npy(np.zeros(24, "f4")) + b"\0",
    "4 TB": header(BIAS.replace("24", "1_000_000_000_000")) + bytes(96),
    "-24": header(BIAS.replace("24", "-24")) + bytes(96),
    "True": header(BIAS.replace("24,", "24, True")) + bytes(96),
    "of Python 2": header(BIAS.replace("24", "24L")) + bytes(96),
    "an expression": header("-" * 9000 + BIAS) + bytes(96),
    "format 2.0": header(BIAS, b"\2\0") + bytes(96),
    "no end of the header": header(BIAS)[:20],
    "no header": bytes(96),
    "nothing": b"",
}


@pytest.mark.parametrize("content", NOT_AN_ARRAY.values(), ids=NOT_AN_ARRAY)
def test_an_array_must_be_as_numpy_writes_it_for_the_network(content, saved, tmp_path):
    rewrite(tmp_path / "last.npz", saved, {"parameter/conv1.bias.npy": content})
    refused(tmp_path / "last.npz", "parameter/conv1.bias should be", "(24,)")


def test_columns_before_rows_are_refused(state, saved, tmp_path):
    turned = npy(np.asfortranarray(state.parameters["fc6.weight"]))
    rewrite(tmp_path / "last.npz", saved, {"parameter/fc6.weight.npy": turned})
    refused(tmp_path / "last.npz", "parameter/fc6.weight should be", "True")


@pytest.mark.parametrize("name", ["extra.npy", "parameter/conv9.bias.npy", "../meta.npy", "meta"])
def test_an_unknown_entry_is_refused(name, saved, tmp_path):
    rewrite(tmp_path / "last.npz", saved, {name: npy(np.zeros(3, "f4"))})
    refused(tmp_path / "last.npz", "other arrays", name)


@pytest.mark.parametrize("name", ["meta", "mean", "velocity/fc8.weight"])
def test_an_entry_that_is_missing_or_there_twice_is_refused(name, saved, tmp_path):
    path = tmp_path / "last.npz"
    rewrite(path, saved, {f"{name}.npy": None})
    refused(path, f"{name}.npy")
    path.write_bytes(saved)
    with zipfile.ZipFile(path, "a") as file, pytest.warns(UserWarning, match="Duplicate"):
        file.writestr(f"{name}.npy", file.read(f"{name}.npy"))
    refused(path, "table of contents")


def test_other_packing_is_refused(saved, tmp_path):
    """bzip2 and lzma have no bound on what a byte may stand for."""
    path = tmp_path / "last.npz"
    with zipfile.ZipFile(io.BytesIO(saved)) as good, zipfile.ZipFile(path, "w") as file:
        for name in good.namelist():
            file.writestr(name, good.read(name), zipfile.ZIP_LZMA)
    refused(path, "table of contents")


FIELDS = {
    "format": [None, "\x1b[2J\n"],
    "architecture": [None, [], "resnet", "alexnet"],
    "classes": [None, 10**9, "abc", {"a": 1, "b": 2, "c": 3}, [1, 2, 3], [], ["a"] * 4],
    "titles": [None, "abc", ["a"], [None] * 3],
    "config": [
        None,
        [],
        {},
        {"arch": "alexnet"},
        *({"arch": "mini"} | other for other in ({"lr": "fast"}, {"lr": 10**400}, {"lrr": 1})),
    ],
    "progress": [None, [], {"epochs": 1}, {"\x1b[2J\n": 1}, {"history": {}}],
    "machine": [None, [], {"blas": 1}],
    "data": [
        None,
        [],
        "abc",
        {"x": 1},
        {"train": {}},
        *({"train": {"n01": told}, "val": {}} for told in (1, [], [1], ["1", "a"], [1, 1], {})),
        {"train": {"disc": 1}, "val": {}},
        {"train": [], "val": {}},
    ],
}
OF_PROGRESS = {
    "epoch": [None, "1", 1.0, True, -1, 2, float("nan")],
    "batch": [None, [], 1.5, -1],
    "step": [None, {}, float("inf")],
    "standing": ["0", [], True, float("nan"), 10**400],
    "sums": [None, "abcd", [0.0] * 3, [0.0, 0.0, 0.0, float("nan")], ["0"] * 4, [[]] * 4],
    "history": [
        None,
        [1],
        {"a": 1},
        [],
        [RECORD | {"val_top1_error": float("nan")}],
        [RECORD | {"val_top1_error": 10**400}],
        [RECORD | {"loss": "low"}],
        *([{n: v for n, v in RECORD.items() if n != name}] for name in RECORD if name[0] != "v"),
    ],
}


def changed(meta, name, value):
    """`meta` with another value in one of its fields, or of those of its progress."""
    place = meta["progress"] if name in OF_PROGRESS else meta
    place[name] = value
    return meta


MANY = "mini" + "+tanh" * 2000
NO_SENSE = {
    "a list": lambda meta: [meta],
    "a text": lambda meta: '"format"',
    "null": lambda meta: "null",
    "not JSON": lambda meta: "{",
    "nothing": lambda meta: "",
    "nested": lambda meta: "[" * 200_000,
    "very many changes": lambda meta: (
        meta | {"architecture": MANY, "config": meta["config"] | {"arch": MANY}}
    ),
    "nested values": lambda meta: '{"format":' * 200_000,
}
for name in ("format", "architecture", "classes", "titles", "config", "progress"):
    NO_SENSE[f"no {name}"] = lambda meta, name=name: {n: meta[n] for n in meta if n != name}
for name, values in (FIELDS | OF_PROGRESS).items():
    for i, value in enumerate(values):
        NO_SENSE[f"{name} {i}"] = lambda meta, name=name, value=value: changed(meta, name, value)


@pytest.mark.parametrize("meta", NO_SENSE.values(), ids=NO_SENSE)
def test_a_description_without_sense_is_refused(meta, saved, tmp_path):
    rewrite(tmp_path / "last.npz", saved, meta=meta)
    refused(tmp_path / "last.npz")


def test_the_loss_of_a_run_that_diverges_does_not_make_its_checkpoint_unreadable(state, tmp_path):
    history = [RECORD | {"val_loss": float("nan")}]
    diverging = replace(state, progress=replace(state.progress, history=history))
    checkpoint.save(diverging, tmp_path / "last.npz")
    assert np.isnan(checkpoint.load(tmp_path / "last.npz").progress.history[0]["val_loss"])


IN_LITTLE_MEMORY = """
import resource, sys
from pathlib import Path
from tinyalex.runs.checkpoint import load
from tinyalex.errors import CheckpointError
pages = int(Path("/proc/self/statm").read_text().split()[0])
bound = pages * resource.getpagesize() + 2**28
resource.setrlimit(resource.RLIMIT_AS, (bound, bound))
for path in sys.argv[1:]:
    try:
        load(Path(path))
    except CheckpointError as error:
        print(error)
    else:
        print("sound")
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="memory is bounded as Linux does it")
def test_a_file_that_would_fill_the_memory_is_refused_before_it_does(saved, tmp_path):
    """1 GiB and 4 TB in 256 MiB: a refusal for want of memory would have other words."""
    huge = "{'descr': '<U268435424', 'fortran_order': False, 'shape': (), }"
    many = {name: [""] * 1_000_000 for name in ("classes", "titles")}
    small = {
        "data": {"things": [{}] * (checkpoint_reader.META_BYTES // 16 - 1000)}
    }  # "{}, ", 4 bytes each
    weight = header("{'descr': '<f4', 'fortran_order': False, 'shape': (2097152, 128), }")
    expected = [
        ("sound", lambda path: rewrite(path, saved)),
        (
            "parameter/conv1.bias should be",
            lambda path: rewrite(path, saved, {"parameter/conv1.bias.npy": NOT_AN_ARRAY["4 TB"]}),
        ),
        (
            "parameter/fc8.weight should be",
            lambda path: zeros(path, saved, "parameter/fc8.weight.npy", weight),
        ),
        ("description takes more than", lambda path: zeros(path, saved, "meta.npy", header(huge))),
        ("cannot hold", lambda path: rewrite(path, saved, meta=lambda meta: meta | many)),
        ("recursion", lambda path: rewrite(path, saved, meta=NO_SENSE["nested"])),
        ("sound", lambda path: rewrite(path, saved, meta=lambda meta: meta | small)),
    ]
    paths = [tmp_path / f"{number}.npz" for number in range(len(expected))]
    for path, (_, make) in zip(paths, expected, strict=True):
        make(path)
        assert path.stat().st_size < 10 * 2**20
    argv = [sys.executable, "-c", IN_LITTLE_MEMORY, *map(str, paths)]
    told = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.splitlines()
    for (words, _), line in zip(expected, told, strict=True):
        assert words in line


def test_a_file_that_cannot_be_read_is_not_called_damaged(saved, tmp_path, monkeypatch):
    path = tmp_path / "only.npz"
    path.write_bytes(saved)

    def fail(error):
        def failing(*arguments):
            raise error

        return failing

    monkeypatch.setattr(checkpoint_reader, "open", fail(PermissionError(13, "no")), raising=False)
    with pytest.raises(CheckpointError, match=r"cannot be read: no\. There is no sound"):
        checkpoint.load(path)
    monkeypatch.undo()
    monkeypatch.setattr(checkpoint_reader, "_arrays", fail(MemoryError()))
    with pytest.raises(CheckpointError, match="There is not enough memory to read"):
        checkpoint.load(path)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows says of such a name that it is free")
def test_a_name_that_the_system_does_not_take_is_told(capsys):
    assert main(["eval", "x" * 300]) == 5
    told = capsys.readouterr().err
    assert told.startswith(f"tinyalex: {'x' * 300} cannot be read: File name too long. Give")


def zeros(path, saved, name, start):
    """The checkpoint `saved` with an entry of `start` and 1 GiB of zeros."""
    rewrite(path, saved, {name: None})
    with (
        zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED, compresslevel=1) as file,
        file.open(name, "w") as entry,
    ):
        entry.write(start)
        for _ in range(1024):
            entry.write(bytes(2**20))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("drawn")


def survives(path):
    """What loads, or None for what is refused; any other error is one."""
    try:
        return checkpoint.load(path)
    except CheckpointError:
        return None


SIGNATURES = (b"PK\1\2", b"PK\3\4", b"PK\5\6", b"PK\6\6", b"PK\6\7", b"\x93NUMPY", b"meta.npy")
BYTES = st.lists(st.binary(max_size=30) | st.sampled_from(SIGNATURES)).map(b"".join)


@given(BYTES)
def test_any_bytes_are_refused(folder, content):
    (folder / "any.npz").write_bytes(content)
    assert survives(folder / "any.npz") is None


def edited(content, edits):
    """`content` with some bytes at each place replaced by others."""
    for place, removed, put in edits:
        place %= len(content) + 1
        content = content[:place] + put + content[place + removed :]
    return content


EDITS = st.lists(
    st.tuples(st.integers(0, 10**6), st.integers(0, 8), BYTES | st.just(b"")), min_size=1
)


@given(EDITS)
def test_an_edited_file_is_refused_or_the_same(folder, edits):
    """The file is the small one of format 1, much of which is names, headers and tables."""
    path = folder / "edited.npz"
    path.write_bytes(edited(FORMAT_1.read_bytes(), edits))
    found = survives(path)
    assert found is None or same(found, checkpoint.load(FORMAT_1))


@given(st.sampled_from(["meta", "mean", "velocity/conv1.bias"]), EDITS)
def test_an_edited_entry_with_its_right_sum_does_no_harm(folder, name, edits):
    path, whole = folder / "entry.npz", FORMAT_1.read_bytes()
    with zipfile.ZipFile(FORMAT_1) as file:
        content = edited(file.read(f"{name}.npy"), edits)
    rewrite(path, whole, {f"{name}.npy": content})
    survives(path)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@pytest.mark.slow
@given(st.sampled_from(list(FIELDS | OF_PROGRESS)), VALUES)
def test_any_value_in_the_description_does_no_harm(folder, name, value):
    path = folder / "meta.npz"
    rewrite(path, FORMAT_1.read_bytes(), meta=lambda meta: changed(meta, name, value))
    survives(path)


# Saving


ERRORS = [errno.ENOSPC, errno.EROFS, errno.EXDEV, errno.EIO, errno.EDQUOT]


@pytest.fixture
def fails(monkeypatch):
    """fails(what, number): opening, writing, fsync or replace raises this OSError from now on."""

    def fail(*_):
        raise OSError(fail.number, os.strerror(fail.number))

    class Full(io.FileIO):
        def write(self, data):
            return super().write(data) if self.tell() < 100_000 else fail()

    def start(what, number):
        fail.number = number
        if what == "open":
            monkeypatch.setattr(files, "open", fail, raising=False)
        elif what == "write":
            monkeypatch.setattr(files, "open", Full, raising=False)
        else:
            monkeypatch.setattr(os, what, fail)

    return start


@pytest.mark.parametrize("number", ERRORS, ids=errno.errorcode.get)
@pytest.mark.parametrize("what", ["open", "write", "fsync", "replace"])
def test_a_save_that_fails_leaves_what_was_there(what, number, state, saved, tmp_path, fails):
    path = tmp_path / "last.npz"
    path.write_bytes(saved)
    fails(what, number)
    later = replace(state, progress=replace(state.progress, step=7))
    with pytest.raises(WriteError) as caught:
        checkpoint.save(later, path)
    assert caught.value.exit_code == 6
    assert str(path) in str(caught.value)
    assert os.strerror(number) in str(caught.value)
    assert path.read_bytes() == saved
    assert os.listdir(tmp_path) == ["last.npz"]


def test_a_file_is_on_the_disk_before_it_has_its_name(state, tmp_path, monkeypatch):
    path, done = tmp_path / "last.npz", []
    sync, rename = os.fsync, os.replace

    def fsync(descriptor):
        sync(descriptor)
        status = os.fstat(descriptor)
        done.append("folder" if stat.S_ISDIR(status.st_mode) else f"{status.st_size} bytes")

    def replace(source, target):
        rename(source, target)
        done.append(f"rename to {target}")

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    checkpoint.save(state, path)
    assert done == [f"{path.stat().st_size} bytes", f"rename to {path}", "folder"]


@pytest.mark.skipif(os.name != "posix", reason="only POSIX can sync a folder")
def test_a_name_that_the_disk_does_not_confirm_is_told(state, tmp_path, monkeypatch):
    path, sync = tmp_path / "last.npz", os.fsync

    def fsync(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(number, os.strerror(number))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    number = errno.EIO
    with pytest.raises(WriteError, match="is written, but"):
        checkpoint.save(state, path)
    assert same(checkpoint.load(path), state)
    number = errno.EINVAL  # a file system that cannot do it at all
    checkpoint.save(state, path)


# In a run


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of two steps an epoch that was stopped after three; a killed save was there before."""
    top = tmp_path_factory.mktemp("trained")
    pictures = {
        f"{split}/{name}/{i}.png": picture(value + i)
        for split, count in (("train", 6), ("val", 2))
        for name, value in (("dark", 20), ("light", 200))
        for i in range(count)
    }
    data = written(top / "data", pictures)
    begun = {"config.toml": Config().toml().encode(), "last.npz.partial": b"PK"}
    folder = written(top / "run", begun)
    argv = ["train", "--data", str(data), "--arch", "mini", "-b", "6", "--epochs", "3", "-p", "1"]
    assert main([*argv, "--max-steps", "3", "--output-dir", str(folder)]) == 0
    return folder


@pytest.fixture
def run(trained, tmp_path, capsys):
    capsys.readouterr()
    return shutil.copytree(trained, tmp_path / "run")


def resume(*arguments):
    return main(["train", "--max-steps", "4", "--resume", *map(str, arguments)])


@pytest.mark.slow
def test_a_damaged_last_checkpoint_costs_what_came_after_the_best(run, tmp_path, capsys):
    whole = shutil.copytree(run, tmp_path / "whole")
    assert resume(whole) == 0
    capsys.readouterr()

    damaged = bytearray((run / "last.npz").read_bytes())
    damaged[len(damaged) // 2] ^= 1
    (run / "last.npz").write_bytes(damaged)
    assert resume(run) == 5
    remedy = f"tinyalex train --resume {run / 'best.npz'}"
    assert f"best.npz beside it is sound (epoch 1): {remedy}" in capsys.readouterr().err

    assert resume(run / "best.npz") == 0
    assert "from step 2" in capsys.readouterr().out
    a, b = (checkpoint.load(folder / "last.npz") for folder in (run, whole))
    assert all(np.array_equal(v, b.parameters[name]) for name, v in a.parameters.items())
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [r["step"] for r in lines if r["event"] == "step"] == [1, 2, 3, 4]
    assert [r["epoch"] for r in lines if r["event"] == "epoch"] == [1, 2]


def test_a_run_that_cannot_save_says_so_and_keeps_what_it_had(run, capsys, monkeypatch):
    before, rename = (run / "last.npz").read_bytes(), os.replace

    def full(source, target):
        if str(target).endswith(".npz"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        rename(source, target)

    monkeypatch.setattr(os, "replace", full)
    assert resume(run) == 6
    assert str(run) in capsys.readouterr().err
    assert (run / "last.npz").read_bytes() == before


def test_what_a_killed_save_left_is_swept(trained, run):
    assert not list(trained.glob("*.partial"))
    (run / "best.npz.partial").write_bytes(b"PK")
    assert resume(run) == 0
    assert not list(run.glob("*.partial"))


MOVED = "note: this run was computed until now with"


def test_a_run_that_goes_on_where_it_was_says_nothing_of_it(run, capsys):
    assert checkpoint.load(run / "last.npz").machine == checkpoint.machine()
    assert resume(run) == 0
    assert MOVED not in capsys.readouterr().out


@pytest.mark.slow
def test_a_run_that_goes_on_elsewhere_says_so(run, capsys):
    blas = checkpoint.machine()["blas"]
    if platform.machine() != "x86_64" or not blas.startswith("openblas"):
        pytest.skip(f"OpenBLAS on x86_64 can play another processor, not {blas}")
    other = "Nehalem" if blas.endswith("Haswell") else "Haswell"
    argv = [sys.executable, "-m", "tinyalex", "train", "--max-steps", "4", "--resume", str(run)]
    environment = os.environ | {"OPENBLAS_CORETYPE": other}
    child = subprocess.run(argv, env=environment, capture_output=True, text=True, check=True)
    assert f"{MOVED} blas {blas}; results may differ in the last bit" in child.stdout
    assert checkpoint.load(run / "last.npz").machine["blas"].endswith(other)
