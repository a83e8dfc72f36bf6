#!/usr/bin/env bash
# onnx's own reference evaluator normalises only as many channels as the batch has images.
#
# Expected: ReferenceEvaluator, which is there to judge runtimes, computes LRN over all channels.
# Happens: with one image only channel 0 is divided by its neighbours' squares; the others come out as
# x / bias ** beta. With a batch of as many images as channels all are right.
# Source: https://github.com/onnx/onnx/issues/7805 (mended after 1.23.2), and the run below.
# Hurts: who checks an AlexNet, a GoogLeNet or an export of LRN against it: everybody else looks wrong.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 onnx==1.23.2
"$folder/venv/bin/python" - <<'PYTHON'
import numpy as np
import onnx
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

print("onnx", onnx.__version__)
ALPHA, BETA, BIAS, CHANNELS = 5e-1, 0.75, 2.0, 6
for images in (1, 2, CHANNELS):
    x = np.random.default_rng(0).standard_normal((images, CHANNELS, 2, 2)).astype(np.float32)
    squares = np.stack([(x[:, max(0, c - 2) : c + 3] ** 2).sum(1) for c in range(CHANNELS)], 1)
    right = x / (BIAS + ALPHA / 5 * squares) ** BETA
    node = helper.make_node("LRN", ["x"], ["y"], size=5, alpha=ALPHA, beta=BETA, bias=BIAS)
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, list(x.shape)) for n in "xy"]
    model = helper.make_model(helper.make_graph([node], "lrn", ends[:1], ends[1:]))
    y = ReferenceEvaluator(model).run(None, {"x": x})[0]
    good = [c for c in range(CHANNELS) if np.abs(y[:, c] - right[:, c]).max() < 1e-5]
    plain = [c for c in range(CHANNELS) if np.abs(y[:, c] - x[:, c] / BIAS**BETA).max() < 1e-5]
    print(f"batch of {images}: right in channels {good}; as if alone in {plain}")
    assert good == list(range(images)), "other channels are right now"
    assert plain == list(range(images, CHANNELS))
PYTHON
