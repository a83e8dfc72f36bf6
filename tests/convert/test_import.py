"""What other programs wrote comes in bit for bit, or is refused with what to do."""

import io
import json
import pickle
import struct
from collections import OrderedDict
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import weights
from runs import refused
from test_export import torchvisions
from weights import apart, photos, same_parameters

from tinyalex import convert
from tinyalex.cli.parser import main
from tinyalex.convert import caffe, caffe_reader, caffe_writer
from tinyalex.convert.importing import _named_classes
from tinyalex.convert.mappings import CAFFE, TORCHVISION
from tinyalex.errors import CheckpointError, UsageError
from tinyalex.net.presets import ARCHITECTURES
from tinyalex.runs import checkpoint

LAYERS = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8")

pytestmark = pytest.mark.usefixtures("little")


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason="PyTorch is not installed")


def module(torch, classes=1000):
    """torchvision's alexnet with drawn weights, at the tests' size."""
    torch.manual_seed(0)
    return torchvisions(ARCHITECTURES["owt"].with_classes(classes))


def as_ours(state_dict, name="owt"):
    """A state_dict by torchvision's names as our parameters, written out without our table."""
    found = {}
    names = [n.removesuffix(".weight") for n in state_dict if n.endswith("weight")]
    for ours, theirs in zip(LAYERS, names, strict=True):
        w = state_dict[f"{theirs}.weight"].float().numpy()
        if w.ndim == 4:
            w = np.moveaxis(w, 1, 3)
        elif ours == "fc6":
            w = np.moveaxis(w.reshape(len(w), -1, 6, 6), 1, 3).reshape(len(w), -1)
        if ours == "conv1":
            std = 255 * np.array([0.229, 0.224, 0.225])
            w = w * (1 / (std * ARCHITECTURES[name].data.scale)).astype("f4")
        found[f"{ours}.weight"] = np.ascontiguousarray(w)
        found[f"{ours}.bias"] = state_dict[f"{theirs}.bias"].float().numpy()
    return found


# PyTorch


LAYOUTS = {
    "contiguous": lambda t: t,
    "transposed": lambda t: t.transpose(0, 1).contiguous().transpose(0, 1),
    "channels last": lambda t: t.contiguous(memory_format=_channels_last(t)),
    "a part of a storage": lambda t: _within(t),
    "half": lambda t: t.half(),
    "bfloat16": lambda t: t.bfloat16(),
    "double": lambda t: t.double(),
}


def _channels_last(t):
    import torch

    return torch.channels_last if t.ndim == 4 else torch.contiguous_format


def _within(t):
    import torch

    return torch.cat([t.flatten(), t.flatten()])[t.numel() :].reshape(t.shape)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_a_pth_comes_in_bit_for_bit(form, layout, torch, tmp_path):
    tensors = OrderedDict(
        (n, LAYOUTS[layout](t) if t.ndim > 1 else t) for n, t in module(torch).state_dict().items()
    )
    path = tmp_path / "net.pth"
    torch.save(tensors, path, _use_new_zipfile_serialization=form == "zip")
    found, notes = convert.read([str(path)], classes="ilsvrc2012")
    assert found.network.name == "owt"
    assert same_parameters(found.parameters, as_ours(tensors))
    assert np.array_equal(found.mean[0, 0], np.float32(TORCHVISION.mean))
    assert (found.classes[0], found.titles[0]) == ("n01440764", "tench")
    assert any("torchvision's transforms" in note for note in notes)


@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_tensors_that_share_a_storage(form, torch, tmp_path):
    """As FullyShardedDataParallel and flat optimizers leave them."""
    tensors = module(torch).state_dict()
    flat = torch.cat([t.flatten() for t in tensors.values()])
    parts = flat.split([t.numel() for t in tensors.values()])
    shared = {n: p.reshape(t.shape) for (n, t), p in zip(tensors.items(), parts, strict=True)}
    torch.save(shared, tmp_path / "net.pth", _use_new_zipfile_serialization=form == "zip")
    found, _ = convert.read([str(tmp_path / "net.pth")])
    assert same_parameters(found.parameters, as_ours(tensors))


@pytest.mark.slow
def test_the_checkpoint_of_a_training_script(torch, tmp_path):
    """As pytorch/examples and torchvision's references write them, from DataParallel."""
    net = module(torch, classes=7)
    optimizer = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9)
    net["classifier"](torch.ones(1, net["classifier"][1].in_features)).sum().backward()
    optimizer.step()
    saved = {
        "epoch": 3,
        "arch": "alexnet",
        "state_dict": {f"module.{n}": t for n, t in net.state_dict().items()},
        "best_acc1": torch.tensor(0.5),
        "optimizer": optimizer.state_dict(),
        "args": None,
    }
    torch.save(saved, tmp_path / "net.pth")
    found, notes = convert.read([str(tmp_path / "net.pth")])
    assert same_parameters(found.parameters, as_ours(net.state_dict()))
    assert "The weights are those under 'state_dict' in the file." in notes


def test_parameters_and_other_dictionaries(torch, tmp_path):
    net = module(torch)
    saved = {"model_ema": dict(net.named_parameters()), "note": "best"}
    torch.save(saved, tmp_path / "net.pth")
    found, _ = convert.read([str(tmp_path / "net.pth")])
    assert same_parameters(found.parameters, as_ours(net.state_dict()))

    saved["other"] = dict(net.named_parameters())
    torch.save(saved, tmp_path / "net.pth")
    with pytest.raises(CheckpointError, match="'model_ema', 'other'"):
        convert.read([str(tmp_path / "net.pth")])


@pytest.mark.parametrize("form", ["zip", "legacy"])
@pytest.mark.filterwarnings("ignore:Couldn't retrieve source code")
def test_a_whole_module_is_refused_by_its_name(form, torch, tmp_path, capsys):
    path = tmp_path / "net.pth"
    torch.save(module(torch), path, _use_new_zipfile_serialization=form == "zip")
    argv = ["import", path, "-o", tmp_path / "run"]
    refused(capsys, 5, path, "torch.nn.modules", "torch.save(model.state_dict()", argv=argv)
    assert not (tmp_path / "run").exists()


def test_another_network_is_refused(torch, tmp_path):
    net = module(torch)
    net["features"].append(torch.nn.BatchNorm2d(32))
    torch.save(net.state_dict(), tmp_path / "net.pth")
    with pytest.raises(
        CheckpointError, match=r"more than the weights of owt: features\.13\.weight"
    ):
        convert.read([str(tmp_path / "net.pth")])
    net = module(torch)
    net["classifier"][4] = torch.nn.Linear(32, 16)
    torch.save(net.state_dict(), tmp_path / "net.pth")
    with pytest.raises(CheckpointError, match=r"classifier\.4\.weight has shape \(16, 32\)"):
        convert.read([str(tmp_path / "net.pth")])


def test_names_of_ones_own_are_told_by_shape(torch, tmp_path):
    tensors = module(torch, classes=5).state_dict()
    renamed = {}
    for n, t in reversed(tensors.items()):
        kind = n.rpartition(".")[2]
        renamed[f"layer_{n.removesuffix(kind).strip('.').replace('.', '_')}.{kind}"] = t
    torch.save(renamed, tmp_path / "net.pth")
    with pytest.raises(UsageError, match=r"names that are not known here: layer_.* --arch"):
        convert.read([str(tmp_path / "net.pth")])
    found, notes = convert.read([str(tmp_path / "net.pth")], arch="owt")
    assert same_parameters(found.parameters, as_ours(tensors))
    assert any("layer_features_0" in note for note in notes)
    with pytest.raises(CheckpointError, match="not of caffe: conv1"):
        convert.read([str(tmp_path / "net.pth")], arch="caffe")


def test_names_as_ours_of_another_program(torch, tmp_path):
    """owt is taken to be fed by torchvision's transforms; what is taken for granted is told."""
    tensors = module(torch).state_dict()
    stems = dict.fromkeys(n.rpartition(".")[0] for n in tensors)
    ours = dict(zip(stems, LAYERS, strict=True))
    renamed = {
        f"{ours[stem]}.{kind}": t
        for n, t in tensors.items()
        for stem, _, kind in [n.rpartition(".")]
    }
    torch.save(renamed, tmp_path / "net.pth")
    found, notes = convert.read([str(tmp_path / "net.pth")], arch="owt")
    assert same_parameters(found.parameters, as_ours(tensors))
    assert any("torchvision's transforms" in note for note in notes)

    caffes = {n: torch.tensor(a) for n, a in as_caffes(weights.state("caffe")).items()}
    torch.save(caffes, tmp_path / "net.pth")
    found, notes = convert.read([str(tmp_path / "net.pth")], arch="caffe")
    swapped = weights.state("caffe").parameters["conv1.weight"][..., ::-1]
    assert np.array_equal(found.parameters["conv1.weight"], swapped)
    assert any("taken to be R, G, B" in note for note in notes)


# safetensors


@pytest.mark.parametrize("layout", ["contiguous", "half", "bfloat16", "double"])
def test_safetensors_come_in_bit_for_bit(layout, torch, tmp_path):
    safetensors = pytest.importorskip("safetensors.torch", reason="safetensors is not installed")
    tensors = {n: LAYOUTS[layout](t) for n, t in module(torch).state_dict().items()}
    safetensors.save_file(tensors, tmp_path / "net.safetensors", {"format": "pt"})
    found, _ = convert.read([str(tmp_path / "net.safetensors")])
    assert same_parameters(found.parameters, as_ours(tensors))


# ONNX


@pytest.mark.parametrize("exporter", ["dynamo", "TorchScript"])
@pytest.mark.filterwarnings("ignore")
def test_onnx_of_torchs_exporters(exporter, torch, tmp_path):
    pytest.importorskip("onnx", reason="onnx is not installed")
    if exporter == "dynamo":
        pytest.importorskip("onnxscript", reason="onnxscript is not installed")

    class AlexNet(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.net = module(torch)

        def forward(self, x):
            maps = torch.nn.functional.adaptive_avg_pool2d(self.net["features"](x), 6)
            return self.net["classifier"](torch.flatten(maps, 1))

    net, path = AlexNet().eval(), tmp_path / "net.onnx"
    torch.onnx.export(
        net, (torch.zeros(1, 3, 224, 224),), str(path), dynamo=exporter == "dynamo", verbose=False
    )
    found, notes = convert.read([str(path)])
    assert found.network.name == "owt"
    assert same_parameters(found.parameters, as_ours(net.net.state_dict()))
    beside = tmp_path / "net.onnx.data"
    if beside.exists():
        beside.rename(tmp_path / "elsewhere")
        with pytest.raises(CheckpointError, match="second file"):
            convert.read([str(path)])
    assert any("torchvision's transforms" in note for note in notes)


def zoo_graph(onnx, tmp_path, state, size=None):
    """The bvlc_alexnet of the onnx wheel, its made-up weights replaced by a checkpoint's."""
    light = Path(onnx.__file__).parent / "backend/test/data/light/light_bvlc_alexnet.onnx"
    model = onnx.load(light)
    graph = model.graph
    nodes = [n for n in graph.node if n.op_type not in ("ConstantOfShape", "Softmax")]
    graph.output[0].name = nodes[-1].output[0]
    reshape = next(t for t in graph.initializer if t.name == "OC2_DUMMY_1")
    sizes = np.array([1, state.parameters["fc6.weight"].shape[1]])
    kept = [onnx.numpy_helper.from_array(sizes, reshape.name)]
    for name, value in as_caffes(state).items():
        layer, kind = name.split(".")
        kept.append(onnx.numpy_helper.from_array(value, f"{layer}_{kind[0]}_0"))
    images = graph.input[0]
    if size:
        for axis in (2, 3):
            images.type.tensor_type.shape.dim[axis].dim_value = size
    for field, values in (("node", nodes), ("initializer", kept), ("input", [images])):
        copies = [type(v).FromString(v.SerializeToString()) for v in values]
        graph.ClearField(field)
        getattr(graph, field).extend(copies)
    path = tmp_path / "zoo.onnx"
    onnx.save(model, path)
    return path


def as_caffes(state):
    """Our parameters of one of Caffe's networks, in its order, written out without our table."""
    found = {}
    for name, value in state.parameters.items():
        if name == "conv1.weight":
            value = value[..., ::-1]
        if value.ndim == 4:
            value = np.moveaxis(value, 3, 1)
        elif name == "fc6.weight":
            value = np.moveaxis(value.reshape(len(value), 6, 6, -1), 3, 1).reshape(len(value), -1)
        found[name] = np.ascontiguousarray(value)
    return found


def test_the_zoos_graph_is_caffe_at_227(tmp_path, tell):
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    state, images = weights.state("caffe"), photos(1, 256)
    state.mean = np.full_like(state.mean, CAFFE.usual)
    found, notes = convert.read([str(zoo_graph(onnx, tmp_path, state))])
    assert found.network == state.network
    assert same_parameters(found.parameters, state.parameters)
    assert np.array_equal(found.mean, state.mean)
    assert any("224 pixels, where caffe has 227" in note for note in notes)
    assert any("B, G, R" in note for note in notes)

    def in_onnxruntime(size):
        path, at = zoo_graph(onnx, tmp_path, state, size), (256 - size) // 2
        x = (images - state.mean)[:, at : at + size, at : at + size, ::-1].transpose(0, 3, 1, 2)
        session = onnxruntime.InferenceSession(str(path))
        (logits,) = session.run(None, {"data_0": np.ascontiguousarray(x, np.float32)})
        return logits

    ours = weights.answers(found, images)
    at_227, at_224 = apart(in_onnxruntime(227), ours), apart(in_onnxruntime(224), ours)
    assert at_227 <= weights.SAME
    assert at_224 > 1e-2
    tell(f"the zoo's graph beside caffe: at 227 {at_227:.1e}, as declared at 224 {at_224:.1e}")


def test_a_graph_of_another_network_is_refused(torch, tmp_path):
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    state = weights.state("caffe")
    path = zoo_graph(onnx, tmp_path, state)
    model = onnx.load(path)
    norm = next(n for n in model.graph.node if n.op_type == "LRN")
    next(a for a in norm.attribute if a.name == "alpha").f = 3e-4
    onnx.save(model, path)
    with pytest.raises(CheckpointError, match="alpha / k 6e-05"):
        convert.read([str(path)])
    norm.op_type = "Sigmoid"
    onnx.save(model, path)
    with pytest.raises(CheckpointError, match="a node Sigmoid"):
        convert.read([str(path)])


# Caffe


def caffemodel(state, path, v1=False, legacy=False, described=True):
    """A .caffemodel made with Google's protobuf from messages of its own."""
    descriptor_pb2 = pytest.importorskip(
        "google.protobuf.descriptor_pb2", reason="protobuf is not installed"
    )
    from google.protobuf import descriptor_pool, message_factory

    types = descriptor_pb2.FieldDescriptorProto
    kinds = {int: types.TYPE_INT64, float: types.TYPE_FLOAT, str: types.TYPE_STRING}
    file = descriptor_pb2.FileDescriptorProto(name=f"c{v1}{legacy}.proto", syntax="proto2")

    def declared(name, schema):
        message = file.message_type.add(name=name)
        for field, (number, kind) in schema.items():
            own = message.field.add(name=field, number=number, label=types.LABEL_REPEATED)
            if isinstance(kind, dict):
                own.type, own.type_name = types.TYPE_MESSAGE, f"{name}_{field}"
                declared(f"{name}_{field}", kind)
            else:
                own.type = kinds.get(kind, types.TYPE_INT64)
            if (name.endswith("blobs") and field == "data") or name.endswith("shape"):
                own.options.packed = True
        return message

    blob = {**caffe.BLOB, "data": (caffe.DATA, float)}
    layer = {**(caffe.V1_LAYER if v1 else caffe.LAYER)}
    number, _ = layer["blobs"]
    layer["blobs"] = (number, blob)
    declared("Net", {"name": (1, str), ("layers" if v1 else "layer"): (2 if v1 else 100, layer)})
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    net = message_factory.GetMessageClass(pool.FindMessageTypeByName("Net"))()
    net.name.append("AlexNet")
    words = {word: code for code, word in caffe.V1_TYPES.items()}
    every = net.layers if v1 else net.layer
    for described_layer in caffe_writer._described(state.network, state.parameters):
        added = every.add()
        for field, items in described_layer.items():
            if not described and field.endswith("_param"):
                continue
            for item in items:
                if field == "type":
                    added.type.append(words[item] if v1 else item)
                elif field == "blobs":
                    filled = added.blobs.add()
                    filled.data.extend(item.numbers().ravel().tolist())
                    if legacy:
                        shape = (1,) * (4 - len(item.shape)) + item.shape
                        for axis, n in zip(
                            ("num", "channels", "height", "width"), shape, strict=True
                        ):
                            getattr(filled, axis).append(n)
                    else:
                        filled.shape.add().dim.extend(item.shape)
                elif isinstance(item, dict):
                    inner = getattr(added, field).add()
                    for key, values in item.items():
                        schema = layer[field][1][key][1]
                        codes = [
                            schema.index(v) if isinstance(schema, tuple) else v for v in values
                        ]
                        getattr(inner, key).extend(codes)
                else:
                    getattr(added, field).append(item)
    path.write_bytes(net.SerializeToString())
    return path


@pytest.mark.parametrize("v1", [True, False])
@pytest.mark.parametrize("legacy", [True, False])
@pytest.mark.parametrize("name", ["caffe", "caffenet"])
def test_a_caffemodel_comes_in_bit_for_bit(name, legacy, v1, tmp_path):
    state = weights.state(name)
    path = caffemodel(state, tmp_path / "net.caffemodel", v1, legacy)
    found, notes = convert.read([str(path)])
    assert found.network == state.network
    assert same_parameters(found.parameters, state.parameters)
    assert any("no mean image" in note for note in notes)
    assert any("B, G, R" in note for note in notes)


# The deploy.prototxt and the train_val.prototxt of Caffe, what they have in common with a network.
V1_TEXT = """
name: "AlexNet"  # of 2014
input: "data" input_dim: 10 input_dim: 3 input_dim: 227 input_dim: 227
layers { name: "conv1" type: CONVOLUTION bottom: "data" top: "conv1" blobs_lr: 1
  convolution_param { num_output: 12 kernel_size: 11 stride: 4
    weight_filler { type: "gaussian" std: 0.01 } } }
layers { name: "relu1" type: RELU bottom: "conv1" top: "conv1" }
"""


def prototxt(network, pool_first=False):
    """A train_val.prototxt as Caffe's examples have it, with layers of data and of loss."""
    text = """
name: "AlexNet"
layer { name: "data" type: "Data" top: "data" top: "label" include { phase: TRAIN }
  transform_param { mirror: true crop_size: 227 mean_file: "data/imagenet_mean.binaryproto" }
  data_param { source: "train_lmdb" batch_size: 256 backend: LMDB } }
layer { name: "data" type: "Data" top: "data" top: "label" include { phase: TEST } }
"""
    at = "data"
    for row in network.rows[1:]:
        param, top = "", row.name
        match row.kind:
            case "conv2d":
                kind = "Convolution"
                param = (
                    f"convolution_param {{ num_output: {row.channels} pad: {row.pad} "
                    f"kernel_size: {row.size} stride: {row.stride} group: {row.groups} }}"
                )
            case "linear":
                kind, param = (
                    "InnerProduct",
                    f"inner_product_param {{ num_output: {row.features} }}",
                )
            case "lrn":
                kind, param = "LRN", "lrn_param { local_size: 5 alpha: 0.0001 beta: 0.75 }"
            case "max_pool":
                kind = "Pooling"
                param = (
                    f"pooling_param {{ pool: MAX kernel_size: {row.size} stride: {row.stride} }}"
                )
            case "relu":
                kind, top = "ReLU", at
            case "dropout":
                kind, top, param = "Dropout", at, "dropout_param { dropout_ratio: 0.5 }"
        text += (
            f'layer {{ name: "{row.name}" type: "{kind}" bottom: "{at}" top: "{top}" {param} }}\n'
        )
        at = top
    return (
        text
        + """
layer { name: "accuracy" type: "Accuracy" bottom: "fc8" bottom: "label" top: "accuracy" }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc8" bottom: "label" top: "loss" }
"""
    )


@pytest.mark.parametrize("name", ["caffe", "caffenet"])
def test_a_prototxt_tells_caffes_two_networks_apart(name, tmp_path):
    """The .caffemodel has nothing but blobs here."""
    state = weights.state(name)
    model = caffemodel(state, tmp_path / "net.caffemodel", described=False)
    text = tmp_path / "train_val.prototxt"
    text.write_text(prototxt(state.network))
    found, _ = convert.read([str(text), str(model)])
    assert found.network == state.network
    assert same_parameters(found.parameters, state.parameters)
    with pytest.raises(UsageError, match="alexnet, paper, 2012, caffe, caffenet"):
        convert.read([str(model)])
    found, _ = convert.read([str(model)], arch=name)
    assert same_parameters(found.parameters, state.parameters)


def test_a_prototxt_that_says_otherwise_than_arch_is_refused(tmp_path):
    state = weights.state("caffe")
    convert.write(state, tmp_path / "net.caffemodel")
    files = [str(tmp_path / "net.caffemodel"), str(tmp_path / "net.prototxt")]
    with pytest.raises(CheckpointError, match="not caffenet: where caffenet has max_pool"):
        convert.read(files, arch="caffenet")


def test_a_prototxt_in_the_words_of_2014(tmp_path):
    (tmp_path / "deploy.prototxt").write_text(V1_TEXT)
    chain = caffe_reader.read_prototxt(tmp_path / "deploy.prototxt")
    data, conv, relu = chain.rows
    assert (data.size, conv.channels, conv.size, conv.stride, relu.kind) == (227, 12, 11, 4, "relu")


def test_values_of_the_mean_in_a_prototxt(tmp_path):
    state = weights.state("caffe")
    model = caffemodel(state, tmp_path / "net.caffemodel", described=False)
    text = prototxt(state.network).replace(
        'mean_file: "data/imagenet_mean.binaryproto"',
        "mean_value: 104 mean_value: 117 mean_value: 123",
    )
    (tmp_path / "net.prototxt").write_text(text)
    found, notes = convert.read([str(model), str(tmp_path / "net.prototxt")])
    assert found.mean[9, 9].tolist() == [123, 117, 104]
    assert not any("no mean image" in note for note in notes)


def test_a_mean_image_by_itself(tmp_path):
    """Of the whole size, of the crop's, and in NumPy's file with Caffe's axes."""
    state = weights.state("caffe")
    convert.write(state, tmp_path / "net.caffemodel")
    model = str(tmp_path / "net.caffemodel")
    np.save(tmp_path / "mean.npy", state.mean.transpose(2, 0, 1)[::-1])
    for mean in ("net_mean.binaryproto", "mean.npy"):
        found, _ = convert.read([model], mean=str(tmp_path / mean))
        assert np.array_equal(found.mean, state.mean)
    np.save(tmp_path / "mean.npy", state.mean[14:241, 14:241].astype(np.float64))
    found, _ = convert.read([model], mean=str(tmp_path / "mean.npy"))
    assert np.array_equal(found.mean[14:241, 14:241], state.mean[14:241, 14:241])
    assert np.array_equal(found.mean[0, 14:241], state.mean[14, 14:241])
    np.save(tmp_path / "mean.npy", np.zeros((3, 300, 300)))
    with pytest.raises(UsageError, match="300 x 300 x 3"):
        convert.read([model], mean=str(tmp_path / "mean.npy"))


# NumPy's dictionary


class Python2(pickle._Pickler):
    """What Python 2 wrote: texts and arrays as strings of bytes, NumPy's modules of then."""

    def save_str(self, text):
        self.write(b"U" + bytes([len(text)]) + text.encode())
        self.memoize(text)

    def save_bytes(self, raw):
        self.write(b"T" + struct.pack("<i", len(raw)) + raw)
        self.memoize(raw)

    dispatch: ClassVar = pickle._Pickler.dispatch | {str: save_str, bytes: save_bytes}


def bvlc(state, path, python, order="C"):
    """bvlc_alexnet.npy: (height, width, in, out), the maps of fc6 as (h, w, c)."""
    layers = {}
    for layer in LAYERS:
        w, b = (state.parameters[f"{layer}.{kind}"] for kind in ("weight", "bias"))
        w = w[..., ::-1] if layer == "conv1" else w
        w = np.moveaxis(w, 0, 3) if w.ndim == 4 else w.T
        layers[layer] = [np.array(w, order=order), b]
    if python == 3:
        np.save(path, layers)
        return
    file = io.BytesIO()
    Python2(file, 2).dump(np.array(layers, dtype=object))
    head = b"{'descr': '|O', 'fortran_order': False, 'shape': (), }"
    head += b" " * (-(len(head) + 11) % 16) + b"\n"
    content = file.getvalue().replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + content)


@pytest.mark.parametrize("python", [2, 3])
@pytest.mark.parametrize("order", ["C", "F"])
def test_a_pickled_dictionary_comes_in_bit_for_bit(python, order, tmp_path):
    state = weights.state("caffe")
    bvlc(state, tmp_path / "bvlc_alexnet.npy", python, order)
    found, notes = convert.read([str(tmp_path / "bvlc_alexnet.npy")])
    assert found.network == state.network
    assert same_parameters(found.parameters, state.parameters)
    assert any("B, G, R" in note for note in notes)


# Classes


def test_the_table_of_classes():
    classes, titles = _named_classes("ilsvrc2012")
    assert len(set(classes)) == len(set(titles)) == 1000
    assert list(classes) == sorted(classes)
    assert dict(zip(classes, titles, strict=True))["n02123045"] == "tabby"
    assert (classes[0], titles[-1]) == ("n01440764", "toilet tissue")


@pytest.fixture
def ten(tmp_path):
    """A file of mini, with 10 outputs and no names for them."""
    state = weights.state("mini")
    convert.write(state, tmp_path / "net.pth")
    return str(tmp_path / "net.pth")


def test_classes_by_a_text_a_run_and_a_data_set(ten, tmp_path):
    text = tmp_path / "classes.txt"
    text.write_text("".join(f"n0000000{i} thing {i}, a thing\n" for i in range(10)))
    found, _ = convert.read([ten], arch="mini", classes=str(text))
    assert (found.classes[3], found.titles[3]) == ("n00000003", "thing 3")
    text.write_text("".join(f"a kind of {i}\n\n" for i in range(10)))
    found, _ = convert.read([ten], arch="mini", classes=str(text))
    assert found.classes[3] == found.titles[3] == "a kind of 3"

    convert.save_run(found, str(tmp_path / "run"))
    again, _ = convert.read([ten], arch="mini", classes=str(tmp_path / "run"))
    assert again.classes == found.classes

    from trees import classes_of, written

    photos = written(tmp_path / "photos", classes_of(**{f"k{i}": 1 for i in range(10)}))
    found, _ = convert.read([ten], arch="mini", classes=str(photos or tmp_path / "photos"))
    assert found.classes == tuple(f"k{i}" for i in range(10))


def test_other_numbers_of_classes_are_refused(ten, tmp_path, capsys):
    argv = ["import", ten, "--arch", "mini", "--classes", "ilsvrc2012", "-o", tmp_path / "run"]
    refused(capsys, 2, "1000 classes", "10 outputs", argv=argv)
    argv[5] = tmp_path / "nowhere.txt"
    refused(capsys, 2, "nowhere.txt", "ilsvrc2012", argv=argv)
    assert not (tmp_path / "run").exists()


# Kinds that are named and not read


def foreign(folder):
    """A file of each kind, as far as it is recognised by, and a word of the answer."""
    np.savez(folder / "chainer.npz", **{"conv1/W": np.zeros(3)})
    yield folder / "chainer.npz", "f[name + '/W']"
    for name, head, word in (
        ("keras.h5", b"\x89HDF\r\n\x1a\n", "h5py"),
        ("imagenet-caffe-alex.mat", b"MATLAB 5.0 MAT-file, Platform", "scipy.io.loadmat"),
        ("alexnet.params", (0x112).to_bytes(8, "little"), "mx.nd.load"),
        ("alexnet.pdparams", pickle.dumps({"conv1": 1}, protocol=2), "paddle.load"),
        ("model.ckpt.index", b"\0\0\1", "load_checkpoint"),
    ):
        (folder / name).write_bytes(head + bytes(64))
        yield folder / name, word


def test_other_kinds_are_named_with_lines_that_convert_them(tmp_path, capsys):
    for path, word in foreign(tmp_path):
        assert main(["import", str(path), "-o", str(tmp_path / "run")]) == 5
        told = capsys.readouterr().err
        assert str(path) in told
        assert word in told
        (lines,) = told.split("\n\n")[1:2]
        compile(lines, "lines", "exec")


def test_the_lines_for_chainer_convert_it(tmp_path, capsys, monkeypatch):
    """`ungrouped` has its shapes; ours has dropout x .5 at test, Chainer's is inverted."""
    pytest.importorskip("safetensors", reason="safetensors is not installed")
    state = weights.state("ungrouped")
    arrays = {}
    for name, value in as_caffes(state).items():
        layer, kind = name.split(".")
        value = value[:, ::-1] if name == "conv1.weight" else value
        arrays[f"{layer}/{'W' if kind == 'weight' else 'b'}"] = value
    np.savez(tmp_path / "chainer.npz", **arrays)
    monkeypatch.chdir(tmp_path)
    assert main(["import", "chainer.npz", "-o", "run"]) == 5
    exec(capsys.readouterr().err.split("\n\n")[1], {})
    found, _ = convert.read(["weights.safetensors"], arch="ungrouped")
    assert same_parameters(found.parameters, state.parameters)


def test_what_is_no_file_of_weights(tmp_path, capsys):
    (tmp_path / "a.txt").write_bytes(b"\xff" * 100)
    (tmp_path / "empty.pth").touch()
    convert.save_run(weights.state("mini"), str(tmp_path / "mine"))
    for name, *words in (
        ("nowhere.pth", "cannot be read"),
        ("a.txt", "no kind that is known"),
        ("empty.pth", "0 bytes"),
        ("mine/last.npz", "already: use it as a RUN"),
    ):
        argv = ["import", tmp_path / name, "-o", tmp_path / "run"]
        refused(capsys, 5, tmp_path / name, *words, argv=argv)
    (tmp_path / "net.prototxt").write_text(V1_TEXT)
    argv = ["import", tmp_path / "net.prototxt", "-o", tmp_path / "run"]
    refused(capsys, 2, "no weights", argv=argv)


# The command, and a run without velocities


def test_an_imported_run_is_one_of_weights_alone(tmp_path, capsys):
    state = weights.state("mini")
    convert.write(state, tmp_path / "net.onnx")
    run = tmp_path / "run"
    assert main(["import", str(tmp_path / "net.onnx"), "-o", str(run)]) == 0
    out = capsys.readouterr().out
    assert "mini: 77,002 parameters, 10 classes" in out
    found = checkpoint.load(run / "last.npz")
    assert same_parameters(found.parameters, state.parameters)
    assert not found.velocities
    nbytes = sum(a.nbytes for a in state.parameters.values()) + state.mean.nbytes
    assert (run / "last.npz").stat().st_size < 1.1 * nbytes

    refused(capsys, 5, "no velocities", f"--weights {run}", argv=["train", "--resume", run])
    argv = ["import", tmp_path / "net.onnx", "-o", run]
    refused(capsys, 2, "already holds a run", argv=argv)


def test_export_of_a_run_makes_one_without_velocities(tmp_path, capsys):
    state = weights.state("mini")
    convert.save_run(state, str(tmp_path / "run"))
    assert main(["export", str(tmp_path / "run"), "-o", str(tmp_path / "run2")]) == 0
    assert "not resumed" in capsys.readouterr().out
    found = checkpoint.load(tmp_path / "run2" / "last.npz")
    assert same_parameters(found.parameters, state.parameters)


def test_what_the_file_says_of_itself_is_kept(tmp_path):
    convert.write(weights.state("mini"), tmp_path / "net.safetensors")
    content = (tmp_path / "net.safetensors").read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    assert header["__metadata__"]["tinyalex.architecture"] == "mini"
