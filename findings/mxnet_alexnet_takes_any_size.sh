#!/usr/bin/env bash
# MXNet's alexnet has as many parameters as its first image asks for.
#
# Expected: a network of 61,100,840 parameters, that refuses an image which does not fit, as
# Paddle's does, or averages over it, as torchvision's does.
# Happens: fc6 takes its shape from the first image. 224 pixels make 61,100,840 parameters, 256 make
# 74,732,328 and 128 make 32,789,288, without a word; a checkpoint of the one does not load into the
# other, and only there does an error come.
# Source: mxnet/gluon/model_zoo/vision/alexnet.py gives Dense no in_units; deferred initialisation is
# documented, that it fixes the size of the images is not.
# Hurts: who trains on whole 256-pixel pictures and then evaluates crops of 224, or compares
# parameter counts and times with other AlexNets.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check mxnet==1.9.1 numpy==1.23.5
cd "$folder"
venv/bin/python -W ignore - <<'PYTHON'
import math

import mxnet as mx
from mxnet.gluon.model_zoo.vision import alexnet

print("mxnet", mx.__version__)
EXPECTED = {224: 61_100_840, 256: 74_732_328, 128: 32_789_288}
for size, expected in EXPECTED.items():
    net = alexnet()
    net.initialize()
    answer = net(mx.nd.zeros((1, 3, size, size)))
    count = sum(math.prod(p.shape) for p in net.collect_params().values())
    print(f"{size} pixels: {count:,} parameters, answer {answer.shape}")
    assert count == expected and answer.shape == (1, 1000)
    net.save_parameters(f"{size}.params")
net = alexnet()
net.load_parameters("256.params")
try:
    net(mx.nd.zeros((1, 3, 224, 224))).wait_to_read()
except mx.base.MXNetError as error:
    print("256's parameters, an image of 224:", str(error).strip().splitlines()[-1][:90])
else:
    raise AssertionError("an image of another size is taken now")
PYTHON
