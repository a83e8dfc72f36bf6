#!/usr/bin/env bash
# Paddle's max_pool2d with ceil_mode keeps windows that hold padding alone, as the lowest float32.
#
# Expected: the map that PyTorch, ONNX and onnxruntime compute, or an error: a maximum over nothing
# has no value.
# Happens: of 5 x 5, windows of 2, stride 2, padding 1, Paddle makes 4 x 4 where the others make
# 3 x 3; its last row and column are -3.4028235e+38. The same with no padding where a stride is
# larger than the window (6 x 6, windows of 2, stride 3). A mean over such a map is -inf.
# Source: https://github.com/PaddlePaddle/Paddle/issues/64725 (closed; the shape is still so);
# PyTorch left such windows out from 1.8 on: https://github.com/pytorch/pytorch/issues/45357
# Hurts: who carries a network with ceil_mode from PyTorch to Paddle: fully connected weights no
# longer fit, or, behind a global average pool, they fit and the answer is infinite.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    paddlepaddle==3.3.1 onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6
cd "$folder"
venv/bin/python -W ignore - <<'PYTHON'
import numpy as np
import onnx
import onnxruntime
import paddle
from onnx import helper

print("paddlepaddle", paddle.__version__, "onnxruntime", onnxruntime.__version__)
onnxruntime.set_default_logger_severity(3)
LOWEST = np.finfo(np.float32).min


def by_onnxruntime(x, size, stride, pad):
    node = helper.make_node(
        "MaxPool",
        ["x"],
        ["y"],
        kernel_shape=[size] * 2,
        strides=[stride] * 2,
        pads=[pad] * 4,
        ceil_mode=1,
    )
    values = [helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, None) for n in "xy"]
    graph = helper.make_graph([node], "pool", values[:1], values[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10)
    return onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x})[0]


for n, size, stride, pad in ((5, 2, 2, 1), (6, 2, 3, 0)):
    x = np.arange(n * n, dtype=np.float32).reshape(1, 1, n, n)
    ours = paddle.nn.functional.max_pool2d(
        paddle.to_tensor(x), size, stride, pad, ceil_mode=True
    ).numpy()
    theirs = by_onnxruntime(x, size, stride, pad)
    print(f"{n} x {n}, window {size}, stride {stride}, padding {pad}")
    print("onnxruntime", theirs[0, 0].tolist())
    print("paddle     ", ours[0, 0].tolist())
    assert ours.shape[2] == theirs.shape[2] + 1, "the shapes agree now"
    assert (ours[0, 0, -1] == LOWEST).all() and (ours[0, 0, :, -1] == LOWEST).all()
    assert np.array_equal(ours[:, :, :-1, :-1], theirs)
    mean = paddle.nn.functional.adaptive_avg_pool2d(paddle.to_tensor(ours), 1).item()
    print("mean: onnxruntime", theirs.mean(), "paddle", mean)
    assert mean == -np.inf
PYTHON
