"""The interface that every backend offers, and how one is chosen.

`y, cache = op(x, ...)` computes a layer; `op_backward(dy, cache)` returns the gradient of the loss
by x, and for layers with parameters a tuple dx, dw, db. What a cache holds is the backend's own
affair. Formulas stand in `tinyalex.reference`; what both backends must agree on at the edges stands
here:

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

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Protocol, cast

from tinyalex.errors import UsageError
from tinyalex.system import doctor, memory

Array = Any
"""A NumPy array, or the array type of another backend: made by `asarray`, read by `to_numpy`."""

Cache = Any

Role = Literal["both", "tower", "mask", "head"]
"""Where an array belongs when a network's two towers lie on two devices: on both (images, crops),
cut by output channel or neuron (parameters), cut by channel or neuron (activations, dropout masks),
or on the first device alone (the last layer and the labels). One device holds all of them whole."""

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


def _reference(gpus: Sequence[int], precision: str, trace: Trace) -> Backend:
    memory.keep_freed()
    return cast(Backend, importlib.import_module("tinyalex.reference"))


def _gpu(gpus: Sequence[int], precision: str, trace: Trace) -> Backend:
    missing = () if doctor.simulated() else doctor.missing()
    if missing:
        raise UsageError(
            f"The GPU backend cannot run here without {', '.join(missing)}. What to install: "
            "tinyalex doctor. To do without a GPU: --backend reference, or, slowly, Numba's "
            "simulator with NUMBA_ENABLE_CUDASIM=1 in the environment."
        )
    if not importlib.util.find_spec("numba"):
        raise UsageError("Numba's simulator needs Numba: pip install 'tinyalex[test]'.")
    gpu, device = (importlib.import_module(f"tinyalex.gpu{name}") for name in ("", ".device"))
    places = [device.Place(number, precision) for number in gpus]
    device.use(places[0])
    if len(places) == 2:
        two_gpu = importlib.import_module("tinyalex.gpu.two_gpu")
        return cast(Backend, two_gpu.TwoGPU(gpu, places, trace))
    return cast(Backend, gpu)


def _auto(gpus: Sequence[int], precision: str, trace: Trace) -> Backend:
    """The GPU if one really answers, else the reference, which runs anywhere."""
    answers = not doctor.simulated() and not doctor.missing()
    return BACKENDS["gpu" if answers else "reference"](gpus, precision, trace)


BACKENDS: dict[str, Callable[[Sequence[int], str, Trace], Backend]] = {
    "auto": _auto,
    "reference": _reference,
    "gpu": _gpu,
}
"""Every choice of --backend, and how it is made. Another backend is another entry."""

PRECISIONS = ("fp32", "tf32", "bf16")


def get_backend(
    name: str,
    gpus: Sequence[int] = (0,),
    precision: str = "fp32",
    trace: Trace = lambda *exchange: None,
) -> Backend:
    """The backend of that name, imported now. Raises UsageError if it cannot run here.

    "auto" takes the GPU if one really answers. gpus: one device, or one for each tower. precision:
    how a GPU multiplies, fp32, tf32 or bf16. trace: hears what two devices exchange. The reference
    has no use for these; with it the process keeps the memory that it frees.
    """
    if name not in BACKENDS:
        raise UsageError(f"There is no backend {name!r}. Known: {', '.join(BACKENDS)}.")
    return BACKENDS[name](gpus, precision, trace)
