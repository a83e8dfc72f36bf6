"""The networks in PyTorch, made from the same tables of rows: the judge that is not ours.

Activations are (N, C, H, W) there and weights (O, C/groups, kh, kw), so weights and masks are
permuted on the way, and the columns of the first fully connected layer go from (h, w, c) to
(c, h, w).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from tinyalex.rows import LRN, Augment, AvgPool, Conv2d, Dropout, Linear, LRNMap, MaxPool, ReLU, Tanh
from tinyalex.shapes import layers


class Twin:
    """An architecture with its parameters as PyTorch tensors, of the dtype of the arrays given."""

    def __init__(self, architecture, parameters, mean):
        self.layers = layers(architecture.rows)
        self.inputs = {layer.row.name: layer.input for layer in self.layers}
        self.parameters = {
            name: self.to_torch(name, array).requires_grad_() for name, array in parameters.items()
        }
        self.mean = torch.tensor(mean)

    def to_torch(self, name, array):
        """A copy of a parameter (or of its gradient) in PyTorch's order."""
        tensor = torch.tensor(array)
        if tensor.ndim == 4:
            return tensor.permute(0, 3, 1, 2).contiguous()
        if tensor.ndim == 2:
            h, w, c = self.inputs[name.removesuffix(".weight")]
            return tensor.reshape(-1, h, w, c).permute(0, 3, 1, 2).reshape(tensor.shape)
        return tensor

    def forward(self, images, draws):
        """Logits of uint8 images (N, S, S, 3)."""
        x = torch.tensor(images)
        for layer in self.layers:
            x = self.row(layer.row, x, draws)
        return x

    def row(self, row, x, draws):
        """One row, with the arguments that the table and the draws give it."""
        match row:
            case Augment():
                return augment(x, self.mean, draws, row.size, row.scale)
            case Conv2d():
                return F.conv2d(x, *self.of(row), stride=row.stride, padding=row.pad, groups=row.groups)
            case Linear():
                return F.linear(x.flatten(1), *self.of(row))
            case ReLU():
                return F.relu(x)
            case Tanh():
                return torch.tanh(x)
            case LRN():
                return lrn(x, row.n, row.k, row.alpha, row.beta, row.groups)
            case LRNMap():
                return lrn_map(x, row.n, row.k, row.alpha, row.beta)
            case MaxPool():
                return F.max_pool2d(x, row.size, row.stride, ceil_mode=row.ceil)
            case AvgPool():
                return F.avg_pool2d(x, row.size, row.stride, ceil_mode=row.ceil)
            case Dropout():
                return dropout(x, row, draws.keep.get(row.name))

    def of(self, row):
        return self.parameters[f"{row.name}.weight"], self.parameters[f"{row.name}.bias"]
