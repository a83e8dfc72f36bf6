#!/usr/bin/env bash
# The ONNX model zoo's bvlc_alexnet has Caffe's parameters, not Caffe's maps.
#
# Expected: Caffe's bvlc_alexnet, 227 pixels, maps of 55, 27, 13 and 6 pixels.
# Happens: the graph declares 224 pixels and rounds down: 54, 26, 12; the last pool then pads one
# pixel right and below to reach the 6 x 6 for which fc6 was trained. Each of the 60,965,224
# parameters fits, so nothing complains; every pixel of the maps sees another place. With the same
# random weights on the same pictures, of which it takes the middle, its logits are 15 to 20 % off
# those of Caffe's geometry (227 pixels, pools rounded up), which the same graph gives when its input
# and pools are changed. On photos: 16 %, and another first class for one of four.
# Source: onnx/backend/test/data/light/light_bvlc_alexnet.onnx in the wheel; asked, and answered with
# "not sensitive to the input size", in https://github.com/onnx/models/issues/7, and
# https://github.com/onnx/models/issues/5 on the padding; low accuracy: /issues/453
# Hurts: who compares an implementation with Caffe's by way of this file, or wonders at its accuracy.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6
cd "$folder"
venv/bin/python - <<'PYTHON'
import math
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

print("onnx", onnx.__version__, "onnxruntime", onnxruntime.__version__)
onnxruntime.set_default_logger_severity(3)
FILE = Path(onnx.__file__).parent / "backend/test/data/light/light_bvlc_alexnet.onnx"
model = onnx.load(FILE)
inputs = {i.name: [d.dim_value for d in i.type.tensor_type.shape.dim] for i in model.graph.input}
print("input", inputs["data_0"])
assert inputs["data_0"] == [1, 3, 224, 224]

INPUTS = {  # of a neuron
    "conv1": (96, 3, 11, 11), "conv2": (256, 48, 5, 5), "conv3": (384, 256, 3, 3),
    "conv4": (384, 192, 3, 3), "conv5": (256, 192, 3, 3), "fc6": (4096, 9216),
    "fc7": (4096, 4096), "fc8": (1000, 4096),
}
rng = np.random.default_rng(0)
weights = {}
for name, shape in INPUTS.items():
    spread = np.float32(math.sqrt(2 / math.prod(shape[1:])))
    weights[f"{name}_w_0"] = rng.standard_normal(shape, np.float32) * spread
    weights[f"{name}_b_0"] = rng.standard_normal(shape[0], np.float32) * np.float32(0.1)
print(f"parameters {sum(w.size for w in weights.values()):,}")
POOLS = [n.output[0] for n in model.graph.node if n.op_type == "MaxPool"]
LOGITS = next(n.input[0] for n in model.graph.node if n.op_type == "Softmax")


def run(x, as_caffe):
    """The maps of conv1 and the pools, and the logits."""
    changed = onnx.load(FILE)
    graph = changed.graph
    kept = [n for n in graph.node if n.op_type not in ("ConstantOfShape", "Softmax")]
    for node in kept:
        for a in node.attribute if as_caffe and node.op_type == "MaxPool" else ():
            if a.name == "pads":
                a.ints[:] = [0, 0, 0, 0]
        if as_caffe and node.op_type == "MaxPool":
            node.attribute.append(helper.make_attribute("ceil_mode", 1))
    for field in (graph.node, graph.input, graph.initializer, graph.output, graph.value_info):
        del field[:]
    graph.node.extend(kept)
    graph.input.append(helper.make_tensor_value_info("data_0", 1, x.shape))
    graph.initializer.extend(numpy_helper.from_array(w, name) for name, w in weights.items())
    shape = np.array([1, 9216])
    graph.initializer.append(numpy_helper.from_array(shape, "OC2_DUMMY_1"))
    names = [kept[0].output[0], *POOLS, LOGITS]
    graph.output.extend(helper.make_tensor_value_info(name, 1, None) for name in names)
    changed.opset_import[0].version = 11
    *maps, logits = onnxruntime.InferenceSession(changed.SerializeToString()).run(
        names, {"data_0": x}
    )
    return [m.shape[-1] for m in maps], logits


# Coloured waves and edges: pictures enough, without a download.
row, column = np.mgrid[:227, :227].astype(np.float32)
pictures = []
for k in range(4):
    waves = [80 * np.sin((k + 1) * (row + (c - 1) * column) / 29) for c in range(3)]
    edge = 40 * np.sign(row - column + 40 * k - 60)
    pictures.append(np.stack(waves)[None] + edge)
for k, picture in enumerate(np.float32(pictures)):
    maps, logits = run(np.ascontiguousarray(picture[:, :, 1:225, 1:225]), as_caffe=False)
    caffes, wanted = run(picture, as_caffe=True)
    off = np.linalg.norm(logits - wanted) / np.linalg.norm(wanted)
    print(f"picture {k}: maps {maps} for {caffes}, logits {off:.0%} off")
    assert (maps, caffes) == ([54, 26, 12, 6], [55, 27, 13, 6])
    assert 0.1 < off, "the two agree now"
PYTHON
