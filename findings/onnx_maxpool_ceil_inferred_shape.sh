#!/usr/bin/env bash
# onnx infers for MaxPool with ceil_mode a larger map than any runtime computes, below opset 22.
#
# Expected: shape inference names the shape that onnxruntime and onnx's own reference return.
# Happens: of a 5 x 5 map, windows of 2, stride 2, padding 1, both compute 3 x 3, as PyTorch does: a
# window that would begin in the padding on the right is left out. For opsets 11 to 21 onnx infers
# 4 x 4, for 22 and later 3 x 3. onnxruntime infers 4 x 4, too, warns, and answers 3 x 3.
# Source: https://github.com/onnx/onnx/issues/5711, mended by https://github.com/onnx/onnx/pull/5741
# for the newest opset; a model keeps the opset it was exported with.
# Hurts: who sizes a buffer or the next Linear by the inferred shape, as static compilers do.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6
cd "$folder"
venv/bin/python - <<'PYTHON'
import numpy as np
import onnx
import onnxruntime
from onnx import helper
from onnx.reference import ReferenceEvaluator

print("onnx", onnx.__version__, "onnxruntime", onnxruntime.__version__)
onnxruntime.set_default_logger_severity(3)
x = np.arange(25, dtype=np.float32).reshape(1, 1, 5, 5)
for opset in (12, 18, 21, 22, 24):
    pool = helper.make_node(
        "MaxPool", ["x"], ["y"], kernel_shape=[2, 2], strides=[2, 2], pads=[1] * 4, ceil_mode=1
    )
    graph = helper.make_graph(
        [pool],
        "pool",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    (output,) = onnx.shape_inference.infer_shapes(model).graph.output
    inferred = tuple(d.dim_value for d in output.type.tensor_type.shape.dim)
    (ran,) = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x})
    (evaluated,) = ReferenceEvaluator(model).run(None, {"x": x})
    print(f"opset {opset}: inferred {inferred}, onnxruntime {ran.shape}, reference {evaluated.shape}")
    assert ran.shape == evaluated.shape == (1, 1, 3, 3)
    assert inferred == ((1, 1, 4, 4) if opset < 22 else (1, 1, 3, 3)), "inference has changed"
PYTHON
