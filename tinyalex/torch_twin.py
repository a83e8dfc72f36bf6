"""The same networks in PyTorch: the judge of the parity tests, and what `bench` runs against."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tinyalex.architectures import Architecture
from tinyalex.rows import (
    LRN,
    Augment,
    AvgPool,
    Conv2d,
    Dropout,
    Linear,
    LRNMap,
    MaxPool,
    ReLU,
    Row,
    Tanh,
)
from tinyalex.shapes import layers


class TorchTwin(nn.Module):
    """The rows of an architecture in PyTorch, (N, C, H, W) in channels_last memory.

    parameters: as of `draws.initial_parameters`, in the project's layout; converted once.
    lrn: "module" computes lrn by nn.LocalResponseNorm, "band" by a 1x1 convolution of the squares
    with a band matrix, which is faster on a CPU.
    """

    def __init__(
        self, architecture: Architecture, parameters: Mapping[str, Any], lrn: str = "module"
    ) -> None:
        super().__init__()
        self.rows, self.lrn = architecture.rows, lrn
        self.flat = {layer.row.name: layer.input for layer in layers(architecture.rows)}
        self.weights = nn.ParameterDict()
        for name, value in parameters.items():
            self.weights[name.replace(".", "_")] = nn.Parameter(self.to_torch(name, value))

    def to_torch(self, name: str, value: Any) -> Tensor:
        """A parameter, or its gradient, in PyTorch's layout."""
        t = torch.from_numpy(np.array(value))
        if t.ndim == 4:
            return t.permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)
        h, w, c = self.flat[name.split(".")[0]]
        if t.ndim == 2:  # columns (h, w, c) to (c, h, w)
            return t.reshape(-1, h, w, c).permute(0, 3, 1, 2).reshape(len(t), -1).contiguous()
        return t

    def to_numpy(self, name: str, value: Tensor) -> Any:
        """The way back."""
        t = value.detach()
        if t.ndim == 4:
            return t.permute(0, 2, 3, 1).contiguous().numpy()
        h, w, c = self.flat[name.split(".")[0]]
        if t.ndim == 2:
            t = t.reshape(-1, c, h, w).permute(0, 2, 3, 1).reshape(len(t), -1).contiguous()
        return t.numpy()

    def forward(self, x: Tensor, keep: Mapping[str, Tensor] | None = None) -> Tensor:
        """Logits of images after `augment`. keep: dropout masks (N, neurons); None draws them."""
        for row in self.rows[1:]:
            x = self.compute(row, x, keep)
        return x

    def compute(self, row: Row, x: Tensor, keep: Mapping[str, Tensor] | None) -> Tensor:
        match row:
            case Conv2d():
                w, b = self.weights[f"{row.name}_weight"], self.weights[f"{row.name}_bias"]
                return F.conv2d(x, w, b, row.stride, row.pad, groups=row.groups)
            case Linear():
                w, b = self.weights[f"{row.name}_weight"], self.weights[f"{row.name}_bias"]
                return F.linear(x.flatten(1), w, b)
            case ReLU():
                return F.relu(x)
            case Tanh():
                return torch.tanh(x)
            case MaxPool():
                return F.max_pool2d(x, row.size, row.stride, ceil_mode=row.ceil)
            case AvgPool():
                return average(x, row)
            case LRN():
                return normalise(x, row, self.lrn)
            case LRNMap():
                total = F.avg_pool2d(x * x, row.n, 1, row.n // 2, count_include_pad=True) * row.n**2
                return x * (row.k + row.alpha * total) ** -row.beta
            case Dropout():
                kept = 1 - row.rate
                scale = 1 / kept if row.scale_at == "train" else 1.0
                mask = torch.rand_like(x) < kept if keep is None else keep[row.name].view_as(x)
                return x * mask * scale
            case Augment():
                raise ValueError("images are augmented before they come to PyTorch")


def average(x: Tensor, row: AvgPool) -> Tensor:
    """Mean over windows that the border may cut off: by the pixels inside, as PyTorch's own does
    only for windows inside its padding."""
    area = torch.ones_like(x[:1, :1])
    size, stride = row.size, row.stride
    if row.ceil:
        over = [max(0, -(-(n - size) // stride) * stride + size - n) for n in x.shape[2:]]
        x, area = (F.pad(t, (0, over[1], 0, over[0])) for t in (x, area))
    return F.avg_pool2d(x, size, stride) / F.avg_pool2d(area, size, stride)


def normalise(x: Tensor, row: LRN, lrn: str) -> Tensor:
    """lrn, tower by tower. PyTorch divides alpha by n."""
    if lrn == "module":
        norm = nn.LocalResponseNorm(row.n, row.alpha * row.n, row.beta, row.k)
        return torch.cat([norm(tower) for tower in x.chunk(row.groups, 1)], 1)
    c = x.shape[1] // row.groups
    i, j = torch.meshgrid(torch.arange(c), torch.arange(c), indexing="ij")
    window = (j >= i - row.n // 2) & (j < i - row.n // 2 + row.n)
    band = window.to(x.dtype).repeat(row.groups, 1)[:, :, None, None]
    return x * (row.k + row.alpha * F.conv2d(x * x, band, groups=row.groups)) ** -row.beta


def images_for(architecture: Architecture, images: Any) -> Tensor:
    """uint8 (N, S, S, 3) to the network's input: centre crop around zero, no more."""
    size = architecture.data.size
    border = (architecture.data.image_size - size) // 2
    crop = images[:, border : border + size, border : border + size].astype(np.float32) - 127.5
    x = torch.from_numpy(crop * np.float32(architecture.data.scale)).permute(0, 3, 1, 2)
    return x.contiguous(memory_format=torch.channels_last)
