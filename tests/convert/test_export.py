"""What is exported, in the programs that it is for, beside the reference."""

from dataclasses import replace

import numpy as np
import pytest
import weights
from weights import SAME, answers, apart, crops, photos

from tinyalex import convert
from tinyalex.convert import importing
from tinyalex.convert.mappings import TORCHVISION
from tinyalex.errors import UsageError, WriteError
from tinyalex.net.layers import LRN, MaxPool
from tinyalex.net.presets import ARCHITECTURES

IMAGES = 4


def in_onnxruntime(path, state, images):
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    return onnxruntime.InferenceSession(str(path)).run(None, {"images": crops(state, images)})[0]


@pytest.mark.usefixtures("little")
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_onnx_in_onnxruntime(name, tmp_path):
    state = weights.state(name)
    images = photos(IMAGES, state.network.data.image_size)
    convert.write(state, tmp_path / "net.onnx")
    found = in_onnxruntime(tmp_path / "net.onnx", state, images)
    assert apart(found, answers(state, images)) <= SAME


@pytest.mark.usefixtures("little")
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_onnx_in_opencv(name, tmp_path):
    cv2 = pytest.importorskip("cv2", reason="OpenCV is not installed")
    state = weights.state(name)
    images = photos(IMAGES, state.network.data.image_size)
    convert.write(state, tmp_path / "net.onnx")
    net = cv2.dnn.readNetFromONNX(str(tmp_path / "net.onnx"))
    net.setInput(crops(state, images))
    assert apart(net.forward(), answers(state, images)) <= SAME


@pytest.mark.usefixtures("little")
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_onnx_is_sound(name, tmp_path):
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    convert.write(weights.state(name), tmp_path / "net.onnx")
    onnx.checker.check_model(str(tmp_path / "net.onnx"), full_check=True)


IN_CAFFE = set(ARCHITECTURES) - {"2012", "owt-2014", "mini"}


@pytest.mark.usefixtures("little")
@pytest.mark.parametrize("name", sorted(IN_CAFFE))
def test_caffe_in_opencv(name, tmp_path):
    cv2 = pytest.importorskip("cv2", reason="OpenCV is not installed")
    if not hasattr(cv2.dnn, "readNetFromCaffe"):
        pytest.skip("OpenCV has no reader of Caffe's files since its version 5")
    state = weights.state(name)
    images = photos(IMAGES, state.network.data.image_size)
    convert.write(state, tmp_path / "net.caffemodel")
    net = cv2.dnn.readNetFromCaffe(
        *(str(tmp_path / f"net.{e}") for e in ("prototxt", "caffemodel"))
    )
    net.setInput(np.ascontiguousarray(crops(state, images - state.mean)[:, ::-1]))
    assert apart(net.forward(), answers(state, images)) <= SAME


@pytest.mark.usefixtures("little")
@pytest.mark.parametrize("name", sorted(set(ARCHITECTURES) - IN_CAFFE))
def test_what_caffe_cannot_have_is_refused(name, tmp_path):
    with pytest.raises(UsageError, match=r"cannot be written for Caffe: (conv1|pool1) rounds"):
        convert.write(weights.state(name), tmp_path / "net.caffemodel")
    assert not list(tmp_path.iterdir())


def torchvisions(network):
    """torchvision.models.alexnet, its layers and their names, with the channels of a network."""
    from torch import nn

    convs = [row for row in network.rows if row.kind == "conv2d"]
    linears = [row for row in network.rows if row.kind == "linear"]
    features, below = [], 3
    for row in convs:
        features += [nn.Conv2d(below, row.channels, row.size, row.stride, row.pad), nn.ReLU()]
        features += [nn.MaxPool2d(3, 2)] if row.name in ("conv1", "conv2", "conv5") else []
        below = row.channels
    classifier, below = [], 36 * below
    for row in linears:
        last = row is linears[-1]
        classifier += [] if last else [nn.Dropout()]
        classifier += [nn.Linear(below, row.features)] + ([] if last else [nn.ReLU()])
        below = row.features
    return nn.ModuleDict(
        {"features": nn.Sequential(*features), "classifier": nn.Sequential(*classifier)}
    ).eval()


def logits(module, x):
    import torch

    with torch.no_grad():
        maps = torch.nn.functional.adaptive_avg_pool2d(module["features"](torch.tensor(x)), 6)
        return module["classifier"](maps.flatten(1)).numpy()


@pytest.mark.usefixtures("little")
@pytest.mark.parametrize("ending", ["pth", "safetensors"])
@pytest.mark.parametrize("mean", ["torchvision's", "an image"])
def test_owt_in_torchvisions_module(mean, ending, tmp_path):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    state = weights.state("owt")
    if mean == "torchvision's":
        state.mean = np.full_like(state.mean, TORCHVISION.mean)
    (note,) = convert.write(state, tmp_path / f"net.{ending}")
    tensors = loaded(tmp_path / f"net.{ending}")
    module = torchvisions(state.network)
    module.load_state_dict(tensors, strict=mean == "torchvision's")
    assert ("torchvision.models.alexnet(" in note) == (mean == "torchvision's")
    images = photos(IMAGES, 256)
    x = crops(state, images - state.mean) / np.float32(TORCHVISION.std)[:, None, None]
    assert apart(logits(module, x), answers(state, images)) <= SAME
    if mean == "an image":
        expected = torch.tensor(state.mean.transpose(2, 0, 1).copy())
        assert torch.equal(tensors["mean"], expected)


def loaded(path):
    """The tensors of a file by the program that it is for."""
    import torch

    if path.suffix == ".pth":
        return torch.load(path, weights_only=True)
    safetensors = pytest.importorskip("safetensors.torch", reason="safetensors is not installed")
    return safetensors.load_file(path)


# Each mistake that a conversion can make, made on purpose: (network, parameters, mean) to others.


def fc6(parameters, turn):
    """fc6 with its columns, which count (h, w, c) over maps of 6 x 6, in another order."""
    w = parameters["fc6.weight"]
    maps = w.reshape(len(w), 6, 6, -1)
    return parameters | {"fc6.weight": turn(maps).reshape(w.shape)}


def kernels(parameters, turn):
    return {n: turn(a) if a.ndim == 4 else a for n, a in parameters.items()}


def groups_exchanged(parameters):
    def exchanged(name):
        halves = np.split(parameters[name], 2)
        return np.concatenate(halves[::-1])

    return parameters | {f"conv2.{k}": exchanged(f"conv2.{k}") for k in ("weight", "bias")}


def norms(network, **changes):
    rows = tuple(replace(r, **changes) if isinstance(r, LRN) else r for r in network.rows)
    return replace(network, rows=rows)


def pool_first(network):
    rows = list(network.rows)
    for i, row in enumerate(rows[:-1]):
        if isinstance(row, LRN) and isinstance(rows[i + 1], MaxPool):
            rows[i : i + 2] = rows[i + 1], row
    return replace(network, rows=tuple(rows))


def no_norm(network):
    return replace(network, rows=tuple(r for r in network.rows if not isinstance(r, LRN)))


MISTAKES = {
    "B, G, R": lambda n, p, m: (n, p | {"conv1.weight": p["conv1.weight"][..., ::-1]}, m),
    "fc6 as c, h, w": lambda n, p, m: (n, fc6(p, lambda w: w.transpose(0, 3, 1, 2)), m),
    "fc6 h and w exchanged": lambda n, p, m: (n, fc6(p, lambda w: w.transpose(0, 2, 1, 3)), m),
    "kernels transposed": lambda n, p, m: (n, kernels(p, lambda w: w.transpose(0, 2, 1, 3)), m),
    "kernels rotated": lambda n, p, m: (n, kernels(p, lambda w: w[:, ::-1, ::-1]), m),
    "groups exchanged": lambda n, p, m: (n, groups_exchanged(p), m),
    "no mean": lambda n, p, m: (n, p, np.zeros_like(m)),
    "mean per channel": lambda n, p, m: (n, p, np.full_like(m, m.mean((0, 1)))),
    "mean a pixel off": lambda n, p, m: (n, p, np.roll(m, 1, axis=0)),
    "k 2 for 1": lambda n, p, m: (norms(n, k=2), p, m),
    "alpha not divided": lambda n, p, m: (norms(n, alpha=1e-4), p, m),
    "pool before norm": lambda n, p, m: (pool_first(n), p, m),
    "no normalisation": lambda n, p, m: (no_norm(n), p, m),
    "normalisation by towers": lambda n, p, m: (norms(n, groups=2), p, m),
}


@pytest.mark.usefixtures("little")
@pytest.mark.parametrize("mistake", MISTAKES)
@pytest.mark.slow
def test_a_mistake_is_noticed(mistake, tmp_path, tell):
    state, images = weights.state("caffe"), photos(IMAGES, 256)
    network, parameters, mean = MISTAKES[mistake](state.network, state.parameters, state.mean)
    wrong = replace(state, network=network, parameters=parameters, mean=mean)
    convert.write(wrong, tmp_path / "net.onnx")
    found = apart(in_onnxruntime(tmp_path / "net.onnx", state, images), answers(state, images))
    assert found > 2 * SAME
    tell(f"relative L2 {found:.1e}")


# What is written comes back


@pytest.mark.usefixtures("little")
@pytest.mark.parametrize("name", ["alexnet", "2012", "caffenet", "owt", "mini", "cifar-18pct"])
@pytest.mark.parametrize("ending", ["onnx", "safetensors"])
def test_a_network_comes_back_with_its_classes(name, ending, tmp_path):
    """By name and texts; owt's first layer is scaled to torchvision's input and back."""
    state = weights.state(name)
    convert.write(state, tmp_path / f"net.{ending}")
    found, notes = convert.read([str(tmp_path / f"net.{ending}")])
    assert (found.network, found.classes, found.titles) == (
        state.network,
        state.classes,
        state.titles,
    )
    scaled = {"conv1.weight"} if (name, ending) == ("owt", "safetensors") else set()
    for parameter in scaled:
        assert apart(found.parameters[parameter], state.parameters[parameter]) < 1e-6
    rest = {n: a for n, a in state.parameters.items() if n not in scaled}
    assert weights.same_parameters(
        {n: a for n, a in found.parameters.items() if n not in scaled}, rest
    )
    data = state.network.data
    border = (data.image_size - data.size) // 2
    inside = slice(border, border + data.size)  # an ONNX graph has the crop alone
    assert np.array_equal(found.mean[inside, inside], state.mean[inside, inside])
    assert not found.velocities
    assert any("resized" in note for note in notes)


@pytest.mark.usefixtures("little")
@pytest.mark.parametrize("name", ["alexnet", "caffe", "caffenet", "ungrouped", "cifar-18pct"])
def test_caffes_files_come_back_as_the_network_that_computes_the_same(name, tmp_path):
    """k and dropout's factor are in the weights there, and here again where they belong."""
    state = weights.state(name)
    convert.write(state, tmp_path / "net.caffemodel")
    files = [str(tmp_path / f) for f in ("net_mean.binaryproto", "net.caffemodel", "net.prototxt")]
    for given in (files, files[:2]):  # the .caffemodel has the description too
        found, _ = convert.read(given)
        assert found.network.rows == state.network.rows
        for parameter, value in state.parameters.items():
            assert apart(found.parameters[parameter], value) < 1e-6
        assert np.array_equal(found.mean, state.mean)
    if name in ("caffe", "caffenet"):
        assert weights.same_parameters(found.parameters, state.parameters)


@pytest.mark.usefixtures("little")
def test_a_state_dict_comes_back_by_arch_and_classes(tmp_path):
    state = weights.state("caffe")
    convert.write(state, tmp_path / "net.pth")
    with pytest.raises(UsageError, match=r"alexnet, paper, 2012, caffe, caffenet\. .* --arch"):
        convert.read([str(tmp_path / "net.pth")])
    found, notes = convert.read([str(tmp_path / "net.pth")], arch="caffe")
    assert weights.same_parameters(found.parameters, state.parameters)
    assert np.array_equal(found.mean, state.mean)
    assert found.classes[:2] == ("0000", "0001")
    assert any("--classes" in note for note in notes)


# Refusals


def test_an_ending_that_is_not_known_is_refused(tmp_path):
    with pytest.raises(UsageError, match="ending"):
        convert.write(weights.state("mini"), tmp_path / "net.h5")


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(WriteError, match="nowhere"):
        convert.write(weights.state("mini"), tmp_path / "nowhere" / "net.onnx")


def test_whose_way_it_is_is_told_for_each_network():
    """A file of a preset without an entry is taken as tinyalex's: R G B, grey levels."""
    assert set(importing.USUAL) == {"caffe", "caffenet", "owt"}
