#!/usr/bin/env bash
# Paddle's alexnet halves what its dropout layers pass at inference, where torchvision's does not.
#
# Expected: paddle.vision.models.alexnet has torchvision's layers, parameters and initial values, so
# torchvision's weights, transposed, give torchvision's logits; Paddle's own Dropout is the identity at
# inference unless told otherwise.
# Happens: this network tells it: mode="downscale_in_infer". Two layers halve, and with biases of 0 the
# logits are exactly a quarter of those with the usual mode; with trained biases another class wins.
# Source: python/paddle/vision/models/alexnet.py of paddlepaddle 3.3.1, and the run below.
# Hurts: who carries weights between the two, in either direction, and compares answers or calibrates.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check paddlepaddle==3.3.1
cd "$folder"
venv/bin/python -W ignore - <<'PYTHON'
import numpy as np
import paddle

print("paddle", paddle.__version__, "Dropout's own default:", paddle.nn.Dropout(0.5).mode)
paddle.seed(0)
net = paddle.vision.models.alexnet()
net.eval()
for name, parameter in net.named_parameters():
    if name.endswith("bias"):
        parameter.set_value(paddle.zeros_like(parameter))
x = paddle.to_tensor(np.random.default_rng(0).standard_normal((2, 3, 224, 224)).astype("float32"))
shipped = net(x).numpy()
drops = [layer for layer in net.sublayers() if isinstance(layer, paddle.nn.Dropout)]
print("modes in alexnet:", [drop.mode for drop in drops])
for drop in drops:
    drop.mode = "upscale_in_train"
usual = net(x).numpy()
ratio = float(np.linalg.norm(shipped) / np.linalg.norm(usual))
print(f"logits as shipped over those with the usual mode: {ratio:.6f}")
assert len(drops) == 2
assert abs(ratio - 0.25) < 1e-4, "dropout does not halve at inference any more"
PYTHON
