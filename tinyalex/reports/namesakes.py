"""Networks of other programs that are called AlexNet, as rows, read off as the presets are.

All were opened in November 2026; a name after `at` is the commit that was read.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from tinyalex.net.layers import LRN, Dropout
from tinyalex.net.presets import ARCHITECTURES, Architecture, Recipe
from tinyalex.net.variants import Rows, drop
from tinyalex.reports.differences import ASPECTS, differing

SHOWN = (
    "input, pixels", "filters of conv1 to conv5", "groups of conv1 to conv5", "maps", "layer 1",
    "layer 2", "normalisation", "dropout", "parameters", "multiply-adds",
)  # fmt: skip
START, PRESET = "initial values", "the same network here"


@dataclass(frozen=True)
class Namesake:
    """Another program's network.

    rows: its layers as ours would have them; none if `told` says all. start: how its weights and
    biases begin. preset: which network of ours it is, and what else to heed. told: aspects that
    rows do not say, by name.
    """

    name: str
    source: str
    rows: Rows
    start: str
    preset: str
    told: Mapping[str, str] = field(default_factory=dict)

    def aspects(self) -> dict[str, str]:
        """Aspects by name, as they read for this network."""
        network = Architecture(self.name, self.source, self.rows, Recipe(epochs=1))
        read = {a.name: a.value(network) for a in ASPECTS if self.rows and a.name in SHOWN}
        return read | dict(self.told) | {START: self.start, PRESET: self.preset}


def namesakes() -> dict[str, Any]:
    """The table as `differences.table` prints it and as JSON."""
    sources = {a.name: a.source for a in ASPECTS if a.name in SHOWN} | {START: "", PRESET: ""}
    values = {n.name: n.aspects() for n in NAMESAKES}
    return {
        "networks": {n.name: n.source for n in NAMESAKES},
        "differences": differing(values, dict.fromkeys(sources, "")),
    }


def _with(rows: Rows, size: int | None = None, **settings: Mapping[str, Any]) -> Rows:
    """Rows with other settings, by the name of a row or of a kind; size: of the input."""
    own = dict(settings)
    if size:
        own["data"] = {"size": size, "scale": 1.0}
    return tuple(replace(row, **{**own.get(row.kind, {}), **own.get(row.name, {})}) for row in rows)


def _dropping_behind(rows: Rows) -> Rows:
    """The rows of `owt` with dropout behind fc6 and fc7, not before them."""
    *below, fc6, relu6, fc7, relu7, fc8 = drop(Dropout)(rows)
    drop6, drop7 = (row for row in rows if isinstance(row, Dropout))
    return (*below, fc6, relu6, drop6, fc7, relu7, drop7, fc8)


def _dl4j() -> Rows:
    """Rows of DL4J's, whose second pool precedes its normalisation, and dropout fc7 alone."""
    rows = [r for r in _with(_WIDE, 224, pool1={"ceil": True}) if r.name != "drop7"]
    at = [row.name for row in rows].index("norm2")
    rows[at : at + 2] = rows[at + 1], rows[at]
    return tuple(rows)


_CAFFE, _CAFFENET, _OWT, _OWT_2014, _UNGROUPED = (
    ARCHITECTURES[name].rows for name in ("caffe", "caffenet", "owt", "owt-2014", "ungrouped")
)
_WIDE = _with(_UNGROUPED, dropout={"scale_at": "train"})

NAMESAKES = (
    Namesake(
        "torchvision",
        "0.29.1, torchvision/models/alexnet.py; R's torch, tch-rs and Metalhead have these layers",
        _OWT,
        "uniform within 1/sqrt(inputs), biases too",
        "owt; there biases are decayed, too",
    ),
    Namesake(
        "paddle",
        "3.3.1, python/paddle/vision/models/alexnet.py at 076ae7e",
        _with(_OWT, dropout={"scale_at": "test"}),
        "as torchvision's, but fc7 and fc8 within fc6's bound",
        "owt, but for dropout, which halves at test (downscale_in_infer)",
    ),
    Namesake(
        "gluon",
        "MXNet 1.9.1, gluon/model_zoo/vision/alexnet.py; at 083920a dropout stands before fc6",
        _dropping_behind(_OWT),
        "uniform within .07, biases 0",
        "owt; fc6 takes what comes: 74,732,328 parameters at 256 pixels",
    ),
    Namesake(
        "mxnet-symbols",
        "example/image-classification/symbols/alexnet.py at 1083d0f, at its default size",
        _with(_CAFFENET, 224, conv2d={"groups": 1}),
        "the caller's",
        "none: caffenet without groups, on 5 x 5 maps; at 227 62,378,344 parameters",
    ),
    Namesake(
        "caffe2",
        "caffe2/python/convnet_benchmarks.py at 11f4b15",
        drop(Dropout)(_OWT),
        "Xavier, biases 0",
        "owt, trained without dropout",
    ),
    Namesake(
        "cuda-convnet2",
        "layers/layers-imagenet-1gpu.cfg: Krizhevsky's own of 'One weird trick'",
        _OWT_2014,
        "normal .01, conv3 to conv5 .03; biases 1, of conv1 and conv3 0, of fc8 -7",
        "owt-2014",
    ),
    Namesake(
        "tf-slim",
        "1.1.0, tf_slim/nets/alexnet.py, alexnet_v2; of 227 pixels it makes 2 x 2 answers",
        _with(_dropping_behind(_OWT), 224, conv1={"pad": 0}, conv4={"channels": 384}),
        "convolutions Xavier, fc normal .005 cut at 2 std; biases .1, of fc8 0",
        "none: it cites owt-2014, and has no normalisation, 384 filters in conv4, 5 x 5 maps",
    ),
    Namesake(
        "onnx-zoo",
        "bvlc_alexnet, whose graph onnx 1.23.2 has in backend/test/data/light",
        _with(_CAFFE, 224, pool5={"ceil": True}),
        "trained: caffe's",
        "caffe when run at 227; at its own 224 the logits are 20 % off",
    ),
    Namesake(
        "caffe",
        "models/bvlc_alexnet/train_val.prototxt at 9b89154; Open Model Zoo has it from there",
        _CAFFE,
        "normal .01, fc6 and fc7 .005; biases .1 on conv2, conv4, conv5, fc6, fc7",
        "caffe",
    ),
    Namesake(
        "matconvnet",
        "examples/imagenet/cnn_imagenet_init.m at 128fe17",
        _CAFFE,
        "normal .01, biases 0",
        "caffe",
    ),
    Namesake(
        "theano_alexnet",
        "uoguelph-mlrg/theano_alexnet, alex_net.py at 413f892, lib/layers.py at 96316ea",
        _with(_CAFFENET, dropout={"scale_at": "test"}, lrn={"k": 2.0, "alpha": 1e-4}),
        "normal .01, fc6 and fc7 .005; biases .1 on conv2, conv4, fc6, fc7",
        "none: caffenet with the paper's k and alpha, and dropout that halves at test",
    ),
    Namesake(
        "chainer",
        "7.8.1, examples/imagenet/alex.py at 049909b",
        _WIDE,
        "normal 1/sqrt(inputs), biases 0",
        "ungrouped, but for inverted dropout: logits are 4 times ungrouped's",
    ),
    Namesake(
        "darknet",
        "cfg/alexnet.cfg at f6afaab; there pad=1 means half the window",
        drop(LRN)(_WIDE),
        "convolutions normal sqrt(2/inputs), fc uniform within the same; biases 0",
        "none: ungrouped without normalisation",
    ),
    Namesake(
        "pytorchcv",
        "0.0.74, pytorchcv/models/alexnet.py, alexnet",
        _with(_WIDE, 224, lrn={"alpha": 2e-5}, max_pool={"ceil": True}),
        "convolutions He uniform, biases 0; fc as torchvision's",
        "none: ungrouped on maps of 54 and 27",
    ),
    Namesake(
        "pytorchcv-b",
        "0.0.74, pytorchcv/models/alexnet.py, alexnetb",
        _dropping_behind(_OWT),
        "as pytorchcv's",
        "owt",
    ),
    Namesake(
        "dl4j",
        "deeplearning4j-zoo, AlexNet.java at 2c69d8d",
        _dl4j(),
        "normal .01, fc .005; biases 1 on conv2, conv4, conv5, fc6, fc7, of fc8 .1",
        "none: ungrouped, its second pool before its normalisation",
    ),
    Namesake(
        "dl4j-2017",
        "the same at 0b5e37f, which marks the strides of conv2 (2) and pool5 (7) as to be mended",
        (),
        "normal .01, fc6 and fc7 .005; biases 1 on conv2, conv4, conv5, fc6, fc7",
        "none",
        {
            "input, pixels": "224, 2 zeros around",
            "filters of conv1 to conv5": "64-192-384-256-256",
            "groups of conv1 to conv5": "1 1 1 1 1",
            "maps": "55-28-7-1",
            "layer 1": "conv, ReLU, pool",
            "layer 2": "conv, ReLU, pool",
            "normalisation": "none",
            "dropout": "inverted; before every layer",
            "parameters": "24,400,680",
            "multiply-adds": "257,177,280",
        },
    ),
    Namesake(
        "cntk",
        "AlexNet_ImageNet_Distributed.py at 08ae3b7; a default of the file pads its pools",
        (),
        "normal .01, fc6 and fc7 .005; biases .1 on conv2, conv4, conv5, fc6, fc7",
        "none: caffe without groups, with 192 filters in conv2",
        {
            "input, pixels": "227",
            "filters of conv1 to conv5": "96-192-384-384-256",
            "groups of conv1 to conv5": "1 1 1 1 1",
            "maps": "55-28-14-7",
            "layer 1": "conv, ReLU, norm, pool",
            "layer 2": "conv, ReLU, norm, pool",
            "normalisation": "k 1, alpha 2e-05, all channels",
            "dropout": "inverted, in training; after fc6 and fc7",
            "parameters": "75,634,984",
            "multiply-adds": "1,102,512,672",
        },
    ),
)
