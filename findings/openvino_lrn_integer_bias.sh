#!/usr/bin/env bash
# OpenVINO's CPU plugin cuts the bias of a local response normalisation to an integer.
#
# Expected: y = x / (bias + alpha / size * sum of squares) ** beta, with the bias of the file.
# Happens: a bias of 1.7 acts as 1, of 2.9 as 2, of .5 as 0, without a warning; whole numbers are right.
# Source: the run below; the formula: https://onnx.ai/onnx/operators/onnx__LRN.html
# Hurts: who deploys networks whose k was tuned (the paper's 2 and Caffe's 1 are whole, and unharmed):
# at .5 a place where all channels are 0 becomes 0 / 0.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  numpy==2.4.6 onnx==1.23.2 openvino==2026.4.1
cd "$folder"
venv/bin/python - <<'PYTHON'
import math

import numpy as np
import onnx
import openvino
from onnx import TensorProto, helper

print("openvino", openvino.__version__)
SIZE, ALPHA, BETA = 5, 0.6, 0.75
x = 3 * np.random.default_rng(0).standard_normal((1, 6, 2, 2)).astype(np.float32)


def formula(bias):
    squares = np.stack([(x[:, max(0, c - 2) : c + 3] ** 2).sum(1) for c in range(6)], 1)
    return x / (bias + ALPHA / SIZE * squares) ** BETA


for bias in (1.0, 2.0, 1.7, 2.9, 0.5):
    node = helper.make_node("LRN", ["x"], ["y"], size=SIZE, alpha=ALPHA, beta=BETA, bias=bias)
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, list(x.shape)) for n in "xy"]
    graph = helper.make_graph([node], "lrn", ends[:1], ends[1:])
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), "lrn.onnx")
    y = openvino.Core().compile_model("lrn.onnx", "CPU")([x])[0]
    given, cut = (float(np.abs(y - formula(b)).max()) for b in (bias, math.floor(bias)))
    print(f"bias {bias}: off by {given:.1e} from the formula, by {cut:.1e} with {math.floor(bias)}")
    assert cut < 1e-5, "the bias is not cut to an integer any more"
PYTHON
