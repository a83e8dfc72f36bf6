#!/usr/bin/env bash
# torchvision's alexnet begins with random biases, and its recipe decays them.
#
# Expected, after the paper and Caffe: biases begin at a constant, 0, .1 or 1, and never decay.
# Happens: each bias is uniform within 1/sqrt(inputs), as the weights are (conv1: std .030), since the
# model leaves it to nn.Conv2d and nn.Linear; and references/classification/train.py hands all of
# model.parameters() to one SGD, so that all 10,344 biases decay by lr x 1e-4 a step. The biases hide
# the pictures: of the untrained logits 8 to 10 % tell pictures apart, and 24 to 34 % do if
# the same weights have biases of 0.
# Source: torch/nn/modules/conv.py and linear.py, reset_parameters; documented for each layer, and
# https://github.com/pytorch/pytorch/issues/2639 for the decay; no word of either for alexnet.
# Hurts: who reproduces torchvision's alexnet elsewhere with biases of 0, or judges an initialisation
# by how it begins.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    torchvision==0.29.1 torch==2.14.1 numpy==2.4.6
cd "$folder"
venv/bin/python - <<'PYTHON'
import math

import torch
import torchvision

print("torchvision", torchvision.__version__, "torch", torch.__version__)
torch.manual_seed(0)
net = torchvision.models.alexnet().eval()
biases = {name: p for name, p in net.named_parameters() if name.endswith("bias")}
for name, bias in biases.items():
    inputs = math.prod(net.get_parameter(name.replace("bias", "weight")).shape[1:])
    bound = 1 / math.sqrt(inputs)
    print(f"{name:<18} std {bias.std():.4f}, within {bias.abs().max():.4f} of {bound:.4f}")
    assert 0.9 * bound < bias.abs().max() <= bound
print(f"{sum(b.numel() for b in biases.values()):,} biases")

# Smooth noise has the spectrum of photos, more or less.
noise = sum(
    torch.nn.functional.interpolate(torch.randn(16, 3, n, n), 224, mode="bilinear") for n in (4, 8, 32)
)


def share():
    """Part of the logits' size that differs from picture to picture."""
    with torch.no_grad():
        logits = net(noise)
    return (logits - logits.mean(0)).square().mean().sqrt() / logits.square().mean().sqrt()


# One step as the reference script makes it, where no gradient asks for any; at rate 1, to be seen.
before = {name: bias.detach().clone() for name, bias in biases.items()}
sgd = torch.optim.SGD(net.parameters(), lr=1.0, momentum=0.9, weight_decay=1e-4)
for p in net.parameters():
    p.grad = torch.zeros_like(p)
sgd.step()
for name, bias in biases.items():
    assert torch.allclose(bias, before[name] * (1 - 1e-4), rtol=1e-6, atol=0)
print("a step of SGD(model.parameters(), weight_decay=1e-4) shrinks every bias by rate x 1e-4")

drawn = share()
with torch.no_grad():
    for bias in biases.values():
        bias.zero_()
print(f"of the logits tells pictures apart: {drawn:.1%}; with biases of 0: {share():.1%}")
assert share() > 2 * drawn, "biases no longer hide the pictures"
PYTHON
