"""The interface that every backend offers.

`y, cache = op(x, ...)` computes a layer; `op_backward(dy, cache)` returns the gradient of the loss
with respect to x, and for a layer with parameters a tuple: dx, then the gradient with respect to
each parameter, in the order of its row's `parameters`. What a cache holds is the backend's own
affair. Formulas stand in `tinyalex.reference`; what both must agree on at the edges stands here:

- relu: the derivative at 0 is 0.
- max_pool: of equal maxima the first in row-major order of the window takes the gradient.
- relu, dropout and max_pool: what an infinite gradient becomes is not specified, nor which pixel a
  window with a NaN hands its gradient to. A NaN in x reaches the loss.
- softmax_cross_entropy: a label that names no class is a ValueError, or on a GPU, which is not
  waited for, a loss that is NaN.
- conv2d and pools round the output size down; with `ceil` up, if the last window begins inside the
  padded input. Of a window cut off by the border, conv2d takes what lies beyond for zeros, a pool
  the maximum or the mean of the pixels inside.
- lrn: the window of n starts floor(n/2) channels below, is clipped to its tower, and alpha
  multiplies the plain sum of squares.
- augment: crop, then flip; the mean moves with the crop.
- No function draws a random number: crops, flips, colour shifts and dropout masks are arguments.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Protocol

Array = Any
"""A NumPy array, or the array type of another backend: made by `asarray`, read by `to_numpy`."""

Cache = Any

Role = Literal["both", "images", "tower", "neurons", "mask", "head", "labels"]
"""What an array is, where devices or ranks share a network out: the same for all images (the mean),
an entry for each image (images, their crops), a convolution's parameter, a linear layer's, an
activation or a dropout mask, the last layer's parameter, or labels. Two towers on two devices cut
parameters by output channel or neuron, activations and masks by channel or neuron, and have the
last layer and the labels on the first device alone. One device holds all of them whole."""

Fusion = tuple[Callable[..., tuple[Array, Cache]], Callable[..., Any]]
"""The forward and the backward of several layers in one."""

Trace = Callable[[str, int, int, int], None]
"""Hears of each exchange between two devices: the tensor, its bytes, and from which tower to which;
0 is a, 1 is b."""


class Backend(Protocol):
    """Activations (N, H, W, C) and (N, features), weights (O, kh, kw, C/groups) and (O, inputs)."""

    name: str

    fusions: Mapping[tuple[str, ...], Fusion]
    """Runs of row kinds that have one function, which takes its rows' arguments in row order."""

    def asarray(self, a: Any, role: Role = "both", /) -> Array: ...
    def to_numpy(self, a: Array, /) -> Any: ...
    def synchronize(self) -> None: ...

    # Copies that run beside the work under way. `upload` takes what `host_empty` made; the third
    # upload may take the place of the first. What `download` returns waits for its copies.
    def host_empty(self, shape: tuple[int, ...], dtype: Any, /) -> Any: ...
    def upload(self, a: Any, /) -> Array: ...
    def download(self, *arrays: Array) -> Callable[[], tuple[Any, ...]]: ...

    def augment(
        self,
        images: Array,
        mean: Array,
        corner: Array,
        flip: Array,
        shift: Array,
        size: int,
        scale: float,
    ) -> tuple[Array, Cache]: ...

    def conv2d(
        self, x: Array, w: Array, b: Array, stride: int, pad: int, groups: int, ceil: bool
    ) -> tuple[Array, Cache]: ...
    def conv2d_backward(self, dy: Array, cache: Cache, need_dx: bool = True) -> Any: ...

    def relu(self, x: Array) -> tuple[Array, Cache]: ...
    def relu_backward(self, dy: Array, cache: Cache) -> Array: ...

    def tanh(self, x: Array) -> tuple[Array, Cache]: ...
    def tanh_backward(self, dy: Array, cache: Cache) -> Array: ...

    def lrn(
        self, x: Array, n: int, k: float, alpha: float, beta: float, groups: int
    ) -> tuple[Array, Cache]: ...
    def lrn_backward(self, dy: Array, cache: Cache) -> Array: ...

    def lrn_map(
        self, x: Array, n: int, k: float, alpha: float, beta: float
    ) -> tuple[Array, Cache]: ...
    def lrn_map_backward(self, dy: Array, cache: Cache) -> Array: ...

    def max_pool(self, x: Array, size: int, stride: int, ceil: bool) -> tuple[Array, Cache]: ...
    def max_pool_backward(self, dy: Array, cache: Cache) -> Array: ...

    def avg_pool(self, x: Array, size: int, stride: int, ceil: bool) -> tuple[Array, Cache]: ...
    def avg_pool_backward(self, dy: Array, cache: Cache) -> Array: ...

    def linear(self, x: Array, w: Array, b: Array) -> tuple[Array, Cache]: ...
    def linear_backward(self, dy: Array, cache: Cache) -> tuple[Array, Array, Array]: ...

    def dropout(self, x: Array, keep: Array | None, scale: float) -> tuple[Array, Cache]: ...
    def dropout_backward(self, dy: Array, cache: Cache) -> Array: ...

    def softmax_cross_entropy(self, logits: Array, labels: Array) -> tuple[Array, Cache]: ...
    def softmax_cross_entropy_backward(self, cache: Cache) -> Array: ...

    def sgd_update(
        self,
        weights: Sequence[Array],
        gradients: Sequence[Array],
        velocities: Sequence[Array],
        rates: Sequence[float],
        momentum: float,
        decays: Sequence[float],
    ) -> None: ...
