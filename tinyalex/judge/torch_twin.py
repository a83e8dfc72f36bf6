"""The networks in PyTorch, made from the same tables of rows.

The judge that is not ours, and what `bench` runs against. PyTorch has activations (N, C, H, W),
here in channels_last memory, and weights (O, C/groups, kh, kw); the columns of the first fully
connected layer then count (c, h, w) where ours count (h, w, c).
"""

from collections.abc import Mapping
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from tinyalex.errors import UsageError
from tinyalex.net.draws import Draws
from tinyalex.net.layers import (
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
from tinyalex.net.presets import Architecture
from tinyalex.net.shapes import layers
from tinyalex.net.windows import conv_size


def nchw(x: Tensor) -> Tensor:
    """Activations or weights with their axes in PyTorch's order."""
    return x.permute(0, 3, 1, 2)


class Twin:
    """An architecture in PyTorch.

    parameters: ours, by name, as arrays; kept as leaf tensors in PyTorch's layout. mean: the mean
    image. form: how lrn is computed, "module" as in nn.LocalResponseNorm, or "band" by a 1x1
    convolution of the squares, which is faster on a CPU.
    """

    def __init__(
        self,
        architecture: Architecture,
        parameters: Mapping[str, Any],
        mean: Any,
        form: Literal["module", "band"] = "module",
    ) -> None:
        self.rows, self.lrn = architecture.rows, lrn if form == "module" else lrn_by_band
        self.inputs = {layer.row.name: layer.input for layer in layers(self.rows)}
        self.mean = torch.tensor(mean)
        self.parameters = {
            name: self.convert(name, value).requires_grad_() for name, value in parameters.items()
        }

    def convert(self, name: str, value: Any) -> Tensor:
        """Tensor in PyTorch's layout of our parameter `name`, or of its gradient."""
        tensor = torch.tensor(value)
        if tensor.ndim == 4:
            return nchw(tensor).contiguous(memory_format=torch.channels_last)
        if tensor.ndim == 2:
            h, w, c = self.inputs[name.partition(".")[0]]
            return nchw(tensor.reshape(-1, h, w, c)).flatten(1)
        return tensor

    def forward(self, images: Any, draws: Draws) -> Tensor:
        """Logits of uint8 images (N, S, S, 3)."""
        return self.logits(self.apply(self.rows[0], torch.tensor(images), draws), draws)

    def logits(self, x: Tensor, draws: Draws) -> Tensor:
        """Logits of images that are cropped already, (N, 3, H, W)."""
        for row in self.rows[1:]:
            x = self.apply(row, x, draws)
        return x

    def apply(self, row: Row, x: Tensor, draws: Draws) -> Tensor:
        """Output of one row."""
        match row:
            case Augment():
                corner, flip, shift = map(torch.tensor, (draws.corner, draws.flip, draws.shift))
                scale = row.scale * draws.scale
                return nchw(augment(x, self.mean, corner, flip, shift, row.size, scale))
            case Conv2d():
                w, b = self._weights(row)
                return conv2d(x, w, b, row.stride, row.pad, row.groups, row.ceil)
            case Linear():
                return F.linear(x.flatten(1), *self._weights(row))
            case ReLU():
                return F.relu(x)
            case Tanh():
                return torch.tanh(x)
            case LRN():
                return self.lrn(x, row.n, row.k, row.alpha, row.beta, row.groups)
            case LRNMap():
                return lrn_map(x, row.n, row.k, row.alpha, row.beta)
            case MaxPool():
                return F.max_pool2d(x, row.size, row.stride, ceil_mode=row.ceil)
            case AvgPool():
                return F.avg_pool2d(x, row.size, row.stride, ceil_mode=row.ceil)
            case Dropout():
                kept = 1 - row.rate
                if not draws.training:
                    return x * kept if row.scale_at == "test" else x
                keep = torch.tensor(draws.keep[row.name]).reshape(-1, *self.inputs[row.name])
                y = x * nchw(keep).reshape(x.shape)
                return y / kept if row.scale_at == "train" else y
        raise UsageError(
            f"The network in PyTorch has no {row.kind!r}, which the layer {row.name} is: "
            "tinyalex/judge/torch_twin.py is the place to add it."
        )

    def _weights(self, row: Row) -> tuple[Tensor, Tensor]:
        return self.parameters[f"{row.name}.weight"], self.parameters[f"{row.name}.bias"]


def augment(
    images: Tensor,
    mean: Tensor,
    corner: Tensor,
    flip: Tensor,
    shift: Tensor,
    size: int,
    scale: float,
) -> Tensor:
    """Crop, flip, mean and colour shift, image by image, with the axes in our order."""
    views = []
    for image, at, mirrored, colour in zip(images - mean, corner, flip, shift, strict=True):
        top, left = at.tolist()
        view = image[top : top + size, left : left + size]
        views.append((view.flip(1) if mirrored else view) + colour)
    return scale * torch.stack(views)


def conv2d(
    x: Tensor, w: Tensor, b: Tensor, stride: int, pad: int, groups: int, ceil: bool
) -> Tensor:
    """Convolve. PyTorch rounds down: `ceil` is zeros for the windows that would be cut off."""
    if ceil:
        sides = zip(x.shape[2:], w.shape[2:], strict=True)
        down, right = (
            max(0, (conv_size(n, k, stride, pad, ceil) - 1) * stride + k - n - 2 * pad)
            for n, k in sides
        )
        x = F.pad(x, (0, right, 0, down))
    return F.conv2d(x, w, b, stride, pad, groups=groups)


def lrn(x: Tensor, n: int, k: float, alpha: float, beta: float, groups: int) -> Tensor:
    """Normalise tower by tower. PyTorch divides alpha by n."""
    towers = [F.local_response_norm(t, n, alpha * n, beta, k) for t in x.chunk(groups, 1)]
    return torch.cat(towers, 1)


def lrn_by_band(x: Tensor, n: int, k: float, alpha: float, beta: float, groups: int) -> Tensor:
    """`lrn` with the sum over neighbouring channels as a grouped 1x1 convolution."""
    c = x.shape[1] // groups
    i, j = torch.arange(c)[:, None], torch.arange(c)
    window = (i - n // 2 <= j) & (j < i - n // 2 + n)
    band = window.to(x.dtype).repeat(groups, 1)[:, :, None, None]
    return x * (k + alpha * F.conv2d(x * x, band, groups=groups)) ** -beta


def lrn_map(x: Tensor, n: int, k: float, alpha: float, beta: float) -> Tensor:
    before, after = n // 2, n - 1 - n // 2
    squares = F.pad(x * x, (before, after, before, after))
    return x * (k + alpha * F.avg_pool2d(squares, n, 1, divisor_override=1)) ** -beta
