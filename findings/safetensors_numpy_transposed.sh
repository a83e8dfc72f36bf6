#!/usr/bin/env bash
# safetensors.numpy.save_file writes a transposed NumPy view in the order of its memory.
#
# Expected: the array that is loaded equals the array that was saved, whatever its strides; PyTorch's
# side of the same package refuses or copies tensors that are not contiguous.
# Happens: the shape of the view is written beside the bytes of the array below it, without an error
# or a warning, so that the numbers come back in other places.
# Source: https://github.com/huggingface/safetensors/issues/825
# Hurts: who converts weights between (O, I, kh, kw) and (O, kh, kw, I), or Keras' (in, out) and
# PyTorch's (out, in), by .transpose() and saves the view. numpy.ascontiguousarray before saving helps.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 safetensors==0.8.0
cd "$folder"
venv/bin/python - <<'PYTHON'
import numpy as np
import safetensors
from safetensors.numpy import load_file, save_file

print("safetensors", safetensors.__version__, "numpy", np.__version__)
weight = np.arange(6, dtype=np.float32).reshape(2, 3)
save_file({"view": weight.T, "copy": np.ascontiguousarray(weight.T)}, "w.safetensors")
back = load_file("w.safetensors")
print("saved", weight.T.tolist())
print("view ", back["view"].tolist())
print("copy ", back["copy"].tolist())
assert np.array_equal(back["copy"], weight.T)
assert back["view"].shape == weight.T.shape
assert not np.array_equal(back["view"], weight.T), "a transposed view comes back right now"
assert np.array_equal(back["view"].ravel(), weight.ravel())
PYTHON
