#!/usr/bin/env bash
# OpenCV 4 divides an average pool by what the name of the file's producer suggests, not by the node.
#
# Expected: AveragePool's count_include_pad says whether padding counts in the divisor.
# Happens: the attribute is not looked at. With the producer's name "pytorch" padding counts, with any
# other it does not: the corner of a 3 x 3 pool over ones is 4/9 or 1, in either case for both values.
# Source: readNetFromONNX of the opencv-python-headless 4.14.0.94 wheel, as run below; the attribute:
# https://onnx.ai/onnx/operators/onnx__AveragePool.html
# Hurts: who writes ONNX files by another way than torch.onnx, or passes them through a tool that puts
# its own name in. A depthwise convolution with weights 1/9 says the same and is not guessed at.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  numpy==2.4.6 onnx==1.23.2 opencv-python-headless==4.14.0.94
"$folder/venv/bin/python" - <<'PYTHON'
import cv2
import numpy as np
from onnx import TensorProto, helper

print("opencv", cv2.__version__)
ones = np.ones((1, 1, 4, 4), np.float32)
for producer in ("", "pytorch"):
    for counted in (0, 1):
        node = helper.make_node(
            "AveragePool", ["x"], ["y"], kernel_shape=[3, 3], pads=[1, 1, 1, 1],
            count_include_pad=counted,
        )
        ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, list(ones.shape)) for n in "xy"]
        model = helper.make_model(
            helper.make_graph([node], "pool", ends[:1], ends[1:]),
            opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name=producer,
        )
        net = cv2.dnn.readNetFromONNX(np.frombuffer(model.SerializeToString(), np.uint8))
        net.setInput(ones)
        corner = float(net.forward()[0, 0, 0, 0])
        print(f"producer {producer!r:9} count_include_pad {counted}: corner {corner:.3f}")
        assert abs(corner - (4 / 9 if producer else 1)) < 1e-6, "the attribute is heeded now"
PYTHON
